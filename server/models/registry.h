/*
 * registry.h - which models there are, by name and version, and which of them are in memory.
 *
 * One mutex protects everything; models are handed out with a reference, so that what a request has found stays whatever
 * happens to the list. The loader's thread is the only one that changes it (loader.h).
 */
#ifndef SERVER_MODELS_REGISTRY_H
#define SERVER_MODELS_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/config.h"
#include "server/work/model.h"

enum { MODEL_ID_BYTES = CONFIG_MAX_NAME + 16 };

enum model_state { MODEL_UNLOADED, MODEL_LOADING, MODEL_READY, MODEL_FAILED };

/* "unloaded", "loading", "ready", "failed" */
const char *model_state_name(enum model_state state);

/* One line of the list. */
struct listed {
    char id[MODEL_ID_BYTES];
    struct config_model configured; /* owned */
    enum model_state state;
    struct model *model;   /* a reference; NULL unless it is ready */
    uint64_t fingerprint;  /* of the folder's files when it was last opened */
    size_t bytes;          /* of memory then; 0: it never was */
    vit_status failure;    /* why it failed, in a word and in words; VIT_OK and "": it did not */
    char why[400];
    int64_t failed_us;     /* and when; job_clock_us() */
    int64_t used_us;       /* when it was last found; job_clock_us() */
};

struct registry;

/* NULL when memory is short. */
struct registry *registry_create(void);
/* Accepts NULL. Lets go of every model. */
void registry_free(struct registry *registry);

enum found {
    FOUND_READY,   /* *model, with a reference for the caller */
    FOUND_LAZY,    /* not in memory, but loader_load() brings it there: *id */
    FOUND_AWAY,    /* not in memory, and an operator has to load it: *id */
    FOUND_NOTHING
};
/* name: NAME, NAME:VERSION (as `version` does in words of its own), or NULL or "" for the first configured. Without a version
 * the highest of that name that is ready or lazy. model NULL: who asks only looks, which does not count as use. */
enum found registry_find(struct registry *registry, const char *name, const char *version, struct model **model,
                         char id[MODEL_ID_BYTES]);

/* How many versions a name has. */
size_t registry_versions(struct registry *registry, const char *name);

/* A copy of the list in the order of the configuration; NULL when memory is short. */
struct listed *registry_list(struct registry *registry, size_t *count);
void registry_list_free(struct listed *list, size_t count);
/* The same line by line: that of a model by its id, to be released; false: there is none. */
bool registry_look(struct registry *registry, const char *id, struct listed *listed);
void listed_release(struct listed *listed);

/* "a, b:1, b:2" for people, cut to fit. */
void registry_names(struct registry *registry, char *names, size_t size);
/* Memory of the models that are ready; of those that never make room for others, without that of one id. */
size_t registry_bytes(struct registry *registry);
size_t registry_fixed_bytes(struct registry *registry, const char *except);

/* How long a worker may take for a batch of any model that is ready: ten times what its first image makes one expect, since
 * explanations and neighbours take time, too. */
int64_t registry_patience_us(struct registry *registry);

/* ---- for the loader ---- */

/* Puts a new list, which it takes over, in the place of the old one. */
void registry_replace(struct registry *registry, struct listed *list, size_t count);
/* A model's state. The model that was there is let go of. */
void registry_set(struct registry *registry, const char *id, enum model_state state);
/* It is ready; model is taken over. */
void registry_set_ready(struct registry *registry, const char *id, struct model *model, uint64_t fingerprint);
/* It cannot be had; fingerprint and bytes: as far as it was opened, else 0. */
void registry_set_failed(struct registry *registry, const char *id, vit_status status, const char *why,
                         uint64_t fingerprint, size_t bytes);
/* Unloads the lazy model, other than `except`, that has not been used for the longest; false: there is none. */
bool registry_evict(struct registry *registry, const char *except, char evicted[MODEL_ID_BYTES]);

#endif

/*
 * loader.h - the thread that brings models into memory and out of it, one at a time.
 *
 * Opening a model takes from milliseconds to minutes, so nobody waits for it: requests are handed over with a function to
 * be called when all is done, on the loader's thread. A model that replaces another is warm before anybody finds it, and
 * the old one serves until then. All functions are thread-safe.
 *
 * Memory: with config.model_memory_bytes, models that are configured as lazy give way to others, those first that have not
 * been used for the longest. What is in use is freed when its last request has ended, so that for a moment there is more.
 */
#ifndef SERVER_MODELS_LOADER_H
#define SERVER_MODELS_LOADER_H

#include <stdbool.h>
#include <stddef.h>

#include "server/metrics.h"
#include "server/models/registry.h"

struct loader;

/* Both are borrowed; workers: how many sessions a model needs. NULL when memory or threads are short. */
struct loader *loader_start(struct registry *registry, struct metrics *metrics, size_t workers);
/* Ends what is under way, and calls back for the rest with VIT_ERR_UNSUPPORTED. Accepts NULL. */
void loader_stop(struct loader *loader);

/* The models of a configuration, all or none: opens those that are new, are configured otherwise or have other files, then
 * replaces the list at once. config is borrowed until done, with VIT_OK or the first failure. */
typedef void loader_applied(void *context, vit_status status, const vit_error *error);
bool loader_apply(struct loader *loader, const struct config *config, loader_applied *done, void *context);

/* What is asked of one model, by its id. */
enum loader_wish {
    LOADER_NEED,   /* for a request: bring it into memory; at once if it is there. What has just failed is not tried again,
                    * unless its folder has other files, so that requests for it do not keep the loader from others */
    LOADER_LOAD,   /* the same for an operator, who has a reason to try again */
    LOADER_RELOAD, /* the same, anew if its folder has other files */
    LOADER_UNLOAD
};
/* status VIT_OK: model is the one asked for, with a reference for the callee (NULL for LOADER_UNLOAD). VIT_ERR_ARGUMENT: there
 * is none of that id. VIT_ERR_NO_MEMORY: the budget. Others: what is wrong with the folder. */
typedef void loader_done(void *context, struct model *model, vit_status status, const vit_error *error);
/* Whether nobody waits for the answer any more. loader_sweep() asks; then it calls done, with VIT_ERR_UNSUPPORTED, and what has
 * not begun never does. Both are called on its thread, and must not call the loader. */
typedef bool loader_given_up(void *context);
/* given_up NULL: it waits for as long as it takes. */
bool loader_ask(struct loader *loader, enum loader_wish wish, const char *id, loader_given_up *given_up, loader_done *done,
                void *context);
void loader_sweep(struct loader *loader);

/* Whether there is something that loader_stop() would wait for. */
bool loader_is_busy(struct loader *loader);

#endif

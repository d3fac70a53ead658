/*
 * model.h - a model as the workers run it: the engine's model, a session for each worker, its lane in the queue.
 *
 * Counted by reference. Whoever lists a model holds one reference, every request that found it there another; so a model
 * that is replaced or unloaded goes on serving what had found it. The last to let go may be the thread that all clients wait
 * for, so it puts the model aside, for a thread with time to free. All but the lane is constant once it is open, and
 * sessions[i] belongs to worker i.
 */
#ifndef SERVER_WORK_MODEL_H
#define SERVER_WORK_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/config.h"
#include "server/metrics.h"
#include "server/work/lane.h"
#include "server/work/words.h"
#include "vit.h"

struct model {
    char *id;            /* NAME or NAME:VERSION; for metrics, logs and people */
    char *name;
    int version;         /* as configured; 0: none */
    uint64_t serial;     /* no other model of this process has it */
    vit_model *vit;
    bool draft;          /* decode with vit_preprocess_decode() */
    vit_session **sessions; /* [workers] */
    size_t workers;
    size_t bytes;        /* of memory: weights and sessions */
    int64_t image_us;    /* what one image took when it was warmed up, all workers at the same time */
    struct words *words; /* of a model with a text tower: the labels it is configured with; NULL: none */
    struct lane lane;
    struct model_metrics *metrics;
    atomic_size_t references;
    struct model *next_unused;
};

/* NAME or NAME:VERSION. */
void model_make_id(const struct config_model *configured, char id[CONFIG_MAX_NAME + 16]);

/* How the engine is to open a model of the configuration. */
vit_options model_options(const struct config_model *configured);

/* Opens the folder, and runs the model once in a session for each worker, all at the same time. The model has one
 * reference. *err names the model. */
vit_status model_open(struct model **model, const struct config_model *configured, size_t workers, struct metrics *metrics,
                      vit_error *err);

/* The classes that it scores where a request names none: its labels, or the engine's; 0: none. */
size_t model_class_count(const struct model *model);

/* Thread-safe. model_unref() accepts NULL; neither waits for anything. */
struct model *model_ref(struct model *model);
void model_unref(struct model *model);
/* Frees the models to which nobody refers any more, which takes tens of milliseconds for each GB. Thread-safe. */
void model_free_unused(void);

#endif

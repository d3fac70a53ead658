/* model.c - opens a model and warms it up, beside whatever else is running. */
#include "server/work/model.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/failure.h"
#include "server/work/job.h"

void model_make_id(const struct config_model *configured, char id[CONFIG_MAX_NAME + 16])
{
    if (configured->version)
        snprintf(id, CONFIG_MAX_NAME + 16, "%s:%d", configured->name, configured->version);
    else
        snprintf(id, CONFIG_MAX_NAME + 16, "%s", configured->name);
}

vit_options model_options(const struct config_model *configured)
{
    return (vit_options){.dtype = configured->dtype == DTYPE_AUTO ? vit_dtype_auto() : (vit_dtype)configured->dtype,
                         .image_size = (size_t)configured->image_size};
}

/* ---- warming up ---- */

struct warming {
    struct model *model;
    size_t worker;
    pthread_t thread;
    int64_t image_us;
    vit_status status;
    vit_error error;
};

/* One image faults in the weights and OpenBLAS's buffers, which the first request would otherwise pay for. */
static void *warm_up(void *argument)
{
    struct warming *warming = argument;
    struct model *model = warming->model;
    vit_session **session = &model->sessions[warming->worker];
    const vit_model_info *info = vit_model_describe(model->vit);
    float *pixels = calloc(3 * info->image_height * info->image_width, sizeof *pixels);
    float *logits = calloc(info->classes + 1, sizeof *logits);
    float *features = calloc(info->embedding_width + 1, sizeof *features);
    const vit_item item = {.pixels = pixels, .logits = info->classes ? logits : NULL, .features = features};
    if (!pixels || !logits || !features)
        warming->status = failure_set(&warming->error, VIT_ERR_NO_MEMORY, "out of memory");
    else
        warming->status = vit_session_create(session, model->vit, model->lane.max_batch, &warming->error);
    const int64_t start = job_clock_us();
    if (warming->status == VIT_OK)
        warming->status = vit_session_run(*session, &item, 1, &warming->error);
    warming->image_us = job_clock_us() - start;
    free(features);
    free(pixels);
    free(logits);
    return NULL;
}

static vit_status warm_up_all(struct model *model, vit_error *err)
{
    struct warming *warmings = calloc(model->workers, sizeof *warmings);
    vit_status status = warmings ? VIT_OK : failure_set(err, VIT_ERR_NO_MEMORY, "out of memory");
    size_t started = 0;
    while (status == VIT_OK && started < model->workers) {
        warmings[started] = (struct warming){.model = model, .worker = started};
        const int error = pthread_create(&warmings[started].thread, NULL, warm_up, &warmings[started]);
        if (error)
            status = failure_set(err, VIT_ERR_NO_MEMORY, "cannot start a thread: %s", strerror(error));
        else
            started++;
    }
    for (size_t i = 0; i < started; i++) {
        pthread_join(warmings[i].thread, NULL);
        if (status == VIT_OK && warmings[i].status != VIT_OK)
            status = failure_set(err, warmings[i].status, "%s", warmings[i].error.message);
        else if (status == VIT_OK)
            model->bytes += vit_session_bytes(model->sessions[i]);
        if (warmings[i].image_us > model->image_us)
            model->image_us = warmings[i].image_us;
    }
    free(warmings);
    return status;
}

/* ---- life ---- */

static void model_free(struct model *model)
{
    words_free(model->words);
    for (size_t i = 0; model->sessions && i < model->workers; i++)
        vit_session_free(model->sessions[i]);
    free(model->sessions);
    vit_model_free(model->vit);
    free(model->id);
    free(model->name);
    free(model);
    malloc_trim(0); /* else what it was made of stays with the threads that made it */
}

/* The labels that it is configured with, embedded once and for all. */
static vit_status read_labels(struct model *model, const struct config_model *configured, vit_error *err)
{
    const char *why = "";
    const vit_model_info *info = vit_model_describe(model->vit);
    if (*configured->labels == '\0' && *configured->template == '\0')
        return VIT_OK;
    if (!info->text)
        return failure_set(err, VIT_ERR_UNSUPPORTED, "%s: it has classes of its own, and no text tower to read others",
                    *configured->labels != '\0' ? "labels" : "template");
    if (*configured->labels == '\0')
        return failure_set(err, VIT_ERR_UNSUPPORTED, "template: there are no labels that it could be of");
    model->words = words_create(info->embedding_width, configured->template);
    if (!model->words || !words_add_list(model->words, configured->labels, '\n', &why))
        return failure_set(err, VIT_ERR_UNSUPPORTED, "labels: %s", model->words ? why : "out of memory");
    return words_encode(model->words, model->sessions[0], err);
}

static vit_status open_engine(struct model *model, const struct config_model *configured, vit_error *err)
{
    const vit_options options = model_options(configured);
    vit_status status = vit_model_open(&model->vit, configured->path, &options, err);
    if (status == VIT_OK) {
        model->bytes = vit_model_bytes(model->vit);
        status = warm_up_all(model, err);
    }
    if (status == VIT_OK)
        status = read_labels(model, configured, err);
    return status;
}

static vit_status fill(struct model *model, const struct config_model *configured, size_t workers,
                       struct metrics *metrics, const char *id, vit_error *err)
{
    static atomic_uint_fast64_t serials;
    model->id = strdup(id);
    model->name = strdup(configured->name);
    model->version = configured->version;
    model->serial = atomic_fetch_add(&serials, 1) + 1;
    model->draft = configured->draft;
    model->sessions = calloc(workers, sizeof(vit_session *));
    model->workers = workers;
    model->lane = (struct lane){.max_batch = (size_t)configured->max_batch_size,
                                .max_delay_us = configured->max_queue_delay_us};
    model->metrics = metrics_model(metrics, id);
    atomic_init(&model->references, 1);
    if (!model->id || !model->name || !model->sessions || !model->metrics)
        return failure_set(err, VIT_ERR_NO_MEMORY, "out of memory");
    return open_engine(model, configured, err);
}

vit_status model_open(struct model **model, const struct config_model *configured, size_t workers, struct metrics *metrics,
                      vit_error *err)
{
    char id[CONFIG_MAX_NAME + 16];
    vit_error why = {{0}};
    struct model *opened = calloc(1, sizeof *opened);
    model_make_id(configured, id);
    vit_status status = opened ? fill(opened, configured, workers, metrics, id, &why)
                               : failure_set(&why, VIT_ERR_NO_MEMORY, "out of memory");
    if (status == VIT_OK) {
        *model = opened;
        return VIT_OK;
    }
    if (opened)
        model_free(opened);
    return failure_set(err, status, "model %s: %.310s", id, why.message);
}

size_t model_class_count(const struct model *model)
{
    return model->words ? model->words->count : vit_model_describe(model->vit)->classes;
}

struct model *model_ref(struct model *model)
{
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

static struct model *_Atomic unused;

void model_unref(struct model *model)
{
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) > 1)
        return;
    model->next_unused = atomic_load(&unused);
    while (!atomic_compare_exchange_weak(&unused, &model->next_unused, model))
        ;
}

void model_free_unused(void)
{
    struct model *next;
    for (struct model *model = atomic_exchange(&unused, NULL); model; model = next) {
        next = model->next_unused;
        model_free(model);
    }
}

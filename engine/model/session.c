/* session.c - the working memory of one thread, and the run of a batch in it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/explain/explain.h"
#include "engine/model/model.h"

struct vit_session {
    const vit_model *model;
    size_t max_batch;
    float *memory; /* as arch->memory() says for max_batch */
    struct arch_image *images;            /* [max_batch] */
    struct raw_map *raw;                  /* [max_batch] */
    struct attention_observer *observers; /* [max_batch] */
};

vit_status vit_session_create(vit_session **session, const vit_model *model, size_t max_batch, vit_error *err)
{
    size_t bytes;
    if (max_batch == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a session needs room for at least one image");
    vit_session *created = calloc(1, sizeof *created);
    if (created == NULL || !size_multiply(model->arch->memory(model->state, max_batch), sizeof(float), &bytes)) {
        free(created);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a session of %zu images", max_batch);
    }
    *created = (vit_session){.model = model, .max_batch = max_batch};
    created->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    created->images = calloc(max_batch, sizeof *created->images);
    created->raw = calloc(max_batch, sizeof *created->raw);
    created->observers = calloc(max_batch, sizeof *created->observers);
    if (created->memory == NULL || created->images == NULL || created->raw == NULL || created->observers == NULL) {
        vit_session_free(created);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a session of %zu images (%zu bytes)", max_batch,
                             bytes);
    }
    *session = created;
    return VIT_OK;
}

void vit_session_free(vit_session *session)
{
    if (session == NULL)
        return;
    free(session->memory);
    free(session->images);
    free(session->raw);
    free(session->observers);
    free(session);
}

vit_status vit_explain_shape(const vit_model *model, const vit_explain *explain, size_t *layers, size_t *heads,
                             vit_error *err)
{
    return explain_shape(&model->info, explain, layers, heads, err);
}

/* Gives image i its observer, when an explanation is wanted. */
static vit_status observe(vit_session *session, const vit_item *item, size_t i, vit_error *err)
{
    const vit_model_info *info = &session->model->info;
    size_t layers, heads;
    session->images[i].observer = NULL;
    if (item->explain == NULL || item->explain->method == VIT_ATTENTION_NONE)
        return VIT_OK;
    vit_status status = explain_shape(info, item->explain, &layers, &heads, err);
    if (status != VIT_OK)
        return status;
    session->raw[i] = (struct raw_map){.info = info, .explain = item->explain, .map = item->map,
                                       .has_class_token = info->prefix_tokens > 0};
    session->observers[i] = raw_observer(&session->raw[i]);
    session->images[i].observer = &session->observers[i];
    return VIT_OK;
}

static vit_status check_count(const vit_session *session, size_t count, vit_error *err)
{
    if (count == 0 || count > session->max_batch)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a batch of %zu images: 1 to %zu are possible", count,
                             session->max_batch);
    return VIT_OK;
}

static vit_status prepare(vit_session *session, const vit_item *items, size_t count, vit_error *err)
{
    vit_status bad_count = check_count(session, count, err);
    if (bad_count != VIT_OK)
        return bad_count;
    for (size_t i = 0; i < count; i++) {
        session->images[i] = (struct arch_image){.pixels = items[i].pixels, .logits = items[i].logits,
                                                 .features = items[i].features};
        vit_status status = observe(session, &items[i], i, err);
        if (status != VIT_OK)
            return status;
    }
    return VIT_OK;
}

/* Finite weights can still overflow; no caller should have to print an infinity. */
static vit_status check_logits(const vit_session *session, size_t count, vit_error *err)
{
    for (size_t i = 0; i < count; i++)
        for (size_t class = 0; class < session->model->info.classes; class++)
            if (!isfinite(session->images[i].logits[class]))
                return vit_error_set(err, VIT_ERR_FORMAT, "the model's weights give a logit that is not finite");
    return VIT_OK;
}

vit_status vit_session_run(vit_session *session, const vit_item *items, size_t count, vit_error *err)
{
    const vit_model *model = session->model;
    vit_status status = prepare(session, items, count, err);
    if (status != VIT_OK)
        return status;
    const struct compute compute = {.kernels = model->kernels};
    model->arch->forward(model->state, &compute, session->memory, session->images, count);
    return check_logits(session, count, err);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One forward pass over black images, for the calls it makes. The calls refer to pixels and logits. */
static vit_status trace_forward(vit_session *session, size_t count, const float *pixels, float *logits,
                                struct gemm_trace *trace, vit_error *err)
{
    const vit_model *model = session->model;
    const struct compute compute = {.kernels = model->kernels, .trace = trace};
    for (size_t i = 0; i < count; i++)
        session->images[i] = (struct arch_image){.pixels = pixels, .logits = logits};
    model->arch->forward(model->state, &compute, session->memory, session->images, count);
    if (trace->out_of_memory)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to trace a forward pass");
    return VIT_OK;
}

vit_status vit_session_gemm_floor(vit_session *session, size_t count, double *flops, double *seconds, vit_error *err)
{
    const vit_model_info *info = &session->model->info;
    struct gemm_trace trace = {0};
    vit_status status = check_count(session, count, err);
    if (status != VIT_OK)
        return status;
    float *pixels = calloc(3 * info->image_height * info->image_width, sizeof *pixels);
    float *logits = calloc(info->classes, sizeof *logits);
    if (pixels == NULL || logits == NULL)
        status = vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to trace a forward pass");
    else
        status = trace_forward(session, count, pixels, logits, &trace, err);
    if (status == VIT_OK) {
        double start = seconds_now();
        for (size_t i = 0; i < trace.count; i++)
            gemm_run(&trace.calls[i], NULL);
        *seconds = seconds_now() - start;
        *flops = gemm_trace_flops(&trace);
    }
    gemm_trace_release(&trace);
    free(pixels);
    free(logits);
    return status;
}

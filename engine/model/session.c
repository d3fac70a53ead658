/* session.c - the working memory of one thread, and the run of a batch in it. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/finite.h"
#include "engine/base/size.h"
#include "engine/model/session.h"

/* ---- memory ---- */

/* Hands out pieces of an allocation; from NULL it only counts. */
struct pieces {
    float *memory;
    size_t used; /* floats */
    bool overflow;
};

static float *piece(struct pieces *pieces, size_t rows, size_t columns)
{
    size_t floats, end;
    if (!size_multiply(rows, columns, &floats) || __builtin_add_overflow(pieces->used, (floats + 15) / 16 * 16, &end)) {
        pieces->overflow = true;
        return NULL;
    }
    float *start = pieces->memory != NULL ? pieces->memory + pieces->used : NULL;
    pieces->used = end;
    return start;
}

static void lay_out_legrad(struct legrad *legrad, const vit_model *model, struct pieces *pieces)
{
    const vit_model_info *info = &model->info;
    const struct block *blocks = model->arch->blocks(model->state);
    const size_t tokens = info->tokens, width = info->width, hidden = blocks[0].mlp.fc1.out;
    *legrad = (struct legrad){
        .info = info,
        .blocks = blocks,
        .state = model->state,
        .score_gradient = model->arch->score_gradient,
        .tapes = legrad->tapes,
        .scratch = {.normed = piece(pieces, tokens, width),
                    .qkv = piece(pieces, tokens, width),
                    .hidden = piece(pieces, tokens, hidden),
                    .row = piece(pieces, 1, hidden)},
        .head = piece(pieces, 1, width + info->embedding_width),
        .gradient = piece(pieces, 1, width),
        .relevance = piece(pieces, 1, tokens),
    };
    for (size_t i = 0; i < info->layers; i++)
        legrad->tapes[i] = (struct block_tape){.values = piece(pieces, tokens, width),
                                               .residual = piece(pieces, tokens, width),
                                               .hidden = piece(pieces, tokens, hidden),
                                               .mean = piece(pieces, 1, width)};
}

static void lay_out_explanations(vit_session *session, struct pieces *pieces)
{
    const vit_model_info *info = &session->model->info;
    if (info->explanations & 1u << VIT_ATTENTION_ROLLOUT)
        session->rollout = (struct rollout){
            .info = info,
            .layers = piece(pieces, info->layers * info->tokens, info->tokens),
            .row = piece(pieces, 1, info->tokens),
            .next = piece(pieces, 1, info->tokens),
        };
    if (info->explanations & 1u << VIT_ATTENTION_LEGRAD)
        lay_out_legrad(&session->legrad, session->model, pieces);
}

static bool allocate_explanations(vit_session *session)
{
    const vit_model_info *info = &session->model->info;
    struct pieces counted = {0};
    size_t bytes;
    session->legrad.tapes = calloc(info->layers, sizeof *session->legrad.tapes);
    if (session->legrad.tapes == NULL)
        return false;
    lay_out_explanations(session, &counted);
    if (counted.overflow || !size_multiply(counted.used, sizeof(float), &bytes))
        return false;
    if (bytes == 0)
        return true;
    session->explain_memory = aligned_alloc(64, bytes);
    if (session->explain_memory != NULL)
        lay_out_explanations(session, &(struct pieces){.memory = session->explain_memory});
    return session->explain_memory != NULL;
}

static bool allocate(vit_session *session, size_t bytes)
{
    const vit_model_info *info = &session->model->info;
    const size_t max_batch = session->max_batch, table = info->grid_height * (2 * info->grid_width - 1);
    session->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    session->scratch = aligned_alloc(64, vit_model_scratch(session->model));
    session->images = calloc(max_batch, sizeof *session->images);
    session->raw = calloc(max_batch, sizeof *session->raw);
    session->distances = calloc(max_batch, sizeof *session->distances);
    session->observers = calloc(max_batch, sizeof *session->observers);
    if (session->memory == NULL || session->scratch == NULL || session->images == NULL || session->raw == NULL ||
        session->distances == NULL || session->observers == NULL)
        return false;
    session->distances[0].table = calloc(table, sizeof(float));
    return session->distances[0].table != NULL && text_chunk_init(&session->texts, session->model) &&
           allocate_explanations(session);
}

size_t vit_model_scratch(const vit_model *model)
{
    return (model->scratch * sizeof(float) + 63) / 64 * 64 + 64; /* never of no bytes */
}

void vit_session_set_team(vit_session *session, const vit_team *team)
{
    session->team = team;
}

vit_status vit_session_create(vit_session **session, const vit_model *model, size_t max_batch, vit_error *err)
{
    size_t bytes;
    if (max_batch == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a session needs room for at least one image");
    vit_session *created = calloc(1, sizeof *created);
    if (created == NULL || !size_multiply(model->arch->memory(model->state, max_batch), sizeof(float), &bytes)) {
        free(created);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for batches of up to %zu images", max_batch);
    }
    *created = (vit_session){.model = model, .max_batch = max_batch};
    if (!allocate(created, bytes)) {
        vit_session_free(created);
        return vit_error_set(err, VIT_ERR_NO_MEMORY,
                             "no memory for batches of up to %zu of the model's %zux%zu images", max_batch,
                             model->info.image_width, model->info.image_height);
    }
    *session = created;
    return VIT_OK;
}

void vit_session_free(vit_session *session)
{
    if (session == NULL)
        return;
    free(session->scratch);
    free(session->memory);
    free(session->images);
    free(session->raw);
    if (session->distances != NULL)
        free(session->distances[0].table);
    free(session->distances);
    free(session->observers);
    text_chunk_release(&session->texts);
    free(session->explain_memory);
    free(session->legrad.tapes);
    free(session);
}

size_t vit_session_bytes(const vit_session *session)
{
    return malloc_usable_size(session->memory) + malloc_usable_size(session->scratch) +
           malloc_usable_size(session->explain_memory) + text_chunk_bytes(&session->texts);
}

/* ---- running ---- */

vit_status vit_explain_shape(const vit_model *model, const vit_explain *explain, vit_map_shape *shape, vit_error *err)
{
    return explain_shape(&model->info, explain, shape, err);
}

static vit_attention method_of(const vit_item *item)
{
    return item->explain != NULL ? item->explain->method : VIT_ATTENTION_NONE;
}

/* Rollout and LeGrad need memory for a whole run, which a session has for one image only. */
static bool runs_alone(const vit_item *item)
{
    return method_of(item) == VIT_ATTENTION_ROLLOUT || method_of(item) == VIT_ATTENTION_LEGRAD;
}

static vit_status check_count(const vit_session *session, size_t count, vit_error *err)
{
    if (count == 0 || count > session->max_batch)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a batch of %zu images: 1 to %zu are possible", count,
                             session->max_batch);
    return VIT_OK;
}

static vit_status check(const vit_session *session, const vit_item *items, size_t count, vit_error *err)
{
    const vit_model_info *info = &session->model->info;
    vit_status status = check_count(session, count, err);
    for (size_t i = 0; i < count && status == VIT_OK; i++) {
        vit_map_shape shape;
        if (info->classes == 0 && items[i].features == NULL)
            status = vit_error_set(err, VIT_ERR_ARGUMENT,
                                   "this model (architecture %s) gives embeddings: each image needs room for its own",
                                   info->architecture);
        else if (items[i].distances != NULL && method_of(&items[i]) != VIT_ATTENTION_NONE)
            status = vit_error_set(err, VIT_ERR_ARGUMENT, "an image gives a map or distances, not both");
        else if (items[i].distances != NULL && !info->distances)
            status = vit_error_set(err, VIT_ERR_UNSUPPORTED, "attention distances are not defined for this model "
                                   "(architecture %s)", info->architecture);
        else if (method_of(&items[i]) != VIT_ATTENTION_NONE)
            status = explain_shape(info, items[i].explain, &shape, err);
    }
    return status;
}

static struct arch_image image_of(const vit_item *item, const struct observer *observer)
{
    return (struct arch_image){.pixels = item->pixels, .logits = item->logits, .features = item->features,
                               .observer = observer};
}

/* The observer of an image in a batch, in place `i` of the session; NULL: nothing to explain. */
static const struct observer *observer_of(vit_session *session, const vit_item *item, size_t i)
{
    const vit_model_info *info = &session->model->info;
    if (item->distances != NULL) {
        session->distances[i].info = info;
        session->distances[i].table = session->distances[0].table;
        session->distances[i].distances = item->distances;
        session->observers[i] = distance_observer(&session->distances[i]);
        return &session->observers[i];
    }
    if (method_of(item) == VIT_ATTENTION_NONE)
        return NULL;
    session->raw[i] = (struct raw_map){.info = info, .explain = item->explain, .map = item->map};
    session->observers[i] = raw_observer(&session->raw[i]);
    return &session->observers[i];
}

static void run_rollout(vit_session *session, const struct compute *compute, const vit_item *item)
{
    const vit_model *model = session->model;
    const struct observer observer = rollout_observer(&session->rollout);
    const struct arch_image image = image_of(item, &observer);
    model->arch->forward(model->state, compute, session->memory, &image, 1);
    rollout_finish(&session->rollout, item->map);
}

static void run_legrad(vit_session *session, const struct compute *compute, const vit_item *item)
{
    const vit_model *model = session->model;
    const vit_explain *explain = item->explain;
    const struct observer observer = legrad_observer(&session->legrad);
    const struct arch_image image = image_of(item, &observer);
    vit_map_shape shape;
    size_t top = 0;
    model->arch->forward(model->state, compute, session->memory, &image, 1);
    if (!model->info.text)
        vit_top_k(&top, item->logits, model->info.classes, 1);
    explain_shape(&model->info, explain, &shape, NULL);
    for (size_t i = 0; i < shape.targets; i++)
        legrad_finish(&session->legrad, compute, explain, explain->target_count > 0 ? explain->targets[i] : top,
                      model->info.text ? explain->target_vectors + i * model->info.embedding_width : NULL,
                      item->map + i * (shape.floats / shape.targets));
}

static void report(const vit_item *item, vit_status status)
{
    if (item->status != NULL)
        *item->status = status;
}

/* Finite weights can still overflow; no caller should have to print an infinity. */
static vit_status check_results(const vit_session *session, const vit_item *items, size_t count, vit_error *err)
{
    const vit_model_info *info = &session->model->info;
    vit_status status = VIT_OK;
    for (size_t i = 0; i < count; i++) {
        const bool finite = info->classes > 0 ? all_finite(items[i].logits, info->classes)
                                              : all_finite(items[i].features, info->embedding_width);
        report(&items[i], finite ? VIT_OK : VIT_ERR_FORMAT);
        if (!finite)
            status = vit_error_set(err, VIT_ERR_FORMAT, "the model's weights give %s that is not finite",
                                   info->classes > 0 ? "a logit" : "an embedding");
    }
    return status;
}

vit_status vit_session_run(vit_session *session, const vit_item *items, size_t count, vit_error *err)
{
    const vit_model *model = session->model;
    const struct compute compute = {.kernels = model->kernels, .scratch = session->scratch, .team = session->team};
    size_t together = 0;
    vit_status status = check(session, items, count, err);
    if (status != VIT_OK) {
        for (size_t i = 0; i < count; i++)
            report(&items[i], status);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        if (!runs_alone(&items[i])) {
            session->images[together] = image_of(&items[i], observer_of(session, &items[i], together));
            together++;
        }
    if (together > 0)
        model->arch->forward(model->state, &compute, session->memory, session->images, together);
    for (size_t i = 0; i < count; i++)
        if (method_of(&items[i]) == VIT_ATTENTION_ROLLOUT)
            run_rollout(session, &compute, &items[i]);
        else if (method_of(&items[i]) == VIT_ATTENTION_LEGRAD)
            run_legrad(session, &compute, &items[i]);
    return check_results(session, items, count, err);
}

/* ---- where time goes ---- */

const char *vit_stage_name(vit_stage stage)
{
    static const char *const names[VIT_STAGE_COUNT] = {"gemm", "attention", "softmax", "layernorm", "activation", "packing",
                                                       "other"};
    return names[stage];
}

static void run_profile(vit_session *session, size_t count, const float *pixels, float *results,
                        struct profile *profile)
{
    const vit_model *model = session->model;
    const struct compute compute = {.kernels = model->kernels, .scratch = session->scratch, .profile = profile};
    for (size_t i = 0; i < count; i++)
        session->images[i] = (struct arch_image){.pixels = pixels, .logits = results,
                                                 .features = model->info.classes > 0 ? NULL : results};
    profile->stage = VIT_STAGE_OTHER;
    profile->since = clock_seconds();
    model->arch->forward(model->state, &compute, session->memory, session->images, count);
    compute_enter(&compute, VIT_STAGE_OTHER);
}

vit_status vit_session_profile(vit_session *session, size_t count, double *flops, double *seconds, vit_error *err)
{
    const vit_model_info *info = &session->model->info;
    struct profile profile = {.counts_only = seconds == NULL};
    vit_status status = check_count(session, count, err);
    if (status != VIT_OK)
        return status;
    float *pixels = calloc(3 * info->image_height * info->image_width, sizeof *pixels);
    float *results = calloc(info->classes > 0 ? info->classes : info->embedding_width, sizeof *results);
    if (pixels == NULL || results == NULL) {
        status = vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to profile a forward pass");
    } else {
        run_profile(session, count, pixels, results, &profile);
        *flops = profile.flops;
        if (seconds != NULL)
            memcpy(seconds, profile.seconds, sizeof profile.seconds);
    }
    free(pixels);
    free(results);
    return status;
}

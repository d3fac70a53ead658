/*
 * texts.c - embeddings of texts, in chunks of as many tokens as a session has memory for, and what they say of an
 * image.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/finite.h"
#include "engine/model/session.h"

/* An end that the tower does not know would give every text the embedding of its first token. */
vit_status text_check(const vit_model *model, vit_error *err)
{
    enum { TOKENS = 3 };
    int32_t ids[TOKENS];
    size_t count;
    vit_status status = tokenizer_encode(model->tokenizer, "a", 1, ids, TOKENS, &count, err);
    if (status == VIT_OK && model->arch->text->length(model->state, ids, count) != count)
        status = vit_error_set(err, VIT_ERR_FORMAT,
                               "config.json: \"text_config.eos_token_id\" is not %d, the id of the end token in "
                               "vocab.json", ids[count - 1]);
    return status;
}

/* ---- the session's part ---- */

bool text_chunk_init(struct text_chunk *chunk, const vit_model *model)
{
    if (!model->info.text)
        return true;
    chunk->capacity = model->arch->text->capacity(model->state);
    chunk->ids = calloc(chunk->capacity + model->info.context_length, sizeof *chunk->ids);
    chunk->starts = calloc(chunk->capacity + 1, sizeof *chunk->starts);
    chunk->indices = calloc(chunk->capacity, sizeof *chunk->indices);
    chunk->embeddings = calloc(chunk->capacity, sizeof *chunk->embeddings);
    return chunk->ids != NULL && chunk->starts != NULL && chunk->indices != NULL && chunk->embeddings != NULL;
}

void text_chunk_release(struct text_chunk *chunk)
{
    free(chunk->ids);
    free(chunk->starts);
    free(chunk->indices);
    free(chunk->embeddings);
    *chunk = (struct text_chunk){0};
}

size_t text_chunk_bytes(const struct text_chunk *chunk)
{
    return malloc_usable_size(chunk->ids) + malloc_usable_size(chunk->starts) + malloc_usable_size(chunk->indices) +
           malloc_usable_size(chunk->embeddings);
}

/* ---- running ---- */

/* A call's texts, and how it goes. */
struct call {
    vit_session *session;
    const struct compute *compute;
    const char *const *texts;
    float *embeddings;
    vit_status *statuses; /* or NULL */
    vit_error *err;
    vit_status status; /* of the first failure */
};

static void report(struct call *call, size_t index, vit_status status, const char *message)
{
    if (call->statuses != NULL)
        call->statuses[index] = status;
    if (status != VIT_OK && call->status == VIT_OK)
        call->status = vit_error_set(call->err, status, "text %zu: %s", index, message);
}

static void run_chunk(struct call *call)
{
    const vit_model *model = call->session->model;
    struct text_chunk *chunk = &call->session->texts;
    if (chunk->count == 0)
        return;
    model->arch->text->encode(model->state, call->compute, call->session->memory,
                              &(struct arch_texts){chunk->count, chunk->starts, chunk->ids, chunk->embeddings});
    for (size_t i = 0; i < chunk->count; i++) {
        const bool counts_only = call->compute->profile != NULL && call->compute->profile->counts_only;
        const bool finite = counts_only || all_finite(chunk->embeddings[i], model->info.embedding_width);
        report(call, chunk->indices[i], finite ? VIT_OK : VIT_ERR_FORMAT,
               "the model's weights give an embedding that is not finite");
    }
    chunk->count = 0;
}

/* Reads a text behind those of the chunk, which runs first if there is no room beside them. */
static void add_text(struct call *call, size_t index)
{
    const vit_model *model = call->session->model;
    const vit_model_info *info = &model->info;
    struct text_chunk *chunk = &call->session->texts;
    const char *text = call->texts[index];
    int32_t *ids = chunk->ids + chunk->starts[chunk->count];
    vit_error why = {""};
    size_t count;
    vit_status status = tokenizer_encode(model->tokenizer, text, strlen(text), ids, info->context_length, &count, &why);
    if (status != VIT_OK) {
        report(call, index, status, why.message);
        return;
    }
    count = model->arch->text->length(model->state, ids, count);
    if (chunk->starts[chunk->count] + count > chunk->capacity) {
        run_chunk(call);
        memmove(chunk->ids, ids, count * sizeof *ids);
    }
    chunk->indices[chunk->count] = index;
    chunk->embeddings[chunk->count] = call->embeddings + index * info->embedding_width;
    chunk->starts[chunk->count + 1] = chunk->starts[chunk->count] + count;
    chunk->count++;
}

static vit_status run_texts(struct call *call, size_t count)
{
    const vit_model_info *info = &call->session->model->info;
    for (size_t i = 0; i < count && !info->text && call->statuses != NULL; i++)
        call->statuses[i] = VIT_ERR_UNSUPPORTED;
    if (!info->text)
        return vit_error_set(call->err, VIT_ERR_UNSUPPORTED, "this model (architecture %s) has no text tower",
                             info->architecture);
    for (size_t i = 0; i < count; i++)
        add_text(call, i);
    run_chunk(call);
    return call->status;
}

vit_status vit_session_encode_texts(vit_session *session, const char *const *texts, size_t count, float *embeddings,
                                    vit_status *statuses, vit_error *err)
{
    const struct compute compute = {.kernels = session->model->kernels, .scratch = session->scratch,
                                    .team = session->team};
    struct call call = {.session = session, .compute = &compute, .texts = texts, .embeddings = embeddings,
                        .statuses = statuses, .err = err};
    return run_texts(&call, count);
}

vit_status vit_session_profile_texts(vit_session *session, const char *const *texts, size_t count, double *flops,
                                     double *seconds, vit_error *err)
{
    struct profile profile = {.counts_only = seconds == NULL, .stage = VIT_STAGE_OTHER, .since = clock_seconds()};
    const struct compute compute = {.kernels = session->model->kernels, .scratch = session->scratch,
                                    .profile = &profile};
    float *embeddings = calloc(count + 1, session->model->info.embedding_width * sizeof *embeddings);
    struct call call = {.session = session, .compute = &compute, .texts = texts, .embeddings = embeddings, .err = err};
    if (embeddings == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to profile %zu texts", count);
    vit_status status = run_texts(&call, count);
    compute_enter(&compute, VIT_STAGE_OTHER);
    free(embeddings);
    if (status != VIT_OK)
        return status;
    *flops = profile.flops;
    if (seconds != NULL)
        memcpy(seconds, profile.seconds, sizeof profile.seconds);
    return VIT_OK;
}

/* ---- logits ---- */

/* In as many sums as a vector has lanes. */
static float product(const float *a, const float *b, size_t n)
{
    enum { SUMS = 16 };
    float sums[SUMS] = {0}, sum = 0;
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (size_t lane = 0; lane < SUMS; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (size_t lane = 0; lane < SUMS; lane++)
        sum += sums[lane];
    return sum;
}

void vit_text_logits(const vit_model *model, const float *image, const float *texts, size_t count, float *logits)
{
    const size_t width = model->info.embedding_width;
    for (size_t i = 0; i < count; i++)
        logits[i] = model->info.logit_scale * product(image, texts + i * width, width);
}

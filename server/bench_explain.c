/* bench_explain.c - what explanations cost, beside the same image without one; and what they cost their batch mates. */
#include <stdio.h>
#include <stdlib.h>

#include "server/bench.h"

enum { KINDS = 5, MATES = 4, ROUNDS = 25, LEAST_ROUNDS = 3, SECONDS = 6 };

struct trial {
    vit_session *session;
    float *pixels, *logits, *map; /* [3, H, W], [MATES, N], [L*NH*gh*gw] */
    float *embeddings, *text;     /* [MATES, D], and a text's [D]: of a model without classes, else NULL */
    size_t classes, width;
    vit_error err;
};

/* One image, with the explanation of this kind; the last kind is the attention distances. */
static vit_status run_kind(struct trial *trial, int kind, double *seconds)
{
    const bool words = kind == VIT_ATTENTION_LEGRAD && trial->classes == 0;
    const vit_explain explain = {.method = (vit_attention)kind, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN,
                                 .target_count = words ? 1 : 0, .target_vectors = words ? trial->text : NULL};
    const bool map = kind > 0 && kind < VIT_ATTENTION_COUNT;
    const vit_item item = {.pixels = trial->pixels, .logits = trial->logits, .features = trial->embeddings,
                           .explain = map ? &explain : NULL,
                           .map = trial->map, .distances = kind == VIT_ATTENTION_COUNT ? trial->map : NULL};
    const double start = bench_now();
    vit_status status = vit_session_run(trial->session, &item, 1, &trial->err);
    *seconds = bench_now() - start;
    return status;
}

/* The plain images of a batch, as the daemon's workers run them: before those that are explained. */
static vit_status run_mates(struct trial *trial, bool mixed, double *seconds)
{
    vit_item items[MATES];
    double ignored;
    for (size_t i = 0; i < MATES; i++)
        items[i] = (vit_item){.pixels = trial->pixels, .logits = trial->logits + i * trial->classes,
                              .features = trial->classes == 0 ? trial->embeddings + i * trial->width : NULL};
    const double start = bench_now();
    vit_status status = vit_session_run(trial->session, items, MATES, &trial->err);
    *seconds = bench_now() - start;
    for (int i = 0; i < MATES && mixed && status == VIT_OK; i++)
        status = run_kind(trial, VIT_ATTENTION_LEGRAD, &ignored);
    return status;
}

static bool has_kind(const vit_model_info *info, int kind)
{
    return kind == 0 || (kind == VIT_ATTENTION_COUNT ? info->distances : (info->explanations & 1u << kind) != 0);
}

static const char *kind_name(int kind)
{
    return kind == 0 ? "none" : kind == VIT_ATTENTION_COUNT ? "attention distance" : vit_attention_name((vit_attention)kind);
}

static void print_costs(double kinds[KINDS][ROUNDS], double mates[2][ROUNDS], size_t rounds, const vit_model_info *info,
                        cJSON *json)
{
    const double plain = bench_median(kinds[0], rounds);
    cJSON *costs = cJSON_AddObjectToObject(json, "explanations_ms");
    printf("\nexplanations, 1 thread, 1 image   ms per image   of the plain one\n");
    for (int kind = 0; kind < KINDS; kind++) {
        const double seconds = bench_median(kinds[kind], rounds);
        if (!has_kind(info, kind))
            continue;
        cJSON_AddNumberToObject(costs, kind_name(kind), 1e3 * seconds);
        printf("%-32s %13.2f %17.2fx\n", kind_name(kind), 1e3 * seconds, seconds / plain);
    }
    if (has_kind(info, VIT_ATTENTION_LEGRAD))
        printf("%d plain images in a batch: %.2f ms; beside %d with legrad: %.2f ms\n", MATES,
               1e3 * bench_median(mates[0], rounds), MATES, 1e3 * bench_median(mates[1], rounds));
}

static vit_status measure(struct trial *trial, const vit_model_info *info, cJSON *json)
{
    double kinds[KINDS][ROUNDS] = {{0}}, mates[2][ROUNDS] = {{0}};
    const double start = bench_now();
    vit_status status = VIT_OK;
    int rounds = 0;
    for (int round = -1; round < ROUNDS && status == VIT_OK; round++) { /* round -1 warms up */
        const int place = round < 0 ? 0 : round;
        if (round >= LEAST_ROUNDS && bench_now() - start > SECONDS)
            break;
        rounds = place + 1;
        for (int kind = 0; kind < KINDS && status == VIT_OK; kind++)
            if (has_kind(info, kind))
                status = run_kind(trial, kind, &kinds[kind][place]);
        for (int mixed = 0; mixed < 2 && status == VIT_OK && has_kind(info, VIT_ATTENTION_LEGRAD); mixed++)
            status = run_mates(trial, mixed, &mates[mixed][place]);
    }
    if (status == VIT_OK)
        print_costs(kinds, mates, (size_t)rounds, info, json);
    return status;
}

bool bench_explanations(const vit_model *model, cJSON *json)
{
    const vit_model_info *info = vit_model_describe(model);
    const size_t floats = 3 * info->image_height * info->image_width;
    const size_t grid = info->grid_height * info->grid_width, heads = info->layers * info->heads;
    if (info->explanations == 0)
        return true;
    struct trial trial = {.classes = info->classes, .width = info->embedding_width};
    trial.pixels = calloc(floats, sizeof *trial.pixels);
    trial.logits = calloc(MATES * info->classes + 1, sizeof *trial.logits);
    trial.embeddings = info->classes == 0 ? calloc(MATES * trial.width, sizeof *trial.embeddings) : NULL;
    trial.text = info->classes == 0 ? calloc(trial.width, sizeof *trial.text) : NULL;
    trial.map = calloc(grid > heads ? grid : heads, sizeof *trial.map);
    vit_status status = VIT_ERR_NO_MEMORY;
    snprintf(trial.err.message, sizeof trial.err.message, "out of memory");
    if (trial.pixels != NULL && trial.logits != NULL && trial.map != NULL &&
        (info->classes > 0 || (trial.embeddings != NULL && trial.text != NULL)))
        status = vit_session_create(&trial.session, model, MATES, &trial.err);
    for (size_t i = 0; status == VIT_OK && i < floats; i++)
        trial.pixels[i] = (float)(i * 7919 % 1000) / 500 - 1;
    if (trial.text != NULL)
        trial.text[0] = 1; /* any of unit length */
    if (status == VIT_OK)
        status = measure(&trial, info, json);
    if (status != VIT_OK)
        fprintf(stderr, "vitd: %s\n", trial.err.message);
    vit_session_free(trial.session);
    free(trial.pixels);
    free(trial.logits);
    free(trial.embeddings);
    free(trial.text);
    free(trial.map);
    return status == VIT_OK;
}

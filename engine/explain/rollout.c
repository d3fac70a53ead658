/*
 * rollout.c - attention rollout (arXiv 2005.00928). Only the class token's row of the product is wanted, so the layers'
 * matrices are kept and that row goes through them from the last to the first: L vector-matrix products.
 */
#include <string.h>

#include "engine/explain/explain.h"

static void observe(void *context, const struct attention_view *view)
{
    const struct rollout *rollout = context;
    const size_t n = view->rows * view->keys;
    float *sum = rollout->layers + (view->layer * view->queries + view->first) * view->keys;
    if (view->head == 0) {
        memcpy(sum, view->matrix, n * sizeof *sum);
        return;
    }
    for (size_t i = 0; i < n; i++)
        sum[i] += view->matrix[i];
}

struct observer rollout_observer(struct rollout *rollout)
{
    return (struct observer){.attention = observe, .context = rollout};
}

/* next = row (A + I), each row of A + I divided by its sum; A = heads / NH */
static void through_layer(float *next, const float *row, const float *heads, size_t head_count, size_t tokens)
{
    memset(next, 0, tokens * sizeof *next);
    for (size_t i = 0; i < tokens; i++, heads += tokens) {
        float sum = 0;
        for (size_t j = 0; j < tokens; j++)
            sum += heads[j];
        const float weight = row[i] / (sum / (float)head_count + 1), share = weight / (float)head_count;
        for (size_t j = 0; j < tokens; j++)
            next[j] += share * heads[j];
        next[i] += weight;
    }
}

void rollout_finish(struct rollout *rollout, float *map)
{
    const vit_model_info *info = rollout->info;
    const size_t tokens = info->tokens;
    float *row = rollout->row, *next = rollout->next;
    memset(row, 0, tokens * sizeof *row);
    row[0] = 1; /* the class token */
    for (size_t layer = info->layers; layer-- > 0;) {
        through_layer(next, row, rollout->layers + layer * tokens * tokens, info->heads, tokens);
        float *swap = row;
        row = next;
        next = swap;
    }
    memcpy(map, row + info->prefix_tokens, info->grid_height * info->grid_width * sizeof *map);
}

/* scores.c - from logits to what a reply shows. */
#include <math.h>

#include "vit.h"

static void softmax(float *scores, const float *logits, size_t n)
{
    double sum = 0;
    float max = logits[0];
    for (size_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    for (size_t i = 0; i < n; i++)
        scores[i] = (float)(exp((double)logits[i] - max) / sum);
}

void vit_scores(float *scores, const float *logits, size_t n, vit_function function)
{
    if (function == VIT_SOFTMAX) {
        softmax(scores, logits, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        scores[i] = function == VIT_SIGMOID ? (float)(1 / (1 + exp(-(double)logits[i]))) : logits[i];
}

/* Whether class a comes before class b. */
static int before(const float *scores, size_t a, size_t b)
{
    if (scores[a] != scores[b])
        return scores[a] > scores[b];
    return a < b;
}

/* Moves the entry at `root` down until neither child comes after it in the order: the heap's top is the last. */
static void sift_down(size_t *heap, const float *scores, size_t root, size_t count)
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && before(scores, heap[child], heap[child + 1]))
            child++;
        if (!before(scores, heap[root], heap[child]))
            return;
        size_t swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}

/* A heap of the k best so far with the worst on top, sorted in place at the end: O(n log k). */
void vit_top_k(size_t *indices, const float *scores, size_t n, size_t k)
{
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++)
        indices[i] = i;
    for (size_t i = k / 2; i-- > 0;)
        sift_down(indices, scores, i, k);
    for (size_t i = k; i < n; i++)
        if (before(scores, i, indices[0])) {
            indices[0] = i;
            sift_down(indices, scores, 0, k);
        }
    for (size_t count = k; count-- > 1;) {
        size_t worst = indices[0];
        indices[0] = indices[count];
        indices[count] = worst;
        sift_down(indices, scores, 0, count);
    }
}

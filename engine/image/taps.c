/*
 * taps.c - Pillow's filters and the weights they give, computed in double, normalised to a sum of 1 and
 * rounded to 22 fractional bits. The only floating point whose last bit decides a pixel, hence the care about
 * flags.
 */
#include "engine/image/taps.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/image/weigh.h"

#ifdef __FAST_MATH__
#error "taps.c must not be compiled with -ffast-math: its weights would no longer be Pillow's"
#endif
/* Fused multiply-add would round the weights differently. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

/* ---- filters ---- */

static double filter_box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double filter_bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double filter_hamming(double x)
{
    x = fabs(x);
    if (x == 0.0)
        return 1.0;
    if (x >= 1.0)
        return 0.0;
    x = x * M_PI;
    return sin(x) / x * (0.54f + 0.46f * cos(x));
}

static double filter_bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x = x * M_PI;
    return sin(x) / x;
}

static double filter_lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct filter {
    double (*weight)(double x);
    double support;
};

static const struct filter filters[] = {
    [VIT_FILTER_BOX] = {filter_box, 0.5},         [VIT_FILTER_BILINEAR] = {filter_bilinear, 1.0},
    [VIT_FILTER_HAMMING] = {filter_hamming, 1.0}, [VIT_FILTER_BICUBIC] = {filter_bicubic, 2.0},
    [VIT_FILTER_LANCZOS] = {filter_lanczos, 3.0},
};

/* ---- weights ---- */

void taps_release(struct taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weights);
    *taps = (struct taps){0};
}

static int32_t fixed_point(double weight)
{
    const double scaled = weight * (1 << WEIGHT_BITS);
    return (int32_t)(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

/* Fills slot i, which is output number range->start + i; w is scratch. */
static void taps_fill(struct taps *taps, size_t i, const struct taps_range *range, double scale,
                      const struct filter *filter, double *w)
{
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = filter->support * filter_scale, inverse = 1.0 / filter_scale;
    double centre = ((double)(range->start + i) + 0.5) * scale, sum = 0.0;
    double from = centre - support + 0.5, to = centre + support + 0.5;
    size_t first = from < 0 ? 0 : (size_t)from,
           end = to > (double)range->in_size ? range->in_size : (size_t)to;
    size_t count = end > first ? end - first : 0;
    for (size_t x = 0; x < count; x++) {
        w[x] = filter->weight(((double)(x + first) - centre + 0.5) * inverse);
        sum += w[x];
    }
    int32_t *weights = taps->weights + i * taps->weights_each;
    for (size_t x = 0; x < count; x++)
        weights[x] = fixed_point(sum != 0.0 ? w[x] / sum : w[x]);
    taps->first[i] = first;
    taps->count[i] = count;
}

vit_status taps_init(struct taps *taps, const struct taps_range *range, vit_filter kind, vit_error *err)
{
    const struct filter *filter = &filters[kind];
    double scale = (double)range->in_size / (double)range->out_size;
    double reach = ceil(filter->support * (scale < 1.0 ? 1.0 : scale));
    size_t ksize = reach < INT_MAX / 32.0 ? (size_t)reach * 2 + 1 : INT_MAX;
    /* Pillow's own bound on its table of doubles */
    if (range->in_size > INT_MAX || range->outputs > INT_MAX / (ksize * sizeof(double)))
        return vit_error_set(err, VIT_ERR_IMAGE_SIZE, "cannot resize %zu pixels to %zu: send a smaller image",
                             range->in_size, range->out_size);
    *taps = (struct taps){.outputs = range->outputs, .weights_each = ksize};
    taps->first = calloc(taps->outputs, sizeof *taps->first);
    taps->count = calloc(taps->outputs, sizeof *taps->count);
    taps->weights = calloc(taps->outputs * taps->weights_each, sizeof *taps->weights);
    double *scratch = malloc(ksize * sizeof *scratch);
    bool enough = taps->first != NULL && taps->count != NULL && taps->weights != NULL && scratch != NULL;
    for (size_t i = 0; enough && i < taps->outputs; i++)
        taps_fill(taps, i, range, scale, filter, scratch);
    free(scratch);
    if (enough)
        return VIT_OK;
    taps_release(taps);
    return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to resize the image");
}

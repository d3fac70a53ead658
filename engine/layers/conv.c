/* conv.c - see conv.h. A convolution unfolds a tile of positions, which stays in cache, and multiplies it. */
#include "engine/layers/conv.h"

#include <math.h>
#include <string.h>

enum { TILE_FLOATS = 128 * 1024 };

struct sliding sliding_padded(size_t kernel, size_t stride, size_t padding, size_t height, size_t width)
{
    const bool fits = height + 2 * padding >= kernel && width + 2 * padding >= kernel;
    return (struct sliding){.kernel = kernel, .stride = stride, .height = height, .width = width,
                            .out_height = fits ? (height + 2 * padding - kernel) / stride + 1 : 0,
                            .out_width = fits ? (width + 2 * padding - kernel) / stride + 1 : 0,
                            .top = padding, .left = padding};
}

static size_t same_padding(size_t kernel, size_t stride, size_t length, size_t positions)
{
    const size_t reach = (positions - 1) * stride + kernel;
    return reach > length ? (reach - length) / 2 : 0;
}

struct sliding sliding_same(size_t kernel, size_t stride, size_t height, size_t width)
{
    const size_t rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
    return (struct sliding){.kernel = kernel, .stride = stride, .height = height, .width = width, .out_height = rows,
                            .out_width = columns, .top = same_padding(kernel, stride, height, rows),
                            .left = same_padding(kernel, stride, width, columns)};
}

size_t sliding_positions(const struct sliding *sliding)
{
    return sliding->out_height * sliding->out_width;
}

void pixels_to_map(float *map, const float *pixels, size_t height, size_t width)
{
    const size_t n = height * width;
    for (size_t i = 0; i < n; i++)
        for (size_t channel = 0; channel < 3; channel++)
            map[3 * i + channel] = pixels[channel * n + i];
}

/* ---- unfolding ---- */

/* row [k*C]: k pixels of one line of the map, from column x on (which may be outside), or zeros if the line is. */
static void unfold_line(float *row, const float *line, const struct sliding *s, size_t channels, ptrdiff_t x)
{
    const ptrdiff_t width = (ptrdiff_t)s->width, kernel = (ptrdiff_t)s->kernel;
    const ptrdiff_t first = x < 0 ? -x : 0, end = x + kernel > width ? width - x : kernel;
    if (line == NULL || first >= end) {
        memset(row, 0, s->kernel * channels * sizeof *row);
        return;
    }
    memset(row, 0, (size_t)first * channels * sizeof *row);
    memcpy(row + (size_t)first * channels, line + (size_t)(x + first) * channels,
           (size_t)(end - first) * channels * sizeof *row);
    memset(row + (size_t)end * channels, 0, (size_t)(kernel - end) * channels * sizeof *row);
}

void unfold(float *rows, const float *map, const struct sliding *s, size_t channels, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        const ptrdiff_t top = (ptrdiff_t)(i / s->out_width * s->stride) - (ptrdiff_t)s->top;
        const ptrdiff_t left = (ptrdiff_t)(i % s->out_width * s->stride) - (ptrdiff_t)s->left;
        for (size_t k = 0; k < s->kernel; k++, rows += s->kernel * channels) {
            const ptrdiff_t y = top + (ptrdiff_t)k;
            const bool inside = y >= 0 && y < (ptrdiff_t)s->height;
            unfold_line(rows, inside ? map + (size_t)y * s->width * channels : NULL, s, channels, left);
        }
    }
}

/* ---- convolution ---- */

static bool is_linear(const struct sliding *sliding)
{
    return sliding->kernel == 1 && sliding->stride == 1 && sliding->top == 0 && sliding->left == 0;
}

static size_t tile_rows(const struct conv *conv)
{
    const size_t columns = conv->sliding.kernel * conv->sliding.kernel * conv->in;
    const size_t rows = TILE_FLOATS / columns / PACKED_ROWS * PACKED_ROWS;
    const size_t positions = sliding_positions(&conv->sliding), least = rows > PACKED_ROWS ? rows : PACKED_ROWS;
    return least < positions ? least : positions;
}

static struct linear linear_of(const struct conv *conv)
{
    return (struct linear){.weight = conv->weight, .bias = conv->bias,
                           .in = conv->sliding.kernel * conv->sliding.kernel * conv->in, .out = conv->out,
                           .packed = conv->packed};
}

/* The parts of a thread's scratch: a tile's unfolding, and the products' operand. */
static size_t lay_out(const struct conv *conv, size_t starts[2])
{
    const size_t in = linear_of(conv).in;
    const size_t sizes[] = {is_linear(&conv->sliding) ? 0 : tile_rows(conv) * in,
                            conv->packed.products != NULL ? packed_scratch(conv->packed.products, in) : 0};
    return parts_lay_out(starts, sizes, 2);
}

size_t conv_scratch(const struct conv *conv)
{
    size_t starts[2];
    return lay_out(conv, starts);
}

struct conv_call {
    const struct conv *conv;
    const struct compute *compute;
    float *out;
    const float *map;
    bool add;
};

/* A tile of positions. */
static void conv_tile(void *argument, size_t index, float *scratch)
{
    const struct conv_call *call = argument;
    const struct conv *conv = call->conv;
    const struct linear linear = linear_of(conv);
    const size_t tile = tile_rows(conv), first = index * tile, left = sliding_positions(&conv->sliding) - first;
    const size_t count = left < tile ? left : tile;
    size_t starts[2];
    lay_out(conv, starts);
    const struct compute alone = {.kernels = call->compute->kernels, .scratch = scratch + starts[1],
                                  .profile = call->compute->profile};
    const vit_stage before = compute_enter(&alone, VIT_STAGE_PACKING);
    unfold(scratch, call->map, &conv->sliding, conv->in, first, count);
    compute_enter(&alone, before);
    if (call->add)
        linear_add(&linear, &alone, call->out + first * conv->out, scratch, count);
    else
        linear_forward(&linear, &alone, call->out + first * conv->out, scratch, linear.in, count);
}

void conv_forward(const struct conv *conv, const struct compute *compute, float *out, const float *map, bool add)
{
    const struct linear linear = linear_of(conv);
    const size_t positions = sliding_positions(&conv->sliding);
    struct conv_call call = {conv, compute, out, map, add};
    if (!is_linear(&conv->sliding))
        compute_parts(compute, (positions + tile_rows(conv) - 1) / tile_rows(conv), conv_tile, &call);
    else if (add)
        linear_add(&linear, compute, out, map, positions);
    else
        linear_forward(&linear, compute, out, map, linear.in, positions);
}

/* ---- pooling ---- */

void max_pool(float *out, const float *map, const struct sliding *s, const struct compute *compute, size_t channels,
              float padding)
{
    for (size_t i = 0; i < sliding_positions(s); i++, out += channels) {
        const ptrdiff_t top = (ptrdiff_t)(i / s->out_width * s->stride) - (ptrdiff_t)s->top;
        const ptrdiff_t left = (ptrdiff_t)(i % s->out_width * s->stride) - (ptrdiff_t)s->left;
        const ptrdiff_t bottom = top + (ptrdiff_t)s->kernel, right = left + (ptrdiff_t)s->kernel;
        const bool whole = top >= 0 && left >= 0 && bottom <= (ptrdiff_t)s->height && right <= (ptrdiff_t)s->width;
        for (size_t c = 0; c < channels; c++)
            out[c] = whole ? -INFINITY : padding;
        for (ptrdiff_t y = top < 0 ? 0 : top; y < bottom && y < (ptrdiff_t)s->height; y++)
            for (ptrdiff_t x = left < 0 ? 0 : left; x < right && x < (ptrdiff_t)s->width; x++)
                compute->kernels->maximum(out, map + ((size_t)y * s->width + (size_t)x) * channels, channels);
    }
}

/* ---- normalisation ---- */

enum { SUM_ROWS = 64 }; /* added up in single precision; more in double */

/* sums [groups] of a quantity's sums over the columns, which `add` gives for some rows. */
static void sum_groups(double sums[NORM_GROUPS], float *columns, const float *map, const float *means,
                       const struct compute *compute, size_t rows, size_t channels)
{
    const size_t each = channels / NORM_GROUPS;
    for (size_t group = 0; group < NORM_GROUPS; group++)
        sums[group] = 0;
    for (size_t first = 0; first < rows; first += SUM_ROWS) {
        const size_t count = rows - first < SUM_ROWS ? rows - first : SUM_ROWS;
        memset(columns, 0, channels * sizeof *columns);
        compute->kernels->column_sums(columns, map + first * channels, means, count, channels);
        for (size_t c = 0; c < channels; c++)
            sums[c / each] += columns[c];
    }
}

void group_norm(const struct norm *norm, const struct compute *compute, float *scratch, float *map, size_t rows,
                size_t channels, float floor)
{
    float *columns = scratch, *scale = scratch + channels, *shift = scale + channels;
    const size_t each = channels / NORM_GROUPS;
    const double count = (double)(rows * each);
    double means[NORM_GROUPS], variances[NORM_GROUPS];
    sum_groups(means, columns, map, NULL, compute, rows, channels);
    for (size_t c = 0; c < channels; c++)
        shift[c] = (float)(means[c / each] / count);
    sum_groups(variances, columns, map, shift, compute, rows, channels);
    for (size_t c = 0; c < channels; c++) {
        const double deviation = sqrt(variances[c / each] / count + norm->eps);
        scale[c] = (float)(norm->weight[c] / deviation);
        shift[c] = (float)(norm->bias[c] - means[c / each] / count * norm->weight[c] / deviation);
    }
    compute->kernels->affine(map, scale, shift, floor, rows, channels);
}

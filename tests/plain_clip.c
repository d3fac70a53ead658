/* plain_clip.c - see plain_clip.h. */
#include "tests/plain_clip.h"

#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float *tensor(struct golden *tensors, size_t *count, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static const float *tensor(struct golden *tensors, size_t *count, const char *format, ...)
{
    char name[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    size_t found;
    const float *values = golden_get(tensors, name, "F32", count != NULL ? count : &found);
    ck_assert_msg(values != NULL, "%s", name);
    return values;
}

/* y [out] = weight x + bias; bias may be NULL */
static void multiply(double *y, const double *x, const float *weight, const float *bias, size_t out, size_t in)
{
    for (size_t i = 0; i < out; i++) {
        y[i] = bias != NULL ? bias[i] : 0;
        for (size_t j = 0; j < in; j++)
            y[i] += weight[i * in + j] * x[j];
    }
}

static void linear(struct golden *tensors, double *y, const double *x, const char *prefix, const char *name, size_t in)
{
    size_t out;
    const float *bias = tensor(tensors, &out, "%s%s.bias", prefix, name);
    multiply(y, x, tensor(tensors, NULL, "%s%s.weight", prefix, name), bias, out, in);
}

static void norm(struct golden *tensors, double *y, const double *x, const char *prefix, const char *name)
{
    size_t width;
    const float *weight = tensor(tensors, &width, "%s%s.weight", prefix, name);
    const float *bias = tensor(tensors, NULL, "%s%s.bias", prefix, name);
    double mean = 0, variance = 0;
    for (size_t i = 0; i < width; i++)
        mean += x[i] / (double)width;
    for (size_t i = 0; i < width; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)width;
    for (size_t i = 0; i < width; i++)
        y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * weight[i] + bias[i];
}

void plain_attention(double *out, const double *qkv, size_t query, size_t seen, size_t width, size_t heads,
                     double scale)
{
    const size_t head_width = width / heads;
    double *scores = malloc(seen * sizeof *scores);
    for (size_t head = 0; head < heads; head++) {
        const double *q = qkv + query * 3 * width + head * head_width, *k = qkv + width + head * head_width;
        double sum = 0;
        for (size_t key = 0; key < seen; key++) {
            double dot = 0;
            for (size_t c = 0; c < head_width; c++)
                dot += q[c] * k[key * 3 * width + c];
            sum += scores[key] = exp(scale * dot);
        }
        for (size_t c = 0; c < head_width; c++) {
            out[head * head_width + c] = 0;
            for (size_t key = 0; key < seen; key++)
                out[head * head_width + c] += scores[key] / sum * k[key * 3 * width + width + c];
        }
    }
    free(scores);
}

/* x [tokens, width] through the block whose tensors begin with the prefix */
static void run_block(struct golden *tensors, double *x, const char *prefix, size_t tokens, size_t width, size_t heads,
                      bool causal, bool quick_gelu)
{
    size_t hidden;
    tensor(tensors, &hidden, "%smlp.fc1.bias", prefix);
    double *qkv = malloc(tokens * 3 * width * sizeof *qkv), *row = malloc(width * sizeof *row);
    double *mixed = malloc(width * sizeof *mixed), *mlp = malloc(hidden * sizeof *mlp);
    for (size_t i = 0; i < tokens; i++) {
        norm(tensors, row, x + i * width, prefix, "layer_norm1");
        linear(tensors, qkv + 3 * i * width, row, prefix, "self_attn.q_proj", width);
        linear(tensors, qkv + (3 * i + 1) * width, row, prefix, "self_attn.k_proj", width);
        linear(tensors, qkv + (3 * i + 2) * width, row, prefix, "self_attn.v_proj", width);
    }
    for (size_t i = 0; i < tokens; i++) {
        plain_attention(mixed, qkv, i, causal ? i + 1 : tokens, width, heads, 1 / sqrt((double)(width / heads)));
        linear(tensors, row, mixed, prefix, "self_attn.out_proj", width);
        for (size_t c = 0; c < width; c++)
            x[i * width + c] += row[c];
        norm(tensors, row, x + i * width, prefix, "layer_norm2");
        linear(tensors, mlp, row, prefix, "mlp.fc1", width);
        for (size_t c = 0; c < hidden; c++)
            mlp[c] *= quick_gelu ? 1 / (1 + exp(-1.702 * mlp[c])) : (1 + erf(mlp[c] / sqrt(2))) / 2;
        linear(tensors, row, mlp, prefix, "mlp.fc2", hidden);
        for (size_t c = 0; c < width; c++)
            x[i * width + c] += row[c];
    }
    free(qkv);
    free(row);
    free(mixed);
    free(mlp);
}

/* x [tokens, width] through all blocks of a tower */
static void run_blocks(struct golden *tensors, double *x, const char *tower, size_t tokens, size_t width, size_t heads,
                       bool causal, bool quick_gelu)
{
    for (size_t layer = 0;; layer++) {
        char prefix[64], name[96];
        size_t count;
        snprintf(prefix, sizeof prefix, "%sencoder.layers.%zu.", tower, layer);
        snprintf(name, sizeof name, "%slayer_norm1.bias", prefix);
        if (golden_get(tensors, name, "F32", &count) == NULL)
            return;
        run_block(tensors, x, prefix, tokens, width, heads, causal, quick_gelu);
    }
}

/* embedding = projection(norm(token)) at unit length */
static void project(struct golden *tensors, double *embedding, const double *token, const char *tower,
                    const char *norm_name, const char *projection, size_t width)
{
    size_t count;
    double square = 0, *normed = malloc(width * sizeof *normed);
    const float *weight = tensor(tensors, &count, "%s.weight", projection);
    norm(tensors, normed, token, tower, norm_name);
    multiply(embedding, normed, weight, NULL, count / width, width);
    for (size_t i = 0; i < count / width; i++)
        square += embedding[i] * embedding[i];
    for (size_t i = 0; i < count / width; i++)
        embedding[i] /= sqrt(square);
    free(normed);
}

void plain_clip_text(double *embedding, struct golden *tensors, size_t heads, bool quick_gelu, const int32_t *ids,
                     size_t count)
{
    size_t width;
    tensor(tensors, &width, "text_model.final_layer_norm.bias");
    const float *table = tensor(tensors, NULL, "text_model.embeddings.token_embedding.weight");
    const float *positions = tensor(tensors, NULL, "text_model.embeddings.position_embedding.weight");
    double *x = malloc(count * width * sizeof *x);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < width; c++)
            x[i * width + c] = (double)table[(size_t)ids[i] * width + c] + positions[i * width + c];
    run_blocks(tensors, x, "text_model.", count, width, heads, true, quick_gelu);
    project(tensors, embedding, x + (count - 1) * width, "text_model.", "final_layer_norm", "text_projection", width);
    free(x);
}

/* token [width] of the patch at row y and column x */
static void embed_patch(struct golden *tensors, double *token, const float *pixels, size_t side, size_t patch,
                        size_t width, size_t y, size_t x)
{
    const float *weight = tensor(tensors, NULL, "vision_model.embeddings.patch_embedding.weight");
    for (size_t out = 0; out < width; out++) {
        token[out] = 0;
        for (size_t i = 0; i < 3 * patch * patch; i++) {
            const size_t channel = i / (patch * patch);
            const size_t row = y * patch + i / patch % patch, column = x * patch + i % patch;
            token[out] += (double)weight[out * 3 * patch * patch + i] * pixels[(channel * side + row) * side + column];
        }
    }
}

void plain_clip_image(double *embedding, struct golden *tensors, size_t heads, bool quick_gelu, const float *pixels,
                      size_t side)
{
    size_t width, shape[4];
    const float *class_token = tensor(tensors, &width, "vision_model.embeddings.class_embedding");
    const float *positions = tensor(tensors, NULL, "vision_model.embeddings.position_embedding.weight");
    ck_assert_uint_eq(golden_shape(tensors, "vision_model.embeddings.patch_embedding.weight", shape, 4), 4);
    const size_t patch = shape[2], grid = side / patch, tokens = 1 + grid * grid;
    double *x = malloc(tokens * width * sizeof *x);
    for (size_t c = 0; c < width; c++)
        x[c] = class_token[c];
    for (size_t i = 0; i < grid * grid; i++)
        embed_patch(tensors, x + (1 + i) * width, pixels, side, patch, width, i / grid, i % grid);
    for (size_t i = 0; i < tokens; i++) {
        for (size_t c = 0; c < width; c++)
            x[i * width + c] += positions[i * width + c];
        norm(tensors, x + i * width, x + i * width, "vision_model.", "pre_layrnorm");
    }
    run_blocks(tensors, x, "vision_model.", tokens, width, heads, false, quick_gelu);
    project(tensors, embedding, x, "vision_model.", "post_layernorm", "visual_projection", width);
    free(x);
}

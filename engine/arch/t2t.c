/*
 * t2t.c - T2T-ViT (arXiv 2101.11986) in the names of its authors' code: the plain encoder on tokens that a
 * tokens-to-token module makes. Three soft splits unfold overlapping patches; after each of the first two a small
 * transformer (or Performer, arXiv 2009.14794) layer brings the tokens to token_dim.
 *
 *     x = unfold(picture, 7 / 4);  x = layer1(x)
 *     x = unfold(x, 3 / 2);        x = layer2(x)
 *     tokens = project(unfold(x, 3 / 2))
 *
 *     layer(x): y = attention(norm1(x)), v = values;  y = v + proj(y);  y + mlp(norm2(y))
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

static const float performer_eps = 1e-8f; /* in the denominator of the Performer's attention */

/* One layer of the tokens-to-token module, D inputs to E outputs per token. */
struct token_layer {
    struct sliding split;       /* makes its input; D = k*k*channels */
    struct norm norm1, norm2;
    struct linear qkv;          /* [3*E, D]: q, k, v; a Performer's k, q, v */
    const float *features;      /* [F, E]: a Performer's random features; NULL: softmax attention */
    size_t feature_count;       /* F */
    struct attention attention; /* one head, scaled by 1 / sqrt(D) */
    struct linear proj;
    struct mlp mlp;
};

struct t2t_stem {
    size_t image_height, image_width;
    struct token_layer layers[2];
    struct sliding last_split;
    struct linear project;
};

/* The stem's memory, sized for the larger of both layers. */
struct t2t_memory {
    float *input;  /* [T, D]: unfolded, then normed */
    float *qkv;    /* [T, 3*E] */
    float *tokens; /* [T, E]: a layer's result; at first the picture [H*W, 3] */
    float *heads;  /* [T, E + 1]: attention's result, then the MLP's input and hidden values */
    float *attention; /* softmax: attention_floats(); Performer: [2, T, F] features, [F, E + 1] */
};

/* Floats of one layer's attention. */
static size_t token_attention_floats(const struct token_layer *layer)
{
    const size_t tokens = sliding_positions(&layer->split), width = layer->proj.out;
    if (layer->features == NULL)
        return attention_floats(&layer->attention, tokens, width);
    return 2 * tokens * layer->feature_count + layer->feature_count * (width + 2);
}

static size_t lay_out(const struct t2t_stem *stem, float *memory, struct t2t_memory *parts)
{
    size_t sizes[5] = {sliding_positions(&stem->last_split) * stem->project.in, 0,
                       3 * stem->image_height * stem->image_width, 0, 0};
    for (size_t i = 0; i < 2; i++) {
        const struct token_layer *layer = &stem->layers[i];
        const size_t tokens = sliding_positions(&layer->split), width = layer->proj.out;
        sizes[0] = size_larger(sizes[0], tokens * layer->qkv.in);
        sizes[1] = size_larger(sizes[1], tokens * 3 * width);
        sizes[2] = size_larger(sizes[2], tokens * width);
        sizes[3] = size_larger(sizes[3], tokens * (width + size_larger(layer->mlp.fc1.out, 1)));
        sizes[4] = size_larger(sizes[4], token_attention_floats(layer));
    }
    size_t starts[5];
    const size_t floats = parts_lay_out(starts, sizes, 5);
    if (memory != NULL)
        *parts = (struct t2t_memory){.input = memory + starts[0], .qkv = memory + starts[1], .tokens = memory + starts[2],
                                     .heads = memory + starts[3], .attention = memory + starts[4]};
    return floats;
}

static size_t stem_memory(const void *state)
{
    return lay_out(state, NULL, NULL);
}

/* phi [T, F] of x [T, E]: exp(w x - |x|^2 / 2) / sqrt(F) */
static void random_features(const struct token_layer *layer, const struct compute *compute, float *phi, const float *x,
                            size_t tokens)
{
    const size_t width = layer->proj.in, count = layer->feature_count;
    compute_gemm(compute,
                 &(struct gemm){.m = tokens, .n = count, .k = width, .alpha = 1, .beta = 0, .a = x, .lda = 3 * width,
                                .b = layer->features, .ldb = width, .b_transposed = true, .c = phi, .ldc = count});
    compute->kernels->random_features(phi, x, 3 * width, width, 1 / sqrtf((float)count), tokens, count);
}

/* out [T, E] = phi(q) (phi(k)^T v) / (phi(q) sum phi(k) + eps); the sum is one more column of values. */
static void performer_forward(const struct token_layer *layer, const struct compute *compute,
                              const struct t2t_memory *memory, size_t tokens)
{
    const size_t width = layer->proj.in, count = layer->feature_count, columns = width + 1;
    float *keys = memory->attention, *queries = keys + tokens * count, *values = queries + tokens * count;
    float *sums = values + count * columns, *out = memory->heads;
    random_features(layer, compute, keys, memory->qkv, tokens);
    random_features(layer, compute, queries, memory->qkv + width, tokens);
    compute_gemm(compute,
                 &(struct gemm){.m = count, .n = width, .k = tokens, .alpha = 1, .beta = 0, .a = keys, .lda = count,
                                .a_transposed = true, .b = memory->qkv + 2 * width, .ldb = 3 * width, .c = values,
                                .ldc = columns});
    memset(sums, 0, count * sizeof *sums);
    compute->kernels->column_sums(sums, keys, NULL, tokens, count);
    for (size_t i = 0; i < count; i++)
        values[i * columns + width] = sums[i];
    compute_gemm(compute,
                 &(struct gemm){.m = tokens, .n = columns, .k = count, .alpha = 1, .beta = 0, .a = queries,
                                .lda = count, .b = values, .ldb = columns, .c = out, .ldc = columns});
    for (size_t i = 0; i < tokens; i++) {
        const float share = 1 / (out[i * columns + width] + performer_eps);
        for (size_t c = 0; c < width; c++) /* closing up: row i moves i places to the front */
            out[i * width + c] = share * out[i * columns + c];
    }
}

/* memory->tokens [T, E] from memory->input [T, D] */
static void layer_forward(const struct token_layer *layer, const struct compute *compute, const struct t2t_memory *memory)
{
    const size_t tokens = sliding_positions(&layer->split), width = layer->proj.out;
    norm_forward(&layer->norm1, compute, memory->input, memory->input, tokens, layer->qkv.in);
    linear_forward(&layer->qkv, compute, memory->qkv, memory->input, layer->qkv.in, tokens);
    if (layer->features != NULL)
        performer_forward(layer, compute, memory, tokens);
    else
        attention_forward(&layer->attention, compute, memory->attention, memory->heads, memory->qkv, tokens, tokens,
                          width, 0, NULL);
    float *x = memory->tokens, *normed = memory->heads, *hidden = normed + tokens * width;
    for (size_t i = 0; i < tokens; i++)
        memcpy(x + i * width, memory->qkv + (3 * i + 2) * width, width * sizeof *x);
    linear_add(&layer->proj, compute, x, memory->heads, tokens);
    norm_forward(&layer->norm2, compute, normed, x, tokens, width);
    mlp_forward(&layer->mlp, compute, hidden, x, normed, tokens, NULL);
}

static void stem_forward(const void *state, const struct compute *compute, float *memory, float *tokens,
                         const float *pixels)
{
    const struct t2t_stem *stem = state;
    struct t2t_memory parts;
    size_t channels = 3;
    lay_out(stem, memory, &parts);
    pixels_to_map(parts.tokens, pixels, stem->image_height, stem->image_width);
    for (size_t i = 0; i < 2; i++) {
        unfold(parts.input, parts.tokens, &stem->layers[i].split, channels, 0, sliding_positions(&stem->layers[i].split));
        layer_forward(&stem->layers[i], compute, &parts);
        channels = stem->layers[i].proj.out;
    }
    unfold(parts.input, parts.tokens, &stem->last_split, channels, 0, sliding_positions(&stem->last_split));
    linear_forward(&stem->project, compute, tokens, parts.input, stem->project.in, sliding_positions(&stem->last_split));
}

/* ---- loading ---- */

/* The authors' unfolded rows are (channel, row, column), ours (row, column, channel). */
static vit_status load_unfolded_norm(const struct loader *loader, struct norm *norm, const char *name, size_t channels,
                                     size_t area)
{
    vit_status status = load_norm(loader, norm, name, channels * area);
    if (status == VIT_OK)
        status = load_reordered(loader, &norm->weight, 1, channels, area);
    return status == VIT_OK ? load_reordered(loader, &norm->bias, 1, channels, area) : status;
}

static vit_status load_unfolded_linear(const struct loader *loader, struct linear *linear, const char *name, size_t out,
                                       size_t channels, size_t area, enum bias bias)
{
    vit_status status = load_linear(loader, linear, name, out, channels * area, bias);
    return status == VIT_OK ? load_reordered(loader, &linear->weight, out, channels, area) : status;
}

static vit_status load_features(const struct loader *loader, struct token_layer *layer, const char *name, size_t width)
{
    const struct tensor *tensor = load_find(loader, name);
    const size_t count = tensor->rank == 2 && tensor->shape[0] >= 1 && tensor->shape[0] <= MAX_WIDTH ? tensor->shape[0] : 1;
    layer->feature_count = count;
    return load_tensor(loader, &layer->features, name, (size_t[]){count, width}, 2);
}

/* The layer below "<prefix>", whose split reads maps of so many channels. */
static vit_status load_token_layer(const struct loader *loader, struct token_layer *layer, const char *prefix,
                                   size_t channels)
{
    const struct name features = name_of("%sw", prefix), norm2 = name_of("%snorm2.weight", prefix);
    const bool performer = load_find(loader, features.text) != NULL;
    const char *const attention = performer ? "" : "attn.";
    const struct tensor *norm = load_find(loader, norm2.text);
    const size_t area = layer->split.kernel * layer->split.kernel;
    if (sliding_positions(&layer->split) == 0)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "an image of so few pixels has no patches");
    if (norm == NULL || norm->rank != 1 || norm->shape[0] < 1 || norm->shape[0] > MAX_WIDTH)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s' [token_dim] is missing or has another shape",
                             norm2.text);
    const size_t width = norm->shape[0];
    const struct name fc1 = name_of("%smlp.%s", prefix, performer ? "0" : "fc1");
    const struct tensor *hidden = load_find(loader, name_of("%s.bias", fc1.text).text);
    const size_t mlp = hidden != NULL && hidden->count >= 1 && hidden->count <= MAX_WIDTH ? hidden->count : width;
    layer->mlp.activation = ACTIVATION_GELU;
    layer->attention = (struct attention){.heads = 1, .scale = 1 / sqrtf((float)(channels * area))};
    if (!performer)
        load_attention_products(loader, &layer->attention, sliding_positions(&layer->split), width);
    vit_status status = performer ? load_features(loader, layer, features.text, width) : VIT_OK;
    if (status == VIT_OK)
        status = load_unfolded_norm(loader, &layer->norm1, name_of("%snorm1", prefix).text, channels, area);
    if (status == VIT_OK)
        status = load_unfolded_linear(loader, &layer->qkv, name_of("%s%s", prefix, performer ? "kqv" : "attn.qkv").text,
                                      3 * width, channels, area, performer ? BIAS_REQUIRED : BIAS_OPTIONAL);
    if (status == VIT_OK)
        status = load_linear(loader, &layer->proj, name_of("%s%sproj", prefix, attention).text, width, width,
                             BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_norm(loader, &layer->norm2, name_of("%snorm2", prefix).text, width);
    if (status == VIT_OK)
        status = load_linear(loader, &layer->mlp.fc1, fc1.text, mlp, width, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_linear(loader, &layer->mlp.fc2, name_of("%smlp.%s", prefix, performer ? "2" : "fc2").text, width, mlp,
                             BIAS_REQUIRED);
    struct linear *const linears[] = {&layer->qkv, &layer->proj, &layer->mlp.fc1, &layer->mlp.fc2};
    return status == VIT_OK ? load_packed_all(loader, linears, 4) : status;
}

static vit_status load_layers(const struct vit_loader *loader, struct t2t_stem *stem)
{
    const struct loader *base = &loader->base;
    struct sliding split = sliding_padded(7, 4, 2, stem->image_height, stem->image_width);
    size_t channels = 3;
    vit_status status = VIT_OK;
    for (size_t i = 0; status == VIT_OK && i < 2; i++) {
        stem->layers[i].split = split;
        status = load_token_layer(base, &stem->layers[i], name_of("tokens_to_token.attention%zu.", i + 1).text, channels);
        channels = stem->layers[i].proj.out;
        split = sliding_padded(3, 2, 1, split.out_height, split.out_width);
    }
    stem->last_split = split;
    if (status == VIT_OK)
        status = load_unfolded_linear(base, &stem->project, "tokens_to_token.project", loader->vit->width, channels, 9,
                                      BIAS_REQUIRED);
    return status == VIT_OK ? load_packed(base, &stem->project) : status;
}

static vit_status load_stem(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    struct t2t_stem *stem = calloc(1, sizeof *stem);
    if (stem == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for the stem");
    *stem = (struct t2t_stem){.image_height = vit->image_height, .image_width = vit->image_width};
    vit->stem = (struct stem){.state = stem, .free = free, .memory = stem_memory, .forward = stem_forward,
                              .rounds_up = true};
    vit_status status = load_layers(loader, stem);
    vit->patch = 16;
    vit->grid_height = stem->last_split.out_height;
    vit->grid_width = stem->last_split.out_width;
    return status == VIT_OK ? vit_check_grid(loader) : status;
}

/* ---- the row ---- */

/* By the number in the name: t2t_vit_14, t2t_vit_t_19 and so on. */
static const struct vit_size published[] = {{"14_resnext", 384, 32}, {"14_wide", 768, 12}, {"7", 256, 4},  {"10", 256, 4},
                                        {"12", 256, 4},          {"14", 384, 6},       {"19", 448, 7}, {"24", 512, 8}};

static vit_status configure(struct vit_loader *loader)
{
    static const char *const known[] = {"img_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads",
                                        "mlp_ratio", "qkv_bias", "qk_scale", "token_dim", "tokens_type", "drop_rate",
                                        "attn_drop_rate", "drop_path_rate"};
    struct loader *base = &loader->base;
    double scale = 0;
    base->eps = 1e-5f; /* nn.LayerNorm's default */
    base->activation = ACTIVATION_GELU;
    vit_status status =
        load_check_model_args(base, loader->family->architecture, known, sizeof known / sizeof known[0]);
    if (status == VIT_OK)
        status = json_number(base->folder->model_args, "qk_scale", &scale, NULL, base->err);
    if (status == VIT_OK && !(scale >= 0 && scale <= 1000))
        return vit_error_set(base->err, VIT_ERR_FORMAT, "config.json: \"model_args.qk_scale\" must be from 0 to 1000");
    loader->attention_scale = (float)scale;
    const char *size = base->folder->name + strlen("t2t_vit_");
    size += strncmp(size, "t_", 2) == 0 ? 2 : 0;
    return status == VIT_OK ? vit_read_heads(loader, size, published, sizeof published / sizeof published[0]) : status;
}

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TIMM && strncmp(folder->name, "t2t_vit_", 8) == 0;
}

static vit_status load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family family = {.architecture = "t2t", .names = &vit_timm_names, .configure = configure,
                                             .load_stem = load_stem};
    return vit_load_family(state, folder, info, &family, err);
}

const struct arch arch_t2t = {
    .name = "t2t",
    .runs = {[LAYOUT_TIMM] = "t2t_vit_*"},
    .recognise = recognise,
    .load = load,
    VIT_FAMILY_FUNCTIONS,
};

/* load.c - see load.h. */
#include "engine/arch/load.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/math/cpu.h"
#include "engine/store/json.h"

struct name name_of(const char *format, ...)
{
    struct name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

/* ---- tensors ---- */

const struct tensor *load_find(const struct loader *loader, const char *name)
{
    return tensors_find(&loader->folder->weights->tensors, name);
}

vit_status load_tensor(const struct loader *loader, const float **values, const char *name, const size_t *shape,
                       size_t rank)
{
    return weights_get(loader->folder->weights, values, name, shape, rank, loader->err);
}

static vit_status load_bias(const struct loader *loader, const float **values, const char *name, size_t out,
                            enum bias bias)
{
    const struct name text = name_of("%s.bias", name);
    if (bias == BIAS_NONE || (bias == BIAS_OPTIONAL && load_find(loader, text.text) == NULL))
        return VIT_OK;
    return load_tensor(loader, values, text.text, (size_t[]){out}, 1);
}

vit_status load_linear(const struct loader *loader, struct linear *linear, const char *name, size_t out, size_t in,
                       enum bias bias)
{
    *linear = (struct linear){.in = in, .out = out};
    vit_status status =
        load_tensor(loader, &linear->weight, name_of("%s.weight", name).text, (size_t[]){out, in}, 2);
    return status == VIT_OK ? load_bias(loader, &linear->bias, name, out, bias) : status;
}

vit_status load_norm(const struct loader *loader, struct norm *norm, const char *name, size_t width)
{
    *norm = (struct norm){.eps = loader->eps};
    vit_status status = load_tensor(loader, &norm->weight, name_of("%s.weight", name).text, &width, 1);
    return status == VIT_OK ? load_bias(loader, &norm->bias, name, width, BIAS_REQUIRED) : status;
}

vit_status load_head(const struct loader *loader, struct linear *head, const char *name, size_t in)
{
    const struct name weight = name_of("%s.weight", name);
    const struct tensor *tensor = load_find(loader, weight.text);
    const bool convolution = tensor != NULL && tensor->rank == 4;
    if (tensor == NULL)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                             "tensor '%s' [classes, %zu] is missing: the folder holds no classification head",
                             weight.text, in);
    if ((tensor->rank != 2 && !convolution) || tensor->shape[0] < 1 || tensor->shape[0] > MAX_CLASSES)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s': [classes, %zu] was expected", weight.text, in);
    const size_t shape[] = {tensor->shape[0], in, 1, 1};
    *head = (struct linear){.in = in, .out = shape[0]};
    vit_status status = load_tensor(loader, &head->weight, weight.text, shape, convolution ? 4 : 2);
    if (status == VIT_OK)
        status = load_bias(loader, &head->bias, name, shape[0], BIAS_REQUIRED);
    return status == VIT_OK ? load_packed_kept(loader, head) : status;
}

vit_status load_projection(const struct loader *loader, struct linear *projection, const char *name, size_t in)
{
    const struct name weight = name_of("%s.weight", name);
    const struct tensor *tensor = load_find(loader, weight.text);
    if (tensor == NULL || tensor->rank != 2 || tensor->shape[0] < 1 || tensor->shape[0] > MAX_WIDTH)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "tensor '%s' [embedding width, %zu] is missing or has another shape", weight.text, in);
    vit_status status = load_linear(loader, projection, name, tensor->shape[0], in, BIAS_NONE);
    return status == VIT_OK ? load_packed_kept(loader, projection) : status;
}

size_t load_count(const struct loader *loader, const char *prefix, const char *name)
{
    size_t count = 0;
    while (count < MAX_LAYERS && load_find(loader, name_of("%s%zu.%s", prefix, count, name).text) != NULL)
        count++;
    return count;
}

size_t load_count_staged(const struct loader *loader, const char *prefix, const char *name)
{
    size_t count = 0;
    for (size_t stage = 0, found = 1; found > 0 && stage < MAX_LAYERS; stage++)
        count += found = load_count(loader, name_of("%sstages.%zu.blocks.", prefix, stage).text, name);
    return count;
}

vit_status load_derived(const struct loader *loader, float **values, size_t count)
{
    *values = weights_allocate(loader->folder->weights, count);
    if (*values == NULL)
        return vit_error_set(loader->err, VIT_ERR_NO_MEMORY, "no memory for %zu derived weights", count);
    return VIT_OK;
}

/* [rows, channels, k, k] to [rows, k, k, channels] */
static void reorder(float *out, const float *in, size_t rows, size_t channels, size_t area)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < area; i++)
            for (size_t c = 0; c < channels; c++)
                *out++ = in[(row * channels + c) * area + i];
}

vit_status load_reordered(const struct loader *loader, const float **values, size_t rows, size_t channels, size_t area)
{
    float *reordered;
    vit_status status = load_derived(loader, &reordered, rows * channels * area);
    if (status == VIT_OK) {
        reorder(reordered, *values, rows, channels, area);
        weights_drop(loader->folder->weights, *values);
        *values = reordered;
    }
    return status;
}

vit_status load_conv(const struct loader *loader, struct conv *conv, const char *name, size_t in, enum bias bias)
{
    const size_t kernel = conv->sliding.kernel;
    const struct name weight = name_of("%s.weight", name);
    const struct tensor *tensor = load_find(loader, weight.text);
    const bool sound = tensor != NULL && tensor->rank == 4 && tensor->shape[0] >= 1 && tensor->shape[0] <= MAX_WIDTH;
    const size_t out = sound ? tensor->shape[0] : 1; /* 1: to be named by the error */
    conv->in = in;
    conv->out = out;
    vit_status status = load_tensor(loader, &conv->weight, weight.text, (size_t[]){out, in, kernel, kernel}, 4);
    if (status == VIT_OK && kernel > 1)
        status = load_reordered(loader, &conv->weight, out, in, kernel * kernel);
    return status == VIT_OK ? load_bias(loader, &conv->bias, name, out, bias) : status;
}

vit_status load_scaled(const struct loader *loader, struct linear *linear, const float *scale, float factor)
{
    float *weight, *bias;
    vit_status status = load_derived(loader, &weight, linear->out * linear->in);
    if (status == VIT_OK)
        status = load_derived(loader, &bias, linear->out);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < linear->out; i++) {
        const float row = scale != NULL ? scale[i] : factor;
        for (size_t j = 0; j < linear->in; j++)
            weight[i * linear->in + j] = row * linear->weight[i * linear->in + j];
        bias[i] = linear->bias != NULL ? row * linear->bias[i] : 0;
    }
    weights_drop(loader->folder->weights, linear->weight);
    linear->weight = weight;
    linear->bias = bias;
    return VIT_OK;
}

static void need_scratch(const struct loader *loader, size_t floats)
{
    size_t *scratch = loader->folder->scratch;
    *scratch = floats > *scratch ? floats : *scratch;
}

static vit_status pack(const struct loader *loader, struct packed *packed, const float *weight, size_t out, size_t in,
                       vit_dtype dtype)
{
    const struct products *products =
        products_best(dtype == VIT_DTYPE_INT8 && in > PACKED_INT8_MAX_K ? VIT_DTYPE_FP32 : dtype);
    float *memory;
    if (products == NULL)
        return VIT_OK;
    vit_status status = load_derived(loader, &memory, packed_floats(products, out, in));
    if (status == VIT_OK) {
        *packed = packed_weight(products, memory, weight, in, out, in);
        need_scratch(loader, packed_scratch(products, in));
        need_scratch(loader, packed_panel_floats(packed));
    }
    return status;
}

/* The weight has been packed, and nobody reads it any more. */
static void drop(const struct loader *loader, const float **weight, const struct packed *packed)
{
    if (packed->products == NULL)
        return;
    weights_drop(loader->folder->weights, *weight);
    *weight = NULL;
}

static vit_status pack_linear(const struct loader *loader, struct linear *linear, vit_dtype dtype)
{
    vit_status status = pack(loader, &linear->packed, linear->weight, linear->out, linear->in, dtype);
    drop(loader, &linear->weight, &linear->packed);
    return status;
}

vit_status load_packed(const struct loader *loader, struct linear *linear)
{
    return pack_linear(loader, linear, loader->folder->dtype);
}

vit_status load_packed_kept(const struct loader *loader, struct linear *linear)
{
    return pack(loader, &linear->packed, linear->weight, linear->out, linear->in, VIT_DTYPE_FP32);
}

/* Of attention, and of what follows it: with int8 the next better one. */
static vit_dtype attention_dtype(const struct loader *loader)
{
    const vit_dtype dtype = loader->folder->dtype;
    if (dtype != VIT_DTYPE_INT8)
        return dtype;
    return vit_dtype_is_fast(VIT_DTYPE_BF16) ? VIT_DTYPE_BF16 : VIT_DTYPE_FP32;
}

void load_attention_products(const struct loader *loader, struct attention *attention, size_t tokens, size_t width)
{
    attention->products = products_best(attention_dtype(loader));
    need_scratch(loader, attention->causal ? attention_sequence_scratch(attention, tokens, width)
                                           : attention_scratch(attention, tokens, width));
}

vit_status load_packed_all(const struct loader *loader, struct linear *const *linears, size_t count)
{
    vit_status status = VIT_OK;
    for (size_t i = 0; i < count && status == VIT_OK; i++)
        if (linears[i]->out > 0)
            status = load_packed(loader, linears[i]);
    return status;
}

vit_status load_packed_conv(const struct loader *loader, struct conv *conv)
{
    const size_t in = conv->sliding.kernel * conv->sliding.kernel * conv->in;
    vit_status status = pack(loader, &conv->packed, conv->weight, conv->out, in, loader->folder->dtype);
    drop(loader, &conv->weight, &conv->packed);
    need_scratch(loader, conv_scratch(conv));
    return status;
}

vit_status load_packed_block(const struct loader *loader, struct block *block)
{
    vit_status status = load_packed_all(loader, (struct linear *[]){&block->qkv, &block->mlp.fc1, &block->mlp.fc2}, 3);
    return status == VIT_OK ? pack_linear(loader, &block->proj, attention_dtype(loader)) : status;
}

/* ---- blocks ---- */

/* timm keeps queries, keys and values in one matrix, transformers in three; either may lack the bias. */
static vit_status load_qkv(const struct loader *loader, struct linear *qkv, const char *prefix,
                           const struct block_names *names, size_t width)
{
    if (names->qkv != NULL)
        return load_linear(loader, qkv, name_of("%s%s", prefix, names->qkv).text, 3 * width, width, BIAS_OPTIONAL);
    const char *const parts[] = {names->query, names->key, names->value};
    struct name weights[3], biases[3];
    const char *weight_names[3], *bias_names[3];
    for (size_t i = 0; i < 3; i++) {
        weights[i] = name_of("%s%s.weight", prefix, parts[i]);
        biases[i] = name_of("%s%s.bias", prefix, parts[i]);
        weight_names[i] = weights[i].text;
        bias_names[i] = biases[i].text;
    }
    struct weights *all = loader->folder->weights;
    *qkv = (struct linear){.in = width, .out = 3 * width};
    vit_status status = weights_stack(all, &qkv->weight, weight_names, 3, width, width, loader->err);
    if (status == VIT_OK && load_find(loader, bias_names[0]) != NULL)
        status = weights_stack(all, &qkv->bias, bias_names, 3, width, 0, loader->err);
    return status;
}

static vit_status load_layer_scale(const struct loader *loader, struct linear *linear, const char *prefix,
                                   const char *name)
{
    const float *scale;
    if (name == NULL || load_find(loader, name_of("%s%s", prefix, name).text) == NULL)
        return VIT_OK;
    vit_status status = load_tensor(loader, &scale, name_of("%s%s", prefix, name).text, &linear->out, 1);
    return status == VIT_OK ? load_scaled(loader, linear, scale, 1) : status;
}

static vit_status load_mlp(const struct loader *loader, struct block *block, const char *prefix,
                           const struct block_names *names, size_t width)
{
    const struct name name = name_of("%s%s", prefix, names->fc1);
    const struct tensor *fc1 = load_find(loader, name_of("%s.weight", name.text).text);
    const bool gated = loader->activation == ACTIVATION_SWIGLU;
    if (fc1 == NULL || fc1->rank != 2 || fc1->shape[0] < 1 || fc1->shape[0] > 2 * MAX_WIDTH ||
        (gated && fc1->shape[0] % 2 != 0))
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "tensor '%s.weight' [mlp width, %zu] is missing or has another shape", name.text, width);
    const size_t hidden = fc1->shape[0];
    block->mlp.activation = loader->activation;
    vit_status status = load_linear(loader, &block->mlp.fc1, name.text, hidden, width, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_linear(loader, &block->mlp.fc2, name_of("%s%s", prefix, names->fc2).text, width,
                             gated ? hidden / 2 : hidden, BIAS_REQUIRED);
    return status == VIT_OK ? load_layer_scale(loader, &block->mlp.fc2, prefix, names->scale2) : status;
}

/* A file that lost a tensor on the way would otherwise pass for a model without it. */
static vit_status check_optional_parts(struct loader *loader, const char *prefix, const struct block_names *names)
{
    const char *const parts[] = {names->qkv != NULL ? names->qkv : names->query, names->scale1, names->scale2};
    unsigned found = 1;
    for (size_t i = 0; i < 3; i++)
        if (parts[i] != NULL && load_find(loader, name_of(i == 0 ? "%s%s.bias" : "%s%s", prefix, parts[i]).text) != NULL)
            found |= 2u << i;
    if (loader->optional_parts == 0)
        loader->optional_parts = found;
    for (size_t i = 0; i < 3; i++)
        if ((found ^ loader->optional_parts) & 2u << i)
            return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s%s%s' is %s, unlike in the first block", prefix,
                                 parts[i], i == 0 ? ".bias" : "", found & 2u << i ? "there" : "missing");
    return VIT_OK;
}

vit_status load_block(struct loader *loader, struct block *block, const char *prefix, const struct block_names *names,
                      size_t width)
{
    vit_status status = check_optional_parts(loader, prefix, names);
    if (status != VIT_OK)
        return status;
    status = load_norm(loader, &block->norm1, name_of("%s%s", prefix, names->norm1).text, width);
    if (status == VIT_OK)
        status = load_qkv(loader, &block->qkv, prefix, names, width);
    if (status == VIT_OK)
        status = load_linear(loader, &block->proj, name_of("%s%s", prefix, names->proj).text, width, width, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_layer_scale(loader, &block->proj, prefix, names->scale1);
    if (status == VIT_OK)
        status = load_norm(loader, &block->norm2, name_of("%s%s", prefix, names->norm2).text, width);
    return status == VIT_OK ? load_mlp(loader, block, prefix, names, width) : status;
}

/* ---- the config ---- */

vit_status load_missing_key(const struct loader *loader, const char *key)
{
    return vit_error_set(loader->err, VIT_ERR_FORMAT, "config.json: \"%s\" is missing", key);
}

static const struct {
    const char *name;
    enum activation activation;
} activations[] = {{"gelu", ACTIVATION_GELU},           {"gelu_new", ACTIVATION_GELU_TANH},
                   {"quick_gelu", ACTIVATION_GELU_QUICK}, {"swiglu", ACTIVATION_SWIGLU}, {"relu", ACTIVATION_RELU},
                   {"gelu_tanh", ACTIVATION_GELU_TANH}, {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH}};

enum { NAMED_ACTIVATIONS = sizeof activations / sizeof activations[0] };

vit_status load_activation(const struct loader *loader, enum activation *activation, const char *name)
{
    for (size_t i = 0; i < NAMED_ACTIVATIONS; i++)
        if (strcmp(name, activations[i].name) == 0 && activations[i].activation <= ACTIVATION_GELU_QUICK) {
            *activation = activations[i].activation;
            return VIT_OK;
        }
    return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                         "config.json: activation \"%.40s\" is not supported; gelu, gelu_new (gelu_tanh) and quick_gelu are", name);
}

const char *activation_name(enum activation activation)
{
    size_t i = 0;
    while (activations[i].activation != activation)
        i++;
    return activations[i].name;
}

vit_status load_transformers_keys(struct loader *loader)
{
    const cJSON *config = loader->folder->config;
    const char *activation = NULL;
    double eps = 0;
    bool found = false;
    vit_status status = json_number(config, "layer_norm_eps", &eps, &found, loader->err);
    if (status == VIT_OK && !found)
        return load_missing_key(loader, "layer_norm_eps");
    if (status == VIT_OK)
        status = json_string(config, "hidden_act", &activation, &found, loader->err);
    if (status == VIT_OK && !found)
        return load_missing_key(loader, "hidden_act");
    if (status == VIT_OK)
        status = load_activation(loader, &loader->activation, activation);
    if (status == VIT_OK && !(eps >= 0 && eps <= 1))
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "config.json: \"layer_norm_eps\" must be from 0 to 1");
    loader->eps = (float)eps;
    return status;
}

vit_status load_check_model_args(const struct loader *loader, const char *architecture, const char *const *known,
                                 size_t count)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, loader->folder->model_args) {
        bool found = cJSON_IsNull(item);
        for (size_t i = 0; i < count && !found; i++)
            found = strcmp(item->string, known[i]) == 0;
        if (!found)
            return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                                 "config.json: \"model_args.%.64s\" is not supported by architecture '%s'", item->string,
                                 architecture);
    }
    return VIT_OK;
}

static bool is_size(const cJSON *number, double max)
{
    return cJSON_IsNumber(number) && number->valuedouble >= 1 && number->valuedouble <= max &&
           number->valuedouble == floor(number->valuedouble);
}

vit_status load_image_size(const struct loader *loader, size_t *height, size_t *width)
{
    const struct folder *folder = loader->folder;
    const cJSON *size = json_get(folder->config, "image_size");
    int skip = 0; /* timm's input_size begins with the channels */
    if (folder->layout == LAYOUT_TIMM) {
        size = json_get(folder->model_args, "img_size");
        if (size == NULL) {
            size = json_get(folder->pretrained, "input_size");
            skip = 1;
        }
    }
    const cJSON *first = cJSON_IsArray(size) ? cJSON_GetArrayItem(size, skip) : size;
    const cJSON *second = cJSON_IsArray(size) ? cJSON_GetArrayItem(size, skip + 1) : size;
    if (!is_size(first, MAX_IMAGE) || !is_size(second, MAX_IMAGE))
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "config.json: the image size (\"image_size\", or timm's \"img_size\" or \"input_size\") is "
                             "missing or out of range");
    *height = (size_t)first->valuedouble;
    *width = (size_t)second->valuedouble;
    return VIT_OK;
}

vit_status load_global_pool(const struct loader *loader, const char **pool)
{
    vit_status status = json_string(loader->folder->config, "global_pool", pool, NULL, loader->err);
    return status == VIT_OK ? json_string(loader->folder->model_args, "global_pool", pool, NULL, loader->err) : status;
}

vit_status load_refuse_pool(const struct loader *loader, const char *pool, const char *allowed)
{
    return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "config.json: \"global_pool\" is \"%.32s\"; supported is %s", pool,
                         allowed);
}

vit_status load_check_heads(const struct loader *loader, size_t width, size_t heads)
{
    if (width % heads != 0)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "a width of %zu cannot be split into %zu heads", width, heads);
    return VIT_OK;
}

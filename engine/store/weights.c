#include "engine/store/weights.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/finite.h"
#include "engine/base/size.h"

vit_status weights_init(struct weights *weights, struct tensors *tensors, vit_error *err)
{
    *weights = (struct weights){.tensors = *tensors};
    *tensors = (struct tensors){0};
    weights->used = calloc(weights->tensors.count, sizeof *weights->used);
    if (weights->used == NULL) {
        weights_release(weights);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the table of weights");
    }
    return VIT_OK;
}

void weights_release(struct weights *weights)
{
    for (size_t i = 0; i < weights->owned_count; i++)
        free(weights->owned[i]);
    free(weights->owned);
    free(weights->used);
    tensors_release(&weights->tensors);
    *weights = (struct weights){0};
}

/* IEEE 754 binary16 to binary32 without a branch, so that the compiler vectorises it: shift the exponent field into
 * place and rescale by 2^112, which also makes subnormals right; exponent 31 becomes infinity or NaN. */
static float half_to_float(uint16_t half)
{
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;
    memcpy(&bits, &value, sizeof bits);
    bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void convert(float *out, const struct tensor *tensor)
{
    if (strcmp(tensor->dtype, "F32") == 0) {
        memcpy(out, tensor->data, tensor->bytes);
        return;
    }
    bool half = strcmp(tensor->dtype, "F16") == 0;
    for (size_t i = 0; i < tensor->count; i++) {
        uint16_t stored;
        memcpy(&stored, tensor->data + 2 * i, sizeof stored);
        uint32_t bits = (uint32_t)stored << 16; /* BF16 is the upper half of a float */
        if (half)
            out[i] = half_to_float(stored);
        else
            memcpy(&out[i], &bits, sizeof bits);
    }
}

static bool grow(struct weights *weights)
{
    const size_t capacity = weights->owned_capacity == 0 ? 64 : 2 * weights->owned_capacity;
    float **owned = realloc(weights->owned, capacity * sizeof *owned);
    if (owned == NULL)
        return false;
    weights->owned = owned;
    weights->owned_capacity = capacity;
    return true;
}

float *weights_allocate(struct weights *weights, size_t count)
{
    size_t bytes;
    if (!size_multiply(count, sizeof(float), &bytes) || bytes > SIZE_MAX - 64)
        return NULL;
    if (weights->owned_count == weights->owned_capacity && !grow(weights))
        return NULL;
    float *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (memory != NULL)
        weights->owned[weights->owned_count++] = memory;
    return memory;
}

void weights_drop(struct weights *weights, const float *values)
{
    for (size_t i = weights->owned_count; i-- > 0;) /* most often the last */
        if (weights->owned[i] == values) {
            free(weights->owned[i]);
            weights->owned[i] = weights->owned[--weights->owned_count];
            return;
        }
}

size_t weights_owned_bytes(const struct weights *weights)
{
    size_t bytes = 0;
    for (size_t i = 0; i < weights->owned_count; i++)
        bytes += malloc_usable_size(weights->owned[i]);
    return bytes;
}

/* Finds and checks a tensor and marks it used. */
static vit_status take(struct weights *weights, const struct tensor **found, const char *name, const size_t *shape,
                       size_t rank, vit_error *err)
{
    const struct tensor *tensor = tensors_find(&weights->tensors, name);
    char wanted[128], present[128];
    shape_format(wanted, sizeof wanted, shape, rank);
    if (tensor == NULL)
        return vit_error_set(err, VIT_ERR_FORMAT, "tensor '%s' %s is missing", name, wanted);
    shape_format(present, sizeof present, tensor->shape, tensor->rank);
    if (tensor->rank != rank || memcmp(tensor->shape, shape, rank * sizeof *shape) != 0)
        return vit_error_set(err, VIT_ERR_FORMAT, "tensor '%s': %s was expected, %s was found", name, wanted, present);
    if (strcmp(tensor->dtype, "F32") != 0 && strcmp(tensor->dtype, "F16") != 0 && strcmp(tensor->dtype, "BF16") != 0)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED, "tensor '%s': F32, F16 or BF16 was expected, %s was found", name,
                             tensor->dtype);
    bool *used = &weights->used[tensor - weights->tensors.items];
    if (!*used)
        weights->parameters += tensor->count;
    *used = true;
    *found = tensor;
    return VIT_OK;
}

vit_status weights_get(struct weights *weights, const float **values, const char *name, const size_t *shape,
                       size_t rank, vit_error *err)
{
    const struct tensor *tensor;
    vit_status status = take(weights, &tensor, name, shape, rank, err);
    if (status != VIT_OK)
        return status;
    const float *result = (const float *)(const void *)tensor->data;
    if (strcmp(tensor->dtype, "F32") != 0 || (uintptr_t)tensor->data % _Alignof(float) != 0) {
        float *copy = weights_allocate(weights, tensor->count);
        if (copy == NULL)
            return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for tensor '%s'", name);
        convert(copy, tensor);
        result = copy;
    }
    if (!all_finite(result, tensor->count))
        return vit_error_set(err, VIT_ERR_FORMAT, "tensor '%s' holds a value that is not finite", name);
    *values = result;
    return VIT_OK;
}

vit_status weights_stack(struct weights *weights, const float **values, const char *const *names, size_t parts,
                         size_t rows, size_t columns, vit_error *err)
{
    size_t count, total;
    float *stack = NULL;
    if (size_multiply(rows, columns > 0 ? columns : 1, &count) && size_multiply(count, parts, &total))
        stack = weights_allocate(weights, total);
    if (stack == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for tensor '%s'", names[0]);
    for (size_t i = 0; i < parts; i++) {
        const struct tensor *tensor;
        const size_t shape[] = {rows, columns};
        vit_status status = take(weights, &tensor, names[i], shape, columns > 0 ? 2 : 1, err);
        if (status != VIT_OK)
            return status;
        convert(stack + i * count, tensor);
        if (!all_finite(stack + i * count, count))
            return vit_error_set(err, VIT_ERR_FORMAT, "tensor '%s' holds a value that is not finite", names[i]);
    }
    *values = stack;
    return VIT_OK;
}

static bool ends_in(const char *text, const char *ending)
{
    size_t length = strlen(text), tail = strlen(ending);
    return length >= tail && strcmp(text + length - tail, ending) == 0;
}

vit_status weights_finish(const struct weights *weights, const char *architecture, const char *const *ignored,
                          size_t ignored_count, vit_error *err)
{
    for (size_t i = 0; i < weights->tensors.count; i++) {
        const char *name = weights->tensors.items[i].name;
        bool known = weights->used[i];
        for (size_t j = 0; j < ignored_count && !known; j++)
            known = ends_in(name, ignored[j]);
        if (!known)
            return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                                 "tensor '%s' is no part of architecture '%s' as vitd runs it; the folder holds a "
                                 "variant that is not supported",
                                 name, architecture);
    }
    return VIT_OK;
}

/*
 * decode_stb.c - stb_image, compiled privately with nothing but its PNG and BMP decoders.
 *
 * stb_image trusts its input more than an upload deserves: it ignores checksums, inflates without regard to
 * the header's size, and reads zeros behind the end of a file. So it never sees the upload. png.c and bmp.c
 * check every field and write the picture anew in one plain form, and stb_image's allocations are counted
 * against a budget that follows from the size: a 1x1 PNG cannot inflate to 300 MB.
 */
#include "engine/image/image.h"

#include <limits.h>
#include <malloc.h>
#include <stdlib.h>

#include "engine/base/error.h"

/* What the decode under way on this thread may still allocate. Set by stb_decode() for the length of one
 * call. */
static _Thread_local size_t budget_left;
static _Thread_local bool budget_exceeded, memory_failed;

static void *budget_take(void *block)
{
    if (block == NULL) {
        memory_failed = true;
        return NULL;
    }
    size_t size = malloc_usable_size(block);
    budget_left -= size < budget_left ? size : budget_left;
    return block;
}

static bool budget_allows(size_t size)
{
    if (size <= budget_left)
        return true;
    budget_exceeded = true;
    return false;
}

static void *budget_malloc(size_t size)
{
    return budget_allows(size) ? budget_take(malloc(size)) : NULL;
}

static void budget_free(void *block)
{
    if (block != NULL)
        budget_left += malloc_usable_size(block);
    free(block);
}

/* Old and new block are counted together while both exist, as realloc may copy. */
static void *budget_realloc(void *block, size_t size)
{
    if (!budget_allows(size))
        return NULL;
    size_t before = block != NULL ? malloc_usable_size(block) : 0;
    void *moved = budget_take(realloc(block, size));
    if (moved != NULL)
        budget_left += before;
    return moved;
}

#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 65535
#define STBI_ASSERT(condition) ((void)(condition))
#define STBI_MALLOC(size) budget_malloc(size)
#define STBI_REALLOC(block, size) budget_realloc(block, size)
#define STBI_REALLOC_SIZED(block, old_size, size) budget_realloc(block, size)
#define STBI_FREE(block) budget_free(block)
#pragma GCC diagnostic ignored "-Wunused-function" /* judged at the end of the file: it cannot be popped */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-declarations"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

static vit_status refuse(const struct stb_job *job, vit_error *err)
{
    if (memory_failed)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to decode the %s", job->format);
    if (budget_exceeded)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the %s holds more data than its %zux%zu pixels can need", job->format,
                             job->width, job->height);
    return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the %s is damaged (%s)", job->format,
                         stbi_failure_reason());
}

/* Pillow reads 16-bit grey as 32-bit integers and clips them to 255 on the way to RGB. */
static vit_status grey16_to_rgb(vit_image *image, const uint16_t *grey, const struct stb_job *job,
                                vit_error *err)
{
    vit_status status = image_allocate(image, job->width, job->height, err);
    if (status != VIT_OK)
        return status;
    uint8_t *out = image->pixels;
    for (size_t i = 0; i < job->width * job->height; i++, out += 3)
        out[0] = out[1] = out[2] = grey[i] > 255 ? 255 : (uint8_t)grey[i];
    return VIT_OK;
}

vit_status stb_decode(vit_image *image, const struct stb_job *job, vit_error *err)
{
    if (job->length > INT_MAX || job->width * job->height > (size_t)1 << 28)
        return vit_error_set(err, VIT_ERR_IMAGE_SIZE,
                             "a %s of %zux%zu pixels is too large: send a smaller one", job->format,
                             job->width, job->height);
    budget_left = job->budget;
    budget_exceeded = memory_failed = false;
    int width = 0, height = 0, channels = 0, length = (int)job->length;
    void *pixels = job->grey16
                       ? (void *)stbi_load_16_from_memory(job->bytes, length, &width, &height, &channels, 1)
                       : (void *)stbi_load_from_memory(job->bytes, length, &width, &height, &channels, 3);
    if (pixels == NULL)
        return refuse(job, err);
    vit_status status = VIT_OK;
    if ((size_t)width != job->width || (size_t)height != job->height)
        status = vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the %s is damaged (size)", job->format);
    else if (job->grey16)
        status = grey16_to_rgb(image, pixels, job, err);
    else
        *image = (vit_image){.pixels = pixels, .width = job->width, .height = job->height};
    if (status != VIT_OK || job->grey16)
        budget_free(pixels);
    return status;
}

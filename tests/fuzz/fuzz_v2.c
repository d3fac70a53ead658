/*
 * fuzz_v2.c - bodies of inference requests. The first two bytes are Inference-Header-Content-Length (0xFFFF: no
 * header), the rest is the body. What is accepted must hold together, and every byte of it must be readable.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/hf_message.h"
#include "server/http/v2_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool sound)
{
    if (!sound)
        abort();
}

static void check_images(const struct v2_request *request, const struct v2_limits *limits)
{
    unsigned sum = 0;
    for (size_t i = 0; i < request->image_count; i++) {
        const struct v2_image *image = &request->images[i];
        check(image->bytes != NULL && image->length > 0);
        for (size_t k = 0; k < image->length; k++)
            sum += ((const uint8_t *)image->bytes)[k];
        if (request->input.type == V2_UINT8)
            check(image->length == request->input.height * request->input.width * 3);
        if (request->input.type != V2_FP32)
            continue;
        check(image->length == limits->height * limits->width * 3 * sizeof(float));
        for (size_t k = 0; k < image->length / sizeof(float); k++)
            check(isfinite(((const float *)image->bytes)[k]));
    }
    *(volatile unsigned *)&(unsigned){0} = sum;
}

static void parse_v2(const uint8_t *body, size_t length, size_t json_length)
{
    static const struct v2_limits limits = {.max_images = 4, .height = 2, .width = 1};
    struct problem problem = {0};
    struct v2_request request;
    if (!v2_parse(&request, body, length, json_length, &limits, &problem)) {
        check(problem.status == 400 && *problem.message && request.images == NULL && request.memory == NULL);
        return;
    }
    check(problem.status == 0 && request.image_count >= 1 && request.image_count <= limits.max_images);
    check(request.output_count >= 1 && request.output_count <= V2_OUTPUT_COUNT && strlen(request.id) <= V2_MAX_ID);
    check_images(&request, &limits);
    v2_release(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct problem problem = {0};
    struct hf_request hf;
    if (size < 2)
        return 0;
    const size_t stated = (size_t)data[0] << 8 | data[1];
    uint8_t *body = malloc(size - 2); /* its own block: reading past it shows */
    if (size > 2 && body == NULL)
        return 0;
    if (size > 2)
        memcpy(body, data + 2, size - 2);
    parse_v2(body, size - 2, stated == 0xFFFF ? V2_ALL_JSON : stated);
    if (hf_parse(&hf, body, size - 2, &problem)) {
        check(hf.length > 0 && hf.length <= size);
        hf_release(&hf);
    } else {
        check(problem.status == 400);
    }
    free(body);
    return 0;
}

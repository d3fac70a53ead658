/*
 * v2_message.h - a request for inference in the Open Inference Protocol v2 over HTTP, with Triton's extensions for
 * binary tensors, classification and scheduling.
 *
 * A request has one input, of N pictures, under one of three names:
 *
 *     image         BYTES  [N] or [N,1]          JPEG, PNG or BMP files. In JSON each is a string of base64, since JSON
 *                                                has no bytes; in binary each is preceded by its length in 4 bytes
 *     pixels        UINT8  [N,h,w,3] or [h,w,3]  decoded pictures of any size, RGB; the model's preprocessing follows
 *     pixel_values  FP32   [N,3,H,W]             what preprocessing would have made, taken as it is
 *
 * Lists are flat or nested as the shape is. What is refused is a 400 that names the place, as in "inputs[0].shape[1]:
 * found -3, allowed is ..."; parameters and members that are not known are ignored, as the protocol demands. FP32 in
 * JSON takes at most twice the body's size in memory, the rest at most as much as the body, and tensors in binary
 * nothing unless they are misaligned. Time is linear in the body.
 */
#ifndef SERVER_HTTP_V2_MESSAGE_H
#define SERVER_HTTP_V2_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/query.h"

enum { V2_MAX_ID = 128, V2_MAX_DIMENSIONS = 4 };

enum v2_datatype { V2_BYTES, V2_UINT8, V2_FP32 };
/* What can be asked for: FP32 [N,classes], [N,classes] and [N,D]. */
enum v2_tensor { V2_LOGITS, V2_PROBABILITIES, V2_EMBEDDING };
enum { V2_INPUT_COUNT = V2_FP32 + 1, V2_OUTPUT_COUNT = V2_EMBEDDING + 1 };

extern const char *const v2_datatypes[V2_INPUT_COUNT], *const v2_input_names[V2_INPUT_COUNT];
extern const char *const v2_output_names[V2_OUTPUT_COUNT];

struct v2_input {
    enum v2_datatype type; /* and so the name */
    size_t shape[V2_MAX_DIMENSIONS], dimensions;
    size_t height, width;  /* of each picture of UINT8; H and W of FP32; 0 of BYTES */
};

struct v2_image {
    const void *bytes; /* a file, or uint8_t [h,w,3], or float [3,H,W], aligned and finite */
    size_t length;     /* in bytes, 1 or more */
};

struct v2_output {
    enum v2_tensor tensor;
    bool binary;
    size_t classification; /* the best so many classes instead of all values; 0: not asked for */
};

struct v2_request {
    char id[V2_MAX_ID + 1]; /* "": none */
    unsigned priority;      /* 1 is the highest; 0: not given */
    int64_t timeout_us;     /* 0: not given */
    struct v2_input input;
    struct v2_image *images; /* [image_count], owned; their bytes are in the body or in `memory` */
    size_t image_count;      /* 1 or more */
    struct v2_output outputs[V2_OUTPUT_COUNT]; /* each tensor once, in the order asked for */
    size_t output_count;     /* 1 or more: all when none is asked for */
    void *memory;            /* owned */
};

struct v2_limits {
    size_t max_images;
    size_t height, width; /* H, W of the model */
    bool without_classes; /* where no output is named, the embedding is all there is */
};

/* For json_length: the body is one file, and every output is wanted in binary; all of it is JSON (no header). */
#define V2_RAW ((size_t)0)
#define V2_ALL_JSON SIZE_MAX

/* Parses a body that has arrived whole and must stay as long as the request is used. json_length is the header
 * Inference-Header-Content-Length: how much of the body is JSON, before the binary tensors. False: *problem says why
 * (400, or 503 when memory is short), and there is nothing to release. */
bool v2_parse(struct v2_request *request, const void *body, size_t length, size_t json_length,
              const struct v2_limits *limits, struct problem *problem);
/* Accepts a zeroed request. */
void v2_release(struct v2_request *request);

#endif

/*
 * v2_tensor.h - the pictures in a v2 request's input, once its shape is known: numbers, base64 or binary.
 */
#ifndef SERVER_HTTP_V2_TENSOR_H
#define SERVER_HTTP_V2_TENSOR_H

#include "server/http/json_message.h"
#include "server/http/v2_message.h"

/* Where a tensor's contents are. */
struct v2_contents {
    struct json_reader json; /* at the value of "data", which is sound JSON; text NULL: there is none */
    size_t json_length;      /* characters of that value */
    const uint8_t *binary;   /* [binary_length] */
    size_t binary_length;
};

/* Fill in request->images [image_count] and, where the pictures cannot stay in the body, request->memory. The message's
 * path is the place that errors name. */
bool v2_read_json(struct v2_request *request, const struct v2_contents *contents, struct json_message *message);
bool v2_read_binary(struct v2_request *request, const struct v2_contents *contents, struct json_message *message);

#endif

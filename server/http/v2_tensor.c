/*
 * v2_tensor.c - one tensor's contents.
 *
 * Every size follows from the shape, which the client states, so before anything is allocated the bytes that were sent
 * must be enough for it: two characters of JSON for a number, or the tensor itself in binary.
 */
#include "server/http/v2_tensor.h"

#include <math.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the protocol's tensors are little-endian");

/* Numbers (of BYTES: files) in the tensor. The product fits, and so does its size in bytes: v2_parse() saw to that. */
static size_t count_elements(const struct v2_input *input)
{
    size_t count = 1;
    for (size_t i = 0; i < input->dimensions; i++)
        count *= input->shape[i];
    return count;
}

static size_t element_bytes(const struct v2_input *input)
{
    return input->type == V2_FP32 ? sizeof(float) : sizeof(uint8_t);
}

/* Images of equal size one after the other. */
static void slice(struct v2_request *request, const void *tensor, size_t bytes)
{
    const size_t length = bytes / request->image_count;
    for (size_t i = 0; i < request->image_count; i++)
        request->images[i] = (struct v2_image){(const char *)tensor + i * length, length};
}

/* ---- JSON ---- */

/* Elements on their way from JSON into memory. */
struct filling {
    struct v2_request *request;
    size_t count, filled; /* elements */
    size_t levels;        /* lists in lists: the shape's dimensions, or 1 when flat */
    uint8_t *free;        /* of BYTES: the memory not used yet */
};

/* As json_message_refuse(), of the element that `start` is at. */
static bool refuse_element(struct json_message *message, const struct filling *filling, const struct json_reader *start,
                           const char *allowed)
{
    message->reader = *start;
    json_message_enter(message, " element %zu", filling->filled);
    return json_message_refuse(message, allowed);
}

static bool read_byte(struct json_message *message, struct filling *filling)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    uint64_t value;
    if (!json_reader_number(&message->reader, &text) || !json_text_unsigned(&text, UINT8_MAX, &value))
        return refuse_element(message, filling, &start, "a whole number from 0 to 255");
    ((uint8_t *)filling->request->memory)[filling->filled] = (uint8_t)value;
    return true;
}

static bool read_float(struct json_message *message, struct filling *filling)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    if (!json_reader_number(&message->reader, &text) ||
        !json_text_float(&text, (float *)filling->request->memory + filling->filled))
        return refuse_element(message, filling, &start, "a number in the range of FP32, of at most 127 characters");
    return true;
}

static bool read_file(struct json_message *message, struct filling *filling)
{
    struct v2_image *image = &filling->request->images[filling->filled];
    const size_t entered = json_message_enter(message, " element %zu", filling->filled);
    if (!json_message_base64(message, filling->free, &image->length))
        return false;
    json_message_leave(message, entered);
    image->bytes = filling->free;
    filling->free += image->length;
    return true;
}

static bool (*const read_element[])(struct json_message *, struct filling *) = {
    [V2_BYTES] = read_file, [V2_UINT8] = read_byte, [V2_FP32] = read_float};

/* A list of elements at the last level, of lists above it. */
static bool read_list(struct json_message *message, struct filling *filling, size_t level)
{
    const struct v2_input *input = &filling->request->input;
    const bool last = level + 1 == filling->levels;
    const size_t wanted = filling->levels == 1 ? filling->count : input->shape[level];
    const struct json_reader start = message->reader;
    size_t found = 0;
    if (!json_reader_open(&message->reader, JSON_LIST))
        return refuse_element(message, filling, &start, "a list, nested as the shape is");
    while (json_reader_next_element(&message->reader)) {
        if (found == wanted)
            return json_message_say(message, "a list has more than the %zu elements of the shape", wanted);
        if (!(last ? read_element[input->type](message, filling) : read_list(message, filling, level + 1)))
            return false;
        filling->filled += last;
        found++;
    }
    return found == wanted ||
           json_message_say(message, "a list has %zu elements, the shape needs %zu", found, wanted);
}

/* Whether the list begins with a list. */
static bool is_nested(struct json_reader reader)
{
    return json_reader_open(&reader, JSON_LIST) && json_reader_peek(&reader) == JSON_LIST;
}

bool v2_read_json(struct v2_request *request, const struct v2_contents *contents, struct json_message *message)
{
    const enum v2_datatype type = request->input.type;
    struct filling filling = {.request = request, .count = count_elements(&request->input)};
    filling.levels = is_nested(contents->json) ? request->input.dimensions : 1;
    if (filling.count > contents->json_length / 2)
        return json_message_say(message, "too short for the %zu elements of the shape", filling.count);
    /* base64 is longer than what it means */
    request->memory = malloc(type == V2_BYTES ? contents->json_length : filling.count * element_bytes(&request->input));
    if (!request->memory)
        return json_message_no_memory(message);
    filling.free = request->memory;
    message->reader = contents->json;
    if (!read_list(message, &filling, 0))
        return false;
    if (type != V2_BYTES)
        slice(request, request->memory, filling.count * element_bytes(&request->input));
    return true;
}

/* ---- binary ---- */

static bool read_files(struct v2_request *request, const struct v2_contents *contents, struct json_message *message)
{
    const uint8_t *at = contents->binary;
    size_t left = contents->binary_length;
    for (size_t i = 0; i < request->image_count; i++) {
        uint32_t length;
        if (left < sizeof length)
            return json_message_say(message, "the data ends before the length of element %zu of %zu", i,
                                    request->image_count);
        memcpy(&length, at, sizeof length);
        at += sizeof length;
        left -= sizeof length;
        if (!length || length > left)
            return json_message_say(message, "element %zu states %zu bytes, allowed is 1 to the %zu that are left", i,
                                    (size_t)length, left);
        request->images[i] = (struct v2_image){at, length};
        at += length;
        left -= length;
    }
    return !left || json_message_say(message, "%zu bytes are left after the %zu elements of the shape", left,
                                     request->image_count);
}

static bool read_floats(struct v2_request *request, const struct v2_contents *contents, struct json_message *message)
{
    const size_t count = contents->binary_length / sizeof(float);
    const float *values = (const float *)(const void *)contents->binary;
    if ((uintptr_t)contents->binary % alignof(float)) {
        values = request->memory = malloc(contents->binary_length);
        if (!request->memory)
            return json_message_no_memory(message);
        memcpy(request->memory, contents->binary, contents->binary_length);
    }
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return json_message_say(message, "element %zu is infinite or not a number", i);
    slice(request, values, contents->binary_length);
    return true;
}

bool v2_read_binary(struct v2_request *request, const struct v2_contents *contents, struct json_message *message)
{
    const size_t bytes = count_elements(&request->input) * element_bytes(&request->input);
    if (request->input.type == V2_BYTES)
        return read_files(request, contents, message);
    if (bytes != contents->binary_length)
        return json_message_say(message, "found %zu, the shape needs %zu", contents->binary_length, bytes);
    if (request->input.type == V2_FP32)
        return read_floats(request, contents, message);
    slice(request, contents->binary, bytes);
    return true;
}

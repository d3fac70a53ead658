/*
 * v2_message.c - the JSON of an inference request.
 *
 * Members come in any order, so "data" may be there before its shape: the first pass over the JSON reads what is small
 * and only checks the data, and once all is known the data is read from where it stands.
 */
#include "server/http/v2_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/json_message.h"
#include "server/http/v2_tensor.h"

const char *const v2_input_names[V2_INPUT_COUNT] = {
    [V2_BYTES] = "image", [V2_UINT8] = "pixels", [V2_FP32] = "pixel_values"};
const char *const v2_datatypes[V2_INPUT_COUNT] = {[V2_BYTES] = "BYTES", [V2_UINT8] = "UINT8", [V2_FP32] = "FP32"};
const char *const v2_output_names[V2_OUTPUT_COUNT] = {
    [V2_LOGITS] = "logits", [V2_PROBABILITIES] = "probabilities", [V2_EMBEDDING] = "embedding"};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* What is known so far; -1: not given. */
struct draft {
    struct v2_request *request;
    const struct v2_limits *limits;
    bool header;                /* of the JSON's length: there may be binary data */
    struct v2_contents contents;
    int name, datatype;         /* of the input, both as enum v2_datatype */
    uint64_t binary_size;       /* UINT64_MAX: not given */
    int tensor, binary;         /* of the output at hand: enum v2_tensor, bool */
    uint64_t classification;
    bool binary_output;         /* the default of outputs */
    int binaries[V2_OUTPUT_COUNT]; /* `binary` of each output */
};

/* ---- inputs ---- */

static bool read_input_name(struct json_message *message, void *into)
{
    struct draft *draft = into;
    return json_message_choice(message, v2_input_names, V2_INPUT_COUNT,
                               "\"image\" (BYTES), \"pixels\" (UINT8) or \"pixel_values\" (FP32)", &draft->name);
}

static bool read_datatype(struct json_message *message, void *into)
{
    struct draft *draft = into;
    return json_message_choice(message, v2_datatypes, V2_INPUT_COUNT,
                               "\"BYTES\" (of image), \"UINT8\" (of pixels) or \"FP32\" (of pixel_values)",
                               &draft->datatype);
}

static bool read_dimension(struct json_message *message, void *into)
{
    struct v2_input *input = &((struct draft *)into)->request->input;
    uint64_t value;
    if (!json_message_unsigned(message, 1, INT32_MAX, &value))
        return false;
    input->shape[input->dimensions++] = (size_t)value;
    return true;
}

static bool read_shape(struct json_message *message, void *into)
{
    return json_message_list(message, "a list of 1 to 4 dimensions", V2_MAX_DIMENSIONS, read_dimension, into);
}

static bool read_data(struct json_message *message, void *into)
{
    struct draft *draft = into;
    if (json_reader_peek(&message->reader) != JSON_LIST)
        return json_message_refuse(message, "a list, flat or nested as the shape is");
    draft->contents.json = message->reader;
    if (!json_message_skip(message, NULL))
        return false;
    draft->contents.json_length = json_reader_offset(&message->reader) - json_reader_offset(&draft->contents.json);
    return true;
}

static bool read_binary_size(struct json_message *message, void *into)
{
    struct draft *draft = into;
    if (!draft->header)
        return json_message_say(message, "needs the header Inference-Header-Content-Length, the JSON's length");
    return json_message_unsigned(message, 0, INT64_MAX, &draft->binary_size);
}

static bool read_input_parameters(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"binary_data_size", read_binary_size}};
    return json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, into);
}

/* Refuses the object at hand for what it lacks. */
static bool missing(struct json_message *message, const char *member, const char *allowed)
{
    json_message_enter(message, ".%s", member);
    return json_message_say(message, "missing, allowed is %s", allowed);
}

static bool refuse_shape(struct json_message *message, const struct draft *draft)
{
    const struct v2_input *input = &draft->request->input;
    char found[80] = "", allowed[80] = "[N] or [N,1]";
    for (size_t i = 0, used = 0; i < input->dimensions; i++)
        used += (size_t)snprintf(found + used, sizeof found - used, "%s%zu", i ? "," : "", input->shape[i]);
    if (input->type == V2_UINT8)
        snprintf(allowed, sizeof allowed, "[N,h,w,3] or [h,w,3]");
    else if (input->type == V2_FP32)
        snprintf(allowed, sizeof allowed, "[N,3,%zu,%zu]", draft->limits->height, draft->limits->width);
    json_message_enter(message, ".shape");
    return json_message_say(message, "found [%s], allowed for %s is %s", found, v2_input_names[input->type], allowed);
}

/* Whether the tensor's bytes can be counted. */
static bool is_countable(const struct v2_input *input)
{
    size_t bytes = sizeof(float);
    for (size_t i = 0; i < input->dimensions; i++)
        if (__builtin_mul_overflow(bytes, input->shape[i], &bytes))
            return false;
    return true;
}

/* What the shape means, given the datatype. */
static bool check_shape(struct json_message *message, struct draft *draft)
{
    struct v2_input *input = &draft->request->input;
    const size_t *shape = input->shape, dimensions = input->dimensions;
    size_t images = shape[0];
    bool fits = false;
    switch (input->type) {
    case V2_BYTES:
        fits = dimensions == 1 || (dimensions == 2 && shape[1] == 1);
        break;
    case V2_UINT8:
        fits = (dimensions == 3 || dimensions == 4) && shape[dimensions - 1] == 3;
        images = dimensions == 3 ? 1 : shape[0];
        break;
    case V2_FP32:
        fits = dimensions == 4 && shape[1] == 3 && shape[2] == draft->limits->height &&
               shape[3] == draft->limits->width;
        break;
    }
    if (!fits)
        return refuse_shape(message, draft);
    if (!is_countable(input)) {
        json_message_enter(message, ".shape");
        return json_message_say(message, "its elements are more than any memory holds");
    }
    if (images > draft->limits->max_images) {
        json_message_enter(message, ".shape");
        return json_message_say(message, "found %zu images, allowed are %zu in one request", images,
                                draft->limits->max_images);
    }
    if (input->type != V2_BYTES) {
        const size_t first = input->type == V2_UINT8 ? dimensions - 3 : 2;
        input->height = shape[first];
        input->width = shape[first + 1];
    }
    draft->request->image_count = images;
    return true;
}

static bool read_input(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"name", read_input_name},
                                                 {"datatype", read_datatype},
                                                 {"shape", read_shape},
                                                 {"parameters", read_input_parameters},
                                                 {"data", read_data}};
    struct draft *draft = into;
    if (!json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, into))
        return false;
    if (draft->name < 0)
        return missing(message, "name", "image, pixels or pixel_values");
    if (draft->datatype < 0)
        return missing(message, "datatype", v2_datatypes[draft->name]);
    if (draft->datatype != draft->name) {
        json_message_enter(message, ".datatype");
        return json_message_say(message, "found %s, allowed for %s is %s", v2_datatypes[draft->datatype],
                                v2_input_names[draft->name], v2_datatypes[draft->name]);
    }
    draft->request->input.type = (enum v2_datatype)draft->name;
    if (!draft->request->input.dimensions)
        return missing(message, "shape", "a list of 1 to 4 dimensions");
    return check_shape(message, draft);
}

static bool read_inputs(struct json_message *message, void *into)
{
    return json_message_list(message, "a list of one input", 1, read_input, into);
}

/* ---- outputs ---- */

static bool read_output_name(struct json_message *message, void *into)
{
    struct draft *draft = into;
    return json_message_choice(message, v2_output_names, V2_OUTPUT_COUNT,
                               "\"logits\", \"probabilities\" or \"embedding\"", &draft->tensor);
}

static bool read_binary_data(struct json_message *message, void *into)
{
    bool value;
    if (!json_message_bool(message, &value))
        return false;
    ((struct draft *)into)->binary = value;
    return true;
}

static bool read_classification(struct json_message *message, void *into)
{
    return json_message_unsigned(message, 1, INT32_MAX, &((struct draft *)into)->classification);
}

static bool read_output_parameters(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"binary_data", read_binary_data},
                                                 {"classification", read_classification}};
    return json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, into);
}

static bool read_output(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"name", read_output_name}, {"parameters", read_output_parameters}};
    struct draft *draft = into;
    struct v2_request *request = draft->request;
    draft->tensor = draft->binary = -1;
    draft->classification = 0;
    if (!json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, into))
        return false;
    if (draft->tensor < 0)
        return missing(message, "name", "logits, probabilities or embedding");
    for (size_t i = 0; i < request->output_count; i++)
        if ((int)request->outputs[i].tensor == draft->tensor)
            return json_message_say(message, "%s is asked for twice", v2_output_names[draft->tensor]);
    if (draft->tensor == V2_EMBEDDING && draft->classification) {
        json_message_enter(message, ".parameters.classification");
        return json_message_say(message, "the embedding has no classes, allowed for logits and probabilities");
    }
    draft->binaries[request->output_count] = draft->binary;
    request->outputs[request->output_count++] = (struct v2_output){
        .tensor = (enum v2_tensor)draft->tensor, .classification = (size_t)draft->classification};
    return true;
}

static bool read_outputs(struct json_message *message, void *into)
{
    return json_message_list(message, "a list of outputs, each once", V2_OUTPUT_COUNT, read_output, into);
}

/* All that the model has where none is named. */
static void finish_outputs(struct draft *draft)
{
    struct v2_request *request = draft->request;
    for (size_t i = 0; i < request->output_count; i++)
        request->outputs[i].binary = draft->binaries[i] < 0 ? draft->binary_output : draft->binaries[i];
    if (request->output_count)
        return;
    for (int tensor = draft->limits->without_classes ? V2_EMBEDDING : 0; tensor < V2_OUTPUT_COUNT; tensor++)
        request->outputs[request->output_count++] =
            (struct v2_output){.tensor = (enum v2_tensor)tensor, .binary = draft->binary_output};
}

/* ---- the request ---- */

static bool read_id(struct json_message *message, void *into)
{
    struct v2_request *request = ((struct draft *)into)->request;
    return json_message_string(message, request->id, sizeof request->id);
}

static bool read_binary_output(struct json_message *message, void *into)
{
    return json_message_bool(message, &((struct draft *)into)->binary_output);
}

static bool read_priority(struct json_message *message, void *into)
{
    uint64_t value;
    if (!json_message_unsigned(message, 0, UINT32_MAX, &value))
        return false;
    ((struct draft *)into)->request->priority = (unsigned)value;
    return true;
}

static bool read_timeout(struct json_message *message, void *into)
{
    uint64_t value;
    if (!json_message_unsigned(message, 0, INT64_MAX, &value))
        return false;
    ((struct draft *)into)->request->timeout_us = (int64_t)value;
    return true;
}

static bool read_request_parameters(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"binary_data_output", read_binary_output},
                                                 {"priority", read_priority},
                                                 {"timeout", read_timeout}};
    return json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, into);
}

static bool read_json(struct json_message *message, struct draft *draft)
{
    static const struct json_member members[] = {{"id", read_id},
                                                 {"parameters", read_request_parameters},
                                                 {"inputs", read_inputs},
                                                 {"outputs", read_outputs}};
    if (!json_message_object(message, members, COUNT(members), JSON_IGNORE_OTHERS, draft) ||
        !json_message_end(message))
        return false;
    if (!draft->request->image_count) {
        json_message_enter(message, "inputs");
        return json_message_say(message, "none is given, allowed is a list of one");
    }
    finish_outputs(draft);
    return true;
}

/* The one input's contents, which are in JSON or behind it. */
static bool read_contents(struct json_message *message, struct draft *draft)
{
    struct v2_request *request = draft->request;
    const struct v2_contents *contents = &draft->contents;
    const bool in_binary = draft->binary_size != UINT64_MAX;
    if (!in_binary && contents->binary_length)
        return json_message_say(message, "%zu bytes follow the JSON, and no input has parameters.binary_data_size",
                                contents->binary_length);
    request->images = calloc(request->image_count, sizeof *request->images);
    if (!request->images)
        return json_message_no_memory(message);
    json_message_enter(message, in_binary ? "inputs[0].parameters.binary_data_size" : "inputs[0].data");
    if (!in_binary && !contents->json.text)
        return json_message_say(message, "missing, and there is no parameters.binary_data_size either");
    if (!in_binary)
        return v2_read_json(request, contents, message);
    if (contents->json.text)
        return json_message_say(message, "the input has its data in JSON, allowed is one of both");
    if (draft->binary_size != contents->binary_length)
        return json_message_say(message, "found %zu, and %zu bytes follow the JSON", (size_t)draft->binary_size,
                                contents->binary_length);
    return v2_read_binary(request, contents, message);
}

static bool parse_raw(struct draft *draft, const void *body, size_t length, struct problem *problem)
{
    struct v2_request *request = draft->request;
    if (!length)
        return problem_set(problem, 400, "empty_body", "the body is empty: send an image");
    request->images = malloc(sizeof *request->images);
    if (!request->images)
        return problem_set(problem, 503, "out_of_memory", "the server is short of memory; retry later");
    request->images[0] = (struct v2_image){body, length};
    request->image_count = 1;
    request->input = (struct v2_input){.type = V2_BYTES, .shape = {1}, .dimensions = 1};
    draft->binary_output = true;
    finish_outputs(draft);
    return true;
}

bool v2_parse(struct v2_request *request, const void *body, size_t length, size_t json_length,
              const struct v2_limits *limits, struct problem *problem)
{
    struct json_message message;
    struct draft draft = {.request = request, .limits = limits, .name = -1, .datatype = -1, .binary_size = UINT64_MAX};
    *request = (struct v2_request){0};
    if (json_length == V2_RAW)
        return parse_raw(&draft, body, length, problem);
    draft.header = json_length != V2_ALL_JSON;
    if (!draft.header)
        json_length = length;
    if (json_length > length)
        return problem_set(problem, 400, "invalid_request",
                           "the header Inference-Header-Content-Length: found %zu, and the body has %zu bytes",
                           json_length, length);
    draft.contents.binary = (const uint8_t *)body + json_length;
    draft.contents.binary_length = length - json_length;
    json_message_begin(&message, body, json_length, problem);
    if (read_json(&message, &draft) && read_contents(&message, &draft))
        return true;
    v2_release(request);
    return false;
}

void v2_release(struct v2_request *request)
{
    free(request->images);
    free(request->memory);
    *request = (struct v2_request){0};
}

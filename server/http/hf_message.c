/* hf_message.c - see hf_message.h. */
#include "server/http/hf_message.h"

#include <stdlib.h>

#include "server/http/json_message.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static bool read_inputs(struct json_message *message, void *into)
{
    struct hf_request *request = into;
    struct json_reader ahead = message->reader;
    struct json_text text;
    if (!json_reader_string(&ahead, &text))
        return json_message_refuse(message, "a picture as a string of base64");
    request->bytes = malloc(text.length + 1);
    if (!request->bytes)
        return json_message_no_memory(message);
    return json_message_base64(message, request->bytes, &request->length);
}

static bool read_top_k(struct json_message *message, void *into)
{
    struct hf_request *request = into;
    uint64_t value;
    if (!json_message_unsigned(message, 1, INT32_MAX, &value))
        return false;
    request->top_k = (size_t)value;
    request->has_top_k = true;
    return true;
}

static bool read_function(struct json_message *message, void *into)
{
    static const char *const names[] = {[VIT_SOFTMAX] = "softmax", [VIT_SIGMOID] = "sigmoid", [VIT_IDENTITY] = "none"};
    struct hf_request *request = into;
    int choice;
    if (!json_message_choice(message, names, COUNT(names), "\"softmax\", \"sigmoid\" or \"none\"", &choice))
        return false;
    request->function = (vit_function)choice;
    request->has_function = true;
    return true;
}

static bool read_parameters(struct json_message *message, void *into)
{
    static const struct json_member members[] = {{"top_k", read_top_k}, {"function_to_apply", read_function}};
    return json_message_object(message, members, COUNT(members), JSON_REFUSE_OTHERS, into);
}

bool hf_parse(struct hf_request *request, const void *body, size_t length, struct problem *problem)
{
    static const struct json_member members[] = {{"inputs", read_inputs},
                                                 {"parameters", read_parameters},
                                                 {"options", json_message_skip}};
    struct json_message message;
    *request = (struct hf_request){.function = VIT_SOFTMAX};
    json_message_begin(&message, body, length, problem);
    if (json_message_object(&message, members, COUNT(members), JSON_REFUSE_OTHERS, request) &&
        json_message_end(&message)) {
        if (request->bytes)
            return true;
        json_message_enter(&message, "inputs");
        json_message_say(&message, "missing, allowed is a picture as a string of base64");
    }
    hf_release(request);
    return false;
}

void hf_release(struct hf_request *request)
{
    free(request->bytes);
    *request = (struct hf_request){0};
}

void hf_reply(struct strbuf *out, const float *logits, size_t classes, size_t top_k, vit_function function,
              hf_label *label, const void *model)
{
    const size_t count = top_k && top_k < classes ? top_k : classes;
    float *scores = calloc(classes, sizeof *scores);
    size_t *best = calloc(classes, sizeof *best);
    if (scores && best) {
        vit_scores(scores, logits, classes, function);
        vit_top_k(best, scores, classes, count);
        for (size_t i = 0; i < count; i++) {
            strbuf_text(out, i ? ",{\"label\":" : "[{\"label\":");
            strbuf_json_string(out, label(model, best[i]));
            strbuf_text(out, ",\"score\":");
            strbuf_json_float(out, (double)scores[best[i]]);
            strbuf_text(out, "}");
        }
        strbuf_text(out, "]");
    } else {
        out->failed = true;
    }
    free(scores);
    free(best);
}

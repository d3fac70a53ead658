/*
 * hf_message.h - image classification as Hugging Face's inference API speaks it in JSON:
 *
 *     {"inputs": "<base64>", "parameters": {"top_k": 5, "function_to_apply": "softmax"}} -> [{"label","score"},...]
 *
 * "options", which steers that service and never the answer, is passed over; any other member is refused.
 */
#ifndef SERVER_HTTP_HF_MESSAGE_H
#define SERVER_HTTP_HF_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/query.h"
#include "server/http/strbuf.h"
#include "vit.h"

struct hf_request {
    uint8_t *bytes; /* [length], a picture's file; owned */
    size_t length;
    bool has_top_k, has_function;
    size_t top_k; /* 1 or more; may be more than there are classes */
    vit_function function;
};

/* False: *problem says why (400, or 503 when memory is short), and there is nothing to release. The body is not needed
 * afterwards. */
bool hf_parse(struct hf_request *request, const void *body, size_t length, struct problem *problem);
/* Accepts a zeroed request. */
void hf_release(struct hf_request *request);

typedef const char *hf_label(const void *model, size_t index);

/* The best top_k of logits [classes], best first; 0: all. */
void hf_reply(struct strbuf *out, const float *logits, size_t classes, size_t top_k, vit_function function,
              hf_label *label, const void *model);

#endif

/*
 * v2_reply.h - the replies of the Open Inference Protocol v2 over HTTP, and of Triton's statistics and model repository
 * extensions. Everything is appended to `out`, which remembers if memory runs short; arguments are only read.
 */
#ifndef SERVER_HTTP_V2_REPLY_H
#define SERVER_HTTP_V2_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/query.h"
#include "server/http/strbuf.h"
#include "server/http/v2_message.h"

/* ---- inference ---- */

typedef const char *v2_label(const void *model, size_t index);

/* What the model made of the request's images. */
struct v2_result {
    const char *model_name, *model_version; /* version NULL: none */
    size_t images, classes, embedding_width;
    const float *const *logits;   /* [images] of [classes] */
    const float *const *features; /* [images] of [embedding_width] */
    v2_label *label;
    const void *model; /* for label */
};

/* {"model_name","model_version","id","outputs":[...]}, then the binary tensors. Returns the length of the JSON if there
 * are any: the header Inference-Header-Content-Length, and the type is application/octet-stream; else V2_ALL_JSON. */
size_t v2_reply_infer(struct strbuf *out, const struct v2_request *request, const struct v2_result *result);

/* ---- metadata ---- */

/* {"name":"vitd","version","extensions"} */
void v2_reply_server(struct strbuf *out, const char *version);

struct v2_model {
    const char *name;
    const int *versions; /* [version_count], all that the name has; none: it has none */
    size_t version_count;
    size_t height, width, classes, embedding_width;
};

/* {"name","versions","platform","inputs","outputs"}; the inputs are alternatives */
void v2_reply_model(struct strbuf *out, const struct v2_model *model);

struct v2_index_entry {
    const char *name, *version; /* version NULL: none */
    const char *state;          /* as Triton spells it, "READY" or "UNAVAILABLE" */
    const char *reason;         /* NULL: none */
};

/* [{"name","version","state","reason"},...] */
void v2_reply_index(struct strbuf *out, const struct v2_index_entry *entries, size_t count);

/* ---- statistics ---- */

struct v2_duration {
    uint64_t count, ns;
};

struct v2_batch_stats {
    size_t batch_size;
    struct v2_duration compute_input, compute_infer, compute_output;
};

struct v2_model_stats {
    const char *name, *version; /* version NULL: none */
    uint64_t last_inference_ms; /* since the epoch; 0: none yet */
    uint64_t inference_count, execution_count; /* images, batches */
    struct v2_duration success, fail, queue, compute_input, compute_infer, compute_output, cache_hit, cache_miss;
    const struct v2_batch_stats *batches; /* [batch_count] */
    size_t batch_count;
};

/* {"model_stats":[...]} */
void v2_reply_stats(struct strbuf *out, const struct v2_model_stats *models, size_t count);

#endif

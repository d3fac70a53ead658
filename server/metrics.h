/*
 * metrics.h - counters, gauges and histograms of the daemon, rendered as Prometheus text (DESIGN section 8).
 *
 * Every update is a relaxed atomic; no lock is taken on the request path. A model's counters are made when it is first
 * loaded and stay: reloaded, it goes on counting. NULL for a model stands for requests that name none (probes, unknown
 * models). All functions are thread-safe.
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics;
struct model_metrics;

/* Why a request was refused or dropped: the label of vitd_rejected_total. */
enum metrics_reject {
    REJECT_QUEUE_FULL, REJECT_TOO_LARGE, REJECT_TIMEOUT, REJECT_CLIENT_GONE, REJECT_SLOW_CLIENT, REJECT_LOADING,
    REJECT_DRAINING, REJECT_MALFORMED, REJECT_UNAUTHORIZED, REJECT_CONNECTIONS, REJECT_COUNT
};

/* DURATION_REQUEST is observed by metrics_request() */
enum metrics_duration {
    DURATION_REQUEST, DURATION_QUEUE, DURATION_PREPROCESS, DURATION_INFERENCE, DURATION_TEXT, DURATION_COUNT
};

/* NULL when memory is short. */
struct metrics *metrics_create(void);
void metrics_free(struct metrics *metrics);

/* The counters of the model of that id; NULL when memory is short. */
struct model_metrics *metrics_model(struct metrics *metrics, const char *id);

/* Text for `vitd_model_info{model="...",<labels>} 1`, e.g. `architecture="vit",dtype="fp32"`; NULL: it is not loaded. */
void metrics_set_model_info(struct metrics *metrics, struct model_metrics *model, const char *labels);

/* route is one of the route table's names (a string literal, compared by content; at most 64 different ones). */
void metrics_request(struct metrics *metrics, const char *route, struct model_metrics *model, int code, double seconds);
/* A request for the model's answer to images has ended: with one, or without. */
void metrics_inference(struct model_metrics *model, bool succeeded, double seconds);
void metrics_images(struct model_metrics *model, size_t images);
/* A piece of work of so many texts. */
void metrics_texts(struct metrics *metrics, struct model_metrics *model, size_t texts, double seconds);
void metrics_rejected(struct metrics *metrics, enum metrics_reject reason);
void metrics_batch(struct model_metrics *model, size_t batch_size, double seconds);
void metrics_duration(struct metrics *metrics, enum metrics_duration which, struct model_metrics *model, double seconds);
void metrics_cache(struct model_metrics *model, bool hit);
void metrics_inflight(struct metrics *metrics, int change); /* +1 when a request starts, -1 when it ends */

/* Images that were run, over all models. */
uint64_t metrics_total_images(const struct metrics *metrics);

/* What is true at one moment, looked up by whoever renders. */
struct metrics_gauges {
    size_t connections;
    size_t queue_depth, queue_bytes;
    size_t models_bytes;
    size_t cache_entries, cache_bytes;
};
/* The whole exposition, to be freed by the caller; NULL when memory is short. */
char *metrics_render(struct metrics *metrics, const struct metrics_gauges *gauges, size_t *length);

/* The same counters of one model, for protocols that have their own words for them. */
struct metrics_sum {
    uint64_t count;
    double seconds;
};
enum { METRICS_MAX_BATCH = 256 };
struct metrics_counts {
    struct metrics_sum succeeded, failed; /* of metrics_inference() */
    uint64_t images;
    struct metrics_sum durations[DURATION_COUNT];
    uint64_t cache_hits, cache_misses;
    int64_t last_inference_ms;  /* since the epoch; 0: none yet */
    struct metrics_sum batches[METRICS_MAX_BATCH + 1]; /* by size */
};
void metrics_read(const struct model_metrics *model, struct metrics_counts *counts);

#endif

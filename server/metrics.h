/*
 * metrics.h - counters, gauges and histograms of the daemon, rendered as Prometheus text (DESIGN section 8).
 *
 * Every update is a relaxed atomic; no lock is taken on the request path. Models are known by their index in the
 * registry; METRICS_NO_MODEL stands for requests that name none (probes, unknown models).
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stddef.h>

struct metrics;

enum { METRICS_NO_MODEL = -1 };

/* Why a request was refused or dropped: the label of vitd_rejected_total. */
enum metrics_reject {
    REJECT_QUEUE_FULL, REJECT_TOO_LARGE, REJECT_TIMEOUT, REJECT_CLIENT_GONE, REJECT_SLOW_CLIENT, REJECT_LOADING,
    REJECT_DRAINING, REJECT_MALFORMED, REJECT_COUNT
};

enum metrics_duration { DURATION_REQUEST, DURATION_QUEUE, DURATION_PREPROCESS, DURATION_INFERENCE, DURATION_COUNT };

/* model_names are copied. NULL when memory is short. */
struct metrics *metrics_create(const char *const *model_names, size_t models);
void metrics_free(struct metrics *metrics);

/* Text for `vitd_model_info{model="...",<labels>} 1`, e.g. `architecture="vit",dtype="fp32"`; the
 * first call for a model counts. */
void metrics_set_model_info(struct metrics *metrics, int model, const char *labels);

/* route is one of the route table's names (a string literal, compared by content; at most 32 different ones). */
void metrics_request(struct metrics *metrics, const char *route, int model, int code);
void metrics_images(struct metrics *metrics, int model, size_t images);
void metrics_rejected(struct metrics *metrics, enum metrics_reject reason);
void metrics_batch(struct metrics *metrics, int model, size_t batch_size);
void metrics_duration(struct metrics *metrics, enum metrics_duration which, int model, double seconds);
void metrics_inflight(struct metrics *metrics, int change); /* +1 when a request starts, -1 when it ends */

/* The whole exposition, to be freed by the caller; NULL when memory is short. queue_depth is sampled by the caller. */
char *metrics_render(const struct metrics *metrics, size_t queue_depth, size_t *length);

#endif

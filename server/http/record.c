/* record.c - what is counted and logged of a request once it has ended. */
#include "server/http/record.h"

#include <string.h>

#include "server/http/connections.h"
#include "server/http/routes.h"
#include "server/log.h"

static void count_unready(const struct request *request)
{
    if (!request->route || !request->route->takes_images)
        return;
    if (strcmp(request->problem.code, "loading") == 0)
        metrics_rejected(request->service->metrics, REJECT_LOADING);
    else if (strcmp(request->problem.code, "draining") == 0)
        metrics_rejected(request->service->metrics, REJECT_DRAINING);
}

static void count_rejection(const struct request *request)
{
    struct metrics *metrics = request->service->metrics;
    switch (request->status) {
    case 408: metrics_rejected(metrics, REJECT_SLOW_CLIENT); break;
    case 413: metrics_rejected(metrics, REJECT_TOO_LARGE); break;
    case 429: metrics_rejected(metrics, REJECT_QUEUE_FULL); break;
    case 499: metrics_rejected(metrics, REJECT_CLIENT_GONE); break;
    case 504: metrics_rejected(metrics, REJECT_TIMEOUT); break;
    case 400: metrics_rejected(metrics, REJECT_MALFORMED); break;
    case 401:
    case 403: metrics_rejected(metrics, REJECT_UNAUTHORIZED); break;
    case 503: count_unready(request); break;
    default: break;
    }
}

static void write_log(const struct request *request, double seconds)
{
    if (!request->settings->config.log.access)
        return;
    bool worked = request->stage >= STAGE_WORKED && request->batch_size;
    log_request(&(struct log_access){
        .id = request->id,
        .method = request->method[0] ? request->method : "-",
        .path = request->target,
        .route = request->route ? request->route->name : "",
        .model = request->model_id,
        .user = request->user,
        .trace = request->trace.id,
        .span = request->trace.span,
        .cache = request->cache == CACHE_HIT ? "hit" : "",
        .peer = request->connection ? connection_peer(request->connection) : "-",
        .status = request->status,
        .error_code = request->problem.code ? request->problem.code : "",
        .bytes_in = request->bytes_in,
        .bytes_out = request->reply_length,
        .images = request->images,
        .batch_size = request->batch_size,
        .total_ms = seconds * 1e3,
        .queue_ms = worked ? request->queue_ms : -1,
        .preprocess_ms = worked ? request->preprocess_ms : -1,
        .inference_ms = worked ? request->inference_ms : -1,
    });
}

void record_request(const struct request *request)
{
    struct metrics *metrics = request->service->metrics;
    const double seconds = (double)(job_clock_us() - request->start_us) / 1e6;
    struct model_metrics *model = request->model         ? request->model->metrics
                                  : *request->model_id ? metrics_model(metrics, request->model_id)
                                                       : NULL;
    metrics_request(metrics, request->route ? request->route->name : "other", model, request->status, seconds);
    if (model && request->route->takes_images)
        metrics_inference(model, request->status < 400, seconds);
    count_rejection(request);
    write_log(request, seconds);
}

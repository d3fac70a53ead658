/* service.c - the page, the description of the API, and what an operator asks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "server/http/handlers.h"
#include "server/http/web/web.h"

/* ---- settings ---- */

struct settings *service_settings(struct service *service)
{
    pthread_mutex_lock(&service->mutex);
    struct settings *settings = settings_ref(service->settings);
    pthread_mutex_unlock(&service->mutex);
    return settings;
}

void service_set_settings(struct service *service, struct settings *settings)
{
    pthread_mutex_lock(&service->mutex);
    struct settings *old = service->settings;
    service->settings = settings;
    pthread_mutex_unlock(&service->mutex);
    settings_unref(old);
}

/* ---- the page ---- */

static bool make_nonce(char nonce[33])
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

/* The page with a nonce of its own, so that a browser runs no script and applies no style but the page's. */
enum outcome handle_page(struct request *request)
{
    static const char mark[] = "@NONCE@";
    char nonce[33];
    if (!make_nonce(nonce)) {
        problem_set(&request->problem, 500, "internal_error", "the system has no random numbers");
        return OUTCOME_REPLY;
    }
    const char *text = web_page, *end = web_page + web_page_length, *found;
    while ((found = memmem(text, (size_t)(end - text), mark, sizeof mark - 1)) != NULL) {
        strbuf_add(&request->reply, text, (size_t)(found - text));
        strbuf_text(&request->reply, nonce);
        text = found + sizeof mark - 1;
    }
    strbuf_add(&request->reply, text, (size_t)(end - text));
    request->reply_type = "text/html; charset=utf-8";
    snprintf(request->policy, sizeof request->policy,
             "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; img-src 'self' blob: data:; "
             "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             nonce, nonce);
    return OUTCOME_REPLY;
}

enum outcome handle_openapi(struct request *request)
{
    strbuf_add(&request->reply, web_openapi, web_openapi_length);
    return OUTCOME_REPLY;
}

/* ---- for operators ---- */

enum outcome handle_healthz(struct request *request)
{
    strbuf_text(&request->reply, "{\"status\":\"ok\"}");
    return OUTCOME_REPLY;
}

enum outcome handle_readyz(struct request *request)
{
    if (atomic_load(&request->service->draining) || !atomic_load(&request->service->ready))
        request_not_ready(request);
    else
        strbuf_text(&request->reply, "{\"status\":\"ready\"}");
    return OUTCOME_REPLY;
}

enum outcome handle_metrics(struct request *request)
{
    struct service *service = request->service;
    struct queue_state queue;
    size_t length = 0;
    queue_look(service->queue, &queue);
    const struct cache_stats cache = cache_stats(service->cache);
    const struct metrics_gauges gauges = {
        .connections = atomic_load(&service->connections),
        .queue_depth = queue.waiting,
        .queue_bytes = queue.bytes,
        .models_bytes = registry_bytes(service->registry),
        .cache_entries = cache.entries,
        .cache_bytes = cache.bytes,
    };
    char *text = metrics_render(service->metrics, &gauges, &length);
    if (text)
        strbuf_add(&request->reply, text, length);
    else
        request->reply.failed = true;
    free(text);
    request->reply_type = "text/plain; version=0.0.4; charset=utf-8";
    return OUTCOME_REPLY;
}

/* ---- for those who look into it ---- */

static void put_workers(struct strbuf *out, const struct workers *workers)
{
    static const char *const names[] = {
        [QUEUE_STOP] = "idle", [QUEUE_DECODE] = "decoding", [QUEUE_RUN] = "running", [QUEUE_HELP] = "helping"};
    const int64_t now = job_clock_us();
    struct worker_state state;
    strbuf_text(out, ",\"workers\":[");
    for (size_t i = 0; workers_look(workers, i, &state); i++)
        strbuf_printf(out, "%s{\"doing\":\"%s\",\"for_ms\":%.1f}", i ? "," : "", names[state.work],
                      state.work == QUEUE_STOP ? 0 : (double)(now - state.since_us) / 1e3);
    strbuf_text(out, "]");
}

enum outcome handle_debug_queue(struct request *request)
{
    struct service *service = request->service;
    struct strbuf *out = &request->reply;
    const struct config *config = &request->settings->config;
    struct queue_state queue;
    queue_look(service->queue, &queue);
    strbuf_printf(out, "{\"waiting\":%zu,\"capacity\":%d,\"bytes\":%zu,\"max_bytes\":%lld", queue.waiting,
                  config->batching.max_queue_size, queue.bytes, config->batching.max_queue_bytes);
    strbuf_printf(out, ",\"pending\":{\"normal\":%zu,\"low\":%zu},\"decoding\":%zu,\"ready\":%zu",
                  queue.pending[PRIORITY_NORMAL], queue.pending[PRIORITY_LOW], queue.decoding, queue.ready);
    strbuf_printf(out, ",\"image_ms\":%.3f,\"retry_after_s\":%u", queue.image_seconds * 1e3,
                  queue_retry_after(service->queue));
    put_workers(out, service->workers);
    strbuf_text(out, "}");
    return OUTCOME_REPLY;
}

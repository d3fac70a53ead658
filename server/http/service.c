/* service.c - the page, the description of the API, and what an operator asks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "server/http/handlers.h"
#include "server/http/web/web.h"

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
    if (atomic_load(&request->service->draining))
        problem_set(&request->problem, 503, "draining", "the server is shutting down");
    else if (!atomic_load(&request->service->ready))
        problem_set(&request->problem, 503, "loading", "the models are still loading");
    else
        strbuf_text(&request->reply, "{\"status\":\"ready\"}");
    return OUTCOME_REPLY;
}

enum outcome handle_metrics(struct request *request)
{
    struct service *service = request->service;
    size_t length = 0, depth = atomic_load(&service->ready) ? queue_depth(service->queue) : 0;
    char *text = metrics_render(service->metrics, depth, &length);
    if (text)
        strbuf_add(&request->reply, text, length);
    else
        request->reply.failed = true;
    free(text);
    request->reply_type = "text/plain; version=0.0.4; charset=utf-8";
    return OUTCOME_REPLY;
}

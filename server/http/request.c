/* request.c - the memory of a request, its id, and the checks on its header. */
#include "server/http/request.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "server/http/handlers.h"
#include "server/work/words.h"

struct request *request_create(struct service *service, const char *target)
{
    struct request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    request->target = strdup(target);
    if (!request->target) {
        free(request);
        return NULL;
    }
    request->target_length = strlen(target);
    request->service = service;
    request->settings = service_settings(service);
    request->user = "";
    request->json_length = UINT64_MAX;
    request->start_us = job_clock_us();
    request->reply_type = "application/json";
    request_make_id(request->id);

    request->path = request->target;
    char *query = strchr(request->target, '?');
    if (query) {
        *query = '\0';
        request->query_text = query + 1;
    }
    if (strncasecmp(request->path, "http://", 7) == 0 || strncasecmp(request->path, "https://", 8) == 0) {
        const char *slash = strchr(strstr(request->path, "//") + 2, '/');
        request->path = slash ? slash : "/";
    }
    return request;
}

void request_free(struct request *request)
{
    if (!request)
        return;
    free(request->files);
    free(request->target);
    job_free(request->job);
    request_release_body(request);
    if (request->reply_held)
        queue_release_bytes(request->service->queue, request->reply_held);
    model_unref(request->model);
    settings_unref(request->settings);
    strbuf_release(&request->reply);
    free(request);
}

bool request_hold_bytes(struct request *request, size_t count)
{
    if (!queue_hold_bytes(request->service->queue, count))
        return false;
    request->held += count;
    return true;
}

void request_free_body(struct request *request)
{
    free(request->body);
    request->body = NULL;
}

void request_release_body(struct request *request)
{
    if (request->message)
        request->free_message(request->message);
    request->message = NULL;
    request_free_body(request);
    words_free(request->labels);
    words_free(request->targets);
    words_work_free(request->words_work);
    request->labels = request->targets = NULL;
    request->shown = NULL;
    request->words_work = NULL;
    if (request->held)
        queue_release_bytes(request->service->queue, request->held);
    request->held = 0;
}

/* Blanks after a header's value are not part of it, but libmicrohttpd leaves them there. */
static size_t without_blanks(const char *value, size_t length)
{
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        length--;
    return length;
}

static bool is_usable_id(const char *id, size_t length)
{
    if (length < 1 || length > REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)id[i]) && !strchr("._~:/+=@-", id[i]))
            return false;
    return true;
}

void request_make_id(char id[REQUEST_ID_MAX + 1])
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = (uint64_t)job_clock_us();
    snprintf(id, REQUEST_ID_MAX + 1, "%016llx", (unsigned long long)number);
}

void request_set_id(struct request *request, const char *client_id)
{
    const size_t length = client_id ? without_blanks(client_id, strlen(client_id)) : 0;
    if (client_id && is_usable_id(client_id, length))
        snprintf(request->id, sizeof request->id, "%.*s", (int)length, client_id);
}

/* ---- framing ---- */

static bool refuse(struct problem *problem, const char *message)
{
    return problem_set(problem, 400, "malformed_request", "%s", message);
}

static bool is_token(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!text[i] || (!isalnum((unsigned char)text[i]) && !strchr("!#$%&'*+-.^_`|~", text[i])))
            return false;
    return length > 0;
}

static bool name_is(const char *name, size_t length, const char *expected)
{
    return length == strlen(expected) && strncasecmp(name, expected, length) == 0;
}

static bool read_length(const char *value, size_t length, uint64_t *result)
{
    if (length < 1 || length > 18)
        return false;
    *result = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        *result = *result * 10 + (uint64_t)(value[i] - '0');
    }
    return true;
}

bool framing_header(struct framing *framing, const char *name, size_t name_length, const char *value,
                    size_t value_length, struct problem *problem)
{
    if (!is_token(name, name_length))
        return refuse(problem, "a header's name is not a token (it may hold a space, or a folded line follows it)");
    for (size_t i = 0; i < value_length; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return refuse(problem, "a header's value holds a control character");
    }
    const size_t sent_length = value_length;
    value_length = without_blanks(value, value_length);
    if (name_is(name, name_length, "Host") && framing->hosts++)
        return refuse(problem, "there is more than one Host header");
    if (name_is(name, name_length, "Content-Length")) {
        if (framing->lengths++)
            return refuse(problem, "there is more than one Content-Length header");
        if (!read_length(value, value_length, &framing->content_length))
            return refuse(problem, "Content-Length is not a number");
    }
    if (name_is(name, name_length, "Transfer-Encoding")) {
        if (framing->encodings++)
            return refuse(problem, "there is more than one Transfer-Encoding header");
        /* libmicrohttpd knows no chunks in "chunked " and would read on until the connection ends */
        if (!name_is(value, sent_length, "chunked"))
            return refuse(problem, "the only Transfer-Encoding that vitd takes is chunked, with no blanks after it");
    }
    if (name_is(name, name_length, "Expect") && name_is(value, value_length, "100-continue"))
        framing->expects_continue = true;
    return true;
}

bool framing_end(const struct framing *framing, const char *method, const char *target, const char *version,
                 struct problem *problem)
{
    if (!is_token(method, strlen(method)))
        return refuse(problem, "the method is not a token");
    if (target[0] != '/' && strncasecmp(target, "http", 4) != 0 && strcmp(target, "*") != 0)
        return refuse(problem, "the request target is not a path");
    for (; *target; target++)
        if ((unsigned char)*target <= 0x20 || *target == 0x7F)
            return refuse(problem, "the request target holds a space or a control character");
    if (framing->encodings && framing->lengths)
        return refuse(problem, "Content-Length and Transfer-Encoding exclude each other");
    if (framing->encodings && strcmp(version, "HTTP/1.1") != 0)
        return refuse(problem, "Transfer-Encoding needs HTTP/1.1");
    if (!framing->hosts && strcmp(version, "HTTP/1.1") == 0)
        return refuse(problem, "HTTP/1.1 needs a Host header");
    return true;
}

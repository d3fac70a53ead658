/*
 * million.c - STRESS_REQUESTS (1,000,000) requests of all kinds, good and bad, to a tiny model.
 *
 * Bounds: each gets the status that its kind has below; resident memory, looked at while nothing is under way, grows by
 * less than 1 MB between the warm-up (the first 50,000, at most half) and the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

#define MODEL "tests/golden/vit-hf"
#define NAME "vit-hf"
#define BOUNDARY "9d8f1c"
#define FORM "Content-Type: multipart/form-data; boundary=" BOUNDARY "\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"
#define PNG "Accept: image/png\r\n"

enum { CLIENTS = 16, ANSWERS = 600, SHOWN = 10, MOST_GROWTH_KIB = 1000, WARM_UP = 50000, LOG_REQUESTS = 50000 };

enum body { NO_BODY, EMPTY, PICTURE, HALF_PICTURE, GARBAGE, TWO_PICTURES, BROKEN_FORM, PICTURE_IN_CHUNKS };

/* What is done to the message once it is put together. */
enum twist { AS_IT_IS, CUT, LEAVE }; /* CUT: the client sends half of it and closes; LEAVE: sends all, and closes */

static const struct kind {
    unsigned weight;
    int status; /* 0: no reply is awaited */
    const char *request, *headers;
    enum body body;
    enum twist twist;
} kinds[] = {
    {200, 200, "GET /healthz", "", NO_BODY, AS_IT_IS},
    {100, 200, "GET /readyz", "", NO_BODY, AS_IT_IS},
    {20, 200, "GET /healthz", "Connection: close\r\n", NO_BODY, AS_IT_IS},
    {40, 200, "HEAD /healthz", "", NO_BODY, AS_IT_IS},
    {20, 200, "HEAD /", "", NO_BODY, AS_IT_IS},
    {20, 200, "GET /metrics", "", NO_BODY, AS_IT_IS},
    {40, 200, "GET /", "", NO_BODY, AS_IT_IS},
    {20, 200, "GET /openapi.json", "", NO_BODY, AS_IT_IS},
    {80, 200, "GET /models", "", NO_BODY, AS_IT_IS},
    {40, 200, "GET /models/" NAME, "", NO_BODY, AS_IT_IS},
    {4, 200, "GET /models/" NAME "/filters", "", NO_BODY, AS_IT_IS},
    {2, 200, "GET /models/" NAME "/filters.png", "", NO_BODY, AS_IT_IS},
    {4, 200, "GET /models/" NAME "/positions", "", NO_BODY, AS_IT_IS},
    {2, 200, "GET /models/" NAME "/positions.png", "", NO_BODY, AS_IT_IS},

    {30, 200, "POST /classify", "", PICTURE, AS_IT_IS},
    {10, 200, "POST /classify?top_k=3&function_to_apply=sigmoid", "", PICTURE, AS_IT_IS},
    {10, 200, "POST /classify?attention=raw&layer=0", "", PICTURE, AS_IT_IS},
    {10, 200, "POST /classify?attention=rollout", "", PICTURE, AS_IT_IS},
    {5, 200, "POST /classify?attention=legrad", "", PICTURE, AS_IT_IS},
    {10, 200, "POST /classify", FORM, TWO_PICTURES, AS_IT_IS},
    {10, 200, "POST /classify", CHUNKED, PICTURE_IN_CHUNKS, AS_IT_IS},
    {4, 200, "POST /explain", PNG, PICTURE, AS_IT_IS},
    {4, 200, "POST /explain?attention=rollout&size=original&overlay=false", PNG, PICTURE, AS_IT_IS},
    {4, 200, "POST /explain", "Accept: application/json\r\n", PICTURE, AS_IT_IS},
    {10, 200, "POST /embed", "", PICTURE, AS_IT_IS},
    {5, 200, "POST /attention-distance", "", PICTURE, AS_IT_IS},
    {2, 200, "POST /attention-distance", PNG, PICTURE, AS_IT_IS},

    {50, 404, "GET /nowhere", "", NO_BODY, AS_IT_IS},
    {10, 404, "GET /models/nobody", "", NO_BODY, AS_IT_IS},
    {10, 404, "POST /classify?model=nobody", "", PICTURE, AS_IT_IS},
    {40, 405, "GET /classify", "", NO_BODY, AS_IT_IS},
    {20, 405, "DELETE /models", "", NO_BODY, AS_IT_IS},
    {10, 405, "POST /healthz", "", PICTURE, AS_IT_IS},
    {20, 415, "POST /classify", "", GARBAGE, AS_IT_IS},
    {20, 422, "POST /classify", "", HALF_PICTURE, AS_IT_IS},
    {20, 400, "POST /embed", "", EMPTY, AS_IT_IS},
    {10, 400, "POST /classify", FORM, BROKEN_FORM, AS_IT_IS},
    {10, 400, "POST /classify", "Content-Type: multipart/form-data\r\n", PICTURE, AS_IT_IS},
    {20, 400, "POST /classify?colour=red", "", PICTURE, AS_IT_IS},
    {10, 400, "POST /explain?layer=99", "", PICTURE, AS_IT_IS},
    {10, 400, "GET /healthz", "Host: twice\r\n", NO_BODY, AS_IT_IS},
    {10, 411, "POST /classify", "", NO_BODY, AS_IT_IS},
    {5, 413, "POST /classify", "Content-Length: 99999999999\r\n", NO_BODY, AS_IT_IS},

    {10, 0, "POST /classify", "", PICTURE, CUT},
    {5, 0, "POST /classify", CHUNKED, PICTURE_IN_CHUNKS, CUT},
    {5, 0, "POST /embed", FORM, TWO_PICTURES, CUT},
    {5, 0, "GET /models/" NAME, "", NO_BODY, CUT},
    {5, 0, "POST /classify", "", PICTURE, LEAVE},
    {5, 0, "GET /", "", NO_BODY, LEAVE},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static struct message messages[KINDS];

static struct {
    struct clients clients;
    long begun, pause_at, ended;
    size_t answers[ANSWERS], ends[CLIENT_ENDS], failed;
    unsigned weights;
} run;

/* ---- the messages ---- */

static struct message in_chunks(const struct kind *kind, const char *picture, size_t length)
{
    struct message head = message_make(kind->request, kind->headers, NULL, 0), whole = {0};
    const size_t half = length / 2;
    whole.bytes = allocate(head.length + length + 64, 1);
    FILE *out = fmemopen(whole.bytes, head.length + length + 64, "w");
    fwrite(head.bytes, 1, head.length, out);
    fprintf(out, "%zx\r\n", half);
    fwrite(picture, 1, half, out);
    fprintf(out, "\r\n%zx\r\n", length - half);
    fwrite(picture + half, 1, length - half, out);
    fputs("\r\n0\r\n\r\n", out);
    whole.length = (size_t)ftell(out);
    fclose(out);
    message_release(&head);
    return whole;
}

static struct message two_pictures(const struct kind *kind, const char *picture, size_t length)
{
    static const char part[] = "--" BOUNDARY "\r\nContent-Type: image/png\r\n"
                               "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n";
    const size_t room = 2 * (sizeof part + length) + 64;
    char *form = allocate(room, 1);
    FILE *out = fmemopen(form, room, "w");
    for (int i = 0; i < 2; i++) {
        fputs(part, out);
        fwrite(picture, 1, length, out);
        fputs("\r\n", out);
    }
    fputs("--" BOUNDARY "--\r\n", out);
    const size_t used = (size_t)ftell(out);
    fclose(out);
    struct message message = message_make(kind->request, kind->headers, form, used);
    free(form);
    return message;
}

static struct message with_body(const struct kind *kind, const char *picture, size_t length)
{
    static const char garbage[] = "This is no picture, whatever the header says.";
    static const char broken_form[] = "--" BOUNDARY "\r\nContent-Disposition: form-data; name=\"image\"\r\n";
    switch (kind->body) {
    case NO_BODY: return message_make(kind->request, kind->headers, NULL, 0);
    case EMPTY: return message_make(kind->request, kind->headers, "", 0);
    case PICTURE: return message_make(kind->request, kind->headers, picture, length);
    case HALF_PICTURE: return message_make(kind->request, kind->headers, picture, length / 2);
    case GARBAGE: return message_make(kind->request, kind->headers, garbage, sizeof garbage - 1);
    case BROKEN_FORM: return message_make(kind->request, kind->headers, broken_form, sizeof broken_form - 1);
    case TWO_PICTURES: return two_pictures(kind, picture, length);
    case PICTURE_IN_CHUNKS: return in_chunks(kind, picture, length);
    }
    return (struct message){0};
}

static void make_messages(void)
{
    size_t length;
    char *picture = read_file(MODEL "/input.png", &length);
    for (size_t i = 0; i < KINDS; i++) {
        messages[i] = with_body(&kinds[i], picture, length);
        messages[i].abandons = kinds[i].status == 0;
        if (kinds[i].twist == CUT)
            messages[i].length /= 2;
        run.weights += kinds[i].weight;
    }
    free(picture);
}

/* ---- the load ---- */

static void send_any(struct client *client)
{
    unsigned at = (unsigned)(random_part() * (double)run.weights);
    size_t kind = 0;
    while (at >= kinds[kind].weight)
        at -= kinds[kind++].weight;
    run.begun++;
    client_send(client, &messages[kind]);
}

static void check(const struct client *client, enum client_end end)
{
    const struct kind *kind = &kinds[client->message - messages];
    const bool good = end == (kind->status == 0 ? CLIENT_ABANDONED : CLIENT_REPLY) && client->status == kind->status;
    if (!good && end != CLIENT_RACED && run.failed++ < SHOWN)
        broken("%s (body %d, twist %d): end %d, status %d, not %d: %.400s", kind->request, (int)kind->body,
               (int)kind->twist, (int)end, client->status, kind->status, client->received > 0 ? client->head : "");
}

static void ended(struct client *client, enum client_end end)
{
    run.ends[end]++;
    run.answers[end == CLIENT_REPLY && client->status > 0 && client->status < ANSWERS ? client->status : 0]++;
    check(client, end);
    run.ended++;
    if (run.begun < run.pause_at)
        send_any(client);
}

/* Goes on until `count` requests have been sent in all, and have ended. */
static void load_until(const struct vitd *vitd, long count)
{
    while (run.begun < count) {
        run.pause_at = run.begun + LOG_REQUESTS < count ? run.begun + LOG_REQUESTS : count;
        for (size_t i = 0; i < CLIENTS && run.begun < run.pause_at; i++)
            send_any(&run.clients.all[i]);
        if (clients_finish(&run.clients, 300) > 0)
            broken("%zu requests without an end", run.clients.busy);
        vitd_log_empty(vitd);
        if (getenv("STRESS_VERBOSE") != NULL)
            fprintf(stderr, "  %ld requests: VmRSS %ld KiB\n", run.ended, vitd_memory(vitd, "VmRSS"));
    }
    sleep_seconds(.5); /* it finds that clients have left */
}

static void print_shares(char *text, size_t room)
{
    size_t used = 0;
    for (int status = 0; status < ANSWERS && used < room; status++) {
        const double share = 100 * (double)run.answers[status] / (double)run.ended;
        if (run.answers[status] > 0 && status == 0)
            used += (size_t)snprintf(text + used, room - used, "left %.1f %%", share);
        else if (run.answers[status] > 0)
            used += (size_t)snprintf(text + used, room - used, ", %d %.1f %%", status, share);
    }
}

int main(void)
{
    const long count = setting("STRESS_REQUESTS", 1000000, 1000);
    char shares[256] = "", config[512], *model = realpath(MODEL, NULL);
    if (model == NULL)
        die(MODEL);
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"" NAME "\", \"path\": \"%.400s\"}]}", model);
    free(model);
    make_messages();
    struct vitd vitd = vitd_start(config, 0);
    clients_open(&run.clients, CLIENTS, vitd.port, ended);
    load_until(&vitd, count / 2 < WARM_UP ? count / 2 : WARM_UP);
    const long before = vitd_memory(&vitd, "VmRSS"), warm = run.ended;
    const double start = now(), used = cpu_seconds();
    load_until(&vitd, count);
    const double took = now() - start, share = (cpu_seconds() - used) / took;
    const long after = vitd_memory(&vitd, "VmRSS"), peak = vitd_memory(&vitd, "VmHWM");
    if (run.clients.unasked > 0)
        broken("%zu bytes that nobody had asked for", run.clients.unasked);
    clients_close(&run.clients);
    vitd_stop(&vitd);
    if (after - before > MOST_GROWTH_KIB)
        broken("resident memory grew by %ld KiB from %ld", after - before, before);
    print_shares(shares, sizeof shares);
    return result("million",
                  "%ld requests, %.0f/s; %s; %zu unexpected, %zu to be sent again; VmRSS %.1f MiB, %+ld KiB since "
                  "request %ld, at most %.1f; driver %.0f %% of a core",
                  run.ended, (double)(run.ended - warm) / took, shares, run.failed, run.ends[CLIENT_RACED],
                  (double)after / 1024, after - before, warm, (double)peak / 1024, 100 * share);
}

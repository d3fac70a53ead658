/*
 * overload.c - five times as many requests as the daemon can answer.
 *
 * First the capacity: a closed loop of 32 clients for half of STRESS_SECONDS (20). Then Poisson arrivals at 5 times
 * that rate for STRESS_SECONDS, on as many connections as they need: an arrival does not wait for earlier answers. Then
 * the capacity again, for the other half: other programs of this machine should not count for or against the daemon.
 * Bounds: at least 95 % of the capacity in replies with 200; a 429 comes within 50 ms of the request's last byte (99th
 * percentile); memory grows by less than a full queue of pictures, files and pixels, and what the connections need.
 *
 * This program takes CPU time from the daemon, for the copies of the requests mostly; it says how much. Where that is a
 * large part of the machine, make the requests cost more by STRESS_IMAGE_SIZE (0: the model's own).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

enum { CLOSED_CLIENTS = 32, OPEN_CONNECTIONS = 1024, QUEUE = 64, OFFER = 5, CONNECTION_BYTES = 65536, SHOWN = 10 };

static const double warm_up_seconds = 1, least_goodput = .95, most_p99_ms = 50;

static struct message classify;

static struct {
    struct clients clients;
    struct client *free[OPEN_CONNECTIONS];
    size_t free_count;
    bool closed;       /* a closed loop */
    double start, end; /* what is measured */
    size_t answered, refused, failed, starved;
    struct samples answers, refusals; /* seconds, from the last byte sent */
} run;

static void ended(struct client *client, enum client_end end)
{
    const double waited = client->ended - client->sent_at;
    const bool counts = client->ended >= run.start && client->ended < run.end;
    if (end != CLIENT_REPLY || (client->status != 200 && client->status != 429)) {
        if (run.failed++ < SHOWN)
            broken("a request ended with %d, status %d", (int)end, client->status);
    } else if (counts) {
        run.answered += client->status == 200;
        run.refused += client->status == 429;
        samples_add(client->status == 200 ? &run.answers : &run.refusals, waited);
    }
    if (run.closed && now() < run.end)
        client_send(client, &classify);
    else
        run.free[run.free_count++] = client;
}

static void begin(const struct vitd *vitd, size_t count, bool closed, double seconds)
{
    memset(&run, 0, sizeof run);
    clients_open(&run.clients, count, vitd->port, ended);
    for (size_t i = 0; i < count; i++)
        run.free[run.free_count++] = &run.clients.all[count - 1 - i];
    run.closed = closed;
    run.start = now() + warm_up_seconds;
    run.end = run.start + seconds;
}

static void finish(void)
{
    if (clients_finish(&run.clients, 40) > 0)
        broken("%zu requests without an end", run.clients.busy);
    clients_close(&run.clients);
}

/* Replies per second. */
static double measure_capacity(const struct vitd *vitd, double seconds)
{
    begin(vitd, CLOSED_CLIENTS, true, seconds);
    while (run.free_count > 0)
        client_send(run.free[--run.free_count], &classify);
    while (now() < run.end)
        clients_turn(&run.clients, run.end - now());
    finish();
    if (run.refused > 0)
        broken("%zu of %d clients were refused by a queue of %d", run.refused, CLOSED_CLIENTS, QUEUE);
    return (double)run.answered / seconds;
}

struct outcome {
    double goodput, refused;                     /* replies per second */
    double answer_p50, refusal_p50, refusal_p99; /* seconds */
    double cpu;                                  /* what this program took, as a share of one core */
    size_t failed, starved;
};

static struct outcome offer(const struct vitd *vitd, double rate, double seconds)
{
    begin(vitd, OPEN_CONNECTIONS, false, seconds);
    const double used = cpu_seconds(), from = now();
    double due = from;
    while (now() < run.end) {
        for (double time = now(); due <= time; due -= log(1 - random_part()) / rate) {
            if (run.free_count > 0)
                client_send(run.free[--run.free_count], &classify);
            else
                run.starved++;
        }
        clients_turn(&run.clients, fmin(due, run.end) - now());
    }
    const double share = (cpu_seconds() - used) / (now() - from);
    finish();
    return (struct outcome){
        .goodput = (double)run.answered / seconds,
        .refused = (double)run.refused / seconds,
        .answer_p50 = samples_at(&run.answers, .5),
        .refusal_p50 = samples_at(&run.refusals, .5),
        .refusal_p99 = samples_at(&run.refusals, .99),
        .cpu = share,
        .failed = run.failed,
        .starved = run.starved,
    };
}

/* Bytes of a JPEG's pixels, by its frame header. */
static size_t pixel_bytes(const char *path)
{
    size_t length, bytes = 0;
    char *file = read_file(path, &length);
    const unsigned char *jpeg = (const unsigned char *)file;
    for (size_t i = 2; i + 9 < length && bytes == 0; i += 2 + 256u * jpeg[i + 2] + jpeg[i + 3])
        if (jpeg[i + 1] == 0xC0 || jpeg[i + 1] == 0xC2)
            bytes = 3 * (256u * jpeg[i + 5] + jpeg[i + 6]) * (256u * jpeg[i + 7] + jpeg[i + 8]);
    free(file);
    return bytes;
}

int main(void)
{
    const double seconds = (double)setting("STRESS_SECONDS", 20, 2), mib = 1 << 20;
    char config[256];
    snprintf(config, sizeof config, "{\"image_size\": %ld, \"batching\": {\"max_queue_size\": %d}}",
             setting("STRESS_IMAGE_SIZE", 0, 0), QUEUE);
    allow_many_files();
    classify = message_post_file("/classify", "", CAT);
    struct vitd vitd = vitd_start(config, 0);
    const double before = measure_capacity(&vitd, seconds / 2);
    const double memory = (double)vitd_memory(&vitd, "VmHWM") / 1024;
    const struct outcome outcome = offer(&vitd, OFFER * before, seconds);
    const double grown = (double)vitd_memory(&vitd, "VmHWM") / 1024 - memory;
    const double after = measure_capacity(&vitd, seconds / 2);
    vitd_stop(&vitd);
    const double pictures = (double)(QUEUE * (pixel_bytes(CAT) + classify.length)) / mib;
    const double room = pictures + (double)(OPEN_CONNECTIONS * (CONNECTION_BYTES + classify.length)) / mib;
    const double part = outcome.goodput / ((before + after) / 2);
    if (part < least_goodput)
        broken("goodput of %.1f/s is %.1f %% of the capacity", outcome.goodput, 100 * part);
    if (1e3 * outcome.refusal_p99 > most_p99_ms)
        broken("p99 of the 429s is %.1f ms", 1e3 * outcome.refusal_p99);
    if (grown > room)
        broken("memory grew by %.1f MiB, more than %.1f", grown, room);
    if (outcome.starved > 0)
        broken("%zu arrivals found none of %d connections free", outcome.starved, OPEN_CONNECTIONS);
    return result("overload",
                  "capacity %.1f/s before and %.1f/s after; offered %d times that: %.1f/s answered (%.1f %%, p50 %.0f "
                  "ms), %.1f/s refused (429 after p50 %.2f ms, p99 %.2f ms), %zu failed; VmHWM %.1f MiB, %+.1f in the "
                  "overload (queue of pictures: %.1f); driver %.0f %% of a core",
                  before, after, OFFER, outcome.goodput, 100 * part, 1e3 * outcome.answer_p50, outcome.refused,
                  1e3 * outcome.refusal_p50, 1e3 * outcome.refusal_p99, outcome.failed, memory + grown, grown, pictures,
                  100 * outcome.cpu);
}

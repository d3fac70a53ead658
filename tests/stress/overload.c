/*
 * overload.c - five times as many requests as the daemon can answer.
 *
 * In turns, so that what else goes on in the machine hits both alike: the capacity, by a closed loop of 32 clients, and
 * Poisson arrivals at 5 times that rate, on as many connections as they need: an arrival does not wait for earlier
 * answers. STRESS_SECONDS (20) of each. Bounds: at least 95 % of the capacity in replies with 200; a 429 comes within
 * 50 ms of the request's last byte (99th percentile); memory grows by less than a full queue of pictures, files and
 * pixels, and what the connections need.
 *
 * This program runs on the daemon's cores, where clients elsewhere would not. So it wakes up once a millisecond, to send
 * what is due and to look at replies (their times are no finer than that), and its CPU time is counted out: replies are
 * compared per second of a core that it left to the daemon. The result has both shares, the uncorrected one second. Where
 * this program takes a large part of the machine, make the requests cost more by STRESS_IMAGE_SIZE (0: the model's own).
 */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

enum {
    CLOSED_CLIENTS = 32,
    OPEN_CONNECTIONS = 1024,
    QUEUE = 64,
    OFFER = 5,
    ROUNDS = 4,
    CONNECTION_BYTES = 65536,
    SHOWN = 10
};

static const double warm_up_seconds = 1, tick_seconds = 1e-3, least_goodput = .95, most_p99_ms = 50;

static struct message classify;

/* All rounds of one kind. */
struct tally {
    double seconds, cpu; /* measured, and what this program took of a core meanwhile */
    size_t answered, refused, starved;
    struct samples answers, refusals; /* seconds, from the last byte sent */
};

static struct {
    struct clients clients;
    struct client *free[OPEN_CONNECTIONS];
    size_t free_count;
    struct tally *tally;
    bool closed;       /* a closed loop */
    double start, end; /* what is measured */
    size_t failed;     /* ever */
} run;

static void ended(struct client *client, enum client_end end)
{
    const double waited = client->ended - client->sent_at;
    const bool counts = client->ended >= run.start && client->ended < run.end;
    if (end != CLIENT_REPLY || (client->status != 200 && client->status != 429)) {
        if (run.failed++ < SHOWN)
            broken("a request ended with %d, status %d", (int)end, client->status);
    } else if (counts) {
        run.tally->answered += client->status == 200;
        run.tally->refused += client->status == 429;
        samples_add(client->status == 200 ? &run.tally->answers : &run.tally->refusals, waited);
    }
    if (run.closed && now() < run.end)
        client_send(client, &classify);
    else
        run.free[run.free_count++] = client;
}

static void send_when_due(double *due, double rate)
{
    for (const double time = now(); *due <= time; *due -= log(1 - random_part()) / rate) {
        if (run.free_count > 0)
            client_send(run.free[--run.free_count], &classify);
        else
            run.tally->starved++;
    }
}

/* rate: requests per second, on `count` connections; 0: a closed loop of as many clients. */
static void offer(struct tally *tally, const struct vitd *vitd, size_t count, double rate, double seconds)
{
    clients_open(&run.clients, count, vitd->port, ended);
    run.free_count = 0;
    for (size_t i = 0; i < count; i++)
        run.free[run.free_count++] = &run.clients.all[count - 1 - i];
    run.tally = tally;
    run.closed = rate == 0;
    const double used = cpu_seconds(), from = now();
    run.start = from + warm_up_seconds;
    run.end = run.start + seconds;
    while (run.closed && run.free_count > 0)
        client_send(run.free[--run.free_count], &classify);
    for (double due = from; now() < run.end;) {
        if (!run.closed) {
            sleep_seconds(tick_seconds);
            send_when_due(&due, rate);
        }
        clients_turn(&run.clients, run.closed ? run.end - now() : 0);
    }
    tally->cpu += (cpu_seconds() - used) / (now() - from) * seconds;
    tally->seconds += seconds;
    if (clients_finish(&run.clients, 40) > 0)
        broken("%zu requests without an end", run.clients.busy);
    clients_close(&run.clients);
}

static double rate_of(const struct tally *tally)
{
    return (double)tally->answered / tally->seconds;
}

/* Replies per second of a core that this program left to the daemon. */
static double rate_per_core(const struct tally *tally)
{
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        die("sched_getaffinity");
    return (double)tally->answered / (CPU_COUNT(&cores) * tally->seconds - tally->cpu);
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

static void check(const struct tally *capacity, struct tally *overload, double grown, double room)
{
    const double part = rate_per_core(overload) / rate_per_core(capacity);
    const double p99_ms = 1e3 * samples_at(&overload->refusals, .99);
    if (capacity->refused > 0)
        broken("%zu requests of %d clients were refused by a queue of %d", capacity->refused, CLOSED_CLIENTS, QUEUE);
    if (part < least_goodput)
        broken("goodput of %.1f/s is %.1f %% of the capacity per core", rate_of(overload), 100 * part);
    if (p99_ms > most_p99_ms)
        broken("p99 of the 429s is %.1f ms", p99_ms);
    if (grown > room)
        broken("memory grew by %.1f MiB, more than %.1f", grown, room);
    if (overload->starved > 0)
        broken("%zu arrivals found none of %d connections free", overload->starved, OPEN_CONNECTIONS);
}

int main(void)
{
    const double seconds = (double)setting("STRESS_SECONDS", 20, 4) / ROUNDS, mib = 1 << 20;
    struct tally capacity = {0}, overload = {0};
    double memory = 0;
    char config[256];
    snprintf(config, sizeof config, "{\"image_size\": %ld, \"batching\": {\"max_queue_size\": %d}}",
             setting("STRESS_IMAGE_SIZE", 0, 0), QUEUE);
    allow_many_files();
    classify = message_post_file("/classify", "", CAT);
    struct vitd vitd = vitd_start(config, 0);
    for (int round = 0; round < ROUNDS; round++) {
        offer(&capacity, &vitd, CLOSED_CLIENTS, 0, seconds);
        if (round == 0)
            memory = (double)vitd_memory(&vitd, "VmHWM") / 1024;
        offer(&overload, &vitd, OPEN_CONNECTIONS, OFFER * rate_of(&capacity), seconds);
    }
    const double grown = (double)vitd_memory(&vitd, "VmHWM") / 1024 - memory;
    vitd_stop(&vitd);
    const double pictures = (double)(QUEUE * (pixel_bytes(CAT) + classify.length)) / mib;
    check(&capacity, &overload, grown,
          pictures + (double)(OPEN_CONNECTIONS * (CONNECTION_BYTES + classify.length)) / mib);
    return result("overload",
                  "capacity %.1f/s; offered %d times that: %.1f/s answered (%.1f %% per core left to the daemon, %.1f %% as "
                  "seen; p50 %.0f ms), %.1f/s refused (429 after p50 %.2f ms, p99 %.2f ms), %zu failed; VmHWM %.1f MiB, "
                  "%+.1f in the overload (queue of pictures: %.1f); this program %.1f %% of a core, %.1f for the capacity",
                  rate_of(&capacity), OFFER, rate_of(&overload),
                  100 * rate_per_core(&overload) / rate_per_core(&capacity), 100 * rate_of(&overload) / rate_of(&capacity),
                  1e3 * samples_at(&overload.answers, .5), (double)overload.refused / overload.seconds,
                  1e3 * samples_at(&overload.refusals, .5), 1e3 * samples_at(&overload.refusals, .99), run.failed,
                  memory + grown, grown, pictures, 100 * overload.cpu / overload.seconds,
                  100 * capacity.cpu / capacity.seconds);
}

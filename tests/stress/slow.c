/*
 * slow.c - a good client beside 1,000 slow ones and 200 idle connections.
 *
 * The good client posts one picture after the other, 500 in a row; alone (A) and beside the others (B), in turns, A B
 * A B ..., STRESS_ROUNDS (6) times each. A slow client sends a byte a second, half of them of a header and half of a
 * body, and connects again when it is cut off; the idle ones have had an answer and keep the connection. Before each B
 * they run for STRESS_RAMP_SECONDS (32): more than the daemon's timeouts, so that some are cut off all the time. Bound:
 * p50 and p99 in B are less than 1.10 of those in A, each the lowest of its rounds: other programs of this machine can
 * only make them higher.
 *
 * The slow clients are another process, lest they delay the good one's clock. It needs CPU time, which slow clients
 * do not take from a real daemon; so the daemon has a thread less than there are CPUs (STRESS_THREADS sets another
 * number). Where all CPUs are its workers', each wake-up of any other thread delays the request under way.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

enum { SLOW = 1000, IDLE = 200, REQUESTS = 500, TICKS = 250, IDLE_SECONDS = 10, SPREAD_SECONDS = 15 };

static const double most_ratio = 1.10;

static struct message classify, health, header, body;

/* ---- the slow clients: a process that runs until it is killed ---- */

struct slow {
    int fd; /* -1: to be connected */
    const struct message *message;
    size_t sent;
};

static void connect_slow(struct slow *slow, int port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    slow->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (slow->fd < 0 ||
        (connect(slow->fd, (const struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS))
        die("connect");
    slow->sent = 0;
}

/* Sends a byte; of a body, all of the header at first. */
static void advance(struct slow *slow, int port)
{
    char reply[1024];
    if (slow->fd >= 0 && recv(slow->fd, reply, sizeof reply, 0) >= 0) { /* a 408, or the end */
        close(slow->fd);
        slow->fd = -1;
    }
    if (slow->fd < 0)
        connect_slow(slow, port);
    const size_t head = (size_t)(strstr(slow->message->bytes, "\r\n\r\n") + 4 - slow->message->bytes);
    const size_t piece = slow->sent == 0 && slow->message == &body ? head : 1;
    if (slow->sent + piece > slow->message->length)
        return;
    const ssize_t n = send(slow->fd, slow->message->bytes + slow->sent, piece, MSG_NOSIGNAL);
    slow->sent += n > 0 ? (size_t)n : 0;
}

static void answered(struct client *client, enum client_end end)
{
    (void)client;
    (void)end;
}

/* One reply each, again and again before the daemon finds that they have been idle for too long. */
static void refresh_idle(struct clients *idle, size_t number)
{
    struct client *client = &idle->all[number];
    if (!client->busy)
        client_send(client, &health);
    clients_turn(idle, 0);
}

static _Noreturn void be_slow(int port, size_t spread)
{
    static struct slow slow[SLOW];
    struct clients idle;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    clients_open(&idle, IDLE, port, answered);
    for (size_t i = 0; i < SLOW; i++)
        slow[i] = (struct slow){.fd = -1, .message = i % 2 ? &header : &body};
    const double start = now();
    for (size_t tick = 0;; tick++) {
        for (size_t i = tick % TICKS; i < SLOW; i += TICKS)
            if (tick * SLOW >= i * TICKS * spread) /* they do not come, and are not cut off, all at once */
                advance(&slow[i], port);
        if (tick % (TICKS * IDLE_SECONDS / IDLE) == 0)
            refresh_idle(&idle, tick / (TICKS * IDLE_SECONDS / IDLE) % IDLE);
        const double next = start + (double)(tick + 1) / TICKS, time = now();
        if (next > time)
            sleep_seconds(next - time);
    }
}

static pid_t start_slow(int port, size_t spread)
{
    const pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0)
        be_slow(port, spread);
    return pid;
}

static void stop_slow(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    sleep_seconds(.5); /* the daemon takes note */
}

/* ---- the good client ---- */

static struct samples *latencies;
static size_t failed, left;

static void good_ended(struct client *client, enum client_end end)
{
    if (end == CLIENT_REPLY && client->status == 200)
        samples_add(latencies, client->ended - client->begun);
    else if (failed++ < 10)
        broken("the good client: end %d, status %d", (int)end, client->status);
    if (--left > 0)
        client_send(client, &classify);
}

static void be_good(int port, struct samples *samples)
{
    struct clients good;
    latencies = samples;
    left = REQUESTS;
    clients_open(&good, 1, port, good_ended);
    client_send(&good.all[0], &classify);
    if (clients_finish(&good, 300) > 0)
        broken("the good client has no answer");
    clients_close(&good);
}

/* ---- rounds ---- */

struct phase {
    struct samples p50, p99; /* of each round */
};

static void measure(int port, struct phase *phase)
{
    struct samples samples = {0};
    be_good(port, &samples);
    samples_add(&phase->p50, samples_at(&samples, .5));
    samples_add(&phase->p99, samples_at(&samples, .99));
    if (getenv("STRESS_VERBOSE") != NULL)
        fprintf(stderr, "  p50 %.2f ms, p99 %.2f ms, max %.2f ms\n", 1e3 * samples_at(&samples, .5),
                1e3 * samples_at(&samples, .99), 1e3 * samples_at(&samples, 1));
    samples_release(&samples);
}

static void make_messages(void)
{
    char padding[601];
    memset(padding, 'x', sizeof padding - 1);
    padding[sizeof padding - 1] = '\0';
    char line[sizeof padding + 16];
    snprintf(line, sizeof line, "X-Padding: %s\r\n", padding);
    classify = message_post_file("/classify", "", CAT);
    health = message_make("GET /healthz", "", NULL, 0);
    header = message_make("POST /classify", line, padding, sizeof padding - 1);
    body = message_make("POST /classify", "", padding, sizeof padding - 1);
}

int main(void)
{
    const long rounds = setting("STRESS_ROUNDS", 6, 1), ramp = setting("STRESS_RAMP_SECONDS", 32, 1);
    struct phase alone = {0}, beside = {0};
    allow_many_files();
    make_messages();
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN), threads = setting("STRESS_THREADS", cpus > 1 ? cpus - 1 : 1, 1);
    char config[128];
    snprintf(config, sizeof config, "{\"threads\": %ld, \"limits\": {\"max_connections\": 4096}}", threads);
    struct vitd vitd = vitd_start(config, 0);
    struct samples warm_up = {0};
    be_good(vitd.port, &warm_up);
    for (long i = 0; i < rounds; i++) {
        measure(vitd.port, &alone);
        const pid_t slow = start_slow(vitd.port, (size_t)(ramp / 2 < SPREAD_SECONDS ? ramp / 2 : SPREAD_SECONDS));
        sleep_seconds((double)ramp);
        measure(vitd.port, &beside);
        stop_slow(slow);
    }
    const size_t cut = vitd_log_count(&vitd, " 408 ");
    vitd_stop(&vitd);
    const double p50 = samples_at(&beside.p50, 0), p50_alone = samples_at(&alone.p50, 0);
    const double p99 = samples_at(&beside.p99, 0), p99_alone = samples_at(&alone.p99, 0);
    if (p50 >= most_ratio * p50_alone || p99 >= most_ratio * p99_alone)
        broken("p50 is %.3f and p99 %.3f of what it is alone", p50 / p50_alone, p99 / p99_alone);
    return result("slow",
                  "beside %d slow and %d idle clients p50 is %.2f ms, alone %.2f ms (ratio %.3f), and p99 %.2f ms, "
                  "%.2f ms (ratio %.3f), the lowest of %ld rounds of %d requests; the median round has p99 %.2f ms, "
                  "%.2f ms; %zu slow ones got their 408, %zu good ones failed",
                  SLOW, IDLE, 1e3 * p50, 1e3 * p50_alone, p50 / p50_alone, 1e3 * p99, 1e3 * p99_alone, p99 / p99_alone,
                  rounds, REQUESTS, 1e3 * samples_at(&beside.p99, .5), 1e3 * samples_at(&alone.p99, .5), cut, failed);
}

/*
 * sigterm.c - SIGTERM under load, STRESS_SIGTERMS (1000) times, each at a random moment 20 to 300 ms after the start.
 *
 * Bounds: every request of which anything has arrived gets a complete reply, 200 or, after the signal, 503 "draining";
 * the daemon ends with status 0 within 5 s. Refused connections after the signal, and kept-alive connections that are
 * closed between two requests, are as they should be.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

enum role {
    STEADY,   /* keep-alive, one request after the other */
    ONE_SHOT, /* a connection each, Connection: close */
    PIECES,   /* keep-alive; the request comes in two pieces, up to 60 ms apart */
    THINKING  /* keep-alive; up to 400 ms between the requests: idle when the signal comes, or just beginning */
};

static const enum role roles[] = {STEADY, STEADY, STEADY, ONE_SHOT, ONE_SHOT, PIECES, PIECES, THINKING, THINKING};
enum { CLIENTS = sizeof roles / sizeof roles[0] };

static const double most_seconds = 5, turn_seconds = .005;

static struct message classify, classify_once, models;

static struct {
    struct clients clients;
    double due[CLIENTS]; /* the next request, or the rest of this one; infinity: no more */
    double signalled;    /* 0: not yet */
    size_t ends[CLIENT_ENDS], draining, idle_closes;
    struct samples exits; /* seconds */
} run;

static void complain(const struct client *client, const char *what)
{
    const double from = run.signalled > 0 ? run.signalled : client->begun;
    broken("client %zu (role %d): %s, %zu of %zu bytes sent, %zu received after %u replies; begun %+.1f ms from the "
           "signal, ended %+.1f ms: %.60s", client->number, (int)roles[client->number], what, client->sent,
           client->message->length, client->received, client->replies, 1e3 * (client->begun - from),
           1e3 * (client->ended - from), client->received > 0 ? client->head : "");
}

static void check_reply(const struct client *client)
{
    const bool drains = client->status == 503 && run.signalled > 0 && strstr(client->head, "\"draining\"") != NULL;
    run.draining += drains;
    if (client->status != 200 && !drains)
        complain(client, "unexpected reply");
}

static void ended(struct client *client, enum client_end end)
{
    const enum role role = roles[client->number];
    run.ends[end]++;
    if (end == CLIENT_REPLY)
        check_reply(client);
    if (end == CLIENT_LOST)
        complain(client, "lost");
    if (end == CLIENT_REFUSED && run.signalled == 0)
        complain(client, "refused before the signal");
    run.due[client->number] = end == CLIENT_REFUSED ? INFINITY : role == THINKING ? now() + .4 * random_part() : 0;
}

static void send_next(struct client *client)
{
    const enum role role = roles[client->number];
    const struct message *message = role == ONE_SHOT ? &classify_once : random_part() < .2 ? &models : &classify;
    if (role == PIECES) {
        client_send_part(client, message, 1 + (size_t)(random_part() * (double)(message->length - 1)));
        run.due[client->number] = now() + .06 * random_part();
    } else {
        client_send(client, message);
    }
}

static void dispatch(void)
{
    const double time = now();
    for (size_t i = 0; i < CLIENTS; i++) {
        struct client *client = &run.clients.all[i];
        if (time < run.due[i])
            continue;
        if (!client->busy)
            send_next(client);
        else if (client->may_send < client->message->length)
            client_send_rest(client);
    }
}

/* Until the daemon ends; its wait status. */
static int load_until_end(struct vitd *vitd, double signal_at)
{
    int status = -1;
    while (!vitd_ended(vitd, &status)) {
        if (run.signalled == 0 && now() >= signal_at) {
            run.signalled = now();
            kill(vitd->pid, SIGTERM);
        }
        if (run.signalled > 0 && now() - run.signalled > 2 * most_seconds) {
            kill(vitd->pid, SIGKILL);
            return vitd_wait(vitd);
        }
        dispatch();
        clients_turn(&run.clients, turn_seconds);
    }
    return status;
}

/* Hears what the clients have not heard of yet. Connections that never were any have no end. */
static void settle(void)
{
    const double give_up = now() + 1;
    size_t pending = 1;
    for (size_t i = 0; i < CLIENTS; i++)
        run.due[i] = INFINITY;
    while (pending > 0 && now() < give_up) {
        pending = 0;
        clients_turn(&run.clients, 0);
        for (size_t i = 0; i < CLIENTS; i++)
            pending += run.clients.all[i].busy && run.clients.all[i].sent > 0;
    }
    if (pending > 0)
        broken("%zu requests without an end", pending);
    if (run.clients.unasked > 0)
        broken("%zu bytes that nobody had asked for", run.clients.unasked);
}

static void once(void)
{
    struct vitd vitd = vitd_start("{}", 0);
    const double begun = now();
    clients_open(&run.clients, CLIENTS, vitd.port, ended);
    run.signalled = 0;
    for (size_t i = 0; i < CLIENTS; i++)
        run.due[i] = 0;
    const int status = load_until_end(&vitd, begun + .02 + .28 * random_part());
    const double took = now() - run.signalled;
    settle();
    if (status != 0)
        broken("wait status %d", status);
    if (run.signalled == 0)
        broken("it ended before the signal");
    else if (took > most_seconds)
        broken("it took %.1f s to end", took);
    samples_add(&run.exits, took);
    run.idle_closes += run.clients.idle_closes;
    clients_close(&run.clients);
    vitd_release(&vitd);
}

int main(void)
{
    const long times = setting("STRESS_SIGTERMS", 1000, 1);
    classify = message_post_file("/classify", "", CAT);
    classify_once = message_post_file("/classify", "Connection: close\r\n", CAT);
    models = message_make("GET /models", "", NULL, 0);
    for (long i = 0; i < times; i++)
        once();
    const double median = samples_at(&run.exits, .5), longest = samples_at(&run.exits, 1);
    return result("sigterm",
                  "%ld times, %zu replies (%zu of them 503 draining), %zu lost, %zu refused, %zu idle closes, %zu to "
                  "be sent again; ends within %.0f ms (median), %.0f ms (longest)",
                  times, run.ends[CLIENT_REPLY], run.draining, run.ends[CLIENT_LOST], run.ends[CLIENT_REFUSED],
                  run.idle_closes, run.ends[CLIENT_RACED], 1e3 * median, 1e3 * longest);
}

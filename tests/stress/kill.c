/*
 * kill.c - SIGKILL under load and a new start on the same port, STRESS_KILLS (200) times.
 *
 * Bounds: each start succeeds (connections of the killed daemon do not hold the port), listens within 5 s, and answers.
 */
#include <signal.h>
#include <stdlib.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

enum { CLIENTS = 6 };

static const double most_seconds = 5;

static struct message classify;

static struct {
    size_t ends[CLIENT_ENDS], good;
    bool stop;
    struct samples starts; /* seconds, from exec to listening */
} run;

static void ended(struct client *client, enum client_end end)
{
    run.ends[end]++;
    run.good += end == CLIENT_REPLY && client->status == 200;
    if (end == CLIENT_REPLY && client->status != 200)
        broken("a reply with %d", client->status);
    if (!run.stop)
        client_send(client, &classify);
}

/* Loads it until it has answered, and for up to 100 ms more; then kills it. */
static void load_and_kill(struct vitd *vitd)
{
    struct clients clients;
    const size_t before = run.good;
    clients_open(&clients, CLIENTS, vitd->port, ended);
    run.stop = false;
    for (size_t i = 0; i < CLIENTS; i++)
        client_send(&clients.all[i], &classify);
    const double give_up = now() + most_seconds;
    while (run.good == before && now() < give_up)
        clients_turn(&clients, give_up - now());
    if (run.good == before)
        broken("no answer within %.0f s of a start", most_seconds);
    const double until = now() + .1 * random_part();
    while (now() < until)
        clients_turn(&clients, until - now());
    run.stop = true;
    kill(vitd->pid, SIGKILL);
    vitd_wait(vitd);
    if (clients_finish(&clients, 1) > 0)
        broken("%zu requests outlived the daemon", clients.busy);
    clients_close(&clients);
    vitd_release(vitd);
}

int main(void)
{
    const long times = setting("STRESS_KILLS", 200, 1);
    int port = 0;
    classify = message_post_file("/classify", "", CAT);
    for (long i = 0; i < times; i++) {
        const double begun = now();
        struct vitd vitd = vitd_start("{}", port);
        const double took = now() - begun;
        samples_add(&run.starts, took);
        if (took > most_seconds)
            broken("it took %.1f s to start", took);
        port = vitd.port;
        load_and_kill(&vitd);
    }
    struct vitd vitd = vitd_start("{}", port);
    vitd_stop(&vitd);
    const double median = samples_at(&run.starts, .5), longest = samples_at(&run.starts, 1);
    return result("kill",
                  "%ld times on one port, %zu replies, %zu requests died with the daemon; listens after %.0f ms "
                  "(median), %.0f ms (longest)",
                  times, run.good, run.ends[CLIENT_LOST] + run.ends[CLIENT_RACED] + run.ends[CLIENT_REFUSED],
                  1e3 * median, 1e3 * longest);
}

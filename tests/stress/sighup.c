/*
 * sighup.c - the model is swapped under load, STRESS_SIGHUPS (200) times.
 *
 * The model's folder is a symbolic link that points now to one copy, now to another whose labels differ; SIGHUP makes
 * the daemon open it anew. Bounds: no request fails; one that begins after the reload gets the new labels; memory grows by
 * less than 1 MB after the first 50 swaps, looked at while nothing is under way: memory in use, since in what is resident up
 * to 8 MiB of free pages for each thread (KEPT_MEMORY of server/daemon.c) come and go.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/stress/client.h"
#include "tests/stress/common.h"

/* What the daemon logs after SIGHUP. */
#define LOG_RELOADED "reloaded"
#define LOG_REFUSED "reload refused"

#define MODEL "config/models/vit-tiny-64"
enum { CLIENTS = 6, SETTLED = 50, MOST_GROWTH_KIB = 1000 };

static const double most_seconds = 10, turn_seconds = .002, settle_seconds = 1;
/* The label of CAT, and what the second copy calls it: as long, so that nothing else changes. */
static const char *const labels[2] = {"tabby", "TABBY"};

static struct message classify;

static struct {
    struct clients clients;
    size_t ends[CLIENT_ENDS], failed, stale;
    bool stop;
    const char *label; /* of the newest model */
    double reloaded_at;
} run;

static void ended(struct client *client, enum client_end end)
{
    const bool good = end == CLIENT_REPLY && client->status == 200;
    run.ends[end]++;
    if (!good && end != CLIENT_RACED && run.failed++ < 10)
        broken("end %d, status %d: %.200s", (int)end, client->status, client->received > 0 ? client->head : "");
    if (good && run.label != NULL && client->begun > run.reloaded_at && strstr(client->head, run.label) == NULL &&
        run.stale++ < 10)
        broken("an answer by the old model, %.0f ms after the reload", 1e3 * (client->begun - run.reloaded_at));
    if (!run.stop)
        client_send(client, &classify);
}

static void start_load(void)
{
    run.stop = false;
    for (size_t i = 0; i < CLIENTS; i++)
        client_send(&run.clients.all[i], &classify);
}

static void stop_load(void)
{
    run.stop = true;
    if (clients_finish(&run.clients, 40) > 0)
        broken("%zu requests without an end", run.clients.busy);
}

/* ---- the model ---- */

static void copy_file(const char *folder, const char *name, size_t copy)
{
    char from[128], to[128];
    size_t length;
    snprintf(from, sizeof from, MODEL "/%s", name);
    snprintf(to, sizeof to, "%.60s/%zu/%s", folder, copy, name);
    char *bytes = read_file(from, &length);
    char *label = copy > 0 ? strstr(bytes, labels[0]) : NULL;
    if (label != NULL)
        memcpy(label, labels[copy], strlen(labels[copy]));
    write_file(to, bytes, length);
    free(bytes);
}

static const char *const files[] = {"config.json", "preprocessor_config.json", "model.safetensors"};
enum { FILES = sizeof files / sizeof files[0] };

static void point_to(const char *folder, size_t copy)
{
    char target[16], fresh[128], link[128];
    snprintf(target, sizeof target, "%zu", copy);
    snprintf(fresh, sizeof fresh, "%.60s/fresh", folder);
    snprintf(link, sizeof link, "%.60s/current", folder);
    if (symlink(target, fresh) != 0 || rename(fresh, link) != 0)
        die(link);
}

static void make_models(char *folder)
{
    char path[128];
    if (mkdtemp(folder) == NULL)
        die(folder);
    for (size_t copy = 0; copy < 2; copy++) {
        snprintf(path, sizeof path, "%.60s/%zu", folder, copy);
        if (mkdir(path, 0700) != 0)
            die(path);
        for (size_t i = 0; i < FILES; i++)
            copy_file(folder, files[i], copy);
    }
    point_to(folder, 0);
}

static void remove_models(const char *folder)
{
    char path[128];
    for (size_t copy = 0; copy < 2; copy++) {
        for (size_t i = 0; i < FILES; i++) {
            snprintf(path, sizeof path, "%.60s/%zu/%s", folder, copy, files[i]);
            unlink(path);
        }
        snprintf(path, sizeof path, "%.60s/%zu", folder, copy);
        rmdir(path);
    }
    snprintf(path, sizeof path, "%.60s/current", folder);
    unlink(path);
    rmdir(folder);
}

/* ---- one swap ---- */

static _Noreturn void give_up(struct vitd *vitd, const char *folder)
{
    char *log = vitd_log(vitd);
    broken("no reload: %.2000s", log);
    free(log);
    if (vitd->pid != 0)
        kill(vitd->pid, SIGKILL);
    vitd_release(vitd);
    remove_models(folder);
    exit(result("sighup", "no reload"));
}

/* The seconds of the reload. */
static double swap(struct vitd *vitd, const char *folder, size_t copy)
{
    int status;
    point_to(folder, copy);
    vitd_log_empty(vitd);
    const double begun = now();
    run.label = NULL;
    kill(vitd->pid, SIGHUP);
    while (vitd_log_count(vitd, LOG_RELOADED) == 0) {
        if (vitd_ended(vitd, &status))
            broken("SIGHUP ended it with wait status %d", status);
        if (vitd->pid == 0 || vitd_log_count(vitd, LOG_REFUSED) > 0 || now() - begun > most_seconds)
            give_up(vitd, folder);
        clients_turn(&run.clients, turn_seconds);
    }
    run.reloaded_at = now();
    run.label = labels[copy];
    return run.reloaded_at - begun;
}

/* Once the model that was replaced last is gone, too. */
static double quiet_memory(const struct vitd *vitd)
{
    stop_load();
    sleep_seconds(settle_seconds);
    const double kib = vitd_metric(vitd, "vitd_heap_bytes") / 1024;
    start_load();
    return kib;
}

int main(void)
{
    const long times = setting("STRESS_SIGHUPS", 200, SETTLED + 1);
    char folder[] = "/tmp/vitd-stress-models-XXXXXX", config[256];
    struct samples reloads = {0};
    double before = 0; /* KiB */
    make_models(folder);
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"swapped\", \"path\": \"%s/current\"}]}", folder);
    classify = message_post_file("/classify", "", CAT);
    struct vitd vitd = vitd_start(config, 0);
    clients_open(&run.clients, CLIENTS, vitd.port, ended);
    start_load();
    for (long i = 1; i <= times; i++) {
        samples_add(&reloads, swap(&vitd, folder, (size_t)(i % 2)));
        const double until = now() + .1 * random_part();
        while (now() < until)
            clients_turn(&run.clients, until - now());
        if (i == SETTLED)
            before = quiet_memory(&vitd);
    }
    const double grown = quiet_memory(&vitd) - before;
    stop_load();
    const long resident = vitd_memory(&vitd, "VmRSS");
    clients_close(&run.clients);
    vitd_stop(&vitd);
    remove_models(folder);
    if (grown > MOST_GROWTH_KIB)
        broken("memory in use grew by %.0f KiB from %.0f", grown, before);
    return result("sighup",
                  "%ld swaps, %zu replies, %zu failed, %zu by the old model; a reload takes %.0f ms (median), %.0f ms "
                  "(longest); memory in use %.1f MiB, %+.0f KiB since swap %d, VmRSS %.1f MiB",
                  times, run.ends[CLIENT_REPLY], run.failed, run.stale, 1e3 * samples_at(&reloads, .5),
                  1e3 * samples_at(&reloads, 1), (before + grown) / 1024, grown, SETTLED,
                  (double)resident / 1024);
}

/*
 * daemon.c - vitd serve: the order of start-up, reload and shutdown.
 *
 *     main thread      block signals -> queue, workers, loader -> HTTP up (503 "loading") -> wait for signals, tick
 *     loader's thread  open the models, warm them up; then wake the main thread: service.ready, READY=1
 *     on SIGHUP        read the configuration again -> the loader opens what is new -> put all of it in force, or nothing
 *     on SIGTERM       not ready any more -> drain_delay_ms -> drain HTTP -> workers finish -> free everything -> exit 0;
 *                      after drain_timeout_ms, or a second signal, exit at once
 *
 * Signals are blocked in every thread and taken by sigtimedwait() in the main thread only, so there is no global, and no
 * handler but the last words of SIGBUS. The loader wakes it by SIGUSR1 when the models of a configuration are there, or
 * cannot be had.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/cli.h"
#include "server/commands.h"
#include "server/http/http.h"
#include "server/log.h"
#include "server/systemd.h"

enum apply_state { APPLY_NONE, APPLY_RUNNING, APPLY_DONE, APPLY_FAILED };

/* The main thread's, but for what the loader writes before it sets `applying`. */
struct daemon {
    const struct cli *cli;
    struct service service;
    struct http *http;
    int64_t start_us;
    pthread_t main_thread;

    struct settings *next; /* whose models the loader opens; NULL: none */
    bool reload_again;     /* SIGHUP came meanwhile */
    bool refused;          /* the last reload */
    atomic_int applying;   /* enum apply_state */
    vit_error apply_error; /* APPLY_FAILED */

    int64_t watchdog_us, pinged_us; /* 0: no watchdog */
    bool stuck;
    int64_t status_us;     /* when STATUS= was last told */
    uint64_t status_images;
};

/* Bytes: of blocks that malloc takes from, and gives back to, the system; of the rest that a thread may keep when it is
 * free, some pictures' worth. */
enum { LARGE_BLOCK = 1 << 20, KEPT_MEMORY = 8 << 20 };
enum { TICK_MS = 100, DRAIN_TICK_MS = 10, STATUS_US = 5000000 };

static bool fail(const char *message)
{
    log_error("%s", message);
    return false;
}

/* ---- signals ---- */

/* The files of models are mapped: what is cut off in place is gone under the reader's feet. */
static void tell_of_lost_file(int signal_number)
{
    static const char text[] = "a model's file was changed in place while it was in use: replace files by mv, never by cp\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(128 + signal_number);
    raise(signal_number); /* reset to its default by SA_RESETHAND */
}

static void block_signals(sigset_t *awaited)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    sigemptyset(awaited);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaddset(awaited, numbers[i]);
    pthread_sigmask(SIG_BLOCK, awaited, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGBUS, &(struct sigaction){.sa_handler = tell_of_lost_file, .sa_flags = (int)SA_RESETHAND}, NULL);
}

/* 0 when none came. */
static int wait_for_signal(const sigset_t *awaited, long milliseconds)
{
    struct timespec timeout = {.tv_nsec = milliseconds * 1000000};
    int signal_number = sigtimedwait(awaited, NULL, &timeout);
    return signal_number > 0 ? signal_number : 0;
}

static bool ends(int signal_number)
{
    return signal_number == SIGTERM || signal_number == SIGINT;
}

/* ---- a configuration's models ---- */

/* On the loader's thread. */
static void models_applied(void *context, vit_status status, const vit_error *error)
{
    struct daemon *daemon = context;
    daemon->apply_error = *error;
    atomic_store(&daemon->applying, status == VIT_OK ? APPLY_DONE : APPLY_FAILED);
    pthread_kill(daemon->main_thread, SIGUSR1);
}

static bool apply_models(struct daemon *daemon, const struct config *config)
{
    atomic_store(&daemon->applying, APPLY_RUNNING);
    return loader_apply(daemon->service.loader, config, models_applied, daemon);
}

static void apply_limits(struct daemon *daemon, const struct config *config)
{
    queue_set_limits(daemon->service.queue,
                     &(struct queue_limits){.capacity = (size_t)config->batching.max_queue_size,
                                            .max_bytes = (size_t)config->batching.max_queue_bytes});
    cache_resize(daemon->service.cache, (size_t)config->cache.max_bytes);
    cache_resize(daemon->service.texts, (size_t)config->cache.max_text_bytes);
    log_setup((enum log_level)config->log.level, (enum log_format)config->log.format);
}

/* Whoever can reach it may ask it. */
static void warn_of_openness(const struct config *config)
{
    const char *address = config->listen.address;
    if (*config->access.keys == '\0' && strncmp(address, "127.", 4) != 0 && strcmp(address, "::1") != 0)
        log_warn("listen.address %s may be reached from other machines, and access.keys names no keys: everyone may ask",
                 address);
}

static void tell_ready(struct daemon *daemon)
{
    const char *address;
    const struct config *config = &daemon->service.settings->config;
    log_info("serving %zu model%s with batches of up to %d", config->model_count, config->model_count == 1 ? "" : "s",
             config->batching.max_batch_size);
    for (size_t i = 0; (address = http_address(daemon->http, i)) != NULL; i++)
        log_info("listening on %s (ready in %.0f ms)", address, (double)(job_clock_us() - daemon->start_us) / 1e3);
    warn_of_openness(config);
    daemon->status_us = job_clock_us();
    systemd_notify("READY=1\nSTATUS=ready");
}

/* ---- reload ---- */

/* In STATUS=, until a reload succeeds. */
#define REFUSED ", but the last reload was refused (see the log)"

static void refuse_reload(struct daemon *daemon, const char *why)
{
    settings_unref(daemon->next);
    daemon->next = NULL;
    daemon->refused = true;
    log_error("reload refused, all is as it was: %s", why);
    systemd_notify("READY=1\nSTATUS=ready" REFUSED);
}

static void begin_reload(struct daemon *daemon)
{
    struct config config;
    struct config_error error = {""};
    struct http_error why = {""};
    if (atomic_load(&daemon->applying) != APPLY_NONE) {
        daemon->reload_again = true;
        return;
    }
    log_info("SIGHUP: reading the configuration again");
    systemd_notify_reloading();
    /* the certificate in use is the one that it started with: its paths count at the start */
    if (!http_check(&daemon->cli->config, &why) || !cli_configure(daemon->cli, &config, &error)) {
        refuse_reload(daemon, *why.message ? why.message : error.message);
        return;
    }
    daemon->next = settings_create(&config, &error);
    config_release(&config);
    if (!daemon->next)
        refuse_reload(daemon, error.message);
    else if (!apply_models(daemon, &daemon->next->config)) {
        atomic_store(&daemon->applying, APPLY_NONE);
        refuse_reload(daemon, "out of memory");
    }
}

/* Keys that only count when the daemon starts, and differ from what it started with. */
static void warn_of_restart(const struct config *started, const struct config *now)
{
    struct config_key a, b;
    for (size_t i = 0; config_describe(started, i, &a) && config_describe(now, i, &b); i++)
        if (a.restart && strcmp(a.value, b.value) != 0)
            log_warn("%s: the new value takes effect at the next start", a.name);
}

static void end_reload(struct daemon *daemon)
{
    struct service *service = &daemon->service;
    struct http_error error = {""};
    const struct config *config = &daemon->next->config;
    if (!http_configure(daemon->http, config, &error))
        log_error("%s; the old certificate stays", error.message);
    warn_of_restart(&daemon->cli->config, config);
    apply_limits(daemon, config);
    service_set_settings(service, daemon->next);
    daemon->next = NULL;
    daemon->refused = false;
    log_info("reloaded: %zu model%s", config->model_count, config->model_count == 1 ? "" : "s");
    systemd_notify("READY=1\nSTATUS=ready");
}

static bool begin_serving(struct daemon *daemon)
{
    struct http_error error = {""};
    atomic_store(&daemon->service.ready, true);
    return http_take_passed(daemon->http, &error) || fail(error.message);
}

/* The models are there, or cannot be had; false: the daemon cannot start. */
static bool end_apply(struct daemon *daemon)
{
    const bool starting = !atomic_load(&daemon->service.ready);
    const bool done = atomic_load(&daemon->applying) == APPLY_DONE;
    atomic_store(&daemon->applying, APPLY_NONE);
    if (starting && !(done ? begin_serving(daemon) : fail(daemon->apply_error.message)))
        return false;
    if (starting) {
        tell_ready(daemon);
    } else if (done) {
        end_reload(daemon);
    } else {
        refuse_reload(daemon, daemon->apply_error.message);
    }
    if (daemon->reload_again) {
        daemon->reload_again = false;
        begin_reload(daemon);
    }
    return true;
}

/* ---- what the service manager is told ---- */

/* No more pings once a worker is stuck: a piece of work takes seconds at most, or, of large models on few cores, what their
 * first image lets one expect. */
static void ping(struct daemon *daemon, int64_t now_us)
{
    if (!daemon->watchdog_us || now_us - daemon->pinged_us < daemon->watchdog_us / 4)
        return;
    const int64_t longest_us = workers_longest_us(daemon->service.workers);
    const int64_t patience_us = registry_patience_us(daemon->service.registry);
    if (longest_us < daemon->watchdog_us || longest_us < patience_us) {
        systemd_mention("WATCHDOG=1");
        daemon->stuck = false;
    } else if (!daemon->stuck) {
        log_error("a worker has been at one piece of work for %lld s: it is stuck, and the watchdog is told no more",
                  (long long)longest_us / 1000000);
        daemon->stuck = true;
    }
    daemon->pinged_us = now_us;
}

static void tell_status(struct daemon *daemon, int64_t now_us)
{
    char text[192];
    struct queue_state queue;
    const double seconds = (double)(now_us - daemon->status_us) / 1e6;
    if (now_us - daemon->status_us < STATUS_US)
        return;
    const uint64_t images = metrics_total_images(daemon->service.metrics);
    queue_look(daemon->service.queue, &queue);
    snprintf(text, sizeof text, "STATUS=ready: %.1f images/s, %zu waiting%s",
             (double)(images - daemon->status_images) / seconds, queue.waiting, daemon->refused ? REFUSED : "");
    systemd_mention(text);
    daemon->status_images = images;
    daemon->status_us = now_us;
}

static void tick(struct daemon *daemon)
{
    const int64_t now_us = job_clock_us();
    http_tick(daemon->http);
    loader_sweep(daemon->service.loader);
    workers_sweep(daemon->service.workers);
    model_free_unused();
    ping(daemon, now_us);
    if (atomic_load(&daemon->service.ready) && !atomic_load(&daemon->service.draining) && !daemon->next)
        tell_status(daemon, now_us);
}

/* ---- serving ---- */

/* Until a signal ends it (true) or loading has failed (false). */
static bool serve(struct daemon *daemon, const sigset_t *awaited)
{
    for (;;) {
        const int signal_number = wait_for_signal(awaited, TICK_MS);
        if (ends(signal_number)) {
            log_info("%s: finishing what is under way; a second signal stops at once",
                     signal_number == SIGINT ? "SIGINT" : "SIGTERM");
            return true;
        }
        if (signal_number == SIGHUP)
            begin_reload(daemon);
        if (atomic_load(&daemon->applying) >= APPLY_DONE && !end_apply(daemon))
            return false;
        tick(daemon);
    }
}

/* Ticks for some time, or until no connection is left; false: the time is up. */
static bool wait_for_drain(struct daemon *daemon, const sigset_t *awaited, int milliseconds)
{
    const int64_t end_us = job_clock_us() + (int64_t)milliseconds * 1000;
    while (!http_is_drained(daemon->http)) {
        if (job_clock_us() >= end_us)
            return false;
        const int signal_number = wait_for_signal(awaited, DRAIN_TICK_MS);
        if (ends(signal_number))
            _exit(128 + signal_number);
        tick(daemon);
    }
    return true;
}

static void drain(struct daemon *daemon, const sigset_t *awaited)
{
    struct settings *settings = service_settings(&daemon->service);
    systemd_notify("STOPPING=1\nSTATUS=finishing what is under way");
    atomic_store(&daemon->service.draining, true);
    wait_for_drain(daemon, awaited, settings->config.drain_delay_ms);
    http_drain(daemon->http);
    if (!wait_for_drain(daemon, awaited, settings->config.drain_timeout_ms)) {
        log_warn("drain_timeout_ms is over: stopped with %zu connections open", http_connections(daemon->http));
        _exit(EXIT_SUCCESS);
    }
    settings_unref(settings);
    if (loader_is_busy(daemon->service.loader)) { /* it may take long, and nobody waits for it */
        log_info("stopped while loading");
        _exit(EXIT_SUCCESS);
    }
}

/* ---- life ---- */

static void release(struct daemon *daemon)
{
    struct service *service = &daemon->service;
    http_stop(daemon->http);
    loader_stop(service->loader);
    workers_stop(service->workers);
    queue_free(service->queue);
    registry_free(service->registry);
    model_free_unused();
    cache_free(service->cache);
    cache_free(service->texts);
    metrics_free(service->metrics);
    settings_unref(daemon->next);
    settings_unref(service->settings);
    pthread_mutex_destroy(&service->mutex);
}

/* All that does not depend on a model. */
static bool create(struct daemon *daemon)
{
    struct service *service = &daemon->service;
    struct config_error error = {""};
    vit_error why = {{0}};
    const struct config *config = &daemon->cli->config;
    const size_t threads = (size_t)(config->threads > 0 ? config->threads : config_cpu_count());
    service->settings = settings_create(config, &error);
    if (!service->settings)
        return fail(error.message);
    service->metrics = metrics_create();
    service->registry = registry_create();
    service->queue = queue_create(threads, &(struct queue_limits){0});
    service->cache = cache_create((size_t)config->cache.max_bytes);
    service->texts = cache_create((size_t)config->cache.max_text_bytes);
    if (!service->metrics || !service->registry || !service->queue || !service->cache || !service->texts)
        return fail("out of memory");
    apply_limits(daemon, config);
    if (workers_start(&service->workers, service->queue, service->metrics, threads, &why) != VIT_OK)
        return fail(why.message);
    log_info("%zu worker thread%s", threads, threads == 1 ? "" : "s");
    service->loader = loader_start(service->registry, service->metrics, threads);
    return service->loader || fail("cannot start a thread");
}

static bool start(struct daemon *daemon, size_t inherited)
{
    struct http_error error = {""};
    const struct config *config = &daemon->cli->config;
    if (!create(daemon))
        return false;
    if (!http_start(&daemon->http, &daemon->service, config, inherited, &error))
        return fail(error.message);
    systemd_notify("STATUS=loading models");
    return apply_models(daemon, config) || fail("out of memory");
}

static void log_machine(int restart_failure)
{
    const char *better = vit_blas_better_core();
    log_info("vitd " VITD_VERSION ": OpenBLAS kernels %s, own kernels %s", vit_blas_core(), vit_kernels_name());
    if (restart_failure)
        log_warn("cannot restart for OpenBLAS's sake (/proc/self/exe: %s): set OPENBLAS_NUM_THREADS=1 in the environment",
                 strerror(restart_failure));
    if (!better)
        return;
    if (getenv("OPENBLAS_CORETYPE"))
        log_warn("OPENBLAS_CORETYPE=%s makes OpenBLAS slower than this CPU allows: unset it, or set it to %s",
                 getenv("OPENBLAS_CORETYPE"), better);
    else
        log_warn("OpenBLAS does not know this CPU: OPENBLAS_CORETYPE=%s in the environment makes it faster", better);
}

int command_serve(const struct cli *cli)
{
    struct daemon daemon = {.cli = cli, .start_us = job_clock_us(), .main_thread = pthread_self()};
    sigset_t awaited;
    block_signals(&awaited);
    /* else glibc learns from the first large upload to keep the memory of all later ones */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
    mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
    log_setup((enum log_level)cli->config.log.level, (enum log_format)cli->config.log.format);
    const size_t inherited = (size_t)systemd_listen_fds();
    daemon.watchdog_us = systemd_watchdog_us();
    vit_blas_init();
    log_machine(cli->restart_failure);
    pthread_mutex_init(&daemon.service.mutex, NULL);
    const bool asked = start(&daemon, inherited) && serve(&daemon, &awaited);
    if (asked)
        drain(&daemon, &awaited);
    release(&daemon);
    if (asked)
        log_info("stopped");
    return asked ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * daemon.c - vitd serve: the order of start-up and shutdown.
 *
 *     main thread    block signals -> bind, HTTP up (503 "loading") -> loader thread -> wait for signals, tick
 *     loader thread  open the models -> queue -> workers warm up -> service.ready, READY=1
 *     on SIGTERM     drain HTTP -> workers finish -> free everything -> exit 0; a second signal exits at once
 *
 * Signals are blocked in every thread and taken by sigtimedwait() in the main thread only, so there is no handler and
 * no global. The loader publishes what it made by setting `ready` last; until then nobody else looks at it.
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

#include "server/commands.h"
#include "server/http/http.h"
#include "server/log.h"
#include "server/systemd.h"
#include "server/work/workers.h"

struct daemon {
    const struct config *config;
    struct service service;
    struct http *http;
    pthread_t loader;
    int64_t start_us;
    atomic_int loaded; /* enum load_state */

    /* the loader's until `loaded`, then the main thread's */
    struct registry registry;
    struct queue *queue;
    struct workers *workers;
};

/* Bytes: of blocks that malloc takes from, and gives back to, the system; of the rest that a thread may keep when it is free,
 * some pictures' worth. */
enum { LARGE_BLOCK = 1 << 20, KEPT_MEMORY = 8 << 20 };

enum load_state { LOAD_RUNNING, LOAD_DONE, LOAD_FAILED };

/* ---- loading ---- */

/* Label values in quotes as the metrics want them. */
static void label_model(struct metrics *metrics, size_t index, const vit_model_info *info)
{
    char labels[512];
    snprintf(labels, sizeof labels,
             "architecture=\"%.40s\",layout=\"%.40s\",dtype=\"%.20s\",image_size=\"%zux%zu\",classes=\"%zu\","
             "parameters=\"%llu\"",
             info->architecture, info->layout, info->dtype, info->image_height, info->image_width, info->classes,
             (unsigned long long)info->parameters);
    metrics_set_model_info(metrics, (int)index, labels);
}

/* bf16 and int8 are for speed: say so where they bring none. */
static void warn_of_slow(const struct registry *registry, const struct config *config)
{
    for (size_t i = 0; i < registry->count; i++) {
        const vit_dtype dtype = registry_options(&config->models[i]).dtype;
        if (dtype != VIT_DTYPE_FP32 && !vit_dtype_is_fast(dtype))
            log_warn("model %s: this CPU has no instructions for %s, which is slower than fp32 then", registry->entries[i].name,
                     vit_dtype_name(dtype));
    }
}

static bool load(struct daemon *daemon)
{
    const struct config *config = daemon->config;
    vit_error error = {{0}};
    if (registry_open(&daemon->registry, config, &error) != VIT_OK) {
        log_error("%s", error.message);
        return false;
    }
    warn_of_slow(&daemon->registry, config);
    size_t threads = (size_t)(config->threads > 0 ? config->threads : config_cpu_count());
    struct queue_limits limits = {
        .models = daemon->registry.count,
        .workers = threads,
        .max_batch = (size_t)config->batching.max_batch_size,
        .max_delay_us = config->batching.max_queue_delay_us,
        .capacity = (size_t)config->batching.max_queue_size,
    };
    daemon->queue = queue_create(&limits);
    if (!daemon->queue) {
        log_error("out of memory");
        return false;
    }
    struct workers_setup setup = {
        .registry = &daemon->registry,
        .queue = daemon->queue,
        .metrics = daemon->service.metrics,
        .threads = threads,
        .max_batch = limits.max_batch,
        .max_pixels = (size_t)config->limits.max_pixels,
    };
    if (workers_start(&daemon->workers, &setup, &error) != VIT_OK) {
        log_error("%s", error.message);
        return false;
    }
    for (size_t i = 0; i < daemon->registry.count; i++) {
        const struct registry_entry *entry = &daemon->registry.entries[i];
        const vit_model_info *info = vit_model_describe(entry->model);
        label_model(daemon->service.metrics, i, info);
        log_info("model %s: %s, %zux%zu, %zu classes, %s%s", entry->name, info->architecture, info->image_width,
                 info->image_height, info->classes, info->dtype, entry->draft ? ", draft" : "");
    }
    log_info("serving %zu model%s with %zu thread%s, batches of up to %zu", daemon->registry.count,
             daemon->registry.count == 1 ? "" : "s", threads, threads == 1 ? "" : "s", limits.max_batch);
    return true;
}

static void *loader_main(void *argument)
{
    struct daemon *daemon = argument;
    pthread_setname_np(pthread_self(), "vitd-loader");
    if (!load(daemon)) {
        atomic_store(&daemon->loaded, LOAD_FAILED);
        return NULL;
    }
    daemon->service.queue = daemon->queue;
    atomic_store(&daemon->service.ready, true);
    atomic_store(&daemon->loaded, LOAD_DONE);
    if (atomic_load(&daemon->service.draining))
        return NULL; /* a signal came first */
    log_info("listening on http://%s (ready in %.0f ms)", http_address(daemon->http),
             (double)(job_clock_us() - daemon->start_us) / 1e3);
    systemd_notify("READY=1\nSTATUS=ready");
    return NULL;
}

/* ---- signals ---- */

static void block_signals(sigset_t *stop)
{
    sigemptyset(stop);
    sigaddset(stop, SIGTERM);
    sigaddset(stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, stop, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Waits for SIGTERM or SIGINT; 0 when none came. */
static int wait_for_signal(const sigset_t *stop, long milliseconds)
{
    struct timespec timeout = {.tv_nsec = milliseconds * 1000000};
    int signal_number = sigtimedwait(stop, NULL, &timeout);
    return signal_number > 0 ? signal_number : 0;
}

/* ---- serving ---- */

/* Until a signal comes (true) or loading has failed (false). */
static bool serve(struct daemon *daemon, const sigset_t *stop)
{
    while (atomic_load(&daemon->loaded) != LOAD_FAILED) {
        int signal_number = wait_for_signal(stop, 100);
        if (signal_number) {
            log_info("%s: finishing what is under way; a second signal stops at once",
                     signal_number == SIGINT ? "SIGINT" : "SIGTERM");
            return true;
        }
        http_tick(daemon->http);
    }
    return false;
}

static void drain(struct daemon *daemon, const sigset_t *stop)
{
    systemd_notify("STOPPING=1\nSTATUS=finishing what is under way");
    http_drain(daemon->http);
    while (!http_is_drained(daemon->http)) {
        int signal_number = wait_for_signal(stop, 10);
        if (signal_number)
            _exit(128 + signal_number);
        http_tick(daemon->http);
    }
}

/* Joins the loader; a model that is still being opened is not waited for. */
static void end_loading(struct daemon *daemon)
{
    if (atomic_load(&daemon->loaded) == LOAD_RUNNING) {
        log_info("stopped while loading");
        _exit(EXIT_SUCCESS);
    }
    pthread_join(daemon->loader, NULL);
}

static void release(struct daemon *daemon)
{
    http_stop(daemon->http);
    workers_stop(daemon->workers);
    queue_free(daemon->queue);
    registry_release(&daemon->registry);
    metrics_free(daemon->service.metrics);
}

static struct metrics *create_metrics(const struct config *config)
{
    const char **names = calloc(config->model_count + 1, sizeof *names);
    if (!names)
        return NULL;
    for (size_t i = 0; i < config->model_count; i++)
        names[i] = config->models[i].name;
    struct metrics *metrics = metrics_create(names, config->model_count);
    free(names);
    return metrics;
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
    struct daemon daemon = {.config = &cli->config, .start_us = job_clock_us()};
    struct http_error error = {{0}};
    sigset_t stop;
    block_signals(&stop);
    /* else glibc learns from the first large upload to keep the memory of all later ones */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
    mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
    log_setup((enum log_level)cli->config.log.level, (enum log_format)cli->config.log.format);
    vit_blas_init();
    log_machine(cli->restart_failure);
    daemon.service.config = daemon.config;
    daemon.service.registry = &daemon.registry;
    daemon.service.metrics = create_metrics(daemon.config);
    if (!daemon.service.metrics) {
        log_error("out of memory");
        return EXIT_FAILURE;
    }
    if (!http_start(&daemon.http, &daemon.service, &error)) {
        log_error("%s", error.message);
        release(&daemon);
        return EXIT_FAILURE;
    }
    systemd_notify("STATUS=loading models");
    int failed = pthread_create(&daemon.loader, NULL, loader_main, &daemon);
    if (failed) {
        log_error("cannot start a thread: %s", strerror(failed));
        release(&daemon);
        return EXIT_FAILURE;
    }
    bool asked = serve(&daemon, &stop);
    if (asked)
        drain(&daemon, &stop);
    end_loading(&daemon);
    const bool loaded = atomic_load(&daemon.loaded) != LOAD_FAILED;
    release(&daemon);
    if (asked)
        log_info("stopped");
    return asked && loaded ? EXIT_SUCCESS : EXIT_FAILURE;
}

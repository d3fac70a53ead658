/*
 * metrics.c - the counters behind GET /metrics.
 *
 * Everything is a relaxed atomic: requests by (route, model, code), histograms by model. Models are a list that only
 * grows; the mutex orders who adds to it and protects each model's info. A histogram stores how many values fell into each
 * bucket and adds them up when rendered, so that a scrape during an update still shows cumulative, consistent buckets.
 * Requests for no model are counted in the entry of the empty name, the list's first.
 */
#include "server/metrics.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "vit.h"

enum { MAX_ROUTES = 64, MAX_BUCKETS = 16 };

static const int codes[] = {200, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414,
                            415, 422, 429, 431, 499, 500, 501, 503, 504, 505, 0 /* any other */};
enum { CODE_COUNT = sizeof codes / sizeof codes[0] };

static const char *const reject_names[REJECT_COUNT] = {
    [REJECT_QUEUE_FULL] = "queue_full",   [REJECT_TOO_LARGE] = "too_large",     [REJECT_TIMEOUT] = "timeout",
    [REJECT_CLIENT_GONE] = "client_gone", [REJECT_SLOW_CLIENT] = "slow_client", [REJECT_LOADING] = "loading",
    [REJECT_DRAINING] = "draining",       [REJECT_MALFORMED] = "malformed",
    [REJECT_UNAUTHORIZED] = "unauthorized", [REJECT_CONNECTIONS] = "connections",
};

static const struct duration_kind {
    const char *name, *help;
} duration_kinds[DURATION_COUNT] = {
    [DURATION_REQUEST] = {"vitd_request_duration_seconds", "From the request line to the last byte of the reply."},
    [DURATION_QUEUE] = {"vitd_queue_duration_seconds", "Time an image waited for a worker, over both stages."},
    [DURATION_PREPROCESS] = {"vitd_preprocess_duration_seconds", "Decoding, resizing and normalising one image."},
    [DURATION_INFERENCE] = {"vitd_inference_duration_seconds", "One forward pass of a batch."},
    [DURATION_TEXT] = {"vitd_text_duration_seconds", "One forward pass of texts."},
};

static const double duration_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                         0.1,    0.25,  0.5,    1,     2.5,  5,     10};
static const double batch_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128};
enum {
    DURATION_BUCKETS = sizeof duration_bounds / sizeof duration_bounds[0],
    BATCH_BUCKETS = sizeof batch_bounds / sizeof batch_bounds[0]
};

struct histogram {
    atomic_uint_fast64_t buckets[MAX_BUCKETS]; /* not cumulative; the last used one is +Inf */
    atomic_uint_fast64_t sum;                  /* nanoseconds, or images */
};

struct sum {
    atomic_uint_fast64_t count, nanoseconds;
};

struct model_metrics {
    _Atomic(struct model_metrics *) next;
    char *name;
    char *info; /* NULL: not loaded */
    atomic_uint_fast64_t images, texts, cache_hits, cache_misses;
    atomic_uint_fast64_t requests[MAX_ROUTES][CODE_COUNT];
    struct histogram batch, durations[DURATION_COUNT];
    struct sum succeeded, failed, batches[METRICS_MAX_BATCH + 1];
    atomic_int_fast64_t last_inference_ms;
};

struct metrics {
    double start_time;
    _Atomic(const char *) routes[MAX_ROUTES];
    atomic_uint_fast64_t rejected[REJECT_COUNT];
    atomic_int inflight;
    pthread_mutex_t mutex;
    struct model_metrics none; /* and the head of the list */
};

static void add(atomic_uint_fast64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static uint64_t value_of(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- life ---- */

/* Seconds since the epoch at which this process started; field 22 of /proc/self/stat counts from boot. */
static double process_start_time(void)
{
    struct timespec now, since_boot;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    double seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    char text[1024] = "";
    FILE *file = fopen("/proc/self/stat", "re");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[length] = '\0';
    const char *field = strrchr(text, ')'); /* the name before it may hold anything */
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    if (!field)
        return seconds;
    double ticks = strtod(field, NULL) / (double)sysconf(_SC_CLK_TCK);
    return seconds - ((double)since_boot.tv_sec + (double)since_boot.tv_nsec / 1e9 - ticks);
}

struct metrics *metrics_create(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics)
        return NULL;
    metrics->start_time = process_start_time();
    metrics->none.name = "";
    pthread_mutex_init(&metrics->mutex, NULL);
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    for (struct model_metrics *model = metrics->none.next, *next; model; model = next) {
        next = model->next;
        free(model->name);
        free(model->info);
        free(model);
    }
    pthread_mutex_destroy(&metrics->mutex);
    free(metrics);
}

static struct model_metrics *next_of(const struct model_metrics *model)
{
    return atomic_load_explicit(&model->next, memory_order_acquire);
}

struct model_metrics *metrics_model(struct metrics *metrics, const char *id)
{
    pthread_mutex_lock(&metrics->mutex);
    struct model_metrics *last = &metrics->none, *found = next_of(last);
    while (found && strcmp(found->name, id) != 0) {
        last = found;
        found = next_of(found);
    }
    if (!found && (found = calloc(1, sizeof *found)) != NULL && (found->name = strdup(id)) == NULL) {
        free(found);
        found = NULL;
    }
    if (found && found != next_of(last))
        atomic_store_explicit(&last->next, found, memory_order_release);
    pthread_mutex_unlock(&metrics->mutex);
    return found;
}

void metrics_set_model_info(struct metrics *metrics, struct model_metrics *model, const char *labels)
{
    char *copy = labels ? strdup(labels) : NULL;
    pthread_mutex_lock(&metrics->mutex);
    free(model->info);
    model->info = copy;
    pthread_mutex_unlock(&metrics->mutex);
}

/* ---- updates ---- */

/* The row of a route, added when it is new; the table is never full unless there are more than 64 routes. */
static size_t route_index(struct metrics *metrics, const char *route)
{
    for (size_t i = 0; i < MAX_ROUTES; i++) {
        const char *known = atomic_load_explicit(&metrics->routes[i], memory_order_acquire);
        if (!known && atomic_compare_exchange_strong(&metrics->routes[i], &known, route))
            return i;
        if (known && strcmp(known, route) == 0)
            return i;
    }
    return MAX_ROUTES - 1;
}

void metrics_images(struct model_metrics *model, size_t images)
{
    add(&model->images, images);
}

static void add_to_sum(struct sum *sum, double seconds)
{
    add(&sum->count, 1);
    add(&sum->nanoseconds, (uint64_t)(seconds * 1e9));
}

static struct metrics_sum read_sum(const struct sum *sum)
{
    return (struct metrics_sum){value_of(&sum->count), (double)value_of(&sum->nanoseconds) / 1e9};
}

void metrics_cache(struct model_metrics *model, bool hit)
{
    add(hit ? &model->cache_hits : &model->cache_misses, 1);
}

void metrics_rejected(struct metrics *metrics, enum metrics_reject reason)
{
    add(&metrics->rejected[reason], 1);
}

static void observe(struct histogram *histogram, const double *bounds, size_t count, double value)
{
    size_t bucket = 0;
    while (bucket < count && value > bounds[bucket])
        bucket++;
    add(&histogram->buckets[bucket], 1);
}

void metrics_texts(struct metrics *metrics, struct model_metrics *model, size_t texts, double seconds)
{
    add(&model->texts, texts);
    metrics_duration(metrics, DURATION_TEXT, model, seconds);
}

void metrics_batch(struct model_metrics *model, size_t batch_size, double seconds)
{
    struct sum *sum = &model->batches[batch_size < METRICS_MAX_BATCH ? batch_size : METRICS_MAX_BATCH];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    observe(&model->batch, batch_bounds, BATCH_BUCKETS, (double)batch_size);
    add(&model->batch.sum, batch_size);
    add_to_sum(sum, seconds);
    atomic_store_explicit(&model->last_inference_ms, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
                          memory_order_relaxed);
}

void metrics_duration(struct metrics *metrics, enum metrics_duration which, struct model_metrics *model, double seconds)
{
    if (seconds < 0)
        seconds = 0;
    struct histogram *histogram = &(model ? model : &metrics->none)->durations[which];
    observe(histogram, duration_bounds, DURATION_BUCKETS, seconds);
    add(&histogram->sum, (uint64_t)(seconds * 1e9));
}

void metrics_request(struct metrics *metrics, const char *route, struct model_metrics *model, int code, double seconds)
{
    size_t row = 0;
    struct model_metrics *counted = model ? model : &metrics->none;
    while (row < CODE_COUNT - 1 && codes[row] != code)
        row++;
    add(&counted->requests[route_index(metrics, route)][row], 1);
    metrics_duration(metrics, DURATION_REQUEST, model, seconds);
}

void metrics_inference(struct model_metrics *model, bool succeeded, double seconds)
{
    add_to_sum(succeeded ? &model->succeeded : &model->failed, seconds);
}

void metrics_inflight(struct metrics *metrics, int change)
{
    atomic_fetch_add_explicit(&metrics->inflight, change, memory_order_relaxed);
}

/* ---- rendering ---- */

static void describe(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value with what the exposition format escapes. */
static void put_label(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '\\' || *text == '"')
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void put_model_label(FILE *out, const struct model_metrics *model)
{
    fputs("model=\"", out);
    put_label(out, model->name);
    fputc('"', out);
}

static void put_requests_of(FILE *out, const char *route, const struct model_metrics *model, size_t index)
{
    for (size_t row = 0; row < CODE_COUNT; row++) {
        const uint64_t count = value_of(&model->requests[index][row]);
        if (!count)
            continue;
        fputs("vitd_requests_total{route=\"", out);
        put_label(out, route);
        fputs("\",", out);
        put_model_label(out, model);
        if (codes[row])
            fprintf(out, ",code=\"%d\"} %llu\n", codes[row], (unsigned long long)count);
        else
            fprintf(out, ",code=\"other\"} %llu\n", (unsigned long long)count);
    }
}

static void put_requests(FILE *out, const struct metrics *metrics)
{
    describe(out, "vitd_requests_total", "counter", "Requests by route, model and status code (499: client left).");
    for (size_t i = 0; i < MAX_ROUTES; i++) {
        const char *route = atomic_load_explicit(&metrics->routes[i], memory_order_acquire);
        for (const struct model_metrics *model = &metrics->none; route && model; model = next_of(model))
            put_requests_of(out, route, model, i);
    }
}

static void put_histogram(FILE *out, const char *name, const struct model_metrics *model,
                          const struct histogram *histogram, const double *bounds, size_t count, double unit)
{
    uint64_t total = 0;
    for (size_t i = 0; i <= count; i++) {
        total += value_of(&histogram->buckets[i]);
        fprintf(out, "%s_bucket{", name);
        put_model_label(out, model);
        if (i < count)
            fprintf(out, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)total);
        else
            fprintf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)total);
    }
    fprintf(out, "%s_sum{", name);
    put_model_label(out, model);
    fprintf(out, "} %.9g\n%s_count{", (double)value_of(&histogram->sum) * unit, name);
    put_model_label(out, model);
    fprintf(out, "} %llu\n", (unsigned long long)total);
}

/* A counter that every model has. */
static void put_counter(FILE *out, const struct metrics *metrics, const char *name, const char *help, size_t offset)
{
    describe(out, name, "counter", help);
    for (const struct model_metrics *model = next_of(&metrics->none); model; model = next_of(model)) {
        fprintf(out, "%s{", name);
        put_model_label(out, model);
        fprintf(out, "} %llu\n",
                (unsigned long long)value_of((const void *)((const char *)model + offset)));
    }
}

static void put_model_info(FILE *out, struct metrics *metrics)
{
    describe(out, "vitd_model_info", "gauge", "The models in memory.");
    pthread_mutex_lock(&metrics->mutex);
    for (const struct model_metrics *model = next_of(&metrics->none); model; model = next_of(model)) {
        if (!model->info)
            continue;
        fputs("vitd_model_info{", out);
        put_model_label(out, model);
        fprintf(out, "%s%s} 1\n", *model->info ? "," : "", model->info);
    }
    pthread_mutex_unlock(&metrics->mutex);
}

static void put_models(FILE *out, struct metrics *metrics)
{
    put_counter(out, metrics, "vitd_images_total", "Images that were run through a model.",
                offsetof(struct model_metrics, images));
    put_counter(out, metrics, "vitd_texts_total", "Texts that a model's text tower embedded.",
                offsetof(struct model_metrics, texts));
    put_counter(out, metrics, "vitd_cache_hits_total", "Requests answered from the result cache.",
                offsetof(struct model_metrics, cache_hits));
    put_counter(out, metrics, "vitd_cache_misses_total", "Requests that the result cache could not answer.",
                offsetof(struct model_metrics, cache_misses));
    describe(out, "vitd_batch_size", "histogram", "Images per forward pass.");
    for (const struct model_metrics *model = next_of(&metrics->none); model; model = next_of(model))
        put_histogram(out, "vitd_batch_size", model, &model->batch, batch_bounds, BATCH_BUCKETS, 1);
    for (size_t which = 0; which < DURATION_COUNT; which++) {
        describe(out, duration_kinds[which].name, "histogram", duration_kinds[which].help);
        const struct model_metrics *first = which == DURATION_REQUEST ? &metrics->none : next_of(&metrics->none);
        for (const struct model_metrics *model = first; model; model = next_of(model))
            put_histogram(out, duration_kinds[which].name, model, &model->durations[which], duration_bounds,
                          DURATION_BUCKETS, 1e-9);
    }
    put_model_info(out, metrics);
}

static void put_build(FILE *out)
{
    describe(out, "vitd_build_info", "gauge", "The version and the kernels in use.");
    fputs("vitd_build_info{version=\"" VITD_VERSION "\",blas_core=\"", out);
    put_label(out, vit_blas_core());
    fputs("\",kernels=\"", out);
    put_label(out, vit_kernels_name());
    fputs("\"} 1\n", out);
}

static size_t count_open_fds(void)
{
    size_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return 0;
    for (const struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count ? count - 1 : 0; /* not the directory's own */
}

static void put_gauge(FILE *out, const char *name, const char *type, const char *help, double value)
{
    describe(out, name, type, help);
    fprintf(out, "%s %.16g\n", name, value);
}

static void put_process(FILE *out, const struct metrics *metrics)
{
    unsigned long virtual_pages = 0, resident_pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%lu %lu", &virtual_pages, &resident_pages) != 2)
            virtual_pages = resident_pages = 0;
        fclose(file);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    double page = (double)sysconf(_SC_PAGESIZE);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    put_gauge(out, "process_cpu_seconds_total", "counter", "User and system CPU time in seconds.", cpu);
    put_gauge(out, "process_resident_memory_bytes", "gauge", "Resident memory in bytes.",
              (double)resident_pages * page);
    put_gauge(out, "process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", (double)virtual_pages * page);
    put_gauge(out, "process_open_fds", "gauge", "Open file descriptors.", (double)count_open_fds());
    put_gauge(out, "process_max_fds", "gauge", "Largest number of open file descriptors.", (double)files.rlim_cur);
    put_gauge(out, "process_start_time_seconds", "gauge", "Start of the process, in seconds since the epoch.",
              metrics->start_time);
}

static void put_gauges(FILE *out, const struct metrics *metrics, const struct metrics_gauges *gauges)
{
    put_gauge(out, "vitd_connections", "gauge", "Open connections.", (double)gauges->connections);
    put_gauge(out, "vitd_queue_depth", "gauge", "Images waiting for a worker.", (double)gauges->queue_depth);
    put_gauge(out, "vitd_queue_bytes", "gauge", "Bytes of uploads being read or waiting.", (double)gauges->queue_bytes);
    put_gauge(out, "vitd_models_bytes", "gauge", "Memory of the models that are loaded.", (double)gauges->models_bytes);
    put_gauge(out, "vitd_cache_entries", "gauge", "Replies in the result cache.", (double)gauges->cache_entries);
    put_gauge(out, "vitd_cache_bytes", "gauge", "Memory of the result cache.", (double)gauges->cache_bytes);
    const struct mallinfo2 heap = mallinfo2();
    put_gauge(out, "vitd_heap_bytes", "gauge", "Memory in use: what is resident has what malloc keeps for later, too.",
              (double)heap.uordblks + (double)heap.hblkhd);
    put_gauge(out, "vitd_inflight_requests", "gauge", "Requests being read, served or answered.",
              (double)atomic_load_explicit(&metrics->inflight, memory_order_relaxed));
}

char *metrics_render(struct metrics *metrics, const struct metrics_gauges *gauges, size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (!out)
        return NULL;
    put_requests(out, metrics);
    put_models(out, metrics);
    describe(out, "vitd_rejected_total", "counter", "Requests refused or dropped, by reason.");
    for (size_t i = 0; i < REJECT_COUNT; i++)
        fprintf(out, "vitd_rejected_total{reason=\"%s\"} %llu\n", reject_names[i],
                (unsigned long long)value_of(&metrics->rejected[i]));
    put_gauges(out, metrics, gauges);
    put_build(out);
    put_process(out, metrics);
    if (ferror(out) | fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- reading ---- */

static struct metrics_sum sum_of(const struct histogram *histogram)
{
    struct metrics_sum sum = {.seconds = (double)value_of(&histogram->sum) / 1e9};
    for (size_t i = 0; i < MAX_BUCKETS; i++)
        sum.count += value_of(&histogram->buckets[i]);
    return sum;
}

uint64_t metrics_total_images(const struct metrics *metrics)
{
    uint64_t images = 0;
    for (const struct model_metrics *model = next_of(&metrics->none); model; model = next_of(model))
        images += value_of(&model->images);
    return images;
}

void metrics_read(const struct model_metrics *model, struct metrics_counts *counts)
{
    *counts = (struct metrics_counts){
        .succeeded = read_sum(&model->succeeded),
        .failed = read_sum(&model->failed),
        .images = value_of(&model->images),
        .cache_hits = value_of(&model->cache_hits),
        .cache_misses = value_of(&model->cache_misses),
        .last_inference_ms = atomic_load_explicit(&model->last_inference_ms, memory_order_relaxed),
    };
    for (size_t i = 0; i < DURATION_COUNT; i++)
        counts->durations[i] = sum_of(&model->durations[i]);
    for (size_t i = 0; i <= METRICS_MAX_BATCH; i++)
        counts->batches[i] = read_sum(&model->batches[i]);
}

/*
 * bench.c - `vitd bench`: how fast the engine is on this machine, beside OpenBLAS's products alone and the peak.
 *
 * Floor and forward passes alternate, and a figure is the median of its runs, since machines are noisy. With several
 * threads each has a session of its own and all run at the same time, as the daemon's workers do.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/bench.h"
#include "server/cli.h"
#include "server/commands.h"
#include "vit.h"

enum { MIN_RUNS = 5, MAX_RUNS = 200 };
static const double run_seconds = 1.5; /* per figure */

struct bench {
    const struct cli *cli;
    vit_model *model;
    const vit_model_info *info;
    uint8_t *image; /* encoded, or NULL */
    size_t image_length;
    double peak_flops; /* of one thread */
};

/* What one thread measures. */
struct task {
    const struct bench *bench;
    pthread_t thread;
    size_t batch;
    bool whole; /* decode and preprocess each image too */
    pthread_barrier_t *start;
    double forward, floor, flops; /* median seconds per batch; per batch */
    vit_status status;
    vit_error err;
};

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static vit_status prepare_image(const struct task *task, float *pixels, vit_error *err)
{
    const struct bench *bench = task->bench;
    vit_image image = {0};
    const struct config *config = &bench->cli->config;
    vit_status status =
        vit_preprocess_decode(config->models[0].draft ? bench->info->preprocess : NULL, &image, bench->image,
                              bench->image_length, (size_t)config->limits.max_pixels, err);
    if (status == VIT_OK)
        status = vit_preprocess_apply(bench->info->preprocess, &image, pixels, err);
    vit_image_release(&image);
    return status;
}

/* One timed pass over a batch. */
static vit_status run_once(struct task *task, vit_session *session, const vit_item *items, float *pixels,
                           double *seconds)
{
    const size_t floats = 3 * task->bench->info->image_height * task->bench->info->image_width;
    const double start = bench_now();
    vit_status status = VIT_OK;
    for (size_t i = 0; task->whole && i < task->batch && status == VIT_OK; i++)
        status = prepare_image(task, pixels + i * floats, &task->err);
    if (status == VIT_OK)
        status = vit_session_run(session, items, task->batch, &task->err);
    *seconds = bench_now() - start;
    return status;
}

static vit_status measure(struct task *task, vit_session *session, const vit_item *items, float *pixels)
{
    double forward[MAX_RUNS], floor[MAX_RUNS];
    vit_status status = run_once(task, session, items, pixels, &forward[0]); /* warm-up */
    pthread_barrier_wait(task->start);
    const double end = bench_now() + run_seconds;
    size_t runs = 0;
    while (status == VIT_OK && runs < MAX_RUNS && (runs < MIN_RUNS || bench_now() < end)) {
        status = run_once(task, session, items, pixels, &forward[runs]);
        if (status == VIT_OK && !task->whole)
            status = vit_session_gemm_floor(session, task->batch, &task->flops, &floor[runs], &task->err);
        runs++;
    }
    if (status == VIT_OK) {
        task->forward = bench_median(forward, runs);
        task->floor = task->whole ? 0 : bench_median(floor, runs);
    }
    return status;
}

static void *task_main(void *argument)
{
    struct task *task = argument;
    const vit_model_info *info = task->bench->info;
    const size_t floats = 3 * info->image_height * info->image_width;
    vit_session *session = NULL;
    float *pixels = calloc(task->batch * floats, sizeof *pixels);
    float *logits = calloc(task->batch * info->classes, sizeof *logits);
    vit_item *items = calloc(task->batch, sizeof *items);
    task->status = VIT_ERR_NO_MEMORY;
    snprintf(task->err.message, sizeof task->err.message, "out of memory");
    if (pixels != NULL && logits != NULL && items != NULL)
        task->status = vit_session_create(&session, task->bench->model, task->batch, &task->err);
    for (size_t i = 0; items != NULL && i < task->batch; i++)
        items[i] = (vit_item){.pixels = pixels + i * floats, .logits = logits + i * info->classes};
    if (task->status == VIT_OK)
        task->status = measure(task, session, items, pixels);
    else
        pthread_barrier_wait(task->start);
    vit_session_free(session);
    free(pixels);
    free(logits);
    free(items);
    return NULL;
}

/* Runs `threads` tasks at once; *mean holds their mean figures. */
static bool run_tasks(const struct bench *bench, size_t threads, size_t batch, bool whole, struct task *mean)
{
    struct task *tasks = calloc(threads, sizeof *tasks);
    pthread_barrier_t start;
    if (tasks == NULL || pthread_barrier_init(&start, NULL, (unsigned)threads) != 0) {
        free(tasks);
        fputs("vitd: out of memory\n", stderr);
        return false;
    }
    for (size_t i = 0; i < threads; i++) {
        tasks[i] = (struct task){.bench = bench, .batch = batch, .whole = whole, .start = &start};
        if (pthread_create(&tasks[i].thread, NULL, task_main, &tasks[i]) != 0) {
            fputs("vitd: cannot start a thread\n", stderr);
            exit(EXIT_RUNTIME); /* the others wait at the barrier */
        }
    }
    *mean = (struct task){.status = VIT_OK};
    for (size_t i = 0; i < threads; i++) {
        pthread_join(tasks[i].thread, NULL);
        if (tasks[i].status != VIT_OK)
            *mean = tasks[i];
        mean->forward += tasks[i].forward / (double)threads;
        mean->floor += tasks[i].floor / (double)threads;
        mean->flops = tasks[i].flops;
    }
    pthread_barrier_destroy(&start);
    free(tasks);
    if (mean->status != VIT_OK)
        fprintf(stderr, "vitd: %s\n", mean->err.message);
    return mean->status == VIT_OK;
}

static bool print_row(const struct bench *bench, size_t threads, size_t batch)
{
    struct task mean;
    if (!run_tasks(bench, threads, batch, false, &mean))
        return false;
    const double images = (double)(threads * batch);
    const double rate = (double)threads * mean.flops / mean.forward;
    printf("%7zu %6zu %12.2f %12.2f %10.1f %9.1f %8.1f%% %11.1f%%\n", threads, batch, 1e3 * mean.forward / images,
           1e3 * mean.floor / images, images / mean.forward, rate / 1e9, 100 * rate / (double)threads / bench->peak_flops,
           100 * mean.floor / mean.forward);
    return true;
}

static bool print_whole(const struct bench *bench, size_t threads, size_t batch)
{
    struct task mean;
    if (!run_tasks(bench, threads, batch, true, &mean))
        return false;
    printf("decode + preprocess + forward of %s, back to back, %zu thread%s: %.1f images/s\n", bench->cli->image, threads,
           threads > 1 ? "s" : "", (double)(threads * batch) / mean.forward);
    return true;
}

static void print_header(const struct bench *bench)
{
    char line[256], cpu[128] = "unknown CPU";
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "model name : %127[^\n]", cpu) == 1)
            break;
    if (file != NULL)
        fclose(file);
    printf("%s, OpenBLAS kernels %s, vitd kernels %s\n", cpu, vit_blas_core(), vit_kernels_name());
    printf("%s: %zux%zu, %zu layers, width %zu, %s\n", bench->cli->config.models[0].name, bench->info->image_width,
           bench->info->image_height, bench->info->layers, bench->info->width, bench->info->dtype);
    printf("peak of one thread: %.1f GFLOP/s in multiply-adds, %.1f GB/s from memory\n\n", bench->peak_flops / 1e9,
           vit_peak_bandwidth() / 1e9);
    if (vit_blas_better_core() != NULL && getenv("OPENBLAS_CORETYPE") != NULL)
        printf("OPENBLAS_CORETYPE holds OpenBLAS back: %s is faster here; unset it\n\n", vit_blas_better_core());
    else if (vit_blas_better_core() != NULL)
        printf("OpenBLAS does not know this CPU: OPENBLAS_CORETYPE=%s makes it faster\n\n", vit_blas_better_core());
}

static bool read_image(struct bench *bench, const char *name)
{
    FILE *file = fopen(name, "rbe");
    long length = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0)
        bench->image = malloc((size_t)length + 1);
    if (bench->image != NULL)
        bench->image_length = fread(bench->image, 1, (size_t)length, file);
    if (file != NULL)
        fclose(file);
    if (bench->image == NULL)
        fprintf(stderr, "vitd: %s cannot be read\n", name);
    return bench->image != NULL;
}

static bool run_bench(const struct bench *bench)
{
    const struct config *config = &bench->cli->config;
    const size_t all = (size_t)(config->threads > 0 ? config->threads : config_cpu_count());
    const size_t max_batch = (size_t)config->batching.max_batch_size;
    const size_t threads[] = {1, all}, batches[] = {1, max_batch};
    print_header(bench);
    printf("threads  batch  ms per image   GEMMs alone   images/s   GFLOP/s  of peak  floor/forward\n");
    bool good = true;
    for (size_t t = 0; t < (all > 1 ? 2 : 1); t++)
        for (size_t b = 0; b < (max_batch > 1 ? 2 : 1) && good; b++)
            good = print_row(bench, threads[t], batches[b]);
    if (good)
        good = bench_explanations(bench->model);
    if (good && bench->image != NULL) {
        puts("");
        for (size_t t = 0; t < (all > 1 ? 2 : 1) && good; t++)
            good = print_whole(bench, threads[t], 1);
    }
    return good;
}

int command_bench(const struct cli *cli)
{
    struct bench bench = {.cli = cli};
    vit_error err = {""};
    const vit_options options = {.image_size = (size_t)cli->config.models[0].image_size};
    bool good = vit_model_open(&bench.model, cli->config.models[0].path, &options, &err) == VIT_OK;
    if (!good)
        fprintf(stderr, "vitd: %s\n", err.message);
    if (good && cli->image != NULL)
        good = read_image(&bench, cli->image);
    if (good) {
        bench.info = vit_model_describe(bench.model);
        bench.peak_flops = vit_peak_flops();
        good = run_bench(&bench);
    }
    free(bench.image);
    vit_model_free(bench.model);
    return good ? EXIT_SUCCESS : EXIT_RUNTIME;
}

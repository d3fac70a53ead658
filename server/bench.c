/*
 * bench.c - `vitd bench`: how fast the engine is on this machine, in each arithmetic that its CPU has instructions for,
 * beside the most that the machine can do. A table for people, and with --json a file for programs.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/bench.h"
#include "server/cli.h"
#include "server/commands.h"
#include "server/work/model.h"

enum { DTYPES = VIT_DTYPE_INT8 + 1 };

struct bench {
    const struct cli *cli;
    const struct config_model *configured;
    vit_model *model; /* in the dtype that is measured now */
    uint8_t *image;   /* encoded, or NULL */
    size_t image_length;
    double peaks[DTYPES]; /* operations per second of one thread */
    double flops;         /* of one image */
    cJSON *json;
};

static const vit_model_info *info_of(const struct bench *bench)
{
    return vit_model_describe(bench->model);
}

/* ---- the machine ---- */

static const char *cpu_name(void)
{
    static char name[128] = "unknown CPU";
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "model name : %127[^\n]", name) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return name;
}

/* Resident memory of this process in MB, 0 where /proc does not tell. */
static double resident_mb(void)
{
    char line[128];
    double kb = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && sscanf(line, "VmRSS: %lf", &kb) != 1)
        ;
    if (file != NULL)
        fclose(file);
    return kb / 1024;
}

static void measure_machine(struct bench *bench)
{
    cJSON *peaks = cJSON_AddObjectToObject(bench->json, "peak_gflops");
    const double bandwidth = vit_peak_bandwidth();
    cJSON_AddStringToObject(bench->json, "cpu", cpu_name());
    cJSON_AddStringToObject(bench->json, "kernels", vit_kernels_name());
    cJSON_AddStringToObject(bench->json, "blas_core", vit_blas_core());
    cJSON_AddNumberToObject(bench->json, "memory_gb_per_second", bandwidth / 1e9);
    printf("%s, vitd kernels %s, OpenBLAS kernels %s\npeak of one thread, GFLOP/s in multiply-adds:", cpu_name(),
           vit_kernels_name(), vit_blas_core());
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        bench->peaks[dtype] = vit_peak_flops((vit_dtype)dtype);
        cJSON_AddNumberToObject(peaks, vit_dtype_name((vit_dtype)dtype), bench->peaks[dtype] / 1e9);
        printf(" %s %.1f%s", vit_dtype_name((vit_dtype)dtype), bench->peaks[dtype] / 1e9, dtype < DTYPES - 1 ? "," : "; ");
    }
    printf("%.1f GB/s from memory\n", bandwidth / 1e9);
    if (vit_blas_better_core() != NULL && getenv("OPENBLAS_CORETYPE") != NULL)
        printf("OPENBLAS_CORETYPE holds OpenBLAS back: %s is faster here; unset it\n", vit_blas_better_core());
    else if (vit_blas_better_core() != NULL)
        printf("OpenBLAS does not know this CPU: OPENBLAS_CORETYPE=%s makes it faster\n", vit_blas_better_core());
}

/* ---- one model in one dtype ---- */

static bool measure_way(const struct bench *bench, cJSON *runs, vit_dtype dtype, size_t threads, size_t batch, bool together)
{
    const struct bench_way way = {.threads = threads, .batch = batch, .together = together};
    double seconds;
    if (!bench_run(bench->model, &way, &seconds))
        return false;
    const double images = (double)(together ? batch : threads * batch), rate = bench->flops * images / seconds;
    const double share = rate / (double)threads / bench->peaks[dtype];
    printf("%-6s %7zu %6zu %-9s %12.2f %10.1f %9.1f %8.1f%%\n", vit_dtype_name(dtype), threads, batch,
           threads == 1 ? "" : together ? "together" : "each", 1e3 * seconds / images, images / seconds, rate / 1e9,
           100 * share);
    cJSON *run = cJSON_CreateObject();
    cJSON_AddNumberToObject(run, "threads", (double)threads);
    cJSON_AddNumberToObject(run, "batch", (double)batch);
    cJSON_AddBoolToObject(run, "together", together);
    cJSON_AddNumberToObject(run, "ms_per_image", 1e3 * seconds / images);
    cJSON_AddNumberToObject(run, "images_per_second", images / seconds);
    cJSON_AddNumberToObject(run, "gflops", rate / 1e9);
    cJSON_AddNumberToObject(run, "of_peak", share);
    cJSON_AddItemToArray(runs, run);
    return true;
}

static bool measure_stages(struct bench *bench, cJSON *json)
{
    double seconds[VIT_STAGE_COUNT], whole = 0;
    if (!bench_profile(bench->model, NULL, &bench->flops, seconds))
        return false;
    cJSON *stages = cJSON_AddObjectToObject(json, "stages_ms");
    for (int stage = 0; stage < VIT_STAGE_COUNT; stage++) {
        whole += seconds[stage];
        cJSON_AddNumberToObject(stages, vit_stage_name((vit_stage)stage), 1e3 * seconds[stage]);
    }
    printf("%-6s ms in", info_of(bench)->dtype);
    for (int stage = 0; stage < VIT_STAGE_COUNT; stage++)
        printf(" %s %.2f (%.0f %%)%s", vit_stage_name((vit_stage)stage), 1e3 * seconds[stage], 100 * seconds[stage] / whole,
               stage < VIT_STAGE_COUNT - 1 ? "," : "\n");
    return true;
}

static size_t thread_count(const struct bench *bench)
{
    const struct config *config = &bench->cli->config;
    return (size_t)(config->threads > 0 ? config->threads : config_cpu_count());
}

static bool measure_speeds(struct bench *bench, cJSON *json, vit_dtype dtype)
{
    const struct config *config = &bench->cli->config;
    const size_t all = thread_count(bench);
    const size_t batch = (size_t)config->batching.max_batch_size;
    cJSON *runs = cJSON_AddArrayToObject(json, "runs");
    bool good = measure_way(bench, runs, dtype, 1, 1, false);
    if (good && batch > 1)
        good = measure_way(bench, runs, dtype, 1, batch, false);
    if (good && all > 1)
        good = measure_way(bench, runs, dtype, all, 1, true) && measure_way(bench, runs, dtype, all, 1, false);
    if (good && all > 1 && batch > 1)
        good = measure_way(bench, runs, dtype, all, batch, false);
    return good;
}

static bool measure_uploads(const struct bench *bench, cJSON *json)
{
    const struct config *config = &bench->cli->config;
    const struct bench_image image = {bench->image, bench->image_length, (size_t)config->limits.max_pixels,
                                      bench->configured->draft};
    const size_t all = thread_count(bench);
    cJSON *uploads = cJSON_AddArrayToObject(json, "decode_and_forward");
    for (size_t threads = 1; bench->image != NULL && threads <= all; threads += all > 1 ? all - 1 : 1) {
        const struct bench_way way = {.threads = threads, .batch = 1, .image = &image};
        double seconds;
        if (!bench_run(bench->model, &way, &seconds))
            return false;
        printf("%-6s decode + preprocess + forward of %s, back to back, %zu thread%s: %.1f images/s\n", info_of(bench)->dtype,
               bench->cli->image, threads, threads > 1 ? "s" : "", (double)threads / seconds);
        cJSON *run = cJSON_CreateObject();
        cJSON_AddNumberToObject(run, "threads", (double)threads);
        cJSON_AddNumberToObject(run, "images_per_second", (double)threads / seconds);
        cJSON_AddItemToArray(uploads, run);
    }
    return true;
}

static bool open_model(struct bench *bench, vit_dtype dtype, cJSON *json)
{
    const struct config_model *configured = bench->configured;
    vit_options options = model_options(configured);
    vit_error err = {""};
    malloc_trim(0); /* what an earlier model left behind */
    const double start = bench_now(), before = resident_mb();
    options.dtype = dtype;
    if (vit_model_open(&bench->model, configured->path, &options, &err) != VIT_OK) {
        fprintf(stderr, "vitd: %s\n", err.message);
        return false;
    }
    const double seconds = bench_now() - start, grown = resident_mb() - before;
    printf("\n%s in %s: %zux%zu, %zu layers, width %zu; opened in %.2f s, %.1f MB resident\n", configured->name,
           vit_dtype_name(dtype), info_of(bench)->image_width, info_of(bench)->image_height, info_of(bench)->layers,
           info_of(bench)->width, seconds, grown);
    cJSON_AddNumberToObject(json, "open_seconds", seconds);
    cJSON_AddNumberToObject(json, "resident_mb", grown);
    return true;
}

static bool measure_dtype(struct bench *bench, vit_dtype dtype, cJSON *dtypes)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToArray(dtypes, json);
    cJSON_AddStringToObject(json, "dtype", vit_dtype_name(dtype));
    bool good = open_model(bench, dtype, json) && measure_stages(bench, json);
    if (good) {
        cJSON_AddNumberToObject(json, "gflop_per_image", bench->flops / 1e9);
        puts("dtype  threads  batch           ms per image   images/s   GFLOP/s  of peak");
        good = measure_speeds(bench, json, dtype) && measure_uploads(bench, json);
    }
    if (good && info_of(bench)->text)
        good = bench_text_tower(bench->model, thread_count(bench), bench->peaks[dtype], json);
    if (good && dtype == VIT_DTYPE_FP32 && !bench->cli->dtype_given)
        good = bench_explanations(bench->model, json);
    vit_model_free(bench->model);
    bench->model = NULL;
    return good;
}

/* ---- the command ---- */

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

/* The dtype that was asked for, else fp32 and what this CPU has instructions for. */
static bool is_wanted(const struct bench *bench, vit_dtype dtype)
{
    if (bench->cli->dtype_given)
        return model_options(bench->configured).dtype == dtype;
    return dtype == VIT_DTYPE_FP32 || vit_dtype_is_fast(dtype);
}

static bool run_bench(struct bench *bench)
{
    cJSON *dtypes = cJSON_AddArrayToObject(bench->json, "dtypes");
    bool good = true;
    cJSON_AddStringToObject(bench->json, "model", bench->configured->name);
    measure_machine(bench);
    for (int dtype = 0; dtype < DTYPES && good; dtype++)
        if (is_wanted(bench, (vit_dtype)dtype))
            good = measure_dtype(bench, (vit_dtype)dtype, dtypes);
    return good;
}

static bool write_json(const cJSON *json, FILE *file)
{
    char *text = cJSON_Print(json);
    const bool good = text != NULL && fprintf(file, "%s\n", text) > 0 && fflush(file) == 0;
    free(text);
    return good;
}

int command_bench(const struct cli *cli)
{
    struct bench bench = {.cli = cli, .configured = config_default_model(&cli->config), .json = cJSON_CreateObject()};
    FILE *file = cli->json != NULL ? fopen(cli->json, "we") : NULL; /* rather than after minutes of measuring */
    bool good = (cli->json == NULL || file != NULL) && (cli->image == NULL || read_image(&bench, cli->image));
    if (cli->json != NULL && file == NULL)
        fprintf(stderr, "vitd: %s cannot be written: %s\n", cli->json, strerror(errno));
    if (good)
        good = run_bench(&bench);
    if (good && file != NULL && !write_json(bench.json, file)) {
        fprintf(stderr, "vitd: %s cannot be written\n", cli->json);
        good = false;
    }
    if (file != NULL)
        fclose(file);
    cJSON_Delete(bench.json);
    free(bench.image);
    return good ? EXIT_SUCCESS : EXIT_RUNTIME;
}

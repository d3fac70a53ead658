/*
 * bench_runs.c - timed forward passes of `vitd bench`.
 *
 * A figure is the median of its runs, since machines are noisy. With several threads each has a session of its own and all
 * run at the same time, as the daemon's workers do, or they are one session's team.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/bench.h"
#include "server/work/team.h"

enum { MIN_RUNS = 5, MAX_RUNS = 400, PROFILES = 7, TEXT_PROFILES = 2 };
static const double run_seconds = 1.5; /* per figure */

/* What one thread measures. */
struct task {
    const vit_model *model;
    const struct bench_way *way;
    pthread_t thread;
    pthread_barrier_t *start;
    struct team *team; /* NULL: alone */
    double seconds;    /* median, per batch */
    vit_status status;
    vit_error err;

    vit_session *session;
    float *pixels, *logits, *embeddings; /* [batch] of each, or embeddings of texts */
    vit_item *items;
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

/* ---- one thread ---- */

static size_t image_floats(const vit_model *model)
{
    const vit_model_info *info = vit_model_describe(model);
    return 3 * info->image_height * info->image_width;
}

static vit_status prepare_image(struct task *task, float *pixels)
{
    const struct bench_image *file = task->way->image;
    vit_image image = {0};
    const vit_preprocess *preprocess = vit_model_describe(task->model)->preprocess;
    vit_status status = vit_preprocess_decode(file->draft ? preprocess : NULL, &image, file->bytes, file->length,
                                              file->max_pixels, &task->err);
    if (status == VIT_OK)
        status = vit_preprocess_apply(preprocess, &image, pixels, &task->err);
    vit_image_release(&image);
    return status;
}

static vit_status run_once(struct task *task, double *seconds)
{
    const double start = bench_now();
    vit_status status = VIT_OK;
    for (size_t i = 0; task->way->image != NULL && i < task->way->batch && status == VIT_OK; i++)
        status = prepare_image(task, task->pixels + i * image_floats(task->model));
    if (status == VIT_OK && task->way->texts != NULL)
        status = vit_session_encode_texts(task->session, task->way->texts->texts, task->way->texts->count,
                                          task->embeddings, NULL, &task->err);
    else if (status == VIT_OK)
        status = vit_session_run(task->session, task->items, task->way->batch, &task->err);
    *seconds = bench_now() - start;
    return status;
}

static vit_status measure(struct task *task)
{
    double seconds[MAX_RUNS];
    vit_status status = run_once(task, &seconds[0]); /* warm-up */
    pthread_barrier_wait(task->start);
    const double end = bench_now() + run_seconds;
    size_t runs = 0;
    while (status == VIT_OK && runs < MAX_RUNS && (runs < MIN_RUNS || bench_now() < end))
        status = run_once(task, &seconds[runs++]);
    if (status == VIT_OK)
        task->seconds = bench_median(seconds, runs);
    return status;
}

static vit_status prepare(struct task *task)
{
    const size_t floats = image_floats(task->model), classes = vit_model_describe(task->model)->classes;
    const size_t width = vit_model_describe(task->model)->embedding_width, batch = task->way->batch;
    const size_t embeddings = task->way->texts != NULL ? task->way->texts->count : batch;
    task->pixels = calloc(batch * floats, sizeof *task->pixels);
    task->logits = calloc(batch * classes + 1, sizeof *task->logits);
    task->embeddings = calloc(embeddings * width, sizeof *task->embeddings);
    task->items = calloc(batch, sizeof *task->items);
    if (task->pixels == NULL || task->logits == NULL || task->embeddings == NULL || task->items == NULL) {
        snprintf(task->err.message, sizeof task->err.message, "out of memory");
        return VIT_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < batch; i++)
        task->items[i] = (vit_item){.pixels = task->pixels + i * floats, .logits = task->logits + i * classes,
                                    .features = classes == 0 ? task->embeddings + i * width : NULL};
    return vit_session_create(&task->session, task->model, batch, &task->err);
}

static void *task_main(void *argument)
{
    struct task *task = argument;
    vit_team team;
    task->status = prepare(task);
    if (task->status == VIT_OK && task->team != NULL) {
        team_open(task->team, &team, vit_model_scratch(task->model));
        team.threads = task->way->threads;
        vit_session_set_team(task->session, &team);
    }
    if (task->status == VIT_OK)
        task->status = measure(task);
    else
        pthread_barrier_wait(task->start);
    if (task->team != NULL)
        team_close(task->team);
    vit_session_free(task->session);
    free(task->pixels);
    free(task->logits);
    free(task->embeddings);
    free(task->items);
    return NULL;
}

static void *helper_main(void *argument)
{
    struct task *task = argument;
    void *scratch = aligned_alloc(64, vit_model_scratch(task->model));
    pthread_barrier_wait(task->start); /* the team is open */
    if (scratch == NULL) {
        fputs("vitd: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    team_help(task->team, scratch, NULL, NULL);
    free(scratch);
    return NULL;
}

/* ---- all threads ---- */

/* Task 0 leads the team, if there is one; the others help it, or measure like it. */
static void run_threads(struct task *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const bool helps = tasks[i].team != NULL && i > 0;
        if (helps)
            team_join(tasks[i].team);
        if (pthread_create(&tasks[i].thread, NULL, helps ? helper_main : task_main, &tasks[i]) != 0) {
            fputs("vitd: cannot start a thread\n", stderr);
            exit(EXIT_FAILURE); /* the others wait at the barrier */
        }
    }
    for (size_t i = 0; i < count; i++)
        pthread_join(tasks[i].thread, NULL);
}

static bool collect(const struct task *tasks, size_t count, double *seconds)
{
    *seconds = 0;
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].status != VIT_OK) {
            fprintf(stderr, "vitd: %s\n", tasks[i].err.message);
            return false;
        }
        *seconds += tasks[i].seconds / (double)count;
    }
    return true;
}

bool bench_run(const vit_model *model, const struct bench_way *way, double *seconds)
{
    struct task *tasks = calloc(way->threads, sizeof *tasks);
    struct team *team = way->together ? team_create() : NULL;
    pthread_barrier_t start;
    bool good = tasks != NULL && (team != NULL || !way->together) &&
                pthread_barrier_init(&start, NULL, (unsigned)way->threads) == 0;
    if (!good) {
        fputs("vitd: out of memory\n", stderr);
    } else {
        for (size_t i = 0; i < way->threads; i++)
            tasks[i] = (struct task){.model = model, .way = way, .start = &start, .team = team};
        run_threads(tasks, way->threads);
        good = collect(tasks, way->together ? 1 : way->threads, seconds);
        pthread_barrier_destroy(&start);
    }
    team_free(team);
    free(tasks);
    return good;
}

bool bench_profile(const vit_model *model, const struct bench_texts *texts, double *flops,
                   double seconds[VIT_STAGE_COUNT])
{
    vit_session *session = NULL;
    vit_error err = {""};
    vit_status status = vit_session_create(&session, model, 1, &err);
    for (int i = 0; status == VIT_OK && i < (texts != NULL ? TEXT_PROFILES : PROFILES); i++) {
        double pass[VIT_STAGE_COUNT];
        status = texts != NULL ? vit_session_profile_texts(session, texts->texts, texts->count, flops, pass, &err)
                               : vit_session_profile(session, 1, flops, pass, &err);
        for (int stage = 0; status == VIT_OK && stage < VIT_STAGE_COUNT; stage++)
            if (i == 0 || pass[stage] < seconds[stage])
                seconds[stage] = pass[stage];
    }
    vit_session_free(session);
    if (status != VIT_OK)
        fprintf(stderr, "vitd: %s\n", err.message);
    return status == VIT_OK;
}

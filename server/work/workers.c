/*
 * workers.c - one pool runs both stages of an image, so that no core is idle while another has too much to do.
 *
 * Each thread owns one vit_session per model and scratch for one batch; images reach it through queue_take() only, and
 * while it holds one, nobody else touches it. A job's images may be with several threads at once: they share only the
 * two atomic counters of the job. Whoever brings `unfinished` to zero calls job->done and must not look at the job
 * again. Before each of the two stages an image whose deadline has passed or whose client has left is dropped.
 */
#include "server/work/workers.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"

struct worker {
    struct workers *pool;
    pthread_t thread;
    vit_session **sessions;    /* [models] */
    struct team *team;         /* this worker leads it */
    void *scratch;             /* for helping in others, whatever the model */
    struct queue_task task;    /* its images [max_batch] */
    vit_item *items;           /* [max_batch] */
};

struct workers {
    struct workers_setup setup;
    size_t started;            /* threads to join */
    pthread_mutex_t mutex;     /* protects the three below */
    pthread_cond_t warmed;
    size_t warm;               /* threads that finished their warm-up, well or not */
    vit_status status;         /* the first failure of a warm-up */
    vit_error error;
    struct worker threads[];
};

static __attribute__((format(printf, 3, 4))) vit_status fail(vit_error *err, vit_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- one image ---- */

static void finish(struct job_image *image)
{
    struct job *job = image->job;
    if (atomic_fetch_sub_explicit(&job->unfinished, 1, memory_order_acq_rel) == 1)
        job->done(job);
}

static void set_failed(struct job_image *image, enum image_failure failure, vit_status status)
{
    image->state = IMAGE_FAILED;
    image->failure = failure;
    image->status = status;
    free(image->pixels);
    image->pixels = NULL;
}

/* Marks an image as failed when nobody waits for it any more. */
static bool is_stale(struct job_image *image, int64_t now_us)
{
    if (now_us >= image->job->deadline_us)
        set_failed(image, FAILURE_DEADLINE, VIT_OK);
    else if (job_client_gone(image->job))
        set_failed(image, FAILURE_CLIENT_GONE, VIT_OK);
    else
        return false;
    return true;
}

static float *floats(size_t count)
{
    return count <= SIZE_MAX / sizeof(float) ? malloc(count * sizeof(float)) : NULL;
}

static bool allocate_results(struct job_image *image, const vit_model_info *info)
{
    const struct job *job = image->job;
    image->pixels = floats(3 * info->image_height * info->image_width);
    image->logits = floats(info->classes ? info->classes : 1);
    if (job->want_features)
        image->features = floats(info->embedding_width);
    if (job->map_floats)
        image->map = floats(job->map_floats);
    if (job->want_distances)
        image->distances = floats(info->layers * info->heads);
    return image->pixels && image->logits && (!job->want_features || image->features) &&
           (!job->map_floats || image->map) && (!job->want_distances || image->distances);
}

static bool decode_and_preprocess(const struct worker *worker, struct job_image *image)
{
    const struct registry_entry *entry = &worker->pool->setup.registry->entries[image->job->model];
    const vit_model_info *info = vit_model_describe(entry->model);
    if (!allocate_results(image, info)) {
        fail(&image->error, VIT_ERR_NO_MEMORY, "out of memory");
        set_failed(image, FAILURE_INTERNAL, VIT_ERR_NO_MEMORY);
        return false;
    }
    vit_image picture = {0};
    vit_status status = vit_preprocess_decode(entry->draft ? info->preprocess : NULL, &picture, image->bytes, image->length,
                                              worker->pool->setup.max_pixels, &image->error);
    enum image_failure failure = FAILURE_IMAGE;
    if (status == VIT_OK) {
        failure = FAILURE_PREPROCESS;
        status = vit_preprocess_apply(info->preprocess, &picture, image->pixels, &image->error);
    }
    vit_image_release(&picture);
    if (status != VIT_OK)
        set_failed(image, status == VIT_ERR_NO_MEMORY ? FAILURE_INTERNAL : failure, status);
    return status == VIT_OK;
}

/* The bytes of an image are no longer needed to decode it. */
static void release_bytes(struct job_image *image)
{
    struct job *job = image->job;
    if (job->keep_body)
        return;
    image->bytes = NULL;
    if (atomic_fetch_sub_explicit(&job->undecoded, 1, memory_order_acq_rel) == 1) {
        free(job->body);
        job->body = NULL;
    }
}

static void decode(struct worker *worker, struct job_image *image)
{
    struct job *job = image->job;
    struct metrics *metrics = worker->pool->setup.metrics;
    int64_t start = job_clock_us();
    image->queue_ms = (double)(start - job->accepted_us) / 1e3;
    bool usable = !is_stale(image, start);
    if (usable && job->without_image)
        image->state = IMAGE_DONE;
    else
        usable = usable && decode_and_preprocess(worker, image);
    image->ready_us = job_clock_us();
    release_bytes(image);
    if (!usable || job->without_image) {
        struct queue *queue = worker->pool->setup.queue;
        queue_dropped(queue);
        finish(image); /* without an image, all the work is here */
        queue_record_cost(queue, (double)(job_clock_us() - start) / 1e6);
        return;
    }
    image->preprocess_ms = (double)(image->ready_us - start) / 1e3;
    metrics_duration(metrics, DURATION_PREPROCESS, (int)job->model, image->preprocess_ms / 1e3);
    image->state = IMAGE_READY;
    queue_ready(worker->pool->setup.queue, image);
}

/* ---- one batch ---- */

static bool is_explained(const struct job_image *image)
{
    return image->map || image->distances;
}

/* Fills in worker->items and keeps in images[] those that are still wanted; returns their number. */
static size_t prepare_batch(struct worker *worker, struct job_image **images, size_t count, int64_t now_us)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct job_image *image = images[i];
        if (is_stale(image, now_us)) {
            queue_record_cost(worker->pool->setup.queue, image->preprocess_ms / 1e3);
            finish(image);
            continue;
        }
        image->queue_ms += (double)(now_us - image->ready_us) / 1e3;
        images[kept] = image;
        worker->items[kept++] = (vit_item){
            .pixels = image->pixels,
            .logits = image->logits,
            .features = image->features,
            .explain = image->map ? &image->job->explain : NULL,
            .map = image->map,
            .distances = image->distances,
            .status = &image->status,
        };
    }
    return kept;
}

static void finish_run(struct worker *worker, struct job_image *image, size_t count, double seconds,
                       const vit_error *error)
{
    const struct workers_setup *setup = &worker->pool->setup;
    metrics_duration(setup->metrics, DURATION_QUEUE, (int)image->job->model, image->queue_ms / 1e3);
    queue_record_cost(setup->queue, image->preprocess_ms / 1e3 + seconds / (double)count);
    image->inference_ms = seconds * 1e3;
    image->batch_size = count;
    if (image->status != VIT_OK) {
        image->error = *error;
        set_failed(image, FAILURE_INTERNAL, image->status);
    } else {
        image->state = IMAGE_DONE;
        metrics_images(setup->metrics, (int)image->job->model, 1);
        if (!image->job->keep_pixels) {
            free(image->pixels);
            image->pixels = NULL;
        }
    }
    finish(image);
}

/* Runs worker->items, with whoever has nothing else to do. */
static vit_status run_together(struct worker *worker, vit_session *session, size_t count, vit_error *error)
{
    struct queue *queue = worker->pool->setup.queue;
    vit_team team;
    team_open(worker->team, &team);
    team.threads += queue_call(queue, worker->team);
    vit_session_set_team(session, team.threads > 1 ? &team : NULL);
    vit_status status = vit_session_run(session, worker->items, count, error);
    vit_session_set_team(session, NULL);
    queue_dismiss(queue, worker->team);
    team_close(worker->team);
    return status;
}

static void run(struct worker *worker, struct job_image **images, size_t count)
{
    const struct workers_setup *setup = &worker->pool->setup;
    const size_t model = images[0]->job->model;
    const int64_t start = job_clock_us();
    count = prepare_batch(worker, images, count, start);
    if (!count)
        return;
    vit_error error = {{0}};
    vit_status status = run_together(worker, worker->sessions[model], count, &error);
    const double seconds = (double)(job_clock_us() - start) / 1e6;
    metrics_batch(setup->metrics, (int)model, count);
    metrics_duration(setup->metrics, DURATION_INFERENCE, (int)model, seconds);
    if (status != VIT_OK)
        log_error("model %s: %s", setup->registry->entries[model].name, error.message);
    for (size_t i = 0; i < count; i++)
        finish_run(worker, images[i], count, seconds, &error);
}

/* Explanations take longer than scores: the images without one run first and are answered first. */
static void run_batch(struct worker *worker, struct job_image **images, size_t count)
{
    size_t plain = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_explained(images[i])) {
            struct job_image *image = images[i];
            memmove(images + plain + 1, images + plain, (i - plain) * sizeof *images);
            images[plain++] = image;
        }
    if (plain > 0)
        run(worker, images, plain);
    if (plain < count)
        run(worker, images + plain, count - plain);
}

/* ---- threads ---- */

/* One image faults in the weights and OpenBLAS's buffers, which the first request would otherwise pay for. */
static vit_status warm_up(struct worker *worker, size_t model, vit_error *err)
{
    const struct workers_setup *setup = &worker->pool->setup;
    const vit_model_info *info = vit_model_describe(setup->registry->entries[model].model);
    vit_status status =
        vit_session_create(&worker->sessions[model], setup->registry->entries[model].model, setup->max_batch, err);
    if (status != VIT_OK)
        return status;
    float *pixels = calloc(3 * info->image_height * info->image_width, sizeof *pixels);
    float *logits = floats(info->classes ? info->classes : 1);
    if (!pixels || !logits)
        status = fail(err, VIT_ERR_NO_MEMORY, "out of memory");
    if (status == VIT_OK)
        status = vit_session_run(worker->sessions[model], &(vit_item){.pixels = pixels, .logits = logits}, 1, err);
    free(pixels);
    free(logits);
    return status;
}

static void *allocate_scratch(const struct registry *registry)
{
    size_t most = 64;
    for (size_t i = 0; i < registry->count; i++) {
        const size_t bytes = vit_model_scratch(registry->entries[i].model);
        most = bytes > most ? bytes : most;
    }
    return aligned_alloc(64, most);
}

static vit_status prepare(struct worker *worker, vit_error *err)
{
    const struct workers_setup *setup = &worker->pool->setup;
    worker->sessions = calloc(setup->registry->count, sizeof(vit_session *));
    worker->team = team_create();
    worker->scratch = allocate_scratch(setup->registry);
    worker->task.images = calloc(setup->max_batch, sizeof(struct job_image *));
    worker->items = calloc(setup->max_batch, sizeof *worker->items);
    if (!worker->sessions || !worker->team || !worker->scratch || !worker->task.images || !worker->items)
        return fail(err, VIT_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < setup->registry->count; i++) {
        vit_error why = {{0}};
        vit_status status = warm_up(worker, i, &why);
        if (status != VIT_OK)
            return fail(err, status, "model %s: %.300s", setup->registry->entries[i].name, why.message);
    }
    return VIT_OK;
}

static void report_warm(struct workers *pool, vit_status status, const vit_error *error)
{
    pthread_mutex_lock(&pool->mutex);
    pool->warm++;
    if (status != VIT_OK && pool->status == VIT_OK) {
        pool->status = status;
        pool->error = *error;
    }
    pthread_cond_signal(&pool->warmed);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct queue *queue = worker->pool->setup.queue;
    vit_error error = {{0}};
    pthread_setname_np(pthread_self(), "vitd-worker");
    vit_status status = prepare(worker, &error);
    report_warm(worker->pool, status, &error);

    enum queue_work work = QUEUE_STOP;
    do {
        work = status == VIT_OK ? queue_take(queue, &worker->task) : QUEUE_STOP;
        if (work == QUEUE_DECODE)
            decode(worker, worker->task.images[0]);
        else if (work == QUEUE_RUN)
            run_batch(worker, worker->task.images, worker->task.count);
        else if (work == QUEUE_HELP)
            team_help(worker->task.team, worker->scratch, queue_has_work, queue);
    } while (work != QUEUE_STOP);

    for (size_t i = 0; worker->sessions && i < worker->pool->setup.registry->count; i++)
        vit_session_free(worker->sessions[i]);
    free(worker->sessions);
    team_free(worker->team);
    free(worker->scratch);
    free(worker->task.images);
    free(worker->items);
    return NULL;
}

static vit_status wait_until_warm(struct workers *pool, vit_error *err)
{
    pthread_mutex_lock(&pool->mutex);
    while (pool->warm < pool->started)
        pthread_cond_wait(&pool->warmed, &pool->mutex);
    vit_status status = pool->status;
    if (status != VIT_OK)
        *err = pool->error;
    pthread_mutex_unlock(&pool->mutex);
    return status;
}

vit_status workers_start(struct workers **workers, const struct workers_setup *setup, vit_error *err)
{
    struct workers *pool = calloc(1, sizeof *pool + setup->threads * sizeof pool->threads[0]);
    if (!pool)
        return fail(err, VIT_ERR_NO_MEMORY, "out of memory");
    pool->setup = *setup;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->warmed, NULL);
    vit_status status = VIT_OK;
    for (size_t i = 0; i < setup->threads && status == VIT_OK; i++) {
        pool->threads[i].pool = pool;
        int error = pthread_create(&pool->threads[i].thread, NULL, worker_main, &pool->threads[i]);
        if (error)
            status = fail(err, VIT_ERR_NO_MEMORY, "cannot start worker thread %zu: %s", i + 1, strerror(error));
        else
            pool->started++;
    }
    if (status == VIT_OK)
        status = wait_until_warm(pool, err);
    if (status != VIT_OK) {
        workers_stop(pool);
        return status;
    }
    *workers = pool;
    return VIT_OK;
}

void workers_stop(struct workers *workers)
{
    if (!workers)
        return;
    queue_close(workers->setup.queue);
    for (size_t i = 0; i < workers->started; i++)
        pthread_join(workers->threads[i].thread, NULL);
    pthread_cond_destroy(&workers->warmed);
    pthread_mutex_destroy(&workers->mutex);
    free(workers);
}

/*
 * workers.c - one pool runs both stages of an image, so that no core is idle while another has too much to do.
 *
 * Worker i runs each model in that model's session i, and has scratch for one batch of its own; images reach it through
 * queue_take() only, and while it holds one, nobody else touches it. A job's images may be with several threads at once:
 * they share only the two atomic counters of the job. Whoever brings `unfinished` to zero calls job->done and must not look
 * at the job, or at its model, again. Before each of the two stages an image whose deadline has passed or whose client has
 * left is dropped; workers_sweep() drops those that no worker comes to.
 */
#include "server/work/workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/failure.h"
#include "server/log.h"
#include "server/work/words.h"

struct worker {
    struct workers *pool;
    size_t index;
    pthread_t thread;
    struct team *team;         /* this worker leads it */
    void *scratch;             /* for helping in others [scratch_bytes] */
    size_t scratch_bytes;
    struct job_image *images[QUEUE_MAX_BATCH];
    vit_item items[QUEUE_MAX_BATCH];
    atomic_int work;           /* enum queue_work; QUEUE_STOP: none */
    atomic_int_fast64_t since_us;
};

struct workers {
    struct queue *queue;
    struct metrics *metrics;
    size_t count;
    struct worker threads[];
};

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
    image->logits = floats(job_class_count(job) + 1);
    if (job->want_features || info->text)
        image->features = floats(info->embedding_width);
    if (job->map_floats)
        image->map = floats(job->map_floats);
    if (job->want_distances)
        image->distances = floats(info->layers * info->heads);
    return image->pixels && image->logits && (!(job->want_features || info->text) || image->features) &&
           (!job->map_floats || image->map) && (!job->want_distances || image->distances);
}

/* ---- with whoever has nothing else to do ---- */

static void call_others(struct worker *worker, const struct model *model, vit_team *team)
{
    team_open(worker->team, team, vit_model_scratch(model->vit));
    team->threads += queue_call(worker->pool->queue, worker->team);
    vit_session_set_team(model->sessions[worker->index], team->threads > 1 ? team : NULL);
}

static void dismiss_others(struct worker *worker, const struct model *model)
{
    vit_session_set_team(model->sessions[worker->index], NULL);
    queue_dismiss(worker->pool->queue, worker->team);
    team_close(worker->team);
}

/* Runs worker->items. */
static vit_status run_together(struct worker *worker, const struct model *model, size_t count, vit_error *error)
{
    vit_team team;
    call_others(worker, model, &team);
    vit_status status = vit_session_run(model->sessions[worker->index], worker->items, count, error);
    dismiss_others(worker, model);
    return status;
}

/* Texts instead of an image. */
static bool embed(struct worker *worker, struct job_image *image)
{
    vit_team team;
    const struct model *model = image->job->model;
    const int64_t start = job_clock_us();
    call_others(worker, model, &team);
    const vit_status status = vit_session_encode_texts(model->sessions[worker->index], image->texts, image->text_count,
                                                       image->vectors, NULL, &image->error);
    dismiss_others(worker, model);
    metrics_texts(worker->pool->metrics, model->metrics, image->text_count, (double)(job_clock_us() - start) / 1e6);
    image->state = IMAGE_DONE;
    if (status != VIT_OK)
        set_failed(image, FAILURE_INTERNAL, status);
    return status == VIT_OK;
}

/* The picture in the bytes: decoded, or there already. */
static vit_status take_picture(vit_image *picture, struct job_image *image, const vit_preprocess *draft)
{
    const size_t max_pixels = image->job->max_pixels;
    if (!image->width)
        return vit_preprocess_decode(draft, picture, image->bytes, image->length, max_pixels, &image->error);
    if (image->width * image->height > max_pixels)
        return failure_set(&image->error, VIT_ERR_IMAGE_SIZE,
                    "the image has %zu pixels (%zux%zu); at most %zu are allowed: send a smaller one",
                    image->width * image->height, image->width, image->height, max_pixels);
    *picture = (vit_image){.width = image->width, .height = image->height, .pixels = malloc(image->length)};
    if (!picture->pixels)
        return failure_set(&image->error, VIT_ERR_NO_MEMORY, "out of memory");
    memcpy(picture->pixels, image->bytes, image->length);
    return VIT_OK;
}

static bool decode_and_preprocess(struct job_image *image)
{
    const struct model *model = image->job->model;
    const vit_model_info *info = vit_model_describe(model->vit);
    if (!allocate_results(image, info)) {
        failure_set(&image->error, VIT_ERR_NO_MEMORY, "out of memory");
        set_failed(image, FAILURE_INTERNAL, VIT_ERR_NO_MEMORY);
        return false;
    }
    if (image->is_tensor) {
        memcpy(image->pixels, image->bytes, image->length);
        return true;
    }
    vit_image picture = {0};
    vit_status status = take_picture(&picture, image, model->draft ? info->preprocess : NULL);
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

/* Until a worker came to it, or nobody waited any more. */
static void note_wait(struct job_image *image, int64_t now_us)
{
    image->queue_ms = image->job->waited_ms + (double)(now_us - image->job->accepted_us) / 1e3;
}

static void decode(struct worker *worker, struct job_image *image)
{
    struct job *job = image->job;
    struct metrics *metrics = worker->pool->metrics;
    int64_t start = job_clock_us();
    note_wait(image, start);
    bool usable = !is_stale(image, start);
    const bool decoded = !job->without_image && !image->texts;
    if (usable && image->texts)
        usable = embed(worker, image);
    else if (usable && job->without_image)
        image->state = IMAGE_DONE;
    else
        usable = usable && decode_and_preprocess(image);
    image->ready_us = job_clock_us();
    release_bytes(image);
    if (!usable || !decoded) {
        struct queue *queue = worker->pool->queue;
        (usable && job->keep_room ? queue_kept : queue_dropped)(queue);
        finish(image); /* without an image, all the work is here */
        queue_record_cost(queue, (double)(job_clock_us() - start) / 1e6);
        return;
    }
    image->preprocess_ms = (double)(image->ready_us - start) / 1e3;
    metrics_duration(metrics, DURATION_PREPROCESS, job->model->metrics, image->preprocess_ms / 1e3);
    image->state = IMAGE_READY;
    queue_ready(worker->pool->queue, image);
}

void workers_sweep(struct workers *workers)
{
    const int64_t now_us = job_clock_us();
    struct job_image *next;
    for (struct job_image *image = queue_take_stale(workers->queue, now_us); image; image = next) {
        next = image->next;
        note_wait(image, now_us);
        set_failed(image, now_us >= image->job->deadline_us ? FAILURE_DEADLINE : FAILURE_CLIENT_GONE, VIT_OK);
        release_bytes(image);
        finish(image);
    }
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
            queue_record_cost(worker->pool->queue, image->preprocess_ms / 1e3);
            finish(image);
            continue;
        }
        image->queue_ms += (double)(now_us - image->ready_us) / 1e3;
        images[kept] = image;
        worker->items[kept++] = (vit_item){
            .pixels = image->pixels,
            .logits = vit_model_describe(image->job->model->vit)->classes ? image->logits : NULL,
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
    struct model_metrics *counters = image->job->model->metrics;
    metrics_duration(worker->pool->metrics, DURATION_QUEUE, counters, image->queue_ms / 1e3);
    queue_record_cost(worker->pool->queue, image->preprocess_ms / 1e3 + seconds / (double)count);
    image->inference_ms = seconds * 1e3;
    image->batch_size = count;
    if (image->status != VIT_OK) {
        image->error = *error;
        set_failed(image, FAILURE_INTERNAL, image->status);
    } else {
        const struct job *job = image->job;
        if (job->words)
            vit_text_logits(job->model->vit, image->features, job->words->embeddings, job->words->count, image->logits);
        image->state = IMAGE_DONE;
        metrics_images(counters, 1);
        if (!image->job->keep_pixels) {
            free(image->pixels);
            image->pixels = NULL;
        }
    }
    finish(image);
}

static void run(struct worker *worker, struct job_image **images, size_t count)
{
    const struct model *model = images[0]->job->model;
    const int64_t start = job_clock_us();
    count = prepare_batch(worker, images, count, start);
    if (!count)
        return;
    vit_error error = {{0}};
    vit_status status = run_together(worker, model, count, &error);
    const double seconds = (double)(job_clock_us() - start) / 1e6;
    metrics_batch(model->metrics, count, seconds);
    metrics_duration(worker->pool->metrics, DURATION_INFERENCE, model->metrics, seconds);
    if (status != VIT_OK)
        log_error("model %s: %s", model->id, error.message);
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

static void help(struct worker *worker, struct team *team)
{
    const size_t wanted = team_scratch(team);
    if (wanted > worker->scratch_bytes) {
        free(worker->scratch);
        worker->scratch = aligned_alloc(64, wanted);
        worker->scratch_bytes = worker->scratch ? wanted : 0;
    }
    if (worker->scratch_bytes >= wanted)
        team_help(team, worker->scratch, queue_has_work, worker->pool->queue);
    else
        team_leave(team);
}

static void note(struct worker *worker, enum queue_work work)
{
    atomic_store_explicit(&worker->since_us, job_clock_us(), memory_order_relaxed);
    atomic_store_explicit(&worker->work, (int)work, memory_order_release);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct queue_task task = {.images = worker->images};
    enum queue_work work;
    pthread_setname_np(pthread_self(), "vitd-worker");
    while ((work = queue_take(worker->pool->queue, &task)) != QUEUE_STOP) {
        note(worker, work);
        if (work == QUEUE_DECODE)
            decode(worker, task.images[0]);
        else if (work == QUEUE_RUN)
            run_batch(worker, task.images, task.count);
        else
            help(worker, task.team);
        note(worker, QUEUE_STOP);
    }
    return NULL;
}

static vit_status start_worker(struct workers *pool, vit_error *err)
{
    struct worker *worker = &pool->threads[pool->count];
    *worker = (struct worker){.pool = pool, .index = pool->count, .team = team_create()};
    if (!worker->team)
        return failure_set(err, VIT_ERR_NO_MEMORY, "out of memory");
    const int error = pthread_create(&worker->thread, NULL, worker_main, worker);
    if (error) {
        team_free(worker->team);
        return failure_set(err, VIT_ERR_NO_MEMORY, "cannot start worker thread %zu: %s", pool->count + 1, strerror(error));
    }
    pool->count++;
    return VIT_OK;
}

vit_status workers_start(struct workers **workers, struct queue *queue, struct metrics *metrics, size_t threads,
                         vit_error *err)
{
    struct workers *pool = calloc(1, sizeof *pool + threads * sizeof pool->threads[0]);
    if (!pool)
        return failure_set(err, VIT_ERR_NO_MEMORY, "out of memory");
    pool->queue = queue;
    pool->metrics = metrics;
    vit_status status = VIT_OK;
    while (pool->count < threads && status == VIT_OK)
        status = start_worker(pool, err);
    if (status == VIT_OK)
        *workers = pool;
    else
        workers_stop(pool);
    return status;
}

void workers_stop(struct workers *workers)
{
    if (!workers)
        return;
    queue_close(workers->queue);
    for (size_t i = 0; i < workers->count; i++)
        pthread_join(workers->threads[i].thread, NULL);
    for (size_t i = 0; i < workers->count; i++) {
        team_free(workers->threads[i].team);
        free(workers->threads[i].scratch);
    }
    free(workers);
}

/* ---- looking ---- */

bool workers_look(const struct workers *workers, size_t i, struct worker_state *state)
{
    if (i >= workers->count)
        return false;
    const struct worker *worker = &workers->threads[i];
    state->work = (enum queue_work)atomic_load_explicit(&worker->work, memory_order_acquire);
    state->since_us = atomic_load_explicit(&worker->since_us, memory_order_relaxed);
    return true;
}

int64_t workers_longest_us(const struct workers *workers)
{
    const int64_t now = job_clock_us();
    int64_t longest = 0;
    struct worker_state state;
    for (size_t i = 0; workers_look(workers, i, &state); i++)
        if (state.work != QUEUE_STOP && now - state.since_us > longest)
            longest = now - state.since_us;
    return longest;
}

/*
 * queue.c - the scheduling policy of the daemon, in one function: choose().
 *
 * The HTTP thread pushes jobs; every worker runs the same loop: take, do, take again. There are two kinds of waiting
 * images: pending ones (bytes, one list over all models) and ready ones (tensors, one list per model). A worker takes,
 * in this order,
 *
 *   1. a full batch, if a model has one ready: the cheapest way to serve many;
 *   2. a partial batch whose oldest image has waited max_delay_us: steady uploads must not starve it;
 *   3. the next pending image, to decode it: batches grow while there is something to decode;
 *   4. a partial batch, since nothing is left to decode and waiting could only add latency;
 *   5. a part in another worker's run, if that one has called for help: an image alone is answered by all cores.
 *
 * When nothing is pending, the images at hand are shared evenly among the workers that are free or about to be (those
 * decoding now): with idle cores, two batches of four finish earlier than one of eight.
 *
 * All lists are FIFO, so a model's images run in the order in which they became ready. A ready list cannot grow without
 * bound: whoever takes prefers full batches, so it holds at most max_batch - 1 images plus one per worker decoding, and
 * what a split left behind.
 *
 * One mutex protects every field below it; the condition is signalled when there is more to do than workers awake.
 * Nothing is ready and nothing pending whenever a worker sleeps, so no timed wait is needed.
 */
#include "server/work/queue.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct list {
    struct job_image *first, *last;
    size_t count;
};

struct queue {
    struct queue_limits limits; /* constant */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    size_t waiting;             /* images with room reserved */
    size_t idle, decoding;      /* workers */
    struct team *calling;       /* for so many more of the idle workers */
    size_t called;
    bool closed;
    double image_seconds;       /* moving average of queue_record_cost(), 0 before the first */
    atomic_bool has_work;       /* something is pending or ready; read without the mutex */
    struct list pending;
    struct list ready[];        /* [models] */
};

static void append(struct list *list, struct job_image *image)
{
    image->next = NULL;
    if (list->last)
        list->last->next = image;
    else
        list->first = image;
    list->last = image;
    list->count++;
}

static struct job_image *take_first(struct list *list)
{
    struct job_image *image = list->first;
    list->first = image->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    image->next = NULL;
    return image;
}

static bool anything_ready(const struct queue *queue)
{
    for (size_t i = 0; i < queue->limits.models; i++)
        if (queue->ready[i].count)
            return true;
    return false;
}

static void note_work(struct queue *queue)
{
    atomic_store_explicit(&queue->has_work, queue->pending.count > 0 || anything_ready(queue), memory_order_relaxed);
}

struct queue *queue_create(const struct queue_limits *limits)
{
    struct queue *queue = calloc(1, sizeof *queue + limits->models * sizeof queue->ready[0]);
    if (!queue)
        return NULL;
    queue->limits = *limits;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->work, NULL);
    return queue;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->mutex);
    free(queue);
}

bool queue_reserve(struct queue *queue, size_t count)
{
    pthread_mutex_lock(&queue->mutex);
    bool fits = count <= queue->limits.capacity - queue->waiting;
    if (fits)
        queue->waiting += count;
    pthread_mutex_unlock(&queue->mutex);
    return fits;
}

void queue_unreserve(struct queue *queue, size_t count)
{
    pthread_mutex_lock(&queue->mutex);
    queue->waiting -= count;
    pthread_mutex_unlock(&queue->mutex);
}

void queue_push(struct queue *queue, struct job *job)
{
    /* the job may be finished and freed as soon as the mutex is released */
    pthread_mutex_lock(&queue->mutex);
    size_t count = job->image_count;
    for (size_t i = 0; i < count; i++)
        append(&queue->pending, &job->images[i]);
    note_work(queue);
    size_t wake = count < queue->idle ? count : queue->idle;
    while (wake--)
        pthread_cond_signal(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

/* The model whose batch should run now, or NULL: then decode, if anything is pending. */
static struct list *choose(struct queue *queue, int64_t now_us)
{
    struct list *full = NULL, *oldest = NULL;
    for (size_t i = 0; i < queue->limits.models; i++) {
        struct list *list = &queue->ready[i];
        if (!list->count)
            continue;
        if (!oldest || list->first->ready_us < oldest->first->ready_us)
            oldest = list;
        if (list->count >= queue->limits.max_batch && (!full || list->first->ready_us < full->first->ready_us))
            full = list;
    }
    if (full)
        return full;
    if (oldest && queue->pending.count && now_us - oldest->first->ready_us < queue->limits.max_delay_us)
        return NULL;
    return oldest;
}

/* How many images of the list this worker takes: a batch, or its share when others have nothing else to do. */
static size_t share_of(const struct queue *queue, const struct list *list)
{
    size_t count = list->count < queue->limits.max_batch ? list->count : queue->limits.max_batch;
    if (queue->pending.count)
        return count;
    size_t images = queue->decoding;
    for (size_t i = 0; i < queue->limits.models; i++)
        images += queue->ready[i].count;
    size_t workers = 1 + queue->idle + queue->decoding;
    size_t share = (images + workers - 1) / workers;
    return share < count ? share : count;
}

static void wait_for_work(struct queue *queue)
{
    while (!queue->pending.count && !anything_ready(queue) && !queue->closed && !queue->called) {
        queue->idle++;
        pthread_cond_wait(&queue->work, &queue->mutex);
        queue->idle--;
    }
}

/* With the mutex held, and work that is not 5. in the list above. */
static enum queue_work take(struct queue *queue, struct queue_task *task)
{
    struct list *batch = choose(queue, job_clock_us());
    if (batch) {
        for (size_t share = share_of(queue, batch); task->count < share; task->count++)
            task->images[task->count] = take_first(batch);
        queue->waiting -= task->count;
        return QUEUE_RUN;
    }
    if (queue->pending.count) {
        task->images[task->count++] = take_first(&queue->pending);
        queue->decoding++;
        return QUEUE_DECODE;
    }
    return QUEUE_STOP;
}

enum queue_work queue_take(struct queue *queue, struct queue_task *task)
{
    pthread_mutex_lock(&queue->mutex);
    wait_for_work(queue);
    task->count = 0;
    enum queue_work work = take(queue, task);
    if (work == QUEUE_STOP && queue->called) {
        work = QUEUE_HELP;
        task->team = queue->calling;
        queue->called--;
        team_join(task->team);
    }
    note_work(queue);
    if (queue->idle && (queue->pending.count || anything_ready(queue)))
        pthread_cond_signal(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
    return work;
}

size_t queue_call(struct queue *queue, struct team *team)
{
    pthread_mutex_lock(&queue->mutex);
    const bool free_hands = queue->idle && !queue->called && !queue->pending.count && !anything_ready(queue);
    const size_t called = free_hands ? queue->idle : 0;
    if (called) {
        queue->calling = team;
        queue->called = called;
        pthread_cond_broadcast(&queue->work);
    }
    pthread_mutex_unlock(&queue->mutex);
    return called;
}

void queue_dismiss(struct queue *queue, struct team *team)
{
    pthread_mutex_lock(&queue->mutex);
    if (queue->calling == team)
        queue->called = 0;
    pthread_mutex_unlock(&queue->mutex);
}

bool queue_has_work(void *argument)
{
    struct queue *queue = argument;
    return atomic_load_explicit(&queue->has_work, memory_order_relaxed);
}

void queue_ready(struct queue *queue, struct job_image *image)
{
    pthread_mutex_lock(&queue->mutex);
    queue->decoding--;
    append(&queue->ready[image->job->model], image);
    note_work(queue);
    pthread_mutex_unlock(&queue->mutex);
}

void queue_dropped(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->decoding--;
    queue->waiting--;
    pthread_mutex_unlock(&queue->mutex);
}

void queue_record_cost(struct queue *queue, double seconds)
{
    pthread_mutex_lock(&queue->mutex);
    if (queue->image_seconds == 0)
        queue->image_seconds = seconds;
    else
        queue->image_seconds += 0.05 * (seconds - queue->image_seconds);
    pthread_mutex_unlock(&queue->mutex);
}

unsigned queue_retry_after(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    double seconds = ceil((double)queue->waiting * queue->image_seconds / (double)queue->limits.workers);
    pthread_mutex_unlock(&queue->mutex);
    if (seconds < 1)
        return 1;
    return seconds > 3600 ? 3600 : (unsigned)seconds;
}

size_t queue_depth(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    size_t depth = queue->waiting;
    pthread_mutex_unlock(&queue->mutex);
    return depth;
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

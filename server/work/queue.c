/*
 * queue.c - the scheduling policy of the daemon, in one function: choose().
 *
 * The HTTP threads push jobs; every worker runs the same loop: take, do, take again. There are two kinds of waiting
 * images: pending ones (bytes, one list for each priority, over all models) and ready ones (tensors, in the lane of
 * their model). A worker takes, in this order,
 *
 *   1. a full batch, if a model has one ready: the cheapest way to serve many;
 *   2. a partial batch whose oldest image has waited max_delay_us: steady uploads must not starve it;
 *   3. the next pending image, to decode it: batches grow while there is something to decode. Those of low priority come
 *      when there are no others;
 *   4. a partial batch, since nothing is left to decode and waiting could only add latency;
 *   5. a part in another worker's run, if that one has called for help: an image alone is answered by all cores.
 *
 * When nothing is pending, the images at hand are shared evenly among the workers that are free or about to be (those
 * decoding now): with idle cores, two batches of four finish earlier than one of eight.
 *
 * All lists are FIFO, so a model's images run in the order in which they became ready. A lane cannot grow without
 * bound: whoever takes prefers full batches, so it holds at most max_batch - 1 images plus one per worker decoding, and
 * what a split left behind. Lanes come and go with their models: the queue knows those that have something ready.
 *
 * One mutex protects every field below it; the condition is signalled when there is more to do than workers awake.
 * Nothing is ready and nothing pending whenever a worker sleeps, so no timed wait is needed.
 */
#include "server/work/queue.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "server/work/model.h"

struct list {
    struct job_image *first, *last;
    size_t count;
};

struct queue {
    size_t workers;             /* constant */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    size_t capacity;            /* images */
    size_t waiting;             /* images with room reserved */
    size_t idle, decoding;      /* workers */
    struct team *calling;       /* for so many more of the idle workers */
    size_t called;
    bool closed;
    double image_seconds;       /* moving average of queue_record_cost(), 0 before the first */
    struct list pending[PRIORITY_COUNT];
    struct lane *lanes;         /* that have something ready */
    size_t ready;               /* images in them */

    atomic_bool has_work;       /* something is pending or ready; read without the mutex */
    atomic_size_t bytes, max_bytes; /* without the mutex, too */
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

/* ---- lanes ---- */

static void append_ready(struct queue *queue, struct lane *lane, struct job_image *image)
{
    image->next = NULL;
    if (lane->last)
        lane->last->next = image;
    else
        lane->first = image;
    lane->last = image;
    queue->ready++;
    if (lane->count++)
        return;
    lane->previous = NULL;
    lane->next = queue->lanes;
    if (lane->next)
        lane->next->previous = lane;
    queue->lanes = lane;
}

static struct job_image *take_ready(struct queue *queue, struct lane *lane)
{
    struct job_image *image = lane->first;
    lane->first = image->next;
    image->next = NULL;
    queue->ready--;
    if (--lane->count)
        return image;
    lane->last = NULL;
    if (lane->previous)
        lane->previous->next = lane->next;
    else
        queue->lanes = lane->next;
    if (lane->next)
        lane->next->previous = lane->previous;
    return image;
}

/* ---- life ---- */

static bool anything_pending(const struct queue *queue)
{
    return queue->pending[PRIORITY_NORMAL].count || queue->pending[PRIORITY_LOW].count;
}

static void note_work(struct queue *queue)
{
    atomic_store_explicit(&queue->has_work, anything_pending(queue) || queue->ready, memory_order_relaxed);
}

struct queue *queue_create(size_t workers, const struct queue_limits *limits)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    queue->workers = workers;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->work, NULL);
    queue_set_limits(queue, limits);
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

void queue_set_limits(struct queue *queue, const struct queue_limits *limits)
{
    pthread_mutex_lock(&queue->mutex);
    queue->capacity = limits->capacity;
    atomic_store_explicit(&queue->max_bytes, limits->max_bytes, memory_order_relaxed);
    pthread_mutex_unlock(&queue->mutex);
}

/* ---- room ---- */

/* Low priority leaves half of the room to the others; where there is room for one only, they share it. */
static bool fits(const struct queue *queue, size_t count, enum job_priority priority)
{
    const size_t capacity = priority == PRIORITY_LOW ? (queue->capacity + 1) / 2 : queue->capacity;
    return queue->waiting <= capacity && count <= capacity - queue->waiting;
}

bool queue_has_room(struct queue *queue, enum job_priority priority)
{
    pthread_mutex_lock(&queue->mutex);
    const bool room = fits(queue, 1, priority);
    pthread_mutex_unlock(&queue->mutex);
    return room;
}

bool queue_reserve(struct queue *queue, size_t count, enum job_priority priority)
{
    pthread_mutex_lock(&queue->mutex);
    const bool room = fits(queue, count, priority);
    if (room)
        queue->waiting += count;
    pthread_mutex_unlock(&queue->mutex);
    return room;
}

void queue_unreserve(struct queue *queue, size_t count)
{
    pthread_mutex_lock(&queue->mutex);
    queue->waiting -= count;
    pthread_mutex_unlock(&queue->mutex);
}

bool queue_hold_bytes(struct queue *queue, size_t count)
{
    const size_t before = atomic_fetch_add_explicit(&queue->bytes, count, memory_order_relaxed);
    if (before + count <= atomic_load_explicit(&queue->max_bytes, memory_order_relaxed))
        return true;
    queue_release_bytes(queue, count);
    return false;
}

void queue_release_bytes(struct queue *queue, size_t count)
{
    atomic_fetch_sub_explicit(&queue->bytes, count, memory_order_relaxed);
}

void queue_push(struct queue *queue, struct job *job)
{
    /* the job may be finished and freed as soon as the mutex is released */
    pthread_mutex_lock(&queue->mutex);
    size_t count = job->image_count;
    for (size_t i = 0; i < count; i++)
        append(&queue->pending[job->priority], &job->images[i]);
    note_work(queue);
    size_t wake = count < queue->idle ? count : queue->idle;
    while (wake--)
        pthread_cond_signal(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

/* The lane whose batch should run now, or NULL: then decode, if anything is pending. */
static struct lane *choose(struct queue *queue, int64_t now_us)
{
    struct lane *full = NULL, *oldest = NULL;
    for (struct lane *lane = queue->lanes; lane; lane = lane->next) {
        if (!oldest || lane->first->ready_us < oldest->first->ready_us)
            oldest = lane;
        if (lane->count >= lane->max_batch && (!full || lane->first->ready_us < full->first->ready_us))
            full = lane;
    }
    if (full)
        return full;
    if (oldest && anything_pending(queue) && now_us - oldest->first->ready_us < oldest->max_delay_us)
        return NULL;
    return oldest;
}

/* How many images of the lane this worker takes: a batch, or its share when others have nothing else to do. */
static size_t share_of(const struct queue *queue, const struct lane *lane)
{
    size_t count = lane->count < lane->max_batch ? lane->count : lane->max_batch;
    if (anything_pending(queue))
        return count;
    size_t images = queue->decoding + queue->ready;
    size_t workers = 1 + queue->idle + queue->decoding;
    size_t share = (images + workers - 1) / workers;
    return share < count ? share : count;
}

static void wait_for_work(struct queue *queue)
{
    while (!anything_pending(queue) && !queue->ready && !queue->closed && !queue->called) {
        queue->idle++;
        pthread_cond_wait(&queue->work, &queue->mutex);
        queue->idle--;
    }
}

/* With the mutex held, and work that is not 5. in the list above. */
static enum queue_work take(struct queue *queue, struct queue_task *task)
{
    struct lane *lane = choose(queue, job_clock_us());
    if (lane) {
        for (size_t share = share_of(queue, lane); task->count < share; task->count++)
            task->images[task->count] = take_ready(queue, lane);
        queue->waiting -= task->count;
        return QUEUE_RUN;
    }
    if (anything_pending(queue)) {
        const bool normal = queue->pending[PRIORITY_NORMAL].count > 0;
        task->images[task->count++] = take_first(&queue->pending[normal ? PRIORITY_NORMAL : PRIORITY_LOW]);
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
    if (queue->idle && (anything_pending(queue) || queue->ready))
        pthread_cond_signal(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
    return work;
}

size_t queue_call(struct queue *queue, struct team *team)
{
    pthread_mutex_lock(&queue->mutex);
    const bool free_hands = queue->idle && !queue->called && !anything_pending(queue) && !queue->ready;
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
    append_ready(queue, &image->job->model->lane, image);
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

void queue_kept(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->decoding--;
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
    double seconds = ceil((double)queue->waiting * queue->image_seconds / (double)queue->workers);
    pthread_mutex_unlock(&queue->mutex);
    if (seconds < 1)
        return 1;
    return seconds > 3600 ? 3600 : (unsigned)seconds;
}

void queue_look(struct queue *queue, struct queue_state *state)
{
    pthread_mutex_lock(&queue->mutex);
    *state = (struct queue_state){
        .waiting = queue->waiting,
        .pending = {queue->pending[PRIORITY_NORMAL].count, queue->pending[PRIORITY_LOW].count},
        .decoding = queue->decoding,
        .ready = queue->ready,
        .idle = queue->idle,
        .bytes = atomic_load_explicit(&queue->bytes, memory_order_relaxed),
        .image_seconds = queue->image_seconds,
    };
    pthread_mutex_unlock(&queue->mutex);
}

/* With the mutex held, so only the first few clients are looked at, which takes a system call each. */
static void move_stale(struct list *list, struct list *stale, int64_t now_us)
{
    enum { LOOKS = 64 };
    const size_t count = list->count;
    for (size_t i = 0; i < count; i++) {
        struct job_image *image = take_first(list);
        const bool late = now_us >= image->job->deadline_us;
        append(late || (i < LOOKS && job_client_gone(image->job)) ? stale : list, image);
    }
}

struct job_image *queue_take_stale(struct queue *queue, int64_t now_us)
{
    struct list stale = {0};
    pthread_mutex_lock(&queue->mutex);
    for (size_t i = 0; i < PRIORITY_COUNT; i++)
        move_stale(&queue->pending[i], &stale, now_us);
    queue->waiting -= stale.count;
    note_work(queue);
    pthread_mutex_unlock(&queue->mutex);
    return stale.first;
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->mutex);
}

/*
 * team.c - see team.h.
 *
 * `ticket` holds the number of the loop in its upper half and the next part in its lower half. Whoever moves the lower half
 * on by one has that part. What was read about the loop between reading the ticket and moving it is right if the ticket was
 * still the same: the leader changes it before it changes the rest (to NO_PART) and again after.
 *
 * Helpers sleep on `work`, counted in `sleeping`; the mutex orders that count with the ticket and `open`.
 */
#include "server/work/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static const uint64_t NO_PART = UINT32_MAX;

enum { SPINS = 4000, SPINS_BETWEEN_LOOKS = 64, SLEEP_NS = 1000000 };

typedef void part_function(void *argument, size_t index, void *scratch);

struct team {
    _Atomic uint64_t ticket;
    _Atomic size_t parts;
    _Atomic(part_function *) part;
    _Atomic(void *) argument;
    _Atomic size_t finished; /* parts of this loop */

    atomic_bool open;
    _Atomic size_t scratch; /* bytes */
    _Atomic size_t inside; /* helpers that joined and have not left */

    pthread_mutex_t mutex;
    pthread_cond_t work;
    _Atomic size_t sleeping;
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct team *team_create(void)
{
    struct team *team = calloc(1, sizeof *team);
    if (!team)
        return NULL;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->work, NULL);
    return team;
}

void team_free(struct team *team)
{
    if (!team)
        return;
    pthread_cond_destroy(&team->work);
    pthread_mutex_destroy(&team->mutex);
    free(team);
}

/* ---- parts ---- */

static uint32_t next_part(uint64_t ticket)
{
    return (uint32_t)ticket;
}

/* Takes and runs a part; false: there is none. */
static bool run_part(struct team *team, void *scratch)
{
    uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    for (;;) {
        const size_t parts = atomic_load_explicit(&team->parts, memory_order_acquire);
        part_function *part = atomic_load_explicit(&team->part, memory_order_acquire);
        void *argument = atomic_load_explicit(&team->argument, memory_order_acquire);
        if (next_part(ticket) >= parts)
            return false;
        if (atomic_compare_exchange_weak_explicit(&team->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            part(argument, next_part(ticket), scratch);
            atomic_fetch_add_explicit(&team->finished, 1, memory_order_release);
            return true;
        }
    }
}

static void wake_sleepers(struct team *team)
{
    if (atomic_load(&team->sleeping) == 0)
        return;
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->work);
    pthread_mutex_unlock(&team->mutex);
}

/* vit_team.run */
static void run_loop(void *context, size_t parts, part_function *part, void *argument)
{
    struct team *team = context;
    const uint64_t loop = (atomic_load_explicit(&team->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&team->ticket, loop << 32 | NO_PART, memory_order_relaxed);
    atomic_store_explicit(&team->finished, 0, memory_order_relaxed);
    atomic_store_explicit(&team->part, part, memory_order_release);
    atomic_store_explicit(&team->argument, argument, memory_order_release);
    atomic_store_explicit(&team->parts, parts, memory_order_release);
    atomic_store(&team->ticket, loop << 32); /* sequentially consistent, as the look at `sleeping` that follows */
    wake_sleepers(team);
    while (run_part(team, NULL))
        ;
    for (size_t spins = 0; atomic_load_explicit(&team->finished, memory_order_acquire) < parts; spins++)
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield(); /* the helper may have lost its core */
}

/* ---- leading ---- */

void team_open(struct team *team, vit_team *lent, size_t scratch)
{
    atomic_store(&team->scratch, scratch);
    atomic_store(&team->open, true);
    *lent = (struct vit_team){.threads = 1, .run = run_loop, .context = team};
}

void team_close(struct team *team)
{
    atomic_store(&team->open, false);
    wake_sleepers(team);
    for (size_t spins = 0; atomic_load_explicit(&team->inside, memory_order_acquire) > 0; spins++)
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield();
}

/* ---- helping ---- */

static bool has_work(struct team *team)
{
    return next_part(atomic_load(&team->ticket)) < atomic_load(&team->parts) || !atomic_load(&team->open);
}

/* Not for long: leave() has to be asked. */
static void sleep_until_work(struct team *team)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SLEEP_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleeping, 1);
    int error = 0;
    while (!has_work(team) && !error)
        error = pthread_cond_clockwait(&team->work, &team->mutex, CLOCK_MONOTONIC, &until);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->mutex);
}

void team_join(struct team *team)
{
    atomic_fetch_add(&team->inside, 1);
}

size_t team_scratch(const struct team *team)
{
    return atomic_load(&team->scratch);
}

void team_leave(struct team *team)
{
    atomic_fetch_sub_explicit(&team->inside, 1, memory_order_release);
}

void team_help(struct team *team, void *scratch, bool (*leave)(void *context), void *context)
{
    for (size_t idle = 0; atomic_load(&team->open); idle++) {
        if (run_part(team, scratch))
            idle = 0;
        else if (idle < SPINS)
            pause_briefly();
        else
            sleep_until_work(team);
        if ((idle >= SPINS || idle % SPINS_BETWEEN_LOOKS == 0) && leave != NULL && leave(context))
            break;
    }
    team_leave(team);
}

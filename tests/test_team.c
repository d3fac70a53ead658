/* test_team.c - a leader and its helpers: every part once, nobody twice under one number, come late, leave early. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "server/work/team.h"
#include "tests/suite.h"

enum { HELPERS = 3, PARTS = 37, LOOPS = 2000 };

struct loop {
    atomic_int done[PARTS];
    atomic_bool own;     /* the leader's scratch is NULL */
    atomic_int clashes;  /* two parts with one scratch */
    unsigned pause_us;
};

static void part(void *argument, size_t index, void *scratch)
{
    struct loop *loop = argument;
    atomic_bool *busy = scratch != NULL ? scratch : &loop->own;
    if (atomic_exchange(busy, true))
        atomic_fetch_add(&loop->clashes, 1);
    atomic_fetch_add(&loop->done[index], 1);
    if (loop->pause_us > 0)
        usleep(loop->pause_us);
    atomic_store(busy, false);
}

static void run_loop(const vit_team *team, struct loop *loop, size_t parts)
{
    for (size_t i = 0; i < PARTS; i++)
        atomic_store(&loop->done[i], 0);
    team->run(team->context, parts, part, loop);
    for (size_t i = 0; i < PARTS; i++)
        ck_assert_int_eq(atomic_load(&loop->done[i]), i < parts);
    ck_assert_int_eq(atomic_load(&loop->clashes), 0);
}

struct helper {
    struct team *team;
    bool (*leave)(void *);
    atomic_bool told, busy;
    pthread_t thread;
};

static bool told(void *context)
{
    return atomic_load(&((struct helper *)context)->told);
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    team_help(helper->team, &helper->busy, helper->leave, helper);
    return NULL;
}

static void start(struct helper *helper, struct team *team, bool (*leave)(void *))
{
    helper->team = team;
    helper->leave = leave;
    atomic_store(&helper->told, false);
    atomic_store(&helper->busy, false);
    team_join(team);
    ck_assert_int_eq(pthread_create(&helper->thread, NULL, helper_main, helper), 0);
}

START_TEST(test_every_part_runs_once)
{
    static struct loop loop;
    struct helper helpers[HELPERS];
    struct team *team = team_create();
    vit_team lent;
    team_open(team, &lent, 0);
    for (size_t i = 0; i < HELPERS; i++)
        start(&helpers[i], team, NULL);
    for (size_t i = 0; i < LOOPS; i++) {
        run_loop(&lent, &loop, i % (PARTS + 1));
        if (i % 500 == 0)
            usleep(5000); /* helpers go to sleep */
    }
    team_close(team);
    for (size_t i = 0; i < HELPERS; i++)
        pthread_join(helpers[i].thread, NULL);
    team_free(team);
}
END_TEST

START_TEST(test_leader_needs_nobody)
{
    static struct loop loop;
    struct team *team = team_create();
    vit_team lent;
    team_open(team, &lent, 0);
    ck_assert_uint_eq(lent.threads, 1);
    run_loop(&lent, &loop, PARTS);
    team_close(team);
    team_free(team);
}
END_TEST

START_TEST(test_helper_leaves_when_told)
{
    static struct loop loop;
    struct helper helper;
    struct team *team = team_create();
    vit_team lent;
    for (int round = 0; round < 20; round++) { /* a team is opened again and again */
        team_open(team, &lent, 0);
        start(&helper, team, told);
        loop.pause_us = round % 2 ? 100 : 0;
        run_loop(&lent, &loop, PARTS);
        atomic_store(&helper.told, true);
        pthread_join(helper.thread, NULL); /* while the team is still open */
        run_loop(&lent, &loop, PARTS);
        team_close(team);
    }
    team_free(team);
}
END_TEST

/* A helper that sleeps because the leader is busy alone asks after every millisecond; the machine may be slow now and then. */
START_TEST(test_sleeping_helper_leaves_soon)
{
    struct helper helper;
    struct team *team = team_create();
    vit_team lent;
    struct timespec before, after;
    int soon = 0;
    for (int round = 0; round < 10; round++) {
        team_open(team, &lent, 0);
        start(&helper, team, told);
        usleep(20000);
        atomic_store(&helper.told, true);
        clock_gettime(CLOCK_MONOTONIC, &before);
        pthread_join(helper.thread, NULL);
        clock_gettime(CLOCK_MONOTONIC, &after);
        team_close(team);
        const long us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
        soon += us < 20000;
    }
    ck_assert_int_ge(soon, 8);
    team_free(team);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("team");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_every_part_runs_once);
    tcase_add_test(tests, test_leader_needs_nobody);
    tcase_add_test(tests, test_helper_leaves_when_told);
    tcase_add_test(tests, test_sleeping_helper_leaves_soon);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

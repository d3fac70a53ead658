/*
 * test_registry.c - the list of models and the thread that fills it, without HTTP: what a name finds, who makes room, and
 * that nobody is forgotten.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/log.h"
#include "server/models/loader.h"
#include "server/work/job.h"
#include "tests/folders.h"
#include "tests/suite.h"

#define SMALL "tests/golden/vit-hf"

static struct metrics *metrics;
static struct registry *registry;
static struct loader *loader;
static struct config config;

static void start(void)
{
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    config_init(&config);
    metrics = metrics_create();
    registry = registry_create();
    loader = loader_start(registry, metrics, 1);
    ck_assert(metrics && registry && loader);
}

static void end(void)
{
    loader_stop(loader);
    registry_free(registry);
    model_free_unused();
    metrics_free(metrics);
    config_release(&config);
}

/* version 0: none. */
static void add(const char *name, int version, bool lazy, const char *path)
{
    struct config_model model;
    struct config_error error = {""};
    char text[16];
    config_model_init(&model, &config);
    snprintf(text, sizeof text, "%d", version);
    ck_assert(config_model_set(&model, "name", name, &error) && config_model_set(&model, "path", path, &error));
    ck_assert(config_model_set(&model, "max_batch_size", "1", &error));
    ck_assert(!version || config_model_set(&model, "version", text, &error));
    ck_assert(!lazy || config_model_set(&model, "lazy", "true", &error));
    ck_assert_msg(config_append_model(&config, &model, &error), "%s", error.message);
}

/* ---- what is asked of the loader ---- */

struct answer {
    sem_t there;
    struct model *model;
    vit_status status;
    vit_error error;
    int times;
    int64_t told_us;
};

static void applied(void *context, vit_status status, const vit_error *error)
{
    struct answer *answer = context;
    answer->status = status;
    answer->error = *error;
    answer->times++;
    answer->told_us = job_clock_us();
    sem_post(&answer->there);
}

static void done(void *context, struct model *model, vit_status status, const vit_error *error)
{
    struct answer *answer = context;
    answer->model = model;
    applied(context, status, error);
}

static vit_status apply(void)
{
    struct answer answer = {0};
    sem_init(&answer.there, 0, 0);
    ck_assert(loader_apply(loader, &config, applied, &answer));
    sem_wait(&answer.there);
    sem_destroy(&answer.there);
    return answer.status;
}

static vit_error why;

/* The message, if it fails, is in `why`. */
static vit_status ask(enum loader_wish wish, const char *id)
{
    struct answer answer = {0};
    sem_init(&answer.there, 0, 0);
    ck_assert(loader_ask(loader, wish, id, NULL, done, &answer));
    sem_wait(&answer.there);
    sem_destroy(&answer.there);
    ck_assert_int_eq(answer.model != NULL, answer.status == VIT_OK && wish != LOADER_UNLOAD);
    why = answer.error;
    model_unref(answer.model);
    return answer.status;
}

/* Asserts what a name finds, and of which id. */
static void assert_finds(const char *name, const char *version, enum found expected, const char *expected_id)
{
    char id[MODEL_ID_BYTES] = "";
    struct model *model = NULL;
    const enum found found = registry_find(registry, name, version, &model, id);
    ck_assert_msg(found == expected && strcmp(id, expected_id) == 0, "%s: %d %s, not %d %s", name ? name : "NULL", found, id,
                  expected, expected_id);
    ck_assert_int_eq(model != NULL, found == FOUND_READY);
    if (model)
        ck_assert_str_eq(model->id, expected_id);
    model_unref(model);
}

static enum model_state state_of(const char *id)
{
    struct listed listed;
    ck_assert_msg(registry_look(registry, id, &listed), "%s", id);
    const enum model_state state = listed.state;
    listed_release(&listed);
    return state;
}

static size_t bytes_of(const char *id)
{
    struct listed listed;
    ck_assert_msg(registry_look(registry, id, &listed), "%s", id);
    const size_t bytes = listed.bytes;
    listed_release(&listed);
    return bytes;
}

/* ---- finding ---- */

START_TEST(test_names_and_versions)
{
    add("b", 0, false, SMALL);
    add("a", 1, false, SMALL);
    add("a", 10, false, SMALL);
    add("a", 9, false, SMALL);
    assert_finds("a", NULL, FOUND_NOTHING, "");
    assert_finds(NULL, NULL, FOUND_NOTHING, "");
    ck_assert_int_eq(apply(), VIT_OK);
    assert_finds(NULL, NULL, FOUND_READY, "b");
    assert_finds("", NULL, FOUND_READY, "b");
    assert_finds("b", NULL, FOUND_READY, "b");
    assert_finds("b:1", NULL, FOUND_READY, "b");
    assert_finds("b:2", NULL, FOUND_NOTHING, "");
    assert_finds("a", NULL, FOUND_READY, "a:10");
    assert_finds("a:1", NULL, FOUND_READY, "a:1");
    assert_finds("a:9", NULL, FOUND_READY, "a:9");
    assert_finds("a", "9", FOUND_READY, "a:9");
    static const char *const unknown[] = {"a:", "a:01", "a: 1", "a:+1", "a:1x", "a:99999999999999999999", "a:1:1", "A",
                                          "ab",  "a:b"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_finds(unknown[i], NULL, FOUND_NOTHING, "");
    assert_finds("a:1", "1", FOUND_NOTHING, "");
    char long_name[200];
    memset(long_name, 'a', sizeof long_name);
    long_name[199] = '\0';
    assert_finds(long_name, NULL, FOUND_NOTHING, "");
}
END_TEST

/* A name without a version is the highest that can answer. */
START_TEST(test_highest_version_that_is_there)
{
    add("a", 1, false, SMALL);
    add("a", 2, true, SMALL);
    add("a", 3, false, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    assert_finds("a", NULL, FOUND_READY, "a:3");
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a:3"), VIT_OK);
    assert_finds("a", NULL, FOUND_LAZY, "a:2");
    assert_finds("a:3", NULL, FOUND_AWAY, "a:3");
    ck_assert_int_eq(ask(LOADER_LOAD, "a:2"), VIT_OK);
    assert_finds("a", NULL, FOUND_READY, "a:2");
    ck_assert_int_eq(ask(LOADER_LOAD, "a:3"), VIT_OK);
    assert_finds("a", NULL, FOUND_READY, "a:3");
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a:1"), VIT_OK);
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a:3"), VIT_OK);
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a:2"), VIT_OK);
    assert_finds("a", NULL, FOUND_LAZY, "a:2");
}
END_TEST

START_TEST(test_names_are_listed_for_people)
{
    char names[400], few[8];
    registry_names(registry, names, sizeof names);
    ck_assert_str_eq(names, "none");
    add("a", 1, true, SMALL);
    add("b", 0, true, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    registry_names(registry, names, sizeof names);
    ck_assert_str_eq(names, "a:1, b");
    registry_names(registry, few, 5);
    ck_assert_str_eq(few, "a:1,");
}
END_TEST

/* ---- references ---- */

/* What has been found stays, whatever becomes of the list; the last to let go frees it (LeakSanitizer looks on). */
START_TEST(test_references_keep_a_replaced_model_alive)
{
    char id[MODEL_ID_BYTES];
    struct model *model = NULL;
    struct listed *copy;
    size_t count;
    add("a", 0, false, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert_int_eq(registry_find(registry, "a", NULL, &model, id), FOUND_READY);
    copy = registry_list(registry, &count);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(atomic_load(&model->references), 3);
    config_clear_models(&config);
    add("b", 0, false, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    assert_finds("a", NULL, FOUND_NOTHING, "");
    ck_assert_uint_eq(atomic_load(&model->references), 2);
    ck_assert_str_eq(copy[0].model->id, "a");
    registry_list_free(copy, count);
    ck_assert_uint_eq(atomic_load(&model->references), 1);
    const vit_model_info *info = vit_model_describe(model->vit);
    float *pixels = calloc(3 * info->image_height * info->image_width, sizeof *pixels);
    float *logits = calloc(info->classes, sizeof *logits);
    ck_assert_int_eq(
        vit_session_run(model->sessions[0], &(vit_item){.pixels = pixels, .logits = logits}, 1, &why), VIT_OK);
    free(pixels);
    free(logits);
    model_unref(model);
}
END_TEST

/* A model that has not changed is the same one after a configuration has been applied again. */
START_TEST(test_unchanged_model_is_kept)
{
    char id[MODEL_ID_BYTES], folder[FOLDER_BYTES], path[64];
    struct model *before = NULL, *after = NULL;
    folder_make(folder);
    folder_add(folder, "m", SMALL);
    snprintf(path, sizeof path, "%s/m", folder);
    add("a", 0, false, path);
    ck_assert_int_eq(apply(), VIT_OK);
    registry_find(registry, "a", NULL, &before, id);
    ck_assert_int_eq(apply(), VIT_OK);
    registry_find(registry, "a", NULL, &after, id);
    ck_assert_ptr_eq(before, after);
    model_unref(after);
    folder_write(path, "new-file", "x");
    ck_assert_int_eq(apply(), VIT_OK);
    registry_find(registry, "a", NULL, &after, id);
    ck_assert_ptr_ne(before, after);
    model_unref(after);
    config.models[0].max_batch_size = 2;
    ck_assert_int_eq(apply(), VIT_OK);
    model_unref(before);
    registry_find(registry, "a", NULL, &before, id);
    ck_assert_ptr_ne(before, after);
    ck_assert_uint_eq(before->lane.max_batch, 2);
    model_unref(before);
    folder_remove(folder);
}
END_TEST

/* ---- room ---- */

/* Bytes by which two of one folder may differ: malloc() rounds up. */
enum { SLACK = 65536 };

static void assert_loaded(size_t count, size_t one)
{
    const size_t bytes = registry_bytes(registry);
    ck_assert_msg(bytes + SLACK > count * one && bytes < count * one + SLACK, "%zu bytes are not %zu times %zu", bytes, count,
                  one);
}

/* a, b, c, used in this order. */
static void three_lazy_models(void)
{
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++)
        add(names[i], 0, true, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(ask(LOADER_LOAD, names[i]), VIT_OK);
        assert_finds(names[i], NULL, FOUND_READY, names[i]);
        usleep(10);
    }
}

/* Other bytes in a file that looks as it did. */
static void damage_unseen(const char *folder, const char *name)
{
    char path[128];
    struct stat before;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(fstat(fd, &before), 0);
    ck_assert_int_eq(pwrite(fd, "xxxx", 4, 0), 4);
    ck_assert_int_eq(futimens(fd, (struct timespec[]){before.st_atim, before.st_mtim}), 0);
    close(fd);
}

/* Looking does not count as use. */
START_TEST(test_least_recently_used_goes_first)
{
    char id[MODEL_ID_BYTES];
    three_lazy_models();
    assert_finds("a", NULL, FOUND_READY, "a");
    ck_assert_int_eq(registry_find(registry, "b", NULL, NULL, id), FOUND_READY);
    ck_assert(registry_evict(registry, "", id));
    ck_assert_str_eq(id, "b");
    ck_assert(registry_evict(registry, "c", id));
    ck_assert_str_eq(id, "a");
    ck_assert(!registry_evict(registry, "c", id));
    ck_assert(registry_evict(registry, "", id));
    ck_assert_str_eq(id, "c");
    ck_assert(!registry_evict(registry, "", id));
    ck_assert_int_eq(state_of("a"), MODEL_UNLOADED);
    ck_assert_uint_eq(registry_bytes(registry), 0);
}
END_TEST

START_TEST(test_only_lazy_models_make_room)
{
    char id[MODEL_ID_BYTES];
    add("a", 0, false, SMALL);
    add("b", 0, true, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert(!registry_evict(registry, "", id));
    ck_assert_int_eq(ask(LOADER_LOAD, "b"), VIT_OK);
    ck_assert_uint_eq(registry_bytes(registry), bytes_of("a") + bytes_of("b"));
    ck_assert_uint_eq(registry_fixed_bytes(registry, ""), bytes_of("a"));
    ck_assert_uint_eq(registry_fixed_bytes(registry, "a"), 0);
    ck_assert(registry_evict(registry, "", id));
    ck_assert_str_eq(id, "b");
    ck_assert_int_eq(state_of("a"), MODEL_READY);
}
END_TEST

/* A bound that is lowered under what is loaded lets go of lazy models at once, and is refused where others need more. */
START_TEST(test_budget_of_a_configuration)
{
    three_lazy_models();
    const size_t one = bytes_of("a");
    config.model_memory_bytes = (long long)(2 * one + SLACK);
    ck_assert_int_eq(apply(), VIT_OK);
    assert_loaded(2, one);
    ck_assert_int_eq(state_of("a"), MODEL_UNLOADED);
    ck_assert_int_eq(ask(LOADER_LOAD, "a"), VIT_OK);
    ck_assert_int_eq(state_of("b"), MODEL_UNLOADED);
    for (size_t i = 0; i < 3; i++)
        config.models[i].lazy = 0;
    config.model_memory_bytes = 1000;
    ck_assert_int_eq(apply(), VIT_ERR_NO_MEMORY);
    assert_loaded(2, one);
    ck_assert_int_eq(ask(LOADER_LOAD, "b"), VIT_OK); /* it is lazy still, and the old bound holds */
    config.model_memory_bytes = (long long)(3 * one + SLACK);
    ck_assert_int_eq(apply(), VIT_OK);
    assert_loaded(3, one);
}
END_TEST

/* A model that can never fit is refused, makes nobody give way, and is not opened again to find out. */
START_TEST(test_too_large_a_model_evicts_nobody)
{
    char folder[FOLDER_BYTES], path[64];
    three_lazy_models();
    const size_t one = bytes_of("a");
    folder_make(folder);
    folder_add(folder, "large", "config/models/vit-tiny-64");
    snprintf(path, sizeof path, "%s/large", folder);
    add("large", 0, true, path);
    config.model_memory_bytes = (long long)(3 * one + SLACK);
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ask(LOADER_LOAD, "large"), VIT_ERR_NO_MEMORY);
        ck_assert_msg(strstr(why.message, "model large: needs ") && strstr(why.message, "model_memory_bytes"), "%s", why.message);
        ck_assert_int_eq(state_of("large"), MODEL_FAILED);
        assert_loaded(3, one);
        ck_assert_uint_gt(bytes_of("large"), 3 * one);
        damage_unseen(path, "config.json");
    }
    /* smaller weights behind the same name are another matter */
    folder_add(folder, "large", SMALL);
    ck_assert_int_eq(ask(LOADER_LOAD, "large"), VIT_OK);
    assert_loaded(3, one);
    ck_assert_int_eq(state_of("a"), MODEL_UNLOADED);
    folder_remove(folder);
}
END_TEST

/* A model that cannot be opened takes the place of others once, not with each request for it. */
START_TEST(test_broken_model_evicts_once)
{
    static const char *const sound[] = {"a", "b", "c"};
    char folder[FOLDER_BYTES], path[64];
    three_lazy_models();
    const size_t one = bytes_of("a");
    folder_make(folder);
    folder_add(folder, "broken", SMALL);
    snprintf(path, sizeof path, "%s/broken", folder);
    folder_write(path, "config.json", "{}");
    add("broken", 0, true, path);
    config.model_memory_bytes = (long long)(3 * one + SLACK);
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert_int_ne(ask(LOADER_LOAD, "broken"), VIT_OK);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(ask(LOADER_LOAD, sound[i]), VIT_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_ne(ask(LOADER_LOAD, "broken"), VIT_OK);
        assert_loaded(3, one);
    }
    folder_remove(path);
    folder_add(folder, "broken", SMALL);
    ck_assert_int_eq(ask(LOADER_LOAD, "broken"), VIT_OK);
    assert_loaded(3, one);
    folder_remove(folder);
}
END_TEST

/* ---- failures ---- */

START_TEST(test_failures_have_their_status)
{
    char deep[5001];
    memset(deep, 'x', sizeof deep - 1);
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    add("a", 0, true, "/nonexistent");
    add("deep", 0, true, deep);
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert_int_eq(ask(LOADER_LOAD, "none"), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(ask(LOADER_LOAD, "a"), VIT_ERR_IO);
    ck_assert_msg(strstr(why.message, "model a: ") && strstr(why.message, "/nonexistent"), "%s", why.message);
    ck_assert_int_eq(state_of("a"), MODEL_FAILED);
    assert_finds("a", NULL, FOUND_LAZY, "a"); /* the next request tries again */
    ck_assert_int_eq(ask(LOADER_LOAD, "deep"), VIT_ERR_UNSUPPORTED); /* ARGUMENT is "there is no such model" */
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a"), VIT_OK);
    ck_assert_int_eq(state_of("a"), MODEL_UNLOADED);
}
END_TEST

enum { MANY = 20 };

/* Everybody who waits for one attempt has its answer; who asks later has the next. */
START_TEST(test_those_who_wait_share_a_failure)
{
    char folder[FOLDER_BYTES], path[64];
    struct answer answers[MANY] = {0};
    struct listed listed;
    folder_make(folder);
    snprintf(path, sizeof path, "%s/m", folder);
    add("slow", 0, true, "config/models/vit-tiny-64");
    add("a", 0, true, path);
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < MANY; i++) {
        sem_init(&answers[i].there, 0, 0);
        ck_assert(loader_ask(loader, LOADER_LOAD, i ? "a" : "slow", NULL, done, &answers[i]));
    }
    for (int i = 0; i < MANY; i++)
        sem_wait(&answers[i].there);
    model_unref(answers[0].model);
    ck_assert(registry_look(registry, "a", &listed));
    for (int i = 1; i < MANY; i++) {
        ck_assert_int_eq(answers[i].status, VIT_ERR_IO);
        ck_assert_str_eq(answers[i].error.message, answers[1].error.message);
        ck_assert_int_le(listed.failed_us, answers[i].told_us);
        sem_destroy(&answers[i].there);
    }
    listed_release(&listed);
    folder_add(folder, "m", SMALL);
    ck_assert_int_eq(ask(LOADER_LOAD, "a"), VIT_OK);
    folder_remove(folder);
}
END_TEST

/* What did not fit is not refused any longer than it does not. */
START_TEST(test_room_is_found_at_once)
{
    three_lazy_models();
    const size_t one = bytes_of("a");
    config.models[1].lazy = 0;
    config.models[2].lazy = 0;
    config.model_memory_bytes = (long long)(2 * one + SLACK);
    ck_assert_int_eq(ask(LOADER_UNLOAD, "a"), VIT_OK);
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_ERR_NO_MEMORY);
    ck_assert_int_eq(ask(LOADER_UNLOAD, "b"), VIT_OK);
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_OK);
}
END_TEST

static int64_t failed_us(const char *id)
{
    struct listed listed;
    ck_assert(registry_look(registry, id, &listed));
    const int64_t failed_us = listed.failed_us;
    listed_release(&listed);
    return failed_us;
}

/* Requests for a broken model do not have it opened each time; an operator does, and so does a change of its folder. */
START_TEST(test_requests_do_not_repeat_a_failure)
{
    char folder[FOLDER_BYTES], path[64];
    folder_make(folder);
    folder_add(folder, "m", SMALL);
    snprintf(path, sizeof path, "%s/m", folder);
    folder_write(path, "config.json", "{}");
    add("a", 0, true, path);
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_ERR_FORMAT);
    const int64_t first = failed_us("a");
    const vit_error said = why;
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_ERR_FORMAT);
    ck_assert_str_eq(why.message, said.message);
    ck_assert_int_eq(failed_us("a"), first);
    ck_assert_int_eq(ask(LOADER_LOAD, "a"), VIT_ERR_FORMAT);
    ck_assert_int_gt(failed_us("a"), first);
    folder_remove(path);
    folder_add(folder, "m", SMALL);
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_OK);
    folder_remove(folder);
}
END_TEST

START_TEST(test_a_failure_is_forgotten)
{
    add("a", 0, true, "/nonexistent");
    ck_assert_int_eq(apply(), VIT_OK);
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_ERR_IO);
    const int64_t first = failed_us("a");
    usleep(5100000);
    ck_assert_int_eq(ask(LOADER_NEED, "a"), VIT_ERR_IO);
    ck_assert_int_gt(failed_us("a"), first);
}
END_TEST

/* ---- the end ---- */

/* Whoever has asked is told, once, when the loader stops. */
START_TEST(test_stop_forgets_nobody)
{
    struct answer answers[MANY] = {0};
    add("a", 0, true, "config/models/vit-tiny-64");
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < MANY; i++) {
        sem_init(&answers[i].there, 0, 0);
        if (i % 4 == 3)
            ck_assert(loader_apply(loader, &config, applied, &answers[i]));
        else
            ck_assert(loader_ask(loader, i % 4 == 2 ? LOADER_UNLOAD : LOADER_LOAD, "a", NULL, done, &answers[i]));
    }
    loader_stop(loader);
    loader = NULL;
    int refused = 0;
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(answers[i].times, 1);
        ck_assert(answers[i].status == VIT_OK || answers[i].status == VIT_ERR_UNSUPPORTED);
        refused += answers[i].status == VIT_ERR_UNSUPPORTED;
        model_unref(answers[i].model);
        sem_destroy(&answers[i].there);
    }
    ck_assert_int_gt(refused, 0);
}
END_TEST

/* ---- many threads ---- */

static atomic_bool over;

static void *find_again_and_again(void *argument)
{
    (void)argument;
    size_t found = 0;
    while (!atomic_load(&over)) {
        char id[MODEL_ID_BYTES];
        struct model *model = NULL;
        if (registry_find(registry, "a", NULL, &model, id) == FOUND_READY)
            found += model->lane.max_batch + strlen(model->id) > 0;
        model_unref(model);
    }
    return found ? &over : NULL;
}

/* TSan and ASan look on. */
START_TEST(test_finding_while_it_changes)
{
    pthread_t threads[2];
    add("a", 0, true, SMALL);
    ck_assert_int_eq(apply(), VIT_OK);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, find_again_and_again, NULL);
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(ask(LOADER_LOAD, "a"), VIT_OK);
        config.models[0].max_batch_size = 1 + i % 3;
        if (i % 2)
            ck_assert_int_eq(apply(), VIT_OK);
        else
            ck_assert_int_eq(ask(LOADER_UNLOAD, "a"), VIT_OK);
    }
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {
        test_names_and_versions, test_highest_version_that_is_there, test_names_are_listed_for_people,
        test_references_keep_a_replaced_model_alive, test_unchanged_model_is_kept, test_least_recently_used_goes_first,
        test_only_lazy_models_make_room, test_budget_of_a_configuration, test_too_large_a_model_evicts_nobody,
        test_broken_model_evicts_once, test_failures_have_their_status, test_those_who_wait_share_a_failure,
        test_room_is_found_at_once, test_requests_do_not_repeat_a_failure, test_a_failure_is_forgotten, test_stop_forgets_nobody,
        test_finding_while_it_changes};
    vit_blas_init();
    Suite *suite = suite_create("registry");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, start, end);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

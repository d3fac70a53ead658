/* registry.c - see registry.h. */
#include "server/models/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/work/job.h"

struct registry {
    pthread_mutex_t mutex; /* protects the two below */
    struct listed *list;
    size_t count;
};

const char *model_state_name(enum model_state state)
{
    static const char *const names[] = {"unloaded", "loading", "ready", "failed"};
    return names[state];
}

struct registry *registry_create(void)
{
    struct registry *registry = calloc(1, sizeof *registry);
    if (registry)
        pthread_mutex_init(&registry->mutex, NULL);
    return registry;
}

void registry_free(struct registry *registry)
{
    if (!registry)
        return;
    registry_list_free(registry->list, registry->count);
    pthread_mutex_destroy(&registry->mutex);
    free(registry);
}

/* ---- lines ---- */

void listed_release(struct listed *listed)
{
    model_unref(listed->model);
    config_model_release(&listed->configured);
    *listed = (struct listed){0};
}

void registry_list_free(struct listed *list, size_t count)
{
    for (size_t i = 0; list && i < count; i++)
        listed_release(&list[i]);
    free(list);
}

/* With the mutex held. */
static void copy_line(struct listed *copy, const struct listed *line)
{
    *copy = *line;
    config_model_copy(&copy->configured, &line->configured);
    if (copy->model)
        model_ref(copy->model);
}

static struct listed *find_id(struct registry *registry, const char *id)
{
    for (size_t i = 0; i < registry->count; i++)
        if (strcmp(registry->list[i].id, id) == 0)
            return &registry->list[i];
    return NULL;
}

/* ---- finding ---- */

static bool is_there(const struct listed *line)
{
    return line->state == MODEL_READY || line->configured.lazy;
}

/* Whether `line` is a better answer to a name without a version. */
static bool is_better(const struct listed *line, const struct listed *best)
{
    if (!best || is_there(line) != is_there(best))
        return !best || is_there(line);
    return line->configured.version > best->configured.version;
}

/* With the mutex held. name has no version in it. */
static struct listed *choose(struct registry *registry, const char *name, const char *version)
{
    struct listed *best = NULL;
    for (size_t i = 0; i < registry->count; i++) {
        struct listed *line = &registry->list[i];
        char own[16];
        snprintf(own, sizeof own, "%d", line->configured.version ? line->configured.version : 1);
        if (strcmp(line->configured.name, name) != 0 || (version && strcmp(version, own) != 0))
            continue;
        if (is_better(line, best))
            best = line;
    }
    return best;
}

static enum found take(struct listed *line, struct model **model, char id[MODEL_ID_BYTES])
{
    snprintf(id, MODEL_ID_BYTES, "%s", line->id);
    if (model)
        line->used_us = job_clock_us();
    if (line->state != MODEL_READY)
        return line->configured.lazy ? FOUND_LAZY : FOUND_AWAY;
    if (model)
        *model = model_ref(line->model);
    return FOUND_READY;
}

enum found registry_find(struct registry *registry, const char *name, const char *version, struct model **model,
                         char id[MODEL_ID_BYTES])
{
    char alone[CONFIG_MAX_NAME + 1];
    const char *colon = name ? strchr(name, ':') : NULL;
    const size_t length = !name ? 0 : colon ? (size_t)(colon - name) : strlen(name);
    if (length >= sizeof alone || (colon && version))
        return FOUND_NOTHING;
    snprintf(alone, sizeof alone, "%.*s", (int)length, name ? name : "");
    pthread_mutex_lock(&registry->mutex);
    const char *first = registry->count ? registry->list[0].configured.name : "";
    struct listed *line = choose(registry, *alone ? alone : first, colon ? colon + 1 : version);
    const enum found found = line ? take(line, model, id) : FOUND_NOTHING;
    pthread_mutex_unlock(&registry->mutex);
    return found;
}

/* ---- looking ---- */

size_t registry_versions(struct registry *registry, const char *name)
{
    size_t count = 0;
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count; i++)
        count += strcmp(registry->list[i].configured.name, name) == 0;
    pthread_mutex_unlock(&registry->mutex);
    return count;
}

struct listed *registry_list(struct registry *registry, size_t *count)
{
    pthread_mutex_lock(&registry->mutex);
    *count = registry->count;
    struct listed *list = calloc(registry->count + 1, sizeof *list);
    for (size_t i = 0; list && i < registry->count; i++)
        copy_line(&list[i], &registry->list[i]);
    pthread_mutex_unlock(&registry->mutex);
    return list;
}

bool registry_look(struct registry *registry, const char *id, struct listed *listed)
{
    pthread_mutex_lock(&registry->mutex);
    const struct listed *line = find_id(registry, id);
    if (line)
        copy_line(listed, line);
    pthread_mutex_unlock(&registry->mutex);
    return line != NULL;
}

void registry_names(struct registry *registry, char *names, size_t size)
{
    size_t length = 0;
    snprintf(names, size, "none");
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count && length < size; i++)
        length += (size_t)snprintf(names + length, size - length, "%s%s", i ? ", " : "", registry->list[i].id);
    pthread_mutex_unlock(&registry->mutex);
}

size_t registry_bytes(struct registry *registry)
{
    size_t bytes = 0;
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count; i++)
        bytes += registry->list[i].model ? registry->list[i].model->bytes : 0;
    pthread_mutex_unlock(&registry->mutex);
    return bytes;
}

size_t registry_fixed_bytes(struct registry *registry, const char *except)
{
    size_t bytes = 0;
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count; i++) {
        const struct listed *line = &registry->list[i];
        if (line->model && !line->configured.lazy && strcmp(line->id, except) != 0)
            bytes += line->model->bytes;
    }
    pthread_mutex_unlock(&registry->mutex);
    return bytes;
}

int64_t registry_patience_us(struct registry *registry)
{
    int64_t longest = 0;
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count; i++) {
        const struct model *model = registry->list[i].model;
        const int64_t patience = model ? 10 * model->image_us * (int64_t)model->lane.max_batch : 0;
        longest = patience > longest ? patience : longest;
    }
    pthread_mutex_unlock(&registry->mutex);
    return longest;
}

/* ---- changing ---- */

void registry_replace(struct registry *registry, struct listed *list, size_t count)
{
    pthread_mutex_lock(&registry->mutex);
    struct listed *old = registry->list;
    const size_t old_count = registry->count;
    registry->list = list;
    registry->count = count;
    pthread_mutex_unlock(&registry->mutex);
    registry_list_free(old, old_count);
}

/* With the mutex held; the model that was there is the caller's. */
static struct model *change(struct listed *line, enum model_state state, struct model *model)
{
    struct model *old = line->model;
    line->model = model;
    line->state = state;
    line->failure = VIT_OK;
    line->why[0] = '\0';
    return old;
}

void registry_set(struct registry *registry, const char *id, enum model_state state)
{
    pthread_mutex_lock(&registry->mutex);
    struct listed *line = find_id(registry, id);
    struct model *old = line ? change(line, state, NULL) : NULL;
    pthread_mutex_unlock(&registry->mutex);
    model_unref(old);
}

void registry_set_ready(struct registry *registry, const char *id, struct model *model, uint64_t fingerprint)
{
    struct model *old = model;
    pthread_mutex_lock(&registry->mutex);
    struct listed *line = find_id(registry, id);
    if (line) {
        old = change(line, MODEL_READY, model);
        line->fingerprint = fingerprint;
        line->bytes = model->bytes;
    }
    pthread_mutex_unlock(&registry->mutex);
    model_unref(old);
}

void registry_set_failed(struct registry *registry, const char *id, vit_status status, const char *why,
                         uint64_t fingerprint, size_t bytes)
{
    struct model *old = NULL;
    pthread_mutex_lock(&registry->mutex);
    struct listed *line = find_id(registry, id);
    if (line) {
        old = change(line, MODEL_FAILED, NULL);
        line->fingerprint = fingerprint;
        line->bytes = bytes;
        line->failure = status;
        line->failed_us = job_clock_us();
        snprintf(line->why, sizeof line->why, "%s", why);
    }
    pthread_mutex_unlock(&registry->mutex);
    model_unref(old);
}

bool registry_evict(struct registry *registry, const char *except, char evicted[MODEL_ID_BYTES])
{
    struct model *model = NULL;
    struct listed *oldest = NULL;
    pthread_mutex_lock(&registry->mutex);
    for (size_t i = 0; i < registry->count; i++) {
        struct listed *line = &registry->list[i];
        if (line->configured.lazy && line->state == MODEL_READY && strcmp(line->id, except) != 0 &&
            (!oldest || line->used_us < oldest->used_us))
            oldest = line;
    }
    if (oldest) {
        snprintf(evicted, MODEL_ID_BYTES, "%s", oldest->id);
        model = oldest->model;
        oldest->model = NULL;
        oldest->state = MODEL_UNLOADED;
    }
    pthread_mutex_unlock(&registry->mutex);
    model_unref(model);
    return oldest != NULL;
}

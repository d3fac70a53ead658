/*
 * loader.c - see loader.h. The mutex protects the list of what is asked, `current`, `told` and `stopping`; everything else is
 * the thread's.
 */
#include "server/models/loader.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/failure.h"
#include "server/log.h"
#include "server/work/job.h"

enum { RETRY_US = 5000000 };

struct task {
    struct task *next;
    const struct config *config; /* NULL: a wish */
    loader_applied *applied;
    enum loader_wish wish;
    char id[MODEL_ID_BYTES];
    int64_t asked_us;
    loader_given_up *given_up; /* NULL: never */
    loader_done *done;
    void *context;
    bool told; /* of the current one: done has been called, or is about to be */
};

struct loader {
    struct registry *registry;
    struct metrics *metrics;
    size_t workers;
    long long max_bytes; /* 0: no bound */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t asked;
    struct task *first, **last;
    struct task *current; /* what the thread is at; NULL: nothing */
    bool stopping;
};

/* ---- folders ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/* Which files a folder holds, and in which state; *bytes: the size of the weights in it. The order of the directory does
 * not count. */
static uint64_t look_at_folder(const char *path, size_t *bytes)
{
    uint64_t sum = 0;
    DIR *folder = opendir(path);
    *bytes = 0;
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat status;
        const char *dot = strrchr(entry->d_name, '.');
        if (entry->d_name[0] == '.' || fstatat(dirfd(folder), entry->d_name, &status, 0) < 0)
            continue;
        uint64_t hash = mix(mix(0, (uint64_t)status.st_dev), (uint64_t)status.st_ino);
        hash = mix(mix(hash, (uint64_t)status.st_size), (uint64_t)status.st_mtim.tv_sec);
        hash = mix(hash, (uint64_t)status.st_mtim.tv_nsec);
        for (const char *p = entry->d_name; *p; p++)
            hash = mix(hash, (unsigned char)*p);
        sum += hash;
        if (dot && strcmp(dot, ".safetensors") == 0)
            *bytes += (size_t)status.st_size;
    }
    if (folder)
        closedir(folder);
    return sum;
}

/* ---- opening ---- */

/* What /metrics says of a model that is in force from now on. */
static void tell(struct metrics *metrics, const struct model *model)
{
    char labels[512];
    const vit_model_info *info = vit_model_describe(model->vit);
    snprintf(labels, sizeof labels,
             "architecture=\"%.40s\",layout=\"%.40s\",dtype=\"%.20s\",image_size=\"%zux%zu\",classes=\"%zu\","
             "parameters=\"%llu\"",
             info->architecture, info->layout, info->dtype, info->image_height, info->image_width, model_class_count(model),
             (unsigned long long)info->parameters);
    metrics_set_model_info(metrics, model->metrics, labels);
}

static void log_opened(const struct model *model, const struct config_model *configured)
{
    const vit_model_info *info = vit_model_describe(model->vit);
    const vit_dtype dtype = model_options(configured).dtype;
    log_info("model %s: %s, %zux%zu, %zu classes, %s%s, %.0f MB", model->id, info->architecture, info->image_width,
             info->image_height, model_class_count(model), info->dtype, model->draft ? ", draft" : "",
             (double)model->bytes / 1e6);
    if (dtype != VIT_DTYPE_FP32 && !vit_dtype_is_fast(dtype)) /* they are for speed: say so where they bring none */
        log_warn("model %s: this CPU has no instructions for %s, which is slower than fp32 then", model->id,
                 vit_dtype_name(dtype));
}

static void unloaded(struct loader *loader, const char *id, const char *why)
{
    metrics_set_model_info(loader->metrics, metrics_model(loader->metrics, id), NULL);
    log_info("model %s: unloaded%s", id, why);
}

/* Whether the model `id` with its `wanted` bytes fits where all lazy ones have made room. */
static bool can_fit(const struct loader *loader, const char *id, size_t wanted)
{
    const unsigned long long max = (unsigned long long)loader->max_bytes;
    return !max || registry_fixed_bytes(loader->registry, id) + wanted <= max;
}

/* Lets it fit beside what is in memory, `own` of it not counted; false: it cannot, and none has made room in vain. */
static bool make_room(struct loader *loader, const char *id, size_t own, size_t wanted)
{
    char evicted[MODEL_ID_BYTES];
    const unsigned long long max = (unsigned long long)loader->max_bytes;
    if (!can_fit(loader, id, wanted))
        return false;
    while (max && registry_bytes(loader->registry) - own + wanted > max) {
        if (!registry_evict(loader->registry, id, evicted))
            return false;
        unloaded(loader, evicted, ", others need its memory");
    }
    return true;
}

static vit_status over_budget(const struct loader *loader, const struct listed *line, vit_error *err)
{
    return failure_set(err, VIT_ERR_NO_MEMORY,
                "model %s: needs %zu bytes; of model_memory_bytes, %lld, models that are not lazy keep %zu", line->id, line->bytes,
                loader->max_bytes, registry_fixed_bytes(loader->registry, line->id));
}

/* Opens what a line of the list says. */
static vit_status open_line(struct loader *loader, struct listed *line, vit_error *err)
{
    size_t files;
    model_free_unused(); /* their memory may be what is wanted */
    line->fingerprint = look_at_folder(line->configured.path, &files);
    vit_status status = model_open(&line->model, &line->configured, loader->workers, loader->metrics, err);
    if (status != VIT_OK)
        return status;
    line->state = MODEL_READY;
    line->bytes = line->model->bytes;
    log_opened(line->model, &line->configured);
    return VIT_OK;
}

/* ---- one model ---- */

/* The same within the budget; `own` bytes are those of the model that it replaces. */
static vit_status open_within(struct loader *loader, struct listed *line, size_t own, vit_error *err)
{
    size_t files;
    const uint64_t now = look_at_folder(line->configured.path, &files);
    if (line->bytes && now == line->fingerprint && !can_fit(loader, line->id, line->bytes))
        return over_budget(loader, line, err);
    if (line->state != MODEL_FAILED || now != line->fingerprint) /* else it would most likely be in vain */
        make_room(loader, line->id, own, line->bytes ? line->bytes : files); /* as far as is known before */
    line->bytes = 0;
    vit_status status = open_line(loader, line, err);
    if (status == VIT_OK && !make_room(loader, line->id, own, line->bytes))
        status = over_budget(loader, line, err);
    return status == VIT_ERR_ARGUMENT ? VIT_ERR_UNSUPPORTED : status; /* the other says that there is no such model */
}

/* Opens the model of the line anew; the one that was there serves until then. */
static vit_status load(struct loader *loader, struct listed *line, vit_error *err)
{
    struct model *old = line->model;
    if (!old)
        registry_set(loader->registry, line->id, MODEL_LOADING);
    line->model = NULL;
    const vit_status status = open_within(loader, line, old ? old->bytes : 0, err);
    if (status == VIT_OK) {
        registry_set_ready(loader->registry, line->id, model_ref(line->model), line->fingerprint);
        tell(loader->metrics, line->model);
    } else {
        log_error("%s", err->message);
        if (!old)
            registry_set_failed(loader->registry, line->id, status, err->message, line->fingerprint, line->bytes);
        model_unref(line->model);
        line->model = NULL;
    }
    model_unref(old);
    return status;
}

static bool is_changed(const struct listed *line)
{
    size_t files;
    return look_at_folder(line->configured.path, &files) != line->fingerprint;
}

/* Whether to try would most likely be in vain. */
static bool has_just_failed(const struct loader *loader, const struct task *task, const struct listed *line)
{
    if (line->state != MODEL_FAILED)
        return false;
    if (line->failure == VIT_ERR_NO_MEMORY && line->bytes && can_fit(loader, line->id, line->bytes)) /* by now */
        return false;
    if (line->failed_us >= task->asked_us) /* they waited for the same attempt */
        return true;
    return task->wish == LOADER_NEED && job_clock_us() - line->failed_us < RETRY_US && !is_changed(line);
}

static vit_status fulfil(struct loader *loader, const struct task *task, struct listed *line, vit_error *err)
{
    if (task->wish == LOADER_UNLOAD) {
        registry_set(loader->registry, line->id, MODEL_UNLOADED);
        unloaded(loader, line->id, "");
        model_unref(line->model);
        line->model = NULL;
        return VIT_OK;
    }
    if (line->model && (task->wish != LOADER_RELOAD || !is_changed(line)))
        return VIT_OK;
    if (has_just_failed(loader, task, line))
        return failure_set(err, line->failure, "%s", line->why);
    return load(loader, line, err);
}

/* Calls done, unless loader_sweep() has. */
static void tell_done(struct loader *loader, struct task *task, struct model *model, vit_status status,
                      const vit_error *error)
{
    pthread_mutex_lock(&loader->mutex);
    const bool told = task->told;
    task->told = true;
    pthread_mutex_unlock(&loader->mutex);
    if (told)
        model_unref(model);
    else
        task->done(task->context, model, status, error);
}

static void do_wish(struct loader *loader, struct task *task)
{
    struct listed line;
    vit_error error = {{0}};
    if (!registry_look(loader->registry, task->id, &line)) {
        failure_set(&error, VIT_ERR_ARGUMENT, "there is no model %s any more", task->id);
        tell_done(loader, task, NULL, VIT_ERR_ARGUMENT, &error);
        return;
    }
    const vit_status status = fulfil(loader, task, &line, &error);
    struct model *model = status == VIT_OK ? line.model : NULL;
    if (model)
        line.model = NULL; /* its reference goes on to who asked */
    listed_release(&line);
    tell_done(loader, task, model, status, &error);
}

/* ---- all models ---- */

/* What is in memory and has not changed goes on. */
static bool keep(struct loader *loader, struct listed *line)
{
    struct listed old;
    if (!registry_look(loader->registry, line->id, &old))
        return false;
    const bool same = old.model && config_model_equal(&old.configured, &line->configured) && !is_changed(&old);
    line->bytes = old.bytes;
    if (same) {
        line->model = model_ref(old.model);
        line->state = MODEL_READY;
        line->fingerprint = old.fingerprint;
        line->used_us = old.used_us;
    }
    listed_release(&old);
    return same;
}

static vit_status fill(struct loader *loader, struct listed *list, const struct config *config, size_t *count,
                       vit_error *err)
{
    const unsigned long long max = (unsigned long long)loader->max_bytes;
    size_t bytes = 0; /* of those that will not make room for others */
    vit_status status = VIT_OK;
    for (; status == VIT_OK && *count < config->model_count; ++*count) {
        struct listed *line = &list[*count];
        config_model_copy(&line->configured, &config->models[*count]);
        model_make_id(&line->configured, line->id);
        if (!keep(loader, line) && !line->configured.lazy)
            status = open_line(loader, line, err);
        else if (!line->model && access(line->configured.path, R_OK | X_OK) < 0)
            log_warn("model %s: %s: %s; requests for it will fail", line->id, line->configured.path, strerror(errno));
        bytes += line->model && !line->configured.lazy ? line->bytes : 0;
        if (status == VIT_OK && max && bytes > max)
            status = over_budget(loader, line, err);
    }
    return status;
}

/* Models that are not in the new list are in memory no more. */
static void forget_gone(struct loader *loader, const struct listed *old, size_t old_count)
{
    for (size_t i = 0; i < old_count; i++) {
        struct listed line;
        if (registry_look(loader->registry, old[i].id, &line)) {
            const bool loaded = line.model != NULL;
            listed_release(&line);
            if (loaded)
                continue;
        }
        if (old[i].model)
            metrics_set_model_info(loader->metrics, old[i].model->metrics, NULL);
    }
}

static void apply(struct loader *loader, const struct task *task)
{
    const struct config *config = task->config;
    struct listed *list = calloc(config->model_count + 1, sizeof *list), *old = NULL;
    size_t count = 0, old_count = 0;
    vit_error error = {{0}};
    vit_status status = list ? VIT_OK : failure_set(&error, VIT_ERR_NO_MEMORY, "out of memory");
    const long long max_bytes = loader->max_bytes;
    loader->max_bytes = config->model_memory_bytes;
    if (status == VIT_OK)
        status = fill(loader, list, config, &count, &error);
    if (status == VIT_OK && !(old = registry_list(loader->registry, &old_count)))
        status = failure_set(&error, VIT_ERR_NO_MEMORY, "out of memory");
    if (status == VIT_OK) {
        for (size_t i = 0; i < count; i++)
            if (list[i].model)
                tell(loader->metrics, list[i].model);
        registry_replace(loader->registry, list, count);
        forget_gone(loader, old, old_count);
        make_room(loader, "", 0, 0);
    } else {
        registry_list_free(list, count);
        loader->max_bytes = max_bytes;
    }
    registry_list_free(old, old_count);
    task->applied(task->context, status, &error);
}

/* ---- the thread ---- */

/* Frees what it has taken before, and takes the next. */
static struct task *take(struct loader *loader)
{
    model_free_unused();
    pthread_mutex_lock(&loader->mutex);
    free(loader->current);
    loader->current = NULL;
    while (!loader->first && !loader->stopping)
        pthread_cond_wait(&loader->asked, &loader->mutex);
    struct task *task = loader->stopping ? NULL : loader->first;
    if (task) {
        loader->first = task->next;
        if (!loader->first)
            loader->last = &loader->first;
    }
    loader->current = task;
    pthread_mutex_unlock(&loader->mutex);
    return task;
}

static void *loader_main(void *argument)
{
    struct loader *loader = argument;
    pthread_setname_np(pthread_self(), "vitd-loader");
    for (struct task *task; (task = take(loader)) != NULL;) {
        if (task->config)
            apply(loader, task);
        else
            do_wish(loader, task);
    }
    return NULL;
}

struct loader *loader_start(struct registry *registry, struct metrics *metrics, size_t workers)
{
    struct loader *loader = calloc(1, sizeof *loader);
    if (!loader)
        return NULL;
    *loader = (struct loader){.registry = registry, .metrics = metrics, .workers = workers};
    loader->last = &loader->first;
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->asked, NULL);
    if (pthread_create(&loader->thread, NULL, loader_main, loader) == 0)
        return loader;
    pthread_cond_destroy(&loader->asked);
    pthread_mutex_destroy(&loader->mutex);
    free(loader);
    return NULL;
}

/* What nobody will do any more. */
static void refuse_rest(struct loader *loader)
{
    vit_error error = {"the server is shutting down"};
    for (struct task *task = loader->first, *next; task; task = next) {
        next = task->next;
        if (task->config)
            task->applied(task->context, VIT_ERR_UNSUPPORTED, &error);
        else
            task->done(task->context, NULL, VIT_ERR_UNSUPPORTED, &error);
        free(task);
    }
}

void loader_stop(struct loader *loader)
{
    if (!loader)
        return;
    pthread_mutex_lock(&loader->mutex);
    loader->stopping = true;
    pthread_cond_signal(&loader->asked);
    pthread_mutex_unlock(&loader->mutex);
    pthread_join(loader->thread, NULL);
    refuse_rest(loader);
    pthread_cond_destroy(&loader->asked);
    pthread_mutex_destroy(&loader->mutex);
    free(loader);
}

/* ---- asking ---- */

static bool ask(struct loader *loader, const struct task *wanted)
{
    struct task *task = malloc(sizeof *task);
    if (!task)
        return false;
    *task = *wanted;
    pthread_mutex_lock(&loader->mutex);
    *loader->last = task;
    loader->last = &task->next;
    pthread_cond_signal(&loader->asked);
    pthread_mutex_unlock(&loader->mutex);
    return true;
}

bool loader_apply(struct loader *loader, const struct config *config, loader_applied *done, void *context)
{
    return ask(loader, &(struct task){.config = config, .applied = done, .context = context});
}

bool loader_ask(struct loader *loader, enum loader_wish wish, const char *id, loader_given_up *given_up, loader_done *done,
                void *context)
{
    struct task task = {
        .wish = wish, .asked_us = job_clock_us(), .given_up = given_up, .done = done, .context = context};
    snprintf(task.id, sizeof task.id, "%s", id);
    return ask(loader, &task);
}

/* With the mutex held; true: done has been called. */
static bool give_up(const struct task *task)
{
    const vit_error error = {"nobody waits for the model any more"};
    if (!task->given_up || !task->given_up(task->context))
        return false;
    task->done(task->context, NULL, VIT_ERR_UNSUPPORTED, &error);
    return true;
}

void loader_sweep(struct loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    if (loader->current && !loader->current->told)
        loader->current->told = give_up(loader->current);
    struct task **link = &loader->first;
    while (*link) {
        struct task *task = *link;
        if (give_up(task)) {
            *link = task->next;
            free(task);
        } else {
            link = &task->next;
        }
    }
    loader->last = link;
    pthread_mutex_unlock(&loader->mutex);
}

bool loader_is_busy(struct loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    const bool busy = loader->current || loader->first;
    pthread_mutex_unlock(&loader->mutex);
    return busy;
}

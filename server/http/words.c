/*
 * words.c - requests in words, for a model with a text tower: which labels, targets and texts they name, and their
 * embeddings, from the cache of texts or else from the workers. A request's images come after its words.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/handlers.h"
#include "server/work/words.h"

enum { CHUNK = 64 }; /* texts that a worker embeds at a time, where the queue has room for so many pieces */

/* Texts that nobody has embedded yet, for one job. */
struct words_work {
    size_t count;
    char **sentences;                             /* [count] */
    float *vectors;                               /* [count, D] */
    struct { struct words *words; size_t i; } *places; /* [count]: whose they are */
};

void words_work_free(struct words_work *work)
{
    if (!work)
        return;
    for (size_t i = 0; work->sentences && i < work->count; i++)
        free(work->sentences[i]);
    free(work->sentences);
    free(work->vectors);
    free(work->places);
    free(work);
}

/* ---- what the request names ---- */

static size_t width_of(const struct request *request)
{
    return vit_model_describe(request->model->vit)->embedding_width;
}

/* A list of the request's, made when first asked for. */
static bool open_list(struct request *request, struct words **words, const char *template)
{
    if (!*words)
        *words = words_create(width_of(request), template);
    if (!*words)
        request_out_of_memory(request);
    return *words != NULL;
}

static bool within_bounds(struct request *request)
{
    const size_t most = (size_t)request->settings->config.limits.max_texts_per_request;
    const size_t count = (request->labels ? request->labels->count : 0) + (request->targets ? request->targets->count : 0);
    return count <= most || problem_set(&request->problem, 413, "too_many_texts",
                                        "one request may carry %zu texts (limits.max_texts_per_request)", most);
}

bool request_add_text(struct request *request, struct words **words, const char *template, const char *text, size_t length)
{
    const char *why;
    if (!open_list(request, words, template))
        return false;
    if (!words_add(*words, text, length, &why))
        return problem_set(&request->problem, 400, "invalid_text", "text %zu: %s", (*words)->count, why);
    return within_bounds(request);
}

/* The texts of a query parameter or a form's field; false: the problem says what is wrong. */
static bool add_list(struct request *request, struct words **words, const char *name, const char *list, char separator,
                     const char *template)
{
    const char *why;
    if (!open_list(request, words, template))
        return false;
    if (!words_add_list(*words, list, separator, &why))
        return problem_set(&request->problem, 400, "invalid_text", "%s, text %zu: %s", name, (*words)->count, why);
    return within_bounds(request);
}

/* Room for the embeddings, which counts as the request's bytes do; once there will be no more texts. */
static bool allocate(struct request *request, struct words *words)
{
    if (!words || words->embeddings)
        return true;
    const size_t bytes = words->count * words->width * sizeof(float);
    const size_t most = (size_t)request->settings->config.batching.max_queue_bytes;
    if (bytes > most)
        problem_set(&request->problem, 413, "too_many_texts", "%zu texts take %zu bytes, batching.max_queue_bytes is %zu",
                    words->count, bytes, most);
    else if (!request_hold_bytes(request, bytes))
        request_queue_full(request);
    else if (!words_allocate(words))
        request_out_of_memory(request);
    return !request->problem.status;
}

static bool read_labels(struct request *request)
{
    const struct choices *choices = &request->choices;
    return !choices->labels[0] || add_list(request, &request->labels, "labels", choices->labels, ',', choices->template);
}

/* LeGrad's targets: as named, or every label where they are few. */
static bool read_targets(struct request *request)
{
    const struct choices *choices = &request->choices;
    const struct words *labels = request->labels ? request->labels : request->model->words;
    if (choices->explain.method != VIT_ATTENTION_LEGRAD)
        return true;
    const struct words *own = request->model->words;
    const char *template = choices->template[0] || !own ? choices->template : own->template;
    if (choices->target[0] && !add_list(request, &request->targets, "target", choices->target, ',', template))
        return false;
    request->shown = request->targets ? request->targets : labels;
    return request->targets || (labels && labels->count <= VIT_MAX_TARGETS) ||
           problem_set(&request->problem, 400, "target_needed",
                       "say of which words the map is to be: target=frisbee, up to %d between commas", VIT_MAX_TARGETS);
}

static bool check_targets(struct request *request)
{
    vit_error error = {{0}};
    vit_map_shape shape;
    vit_explain *explain = &request->choices.explain;
    if (explain->method == VIT_ATTENTION_NONE)
        return true;
    if (request->shown && request->shown->count > VIT_MAX_TARGETS)
        return problem_set(&request->problem, 400, "invalid_parameter", "target: there are %zu texts, and %d at most are shown",
                           request->shown->count, VIT_MAX_TARGETS);
    if (request->shown) {
        explain->target_count = request->shown->count;
        explain->target_vectors = request->shown->embeddings;
    }
    const vit_status status = vit_explain_shape(request->model->vit, explain, &shape, &error);
    return status == VIT_OK || problem_set(&request->problem, status == VIT_ERR_UNSUPPORTED ? 422 : 400,
                                           status == VIT_ERR_UNSUPPORTED ? "unsupported_explanation" : "invalid_parameter",
                                           "%s", error.message);
}

/* Words that nobody would read are refused rather than passed over. */
static bool words_are_of_use(struct request *request)
{
    const struct choices *choices = &request->choices;
    const bool in_body = request->labels || request->targets;
    if (!vit_model_describe(request->model->vit)->text)
        return (!choices->labels[0] && !choices->template[0] && !in_body) ||
               problem_set(&request->problem, 400, "invalid_parameter",
                           "labels, targets and templates in words go with a model that has a text tower, and %s has none",
                           request->model->id);
    if (in_body && !(request->route->parameters & 1u << PARAMETER_LABELS))
        return problem_set(&request->problem, 400, "invalid_request", "labels and targets go to /classify or /explain: %s "
                           "takes an image alone", request->route->path);
    if (request->targets && choices->explain.method != VIT_ATTENTION_LEGRAD)
        return problem_set(&request->problem, 400, "invalid_parameter", "target only goes with attention=legrad");
    return true;
}

bool request_read_words(struct request *request)
{
    if (!words_are_of_use(request))
        return false;
    if (!vit_model_describe(request->model->vit)->text || !(request->route->parameters & 1u << PARAMETER_LABELS))
        return true;
    if (!read_labels(request) || !read_targets(request))
        return false;
    if (!request->labels && !request->model->words && !request->route->explains)
        return problem_set(&request->problem, 400, "labels_needed",
                           "%s has no classes of its own: send labels=a cat,a dog, or configure labels", request->model->id);
    return allocate(request, request->labels) && allocate(request, request->targets) && check_targets(request);
}

/* ---- embeddings ---- */

static bool text_key(const struct request *request, const char *sentence, struct cache_key *key)
{
    struct cache_hash hash;
    cache_hash_init(&hash);
    cache_hash_add(&hash, &request->model->serial, sizeof request->model->serial);
    cache_hash_add(&hash, sentence, strlen(sentence));
    return cache_hash_finish(&hash, key);
}

/* Whether the row is there now. */
static bool look_up(struct request *request, struct words *words, size_t i, const char *sentence)
{
    struct cache_key key;
    struct cache_value value;
    const size_t bytes = words->width * sizeof(float);
    if (!text_key(request, sentence, &key) || !cache_get(request->service->texts, &key, &value))
        return false;
    words->known[i] = value.length == bytes;
    if (words->known[i])
        memcpy(words->embeddings + i * words->width, value.bytes, bytes);
    free(value.bytes);
    return words->known[i];
}

static bool collect(struct request *request, struct words_work *work, struct words *words)
{
    for (size_t i = 0; words && i < words->count; i++) {
        char *sentence = words_sentence(words, i);
        if (!sentence)
            return false;
        if (words->known[i] || look_up(request, words, i, sentence)) {
            free(sentence);
            continue;
        }
        work->places[work->count].words = words;
        work->places[work->count].i = i;
        work->sentences[work->count++] = sentence;
    }
    return true;
}

/* What the cache does not have; NULL: memory is short. */
static struct words_work *find_work(struct request *request)
{
    const size_t most =
        (request->labels ? request->labels->count : 0) + (request->targets ? request->targets->count : 0) + 1;
    struct words_work *work = calloc(1, sizeof *work);
    bool good = work != NULL;
    if (good) {
        work->sentences = calloc(most, sizeof *work->sentences);
        work->places = calloc(most, sizeof *work->places);
        good = work->sentences && work->places && collect(request, work, request->labels) &&
               collect(request, work, request->targets);
    }
    if (good) {
        work->vectors = reallocarray(NULL, work->count * width_of(request) + 1, sizeof *work->vectors);
        good = work->vectors != NULL;
    }
    if (good)
        return work;
    words_work_free(work);
    return NULL;
}

/* In pieces, of which there are no more than there may be images. Their room is kept for what follows. */
static bool make_words_job(struct request *request, const struct words_work *work)
{
    const size_t most = request_most_images(request), fair = (work->count + most - 1) / most;
    const size_t chunk = fair > CHUNK ? fair : CHUNK, chunks = (work->count + chunk - 1) / chunk;
    const size_t width = width_of(request);
    if (!request_make_job(request, chunks))
        return false;
    request->job->keep_room = true;
    for (size_t i = 0; i < chunks; i++) {
        struct job_image *image = &request->job->images[i];
        image->texts = (const char *const *)work->sentences + i * chunk;
        image->text_count = i + 1 < chunks ? chunk : work->count - i * chunk;
        image->vectors = work->vectors + i * chunk * width;
    }
    return true;
}

enum words_state request_settle_words(struct request *request)
{
    if (!request->labels && !request->targets)
        return WORDS_KNOWN;
    if (!allocate(request, request->labels) || !allocate(request, request->targets))
        return WORDS_REFUSED;
    struct words_work *work = find_work(request);
    if (!work) {
        request_out_of_memory(request);
        return WORDS_REFUSED;
    }
    if (work->count == 0) {
        words_work_free(work);
        return WORDS_KNOWN;
    }
    request->words_work = work;
    return make_words_job(request, work) ? WORDS_ASKED : WORDS_REFUSED;
}

void request_words_problem(struct request *request, const struct job_image *texts)
{
    const char *why = strstr(texts->error.message, ": "); /* after its place among those that were to be embedded */
    if (texts->failure == FAILURE_INTERNAL && texts->status == VIT_ERR_ARGUMENT)
        problem_set(&request->problem, 400, "invalid_text", "a text cannot be read%s", why ? why : "");
    else
        request_image_problem(request, texts);
}

void request_take_words(struct request *request)
{
    struct words_work *work = request->words_work;
    const size_t width = width_of(request);
    for (size_t i = 0; i < work->count; i++) {
        struct cache_key key;
        struct words *words = work->places[i].words;
        const size_t row = work->places[i].i;
        memcpy(words->embeddings + row * width, work->vectors + i * width, width * sizeof(float));
        words->known[row] = true;
        if (text_key(request, work->sentences[i], &key))
            cache_put(request->service->texts, &key,
                      &(struct cache_value){.bytes = work->vectors + i * width, .length = width * sizeof(float), .type = ""});
    }
    words_work_free(work);
    request->words_work = NULL;
}

/* classify.c - `vitd classify`: files through the engine, one after the other, without a server; and the picture of an
 * explanation. */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli.h"
#include "server/commands.h"
#include "server/draw.h"
#include "server/log.h"
#include "server/work/model.h"
#include "server/work/words.h"
#include "vit.h"

/* What every image needs. */
struct classifier {
    const struct cli *cli;
    const struct config_model *configured;
    vit_model *model;
    const vit_model_info *info;
    vit_session *session;
    struct choices choices; /* resolved against the model */
    struct words *labels, *targets; /* for a model with a text tower: its classes, and --target; NULL: none */
    const struct words *explained;  /* the one of these that LeGrad is asked about; NULL: classes */
    size_t classes;         /* N: the labels' or the model's own; 0: none are wanted */
    float *pixels, *scores; /* [3, H, W], [N] */
    float *embedding;       /* [D] of the image, to go with labels; NULL: there are none */
    float *map;             /* of the explanation; NULL: none is wanted */
    size_t *best;           /* [N] */
};

/* What a folder or a picture says of itself must not drive a terminal. */
static void complain(const char *about, const char *message)
{
    char clean[4 * sizeof((vit_error *)0)->message];
    fprintf(stderr, "vitd: %s%s%s\n", about, *about ? ": " : "", log_clean(clean, sizeof clean, message));
}

/* Reads "-" or a file of at most max_bytes; NULL, with a line on standard error, if it cannot. */
static uint8_t *read_image(const char *name, size_t max_bytes, size_t *length)
{
    const bool input = strcmp(name, "-") == 0;
    FILE *file = input ? stdin : fopen(name, "rbe");
    uint8_t *bytes = NULL;
    size_t capacity = 0;
    *length = 0;
    while (file != NULL && *length == capacity && capacity <= max_bytes) {
        capacity = capacity == 0 ? 1 << 16 : 2 * capacity;
        uint8_t *larger = realloc(bytes, capacity);
        if (larger == NULL)
            break;
        bytes = larger;
        *length += fread(bytes + *length, 1, capacity - *length, file);
    }
    const bool failed = file == NULL || bytes == NULL || ferror(file) || *length > max_bytes;
    if (failed)
        fprintf(stderr, "vitd: %s: %s\n", name,
                file != NULL && *length > max_bytes ? "is larger than limits.max_body_bytes" : strerror(errno));
    if (file != NULL && !input)
        fclose(file);
    if (failed) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

static vit_status score(struct classifier *c, const uint8_t *bytes, size_t length, vit_error *err)
{
    vit_image image = {0};
    const struct config *config = &c->cli->config;
    vit_status status = vit_preprocess_decode(c->configured->draft ? c->info->preprocess : NULL, &image, bytes, length,
                                              (size_t)config->limits.max_pixels, err);
    if (status == VIT_OK)
        status = vit_preprocess_apply(c->info->preprocess, &image, c->pixels, err);
    vit_image_release(&image);
    if (status == VIT_OK)
        status = vit_session_run(c->session, &(vit_item){.pixels = c->pixels, .features = c->embedding,
                                 .logits = c->info->classes > 0 ? c->scores : NULL,
                                 .explain = c->map != NULL ? &c->choices.explain : NULL, .map = c->map}, 1, err);
    if (status == VIT_OK && c->labels != NULL)
        vit_text_logits(c->model, c->embedding, c->labels->embeddings, c->classes, c->scores);
    if (status == VIT_OK)
        vit_scores(c->scores, c->scores, c->classes, VIT_SOFTMAX);
    return status;
}

static bool write_file(const char *name, const void *bytes, size_t length)
{
    FILE *file = fopen(name, "wbe");
    bool good = file != NULL && fwrite(bytes, 1, length, file) == length;
    if (file != NULL && fclose(file) != 0)
        good = false;
    if (!good)
        fprintf(stderr, "vitd: %s: %s\n", name, strerror(errno));
    return good;
}

static bool write_picture(const struct classifier *c, const uint8_t *bytes, size_t length)
{
    struct drawing drawing = {0};
    vit_error err = {""};
    const struct explained explained = {.model = c->model, .choices = &c->choices, .map = c->map, .pixels = c->pixels,
                                        .target_texts = c->explained != NULL ? (const char *const *)c->explained->texts
                                                                             : NULL,
                                        .encoded = bytes, .encoded_length = length,
                                        .max_pixels = (size_t)c->cli->config.limits.max_pixels};
    if (draw_explanation(&drawing, &explained, &err) != VIT_OK) {
        complain(c->cli->output, err.message);
        return false;
    }
    const bool good = write_file(c->cli->output, drawing.png, drawing.length);
    free(drawing.png);
    return good;
}

static const char *label_of(const struct classifier *c, size_t i)
{
    return c->labels != NULL ? c->labels->texts[i] : vit_model_label(c->model, i);
}

static void print_best(struct classifier *c)
{
    const size_t wanted = c->choices.top_k, count = wanted == 0 || wanted > c->classes ? c->classes : wanted;
    char label[256];
    vit_top_k(c->best, c->scores, c->classes, count);
    for (size_t i = 0; i < count; i++)
        printf("%8.4f  %5zu  %s\n", (double)c->scores[c->best[i]], c->best[i],
               log_clean(label, sizeof label, label_of(c, c->best[i])));
}

static bool classify_one(struct classifier *c, const char *name)
{
    size_t length;
    vit_error err = {""};
    uint8_t *bytes = read_image(name, (size_t)c->cli->config.limits.max_body_bytes, &length);
    if (bytes == NULL)
        return false;
    bool good = score(c, bytes, length, &err) == VIT_OK;
    if (!good) {
        complain(name, err.message);
    } else {
        if (c->cli->operand_count > 1)
            printf("%s\n", name);
        print_best(c);
        good = c->map == NULL || write_picture(c, bytes, length);
    }
    free(bytes);
    return good;
}

/* ---- words ---- */

static bool fail(vit_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(vit_error *err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    return false;
}

/* Embeds the texts of a list. */
static bool read_words(const struct classifier *c, struct words **words, const char *name, const char *list,
                       char separator, const char *template, vit_error *err)
{
    const char *why = "out of memory";
    *words = words_create(c->info->embedding_width, template);
    if (*words == NULL || !words_add_list(*words, list, separator, &why))
        return fail(err, "%s, text %zu: %s", name, *words != NULL ? (*words)->count + 1 : 1, why);
    return words_encode(*words, c->session, err) == VIT_OK;
}

/* The classes: as the command line has them, else as the configuration has. */
static bool read_labels(struct classifier *c, vit_error *err)
{
    const struct choices *choices = &c->choices;
    const struct config_model *configured = c->configured;
    if (choices->labels[0] != '\0')
        return read_words(c, &c->labels, "--labels", choices->labels, ',', choices->template, err);
    if (configured->labels[0] != '\0')
        return read_words(c, &c->labels, "labels", configured->labels, '\n', configured->template, err);
    return c->cli->output != NULL || /* a picture may be all that is wanted */
           fail(err, "%s has no classes of its own: say which to choose from, as in --labels \"a cat,a dog\"",
                configured->path);
}

/* What LeGrad explains: as the command line has it, else the labels where they are few. */
static bool read_targets(struct classifier *c, vit_error *err)
{
    struct choices *choices = &c->choices;
    if (choices->explain.method != VIT_ATTENTION_LEGRAD)
        return true;
    if (choices->target[0] != '\0' &&
        !read_words(c, &c->targets, "--target", choices->target, ',', choices->template, err))
        return false;
    c->explained = c->targets != NULL ? c->targets : c->labels;
    if (c->explained == NULL || c->explained->count > VIT_MAX_TARGETS)
        return fail(err, "say of which words the map is to be, up to %d: --target \"frisbee,water\"", VIT_MAX_TARGETS);
    choices->explain.target_count = c->explained->count;
    choices->explain.target_vectors = c->explained->embeddings;
    return true;
}

static bool prepare_words(struct classifier *c, vit_error *err)
{
    const unsigned words = 1u << PARAMETER_LABELS | 1u << PARAMETER_TEMPLATE;
    c->choices = c->cli->choices;
    c->classes = c->info->classes;
    if (!c->info->text)
        return (c->choices.given & words) == 0 ||
               fail(err, "--labels and --template are for a model with a text tower, and %s has classes of its own",
                    c->configured->path);
    if (!read_labels(c, err) || !read_targets(c, err))
        return false;
    c->classes = c->labels != NULL ? c->labels->count : 0;
    return true;
}

/* ---- the whole ---- */

/* Room for the map, if one is wanted. */
static bool prepare_map(struct classifier *c, vit_error *err)
{
    vit_map_shape shape;
    if (choices_resolve(&c->choices, c->model, err) != VIT_OK)
        return false;
    if (c->choices.explain.method == VIT_ATTENTION_NONE)
        return true;
    if (vit_explain_shape(c->model, &c->choices.explain, &shape, err) == VIT_OK &&
        (c->map = calloc(shape.floats, sizeof *c->map)) == NULL)
        fail(err, "out of memory");
    return c->map != NULL;
}

static bool allocate(struct classifier *c, vit_error *err)
{
    c->pixels = malloc(3 * c->info->image_height * c->info->image_width * sizeof *c->pixels);
    c->embedding = c->info->text ? malloc(c->info->embedding_width * sizeof *c->embedding) : NULL;
    c->scores = calloc(c->classes + 1, sizeof *c->scores);
    c->best = calloc(c->classes + 1, sizeof *c->best);
    return (c->pixels != NULL && (c->embedding != NULL || !c->info->text) && c->scores != NULL && c->best != NULL) ||
           fail(err, "out of memory");
}

static bool prepare(struct classifier *c)
{
    vit_error err = {""};
    const vit_options options = model_options(c->configured);
    if (vit_model_open(&c->model, c->configured->path, &options, &err) == VIT_OK &&
        vit_session_create(&c->session, c->model, 1, &err) == VIT_OK) {
        c->info = vit_model_describe(c->model);
        if (prepare_words(c, &err) && prepare_map(c, &err) && allocate(c, &err))
            return true;
    }
    complain("", err.message);
    return false;
}

int command_classify(const struct cli *cli)
{
    struct classifier c = {.cli = cli, .configured = config_default_model(&cli->config)};
    bool good = prepare(&c);
    if (good)
        for (size_t i = 0; i < cli->operand_count; i++)
            good = classify_one(&c, cli->operands[i]) && good;
    words_free(c.labels);
    words_free(c.targets);
    free(c.pixels);
    free(c.embedding);
    free(c.scores);
    free(c.best);
    free(c.map);
    vit_session_free(c.session);
    vit_model_free(c.model);
    return good ? EXIT_SUCCESS : EXIT_RUNTIME;
}

/* classify.c - `vitd classify`: files through the engine, one after the other, without a server; and the picture of an
 * explanation. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli.h"
#include "server/commands.h"
#include "server/draw.h"
#include "server/log.h"
#include "server/work/model.h"
#include "vit.h"

/* What every image needs. */
struct classifier {
    const struct cli *cli;
    vit_model *model;
    const vit_model_info *info;
    vit_session *session;
    struct choices choices; /* resolved against the model */
    float *pixels, *scores; /* [3, H, W], [N] */
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
    vit_status status = vit_preprocess_decode(config->models[0].draft ? c->info->preprocess : NULL, &image, bytes, length,
                                              (size_t)config->limits.max_pixels, err);
    if (status == VIT_OK)
        status = vit_preprocess_apply(c->info->preprocess, &image, c->pixels, err);
    vit_image_release(&image);
    if (status == VIT_OK)
        status = vit_session_run(c->session, &(vit_item){.pixels = c->pixels, .logits = c->scores,
                                 .explain = c->map != NULL ? &c->choices.explain : NULL, .map = c->map}, 1, err);
    if (status == VIT_OK)
        vit_scores(c->scores, c->scores, c->info->classes, VIT_SOFTMAX);
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

static void print_best(struct classifier *c)
{
    const size_t classes = c->info->classes, wanted = c->choices.top_k;
    const size_t count = wanted == 0 || wanted > classes ? classes : wanted;
    char label[256];
    vit_top_k(c->best, c->scores, classes, count);
    for (size_t i = 0; i < count; i++)
        printf("%8.4f  %5zu  %s\n", (double)c->scores[c->best[i]], c->best[i],
               log_clean(label, sizeof label, vit_model_label(c->model, c->best[i])));
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

/* Room for the map, if one is wanted. */
static bool prepare_map(struct classifier *c, vit_error *err)
{
    vit_map_shape shape;
    c->choices = c->cli->choices;
    if (choices_resolve(&c->choices, c->model, err) != VIT_OK)
        return false;
    if (c->choices.explain.method == VIT_ATTENTION_NONE)
        return true;
    if (vit_explain_shape(c->model, &c->choices.explain, &shape, err) == VIT_OK &&
        (c->map = calloc(shape.floats, sizeof *c->map)) == NULL)
        snprintf(err->message, sizeof err->message, "out of memory");
    return c->map != NULL;
}

static bool prepare(struct classifier *c)
{
    vit_error err = {""};
    const vit_options options = model_options(&c->cli->config.models[0]);
    if (vit_model_open(&c->model, c->cli->config.models[0].path, &options, &err) == VIT_OK &&
        vit_session_create(&c->session, c->model, 1, &err) == VIT_OK) {
        c->info = vit_model_describe(c->model);
        c->pixels = malloc(3 * c->info->image_height * c->info->image_width * sizeof *c->pixels);
        c->scores = malloc(c->info->classes * sizeof *c->scores);
        c->best = malloc(c->info->classes * sizeof *c->best);
        if (c->pixels == NULL || c->scores == NULL || c->best == NULL)
            snprintf(err.message, sizeof err.message, "out of memory");
        else if (prepare_map(c, &err))
            return true;
    }
    complain("", err.message);
    return false;
}

int command_classify(const struct cli *cli)
{
    struct classifier c = {.cli = cli};
    bool good = prepare(&c);
    if (good)
        for (size_t i = 0; i < cli->operand_count; i++)
            good = classify_one(&c, cli->operands[i]) && good;
    free(c.pixels);
    free(c.scores);
    free(c.best);
    free(c.map);
    vit_session_free(c.session);
    vit_model_free(c.model);
    return good ? EXIT_SUCCESS : EXIT_RUNTIME;
}

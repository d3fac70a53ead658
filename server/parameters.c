#include "server/parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/utf8.h"

/* ---- kinds of values ---- */

/* Decimal digits only, at most max. */
static bool read_integer(const char *text, size_t max, size_t *value)
{
    size_t result = 0, length = strlen(text);
    if (!length || length > 9 || strspn(text, "0123456789") != length)
        return false;
    for (; *text; text++)
        result = result * 10 + (size_t)(*text - '0');
    if (result > max)
        return false;
    *value = result;
    return true;
}

/* The place of text in a list of names; -1: not there. */
static int find_name(const char *text, const char *const *names, int count)
{
    int i = 0;
    while (i < count && strcmp(text, names[i]) != 0)
        i++;
    return i < count ? i : -1;
}

static bool read_text(const char *text, char *out, size_t capacity)
{
    if (!*text || strlen(text) >= capacity)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_index_or_all(const char *text, int *value)
{
    size_t index;
    if (strcmp(text, "all") == 0)
        *value = VIT_ALL;
    else if (read_integer(text, 99999, &index))
        *value = (int)index;
    else
        return false;
    return true;
}

/* ---- the parameters ---- */

static bool read_model(const char *text, struct choices *choices)
{
    return read_text(text, choices->model, sizeof choices->model);
}

static bool read_top_k(const char *text, struct choices *choices)
{
    return read_integer(text, 999999999, &choices->top_k);
}

static bool read_function(const char *text, struct choices *choices)
{
    static const char *const names[] = {[VIT_SOFTMAX] = "softmax", [VIT_SIGMOID] = "sigmoid", [VIT_IDENTITY] = "none"};
    const int found = find_name(text, names, 3);
    choices->function = found < 0 ? choices->function : (vit_function)found;
    return found >= 0;
}

static bool read_attention(const char *text, struct choices *choices)
{
    for (int i = 0; i < VIT_ATTENTION_COUNT; i++)
        if (strcmp(text, vit_attention_name((vit_attention)i)) == 0) {
            choices->explain.method = (vit_attention)i;
            return true;
        }
    return false;
}

static bool read_layer(const char *text, struct choices *choices)
{
    return read_index_or_all(text, &choices->explain.layer);
}

static bool read_layers(const char *text, struct choices *choices)
{
    if (strcmp(text, "all") == 0) {
        choices->explain.last_layers = 0;
        return true;
    }
    return read_integer(text, 99999, &choices->explain.last_layers) && choices->explain.last_layers > 0;
}

static bool read_head(const char *text, struct choices *choices)
{
    if (strcmp(text, "mean") == 0) {
        choices->explain.head = VIT_HEAD_MEAN;
        return true;
    }
    return read_index_or_all(text, &choices->explain.head);
}

static bool read_target(const char *text, struct choices *choices)
{
    return read_text(text, choices->target, sizeof choices->target);
}

static bool read_labels(const char *text, struct choices *choices)
{
    return read_text(text, choices->labels, sizeof choices->labels);
}

static bool read_template(const char *text, struct choices *choices)
{
    return strstr(text, "{}") != NULL && utf8_is_valid(text, strlen(text)) &&
           read_text(text, choices->template, sizeof choices->template);
}

static bool read_colormap(const char *text, struct choices *choices)
{
    static const char *const names[] = {[VIT_COLORMAP_VIRIDIS] = "viridis", [VIT_COLORMAP_TURBO] = "turbo"};
    const int found = find_name(text, names, 2);
    choices->colormap = found < 0 ? choices->colormap : (vit_colormap)found;
    return found >= 0;
}

/* Digits with at most one point among them. */
static bool read_alpha(const char *text, struct choices *choices)
{
    const size_t length = strlen(text), whole = strspn(text, "0123456789");
    const size_t point = text[whole] == '.', fraction = strspn(text + whole + point, "0123456789");
    if (length > 20 || whole + point + fraction != length || whole + fraction == 0)
        return false;
    const double value = strtod(text, NULL);
    if (!(value <= 1))
        return false;
    choices->alpha = (float)value;
    return true;
}

static bool read_overlay(const char *text, struct choices *choices)
{
    static const char *const names[] = {"false", "true"};
    const int found = find_name(text, names, 2);
    choices->overlay = found == 1;
    return found >= 0;
}

static bool read_size(const char *text, struct choices *choices)
{
    static const char *const names[] = {"model", "original"};
    const int found = find_name(text, names, 2);
    choices->original_size = found == 1;
    return found >= 0;
}

const struct parameter parameters[PARAMETER_COUNT] = {
    [PARAMETER_MODEL] = {"model", "the name of a model, as GET /models lists them", read_model},
    [PARAMETER_TOP_K] = {"top_k", "an integer from 0 (all classes)", read_top_k},
    [PARAMETER_FUNCTION] = {"function_to_apply", "softmax, sigmoid or none", read_function},
    [PARAMETER_ATTENTION] = {"attention", "none, raw, rollout or legrad", read_attention},
    [PARAMETER_LAYER] = {"layer", "a layer's index from 0, or all", read_layer},
    [PARAMETER_LAYERS] = {"layers", "how many of the last layers to add up, or all", read_layers},
    [PARAMETER_HEAD] = {"head", "a head's index from 0, mean or all", read_head},
    [PARAMETER_TARGET] = {"target", "class indices or labels, or texts, separated by commas, 511 bytes at most", read_target},
    [PARAMETER_LABELS] = {"labels", "texts separated by commas, 1023 bytes at most", read_labels},
    [PARAMETER_TEMPLATE] = {"template", "a text in UTF-8 with {} in the label's place, 255 bytes at most", read_template},
    [PARAMETER_COLORMAP] = {"colormap", "viridis or turbo", read_colormap},
    [PARAMETER_ALPHA] = {"alpha", "the map's opacity, from 0 to 1", read_alpha},
    [PARAMETER_OVERLAY] = {"overlay", "true or false", read_overlay},
    [PARAMETER_SIZE] = {"size", "model or original", read_size},
};

struct choices choices_default(void)
{
    return (struct choices){
        .top_k = 5,
        .explain = {.method = VIT_ATTENTION_NONE, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN},
        .colormap = VIT_COLORMAP_VIRIDIS,
        .alpha = 0.5f,
        .overlay = true,
    };
}

vit_status choices_resolve(struct choices *choices, const vit_model *model, vit_error *err)
{
    vit_map_shape shape;
    vit_explain *explain = &choices->explain;
    const bool in_words = vit_model_describe(model)->text;
    if (explain->method == VIT_ATTENTION_NONE) {
        static const struct {
            enum parameter_id parameter;
            const char *methods;
        } details[] = {{PARAMETER_LAYER, "raw and attention=legrad"}, {PARAMETER_LAYERS, "legrad"},
                       {PARAMETER_HEAD, "raw"}, {PARAMETER_TARGET, "legrad"}};
        for (size_t i = 0; i < sizeof details / sizeof details[0]; i++)
            if (choices->given & 1u << details[i].parameter) {
                snprintf(err->message, sizeof err->message, "%s only goes with attention=%s",
                         parameters[details[i].parameter].name, details[i].methods);
                return VIT_ERR_ARGUMENT;
            }
        return VIT_OK;
    }
    if (in_words && explain->method == VIT_ATTENTION_LEGRAD)
        return VIT_OK; /* once its targets have been read and embedded */
    if (in_words && choices->target[0]) {
        snprintf(err->message, sizeof err->message, "target only goes with attention=legrad");
        return VIT_ERR_ARGUMENT;
    }
    if (choices->target[0]) {
        vit_status status = vit_model_find_classes(model, choices->target, explain->targets, VIT_MAX_TARGETS,
                                                   &explain->target_count, err);
        if (status != VIT_OK)
            return status;
    }
    return vit_explain_shape(model, explain, &shape, err);
}

/*
 * parameters.h - what a client may choose, one row for each choice: read from the query string of a request and, with -
 * for _, from the command line of vitd classify.
 */
#ifndef SERVER_PARAMETERS_H
#define SERVER_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>

#include "vit.h"
#include "vit_picture.h"

enum parameter_id {
    PARAMETER_MODEL,
    PARAMETER_TOP_K,
    PARAMETER_FUNCTION,
    PARAMETER_ATTENTION,
    PARAMETER_LAYER,
    PARAMETER_LAYERS,
    PARAMETER_HEAD,
    PARAMETER_TARGET,
    PARAMETER_LABELS,
    PARAMETER_TEMPLATE,
    PARAMETER_COLORMAP,
    PARAMETER_ALPHA,
    PARAMETER_OVERLAY,
    PARAMETER_SIZE,
    PARAMETER_COUNT
};

/* What was chosen. Names of classes and models, layers and heads are not checked against a model yet. */
struct choices {
    unsigned given;      /* bits 1 << parameter_id */
    char model[65];      /* "": the first configured */
    size_t top_k;        /* 0: all */
    vit_function function;
    vit_explain explain; /* without the targets */
    char target[512];    /* "": the top class */
    char labels[1024];   /* "": the model's own */
    char template[256];  /* what a text tower reads of a label or a target; "": itself */
    vit_colormap colormap;
    float alpha;
    bool overlay;
    bool original_size;  /* else as the model sees the picture */
};

struct parameter {
    const char *name;
    const char *values; /* what is allowed, in words */
    bool (*read)(const char *text, struct choices *choices);
};

/* [PARAMETER_COUNT], by parameter_id. */
extern const struct parameter parameters[PARAMETER_COUNT];

/* The defaults. */
struct choices choices_default(void);

/* Checks the explanation against the model, and fills in explain.targets from the names in `target`. Of a model with a text
 * tower, targets are texts, and LeGrad's are left to the caller.
 * VIT_ERR_ARGUMENT; VIT_ERR_UNSUPPORTED where the model has no such map. */
vit_status choices_resolve(struct choices *choices, const vit_model *model, vit_error *err);

#endif

/*
 * explain.h - turns what an attention_observer sees into the maps that callers ask for.
 *
 * Methods are added here: each is an observer with its own context.
 */
#ifndef ENGINE_EXPLAIN_EXPLAIN_H
#define ENGINE_EXPLAIN_EXPLAIN_H

#include "engine/layers/layers.h"
#include "vit.h"

/* Context of one image's raw map. */
struct raw_map {
    const vit_model_info *info;
    const vit_explain *explain;
    float *map;    /* [layers, heads, gh, gw] */
    bool has_class_token; /* else the mean over query tokens */
};

/* Checks layer and head against the model; see vit_explain_shape(). */
vit_status explain_shape(const vit_model_info *info, const vit_explain *explain, size_t *layers, size_t *heads,
                         vit_error *err);

/* An observer that fills in raw->map; zeroes the map. raw must outlive it. */
struct attention_observer raw_observer(struct raw_map *raw);

#endif

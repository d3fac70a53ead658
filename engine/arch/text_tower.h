/*
 * text_tower.h - CLIP's text encoder (arXiv 2103.00020): from token ids to an embedding beside those of images.
 */
#ifndef ENGINE_ARCH_TEXT_TOWER_H
#define ENGINE_ARCH_TEXT_TOWER_H

#include "engine/arch/load.h"

/* Legend: V vocabulary, C width, D the embedding's width. */
struct text_tower {
    size_t vocabulary, context, width, heads, layers;
    size_t end;              /* the id of the token that the embedding is read off; LARGEST_ID: the text's largest */
    const float *tokens;     /* [V, C] */
    const float *positions;  /* [context, C] */
    struct block *blocks;    /* [layers] */
    struct norm norm;
    struct linear projection; /* [D, C] */
};

enum { LARGEST_ID = 2 };

extern const struct block_names clip_block_names; /* of both towers */

/* config: the section of the text tower, with every key that is read. Release also after a failure. */
vit_status text_tower_load(struct text_tower *tower, const struct folder *folder, const cJSON *config, vit_error *err);
void text_tower_release(struct text_tower *tower);

/* See struct arch_text, and arch->memory(). */
size_t text_tower_memory(const struct text_tower *tower);
size_t text_tower_capacity(const struct text_tower *tower);
size_t text_tower_length(const struct text_tower *tower, const int32_t *ids, size_t count);
void text_tower_forward(const struct text_tower *tower, const struct compute *compute, float *memory,
                        const struct arch_texts *texts);

#endif

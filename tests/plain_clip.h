/* plain_clip.h - CLIP by its definition, in double and one number at a time: what the engine is tested against. */
#ifndef TESTS_PLAIN_CLIP_H
#define TESTS_PLAIN_CLIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/golden.h"

/* out [width] = softmax(scale q k^T) v of one query over the first `seen` of the tokens in qkv [tokens, 3 * width]. */
void plain_attention(double *out, const double *qkv, size_t query, size_t seen, size_t width, size_t heads,
                     double scale);

/* embedding [D], of unit length, by the tensors (F32) of a model.safetensors. */
void plain_clip_text(double *embedding, struct golden *tensors, size_t heads, bool quick_gelu, const int32_t *ids,
                     size_t count);
/* pixels [3, side, side] */
void plain_clip_image(double *embedding, struct golden *tensors, size_t heads, bool quick_gelu, const float *pixels,
                      size_t side);

#endif

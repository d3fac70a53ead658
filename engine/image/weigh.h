/*
 * weigh.h - the inner loop of both passes of a resize: weighted sums of lines of bytes. Private to the image module.
 */
#ifndef ENGINE_IMAGE_WEIGH_H
#define ENGINE_IMAGE_WEIGH_H

#include <stddef.h>
#include <stdint.h>

/* The fraction bits of a weight. */
#define WEIGHT_BITS 22
/* Bytes of a line that are summed at once. */
#define WEIGH_LANES 48u

/* out[i] = the sum over k < count of weights[k] * in[k * stride + i], rounded to a whole number and clipped to 0 .. 255,
 * for i < WEIGH_LANES; sums are taken modulo 2^32. in and out do not overlap. */
typedef void weigher(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weights, size_t count);

/* Those this CPU can run, best first; the last is always the plain C one. Returns how many. */
size_t weighers_available(weigher *list[2]);

/* The same for lines of `bytes` bytes, by the weigher given. */
void weigh_lines(weigher *weigh, uint8_t *out, const uint8_t *in, size_t stride, size_t bytes, const int32_t *weights,
                 size_t count);

#endif

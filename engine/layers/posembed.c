/*
 * posembed.c - position embeddings that no file holds, and other grids than the trained one.
 */
#include <math.h>
#include <string.h>

#include "engine/layers/layers.h"

/* ---- fixed encodings ---- */

void positions_sinusoidal(float *positions, size_t count, size_t width)
{
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < width; c++) {
            const double angle = (double)i / pow(10000, 2.0 * (double)(c / 2) / (double)width);
            positions[i * width + c] = (float)(c % 2 == 0 ? sin(angle) : cos(angle));
        }
}

/* One coordinate's share of a row: the sines of all frequencies, then their cosines. */
static void encode(float *row, size_t coordinate, size_t frequencies, size_t steps)
{
    for (size_t i = 0; i < frequencies; i++) {
        const double angle = (double)coordinate / pow(10000, steps > 0 ? (double)i / (double)steps : 0);
        row[i] = (float)sin(angle);
        row[frequencies + i] = (float)cos(angle);
    }
}

void positions_sincos2d(float *positions, size_t height, size_t width, size_t channels, bool full_range)
{
    const size_t frequencies = channels / 4, steps = full_range ? frequencies - 1 : frequencies;
    memset(positions, 0, height * width * channels * sizeof *positions);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++, positions += channels) {
            encode(positions, x, frequencies, steps);
            encode(positions + 2 * frequencies, y, frequencies, steps);
        }
}

/* ---- interpolation ---- */

/* The cubic convolution kernel (Keys 1981). */
static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static size_t clamp(double x, size_t count)
{
    return x < 0 ? 0 : x > (double)(count - 1) ? count - 1 : (size_t)x;
}

/* weights [in]: how output i of `out` is made of `in` inputs. */
static void weigh(double *weights, size_t in, size_t out, size_t i, enum interpolation interpolation)
{
    const double scale = (double)in / (double)out, centre = scale * ((double)i + 0.5);
    memset(weights, 0, in * sizeof *weights);
    if (interpolation == INTERPOLATE_BICUBIC) {
        const double first = floor(centre - 0.5) - 1;
        for (int tap = 0; tap < 4; tap++)
            weights[clamp(first + tap, in)] += cubic(centre - 0.5 - (first + tap), -0.75);
        return;
    }
    const double stretch = scale > 1 ? scale : 1;
    double sum = 0;
    for (size_t x = clamp(centre - 2 * stretch + 0.5, in); x < in && (double)x < floor(centre + 2 * stretch + 0.5); x++)
        sum += weights[x] = cubic(((double)x - centre + 0.5) / stretch, -0.5);
    for (size_t x = 0; x < in; x++)
        weights[x] /= sum;
}

void positions_resize(float *out, size_t out_height, size_t out_width, const float *in, size_t in_height,
                      size_t in_width, size_t channels, enum interpolation interpolation)
{
    double across[MAX_GRID], down[MAX_GRID];
    for (size_t y = 0; y < out_height; y++) {
        weigh(down, in_height, out_height, y, interpolation);
        for (size_t x = 0; x < out_width; x++, out += channels) {
            weigh(across, in_width, out_width, x, interpolation);
            memset(out, 0, channels * sizeof *out);
            for (size_t i = 0; i < in_height * in_width; i++) {
                const float weight = (float)(down[i / in_width] * across[i % in_width]);
                for (size_t c = 0; weight != 0 && c < channels; c++)
                    out[c] += weight * in[i * channels + c];
            }
        }
    }
}

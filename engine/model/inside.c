/* inside.c - what a model's weights show without an image (arXiv 2010.11929, figure 7, left and centre). */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/math/eigen.h"
#include "engine/model/model.h"

/* filters [count, size] minus their mean, in double. NULL: no memory. */
static double *centred(const float *filters, size_t count, size_t size)
{
    double *x = calloc(count * size, sizeof *x), *mean = calloc(size, sizeof *mean);
    if (x == NULL || mean == NULL) {
        free(x);
        free(mean);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < size; j++)
            mean[j] += filters[i * size + j] / (double)count;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < size; j++)
            x[i * size + j] = filters[i * size + j] - mean[j];
    free(mean);
    return x;
}

/* Unit length, the entry of the largest magnitude positive: an eigenvector's sign says nothing, but should not change. */
static void write_component(float *component, const double *vector, size_t size)
{
    double square = 0, largest = 0;
    for (size_t j = 0; j < size; j++) {
        square += vector[j] * vector[j];
        largest = fabs(vector[j]) > fabs(largest) ? vector[j] : largest;
    }
    const double scale = square > 0 ? (largest < 0 ? -1 : 1) / sqrt(square) : 0;
    for (size_t j = 0; j < size; j++)
        component[j] = (float)(scale * vector[j]);
}

/* The eigenvectors of x^T x, by way of the smaller of it and x x^T: if x x^T u = l u then x^T x (x^T u) = l (x^T u). */
static bool principal_components(float *components, float *variances, const double *x, size_t count, size_t size,
                                 size_t wanted)
{
    const bool by_filters = count < size;
    const size_t n = by_filters ? count : size;
    double *matrix = calloc(n * n, sizeof *matrix), *vectors = calloc(wanted * n, sizeof *vectors);
    double *values = calloc(wanted, sizeof *values), *vector = calloc(size, sizeof *vector);
    bool good = matrix != NULL && vectors != NULL && values != NULL && vector != NULL;
    if (good) {
        cblas_dsyrk(CblasRowMajor, CblasLower, by_filters ? CblasNoTrans : CblasTrans, (blasint)n,
                    (blasint)(by_filters ? size : count), 1, x, (blasint)size, 0, matrix, (blasint)n);
        double trace = 0;
        for (size_t i = 0; i < n; i++)
            trace += matrix[i * n + i];
        good = eigen_largest(values, vectors, matrix, n, wanted);
        for (size_t i = 0; good && i < wanted; i++) {
            const double *u = vectors + i * n;
            if (by_filters)
                cblas_dgemv(CblasRowMajor, CblasTrans, (blasint)count, (blasint)size, 1, x, (blasint)size, u, 1, 0,
                            vector, 1);
            write_component(components + i * size, by_filters ? vector : u, size);
            variances[i] = (float)(trace > 0 ? values[i] / trace : 0);
        }
    }
    free(matrix);
    free(vectors);
    free(values);
    free(vector);
    return good;
}

struct arch_inside model_inside(const vit_model *model)
{
    return model->arch->inside != NULL ? model->arch->inside(model->state) : (struct arch_inside){0};
}

vit_status vit_model_filters(const vit_model *model, float *components, float *variances, size_t *count, vit_error *err)
{
    const struct arch_inside inside = model_inside(model);
    const size_t patch = model->info.patch_size, size = 3 * patch * patch;
    if (inside.filters == NULL)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED, "this model (architecture %s) has no patch embedding filters",
                             model->info.architecture);
    size_t wanted = VIT_FILTERS;
    wanted = wanted > size ? size : wanted;
    wanted = wanted > inside.filter_count ? inside.filter_count : wanted;
    double *x = centred(inside.filters, inside.filter_count, size);
    const bool good = x != NULL && principal_components(components, variances, x, inside.filter_count, size, wanted);
    free(x);
    if (!good)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the principal components of %zu filters",
                             inside.filter_count);
    *count = wanted;
    return VIT_OK;
}

vit_status vit_model_positions(const vit_model *model, float *similarity, vit_error *err)
{
    const struct arch_inside inside = model_inside(model);
    const size_t patches = model->info.grid_height * model->info.grid_width, width = model->info.width;
    if (inside.positions == NULL)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED, "this model (architecture %s) has no position embeddings",
                             model->info.architecture);
    float *unit = calloc(patches * width, sizeof *unit);
    if (unit == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for %zu position embeddings", patches);
    for (size_t i = 0; i < patches; i++) {
        const float *position = inside.positions + i * width;
        double square = 0;
        for (size_t j = 0; j < width; j++)
            square += (double)position[j] * position[j];
        for (size_t j = 0; j < width; j++)
            unit[i * width + j] = square > 0 ? (float)(position[j] / sqrt(square)) : 0;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)patches, (blasint)patches, (blasint)width, 1, unit,
                (blasint)width, unit, (blasint)width, 0, similarity, (blasint)patches);
    free(unit);
    return VIT_OK;
}

#include "engine/math/eigen.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

/* Debian's libopenblas-dev brings no header for LAPACK. The lengths of the strings come last, as gfortran has it. */
void dsyevr_(const char *jobz, const char *range, const char *uplo, const blasint *n, double *a, const blasint *lda,
             const double *vl, const double *vu, const blasint *il, const blasint *iu, const double *abstol, blasint *m,
             double *w, double *z, const blasint *ldz, blasint *isuppz, double *work, const blasint *lwork,
             blasint *iwork, const blasint *liwork, blasint *info, size_t jobz_length, size_t range_length,
             size_t uplo_length);

/* The eigenvalues il .. n, smallest first. Work of size -1 asks for the sizes, in work[0] and iwork[0]. */
static bool solve(double *values, double *vectors, double *matrix, blasint n, blasint first, blasint *support,
                  double *work, blasint work_size, blasint *iwork, blasint iwork_size)
{
    const double none = 0;
    blasint found = 0, info = 0;
    dsyevr_("V", "I", "U", &n, matrix, &n, &none, &none, &first, &n, &none, &found, values, vectors, &n, support, work,
            &work_size, iwork, &iwork_size, &info, 1, 1, 1);
    return info == 0;
}

static void swap(double *a, double *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

bool eigen_largest(double *values, double *vectors, double *matrix, size_t n, size_t count)
{
    const blasint size = (blasint)n, first = (blasint)(n - count + 1);
    double work_size, *work = NULL, *all = calloc(n, sizeof *all); /* dsyevr wants room for n eigenvalues */
    blasint iwork_size, *iwork = NULL, *support = calloc(2 * count, sizeof *support);
    bool good = all != NULL && support != NULL &&
                solve(all, vectors, matrix, size, first, support, &work_size, -1, &iwork_size, -1);
    if (good) {
        work = calloc((size_t)work_size, sizeof *work);
        iwork = calloc((size_t)iwork_size, sizeof *iwork);
        good = work != NULL && iwork != NULL &&
               solve(all, vectors, matrix, size, first, support, work, (blasint)work_size, iwork, iwork_size);
    }
    if (good) {
        memcpy(values, all, count * sizeof *values);
        for (size_t i = 0; i < count / 2; i++) {
            swap(values + i, values + count - 1 - i, 1);
            swap(vectors + i * n, vectors + (count - 1 - i) * n, n);
        }
    }
    free(all);
    free(support);
    free(work);
    free(iwork);
    return good;
}

/* eigen.h - symmetric eigenproblems, by LAPACK (OpenBLAS brings it). */
#ifndef ENGINE_MATH_EIGEN_H
#define ENGINE_MATH_EIGEN_H

#include <stdbool.h>
#include <stddef.h>

/* The `count` (1 .. n) largest eigenvalues of the symmetric matrix [n, n], largest first, and their eigenvectors, the
 * rows of vectors [count, n], of length 1. The matrix is overwritten. False: no memory, or no convergence. */
bool eigen_largest(double *values, double *vectors, double *matrix, size_t n, size_t count);

#endif

/* bench.h - what the files of `vitd bench` share. */
#ifndef SERVER_BENCH_H
#define SERVER_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "vit.h"

/* Seconds of a clock that only goes forward. */
double bench_now(void);
/* Sorts the values. */
double bench_median(double *values, size_t count);

/* bench_explain.c: prints a table; false, with a line on standard error, when something fails. */
bool bench_explanations(const vit_model *model);

#endif

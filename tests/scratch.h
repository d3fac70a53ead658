/* scratch.h - one temporary folder per test, and files in it. Every failure is a failed Check assertion. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stddef.h>

/* For tcase_add_checked_fixture(): the folder comes, and goes with all that is in it. */
void scratch_make(void);
void scratch_remove(void);

/* "FOLDER/name", in static memory; of 32 names at most. */
const char *scratch_path(const char *name);
/* Puts a file that only its owner may write in the place of what has that name; its path. */
const char *scratch_write(const char *name, const void *bytes, size_t length);
const char *scratch_text(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

/* small_file.h - files that an operator writes: the configuration, keys, certificates. */
#ifndef SERVER_SMALL_FILE_H
#define SERVER_SMALL_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* The bytes of a file, or of a pipe, and a NUL behind them, to be freed; nothing else keeps a copy. NULL where it cannot be
 * read or has more than 1 MiB: *why says so (until the next call of strerror()). mode may be NULL. */
char *small_file_read(const char *path, size_t *length, mode_t *mode, const char **why);

#endif

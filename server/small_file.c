/* small_file.c - see small_file.h. */
#include "server/small_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BYTES = 1 << 20 };

/* NULL, or what is wrong. bytes has room for MAX_BYTES and two more. */
static const char *read_all(FILE *file, char *bytes, size_t *length, mode_t *mode)
{
    struct stat status;
    setvbuf(file, NULL, _IONBF, 0); /* stdio's buffer would keep a copy */
    *length = fread(bytes, 1, MAX_BYTES + 1, file);
    bytes[*length] = '\0';
    if (ferror(file) || fstat(fileno(file), &status) < 0)
        return strerror(errno);
    if (mode)
        *mode = status.st_mode;
    return *length > MAX_BYTES ? "found more than 1 MiB, allowed is up to 1 MiB" : NULL;
}

char *small_file_read(const char *path, size_t *length, mode_t *mode, const char **why)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        *why = strerror(errno);
        return NULL;
    }
    char *bytes = malloc(MAX_BYTES + 2);
    *why = bytes ? read_all(file, bytes, length, mode) : "out of memory";
    fclose(file);
    if (bytes && *why) {
        explicit_bzero(bytes, *length);
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}

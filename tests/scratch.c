/* scratch.c - see scratch.h. */
#include "tests/scratch.h"

#include <check.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[32];

void scratch_make(void)
{
    strcpy(folder, "/tmp/vitd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

void scratch_remove(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(strncmp(folder, "/tmp/vitd-test-", 15), 0);
    ck_assert_int_eq(system(command), 0);
}

const char *scratch_path(const char *name)
{
    enum { MOST = 32 };
    static char paths[MOST][256];
    char path[256];
    int i = 0;
    ck_assert_int_lt(snprintf(path, sizeof path, "%s/%s", folder, name), (int)sizeof path);
    while (i < MOST && paths[i][0] != '\0' && strcmp(paths[i], path) != 0)
        i++;
    ck_assert_int_lt(i, MOST);
    return strcpy(paths[i], path);
}

/* By way of another name, so that nobody reads half a file. */
const char *scratch_write(const char *name, const void *bytes, size_t length)
{
    const char *path = scratch_path(name), *draft = scratch_path(".draft");
    const int fd = open(draft, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, length), (ssize_t)length);
    close(fd);
    ck_assert_int_eq(rename(draft, path), 0);
    return path;
}

const char *scratch_text(const char *name, const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    ck_assert_int_ge(vasprintf(&text, format, arguments), 0);
    va_end(arguments);
    const char *path = scratch_write(name, text, strlen(text));
    free(text);
    return path;
}

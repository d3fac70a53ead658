#include "tests/folders.h"

#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void folder_expand(char *out, size_t size, const char *text)
{
    char here[PATH_MAX];
    size_t length = 0;
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (; *text != '\0'; text++) {
        ck_assert_uint_lt(length + strlen(here) + 16, size);
        length += *text == '@' ? (size_t)sprintf(out + length, "%s/tests/golden", here)
                               : (size_t)sprintf(out + length, "%c", *text);
    }
}

static void run(const char *command)
{
    ck_assert_msg(system(command) == 0, "%s", command);
}

void folder_make(char folder[FOLDER_BYTES])
{
    strcpy(folder, "/tmp/vitd-folder-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

void folder_add(const char *folder, const char *name, const char *model)
{
    char command[512];
    snprintf(command, sizeof command, "mkdir -p %s/%s && cp %s/*.json %s/model.safetensors %s/%s/", folder, name, model,
             model, folder, name);
    run(command);
}

void folder_link(const char *folder, const char *name, const char *link)
{
    char next[256], path[256];
    snprintf(next, sizeof next, "%s/next-link", folder);
    snprintf(path, sizeof path, "%s/%s", folder, link);
    ck_assert_int_eq(symlink(name, next), 0);
    ck_assert_int_eq(rename(next, path), 0);
}

void folder_write(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

void folder_remove(const char *folder)
{
    char command[128];
    ck_assert_int_eq(strncmp(folder, "/tmp/vitd-folder-", 17), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    run(command);
}

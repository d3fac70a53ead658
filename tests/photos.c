/* photos.c - see photos.h. */
#include "tests/photos.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SANITIZED_PHOTOS = 10 };

const char *shared_folder(void)
{
    const char *shared = getenv("VITD_SHARED");
    return shared != NULL ? shared : "../shared";
}

size_t photos_list(char *names[MAX_PHOTOS])
{
    char path[600];
    const size_t most = getenv("VITD_SANITIZED") != NULL ? SANITIZED_PHOTOS : MAX_PHOTOS;
    snprintf(path, sizeof path, "%s/photos", shared_folder());
    struct dirent **entries;
    const int found = scandir(path, &entries, NULL, alphasort);
    size_t count = 0;
    for (int i = 0; i < found; i++) {
        if (strstr(entries[i]->d_name, ".JPEG") != NULL && count < most)
            ck_assert_int_gt(asprintf(&names[count++], "%s/%s", path, entries[i]->d_name), 0);
        free(entries[i]);
    }
    if (found >= 0)
        free(entries);
    return count;
}

void photo_load(float *pixels, const char *name, const vit_preprocess *preprocess)
{
    struct stat info;
    vit_image image;
    vit_error err = {""};
    FILE *file = fopen(name, "rb");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fstat(fileno(file), &info), 0);
    void *bytes = malloc((size_t)info.st_size);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)info.st_size, file), (size_t)info.st_size);
    fclose(file);
    ck_assert_msg(vit_image_decode(&image, bytes, (size_t)info.st_size, 50000000, &err) == VIT_OK, "%s", err.message);
    ck_assert_msg(vit_preprocess_apply(preprocess, &image, pixels, &err) == VIT_OK, "%s", err.message);
    vit_image_release(&image);
    free(bytes);
}

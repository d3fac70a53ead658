/* photos.h - the real photographs and weights of ../shared (or VITD_SHARED), for the tests that need them. */
#ifndef TESTS_PHOTOS_H
#define TESTS_PHOTOS_H

#include <stddef.h>

#include "vit_image.h"

enum { MAX_PHOTOS = 128 };

const char *shared_folder(void);
/* Names [count], each to be freed; 0: there are none. With the sanitizers only ten: the arithmetic is the same, and takes
 * minutes. */
size_t photos_list(char *names[MAX_PHOTOS]);
/* pixels [3, H, W] */
void photo_load(float *pixels, const char *name, const vit_preprocess *preprocess);

#endif

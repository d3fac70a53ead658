/*
 * test_agreement.c - do bf16 and int8 answer as fp32 does? The top class of real photographs, with real ImageNet weights.
 *
 * Needs ../shared (or VITD_SHARED); says so and passes without. Where the CPU has no instructions for a dtype, plain C
 * computes the same numbers, slowly: then ten photographs have to do.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/photos.h"
#include "tests/suite.h"
#include "vit.h"

enum { SLOW_PHOTOS = 10, LEAST_OF_AUTO = 995 }; /* of a thousand */

static const struct {
    vit_dtype dtype;
    size_t least; /* of a thousand */
} dtypes[] = {{VIT_DTYPE_BF16, 990}, {VIT_DTYPE_INT8, 970}};

/* The top class of each photograph. */
static void classify(size_t *classes, char *const *names, size_t count, vit_dtype dtype)
{
    char path[600];
    vit_model *model = NULL;
    vit_session *session = NULL;
    vit_error err = {""};
    snprintf(path, sizeof path, "%s/models/deit-tiny-patch16-224", shared_folder());
    ck_assert_msg(vit_model_open(&model, path, &(vit_options){.dtype = dtype}, &err) == VIT_OK, "%s", err.message);
    const vit_model_info *info = vit_model_describe(model);
    float *pixels = malloc(3 * info->image_height * info->image_width * sizeof *pixels);
    float *logits = malloc(info->classes * sizeof *logits);
    ck_assert_int_eq(vit_session_create(&session, model, 1, &err), VIT_OK);
    for (size_t i = 0; i < count; i++) {
        photo_load(pixels, names[i], info->preprocess);
        ck_assert_int_eq(vit_session_run(session, &(vit_item){.pixels = pixels, .logits = logits}, 1, &err), VIT_OK);
        vit_top_k(&classes[i], logits, info->classes, 1);
    }
    vit_session_free(session);
    vit_model_free(model);
    free(pixels);
    free(logits);
}

START_TEST(test_top_class_agrees_with_fp32)
{
    char *names[MAX_PHOTOS];
    size_t wanted[MAX_PHOTOS], found[MAX_PHOTOS];
    const size_t count = photos_list(names);
    if (count == 0) {
        printf("skipped: there are no photographs in %s\n", shared_folder());
        return;
    }
    classify(wanted, names, count, VIT_DTYPE_FP32);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        const size_t asked = vit_dtype_is_fast(dtypes[d].dtype) || count < SLOW_PHOTOS ? count : SLOW_PHOTOS;
        size_t same = 0;
        classify(found, names, asked, dtypes[d].dtype);
        for (size_t i = 0; i < asked; i++)
            same += found[i] == wanted[i];
        printf("%s has the top class of fp32 on %zu of %zu photographs\n", vit_dtype_name(dtypes[d].dtype), same, asked);
        const size_t least = dtypes[d].dtype == vit_dtype_auto() ? LEAST_OF_AUTO : dtypes[d].least;
        ck_assert_uint_ge(same * 1000, asked * least);
    }
    for (size_t i = 0; i < count; i++)
        free(names[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("agreement");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_top_class_agrees_with_fp32);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

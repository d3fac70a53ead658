/*
 * test_deletion.c - do LeGrad's maps say what a score depends on? On real photographs, with real ImageNet weights, the
 * fifth of the patches that matters most by LeGrad is deleted (filled with the picture's mean), and for comparison a
 * fifth at random. The top class must lose more of its probability by the former on at least 80 of 100 pictures.
 *
 * Needs ../shared (or VITD_SHARED); says so and passes without.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/photos.h"
#include "tests/suite.h"
#include "vit.h"

enum { RANDOM_DRAWS = 3, MAX_PATCHES = 1024 };

struct lab {
    vit_model *model;
    const vit_model_info *info;
    vit_session *session;
    float *pixels, *deleted, *logits; /* [3, H, W], the same, [N] */
    float map[MAX_PATCHES];
    size_t order[MAX_PATCHES];        /* of patches */
    unsigned seed;
};

/* deleted = pixels, but for the first `count` patches in lab->order, which become the picture's mean colour. */
static void delete_patches(struct lab *lab, size_t count)
{
    const size_t width = lab->info->image_width, n = lab->info->image_height * width, patch = lab->info->patch_size;
    memcpy(lab->deleted, lab->pixels, 3 * n * sizeof *lab->pixels);
    for (size_t channel = 0; channel < 3; channel++) {
        double mean = 0;
        for (size_t i = 0; i < n; i++)
            mean += lab->pixels[channel * n + i] / (double)n;
        for (size_t i = 0; i < count; i++) {
            const size_t top = lab->order[i] / lab->info->grid_width * patch,
                         left = lab->order[i] % lab->info->grid_width * patch;
            for (size_t y = top; y < top + patch; y++)
                for (size_t x = left; x < left + patch; x++)
                    lab->deleted[channel * n + y * width + x] = (float)mean;
        }
    }
}

static float probability_of(struct lab *lab, const float *pixels, size_t class_index)
{
    vit_error err = {""};
    const vit_item item = {.pixels = pixels, .logits = lab->logits};
    ck_assert_msg(vit_session_run(lab->session, &item, 1, &err) == VIT_OK, "%s", err.message);
    vit_scores(lab->logits, lab->logits, lab->info->classes, VIT_SOFTMAX);
    return lab->logits[class_index];
}

static void shuffle(struct lab *lab, size_t n)
{
    for (size_t i = n; i-- > 1;) {
        lab->seed = lab->seed * 1664525u + 1013904223u;
        const size_t j = (lab->seed >> 8) % (i + 1), kept = lab->order[i];
        lab->order[i] = lab->order[j];
        lab->order[j] = kept;
    }
}

/* Whether the top class loses more by LeGrad's patches than, on average, by random ones. */
static bool legrad_hurts_more(struct lab *lab)
{
    const vit_explain explain = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    const size_t patches = lab->info->grid_height * lab->info->grid_width, count = patches / 5;
    vit_error err = {""};
    size_t top;
    const vit_item item = {.pixels = lab->pixels, .logits = lab->logits, .explain = &explain, .map = lab->map};
    ck_assert_msg(vit_session_run(lab->session, &item, 1, &err) == VIT_OK, "%s", err.message);
    vit_top_k(&top, lab->logits, lab->info->classes, 1);

    vit_top_k(lab->order, lab->map, patches, patches);
    delete_patches(lab, count);
    const float by_legrad = probability_of(lab, lab->deleted, top);
    float by_chance = 0;
    for (int draw = 0; draw < RANDOM_DRAWS; draw++) {
        shuffle(lab, patches);
        delete_patches(lab, count);
        by_chance += probability_of(lab, lab->deleted, top) / RANDOM_DRAWS;
    }
    return by_legrad < by_chance;
}

START_TEST(test_deletion)
{
    char *names[MAX_PHOTOS], path[600];
    size_t count = photos_list(names), hurt = 0;
    struct lab lab = {.seed = 1};
    vit_error err = {""};
    if (count == 0) {
        printf("skipped: there are no photographs in %s\n", shared_folder());
        return;
    }
    snprintf(path, sizeof path, "%s/models/deit-tiny-patch16-224", shared_folder());
    ck_assert_msg(vit_model_open(&lab.model, path, NULL, &err) == VIT_OK, "%s", err.message);
    lab.info = vit_model_describe(lab.model);
    ck_assert_uint_le(lab.info->grid_height * lab.info->grid_width, MAX_PATCHES);
    const size_t floats = 3 * lab.info->image_height * lab.info->image_width;
    lab.pixels = malloc(floats * sizeof(float));
    lab.deleted = malloc(floats * sizeof(float));
    lab.logits = malloc(lab.info->classes * sizeof(float));
    ck_assert_int_eq(vit_session_create(&lab.session, lab.model, 1, &err), VIT_OK);
    for (size_t i = 0; i < count; i++) {
        photo_load(lab.pixels, names[i], lab.info->preprocess);
        hurt += legrad_hurts_more(&lab);
        free(names[i]);
    }
    printf("deletion: the top fifth by LeGrad lowers the top class more than a random fifth on %zu of %zu photographs\n",
           hurt, count);
    ck_assert_uint_ge(hurt * 100, count * 80);
    vit_session_free(lab.session);
    vit_model_free(lab.model);
    free(lab.pixels);
    free(lab.deleted);
    free(lab.logits);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deletion");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_deletion);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

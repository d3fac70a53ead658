/* bench_texts.c - how fast a model embeds short texts, as labels are, by its text tower. */
#include <stdio.h>

#include "server/bench.h"

enum { TEXTS = 192, TEXT_BYTES = 64, WORDS = 32 };

/* What a label may be; of one to three tokens each. */
static const char *const words[WORDS] = {"red",  "old",  "big",  "wet",  "dog",  "cat",  "bee",  "cow",
                                         "pig",  "fox",  "sea",  "sky",  "sun",  "tree", "bird", "fish",
                                         "boat", "road", "wood", "hat",  "cup",  "bed",  "car",  "bus",
                                         "toy",  "ball", "hand", "face", "leaf", "rain", "ice",  "map"};

/* Three or four words each, no two texts alike. */
static void write_texts(char (*texts)[TEXT_BYTES], const char **pointers)
{
    for (size_t i = 0; i < TEXTS; i++) {
        snprintf(texts[i], TEXT_BYTES, "%s %s %s%s%s", words[i % WORDS], words[(i / WORDS * 5 + i) % WORDS],
                 words[(i * 11 + 3) % WORDS], i % 2 ? " " : "", i % 2 ? words[(i * 7 + i / WORDS) % WORDS] : "");
        pointers[i] = texts[i];
    }
}

static bool measure(const vit_model *model, const struct bench_texts *texts, size_t threads, double flops, double peak,
                    cJSON *runs)
{
    const struct bench_way way = {.threads = threads, .batch = 1, .together = threads > 1, .texts = texts};
    double seconds;
    if (!bench_run(model, &way, &seconds))
        return false;
    const double rate = flops / seconds, share = rate / (double)threads / peak;
    const double count = (double)texts->count;
    printf("%-6s %7zu %6zu %-9s %12.3f %10.1f %9.1f %8.1f%%\n", vit_model_describe(model)->dtype, threads,
           texts->count, threads == 1 ? "" : "together", 1e3 * seconds / count, count / seconds, rate / 1e9,
           100 * share);
    cJSON *run = cJSON_CreateObject();
    cJSON_AddNumberToObject(run, "threads", (double)threads);
    cJSON_AddNumberToObject(run, "texts", count);
    cJSON_AddNumberToObject(run, "texts_per_second", count / seconds);
    cJSON_AddNumberToObject(run, "gflops", rate / 1e9);
    cJSON_AddNumberToObject(run, "of_peak", share);
    cJSON_AddItemToArray(runs, run);
    return true;
}

bool bench_text_tower(const vit_model *model, size_t threads, double peak, cJSON *json)
{
    static char texts[TEXTS][TEXT_BYTES];
    const char *pointers[TEXTS];
    const struct bench_texts all = {pointers, TEXTS};
    double flops, seconds[VIT_STAGE_COUNT], whole = 0;
    write_texts(texts, pointers);
    if (!bench_profile(model, &all, &flops, seconds))
        return false;
    for (int stage = 0; stage < VIT_STAGE_COUNT; stage++)
        whole += seconds[stage];
    printf("texts: %.1f MFLOP each; %% of the time in", flops / TEXTS / 1e6);
    for (int stage = 0; stage < VIT_STAGE_COUNT; stage++)
        printf(" %s %.0f%s", vit_stage_name((vit_stage)stage), 100 * seconds[stage] / whole,
               stage < VIT_STAGE_COUNT - 1 ? "," : "\n");
    puts("dtype  threads  texts            ms per text    texts/s   GFLOP/s  of peak");
    cJSON *runs = cJSON_AddArrayToObject(json, "texts");
    return measure(model, &all, 1, flops, peak, runs) &&
           (threads == 1 || measure(model, &all, threads, flops, peak, runs));
}

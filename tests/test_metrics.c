/* test_metrics.c - the exposition: names, labels, cumulative buckets, one HELP and TYPE each. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/metrics.h"
#include "tests/suite.h"

static struct metrics *metrics;
static struct model_metrics *one, *two;

static void start(void)
{
    metrics = metrics_create();
    one = metrics_model(metrics, "one");
    two = metrics_model(metrics, "t\"wo\\");
    ck_assert_ptr_ne(one, two);
}

static void end(void)
{
    metrics_free(metrics);
}

static char *render(void)
{
    size_t length = 0;
    char *text = metrics_render(metrics, &(struct metrics_gauges){.queue_depth = 7}, &length);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(strlen(text), length);
    ck_assert_int_eq(text[length - 1], '\n');
    return text;
}

/* Asserts that the line is there, whole. */
static void assert_line(const char *text, const char *line)
{
    const size_t length = strlen(line);
    for (const char *p = text; (p = strstr(p, line)) != NULL; p++)
        if ((p == text || p[-1] == '\n') && p[length] == '\n')
            return;
    ck_abort_msg("no line \"%s\"", line);
}

START_TEST(test_counters_carry_their_labels)
{
    metrics_request(metrics, "classify", one, 200, 0.25);
    metrics_request(metrics, "classify", one, 200, 0.25);
    metrics_request(metrics, "classify", two, 422, 0.25);
    metrics_request(metrics, "healthz", NULL, 200, 0.25);
    metrics_images(one, 3);
    metrics_rejected(metrics, REJECT_QUEUE_FULL);
    metrics_inflight(metrics, 1);
    metrics_set_model_info(metrics, one, "architecture=\"vit\"");
    char *text = render();
    assert_line(text, "vitd_requests_total{route=\"classify\",model=\"one\",code=\"200\"} 2");
    assert_line(text, "vitd_requests_total{route=\"classify\",model=\"t\\\"wo\\\\\",code=\"422\"} 1");
    assert_line(text, "vitd_requests_total{route=\"healthz\",model=\"\",code=\"200\"} 1");
    assert_line(text, "vitd_images_total{model=\"one\"} 3");
    assert_line(text, "vitd_rejected_total{reason=\"queue_full\"} 1");
    assert_line(text, "vitd_queue_depth 7");
    assert_line(text, "vitd_inflight_requests 1");
    assert_line(text, "vitd_model_info{model=\"one\",architecture=\"vit\"} 1");
    free(text);
}
END_TEST

START_TEST(test_histograms_are_cumulative)
{
    metrics_batch(one, 1, 0.5);
    metrics_batch(one, 3, 0.5);
    metrics_batch(one, 1000, 0.5);
    metrics_duration(metrics, DURATION_INFERENCE, one, 0.003);
    metrics_duration(metrics, DURATION_INFERENCE, one, 0.004);
    char *text = render();
    assert_line(text, "vitd_batch_size_bucket{model=\"one\",le=\"1\"} 1");
    assert_line(text, "vitd_batch_size_bucket{model=\"one\",le=\"2\"} 1");
    assert_line(text, "vitd_batch_size_bucket{model=\"one\",le=\"4\"} 2");
    assert_line(text, "vitd_batch_size_bucket{model=\"one\",le=\"+Inf\"} 3");
    assert_line(text, "vitd_batch_size_sum{model=\"one\"} 1004");
    assert_line(text, "vitd_batch_size_count{model=\"one\"} 3");
    assert_line(text, "vitd_inference_duration_seconds_bucket{model=\"one\",le=\"0.0025\"} 0");
    assert_line(text, "vitd_inference_duration_seconds_bucket{model=\"one\",le=\"0.005\"} 2");
    assert_line(text, "vitd_inference_duration_seconds_sum{model=\"one\"} 0.007");
    free(text);
}
END_TEST

START_TEST(test_every_family_is_declared_once)
{
    static const char *const families[] = {
        "vitd_requests_total", "vitd_images_total", "vitd_queue_depth", "vitd_inflight_requests", "vitd_batch_size",
        "vitd_request_duration_seconds", "vitd_queue_duration_seconds", "vitd_preprocess_duration_seconds",
        "vitd_inference_duration_seconds", "vitd_rejected_total", "vitd_build_info", "vitd_model_info",
        "vitd_queue_bytes", "vitd_models_bytes", "vitd_cache_hits_total", "vitd_cache_misses_total", "vitd_cache_entries",
        "vitd_cache_bytes",
        "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
        "process_open_fds", "process_max_fds", "process_start_time_seconds", "vitd_heap_bytes"};
    metrics_request(metrics, "classify", one, 200, 0.25);
    metrics_rejected(metrics, REJECT_TIMEOUT);
    char *text = render();
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char line[128];
        snprintf(line, sizeof line, "# TYPE %s ", families[i]);
        const char *first = strstr(text, line);
        ck_assert_msg(first != NULL, "no %s", line);
        ck_assert_msg(strstr(first + 1, line) == NULL, "%s twice", line);
    }
    free(text);
}
END_TEST

START_TEST(test_a_model_keeps_its_counters)
{
    metrics_images(one, 2);
    metrics_set_model_info(metrics, one, "dtype=\"fp32\"");
    metrics_set_model_info(metrics, one, NULL);
    ck_assert_ptr_eq(metrics_model(metrics, "one"), one);
    metrics_images(one, 1);
    char *text = render();
    assert_line(text, "vitd_images_total{model=\"one\"} 3");
    ck_assert_ptr_null(strstr(text, "vitd_model_info{model=\"one\"")); /* it is not loaded any more */
    free(text);
}
END_TEST

START_TEST(test_counts_can_be_read)
{
    struct metrics_counts counts;
    metrics_request(metrics, "classify", one, 200, 0.25);
    metrics_request(metrics, "embed", one, 429, 0.25);
    metrics_request(metrics, "model", one, 200, 0.25); /* looks at it, and is no inference */
    metrics_inference(one, true, 0.25);
    metrics_inference(one, true, 0.25);
    metrics_inference(one, false, 0.25);
    metrics_batch(one, 3, 0.25);
    metrics_batch(one, 3, 0.5);
    metrics_batch(one, 2, 1);
    metrics_duration(metrics, DURATION_QUEUE, one, 0.125);
    metrics_cache(one, true);
    metrics_cache(one, false);
    metrics_cache(one, false);
    metrics_read(one, &counts);
    ck_assert_uint_eq(counts.succeeded.count, 2);
    ck_assert_double_eq_tol(counts.succeeded.seconds, 0.5, 1e-6);
    ck_assert_uint_eq(counts.failed.count, 1);
    ck_assert_uint_eq(counts.durations[DURATION_REQUEST].count, 3);
    ck_assert_uint_eq(counts.batches[3].count, 2);
    ck_assert_double_eq_tol(counts.batches[3].seconds, 0.75, 1e-6);
    ck_assert_uint_eq(counts.batches[2].count, 1);
    ck_assert_uint_eq(counts.durations[DURATION_QUEUE].count, 1);
    ck_assert_double_eq_tol(counts.durations[DURATION_QUEUE].seconds, 0.125, 1e-6);
    ck_assert_uint_eq(counts.cache_hits, 1);
    ck_assert_uint_eq(counts.cache_misses, 2);
    ck_assert_int_gt(counts.last_inference_ms, 1600000000000);
    metrics_read(two, &counts);
    ck_assert_uint_eq(counts.succeeded.count + counts.failed.count + counts.images, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, start, end);
    tcase_add_test(tests, test_counters_carry_their_labels);
    tcase_add_test(tests, test_histograms_are_cumulative);
    tcase_add_test(tests, test_every_family_is_declared_once);
    tcase_add_test(tests, test_a_model_keeps_its_counters);
    tcase_add_test(tests, test_counts_can_be_read);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

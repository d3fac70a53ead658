/* test_metrics.c - the exposition: names, labels, cumulative buckets, one HELP and TYPE each. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/metrics.h"
#include "tests/suite.h"

static const char *const models[] = {"one", "t\"wo\\"};

static char *render(const struct metrics *metrics)
{
    size_t length = 0;
    char *text = metrics_render(metrics, 7, &length);
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
    struct metrics *metrics = metrics_create(models, 2);
    metrics_request(metrics, "classify", 0, 200);
    metrics_request(metrics, "classify", 0, 200);
    metrics_request(metrics, "classify", 1, 422);
    metrics_request(metrics, "healthz", METRICS_NO_MODEL, 200);
    metrics_images(metrics, 0, 3);
    metrics_rejected(metrics, REJECT_QUEUE_FULL);
    metrics_inflight(metrics, 1);
    metrics_set_model_info(metrics, 0, "architecture=\"vit\"");
    char *text = render(metrics);
    assert_line(text, "vitd_requests_total{route=\"classify\",model=\"one\",code=\"200\"} 2");
    assert_line(text, "vitd_requests_total{route=\"classify\",model=\"t\\\"wo\\\\\",code=\"422\"} 1");
    assert_line(text, "vitd_requests_total{route=\"healthz\",model=\"\",code=\"200\"} 1");
    assert_line(text, "vitd_images_total{model=\"one\"} 3");
    assert_line(text, "vitd_rejected_total{reason=\"queue_full\"} 1");
    assert_line(text, "vitd_queue_depth 7");
    assert_line(text, "vitd_inflight_requests 1");
    assert_line(text, "vitd_model_info{model=\"one\",architecture=\"vit\"} 1");
    free(text);
    metrics_free(metrics);
}
END_TEST

START_TEST(test_histograms_are_cumulative)
{
    struct metrics *metrics = metrics_create(models, 1);
    metrics_batch(metrics, 0, 1);
    metrics_batch(metrics, 0, 3);
    metrics_batch(metrics, 0, 1000);
    metrics_duration(metrics, DURATION_INFERENCE, 0, 0.003);
    metrics_duration(metrics, DURATION_INFERENCE, 0, 0.004);
    char *text = render(metrics);
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
    metrics_free(metrics);
}
END_TEST

START_TEST(test_every_family_is_declared_once)
{
    static const char *const families[] = {
        "vitd_requests_total", "vitd_images_total", "vitd_queue_depth", "vitd_inflight_requests", "vitd_batch_size",
        "vitd_request_duration_seconds", "vitd_queue_duration_seconds", "vitd_preprocess_duration_seconds",
        "vitd_inference_duration_seconds", "vitd_rejected_total", "vitd_build_info",
        "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
        "process_open_fds", "process_max_fds", "process_start_time_seconds"};
    struct metrics *metrics = metrics_create(models, 2);
    metrics_request(metrics, "classify", 0, 200);
    metrics_rejected(metrics, REJECT_TIMEOUT);
    char *text = render(metrics);
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char line[128];
        snprintf(line, sizeof line, "# TYPE %s ", families[i]);
        const char *first = strstr(text, line);
        ck_assert_msg(first != NULL, "no %s", line);
        ck_assert_msg(strstr(first + 1, line) == NULL, "%s twice", line);
    }
    free(text);
    metrics_free(metrics);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_counters_carry_their_labels);
    tcase_add_test(tests, test_histograms_are_cumulative);
    tcase_add_test(tests, test_every_family_is_declared_once);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

/* test_trace_http.c - traceparent through the real daemon, into the reply and the log; and a log without requests. */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/scratch.h"
#include "tests/suite.h"

#define ID "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"
#define TRACE "00-" ID "-" PARENT "-01"

/* `more` are members. */
static const char *write_config(const char *more)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    return scratch_text("vitd.json", "{%s \"models\": [{\"name\": \"small\", \"path\": \"%s/tests/golden/vit-hf\"}]}", more,
                        here);
}

/* The Traceparent in the reply of GET path, or ""; in static memory. header NULL: none is sent. */
static const char *trace_of(const struct daemon *daemon, const char *path, const char *header, long status)
{
    static char trace[64];
    struct reply reply = daemon_request(daemon, "GET", path, NULL, NULL, 0, header);
    ck_assert_msg(reply.curl == CURLE_OK && reply.status == status, "%s: %ld", path, reply.status);
    const char *found = reply_header(&reply, "Traceparent");
    snprintf(trace, sizeof trace, "%s", found ? found : "");
    reply_free(&reply);
    return trace;
}

/* What is not wanted is looked for after another request, by when all before it is logged. */
static void assert_logged(const struct daemon *daemon, const char *text, bool wanted)
{
    if (wanted) {
        daemon_await_log(daemon, text, 1);
        return;
    }
    trace_of(daemon, "/", NULL, 200);
    ck_assert_msg(daemon_logged(daemon, text) == 0, "%s", text);
}

/* ---- traces ---- */

START_TEST(test_trace_goes_on_with_a_span_of_its_own)
{
    static const struct {
        const char *path;
        long status;
    } cases[] = {{"/models", 200}, {"/healthz", 200}, {"/nowhere", 404}, {"/classify", 405}, {"/models/none", 404}};
    char last[17] = "", span[17], text[128];
    struct daemon daemon = daemon_start_file(write_config(""), NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *trace = trace_of(&daemon, cases[i].path, "Traceparent: " TRACE, cases[i].status);
        ck_assert_msg(strlen(trace) == 55 && strncmp(trace, "00-" ID "-", 36) == 0 && strcmp(trace + 52, "-01") == 0,
                      "%s", trace);
        snprintf(span, sizeof span, "%s", trace + 36);
        ck_assert_uint_eq(strspn(span, "0123456789abcdef"), 16);
        ck_assert_str_ne(span, PARENT);
        ck_assert_str_ne(span, last);
        strcpy(last, span);
        snprintf(text, sizeof text, " trace=" ID " span=%s\n", span);
        assert_logged(&daemon, text, true);
    }
    assert_logged(&daemon, PARENT, false);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_flags_are_those_that_are_known)
{
    struct daemon daemon = daemon_start_file(write_config(""), NULL);
    const char *trace = trace_of(&daemon, "/healthz", "Traceparent: 00-" ID "-" PARENT "-00", 200);
    ck_assert_str_eq(trace + 52, "-00");
    trace = trace_of(&daemon, "/healthz", "Traceparent: 00-" ID "-" PARENT "-ff", 200);
    ck_assert_str_eq(trace + 52, "-03");
    trace = trace_of(&daemon, "/healthz", "traceparent: cc-" ID "-" PARENT "-01-what-comes-later", 200);
    ck_assert_msg(strncmp(trace, "00-" ID "-", 36) == 0 && strcmp(trace + 52, "-01") == 0, "%s", trace);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_what_is_no_trace_is_ignored)
{
    static const char *const headers[] = {
        NULL,
        "Traceparent: ",
        "Traceparent: 00-" ID "-" PARENT,
        "Traceparent: 00-" ID "-" PARENT "-01-more",
        "Traceparent: 00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01",
        "Traceparent: 00-00000000000000000000000000000000-" PARENT "-01",
        "Traceparent: 00-" ID "-0000000000000000-01",
        "Traceparent: ff-" ID "-" PARENT "-01",
        "Traceparent: 00-" ID "-" PARENT "-0g",
        "Traceparent: " TRACE "\r\nTraceparent: " TRACE,
        "Traceparent: " TRACE "\r\ntraceparent: 00-1af7651916cd43dd8448eb211c80319c-" PARENT "-01",
        "Tracestate: a=1",
    };
    struct daemon daemon = daemon_start_file(write_config(""), NULL);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        ck_assert_msg(*trace_of(&daemon, "/healthz", headers[i], 200) == '\0', "%s", headers[i]);
    assert_logged(&daemon, " trace=", false);
    assert_logged(&daemon, " span=", false);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_traces_in_json)
{
    struct daemon daemon = daemon_start_file(write_config("\"log\": {\"format\": \"json\"},"), NULL);
    trace_of(&daemon, "/healthz", "Traceparent: " TRACE, 200);
    assert_logged(&daemon, "\"trace\":\"" ID "\",\"span\":\"", true);
    char *log = daemon_log(&daemon), *line = strstr(log, "{\"time\"");
    ck_assert_ptr_nonnull(line);
    for (char *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        next += *next == '\n' ? (*next = '\0', 1) : 0;
        cJSON *json = cJSON_ParseWithOpts(line, NULL, 1);
        ck_assert_msg(json != NULL, "%s", line);
        cJSON_Delete(json);
    }
    free(log);
    daemon_stop(&daemon);
}
END_TEST

/* ---- log.access ---- */

START_TEST(test_log_without_requests)
{
    struct daemon daemon = daemon_start_file(write_config("\"log\": {\"access\": false},"), NULL);
    trace_of(&daemon, "/healthz", NULL, 200);
    trace_of(&daemon, "/nowhere", NULL, 404);
    assert_logged(&daemon, "/healthz", false);
    assert_logged(&daemon, "/nowhere", false);
    assert_logged(&daemon, "model small: ", true);
    assert_logged(&daemon, "listening on http", true);
    scratch_text("vitd.json", "{\"threads\": \"many\"}");
    ck_assert(!daemon_reload(&daemon));
    assert_logged(&daemon, " error reload refused, all is as it was: ", true);
    write_config("\"log\": {\"access\": true},");
    ck_assert(daemon_reload(&daemon));
    trace_of(&daemon, "/healthz", NULL, 200);
    assert_logged(&daemon, "GET /healthz 200 ", true);
    write_config("\"log\": {\"access\": false},");
    ck_assert(daemon_reload(&daemon));
    trace_of(&daemon, "/readyz", NULL, 200);
    assert_logged(&daemon, "/readyz", false);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_failed_start_is_told_without_requests)
{
    char *log = daemon_fail(scratch_text("vitd.json", "{\"log\": {\"access\": false}, "
                                                      "\"models\": [{\"path\": \"/nonexistent\"}]}"));
    ck_assert_msg(strstr(log, " error ") != NULL && strstr(log, "/nonexistent") != NULL, "%s", log);
    free(log);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("traces over HTTP");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_trace_goes_on_with_a_span_of_its_own);
    tcase_add_test(tests, test_flags_are_those_that_are_known);
    tcase_add_test(tests, test_what_is_no_trace_is_ignored);
    tcase_add_test(tests, test_traces_in_json);
    tcase_add_test(tests, test_log_without_requests);
    tcase_add_test(tests, test_failed_start_is_told_without_requests);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

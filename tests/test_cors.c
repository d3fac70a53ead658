/*
 * test_cors.c - what a browser asks and is told before a page of another origin may read a reply of the real daemon
 * (https://fetch.spec.whatwg.org/#http-cors-protocol).
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/scratch.h"
#include "tests/suite.h"

/* Of some key that nobody sends. */
#define KEYS "infer f60e1b1b1ef2dc2a4a0ff1b40a1f85d5c6cbd9eb1a42ddaa3a1f81a4b2f3ad11 ivy\n"
#define LISTED "https://app.example"
#define OTHER "https://evil.example"

static struct daemon start(const char *origins)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    const char *keys = scratch_text("keys", KEYS);
    const char *path = scratch_text("vitd.json",
                                    "{\"access\": {\"keys\": \"%s\", \"cors_origins\": %s},"
                                    "\"models\": [{\"path\": \"%s/tests/golden/vit-hf\"}]}",
                                    keys, origins, here);
    return daemon_start_file(path, NULL);
}

/* origin NULL: none. */
static struct reply ask(const struct daemon *daemon, const char *method, const char *path, const char *origin,
                        const char *more)
{
    char header[512];
    snprintf(header, sizeof header, "%s%s%s%s", origin ? "Origin: " : more, origin ? origin : "",
             origin && *more ? "\r\n" : "", origin ? more : "");
    struct reply reply = daemon_request(daemon, method, path, NULL, NULL, 0, *header ? header : NULL);
    ck_assert_msg(reply.curl == CURLE_OK, "%s %s: %s", method, path, curl_easy_strerror(reply.curl));
    return reply;
}

/* Whether a comma list, of which the case counts or not, has the word. */
static bool lists(const char *list, const char *word, bool exact)
{
    const size_t length = strlen(word);
    for (; list && *list; list += strcspn(list, ",") + (list[strcspn(list, ",")] == ',')) {
        list += strspn(list, " ");
        const size_t found = strcspn(list, ",");
        if (found == length && (exact ? strncmp(list, word, length) : strncasecmp(list, word, length)) == 0)
            return true;
    }
    return false;
}

static void assert_shared(const struct reply *reply, const char *origin)
{
    const char *allowed = reply_header(reply, "Access-Control-Allow-Origin");
    ck_assert_msg(allowed && strcmp(allowed, origin) == 0, "%s", reply->headers);
    ck_assert_msg(lists(reply_header(reply, "Vary"), "Origin", false), "%s", reply->headers);
    ck_assert_ptr_null(reply_header(reply, "Access-Control-Allow-Credentials"));
}

static void assert_not_shared(const struct reply *reply)
{
    ck_assert_msg(strcasestr(reply->headers, "access-control-") == NULL, "%s", reply->headers);
}

/* ---- preflights ---- */

START_TEST(test_preflight_allows_what_pages_need)
{
    static const struct {
        const char *path, *method;
    } routes[] = {{"/classify", "POST"}, {"/explain?top_k=1", "POST"}, {"/models", "GET"}, {"/models/vit-hf", "GET"},
                  {"/metrics", "GET"}, {"/readyz", "GET"}};
    static const char *const headers[] = {"authorization", "content-type", "x-request-id",
                                          "x-request-timeout-ms", "priority", "traceparent",
                                          "inference-header-content-length"};
    struct daemon daemon = start("[\"" LISTED "\"]");
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        char more[128];
        snprintf(more, sizeof more, "Access-Control-Request-Method: %s\r\n"
                                    "Access-Control-Request-Headers: authorization,content-type", routes[i].method);
        struct reply reply = ask(&daemon, "OPTIONS", routes[i].path, LISTED, more); /* without a key */
        ck_assert_msg(reply.status == 204 && reply.length == 0, "%s: %ld", routes[i].path, reply.status);
        assert_shared(&reply, LISTED);
        const char *methods = reply_header(&reply, "Access-Control-Allow-Methods");
        ck_assert_msg(lists(methods, routes[i].method, true), "%s", reply.headers);
        /* "*" would not do: Authorization has to be named */
        for (size_t h = 0; h < sizeof headers / sizeof headers[0]; h++)
            ck_assert_msg(lists(reply_header(&reply, "Access-Control-Allow-Headers"), headers[h], false), "%s: %s",
                          headers[h], reply.headers);
        const char *age = reply_header(&reply, "Access-Control-Max-Age");
        ck_assert_msg(age && atol(age) > 0 && atol(age) <= 7200, "%s", reply.headers);
        ck_assert_ptr_null(reply_header(&reply, "Content-Type"));
        reply_free(&reply);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_preflight_of_others_says_no)
{
    static const char *const others[] = {OTHER, "null", "http://app.example", LISTED ":8443",
                                         "https://app.example.evil.example", "https://sub.app.example", "https://APP.example",
                                         "https://app.exampl", "", LISTED " " OTHER};
    static const char wish[] = "Access-Control-Request-Method: POST";
    struct daemon daemon = start("[\"https://first.example\", \"" LISTED "\", \"http://[::1]:3000\"]");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct reply reply = ask(&daemon, "OPTIONS", "/classify", others[i], wish);
        ck_assert_msg(reply.status == 405, "%s: %ld", others[i], reply.status);
        ck_assert_msg(reply_header(&reply, "Allow") != NULL, "%s", reply.headers);
        assert_not_shared(&reply);
        reply_free(&reply);
    }
    const char *const listed[] = {"https://first.example", LISTED, "http://[::1]:3000"};
    for (size_t i = 0; i < 3; i++) {
        struct reply reply = ask(&daemon, "OPTIONS", "/classify", listed[i], wish);
        ck_assert_int_eq(reply.status, 204);
        assert_shared(&reply, listed[i]);
        reply_free(&reply);
    }
    struct reply reply = ask(&daemon, "OPTIONS", "/classify", NULL, wish);
    ck_assert_int_eq(reply.status, 405);
    assert_not_shared(&reply);
    reply_free(&reply);
    reply = ask(&daemon, "OPTIONS", "/nowhere", LISTED, wish);
    reply_assert_error(&reply, 404, "route_not_found");
    assert_shared(&reply, LISTED); /* so that the console says 404, and nothing of CORS */
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

/* A preflight may carry no key, and gives nobody what a key is for. */
START_TEST(test_preflight_is_not_the_request)
{
    struct daemon daemon = start("[\"*\"]");
    struct reply reply = ask(&daemon, "OPTIONS", "/models", LISTED, "Access-Control-Request-Method: GET");
    ck_assert_int_eq(reply.status, 204);
    ck_assert_uint_eq(reply.length, 0);
    reply_free(&reply);
    reply = ask(&daemon, "GET", "/models", LISTED, "");
    reply_assert_error(&reply, 401, "unauthorized");
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

/* ---- requests ---- */

START_TEST(test_replies_and_errors_are_shared)
{
    static const struct {
        const char *method, *path;
        long status;
    } cases[] = {{"GET", "/readyz", 200},  {"HEAD", "/readyz", 200},   {"GET", "/", 200},
                 {"GET", "/models", 401},  {"GET", "/nowhere", 404},   {"DELETE", "/readyz", 405},
                 {"POST", "/classify", 401}};
    struct daemon daemon = start("[\"" LISTED "\"]");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply = ask(&daemon, cases[i].method, cases[i].path, LISTED, "");
        ck_assert_msg(reply.status == cases[i].status, "%s %s: %ld", cases[i].method, cases[i].path, reply.status);
        assert_shared(&reply, LISTED);
        const char *exposed = reply_header(&reply, "Access-Control-Expose-Headers");
        const char *const wanted[] = {"X-Request-Id", "Retry-After", "X-Cache", "Traceparent"};
        for (size_t h = 0; h < 4; h++)
            ck_assert_msg(lists(exposed, wanted[h], false), "%s: %s", wanted[h], reply.headers);
        reply_free(&reply);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_origins_that_are_not_listed_are_served_and_not_told)
{
    struct daemon daemon = start("[\"" LISTED "\"]");
    const char *const origins[] = {OTHER, "null", NULL};
    for (size_t i = 0; i < 3; i++) {
        struct reply reply = ask(&daemon, "GET", "/readyz", origins[i], "");
        ck_assert_int_eq(reply.status, 200);
        assert_not_shared(&reply);
        /* what a cache must know */
        ck_assert_msg(lists(reply_header(&reply, "Vary"), "Origin", false), "%s", reply.headers);
        reply_free(&reply);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_star_allows_every_origin)
{
    struct daemon daemon = start("[\"*\"]");
    const char *const origins[] = {LISTED, OTHER, "null"};
    for (size_t i = 0; i < 3; i++) {
        struct reply reply = ask(&daemon, "GET", "/readyz", origins[i], "");
        const char *allowed = reply_header(&reply, "Access-Control-Allow-Origin");
        ck_assert_msg(allowed && (strcmp(allowed, origins[i]) == 0 || strcmp(allowed, "*") == 0), "%s", reply.headers);
        ck_assert_ptr_null(reply_header(&reply, "Access-Control-Allow-Credentials"));
        reply_free(&reply);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_without_origins_there_is_no_cors)
{
    struct daemon daemon = start("[]");
    struct reply reply = ask(&daemon, "GET", "/readyz", LISTED, "");
    ck_assert_int_eq(reply.status, 200);
    assert_not_shared(&reply);
    ck_assert_ptr_null(reply_header(&reply, "Vary"));
    reply_free(&reply);
    reply = ask(&daemon, "OPTIONS", "/classify", LISTED, "Access-Control-Request-Method: POST");
    ck_assert_int_eq(reply.status, 405);
    assert_not_shared(&reply);
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_origins_change_by_reload)
{
    struct daemon daemon = start("[\"" LISTED "\"]");
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    scratch_text("vitd.json", "{\"access\": {\"cors_origins\": [\"" OTHER "\"]}, "
                              "\"models\": [{\"path\": \"%s/tests/golden/vit-hf\"}]}", here);
    ck_assert(daemon_reload(&daemon));
    struct reply reply = ask(&daemon, "GET", "/readyz", OTHER, "");
    assert_shared(&reply, OTHER);
    reply_free(&reply);
    reply = ask(&daemon, "GET", "/readyz", LISTED, "");
    assert_not_shared(&reply);
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("CORS");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_preflight_allows_what_pages_need);
    tcase_add_test(tests, test_preflight_of_others_says_no);
    tcase_add_test(tests, test_preflight_is_not_the_request);
    tcase_add_test(tests, test_replies_and_errors_are_shared);
    tcase_add_test(tests, test_origins_that_are_not_listed_are_served_and_not_told);
    tcase_add_test(tests, test_star_allows_every_origin);
    tcase_add_test(tests, test_without_origins_there_is_no_cors);
    tcase_add_test(tests, test_origins_change_by_reload);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

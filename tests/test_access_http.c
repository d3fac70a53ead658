/*
 * test_access_http.c - keys and roles in front of the real daemon: every route of its table, spellings of paths that might
 * get around the check, uploads that are refused before they are read, and keys that change while it serves.
 */
#include <check.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/http/handlers.h"
#include "tests/daemon.h"
#include "tests/scratch.h"
#include "tests/suite.h"

#define INFER "infer-9b1f0c7de2"
#define METRICS "metrics-51c0aa7e3d"
#define ADMIN "admin-0f6e9d2b84"

/* A line of the file of keys; in static memory. */
static const char *line(const char *roles, const char *key, const char *name)
{
    static char lines[16][160];
    static unsigned next;
    char *text = lines[next++ % 16];
    unsigned char hash[32];
    ck_assert_int_eq(gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), hash), 0);
    int length = sprintf(text, "%s ", roles);
    for (size_t i = 0; i < sizeof hash; i++)
        length += sprintf(text + length, "%02x", hash[i]);
    sprintf(text + length, " %s\n", name);
    return text;
}

static const char *write_keys(void)
{
    return scratch_text("keys", "%s%s%s", line("infer", INFER, "ivy"), line("metrics", METRICS, "mona"),
                        line("admin", ADMIN, "ada"));
}

/* With keys in FOLDER/keys and all in FOLDER/vitd.json; `more` are members of the configuration. */
static struct daemon start(const char *more)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    const char *keys = write_keys();
    const char *path = scratch_text("vitd.json",
                                    "{\"access\": {\"keys\": \"%s\", \"admin\": true}, \"threads\": 2, %s"
                                    "\"models\": [{\"name\": \"small\", \"path\": \"%s/tests/golden/vit-hf\"}]}",
                                    keys, more, here);
    return daemon_start_file(path, NULL);
}

/* key NULL: none. */
static struct reply ask(const struct daemon *daemon, const char *method, const char *path, const char *key,
                        const void *body, size_t length)
{
    char header[128];
    snprintf(header, sizeof header, "Authorization: Bearer %s", key ? key : "");
    return daemon_request(daemon, method, path, body ? "application/octet-stream" : NULL, body, length,
                          key ? header : NULL);
}

static long status_of(const struct daemon *daemon, const char *method, const char *path, const char *key)
{
    struct reply reply = ask(daemon, method, path, key, NULL, 0);
    const long status = reply.status;
    ck_assert_msg(reply.curl == CURLE_OK, "%s %s: %s", method, path, curl_easy_strerror(reply.curl));
    reply_free(&reply);
    return status;
}

static double rejected(const struct daemon *daemon)
{
    struct reply reply = ask(daemon, "GET", "/metrics", METRICS, NULL, 0);
    const double value = reply_metric(&reply, "vitd_rejected_total{reason=\"unauthorized\"}");
    reply_free(&reply);
    return value;
}

/* ---- routes ---- */

/* The route's path with names in it; in static memory. */
static const char *example(const struct route *route)
{
    static const char *const segments[][2] = {{"{name}", "small"}, {"{version}", "1"}};
    static char path[256];
    char *out = path;
    for (const char *at = route->path; *at;) {
        const char *word = NULL;
        for (size_t i = 0; i < 2; i++)
            if (strncmp(at, segments[i][0], strlen(segments[i][0])) == 0) {
                word = segments[i][1];
                at += strlen(segments[i][0]);
                break;
            }
        out += word ? sprintf(out, "%s", word) : sprintf(out, "%c", *at++);
    }
    return path;
}

/* Whether the roles that come with a key (the file's order) include one. */
static bool may(const char *key, enum role role)
{
    return role == ROLE_OPEN || strcmp(key, ADMIN) == 0 || (role == ROLE_INFER && strcmp(key, INFER) == 0) ||
           (role == ROLE_METRICS && strcmp(key, METRICS) == 0);
}

static void check_route(const struct daemon *daemon, const struct route *route, const char *method, const char *key)
{
    static const char body[] = "no picture";
    const bool post = strcmp(method, "POST") == 0, known = key && strcmp(key, "unknown") != 0;
    const char *path = example(route);
    struct reply reply = ask(daemon, method, path, key, post ? body : NULL, post ? sizeof body - 1 : 0);
    const char *challenge = reply_header(&reply, "WWW-Authenticate");
    ck_assert_msg(reply.curl == CURLE_OK, "%s %s: %s", method, path, curl_easy_strerror(reply.curl));
    if (route->role != ROLE_OPEN && !known) {
        ck_assert_msg(reply.status == 401, "%s %s with %s: %ld", method, path, key ? key : "no key", reply.status);
        ck_assert_msg(challenge && strncmp(challenge, "Bearer", 6) == 0, "%s", reply.headers);
    } else if (known && !may(key, route->role)) {
        ck_assert_msg(reply.status == 403, "%s %s with %s: %ld", method, path, key, reply.status);
        ck_assert_ptr_null(challenge);
    } else {
        ck_assert_msg(reply.status != 401 && reply.status != 403, "%s %s with %s: %ld", method, path,
                      key ? key : "no key", reply.status);
    }
    if (strcmp(method, "HEAD") == 0)
        ck_assert_uint_eq(reply.length, 0);
    else if (reply.status == 401 || reply.status == 403)
        ck_assert_msg(strstr(reply.body, "error") != NULL, "%s", reply.body);
    reply_free(&reply);
}

START_TEST(test_every_route_has_its_role)
{
    static const char *const keys[] = {NULL, "unknown", INFER, METRICS, ADMIN};
    size_t count, open = 0;
    const struct route *routes = routes_table(&count);
    struct daemon daemon = start("");
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            check_route(&daemon, &routes[i], routes[i].method, keys[k]);
            if (strcmp(routes[i].method, "GET") == 0)
                check_route(&daemon, &routes[i], "HEAD", keys[k]);
        }
        open += routes[i].role == ROLE_OPEN;
    }
    ck_assert_uint_ge(open, 4);
    daemon_stop(&daemon);
}
END_TEST

/* What everyone may see is a decision, not what a table happens to say. */
START_TEST(test_open_routes_are_these)
{
    static const char *const open[] = {"/healthz", "/readyz", "/", "/openapi.json"};
    static const char *const closed[] = {"/models", "/models/small", "/models/small/filters",
                                         "/models/small/positions.png", "/metrics", "/debug/queue"};
    struct daemon daemon = start("");
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        ck_assert_int_eq(status_of(&daemon, "GET", open[i], NULL), 200);
        ck_assert_int_eq(status_of(&daemon, "GET", open[i], "unknown"), 200);
    }
    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
        ck_assert_int_eq(status_of(&daemon, "GET", closed[i], NULL), 401);
        ck_assert_int_eq(status_of(&daemon, "GET", closed[i], ADMIN), 200);
    }
    daemon_stop(&daemon);
}
END_TEST

/* A probe of a model answers everyone, but lists the models to nobody. */
START_TEST(test_probes_tell_no_names)
{
    struct daemon daemon = start("");
    ck_assert_int_eq(status_of(&daemon, "GET", "/v2/models/small/ready", NULL), 200);
    struct reply reply = daemon_get(&daemon, "/v2/models/none/ready");
    ck_assert_int_eq(reply.status, 404);
    ck_assert_str_eq(reply.body, "{\"error\":\"there is no model 'none'\"}");
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_only_bearer_keys_count)
{
    static const struct {
        const char *header;
        long status;
    } cases[] = {
        {"Authorization: Bearer " METRICS, 200},
        {"authorization: bearer " METRICS, 200},
        {"Authorization: Bearer   " METRICS "  ", 200},
        {"Authorization: Bearer", 401},
        {"Authorization: Bearer ", 401},
        {"Authorization: " METRICS, 401},
        {"Authorization: Basic " METRICS, 401},
        {"Authorization: Bearer" METRICS, 401},
        {"Authorization: Bearer " METRICS "x", 401},
        {"Authorization: Bearer " METRICS " " METRICS, 401},
        {"Authorization: Bearer \"" METRICS "\"", 401},
        {"Proxy-Authorization: Bearer " METRICS, 401},
        {"X-Authorization: Bearer " METRICS, 401},
        {"Cookie: Authorization=Bearer " METRICS, 401},
    };
    struct daemon daemon = start("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        sprintf(text, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n\r\n", cases[i].header);
        char *answer = daemon_exchange(&daemon, text, strlen(text));
        ck_assert_msg(atol(answer + 9) == cases[i].status, "%s: %.200s", cases[i].header, answer);
        free(answer);
    }
    ck_assert_int_eq(status_of(&daemon, "GET", "/metrics?access_token=" METRICS, NULL), 401);
    daemon_stop(&daemon);
}
END_TEST

/* ---- ways around ---- */

struct spelling {
    const char *method, *target;
    long status; /* without a key */
};

static char *send_spelling(const struct daemon *daemon, const struct spelling *spelling, const char *key)
{
    char text[512];
    const bool post = strcmp(spelling->method, "POST") == 0;
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s%s%s%s\r\n%s", spelling->method,
             spelling->target, key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "",
             post ? "Content-Length: 4\r\n" : "", post ? "junk" : "");
    return daemon_exchange(daemon, text, strlen(text));
}

START_TEST(test_no_spelling_gets_around_the_check)
{
    static const struct spelling cases[] = {
        {"GET", "/metrics", 401},
        {"GET", "/metrics?", 401},
        {"GET", "/metrics?a=/healthz", 401},
        {"GET", "/metrics#", 404},
        {"GET", "/metrics/", 404},
        {"GET", "//metrics", 404},
        {"GET", "/Metrics", 404},
        {"GET", "/metric%73", 404},
        {"GET", "/metrics%00", 404},
        {"GET", "/metrics;a", 404},
        {"GET", "/./metrics", 404},
        {"GET", "/healthz/../metrics", 404},
        {"GET", "/healthz%2f..%2fmetrics", 404},
        {"GET", "/healthz/", 404},
        {"GET", "\\metrics", 400},
        {"GET", "metrics", 400},
        {"GET", "*", 404},
        {"GET", "http://a/metrics", 401},
        {"GET", "HTTP://a/metrics", 401},
        {"GET", "https://a/metrics", 401},
        {"GET", "http://healthz/metrics", 401},
        {"GET", "http://u:p@a/metrics", 401},
        {"GET", "http:///metrics", 401},
        {"GET", "http://a//metrics", 404},
        {"GET", "http://a", 200}, /* the page */
        {"GET", "http://a?/metrics", 200},
        {"GET", "http:/metrics", 404},
        {"GET", "httpx://a/metrics", 404},
        {"HEAD", "/metrics", 401},
        {"HEAD", "http://a/metrics", 401},
        {"OPTIONS", "/metrics", 405},
        {"OPTIONS", "*", 404},
        {"TRACE", "/metrics", 405},
        {"get", "/metrics", 405},
        {"POST", "/metrics", 405},
        {"POST", "/classify", 401},
        {"POST", "/classify?top_k=1", 401},
        {"POST", "//classify", 404},
        {"POST", "/classify/", 404},
        {"POST", "/Classify", 404},
        {"POST", "/%63lassify", 404},
        {"POST", "http://a/classify", 401},
        {"PUT", "/classify", 405},
        {"GET", "/classify", 405},
        {"HEAD", "/classify", 405},
        {"OPTIONS", "/classify", 405},
        {"GET", "/models/sm%61ll", 401},
        {"GET", "/models/%2e%2e", 401},
        {"GET", "/models//filters", 404},
        {"GET", "/models/small/../../healthz", 404},
        {"POST", "/models/small/unload", 401},
        {"POST", "/models/sm%61ll/unload", 401},
        {"POST", "/models/small%2Funload", 405}, /* GET /models/{name}, of a name with a slash */
        {"GET", "/models/small/unload", 405},
        {"POST", "/models/small/unload/", 404},
        {"GET", "/debug/queue", 401},
        {"GET", "/debug%2fqueue", 404},
    };
    struct daemon daemon = start("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *answer = send_spelling(&daemon, &cases[i], NULL);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && atol(answer + 9) == cases[i].status, "%s %s: %.300s",
                      cases[i].method, cases[i].target, answer);
        ck_assert_msg(strstr(answer, "# HELP vitd_") == NULL, "%s %s", cases[i].method, cases[i].target);
        free(answer);
        if (cases[i].status != 401)
            continue;
        answer = send_spelling(&daemon, &cases[i], ADMIN); /* the same spelling is served to whom it is for */
        ck_assert_msg(strstr(cases[i].target, "2e%2e") || strncmp(answer, "HTTP/1.1 40", 11) != 0 ||
                          strncmp(answer, "HTTP/1.1 404", 12) == 0, "%s: %.300s", cases[i].target, answer);
        free(answer);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_admin_routes_are_not_there_unless_wanted)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    const char *keys = write_keys();
    const char *path = scratch_text("vitd.json", "{\"access\": {\"keys\": \"%s\"}, "
                                                 "\"models\": [{\"path\": \"%s/tests/golden/vit-hf\"}]}", keys, here);
    struct daemon daemon = daemon_start_file(path, NULL);
    ck_assert_int_eq(status_of(&daemon, "GET", "/debug/queue", ADMIN), 404);
    ck_assert_int_eq(status_of(&daemon, "POST", "/models/vit-hf/unload", ADMIN), 404);
    ck_assert_int_eq(status_of(&daemon, "GET", "/models/vit-hf", ADMIN), 200);
    daemon_stop(&daemon);
}
END_TEST

/* ---- uploads ---- */

/* Sends a header, and nothing of the body that it promises; what comes back, and in how many seconds. */
static char *promise(const struct daemon *daemon, const char *headers, const char *key, double *seconds)
{
    char text[512];
    const double start_time = test_clock();
    snprintf(text, sizeof text, "POST /classify HTTP/1.1\r\nHost: a\r\n%s%s%s%s\r\n", headers,
             key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "");
    char *answer = daemon_exchange(daemon, text, strlen(text));
    *seconds = test_clock() - start_time;
    return answer;
}

START_TEST(test_large_uploads_are_refused_before_they_come)
{
    static const struct {
        const char *headers, *key;
        long status;
    } cases[] = {
        {"Content-Length: 10000000\r\nExpect: 100-continue\r\n", NULL, 401},
        {"Content-Length: 10000000\r\n", NULL, 401},
        {"Transfer-Encoding: chunked\r\n", NULL, 401},
        {"Content-Length: 10000000\r\n", "unknown", 401},
        {"Content-Length: 10000000\r\n", METRICS, 403},
        {"Transfer-Encoding: chunked\r\n", METRICS, 403},
    };
    struct daemon daemon = start("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double seconds;
        char *answer = promise(&daemon, cases[i].headers, cases[i].key, &seconds);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && atol(answer + 9) == cases[i].status, "case %zu: %s", i,
                      answer);
        ck_assert_msg(strstr(answer, "Connection: close\r\n") != NULL, "case %zu: %s", i, answer);
        ck_assert_msg(strstr(answer + 9, "HTTP/1.1 ") == NULL, "case %zu: %s", i, answer);
        ck_assert_msg(seconds < 5, "case %zu: %g s", i, seconds);
        free(answer);
    }
    daemon_stop(&daemon);
}
END_TEST

/* A client that sends all of a body before it looks: a reset, for what nobody has read, must not destroy the reply. */
START_TEST(test_refusals_reach_clients_that_send_on)
{
    static const struct {
        const char *key;
        long status;
    } cases[] = {{"", 401}, {"Authorization: Bearer unknown\r\n", 401}, {"Authorization: Bearer " METRICS "\r\n", 403}};
    const size_t length = 8 << 20;
    char *text = calloc(1, length + 512);
    struct daemon daemon = start("");
    for (size_t i = 0; i < 3; i++) {
        const int head = sprintf(text, "POST /classify HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n",
                                 cases[i].key, length);
        char *answer = daemon_exchange(&daemon, text, (size_t)head + length);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && atol(answer + 9) == cases[i].status, "case %zu: %s", i,
                      answer);
        ck_assert_msg(strstr(answer, "\"error\"") != NULL, "case %zu: %s", i, answer);
        free(answer);
        memset(text, 0, 512);
    }
    free(text);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_small_refusals_keep_the_connection)
{
    static const char text[] = "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\njunk"
                               "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
                               "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    struct daemon daemon = start("");
    char *answer = daemon_exchange(&daemon, text, sizeof text - 1), *at = answer;
    for (int i = 0; i < 3; i++) {
        at = strstr(at, "HTTP/1.1 ");
        ck_assert_msg(at != NULL, "reply %d: %s", i, answer);
        ck_assert_int_eq(atol(at + 9), i < 2 ? 401 : 200);
        at += 9;
    }
    free(answer);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_refusals_are_counted)
{
    struct daemon daemon = start("");
    const double before = rejected(&daemon);
    status_of(&daemon, "GET", "/models", NULL);
    status_of(&daemon, "GET", "/models", "unknown");
    status_of(&daemon, "GET", "/metrics", INFER);
    status_of(&daemon, "GET", "/models", INFER);
    status_of(&daemon, "GET", "/healthz", NULL);
    ck_assert_double_eq(rejected(&daemon) - before, 3);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the log ---- */

START_TEST(test_log_names_users_and_no_key)
{
    struct daemon daemon = start("");
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200);
    ck_assert_int_eq(status_of(&daemon, "GET", "/models/small", METRICS), 403);
    ck_assert_int_eq(status_of(&daemon, "GET", "/metrics", "unknown-4c1d"), 401);
    ck_assert_int_eq(status_of(&daemon, "GET", "/readyz", INFER), 200);
    ck_assert_int_eq(status_of(&daemon, "GET", "/models?key=" INFER, INFER), 200);
    ck_assert_int_eq(status_of(&daemon, "GET", "/", NULL), 200);
    daemon_await_log(&daemon, "GET / 200 ", 1); /* and all before it */
    char *log = daemon_log(&daemon);
    const char *const lines[][2] = {
        {"GET /models 200 ", " user=ivy"}, {"GET /models/small 403 ", " user=mona"}, {"GET /metrics 401 ", NULL},
        {"GET /readyz 200 ", NULL}};
    for (size_t i = 0; i < 4; i++) {
        const char *found = strstr(log, lines[i][0]);
        ck_assert_msg(found != NULL, "no %s in %s", lines[i][0], log);
        char *whole = strndup(found, strcspn(found, "\n"));
        ck_assert_msg(lines[i][1] ? strstr(whole, lines[i][1]) != NULL : strstr(whole, "user=") == NULL, "%s", whole);
        free(whole);
    }
    const char *const secrets[] = {INFER, METRICS, "unknown-4c1d"};
    for (size_t i = 0; i < 3; i++)
        ck_assert_msg(strstr(log, secrets[i]) == NULL, "%s", log);
    free(log);
    daemon_stop(&daemon);
}
END_TEST

/* ---- reload ---- */

START_TEST(test_keys_change_while_it_serves)
{
    struct daemon daemon = start("");
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200);
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", "fresh-71aa"), 401);
    scratch_text("keys", "%s%s", line("infer", "fresh-71aa", "fred"), line("admin", ADMIN, "ada"));
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200); /* nobody has asked for a reload */
    ck_assert(daemon_reload(&daemon));
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 401);
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", "fresh-71aa"), 200);
    ck_assert_int_eq(status_of(&daemon, "GET", "/debug/queue", ADMIN), 200);
    scratch_text("keys", "%s%s", line("metrics", "fresh-71aa", "fred"), line("admin", ADMIN, "ada"));
    ck_assert(daemon_reload(&daemon));
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", "fresh-71aa"), 403);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_broken_keys_are_refused_and_the_old_ones_stay)
{
    const struct {
        const char *text, *says;
    } cases[] = {
        {"", "found no key"},
        {"infer " INFER "\n", "keys:1: found a second word"}, /* a key where its hash belongs */
        {line("infre", INFER, "ivy"), "keys:1: found the role"},
        {line("infer", INFER, "ivy"), "no key in "}, /* and none is an admin's */
    };
    struct daemon daemon = start("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        scratch_text("keys", "%s", cases[i].text);
        ck_assert(!daemon_reload(&daemon));
        char *log = daemon_log(&daemon);
        ck_assert_msg(strstr(log, cases[i].says) != NULL, "no \"%s\" in %s", cases[i].says, log);
        ck_assert_msg(strstr(log, INFER) == NULL, "%s", log);
        free(log);
        ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200);
        ck_assert_int_eq(status_of(&daemon, "GET", "/models", NULL), 401);
    }
    unlink(scratch_path("keys"));
    ck_assert(!daemon_reload(&daemon));
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200);
    write_keys();
    ck_assert(daemon_reload(&daemon));
    ck_assert_int_eq(status_of(&daemon, "GET", "/models", INFER), 200);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_broken_keys_stop_a_start)
{
    scratch_text("keys", "infer\n");
    char *log = daemon_fail(scratch_text("vitd.json", "{\"access\": {\"keys\": \"%s\"}}", scratch_path("keys")));
    ck_assert_msg(strstr(log, "access.keys: ") != NULL && strstr(log, "/keys:1: found one word") != NULL, "%s", log);
    free(log);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access over HTTP");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_every_route_has_its_role);
    tcase_add_test(tests, test_open_routes_are_these);
    tcase_add_test(tests, test_probes_tell_no_names);
    tcase_add_test(tests, test_only_bearer_keys_count);
    tcase_add_test(tests, test_no_spelling_gets_around_the_check);
    tcase_add_test(tests, test_admin_routes_are_not_there_unless_wanted);
    tcase_add_test(tests, test_large_uploads_are_refused_before_they_come);
    tcase_add_test(tests, test_refusals_reach_clients_that_send_on);
    tcase_add_test(tests, test_small_refusals_keep_the_connection);
    tcase_add_test(tests, test_refusals_are_counted);
    tcase_add_test(tests, test_log_names_users_and_no_key);
    tcase_add_test(tests, test_keys_change_while_it_serves);
    tcase_add_test(tests, test_broken_keys_are_refused_and_the_old_ones_stay);
    tcase_add_test(tests, test_broken_keys_stop_a_start);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

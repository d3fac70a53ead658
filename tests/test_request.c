/* test_request.c - the query string, the request's id and path, and the framing rules that libmicrohttpd lacks. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/accept.h"
#include "server/http/query.h"
#include "server/http/request.h"
#include "server/http/strbuf.h"
#include "tests/suite.h"

enum { MODEL = 1 << PARAMETER_MODEL, CLASSIFY = (1 << PARAMETER_COLORMAP) - 1, EXPLAIN = (1 << PARAMETER_COUNT) - 1 };

static struct choices parse(const char *text)
{
    struct choices query;
    struct problem problem = {0};
    ck_assert_msg(query_parse(text, CLASSIFY, &query, &problem), "%s: %s", text, problem.message);
    return query;
}

static void refuse(const char *text, unsigned allowed, const char *code, const char *said)
{
    struct choices query;
    struct problem problem = {0};
    ck_assert_msg(!query_parse(text, allowed, &query, &problem), "%s", text);
    ck_assert_int_eq(problem.status, 400);
    ck_assert_str_eq(problem.code, code);
    ck_assert_msg(strstr(problem.message, said), "%s: %s", text, problem.message);
}

/* ---- query ---- */

START_TEST(test_query_defaults)
{
    const char *const texts[] = {NULL, "", "&", "&&"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct choices query = parse(texts[i]);
        ck_assert_str_eq(query.model, "");
        ck_assert_uint_eq(query.top_k, 5);
        ck_assert_int_eq(query.function, VIT_SOFTMAX);
        ck_assert_int_eq(query.explain.method, VIT_ATTENTION_NONE);
        ck_assert_int_eq(query.explain.layer, VIT_LAYER_DEFAULT);
        ck_assert_int_eq(query.explain.head, VIT_HEAD_MEAN);
    }
}
END_TEST

START_TEST(test_query_values_are_read)
{
    struct choices query = parse("model=a%2Db&top_k=0&function_to_apply=sigmoid&attention=raw&layer=all&head=11&");
    ck_assert_str_eq(query.model, "a-b");
    ck_assert_uint_eq(query.top_k, 0);
    ck_assert_int_eq(query.function, VIT_SIGMOID);
    ck_assert_int_eq(query.explain.method, VIT_ATTENTION_RAW);
    ck_assert_int_eq(query.explain.layer, VIT_ALL);
    ck_assert_int_eq(query.explain.head, 11);
    query = parse("head=mean&layer=3&attention=raw&function_to_apply=none");
    ck_assert_int_eq(query.explain.layer, 3);
    ck_assert_int_eq(query.explain.head, VIT_HEAD_MEAN);
    ck_assert_int_eq(query.function, VIT_IDENTITY);
}
END_TEST

START_TEST(test_picture_choices_are_read)
{
    struct choices choices;
    struct problem problem = {0};
    ck_assert(query_parse("attention=legrad&target=tabby%2C+tabby+cat,7&layers=4&colormap=turbo&alpha=.25&overlay=false&"
                          "size=original", EXPLAIN, &choices, &problem));
    ck_assert_int_eq(choices.explain.method, VIT_ATTENTION_LEGRAD);
    ck_assert_str_eq(choices.target, "tabby, tabby cat,7");
    ck_assert_uint_eq(choices.explain.last_layers, 4);
    ck_assert_int_eq(choices.colormap, VIT_COLORMAP_TURBO);
    ck_assert_float_eq(choices.alpha, 0.25f);
    ck_assert(!choices.overlay && choices.original_size);
    ck_assert(query_parse("attention=legrad&layers=all&alpha=1.&overlay=true&size=model", EXPLAIN, &choices, &problem));
    ck_assert_uint_eq(choices.explain.last_layers, 0);
    ck_assert(choices.alpha == 1 && choices.overlay && !choices.original_size);
    const char *const bad[] = {"", ".", "1.1", "-0", "+1", "1e-1", "0x1", "nan", "0,5", "0.5.5", " 1", "0.123456789012345678901"};
    char text[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "alpha=%s", bad[i]);
        refuse(text, EXPLAIN, "invalid_parameter", "alpha");
    }
    refuse("colormap=jet", EXPLAIN, "invalid_parameter", "viridis or turbo");
    refuse("overlay=1", EXPLAIN, "invalid_parameter", "true or false");
    refuse("size=224", EXPLAIN, "invalid_parameter", "model or original");
}
END_TEST

START_TEST(test_accept)
{
    static const struct {
        const char *accept;
        bool by_default, otherwise; /* a picture, where it is preferred and where JSON is */
    } cases[] = {
        {NULL, true, false},
        {"", true, false},
        {"*/*", true, false},
        {"image/png", true, true},
        {"application/json", false, false},
        {"application/json, */*", false, false},
        {"text/html,image/*;q=0.8,*/*;q=0.5", true, true},
        {"image/png;q=0.5, application/json", false, false},
        {"image/png, application/json", true, false},
        {"application/json;q=0.001, image/png;q=0", false, false},
        {"IMAGE/PNG ; q=0.9 , APPLICATION/JSON;q=0.8", true, true},
        {"application/*", false, false},
        {"text/html", true, false},
        {",,;q=,image/pn,image/pngx,/,*", true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(accepts_picture(cases[i].accept, true) == cases[i].by_default, "%s", cases[i].accept);
        ck_assert_msg(accepts_picture(cases[i].accept, false) == cases[i].otherwise, "%s", cases[i].accept);
    }
}
END_TEST

START_TEST(test_query_mistakes_are_named)
{
    refuse("topk=5", CLASSIFY, "unknown_parameter", "'topk'; allowed here: model, top_k,");
    refuse("Top_k=5", CLASSIFY, "unknown_parameter", "'Top_k'");
    refuse("top_k=5", MODEL, "unknown_parameter", "allowed here: model");
    refuse("=5", CLASSIFY, "unknown_parameter", "''");
    refuse("top_k=5&model=m&top_k=5", CLASSIFY, "duplicate_parameter", "'top_k'");
    refuse("top%5fk=5&top_k=5", CLASSIFY, "duplicate_parameter", "'top_k'");
    refuse("attention=gradcam", CLASSIFY, "invalid_parameter", "none, raw, rollout or legrad");
    refuse("layers=0", CLASSIFY, "invalid_parameter", "layers");
    refuse("target=", CLASSIFY, "invalid_parameter", "target");
    refuse("alpha=0.5", CLASSIFY, "unknown_parameter", "'alpha'");
    refuse("function_to_apply=relu", CLASSIFY, "invalid_parameter", "softmax, sigmoid or none");
    refuse("model=", CLASSIFY, "invalid_parameter", "model");
    refuse("attention=raw&layer=mean", CLASSIFY, "invalid_parameter", "layer");
    refuse("attention=raw&head=-1", CLASSIFY, "invalid_parameter", "head");
    refuse("model=%4", CLASSIFY, "malformed_query", "escape");
    refuse("model=%zz", CLASSIFY, "malformed_query", "escape");
    refuse("model=%00", CLASSIFY, "malformed_query", "escape");
}
END_TEST

START_TEST(test_query_integers_are_strict)
{
    const char *const bad[] = {"",    "-1",  "+1",      "1.0",        "1e3",
                               "0x1", "%201", "5%0A", "9999999999", "18446744073709551621"};
    char text[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "top_k=%s", bad[i]);
        refuse(text, CLASSIFY, "invalid_parameter", "top_k");
    }
}
END_TEST

START_TEST(test_query_survives_any_length)
{
    enum { LENGTH = 70000 };
    char *text = malloc(LENGTH + 1);
    struct choices query;
    struct problem problem = {0};
    memset(text, 'a', LENGTH);
    text[LENGTH] = '\0';
    ck_assert(!query_parse(text, CLASSIFY, &query, &problem));
    memcpy(text, "model=", 6);
    ck_assert(!query_parse(text, CLASSIFY, &query, &problem));
    memset(text, '&', LENGTH);
    ck_assert(query_parse(text, CLASSIFY, &query, &problem));
    free(text);
}
END_TEST

START_TEST(test_percent_decoding)
{
    char out[8];
    ck_assert(percent_decode("a%2Fb+c", 7, true, out, sizeof out));
    ck_assert_str_eq(out, "a/b c");
    ck_assert(percent_decode("a+c", 3, false, out, sizeof out));
    ck_assert_str_eq(out, "a+c");
    ck_assert(percent_decode("1234567", 7, false, out, sizeof out));
    ck_assert(!percent_decode("12345678", 8, false, out, sizeof out));
    ck_assert(!percent_decode("%2", 2, false, out, sizeof out));
}
END_TEST

/* ---- the request ---- */

static struct service service = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void start(void)
{
    struct config config;
    struct config_error error;
    config_init(&config);
    service.settings = settings_create(&config, &error);
    config_release(&config);
}

static void end(void)
{
    settings_unref(service.settings);
}

START_TEST(test_target_is_split)
{
    static const struct {
        const char *target, *path, *query;
    } cases[] = {
        {"/classify", "/classify", NULL},
        {"/classify?", "/classify", ""},
        {"/classify?a=b?c", "/classify", "a=b?c"},
        {"http://host:80/classify?x", "/classify", "x"},
        {"HTTPS://host/models", "/models", NULL},
        {"http://host", "/", NULL},
        {"http://host?x=/y", "/", "x=/y"},
        {"*", "*", NULL},
        {"", "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct request *request = request_create(&service, cases[i].target);
        ck_assert_ptr_nonnull(request);
        ck_assert_str_eq(request->path, cases[i].path);
        if (cases[i].query)
            ck_assert_str_eq(request->query_text, cases[i].query);
        else
            ck_assert_ptr_null(request->query_text);
        request_free(request);
    }
}
END_TEST

START_TEST(test_request_takes_a_usable_id)
{
    char longest[REQUEST_ID_MAX + 1];
    struct request *request = request_create(&service, "/");
    request_set_id(request, "abc-DEF_1.2:3/4+5=6@7~8");
    ck_assert_str_eq(request->id, "abc-DEF_1.2:3/4+5=6@7~8");
    request_set_id(request, "abc \t ");
    ck_assert_str_eq(request->id, "abc");
    memset(longest, 'x', sizeof longest);
    longest[REQUEST_ID_MAX] = '\0';
    request_set_id(request, longest);
    ck_assert_str_eq(request->id, longest);
    request_free(request);
}
END_TEST

START_TEST(test_request_keeps_its_own_id_instead_of_an_unusable_one)
{
    char too_long[REQUEST_ID_MAX + 2], made[REQUEST_ID_MAX + 1];
    struct request *request = request_create(&service, "/");
    memset(too_long, 'x', sizeof too_long);
    too_long[REQUEST_ID_MAX + 1] = '\0';
    memcpy(made, request->id, sizeof made);
    ck_assert_uint_eq(strlen(made), 16);
    ck_assert_uint_eq(strspn(made, "0123456789abcdef"), 16);
    const char *const bad[] = {NULL, "", " ", "a b", "a\nb", "a\"b", "a\\b", "a,b", "a;b", "caf\xC3\xA9", too_long};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request_set_id(request, bad[i]);
        ck_assert_str_eq(request->id, made);
    }
    request_free(request);
}
END_TEST

/* ---- framing ---- */

/* Names and values in turn, up to NULL; whether they pass as the header of `method target version`. */
static bool frame(const char *target, const char *version, const char *const *headers, struct framing *framing)
{
    struct problem problem = {0};
    *framing = (struct framing){0};
    for (size_t i = 0; headers[i]; i += 2)
        if (!framing_header(framing, headers[i], strlen(headers[i]), headers[i + 1], strlen(headers[i + 1]), &problem))
            return false;
    return framing_end(framing, "POST", target, version, &problem);
}

START_TEST(test_framing_accepts_what_clients_send)
{
    struct framing framing;
    ck_assert(frame("/classify", "HTTP/1.1",
                    (const char *const[]){"host", "a", "CONTENT-length", "42", "expect", "100-Continue", NULL},
                    &framing));
    ck_assert_uint_eq(framing.content_length, 42);
    ck_assert(framing.expects_continue);
    ck_assert(frame("/", "HTTP/1.1",
                    (const char *const[]){"Host", "", "Transfer-Encoding", "Chunked", NULL}, &framing));
    ck_assert_uint_eq(framing.encodings, 1);
    ck_assert(frame("/", "HTTP/1.1",
                    (const char *const[]){"Host", "a ", "Content-Length", "42 \t", "Expect", "100-continue ", NULL},
                    &framing));
    ck_assert_uint_eq(framing.content_length, 42);
    ck_assert(framing.expects_continue);
    ck_assert(frame("/", "HTTP/1.0", (const char *const[]){NULL}, &framing));
    ck_assert(frame("/", "HTTP/1.0", (const char *const[]){"X-Any", "tab\there \xE9", NULL}, &framing));
}
END_TEST

START_TEST(test_framing_refuses_what_is_ambiguous)
{
    static const char *const bad[][8] = {
        {NULL},
        {"Host", "a", "Host", "a", NULL},
        {"Host", "a", "Content-Length", "1", "content-length", "1", NULL},
        {"Host", "a", "Content-Length", "1", "Transfer-Encoding", "chunked", NULL},
        {"Host", "a", "Transfer-Encoding", "gzip, chunked", NULL},
        {"Host", "a", "Transfer-Encoding", "chunked ", NULL},
        {"Host", "a", "Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked", NULL},
        {"Host", "a", "Transfer-Encoding ", "chunked", NULL},
        {"Host", "a", "Content-Length", "+1", NULL},
        {"Host", "a", "Content-Length", "", NULL},
        {"Host", "a", "Content-Length", " ", NULL},
        {"Host", "a", "Content-Length", "1, 1", NULL},
        {"Host", "a", "Content-Length", "9999999999999999999", NULL},
        {"Host", "a", "", "empty", NULL},
        {"Host", "a", "X-A", "carriage\rreturn", NULL},
    };
    struct framing framing;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!frame("/", "HTTP/1.1", bad[i], &framing), "case %zu", i);
    const char *const host[] = {"Host", "a", NULL}, *const chunked[] = {"Transfer-Encoding", "chunked", NULL};
    ck_assert(!frame("/a b", "HTTP/1.1", host, &framing));
    ck_assert(!frame("classify", "HTTP/1.1", host, &framing));
    ck_assert(!frame("", "HTTP/1.1", host, &framing));
    ck_assert(!frame("/", "HTTP/1.0", chunked, &framing));

    struct problem problem = {0};
    framing = (struct framing){0};
    ck_assert(!framing_header(&framing, "X", 1, "a\0b", 3, &problem));
    ck_assert(!framing_header(&framing, "X\0Y", 3, "a", 1, &problem));
}
END_TEST

/* ---- JSON ---- */

START_TEST(test_json_text_is_always_valid)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"tabby", "\"tabby\""},
        {"a\"b\\c\n\t\x01", "\"a\\\"b\\\\c\\u000a\\u0009\\u0001\""},
        {"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\x88", "\"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\x88\""},
        {"\xFFz", "\"\xEF\xBF\xBDz\""},
        {"\xC3", "\"\xEF\xBF\xBD\""},                                         /* cut off */
        {"\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                         /* overlong */
        {"\xE0\x80\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},         /* overlong */
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},         /* surrogate */
        {"\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* beyond U+10FFFF */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct strbuf buffer = {0};
        strbuf_json_string(&buffer, cases[i].text);
        ck_assert_str_eq(buffer.data, cases[i].json);
        strbuf_release(&buffer);
    }
}
END_TEST

START_TEST(test_json_numbers_give_floats_back)
{
    const float values[] = {0.1f, 1e-38f, -3.4028235e38f, 0.823456789f, 0};
    struct strbuf buffer = {0};
    strbuf_json_floats(&buffer, values, 5);
    char *at = buffer.data;
    for (size_t i = 0; i < 5; i++) {
        ck_assert(strtof(at + 1, &at) == values[i]);
        ck_assert_int_eq(*at, i < 4 ? ',' : ']');
    }
    strbuf_release(&buffer);
    strbuf_json_float(&buffer, strtod("nan", NULL));
    strbuf_json_float(&buffer, -strtod("inf", NULL));
    ck_assert_str_eq(buffer.data, "nullnull");
    strbuf_release(&buffer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("request");
    TCase *query = tcase_create("query"), *request = tcase_create("request"), *json = tcase_create("json");
    tcase_add_checked_fixture(request, start, end);
    tcase_add_test(query, test_query_defaults);
    tcase_add_test(query, test_query_values_are_read);
    tcase_add_test(query, test_picture_choices_are_read);
    tcase_add_test(query, test_accept);
    tcase_add_test(query, test_query_mistakes_are_named);
    tcase_add_test(query, test_query_integers_are_strict);
    tcase_add_test(query, test_query_survives_any_length);
    tcase_add_test(query, test_percent_decoding);
    tcase_add_test(request, test_target_is_split);
    tcase_add_test(request, test_request_takes_a_usable_id);
    tcase_add_test(request, test_request_keeps_its_own_id_instead_of_an_unusable_one);
    tcase_add_test(request, test_framing_accepts_what_clients_send);
    tcase_add_test(request, test_framing_refuses_what_is_ambiguous);
    tcase_add_test(json, test_json_text_is_always_valid);
    tcase_add_test(json, test_json_numbers_give_floats_back);
    suite_add_tcase(suite, query);
    suite_add_tcase(suite, request);
    suite_add_tcase(suite, json);
    return suite_run(suite);
}

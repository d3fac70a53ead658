/* test_hf_message.c - image classification in Hugging Face's JSON. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/hf_message.h"
#include "tests/suite.h"

static struct hf_request request;
static struct problem problem;

static bool parse(const char *json)
{
    char *body = malloc(strlen(json) + 1);
    hf_release(&request);
    problem = (struct problem){0};
    memcpy(body, json, strlen(json));
    const bool parsed = hf_parse(&request, body, strlen(json), &problem);
    free(body); /* nothing may point into it */
    return parsed;
}

static void forget(void)
{
    hf_release(&request);
}

START_TEST(test_picture_alone)
{
    ck_assert(parse("{\"inputs\":\"QUJD\"}"));
    ck_assert_uint_eq(request.length, 3);
    ck_assert_mem_eq(request.bytes, "ABC", 3);
    ck_assert(!request.has_top_k && !request.has_function);
    ck_assert(parse(" {\"options\":{\"wait_for_model\":true},\"parameters\":{},\"\\u0069nputs\":\"\\u002b\\/+/\"} "));
    ck_assert_mem_eq(request.bytes, "\xFB\xFF\xBF", 3);
    forget();
    ck_assert(parse("{\"inputs\":\"QU\\nJDRE\\r\\nVG\\n\"}")); /* as most tools write it */
    ck_assert_uint_eq(request.length, 6);
    ck_assert_mem_eq(request.bytes, "ABCDEF", 6);
}
END_TEST

START_TEST(test_parameters)
{
    static const struct {
        const char *json;
        vit_function function;
    } cases[] = {
        {"{\"parameters\":{\"function_to_apply\":\"softmax\",\"top_k\":1},\"inputs\":\"QQ==\"}", VIT_SOFTMAX},
        {"{\"parameters\":{\"top_k\":1,\"function_to_apply\":\"sigmoid\"},\"inputs\":\"QQ==\"}", VIT_SIGMOID},
        {"{\"inputs\":\"QQ==\",\"parameters\":{\"top_k\":1,\"function_to_apply\":\"none\"}}", VIT_IDENTITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(parse(cases[i].json), "%s", problem.message);
        ck_assert(request.has_top_k && request.has_function);
        ck_assert_uint_eq(request.top_k, 1);
        ck_assert_int_eq(request.function, cases[i].function);
    }
}
END_TEST

START_TEST(test_bad_requests_are_refused)
{
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{}", "inputs: missing, allowed is a picture as a string of base64"},
        {"[]", "the body: found a list, allowed is an object"},
        {"{\"inputs\":[\"QUJD\"]}", "inputs: found a list, allowed is a picture as a string of base64"},
        {"{\"inputs\":\"\"}", "inputs: found \"\", allowed is a picture as a string of base64"},
        {"{\"inputs\":null}", "inputs: found null, allowed is a picture as a string of base64"},
        {"{\"inputs\":\"https://example.org/cat.jpg\"}",
         "inputs: not base64 after 5 of its 27 characters, allowed are A-Z a-z 0-9 + / in groups of four, the "
         "last one filled up with ="},
        {"{\"inputs\":\"QUJD\",\"inputs\":\"QUJD\"}", "inputs: given more than once"},
        {"{\"inputs\":\"QUJD\",\"parameter\":{}}",
         "the body: unknown member \"parameter\", allowed here: inputs, parameters, options"},
        {"{\"inputs\":\"QUJD\",\"parameters\":{\"topk\":3}}",
         "parameters: unknown member \"topk\", allowed here: top_k, function_to_apply"},
        {"{\"inputs\":\"QUJD\",\"parameters\":{\"top_k\":0}}",
         "parameters.top_k: found 0, allowed is a whole number from 1 to 2147483647"},
        {"{\"inputs\":\"QUJD\",\"parameters\":{\"top_k\":\"5\"}}",
         "parameters.top_k: found \"5\", allowed is a whole number from 1 to 2147483647"},
        {"{\"inputs\":\"QUJD\",\"parameters\":{\"function_to_apply\":\"relu\"}}",
         "parameters.function_to_apply: found \"relu\", allowed is \"softmax\", \"sigmoid\" or \"none\""},
        {"{\"inputs\":\"QUJD\",\"parameters\":7}", "parameters: found 7, allowed is an object"},
        {"{\"inputs\":\"QUJD\"", "the JSON is malformed at byte 16: it ends within an object"},
        {"{\"inputs\":\"QUJD\"}{}", "the JSON is malformed at byte 17: something follows the value"},
        {"{\"inputs\":\"QUJD\",\"options\":[1,]}", "the JSON is malformed at byte 30: a value belongs here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!parse(cases[i].json), "%s", cases[i].json);
        ck_assert_int_eq(problem.status, 400);
        ck_assert_str_eq(problem.message, cases[i].message);
        ck_assert_ptr_null(request.bytes);
    }
}
END_TEST

static const char *label(const void *model, size_t index)
{
    return ((const char *const *)model)[index];
}

START_TEST(test_reply)
{
    static const char *const labels[] = {"cat", "d\"g", "fox"};
    const float logits[] = {1, 3, 2}, flat[] = {0, 0};
    struct strbuf out = {0};
    hf_reply(&out, logits, 3, 2, VIT_IDENTITY, label, labels);
    ck_assert_str_eq(out.data, "[{\"label\":\"d\\\"g\",\"score\":3},{\"label\":\"fox\",\"score\":2}]");
    ck_assert_float_eq(logits[0], 1);
    strbuf_release(&out);
    for (size_t top_k = 0; top_k < 8; top_k += 7) { /* 0: all; 7: more than there are */
        hf_reply(&out, flat, 2, top_k, VIT_SOFTMAX, label, labels);
        ck_assert_str_eq(out.data, "[{\"label\":\"cat\",\"score\":0.5},{\"label\":\"d\\\"g\",\"score\":0.5}]");
        strbuf_release(&out);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hf_message");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, NULL, forget);
    tcase_add_test(tests, test_picture_alone);
    tcase_add_test(tests, test_parameters);
    tcase_add_test(tests, test_bad_requests_are_refused);
    tcase_add_test(tests, test_reply);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

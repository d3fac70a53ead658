/* test_json_reader.c - JSON as RFC 8259 has it and everything that only looks like it, and base64. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/base64.h"
#include "server/http/json_message.h"
#include "server/http/json_reader.h"
#include "tests/suite.h"

static struct json_reader reader;

/* In a block of the exact size, so that reading past the end shows. */
static char *begin(const char *text, size_t length)
{
    char *copy = malloc(length ? length : 1);
    memcpy(copy, text, length);
    json_reader_begin(&reader, copy, length);
    return copy;
}

static bool is_json(const char *text, size_t length)
{
    char *copy = begin(text, length);
    const bool sound = json_reader_skip(&reader) && json_reader_end(&reader);
    ck_assert_msg(sound == (reader.why == NULL), "%s: %s", text, reader.why);
    ck_assert_uint_le(json_reader_offset(&reader), length);
    free(copy);
    return sound;
}

START_TEST(test_what_is_json)
{
    static const char *const texts[] = {
        "0", "-0", "10", "-1.5e+10", "1E5", "0.0e-0", "true", "false", "null", "\"\"", "[]", "{}", " [ ] ", "{ }\r\n\t",
        "[1,2,[3,[],{}]]", "{\"a\":1,\"b\":[true,null,{\"c\":\"d\"}],\"a\":2}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
        "\"\\ud83d\\uDE00\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\x7F\"", "[[[]],[[]]]", "\"\\u0000\"",
        "\"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\"",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        ck_assert_msg(is_json(texts[i], strlen(texts[i])), "%s: %s", texts[i], reader.why);
}
END_TEST

START_TEST(test_what_is_not_json)
{
    static const char *const texts[] = {
        "", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1,,2]", "{\"a\"}", "{\"a\":}",
        "{\"a\":1,}", "{,}", "{a:1}", "{1:2}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "[1}", "{\"a\":1]", "1 2", "[] x",
        "nul", "nulll", "tru", "True", "truefalse", "NaN", "Infinity", "-Infinity", "01", "-01", "00", "1.", ".5", "-",
        "+1", "1e", "1e+", "1.e5", "0x10", "1_000", "-.5", "'a'", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x41\"",
        "\"\\u12\"", "\"\\u12G4\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83d\\u0041\"", "\"\\ud83dx\"",
        "\"\\ud83d\\ud83d\"", "\"a\nb\"", "\"\t\"", "\"\x1F\"", "\"\x80\"", "\"\xC3\"", "\"\xC0\xAF\"",
        "\"\xE0\x80\xAF\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xF5\x80\x80\x80\"", "\"\xE2\x82\"",
        "\xEF\xBB\xBF[]", "[1] // no", "/* no */ 1", "{\"\xFF\":1}", "[1\f]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ck_assert_msg(!is_json(texts[i], strlen(texts[i])), "%s", texts[i]);
        ck_assert_ptr_nonnull(reader.why);
    }
    ck_assert(!is_json("\"a\0b\"", 5));
    ck_assert(!is_json("1\0", 2));
}
END_TEST

START_TEST(test_fault_says_where)
{
    char *copy = begin("{\"a\": [1, 2,\n x]}", 17);
    ck_assert(!json_reader_skip(&reader));
    ck_assert_uint_eq(json_reader_offset(&reader), 14);
    ck_assert_str_eq(reader.why, "a value belongs here");
    ck_assert(!json_reader_skip(&reader));
    ck_assert(!json_reader_end(&reader));
    ck_assert_int_eq(json_reader_peek(&reader), JSON_INVALID);
    free(copy);
}
END_TEST

START_TEST(test_nesting_is_bounded)
{
    char text[4 * JSON_MAX_DEPTH];
    for (int extra = 0; extra <= 1; extra++) {
        const size_t levels = JSON_MAX_DEPTH + (size_t)extra;
        memset(text, '[', levels);
        memset(text + levels, ']', levels);
        ck_assert(is_json(text, 2 * levels) == !extra);
    }
    ck_assert_str_eq(reader.why, "lists and objects are nested deeper than 64 levels");
    char *deep = malloc(1 << 20);
    memset(deep, '[', 1 << 20);
    ck_assert(!is_json(deep, 1 << 20));
    free(deep);
}
END_TEST

/* A skip within lists that are already open counts from there, and leaves them open. */
START_TEST(test_skip_within_open_lists)
{
    struct json_text text;
    char *copy = begin("[[{\"a\":[1,{}]},2],\"x\"]", 22);
    ck_assert(json_reader_open(&reader, JSON_LIST) && json_reader_next_element(&reader));
    ck_assert(json_reader_open(&reader, JSON_LIST) && json_reader_next_element(&reader));
    ck_assert(json_reader_skip(&reader));
    ck_assert_uint_eq(reader.depth, 2);
    ck_assert(json_reader_next_element(&reader) && json_reader_number(&reader, &text) && *text.at == '2');
    ck_assert(!json_reader_next_element(&reader) && reader.why == NULL);
    ck_assert(json_reader_next_element(&reader) && json_reader_string(&reader, &text) && *text.at == 'x');
    ck_assert(!json_reader_next_element(&reader) && json_reader_end(&reader));
    free(copy);
}
END_TEST

START_TEST(test_other_type_is_no_fault)
{
    struct json_text text;
    bool truth;
    char *copy = begin(" 12 ", 4);
    ck_assert(!json_reader_string(&reader, &text) && !json_reader_bool(&reader, &truth));
    ck_assert(!json_reader_open(&reader, JSON_LIST) && !json_reader_open(&reader, JSON_OBJECT));
    ck_assert_ptr_null(reader.why);
    ck_assert(json_reader_number(&reader, &text));
    ck_assert_uint_eq(text.length, 2);
    free(copy);
}
END_TEST

START_TEST(test_escapes_are_undone)
{
    static const char expected[] = "a\"\\/\b\f\n\r\t\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\0z";
    static const char spelt[] = "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00E9\\u20ac\\uD83D\\ude00\\u0000z\"";
    struct json_text text;
    char out[64];
    size_t length;
    char *copy = begin(spelt, sizeof spelt - 1);
    ck_assert(json_reader_string(&reader, &text) && text.escaped);
    ck_assert(json_text_copy(&text, out, sizeof out, &length));
    ck_assert_uint_eq(length, sizeof expected - 1);
    ck_assert_mem_eq(out, expected, length);
    ck_assert(json_text_copy(&text, out, length, &length));
    ck_assert(!json_text_copy(&text, out, length - 1, &length));
    for (size_t capacity = 0; capacity < sizeof expected - 1; capacity++)
        ck_assert(!json_text_copy(&text, out, capacity, &length));
    free(copy);
}
END_TEST

START_TEST(test_names_are_compared_as_they_mean)
{
    static const struct {
        const char *spelt;
        bool same;
    } cases[] = {{"\"top_k\"", true}, {"\"\\u0074op_k\"", true}, {"\"top_K\"", false}, {"\"top_k \"", false},
                 {"\"top\"", false}, {"\"\"", false}, {"\"top_k\\u0000\"", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json_text text;
        char *copy = begin(cases[i].spelt, strlen(cases[i].spelt));
        ck_assert(json_reader_string(&reader, &text));
        ck_assert_msg(json_text_is(&text, "top_k") == cases[i].same, "%s", cases[i].spelt);
        free(copy);
    }
}
END_TEST

START_TEST(test_unsigned_numbers)
{
    static const struct {
        const char *spelt;
        uint64_t max, value;
        bool accepted;
    } cases[] = {
        {"0", 0, 0, true}, {"255", 255, 255, true}, {"256", 255, 0, false}, {"-1", 255, 0, false}, 
        {"-0", 255, 0, false},
        {"1.0", 255, 0, false}, {"1e1", 255, 0, false}, {"18446744073709551615", UINT64_MAX, UINT64_MAX, true},
        {"18446744073709551616", UINT64_MAX, 0, false}, {"99999999999999999999999", UINT64_MAX, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json_text text;
        uint64_t value = 0;
        char *copy = begin(cases[i].spelt, strlen(cases[i].spelt));
        ck_assert(json_reader_number(&reader, &text));
        ck_assert_msg(json_text_unsigned(&text, cases[i].max, &value) == cases[i].accepted, "%s", cases[i].spelt);
        ck_assert_uint_eq(value, cases[i].value);
        free(copy);
    }
}
END_TEST

static bool read_float(const char *spelt, float *value)
{
    struct json_text text;
    char *copy = begin(spelt, strlen(spelt));
    ck_assert(json_reader_number(&reader, &text));
    const bool accepted = json_text_float(&text, value);
    free(copy);
    return accepted;
}

START_TEST(test_floats_are_the_nearest)
{
    unsigned seed = 1;
    float value = 7;
    char spelt[512];
    for (int i = 0; i < 20000; i++) {
        float expected;
        seed = seed * 1664525u + 1013904223u;
        memcpy(&expected, &seed, sizeof expected);
        if (!isfinite(expected))
            continue;
        snprintf(spelt, sizeof spelt, i % 2 ? "%.9g" : "%.17g", (double)expected);
        ck_assert(read_float(spelt, &value));
        ck_assert_mem_eq(&value, &expected, sizeof value);
    }
    ck_assert(read_float("1e-60", &value) && value == 0);
    ck_assert(read_float("3.4028235e38", &value) && value == FLT_MAX);
    ck_assert(!read_float("3.5e38", &value) && !read_float("-1e999", &value));
    memset(spelt, '1', JSON_MAX_NUMBER + 1);
    spelt[JSON_MAX_NUMBER + 1] = '\0';
    spelt[1] = '.';
    ck_assert(!read_float(spelt, &value));
    spelt[JSON_MAX_NUMBER] = '\0';
    ck_assert(read_float(spelt, &value));
}
END_TEST

/* Whatever the bytes are, the reader ends within them; the copy is exact in size for AddressSanitizer. */
START_TEST(test_random_damage)
{
    static const char text[] = "{\"a\":[1.5e3,-2,true,null,\"x\\u00e9\\ud83d\\ude00\xC3\xA9\"],\"b\":{\"c\":[[],{}]}}";
    static const char damage[] = "{}[]\",:\\u0d8e-.\xC3\x80t ";
    unsigned seed = 5, sound = 0;
    for (size_t round = 0; round < 50000; round++) {
        char damaged[sizeof text];
        const size_t length = sizeof text - 1 - (round % 7 ? 0 : round % (sizeof text - 1));
        memcpy(damaged, text, sizeof text);
        for (size_t flips = 0; flips < round % 4; flips++) {
            seed = seed * 1664525u + 1013904223u;
            damaged[(seed >> 8) % (sizeof text - 1)] = damage[(seed >> 24) % (sizeof damage - 1)];
        }
        sound += is_json(damaged, length);
    }
    ck_assert_uint_gt(sound, 10000);
}
END_TEST

/* ---- messages ---- */

static bool take_number(struct json_message *message, void *into)
{
    return json_message_unsigned(message, 1, 9, into);
}

static bool take_numbers(struct json_message *message, void *into)
{
    return json_message_list(message, "a list of at most two", 2, take_number, into);
}

START_TEST(test_messages_say_where_and_what)
{
    static const struct json_member members[] = {{"one", take_number}, {"list", take_numbers}};
    static const struct {
        const char *text, *problem; /* NULL: none */
    } cases[] = {
        {"{\"one\":3,\"list\":[1,9],\"other\":[{}]}", NULL},
        {"{\"one\":10}", "one: found 10, allowed is a whole number from 1 to 9"},
        {"{\"one\":\"x\\\"y\"}", "one: found \"x\\\"y\", allowed is a whole number from 1 to 9"},
        {"{\"list\":[1,{}]}", "list[1]: found an object, allowed is a whole number from 1 to 9"},
        {"{\"list\":[1,null]}", "list[1]: found null, allowed is a whole number from 1 to 9"},
        {"{\"list\":true}", "list: found true, allowed is a list of at most two"},
        {"{\"list\":[1,2,3]}", "list: found more than 2, allowed is a list of at most two"},
        {"{\"one\":1,\"\\u006fne\":2}", "one: given more than once"},
        {"[]", "the body: found a list, allowed is an object"},
        {"{\"one\":1", "the JSON is malformed at byte 8: it ends within an object"},
        {"{\"one\":\"x}", "the JSON is malformed at byte 10: it ends within a string"},
        {"{\"one\":1}x", "the JSON is malformed at byte 9: something follows the value"},
        {"{\"other\":[01]}", "the JSON is malformed at byte 10: a number is not spelt as JSON spells it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem = {0};
        struct json_message message;
        uint64_t value;
        json_message_begin(&message, cases[i].text, strlen(cases[i].text), &problem);
        const bool sound = json_message_object(&message, members, 2, JSON_IGNORE_OTHERS, &value) &&
                           json_message_end(&message);
        ck_assert_msg(sound == (cases[i].problem == NULL), "%s", cases[i].text);
        ck_assert_int_eq(problem.status, sound ? 0 : 400);
        ck_assert_str_eq(problem.message, sound ? "" : cases[i].problem);
    }
}
END_TEST

/* ---- base64 ---- */

START_TEST(test_base64_of_every_length)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t bytes[48], out[48];
    char text[65];
    size_t length, used;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 151 + 7);
    for (size_t count = 0; count <= sizeof bytes; count++) {
        size_t written = 0;
        for (size_t i = 0; i < count; i += 3) {
            const uint32_t bits = (uint32_t)bytes[i] << 16 | (i + 1 < count ? (uint32_t)bytes[i + 1] << 8 : 0) |
                                  (i + 2 < count ? bytes[i + 2] : 0);
            for (size_t k = 0; k < 4; k++)
                text[written++] = k <= count - i ? alphabet[bits >> (18 - 6 * k) & 63] : '=';
        }
        ck_assert(base64_decode(out, &length, text, written, &used));
        ck_assert_uint_eq(length, count);
        ck_assert_uint_eq(used, written);
        ck_assert_mem_eq(out, bytes, count);
        ck_assert(base64_decode((uint8_t *)text, &length, text, written, &used)); /* in place */
        ck_assert_mem_eq(text, bytes, count);
    }
}
END_TEST

START_TEST(test_base64_is_strict)
{
    static const struct {
        const char *text;
        size_t used;
    } cases[] = {{"Q", 0}, {"QQ", 0}, {"QUI", 0}, {"QUJD\n", 4}, {"QUJDQ", 4}, {"QQ=", 0}, {"QQ=A", 2}, {"QR==", 2},
                 {"QUJ=", 3}, {"Q===", 1}, {"====", 0}, {"QQ==QQ==", 2}, {"QUI=QUJD", 3}, {"QU D", 2}, {"QU-_", 2},
                 {"QUJDQQ===", 6}, {"\xFFUJD", 0}, {"data:image/png;base64,QUJD", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t out[32];
        size_t length, used = 99;
        ck_assert_msg(!base64_decode(out, &length, cases[i].text, strlen(cases[i].text), &used), "%s", cases[i].text);
        ck_assert_msg(used == cases[i].used, "%s: %zu", cases[i].text, used);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_reader");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_what_is_json);
    tcase_add_test(tests, test_what_is_not_json);
    tcase_add_test(tests, test_fault_says_where);
    tcase_add_test(tests, test_nesting_is_bounded);
    tcase_add_test(tests, test_skip_within_open_lists);
    tcase_add_test(tests, test_other_type_is_no_fault);
    tcase_add_test(tests, test_escapes_are_undone);
    tcase_add_test(tests, test_names_are_compared_as_they_mean);
    tcase_add_test(tests, test_unsigned_numbers);
    tcase_add_test(tests, test_floats_are_the_nearest);
    tcase_add_test(tests, test_random_damage);
    tcase_add_test(tests, test_messages_say_where_and_what);
    tcase_add_test(tests, test_base64_of_every_length);
    tcase_add_test(tests, test_base64_is_strict);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

/* test_trace.c - traceparent, with the cases of the specification and of its own test suite. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/trace.h"
#include "tests/suite.h"

#define ID "12345678901234567890123456789012"
#define PARENT "1234567890123456"
#define VALID "00-" ID "-" PARENT "-01"

START_TEST(test_specifications_examples)
{
    static const struct {
        const char *header, *id, *parent;
        unsigned flags;
    } cases[] = {
        {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c",
         "b7ad6b7169203331", TRACE_SAMPLED},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736",
         "00f067aa0ba902b7", TRACE_SAMPLED},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "4bf92f3577b34da6a3ce929d0e0e4736",
         "00f067aa0ba902b7", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace trace = {"", "", "", 0xff};
        ck_assert(trace_read(&trace, cases[i].header));
        ck_assert_str_eq(trace.id, cases[i].id);
        ck_assert_str_eq(trace.parent, cases[i].parent);
        ck_assert_uint_eq(trace.flags, cases[i].flags);
    }
}
END_TEST

START_TEST(test_valid_headers)
{
    static const char *const cases[] = {
        VALID, " " VALID, "\t" VALID, VALID " ", VALID "\t", "\t " VALID " \t", /* blanks around are not of the value */
        "cc-" ID "-" PARENT "-01", "cc-" ID "-" PARENT "-01-what-the-future-will-be-like", "01-" ID "-" PARENT "-01-",
        "fe-" ID "-" PARENT "-01-X Y", "00-00000000000000000000000000000001-0000000000000001-01",
        "00-" ID "-" PARENT "-ff",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace trace = {0};
        ck_assert_msg(trace_read(&trace, cases[i]), "%s", cases[i]);
        ck_assert_uint_eq(strlen(trace.id), 32);
        ck_assert_uint_eq(strlen(trace.parent), 16);
        ck_assert_ptr_nonnull(strstr(cases[i], trace.id));
        ck_assert(trace.flags & TRACE_SAMPLED);
    }
}
END_TEST

START_TEST(test_invalid_headers_are_ignored)
{
    static const char *const cases[] = {
        NULL, "", " ", "00", "00-", "00-" ID, "00-" ID "-" PARENT, "00-" ID "-" PARENT "-",
        /* version */
        "ff-" ID "-" PARENT "-01", "ff-" ID "-" PARENT "-01-more", ".0-" ID "-" PARENT "-01", "0.-" ID "-" PARENT "-01",
        "0-" ID "-" PARENT "-01", "000-" ID "-" PARENT "-01", "0000-" ID "-" PARENT "-01", "CC-" ID "-" PARENT "-01",
        "cC-" ID "-" PARENT "-01", " 0-" ID "-" PARENT "-01", "-" ID "-" PARENT "-01",
        /* what 00 and later versions allow behind */
        VALID ".", VALID "-", VALID "-what-the-future-will-be-like", VALID "," VALID, VALID "0", VALID " x",
        "cc-" ID "-" PARENT "-01.what-the-future-will-be-like", "cc-" ID "-" PARENT "-010",
        "cc-" ID "-" PARENT "-01 -more",
        /* trace-id */
        "00-00000000000000000000000000000000-" PARENT "-01", "cc-00000000000000000000000000000000-" PARENT "-01",
        "00-.2345678901234567890123456789012-" PARENT "-01", "00-1234567890123456789012345678901.-" PARENT "-01",
        "00-" ID "3-" PARENT "-01", "00-1234567890123456789012345678901-" PARENT "-01",
        "00-1234567890123456789012345678901A-" PARENT "-01", "00-1234567890123456-" PARENT PARENT "-01",
        "00--" ID "-" PARENT "-01", "00_" ID "-" PARENT "-01", "00-" ID "_" PARENT "-01", "00-" ID "-" PARENT "_01",
        /* parent-id */
        "00-" ID "-0000000000000000-01", "cc-" ID "-0000000000000000-01", "00-" ID "-.234567890123456-01",
        "00-" ID "-123456789012345.-01", "00-" ID "-" PARENT "7-01", "00-" ID "-123456789012345-01",
        "00-" ID "-123456789012345F-01",
        /* trace-flags */
        "00-" ID "-" PARENT "-.0", "00-" ID "-" PARENT "-0.", "00-" ID "-" PARENT "-001", "00-" ID "-" PARENT "-1",
        "00-" ID "-" PARENT "-0A", "00-" ID "-" PARENT "-0 ", "cc-" ID "-" PARENT "-0--more",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace trace = {"id", "parent", "span", 5};
        ck_assert_msg(!trace_read(&trace, cases[i]), "%s", cases[i]);
        ck_assert_str_eq(trace.id, "id"); /* untouched */
        ck_assert_str_eq(trace.span, "span");
        ck_assert_uint_eq(trace.flags, 5);
    }
}
END_TEST

START_TEST(test_only_known_flags_go_on)
{
    static const struct {
        const char *header;
        unsigned flags;
    } cases[] = {
        {"00-" ID "-" PARENT "-00", 0},    {"00-" ID "-" PARENT "-09", 1}, {"00-" ID "-" PARENT "-02", 2},
        {"00-" ID "-" PARENT "-ff", 3},    {"00-" ID "-" PARENT "-fc", 0}, {"01-" ID "-" PARENT "-ff", 1},
        {"01-" ID "-" PARENT "-fe-01", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace trace = {0};
        ck_assert(trace_read(&trace, cases[i].header));
        ck_assert_msg(trace.flags == cases[i].flags, "%s: %u", cases[i].header, trace.flags);
    }
}
END_TEST

START_TEST(test_spans_are_new_each_time)
{
    enum { ROUNDS = 100 };
    static struct trace traces[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        ck_assert(trace_read(&traces[i], VALID));
        ck_assert_uint_eq(strlen(traces[i].span), 16);
        ck_assert_uint_eq(strspn(traces[i].span, "0123456789abcdef"), 16);
        ck_assert_str_ne(traces[i].span, "0000000000000000");
        ck_assert_str_ne(traces[i].span, PARENT);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(traces[i].span, traces[j].span);
    }
}
END_TEST

START_TEST(test_what_is_written_names_our_span)
{
    struct trace trace = {ID, PARENT, "00f067aa0ba902b7", TRACE_SAMPLED | TRACE_RANDOM_ID}, next;
    char header[TRACEPARENT_LENGTH + 1];
    trace_write(&trace, header);
    ck_assert_str_eq(header, "00-" ID "-00f067aa0ba902b7-03");
    ck_assert(trace_read(&next, header));
    ck_assert_str_eq(next.id, trace.id);
    ck_assert_str_eq(next.parent, trace.span);
    ck_assert_uint_eq(next.flags, trace.flags);
    ck_assert(trace_read(&trace, "cc-" ID "-" PARENT "-01-more"));
    trace_write(&trace, header);
    ck_assert_uint_eq(strlen(header), TRACEPARENT_LENGTH);
    ck_assert_int_eq(strncmp(header, "00-" ID "-", 36), 0);
    ck_assert_str_eq(header + 52, "-01");
}
END_TEST

/* Whatever comes, nothing is read behind its end: the copy is exact in size for AddressSanitizer. */
START_TEST(test_random_damage)
{
    static const char whole[] = "01-" ID "-" PARENT "-01-more";
    unsigned seed = 3;
    for (int round = 0; round < 20000; round++) {
        const size_t length = sizeof whole - 1 - (size_t)round % sizeof whole;
        char *header = malloc(length + 1);
        memcpy(header, whole, length);
        header[length] = '\0';
        for (int flips = 0; length > 0 && flips < round % 4; flips++) {
            seed = seed * 1664525u + 1013904223u;
            header[(seed >> 8) % length] = "0f-A \t"[(seed >> 4) % 6];
        }
        struct trace trace;
        if (trace_read(&trace, header))
            ck_assert_ptr_nonnull(strstr(header, trace.id));
        free(header);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_specifications_examples);
    tcase_add_test(tests, test_valid_headers);
    tcase_add_test(tests, test_invalid_headers_are_ignored);
    tcase_add_test(tests, test_only_known_flags_go_on);
    tcase_add_test(tests, test_spans_are_new_each_time);
    tcase_add_test(tests, test_what_is_written_names_our_span);
    tcase_add_test(tests, test_random_damage);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

/* test_multipart.c - forms as browsers and curl send them, and as nobody should. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/multipart.h"
#include "tests/suite.h"

enum { MAX_FILES = 3 };

static struct multipart_file files[MAX_FILES];
static size_t count;
static struct multipart_file labels;
static const char *why;

static enum multipart_result parse(const char *body)
{
    why = NULL;
    return multipart_files((const uint8_t *)body, strlen(body), "B", files, MAX_FILES, &count, &labels, &why);
}

static void assert_file(size_t i, const char *content)
{
    ck_assert_uint_lt(i, count);
    ck_assert_uint_eq(files[i].length, strlen(content));
    ck_assert_mem_eq(files[i].bytes, content, strlen(content));
}

#define FILE_PART "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.jpg\"\r\n\r\n"
#define FIELD_PART "--B\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n"

START_TEST(test_boundary_is_read)
{
    static const struct {
        const char *type;
        enum multipart_kind kind;
        const char *boundary;
    } cases[] = {
        {NULL, MULTIPART_NONE, NULL},
        {"image/jpeg", MULTIPART_NONE, NULL},
        {"multipart/form-data; boundary=abc", MULTIPART_FORM, "abc"},
        {"Multipart/Form-Data; charset=utf-8; Boundary=\"a b:c\"", MULTIPART_FORM, "a b:c"},
        {"multipart/form-data;boundary=----WebKitFormBoundaryX9", MULTIPART_FORM, "----WebKitFormBoundaryX9"},
        {"multipart/form-data", MULTIPART_INVALID, NULL},
        {"multipart/form-data; boundary=", MULTIPART_INVALID, NULL},
        {"multipart/form-data; boundary=\"unfinished", MULTIPART_INVALID, NULL},
        {"multipart/form-data; boundary=\"ends in space \"", MULTIPART_INVALID, NULL},
        {"multipart/form-data; boundary="
         "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg",
         MULTIPART_FORM, "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg"},
        {"multipart/form-data; boundary="
         "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggggggggh",
         MULTIPART_INVALID, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char boundary[MULTIPART_MAX_BOUNDARY + 1] = "";
        ck_assert_msg(multipart_boundary(cases[i].type, boundary) == cases[i].kind, "%s", cases[i].type);
        if (cases[i].boundary != NULL)
            ck_assert_str_eq(boundary, cases[i].boundary);
    }
}
END_TEST

START_TEST(test_files_are_found_in_order)
{
    ck_assert_int_eq(parse("preamble\r\n" FILE_PART "one\r\n" FIELD_PART "not a file\r\n" FILE_PART
                           "t\r\nwo\r\n--Bx\r\n--\r\n--B-- epilogue"),
                     MULTIPART_OK);
    ck_assert_uint_eq(count, 2);
    assert_file(0, "one");
    assert_file(1, "t\r\nwo\r\n--Bx\r\n--");
}
END_TEST

START_TEST(test_image_type_is_a_file_without_a_name)
{
    ck_assert_int_eq(parse("--B\r\nCONTENT-TYPE: image/png\r\n\r\nx\r\n--B--"), MULTIPART_OK);
    assert_file(0, "x");
    ck_assert_int_eq(parse("--B\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--"), MULTIPART_OK);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(test_empty_file_and_blank_input)
{
    ck_assert_int_eq(parse(FILE_PART "\r\n--B--"), MULTIPART_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(files[0].length, 0);
    ck_assert_int_eq(parse("--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\"\r\n\r\n\r\n--B--"),
                     MULTIPART_OK);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(test_malformed_forms_are_refused)
{
    static const char *const cases[] = {"", "no boundary here", "--B", "--B\r\n", FILE_PART, FILE_PART "cut off",
                                        FILE_PART "cut\r\n--", FILE_PART "cut\r\n--B", FILE_PART "x\r\n--B\r\nno end",
                                        "--B\r\nheader without end"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(parse(cases[i]) == MULTIPART_MALFORMED, "case %zu", i);
        ck_assert_ptr_nonnull(why);
    }
}
END_TEST

START_TEST(test_too_many_files_are_refused)
{
    ck_assert_int_eq(parse(FILE_PART "1\r\n" FILE_PART "2\r\n" FILE_PART "3\r\n--B--"), MULTIPART_OK);
    ck_assert_uint_eq(count, 3);
    ck_assert_int_eq(parse(FILE_PART "1\r\n" FILE_PART "2\r\n" FILE_PART "3\r\n" FILE_PART "4\r\n--B--"),
                     MULTIPART_TOO_MANY);
}
END_TEST

/* Slices must lie within the body, whatever the body is; the copy is exact in size for AddressSanitizer. */
#define LABELS_PART "--B\r\nContent-Disposition: form-data; name=\"labels\"\r\n\r\n"

START_TEST(test_one_field_of_labels)
{
    ck_assert_int_eq(parse(FIELD_PART "x\r\n" LABELS_PART "a cat\na dog\r\n" FILE_PART "photo\r\n--B--"), MULTIPART_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(labels.length, strlen("a cat\na dog"));
    ck_assert_mem_eq(labels.bytes, "a cat\na dog", labels.length);
    ck_assert_int_eq(parse(FILE_PART "photo\r\n" LABELS_PART "\r\n--B--"), MULTIPART_OK);
    ck_assert(labels.bytes != NULL && labels.length == 0);
    ck_assert_int_eq(parse("--B\r\nContent-Disposition: form-data; name=\"labels\"; filename=\"a\"\r\n\r\nx\r\n--B--"),
                     MULTIPART_OK); /* a picture */
    ck_assert(labels.bytes == NULL && count == 1);
    ck_assert_int_eq(parse(LABELS_PART "a cat\r\n" FILE_PART "photo\r\n" LABELS_PART "a dog\r\n--B--"), MULTIPART_MALFORMED);
    ck_assert_ptr_nonnull(strstr(why, "labels"));
}
END_TEST

START_TEST(test_random_damage)
{
    static const char form[] = FILE_PART "one\r\n" FIELD_PART "two\r\n" FILE_PART "three\r\n--B--";
    unsigned seed = 3;
    for (int round = 0; round < 20000; round++) {
        size_t length = sizeof form - 1 - (size_t)round % (sizeof form - 1);
        uint8_t *body = malloc(length);
        memcpy(body, form, length);
        for (int flips = 0; flips < round % 5; flips++) {
            seed = seed * 1664525u + 1013904223u;
            body[(seed >> 8) % length] = "\r\n-B: ;\"="[(seed >> 4) % 9];
        }
        multipart_files(body, length, "B", files, MAX_FILES, &count, &labels, &why);
        for (size_t i = 0; i < count; i++)
            ck_assert(files[i].bytes >= body && files[i].bytes + files[i].length <= body + length);
        free(body);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("multipart");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_boundary_is_read);
    tcase_add_test(tests, test_files_are_found_in_order);
    tcase_add_test(tests, test_image_type_is_a_file_without_a_name);
    tcase_add_test(tests, test_empty_file_and_blank_input);
    tcase_add_test(tests, test_malformed_forms_are_refused);
    tcase_add_test(tests, test_too_many_files_are_refused);
    tcase_add_test(tests, test_one_field_of_labels);
    tcase_add_test(tests, test_random_damage);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

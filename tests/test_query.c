/* test_query.c - query strings, read strictly. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/query.h"

enum { CLASSIFY = QUERY_MODEL | QUERY_TOP_K | QUERY_FUNCTION | QUERY_ATTENTION | QUERY_LAYER | QUERY_HEAD };

static struct query query;
static struct problem problem;

static bool parse(const char *text)
{
    problem = (struct problem){0};
    return query_parse(text, CLASSIFY, &query, &problem);
}

START_TEST(test_defaults)
{
    ck_assert(parse(NULL) && parse(""));
    ck_assert_uint_eq(query.top_k, 5);
    ck_assert_int_eq(query.function, VIT_SOFTMAX);
    ck_assert_int_eq(query.explain.method, VIT_ATTENTION_NONE);
    ck_assert_int_eq(query.explain.layer, VIT_LAYER_LAST);
    ck_assert_int_eq(query.explain.head, VIT_HEAD_MEAN);
}
END_TEST

START_TEST(test_values_are_read)
{
    ck_assert(parse("model=a%2Eb&top_k=0&function_to_apply=none&attention=raw&layer=all&head=12"));
    ck_assert_str_eq(query.model, "a.b");
    ck_assert_uint_eq(query.top_k, 0);
    ck_assert_int_eq(query.function, VIT_IDENTITY);
    ck_assert_int_eq(query.explain.method, VIT_ATTENTION_RAW);
    ck_assert_int_eq(query.explain.layer, VIT_ALL);
    ck_assert_int_eq(query.explain.head, 12);
    ck_assert(parse("head=mean&attention=raw"));
    ck_assert_int_eq(query.explain.head, VIT_HEAD_MEAN);
}
END_TEST

START_TEST(test_bad_queries_are_refused)
{
    static const struct {
        const char *text, *code;
    } cases[] = {{"topk=1", "unknown_parameter"},
                 {"Top_k=1", "unknown_parameter"},
                 {"top_k=1&top_k=1", "duplicate_parameter"},
                 {"top_k=", "invalid_parameter"},
                 {"top_k=+1", "invalid_parameter"},
                 {"top_k=1.0", "invalid_parameter"},
                 {"top_k=99999999999999999999", "invalid_parameter"},
                 {"function_to_apply=Softmax", "invalid_parameter"},
                 {"attention=legrad", "invalid_parameter"},
                 {"attention=raw&layer=-1", "invalid_parameter"},
                 {"layer=1", "invalid_parameter"},
                 {"attention=raw&head=last", "invalid_parameter"},
                 {"model=", "invalid_parameter"},
                 {"model=%", "malformed_query"},
                 {"model=%4", "malformed_query"},
                 {"model=%zz", "malformed_query"},
                 {"model=a%00b", "malformed_query"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(!parse(cases[i].text), "%s", cases[i].text);
        ck_assert_int_eq(problem.status, 400);
        ck_assert_msg(strcmp(problem.code, cases[i].code) == 0, "%s: %s", cases[i].text, problem.code);
    }
    ck_assert(!query_parse("top_k=1", QUERY_MODEL, &query, &problem)); /* not everywhere */
    ck_assert_ptr_nonnull(strstr(problem.message, "allowed here: model"));
}
END_TEST

START_TEST(test_long_queries_are_refused)
{
    char text[4096];
    memset(text, 'a', sizeof text);
    memcpy(text, "model=", 6);
    text[sizeof text - 1] = '\0';
    ck_assert(!parse(text));
    ck_assert(!parse(text + 6));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("query");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_defaults);
    tcase_add_test(tests, test_values_are_read);
    tcase_add_test(tests, test_bad_queries_are_refused);
    tcase_add_test(tests, test_long_queries_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* test_cli.c - the binary as a person at a shell meets it: exit statuses, messages, the commands without a server. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char output[65536]; /* standard output and error of the last run */

/* Runs `vitd ARGUMENTS` in a shell; the exit status. */
static int run(const char *arguments)
{
    char command[2048];
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    snprintf(command, sizeof command, "%s %s 2>&1", binary, arguments);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    output[fread(output, 1, sizeof output - 1, pipe)] = '\0';
    int status = pclose(pipe);
    ck_assert_msg(WIFEXITED(status), "%s: %.500s", command, output);
    return WEXITSTATUS(status);
}

static void assert_says(const char *words)
{
    ck_assert_msg(strstr(output, words) != NULL, "\"%s\" is not in: %.1000s", words, output);
}

START_TEST(test_help_and_version)
{
    ck_assert_int_eq(run("--version"), 0);
    assert_says("0.1.0");
    ck_assert_int_eq(run("--help"), 0);
    assert_says("usage: vitd");
    const char *const commands[] = {"serve", "classify", "inspect", "bench"};
    for (size_t i = 0; i < 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s --help", commands[i]);
        ck_assert_int_eq(run(text), 0);
        assert_says(commands[i]);
    }
}
END_TEST

START_TEST(test_usage_errors_exit_2)
{
    static const struct {
        const char *arguments, *words;
    } cases[] = {{"--nonsense", "nonsense"},
                 {"frobnicate", "frobnicate"},
                 {"serve --port 70000", "0 to 65535"},
                 {"serve --port x", "0 to 65535"},
                 {"serve --address localhost", "numeric"},
                 {"serve --dtype int8", "fp32"},
                 {"serve extra", "extra"},
                 {"classify", "IMAGE"},
                 {"classify --top-k -1 x.jpg", "top-k"},
                 {"classify --port 1 x.jpg", "port"},
                 {"inspect", "DIR"},
                 {"serve --model", "model"},
                 {"--check-config", "check-config"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(run(cases[i].arguments) == 2, "%s: %.500s", cases[i].arguments, output);
        assert_says(cases[i].words);
    }
}
END_TEST

START_TEST(test_check_config)
{
    ck_assert_int_eq(run("--check-config config/vitd.json"), 0);
    assert_says("config/vitd.json: ok");
    ck_assert_int_eq(run("--check-config /nowhere.json"), 1);
    assert_says("/nowhere.json: No such file");
    ck_assert_int_eq(run("--check-config LICENSE"), 1);
    assert_says("LICENSE:1: found MIT, allowed is JSON");
}
END_TEST

START_TEST(test_classify_names_pictures)
{
    ck_assert_int_eq(run("classify --top-k 1 config/samples/cat.jpg"), 0);
    ck_assert_str_eq(output, "  0.4574     30  tabby\n");
    ck_assert_int_eq(run("classify --top-k 2 config/samples/coffee.jpg README.md /nowhere.jpg config/samples/cat.jpg"), 1);
    assert_says("config/samples/coffee.jpg\n  0.8906    193  espresso\n");
    assert_says("config/samples/cat.jpg\n  0.4574     30  tabby\n  0.4426     32  Egyptian cat\n");
    assert_says("vitd: README.md: not a JPEG, PNG or BMP");
    assert_says("vitd: /nowhere.jpg: No such file");
    ck_assert_int_eq(run("classify --top-k 1 - < config/samples/cat.jpg"), 0);
    assert_says("tabby");
    ck_assert_int_eq(run("classify --top-k 0 --model tests/golden/vit-hf tests/golden/vit-hf/input.png"), 0);
    assert_says("class 9");
}
END_TEST

START_TEST(test_inspect_says_what_a_folder_is)
{
    ck_assert_int_eq(run("inspect config/models/vit-tiny-64"), 0);
    assert_says("12 layers, width 192, 3 heads, MLP 768; 5.4 million parameters");
    assert_says("vitd can run this model");
    ck_assert_int_eq(run("inspect /nowhere"), 1);
    assert_says("/nowhere: there is no such folder");
    ck_assert_int_eq(run("inspect tests"), 1);
    assert_says("config.json: cannot be opened");
}
END_TEST

START_TEST(test_serve_fails_clearly_at_start)
{
    ck_assert_int_eq(run("serve --port 0 --model /nowhere"), 1);
    assert_says("/nowhere: there is no such folder");
    ck_assert_int_eq(run("serve --address 192.0.2.1 --port 0"), 1);
    assert_says("192.0.2.1");
    ck_assert_int_eq(run("serve --config /nowhere.json"), 1);
    assert_says("/nowhere.json");
}
END_TEST

START_TEST(test_bench_prints_the_floor)
{
    ck_assert_int_eq(run("bench --threads 1 --model tests/golden/vit-hf --image tests/golden/vit-hf/input.png"), 0);
    assert_says("GEMMs alone");
    assert_says("decode + preprocess + forward");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_help_and_version);
    tcase_add_test(tests, test_usage_errors_exit_2);
    tcase_add_test(tests, test_check_config);
    tcase_add_test(tests, test_classify_names_pictures);
    tcase_add_test(tests, test_inspect_says_what_a_folder_is);
    tcase_add_test(tests, test_serve_fails_clearly_at_start);
    tcase_add_test(tests, test_bench_prints_the_floor);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

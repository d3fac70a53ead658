/* test_cli.c - the real binary ($VITD_BINARY, default build/vitd): exit statuses, and what it says where. */
#include <check.h>
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"

#define MODEL "config/models/vit-tiny-64"

enum { OUTPUT_BYTES = 1 << 16, MAX_ARGUMENTS = 16 };

struct outcome {
    int status; /* exit status, or -1 */
    char out[OUTPUT_BYTES], err[OUTPUT_BYTES];
};
static struct outcome outcome;

/* ---- running vitd ---- */

static void read_all(int fd, char *text)
{
    size_t length = 0;
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; length < OUTPUT_BYTES - 1 && (n = read(fd, text + length, OUTPUT_BYTES - 1 - length)) > 0;)
        length += (size_t)n;
    text[length] = '\0';
    close(fd);
}

static int open_temporary(void)
{
    char path[] = "/tmp/vitd-cli-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    return fd;
}

/* Runs vitd with the words of `line` as arguments and `input` (a file, NULL: nothing) as standard input. */
static void run_with(const char *line, const char *input)
{
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    char words[1024], *argv[MAX_ARGUMENTS] = {(char *)binary};
    size_t count = 1;
    int status, in = open(input != NULL ? input : "/dev/null", O_RDONLY), out = open_temporary(), err = open_temporary();
    ck_assert_int_ge(in, 0);
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word != NULL && count < MAX_ARGUMENTS - 1; word = strtok(NULL, " "))
        argv[count++] = word;
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        execv(binary, argv);
        _exit(127);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    close(in);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_all(out, outcome.out);
    read_all(err, outcome.err);
}

static void run(const char *line)
{
    run_with(line, NULL);
}

static void assert_runs(const char *line)
{
    run(line);
    ck_assert_msg(outcome.status == 0, "vitd %s: exit %d: %s", line, outcome.status, outcome.err);
    ck_assert_str_eq(outcome.err, "");
}

static void assert_says(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" is not in \"%s\"", part, text);
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* A file with this text; to be unlinked. */
static void write_file(char path[32], const char *text)
{
    strcpy(path, "/tmp/vitd-cli-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* ---- help and usage ---- */

START_TEST(test_help_and_version_go_to_stdout)
{
    assert_runs("--version");
    ck_assert_int_eq(strncmp(outcome.out, "vitd ", 5), 0);
    ck_assert_uint_eq(count_lines(outcome.out), 1);
    assert_runs("--help");
    assert_says(outcome.out, "vitd classify");
    static const char *const commands[] = {"serve", "classify", "inspect", "bench"};
    for (size_t i = 0; i < 4; i++) {
        char line[64], usage[64];
        snprintf(line, sizeof line, "%s --help", commands[i]);
        snprintf(usage, sizeof usage, "%s", commands[i]);
        assert_runs(line);
        assert_says(outcome.out, "usage: vitd ");
        assert_says(outcome.out, usage);
    }
    assert_runs("classify --help");
    assert_says(outcome.out, "--top-k");
}
END_TEST

START_TEST(test_usage_errors_exit_2_with_one_line)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"frobnicate", "unknown command: frobnicate"},
        {"--frobnicate", "--frobnicate"},
        {"-x", "-x"},
        {"serve extra", "unexpected argument: extra"},
        {"serve --top-k 3", "--top-k"},
        {"--port", "--port needs a value"},
        {"--port 65536", "--port: found 65536, allowed is 0 to 65535"},
        {"--port 80a", "--port: found 80a"},
        {"--port -1", "--port: found -1"},
        {"--threads 1025", "allowed is 0 to 1024"},
        {"--address localhost", "numeric IPv4 or IPv6"},
        {"--dtype fp8", "--dtype: found fp8, allowed is fp32, bf16, int8, auto"},
        {"--model a/x --model b/x", "found the name x twice"},
        {"--model !=x", "A-Z a-z 0-9"},
        {"classify", "classify needs IMAGE"},
        {"classify --top-k many a.jpg", "--top-k: 'many' is not allowed, it takes an integer"},
        {"classify --top-k -1 a.jpg", "--top-k: '-1' is not allowed"},
        {"classify --model a --model b x.jpg", "at most 1 --model"},
        {"classify --port 80 x.jpg", "--port"},
        {"inspect", "inspect needs DIR"},
        {"inspect a b", "unexpected argument: b"},
        {"bench extra", "unexpected argument: extra"},
        {"inspect --draft a", "--draft"},
        {"classify --draft=true a.jpg", "--draft"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run(cases[i].line);
        ck_assert_msg(outcome.status == 2, "vitd %s: exit %d", cases[i].line, outcome.status);
        assert_says(outcome.err, cases[i].says);
        assert_says(outcome.err, "see vitd --help");
        ck_assert_uint_eq(count_lines(outcome.err), 1);
        ck_assert_str_eq(outcome.out, "");
    }
}
END_TEST

/* ---- configuration ---- */

START_TEST(test_check_config_accepts_the_shipped_file)
{
    assert_runs("--check-config config/vitd.json");
    ck_assert_str_eq(outcome.out, "config/vitd.json: ok\n");
}
END_TEST

START_TEST(test_check_config_names_file_line_and_key)
{
    char path[32], line[64], expected[128];
    write_file(path, "{\n  \"listen\": {\n    \"port\": \"x\"\n  }\n}\n");
    snprintf(line, sizeof line, "--check-config %s", path);
    snprintf(expected, sizeof expected, "vitd: %s:3: listen.port: found \"x\" (a string), allowed is 0 to 65535\n", path);
    run(line);
    unlink(path);
    ck_assert_int_eq(outcome.status, 1);
    ck_assert_str_eq(outcome.err, expected);
    ck_assert_str_eq(outcome.out, "");
}
END_TEST

START_TEST(test_missing_config_is_a_runtime_error)
{
    run("--check-config /nonexistent/vitd.json");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "/nonexistent/vitd.json: No such file");
    run("serve --config /nonexistent/vitd.json");
    ck_assert_int_eq(outcome.status, 1);
}
END_TEST

START_TEST(test_model_option_replaces_the_files_models_in_any_order)
{
    char path[32], line[256];
    write_file(path, "{\"models\": [{\"path\": \"/nonexistent/one\"}, {\"path\": \"/nonexistent/two\"}]}");
    for (size_t i = 0; i < 2; i++) {
        if (i == 0)
            snprintf(line, sizeof line, "classify --model " MODEL " --config %s config/samples/cat.jpg", path);
        else
            snprintf(line, sizeof line, "classify --config %s config/samples/cat.jpg --model " MODEL, path);
        run(line);
        ck_assert_msg(outcome.status == 0, "%s: %s", line, outcome.err);
    }
    snprintf(line, sizeof line, "classify --config %s config/samples/cat.jpg", path);
    run(line);
    unlink(path);
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "/nonexistent/one");
}
END_TEST

/* ---- classify ---- */

START_TEST(test_classify_prints_the_best_classes)
{
    double score, previous = 1;
    int index, length;
    assert_runs("classify --model " MODEL " --top-k 3 config/samples/coffee.jpg");
    ck_assert_uint_eq(count_lines(outcome.out), 3);
    assert_says(outcome.out, "  espresso\n");
    for (char *line = outcome.out; *line != '\0'; line = strchr(line, '\n') + 1) {
        ck_assert_int_eq(sscanf(line, "%lf %d  %n", &score, &index, &length), 2);
        ck_assert_double_le(score, previous);
        ck_assert_int_lt(index, 200);
        previous = score;
    }
    assert_runs("classify --model " MODEL " --top-k 0 config/samples/coffee.jpg");
    ck_assert_uint_eq(count_lines(outcome.out), 200);
    assert_runs("classify --model " MODEL " config/samples/coffee.jpg");
    ck_assert_uint_eq(count_lines(outcome.out), 5);
}
END_TEST

START_TEST(test_classify_goes_on_past_a_bad_image)
{
    run("classify --model " MODEL " config/samples/cat.jpg Makefile /nonexistent.jpg config/samples/coffee.jpg");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.out, "config/samples/cat.jpg\n");
    assert_says(outcome.out, "config/samples/coffee.jpg\n");
    assert_says(outcome.out, "  espresso\n");
    assert_says(outcome.err, "vitd: Makefile: ");
    assert_says(outcome.err, "vitd: /nonexistent.jpg: No such file");
    ck_assert_uint_eq(count_lines(outcome.err), 2);
}
END_TEST

START_TEST(test_classify_reads_standard_input)
{
    static char from_file[OUTPUT_BYTES];
    assert_runs("classify --model " MODEL " config/samples/cat.jpg");
    strcpy(from_file, outcome.out);
    run_with("classify --model " MODEL " -", "config/samples/cat.jpg");
    ck_assert_int_eq(outcome.status, 0);
    ck_assert_str_eq(outcome.out, from_file);
}
END_TEST

START_TEST(test_classify_refuses_a_picture_over_the_limit)
{
    char path[32], line[256];
    write_file(path, "{\"limits\": {\"max_pixels\": 10}}");
    snprintf(line, sizeof line, "classify --config %s --model " MODEL " config/samples/cat.jpg", path);
    run(line);
    unlink(path);
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "config/samples/cat.jpg: ");
    ck_assert_str_eq(outcome.out, "");
}
END_TEST

/* The samples are several times the model's 64x64. */
START_TEST(test_classify_decodes_drafts_on_demand)
{
    static char exact[OUTPUT_BYTES], draft[OUTPUT_BYTES];
    assert_runs("classify --model " MODEL " config/samples/coffee.jpg");
    strcpy(exact, outcome.out);
    assert_runs("classify --draft --model " MODEL " config/samples/coffee.jpg");
    strcpy(draft, outcome.out);
    ck_assert_str_ne(draft, exact);
    ck_assert_ptr_eq(strstr(draft, "espresso"), strchr(draft, '\n') - strlen("espresso")); /* in the first line */

    char here[512], file[1024], path[32], line[256];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (int asked = 0; asked < 2; asked++) { /* by the file, or against it */
        snprintf(file, sizeof file, "{\"draft\": %s, \"models\": [{\"path\": \"%s/" MODEL "\"}]}",
                 asked ? "false" : "true", here);
        write_file(path, file);
        snprintf(line, sizeof line, "classify --config %s %s config/samples/coffee.jpg", path, asked ? "--draft" : "");
        assert_runs(line);
        unlink(path);
        ck_assert_str_eq(outcome.out, draft);
    }
}
END_TEST

/* ---- inspect and bench ---- */

START_TEST(test_inspect_describes_a_model)
{
    assert_runs("inspect " MODEL);
    assert_says(outcome.out, "vit (transformers layout)");
    assert_says(outcome.out, "64x64");
    assert_says(outcome.out, "12 layers, width 192, 3 heads");
    assert_says(outcome.out, "F16");
    assert_says(outcome.out, "200: goldfish");
    assert_says(outcome.out, "can run this model");
}
END_TEST

START_TEST(test_inspect_describes_every_kind_of_model)
{
    assert_runs("inspect tests/golden/swin-hf");
    assert_says(outcome.out, "patches of 2, 64 tokens at the end\n");
    assert_says(outcome.out, "stages          2 layers of width 16, 2 heads, maps of 32x32\n");
    assert_says(outcome.out, "                1 layer of width 64, 4 heads, maps of 8x8\n");
    assert_says(outcome.out, "explanations    attention=raw\n");
    assert_runs("inspect tests/golden/resnetv2-timm");
    assert_says(outcome.out, "input           64x64 pixels\n");
    assert_says(outcome.out, "explanations    none\n");
    assert_runs("inspect --image-size 96 tests/golden/vit-timm");
    assert_says(outcome.out, "96x96 pixels, patches of 16, 37 tokens\n");
    assert_says(outcome.out, "explanations    attention=raw, rollout, legrad, attention distances\n");
    run("inspect --image-size 96 tests/golden/mvitv2-timm");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "MViTv2 runs in its own size only, this one in 64x64");
}
END_TEST

START_TEST(test_inspect_says_why_a_folder_cannot_run)
{
    run("inspect config/samples");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "config.json");
    ck_assert_uint_eq(count_lines(outcome.err), 1);
    ck_assert_str_eq(outcome.out, "");
}
END_TEST

START_TEST(test_bench_of_what_is_not_there_fails)
{
    run("bench --model /nonexistent");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "/nonexistent");
    run("bench --model " MODEL " --image /nonexistent.jpg");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "/nonexistent.jpg");
}
END_TEST

START_TEST(test_serve_fails_clearly_at_start)
{
    run("serve --port 0 --model /nonexistent");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "/nonexistent: there is no such folder");
    run("serve --port 0 --address 192.0.2.1");
    ck_assert_int_eq(outcome.status, 1);
    assert_says(outcome.err, "192.0.2.1");
}
END_TEST

START_TEST(test_bench_measures_and_writes_json)
{
    char path[32], line[256], text[16384] = "";
    write_file(path, "");
    snprintf(line, sizeof line, "bench --threads 2 --dtype int8 --json %s --model tests/golden/vit-hf --image "
             "tests/golden/vit-hf/input.png", path);
    assert_runs(line);
    assert_says(outcome.out, "of peak");
    assert_says(outcome.out, "int8   ms in gemm ");
    assert_says(outcome.out, "decode + preprocess + forward of tests/golden/vit-hf/input.png");
    FILE *file = fopen(path, "r");
    ck_assert_uint_gt(fread(text, 1, sizeof text - 1, file), 100);
    fclose(file);
    unlink(path);
    cJSON *json = cJSON_Parse(text), *dtypes = cJSON_GetObjectItem(json, "dtypes");
    ck_assert_int_eq(cJSON_GetArraySize(dtypes), 1);
    const cJSON *measured = cJSON_GetArrayItem(dtypes, 0), *runs = cJSON_GetObjectItem(measured, "runs");
    ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(measured, "dtype")), "int8");
    ck_assert_int_eq(cJSON_GetArraySize(runs), 5); /* 1 thread: batches of 1 and 8; 2: together, and both batches */
    const cJSON *run;
    cJSON_ArrayForEach(run, runs)
        ck_assert_double_gt(cJSON_GetNumberValue(cJSON_GetObjectItem(run, "ms_per_image")), 0);
    cJSON_Delete(json);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_help_and_version_go_to_stdout);
    tcase_add_test(tests, test_usage_errors_exit_2_with_one_line);
    tcase_add_test(tests, test_check_config_accepts_the_shipped_file);
    tcase_add_test(tests, test_check_config_names_file_line_and_key);
    tcase_add_test(tests, test_missing_config_is_a_runtime_error);
    tcase_add_test(tests, test_model_option_replaces_the_files_models_in_any_order);
    tcase_add_test(tests, test_classify_prints_the_best_classes);
    tcase_add_test(tests, test_classify_goes_on_past_a_bad_image);
    tcase_add_test(tests, test_classify_reads_standard_input);
    tcase_add_test(tests, test_classify_refuses_a_picture_over_the_limit);
    tcase_add_test(tests, test_classify_decodes_drafts_on_demand);
    tcase_add_test(tests, test_inspect_describes_a_model);
    tcase_add_test(tests, test_inspect_describes_every_kind_of_model);
    tcase_add_test(tests, test_inspect_says_why_a_folder_cannot_run);
    tcase_add_test(tests, test_bench_of_what_is_not_there_fails);
    tcase_add_test(tests, test_serve_fails_clearly_at_start);
    tcase_add_test(tests, test_bench_measures_and_writes_json);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

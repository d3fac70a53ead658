/* test_cli.c - the real binary ($VITD_BINARY, default build/vitd): exit statuses, and what it says where. */
#include <check.h>
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/folders.h"
#include "tests/golden.h"
#include "tests/suite.h"
#include "tests/tiny_clip.h"
#include "vit_image.h"

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
    assert_says(outcome.out, "--labels");
    assert_says(outcome.out, "--template");
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
        {"classify --template a_photo a.jpg", "--template: 'a_photo' is not allowed, it takes a text"},
        {"classify --labels= a.jpg", "--labels: '' is not allowed, it takes texts separated by commas"},
        {"serve --labels cat", "--labels"},
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

/* ---- classify by words ---- */

#define IMAGE "config/samples/cat.jpg"

/* The score that the last output gives a label. */
static double score_of(const char *label)
{
    char end[64];
    double score = NAN;
    snprintf(end, sizeof end, "  %s\n", label);
    const char *found = strstr(outcome.out, end);
    ck_assert_msg(found != NULL, "%s is not in \"%s\"", label, outcome.out);
    while (found > outcome.out && found[-1] != '\n')
        found--;
    ck_assert_int_eq(sscanf(found, "%lf", &score), 1);
    return score;
}

/* vitd classify --model FOLDER OPTIONS */
static void classify(const char *folder, const char *options)
{
    char line[1024];
    snprintf(line, sizeof line, "classify --model %s %s", folder, options);
    run(line);
}

static void assert_classifies(const char *folder, const char *options)
{
    classify(folder, options);
    ck_assert_msg(outcome.status == 0, "%s: exit %d: %s", options, outcome.status, outcome.err);
    ck_assert_str_eq(outcome.err, "");
}

static void assert_complains(const char *folder, const char *options, const char *about)
{
    classify(folder, options);
    ck_assert_msg(outcome.status == 1, "%s: exit %d", options, outcome.status);
    ck_assert_str_eq(outcome.out, "");
    ck_assert_uint_eq(count_lines(outcome.err), 1);
    assert_says(outcome.err, about);
}

START_TEST(test_classify_by_words)
{
    char folder[FOLDER_BYTES];
    folder_make(folder);
    tiny_clip_write(folder);
    assert_classifies(folder, "--labels cat,dog,and " IMAGE);
    ck_assert_uint_eq(count_lines(outcome.out), 3);
    const double cat = score_of("cat"), dog = score_of("dog"), and = score_of("and");
    ck_assert_double_eq_tol(cat + dog + and, 1, 2e-4);
    assert_says(outcome.out, "      1  dog\n");

    assert_classifies(folder, "--labels dog,and,cat --top-k 2 " IMAGE " " IMAGE);
    ck_assert_uint_eq(count_lines(outcome.out), 2 * (1 + 2));
    assert_classifies(folder, "--labels dog,and,cat " IMAGE);
    ck_assert_double_eq(score_of("cat"), cat);
    assert_says(outcome.out, "      0  dog\n");

    assert_classifies(folder, "--labels cat,dog,and --template a-photo-of-{}. " IMAGE);
    const double photographed = score_of("cat");
    ck_assert_double_ne(photographed, cat);
    assert_classifies(folder, "--labels a-photo-of-cat.,a-photo-of-dog.,a-photo-of-and. " IMAGE);
    ck_assert_double_eq(score_of("a-photo-of-cat."), photographed);
    folder_remove(folder);
}
END_TEST

START_TEST(test_classify_by_configured_words)
{
    char folder[FOLDER_BYTES], path[32], text[256], line[256];
    folder_make(folder);
    tiny_clip_write(folder);
    assert_classifies(folder, "--labels cat,dog --template a-{} " IMAGE);
    const double cat = score_of("cat");
    snprintf(text, sizeof text, "{\"models\": [{\"path\": \"%s\", \"labels\": [\"dog\", \"cat\"], \"template\": \"a-{}\"}]}",
             folder);
    write_file(path, text);
    snprintf(line, sizeof line, "classify --config %s " IMAGE, path);
    assert_runs(line);
    ck_assert_double_eq(score_of("cat"), cat);
    snprintf(line, sizeof line, "classify --config %s --labels and " IMAGE, path);
    assert_runs(line);
    ck_assert_str_eq(outcome.out, "  1.0000      0  and\n");
    unlink(path);
    folder_remove(folder);
}
END_TEST

/* Without a name the highest version is meant, as to the server. */
START_TEST(test_classify_by_the_highest_version)
{
    char path[32], here[512], text[1024], line[256];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(text, sizeof text,
             "{\"models\": [{\"name\": \"m\", \"version\": 1, \"path\": \"/nonexistent\"}, "
             "{\"name\": \"m\", \"version\": 2, \"path\": \"%s/" MODEL "\"}]}",
             here);
    write_file(path, text);
    snprintf(line, sizeof line, "classify --config %s " IMAGE, path);
    assert_runs(line);
    unlink(path);
}
END_TEST

/* The picture that --output wrote; to be released. */
static vit_image read_picture(const char *path)
{
    static uint8_t bytes[1 << 20];
    vit_image image = {0};
    vit_error err = {""};
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    const size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    ck_assert_msg(vit_image_decode(&image, bytes, length, 1 << 24, &err) == VIT_OK, "%s", err.message);
    return image;
}

static vit_image draw(const char *folder, const char *options)
{
    char output[64], line[256];
    snprintf(output, sizeof output, "%s/map.png", folder);
    snprintf(line, sizeof line, "--attention legrad --output %s %s " IMAGE, output, options);
    assert_classifies(folder, line);
    return read_picture(output);
}

static bool same_picture(const vit_image *a, const vit_image *b)
{
    return a->width == b->width && a->height == b->height && memcmp(a->pixels, b->pixels, 3 * a->width * a->height) == 0;
}

START_TEST(test_classify_draws_a_map_for_each_word)
{
    char folder[FOLDER_BYTES];
    folder_make(folder);
    tiny_clip_write(folder);
    vit_image one = draw(folder, "--target cat");
    ck_assert_str_eq(outcome.out, ""); /* no classes were asked for */
    vit_image two = draw(folder, "--target cat,dog"), other = draw(folder, "--target cat,and");
    ck_assert_uint_gt(two.width, 2 * one.width);
    ck_assert(!same_picture(&two, &other));
    vit_image labels = draw(folder, "--labels cat,dog");
    ck_assert_uint_eq(count_lines(outcome.out), 2);
    ck_assert(same_picture(&labels, &two)); /* the words that are scored are explained */
    vit_image target = draw(folder, "--labels dog,and --target cat");
    ck_assert(same_picture(&target, &one));
    vit_image *const images[] = {&one, &two, &other, &labels, &target};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
        vit_image_release(images[i]);
    folder_remove(folder);
}
END_TEST

START_TEST(test_classify_says_which_words_are_wrong)
{
    char folder[FOLDER_BYTES];
    folder_make(folder);
    tiny_clip_write(folder);
    assert_complains(folder, IMAGE, "has no classes of its own: say which to choose from, as in --labels");
    assert_complains(folder, "--template a-{} " IMAGE, "has no classes of its own");
    assert_complains(folder, "--labels cat,,dog " IMAGE, "--labels, text 2: found an empty text");
    assert_complains(folder, "--labels cat\xff " IMAGE, "not UTF-8");
    assert_complains(folder, "--attention legrad --output /nonexistent/a.png " IMAGE, "say of which words the map is to be");
    assert_complains(folder, "--attention legrad --output /nonexistent/a.png --labels 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17 "
                     IMAGE, "say of which words the map is to be, up to 16");
    assert_complains(folder, "--labels cat --target dog " IMAGE, "target only goes with attention=legrad");
    assert_complains(MODEL, "--labels cat,dog " IMAGE, MODEL " has classes of its own");
    assert_complains(MODEL, "--template a-{} " IMAGE, MODEL " has classes of its own");
    folder_remove(folder);
}
END_TEST

/* Against the reference implementation, with a vocabulary that is not ours to ship. */
START_TEST(test_classify_by_words_equals_the_reference)
{
    const char *shared = getenv("VITD_SHARED") != NULL ? getenv("VITD_SHARED") : "../shared";
    char folder[300], path[400], options[400];
    size_t count;
    snprintf(folder, sizeof folder, "%s/golden/clip-hf", shared);
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    struct golden *expected = golden_open(path);
    if (expected == NULL) {
        printf("skipped: there is no %s\n", path);
        return;
    }
    const float *logits = golden_get(expected, "logits", "F32", &count);
    ck_assert_uint_eq(count, 4); /* a photo of a jaguar; jump; a frisbee over the water; dog */
    snprintf(options, sizeof options, "--labels jump,dog %s/input.png", folder);
    assert_classifies(folder, options);
    ck_assert_double_eq_tol(score_of("dog"), 1 / (1 + exp((double)logits[1] - (double)logits[3])), 1e-4);
    golden_free(expected);
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
    tcase_add_test(tests, test_classify_by_words);
    tcase_add_test(tests, test_classify_by_configured_words);
    tcase_add_test(tests, test_classify_by_the_highest_version);
    tcase_add_test(tests, test_classify_draws_a_map_for_each_word);
    tcase_add_test(tests, test_classify_says_which_words_are_wrong);
    tcase_add_test(tests, test_classify_by_words_equals_the_reference);
    tcase_add_test(tests, test_inspect_describes_a_model);
    tcase_add_test(tests, test_inspect_describes_every_kind_of_model);
    tcase_add_test(tests, test_inspect_says_why_a_folder_cannot_run);
    tcase_add_test(tests, test_bench_of_what_is_not_there_fails);
    tcase_add_test(tests, test_serve_fails_clearly_at_start);
    tcase_add_test(tests, test_bench_measures_and_writes_json);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

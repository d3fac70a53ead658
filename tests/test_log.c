/* test_log.c - the lines of the log: both formats, the journal, and strings that try to forge or break one. */
#include <cjson/cJSON.h>
#include <check.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/log.h"
#include "tests/suite.h"

/* ---- standard error, caught in a file ---- */

static int saved_stderr = -1;
static FILE *caught;

static void catch_lines(void)
{
    caught = tmpfile();
    ck_assert_ptr_nonnull(caught);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fileno(caught), STDERR_FILENO);
}

/* What was written since catch_lines(); to be freed. */
static char *caught_lines(void)
{
    char *text = calloc(1, 1 << 20);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    rewind(caught);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_lt(fread(text, 1, (1 << 20) - 1, caught), (1 << 20) - 1);
    fclose(caught);
    return text;
}

static struct log_access access_of(const char *path)
{
    return (struct log_access){
        .id = "a1", .method = "POST", .path = path, .route = "/classify", .model = "tiny", .peer = "127.0.0.1",
        .status = 200, .error_code = "", .bytes_in = 1000, .bytes_out = 300, .images = 2, .batch_size = 3,
        .total_ms = 12.34, .queue_ms = 0.1, .preprocess_ms = 1.9, .inference_ms = 7.2,
    };
}

static char *request_line(enum log_format format, const struct log_access *access)
{
    catch_lines();
    log_setup(LOG_LEVEL_INFO, format);
    log_request(access);
    return caught_lines();
}

static const char *json_text(const cJSON *json, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, key);
    ck_assert_msg(cJSON_IsString(value), "%s is no string", key);
    return value->valuestring;
}

/* ---- messages ---- */

START_TEST(test_text_line_has_time_level_and_message)
{
    int year, month, day, hour, minute, second, ms, length = 0;
    catch_lines();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("port %d", 8080);
    char *line = caught_lines();
    ck_assert_int_eq(sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms,
                            &length), 7);
    ck_assert_int_eq(length, 24);
    ck_assert_str_eq(line + length, " info  port 8080\n");
    free(line);
}
END_TEST

START_TEST(test_level_leaves_out_what_is_below_it)
{
    catch_lines();
    log_setup(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    log_error("one");
    log_warn("two");
    log_info("three");
    log_debug("four");
    log_request(&(struct log_access){.method = "GET", .path = "/fine", .status = 200});
    log_request(&(struct log_access){.method = "GET", .path = "/broken", .status = 503});
    char *lines = caught_lines();
    ck_assert_ptr_nonnull(strstr(lines, " error one\n"));
    ck_assert_ptr_nonnull(strstr(lines, " warn  two\n"));
    ck_assert_ptr_null(strstr(lines, "three"));
    ck_assert_ptr_null(strstr(lines, "four"));
    ck_assert_ptr_null(strstr(lines, "/fine"));
    ck_assert_ptr_nonnull(strstr(lines, "GET /broken 503"));
    ck_assert(log_enabled(LOG_LEVEL_WARN));
    ck_assert(!log_enabled(LOG_LEVEL_INFO));
    free(lines);
}
END_TEST

START_TEST(test_json_line_is_one_object)
{
    catch_lines();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_warn("a \"quoted\" back\\slash\nnewline");
    char *line = caught_lines();
    cJSON *json = cJSON_Parse(line);
    ck_assert_ptr_nonnull(json);
    ck_assert_str_eq(json_text(json, "level"), "warn");
    ck_assert_str_eq(json_text(json, "message"), "a \"quoted\" back\\slash\nnewline");
    ck_assert_uint_eq(strlen(json_text(json, "time")), 24);
    ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
    cJSON_Delete(json);
    free(line);
}
END_TEST

START_TEST(test_journal_gets_a_priority_and_no_time)
{
    char stream[64];
    struct stat status;
    catch_lines();
    ck_assert_int_eq(fstat(STDERR_FILENO, &status), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_setup(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    log_error("e");
    log_warn("w");
    log_info("i");
    log_debug("d");
    char *lines = caught_lines();
    ck_assert_str_eq(lines, "<3>e\n<4>w\n<6>i\n<7>d\n");
    free(lines);
    unsetenv("JOURNAL_STREAM");
}
END_TEST

START_TEST(test_redirected_stderr_is_not_the_journal)
{
    catch_lines();
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("i");
    char *line = caught_lines();
    ck_assert_ptr_nonnull(strstr(line, "Z info  i\n"));
    free(line);
    unsetenv("JOURNAL_STREAM");
}
END_TEST

/* ---- requests ---- */

START_TEST(test_request_reads_as_text)
{
    struct log_access access = access_of("/classify");
    char *line = request_line(LOG_FORMAT_TEXT, &access);
    ck_assert_str_eq(strstr(line, "POST"), "POST /classify 200 12.3ms id=a1 model=tiny queue=0.1 preprocess=1.9 "
                                           "inference=7.2 images=2 batch=3 in=1000 out=300 peer=127.0.0.1\n");
    free(line);
}
END_TEST

START_TEST(test_request_leaves_out_what_it_lacks)
{
    struct log_access access = {.id = "", .method = "GET", .path = "/x", .route = "", .model = "", .peer = NULL,
                                .status = 404, .error_code = "not_found", .total_ms = 1, .queue_ms = -1,
                                .preprocess_ms = -1, .inference_ms = -1};
    char *line = request_line(LOG_FORMAT_TEXT, &access);
    ck_assert_str_eq(strstr(line, "GET"), "GET /x 404 1.0ms error=not_found in=0 out=0\n");
    free(line);
}
END_TEST

START_TEST(test_request_reads_as_json)
{
    struct log_access access = access_of("/classify");
    char *line = request_line(LOG_FORMAT_JSON, &access);
    cJSON *json = cJSON_Parse(line);
    ck_assert_ptr_nonnull(json);
    ck_assert_str_eq(json_text(json, "path"), "/classify");
    ck_assert_str_eq(json_text(json, "model"), "tiny");
    ck_assert_int_eq(cJSON_GetObjectItem(json, "status")->valueint, 200);
    ck_assert_int_eq(cJSON_GetObjectItem(json, "batch")->valueint, 3);
    ck_assert_double_eq_tol(cJSON_GetObjectItem(json, "total_ms")->valuedouble, 12.34, 1e-9);
    cJSON_Delete(json);
    free(line);
}
END_TEST

/* ---- hostile strings ---- */

START_TEST(test_text_values_cannot_forge_fields_or_lines)
{
    struct log_access access = access_of("/x 200 1ms id=fake\nPOST /y");
    access.id = "\x1b[2J\xc2\x9b" "1m\"q\"";
    char *line = request_line(LOG_FORMAT_TEXT, &access);
    ck_assert_ptr_nonnull(strstr(line, "POST \"/x 200 1ms id=fake\\nPOST /y\" 200 "));
    ck_assert_ptr_nonnull(strstr(line, " id=\"\\x1B[2J\\x9B1m\\\"q\\\"\" "));
    ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
    ck_assert_ptr_null(strchr(line, 0x1b));
    free(line);
}
END_TEST

START_TEST(test_json_replaces_what_is_not_utf8)
{
    struct log_access access = access_of("/\xff\xc0\xaf\xed\xa0\x80\xc3\xa9");
    char *line = request_line(LOG_FORMAT_JSON, &access);
    ck_assert_ptr_nonnull(strstr(line, "\"/\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\xc3\xa9\""));
    free(line);
}
END_TEST

START_TEST(test_longest_request_is_one_short_line)
{
    static char huge[100000];
    memset(huge, '\x01', sizeof huge - 1); /* six characters each in JSON */
    struct log_access access = access_of(huge);
    access.id = access.method = access.route = access.model = access.peer = access.error_code = huge;
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        char *line = request_line((enum log_format)format, &access);
        ck_assert_uint_le(strlen(line), PIPE_BUF);
        ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
        if (format == LOG_FORMAT_JSON) {
            cJSON *json = cJSON_ParseWithOpts(line, NULL, 1);
            ck_assert_ptr_nonnull(json);
            cJSON_Delete(json);
        }
        free(line);
    }
}
END_TEST

START_TEST(test_clean_escapes_and_cuts)
{
    char out[12];
    ck_assert_str_eq(log_clean(out, sizeof out, "caf\xc3\xa9"), "caf\xc3\xa9");
    ck_assert_str_eq(log_clean(out, sizeof out, "a\tb\x80"), "a\\x09b\\x80");
    ck_assert_str_eq(log_clean(out, sizeof out, "12345678901"), "12345678901");
    ck_assert_str_eq(log_clean(out, sizeof out, "123456789012"), "12345678...");
    ck_assert_str_eq(log_clean(out, sizeof out, "1234567\xc3\xa9 1234"), "1234567...");
    ck_assert_str_eq(log_clean(out, sizeof out, ""), "");
}
END_TEST

/* ---- threads ---- */

static void *log_many(void *name)
{
    for (int i = 0; i < 500; i++)
        log_info("%s %03d end", (const char *)name, i);
    return NULL;
}

/* Nobody reads: lines are lost, nothing waits, and the first line that can be written again says how many. */
START_TEST(test_stalled_reader_stops_nothing)
{
    int ends[2];
    char text[1 << 17];
    const int kept = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(ends), 0);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    dup2(ends[1], STDERR_FILENO);
    for (int i = 0; i < 20000; i++)
        log_info("line %d, of which the pipe can hold only so many", i);
    ssize_t length = read(ends[0], text, sizeof text);
    ck_assert_int_gt(length, 10000);
    log_info("the last line");
    length = read(ends[0], text, sizeof text - 1);
    dup2(kept, STDERR_FILENO);
    ck_assert_int_gt(length, 0);
    text[length] = '\0';
    ck_assert_ptr_nonnull(strstr(text, " log lines were lost\n"));
    ck_assert_ptr_nonnull(strstr(text, "the last line\n"));
    close(kept);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(test_lines_of_threads_do_not_mix)
{
    pthread_t threads[4];
    static char names[4][2] = {"a", "b", "c", "d"};
    int count = 0, ends = 0;
    catch_lines();
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    char *lines = caught_lines();
    for (char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n"), count++)
        ends += strlen(line) == strlen("2026-11-23T21:00:00.123Z info  a 000 end") &&
                strcmp(line + strlen(line) - 4, " end") == 0;
    ck_assert_int_eq(count, 2000);
    ck_assert_int_eq(ends, 2000);
    free(lines);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_text_line_has_time_level_and_message);
    tcase_add_test(tests, test_level_leaves_out_what_is_below_it);
    tcase_add_test(tests, test_json_line_is_one_object);
    tcase_add_test(tests, test_journal_gets_a_priority_and_no_time);
    tcase_add_test(tests, test_redirected_stderr_is_not_the_journal);
    tcase_add_test(tests, test_request_reads_as_text);
    tcase_add_test(tests, test_request_leaves_out_what_it_lacks);
    tcase_add_test(tests, test_request_reads_as_json);
    tcase_add_test(tests, test_text_values_cannot_forge_fields_or_lines);
    tcase_add_test(tests, test_json_replaces_what_is_not_utf8);
    tcase_add_test(tests, test_longest_request_is_one_short_line);
    tcase_add_test(tests, test_clean_escapes_and_cuts);
    tcase_add_test(tests, test_stalled_reader_stops_nothing);
    tcase_add_test(tests, test_lines_of_threads_do_not_mix);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

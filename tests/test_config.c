/* test_config.c - the configuration: every key, every bound, errors that name file, line and key. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"
#include "tests/suite.h"

/* Loads text as a file over the defaults; the caller releases *config. */
static bool load(struct config *config, const char *text, struct config_error *error)
{
    char path[] = "/tmp/vitd-test-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    config_init(config);
    const bool loaded = config_load(config, path, error);
    unlink(path);
    if (!loaded) /* the messages begin with the path, whatever it is */
        memmove(error->message, error->message + strlen(path), strlen(error->message) - strlen(path) + 1);
    return loaded;
}

START_TEST(test_shipped_file_holds_every_default)
{
    struct config defaults, shipped;
    struct config_error error = {""};
    struct config_key a, b;
    FILE *file = fopen("config/vitd.json", "r");
    ck_assert_ptr_nonnull(file);
    char text[16384] = "";
    ck_assert_uint_gt(fread(text, 1, sizeof text - 1, file), 0);
    fclose(file);
    config_init(&defaults);
    config_init(&shipped);
    ck_assert_msg(config_load(&shipped, "config/vitd.json", &error), "%s", error.message);
    for (size_t i = 0; config_describe(&defaults, i, &a); i++) {
        char quoted[80];
        const char *dot = strrchr(a.name, '.');
        ck_assert(config_describe(&shipped, i, &b));
        ck_assert_str_eq(a.value, b.value);
        snprintf(quoted, sizeof quoted, "\"%s\":", dot != NULL ? dot + 1 : a.name);
        ck_assert_msg(strstr(text, quoted) != NULL, "config/vitd.json lacks %s", a.name);
    }
    ck_assert_uint_eq(shipped.model_count, 0);
    config_release(&defaults);
    config_release(&shipped);
}
END_TEST

START_TEST(test_every_key_can_be_set_to_its_bounds)
{
    struct config config;
    struct config_error error = {""};
    struct config_key key;
    config_init(&config);
    for (size_t i = 0; config_describe(&config, i, &key); i++) {
        long long min, max;
        if (key.type != CONFIG_NUMBER)
            continue;
        char value[32];
        ck_assert_msg(sscanf(key.allowed, "%lld to %lld", &min, &max) == 2, "%s", key.allowed);
        for (int side = 0; side < 2; side++) {
            snprintf(value, sizeof value, "%lld", side == 0 ? min : max);
            ck_assert_msg(config_set(&config, key.name, value, &error), "%s: %s", key.name, error.message);
            snprintf(value, sizeof value, "%lld", side == 0 ? min - 1 : max + 1);
            ck_assert_msg(!config_set(&config, key.name, value, &error), "%s took %s", key.name, value);
            ck_assert_ptr_nonnull(strstr(error.message, key.allowed));
        }
    }
    config_release(&config);
}
END_TEST

START_TEST(test_file_sets_values_and_models)
{
    struct config config;
    struct config_error error = {""};
    ck_assert_msg(load(&config,
                       "// comment\n{\"listen\": {\"port\": 0, \"address\": \"::1\"}, /* a\n b */ \"threads\": 3,\n"
                       "\"models\": [{\"path\": \"/m/one\"}, {\"name\": \"second\", \"path\": \"two\"}],\n"
                       "\"log\": {\"level\": \"debug\", \"format\": \"json\"}}\n",
                       &error),
                  "%s", error.message);
    ck_assert_int_eq(config.listen.port, 0);
    ck_assert_str_eq(config.listen.address, "::1");
    ck_assert_int_eq(config.threads, 3);
    ck_assert_int_eq(config.log.level, LOG_LEVEL_DEBUG);
    ck_assert_int_eq(config.log.format, LOG_FORMAT_JSON);
    ck_assert_uint_eq(config.model_count, 2);
    ck_assert_str_eq(config.models[0].name, "one");
    ck_assert_str_eq(config.models[1].name, "second");
    ck_assert_str_eq(config.models[1].path, "/tmp/two"); /* from the file's folder */
    config_release(&config);
}
END_TEST

START_TEST(test_draft_is_off_but_where_asked_for)
{
    struct config config;
    struct config_error error = {""};
    config_init(&config);
    ck_assert(config_add_model(&config, "/m/one", &error));
    ck_assert(!config.draft && !config.models[0].draft);
    ck_assert(config_set(&config, "draft", "true", &error));
    ck_assert(config_add_model(&config, "/m/two", &error));
    ck_assert(config.models[1].draft);
    config_release(&config);
    ck_assert_msg(load(&config,
                       "{\"models\": [{\"path\": \"/m/one\"}, {\"path\": \"/m/two\", \"draft\": false}], \"draft\": true}",
                       &error),
                  "%s", error.message);
    ck_assert(config.models[0].draft && !config.models[1].draft);
    config_release(&config);
}
END_TEST

START_TEST(test_errors_name_line_key_and_range)
{
    static const struct {
        const char *text, *line, *words;
    } cases[] = {
        {"{\n\"batching\": {\n\"max_batch_size\": 0}}", ":3: batching.max_batch_size: ", "allowed is 1 to 256"},
        {"{\"threads\": 1.5}", ":1: threads: ", "allowed is 0 to 1024"},
        {"{\"threads\": \"2\"}", ":1: threads: ", "allowed is 0 to 1024"},
        {"{\"listen\": {\"adress\": 1}}", ":1: listen.adress: ", "unknown key, allowed is address, port, socket"},
        {"{\n\n\"treads\": 1}", ":3: treads: ", "unknown key"},
        {"{\"threads\": 1,\n\"threads\": 2}", ":2: threads: ", "a second time"},
        {"{\"log\": {\"level\": \"loud\"}}", ":1: log.level: ", "error, warn, info, debug"},
        {"{\"dtype\": \"int4\"}", ":1: dtype: ", "found int4, allowed is fp32, bf16, int8, auto"},
        {"{\"draft\": 1}", ":1: draft: ", "found 1, allowed is false, true"},
        {"{\"draft\": \"true\"}", ":1: draft: ", "found \"true\" (a string), allowed is false, true"},
        {"{\"models\": [{\"path\": \"/m\",\n\"draft\": 1}]}", ":2: models[0].draft: ", "found 1, allowed is false, true"},
        {"{\"listen\": {\"address\": \"localhost\"}}", ":1: listen.address: ", "numeric IPv4 or IPv6"},
        {"{\"models\": {}}", ":1: models: ", "a list"},
        {"{\"models\": [\n{\"name\": \"a/b\", \"path\": \"x\"}]}", ":2: models[0]: ", "A-Z a-z 0-9"},
        {"{\"models\": [{\"path\": \"/x/a\"},\n{\"path\": \"/y/a\"}]}", ":2: models[1]: ", "twice"},
        {"{\"models\": [{}]}", ":1: models[0]: ", "path"},
        {"{\"threads\": 1,\n}", ":2: ", "a comma before }"},
        {"{\"threads\": 1} x", ":1: ", "found x"},
        {"{\n/* never closed", ":2: ", ""},
        {"[]", ":1: ", "{...}"},
        {"", ":1: ", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config config;
        struct config_error error = {""};
        ck_assert_msg(!load(&config, cases[i].text, &error), "%s", cases[i].text);
        ck_assert_msg(strncmp(error.message, cases[i].line, strlen(cases[i].line)) == 0, "%s: \"%s\"", cases[i].text,
                      error.message);
        ck_assert_msg(strstr(error.message, cases[i].words) != NULL, "%s: \"%s\"", cases[i].text, error.message);
        ck_assert_int_eq(config.batching.max_batch_size, 8); /* unchanged */
        config_release(&config);
    }
}
END_TEST

START_TEST(test_model_specs)
{
    struct config config;
    struct config_error error = {""};
    config_init(&config);
    ck_assert(config_add_model(&config, "cat=/srv/a=b", &error));
    ck_assert(config_add_model(&config, "/srv/models/tiny/", &error));
    ck_assert_str_eq(config.models[0].name, "cat");
    ck_assert_str_eq(config.models[0].path, "/srv/a=b");
    ck_assert_str_eq(config.models[1].name, "tiny");
    ck_assert(!config_add_model(&config, "cat=/srv/c", &error));
    ck_assert(!config_add_model(&config, "=x", &error));
    ck_assert(!config_add_model(&config, "a b=x", &error));
    ck_assert_uint_eq(config.model_count, 2);
    config_release(&config);
}
END_TEST

START_TEST(test_cpu_count_is_within_the_machine)
{
    ck_assert_int_ge(config_cpu_count(), 1);
    ck_assert_int_le(config_cpu_count(), (int)sysconf(_SC_NPROCESSORS_CONF));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_shipped_file_holds_every_default);
    tcase_add_test(tests, test_every_key_can_be_set_to_its_bounds);
    tcase_add_test(tests, test_file_sets_values_and_models);
    tcase_add_test(tests, test_draft_is_off_but_where_asked_for);
    tcase_add_test(tests, test_errors_name_line_key_and_range);
    tcase_add_test(tests, test_model_specs);
    tcase_add_test(tests, test_cpu_count_is_within_the_machine);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

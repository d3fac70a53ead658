/* test_manual.c - the manual pages name everything that there is: every key of the configuration with what is allowed and its
 * default, every route, parameter, header, error code, metric, option and environment variable. */
#include <cjson/cJSON.h>
#include <check.h>
#include <ctype.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/http/routes.h"
#include "server/http/web/web.h"
#include "tests/daemon.h"
#include "tests/suite.h"

static char *read_text(const char *path)
{
    size_t length;
    return (char *)test_file(path, &length);
}

/* Takes from text, in place, what stands between two characters, and them; with `inside`, only them. */
static void take_out(char *text, char opens, char closes, bool inside)
{
    char *out = text;
    bool within = false;
    for (const char *c = text; *c; c++) {
        within = *c == opens || (within && *c != closes && *c != '\n');
        if (*c == opens || *c == closes || (within && !inside))
            continue;
        *out++ = *c;
    }
    *out = '\0';
}

/* A page as words: without fonts, quotes and escapes. */
static char *read_page(const char *path)
{
    char *page = read_text(path), *out = page;
    for (const char *c = page; *c; c++) {
        if (*c == '\\' && c[1] == 'f')
            c += 2;
        else if (*c != '\\' && *c != '"')
            *out++ = *c;
    }
    *out = '\0';
    return page;
}

/* Whether text stands in the page, and nothing that could be part of it right before or behind. */
static bool holds(const char *page, const char *text)
{
    for (const char *found = page; (found = strstr(found, text)) != NULL; found++) {
        const char before = found == page ? ' ' : found[-1], after = found[strlen(text)];
        if (!isalnum((unsigned char)before) && before != '_' && !isalnum((unsigned char)after) && after != '_' && after != '/' &&
            (after != '-' || !isalnum((unsigned char)found[strlen(text) + 1])))
            return true;
    }
    return false;
}

static void assert_holds(const char *page, const char *text)
{
    ck_assert_msg(holds(page, text), "the manual page does not name %s", text);
}

/* ---- vitd.json(5) ---- */

/* The entry that begins with that line; to be freed. */
static char *entry_of(const char *page, const char *line)
{
    const char *start = strstr(page, line);
    ck_assert_msg(start != NULL, "systemd/vitd.json.5 lacks%s", line);
    start += strlen(line);
    const char *next = strstr(start, "\n.TP"), *section = strstr(start, "\n.SH");
    if (!next || (section && section < next))
        next = section;
    return strndup(start, next ? (size_t)(next - start) : strlen(start));
}

START_TEST(test_every_key)
{
    struct config config;
    struct config_key key;
    char line[512], *page = read_text("systemd/vitd.json.5");
    config_init(&config);
    for (size_t i = 0; config_describe(&config, i, &key); i++) {
        snprintf(line, sizeof line, "\n.TP\n.BR %s \" (%s; %s)\"\n", key.name, key.allowed,
                 key.value[0] != '\0' ? key.value : "unset");
        char *entry = entry_of(page, line);
        ck_assert_msg((strstr(entry, "t the next start.") != NULL) == key.restart, "%s: when it takes effect", key.name);
        free(entry);
    }
    config_release(&config);
    for (size_t i = 0; config_describe_model(i, &key); i++) {
        snprintf(line, sizeof line, "\n.BR %s \" (%s)\"\n", key.name, key.allowed);
        ck_assert_msg(strstr(page, line) != NULL, "systemd/vitd.json.5 lacks%s", line);
    }
    snprintf(line, sizeof line, "\n.BR models \" (a list of up to %d objects; empty)\"\n", CONFIG_MAX_MODELS);
    ck_assert_ptr_nonnull(strstr(page, line));
    free(page);
}
END_TEST

/* ---- vitd(8) ---- */

/* "GET /v2/models/NAME/versions/VERSION" */
static void write_route(char text[200], const struct route *route)
{
    size_t length = (size_t)sprintf(text, "%s ", route->method);
    bool segment = false;
    for (const char *c = route->path; *c; c++) {
        if (*c == '{' || *c == '}')
            segment = *c == '{';
        else
            text[length++] = segment ? (char)toupper(*c) : *c;
    }
    text[length] = '\0';
}

/* With its role on the same line. What paths may be without is in brackets. */
START_TEST(test_every_route)
{
    static const char *const roles[] = {[ROLE_ADMIN] = "(ADMIN)", [ROLE_METRICS] = "(METRICS)", [ROLE_INFER] = "(INFER)",
                                        [ROLE_OPEN] = ""};
    char text[200], *with = read_page("systemd/vitd.8"), *without = strdup(with);
    size_t count;
    const struct route *routes = routes_table(&count);
    take_out(with, '[', ']', true);
    take_out(without, '[', ']', false);
    for (size_t i = 0; i < count; i++) {
        write_route(text, &routes[i]);
        const char *page = holds(without, text) ? without : with;
        assert_holds(page, text);
        const char *line = strstr(page, text), *role = strstr(line, roles[routes[i].role]);
        ck_assert_msg(role && role <= strchr(line, '\n'), "vitd(8) does not say that %s needs %s", text,
                      roles[routes[i].role]);
    }
    for (int id = 0; id < PARAMETER_COUNT; id++)
        assert_holds(with, parameters[id].name);
    free(with);
    free(without);
}
END_TEST

/* Every string of a JSON array or, with keys, every key of an object. */
static void assert_holds_all(const char *page, const cJSON *node, bool keys)
{
    const cJSON *item;
    ck_assert_ptr_nonnull(node);
    cJSON_ArrayForEach(item, node) assert_holds(page, keys ? item->string : item->valuestring);
}

START_TEST(test_headers_and_error_codes)
{
    char *page = read_page("systemd/vitd.8");
    cJSON *document = cJSON_ParseWithLength(web_openapi, web_openapi_length);
    const cJSON *components = cJSON_GetObjectItem(document, "components"), *item;
    assert_holds_all(page, cJSON_GetObjectItem(components, "headers"), true);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(components, "parameters")) {
        if (strcmp(cJSON_GetObjectItem(item, "in")->valuestring, "header") == 0)
            assert_holds(page, cJSON_GetObjectItem(item, "name")->valuestring);
    }
    assert_holds(page, "Authorization");
    int codes = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(components, "responses")) {
        const cJSON *json = cJSON_GetObjectItem(cJSON_GetObjectItem(item, "content"), "application/json");
        const cJSON *all = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "schema"), "allOf");
        if (!all)
            continue;
        const cJSON *error = cJSON_GetObjectItem(cJSON_GetObjectItem(all->child->next, "properties"), "error");
        const cJSON *code = cJSON_GetObjectItem(cJSON_GetObjectItem(error, "properties"), "code");
        assert_holds(page, item->string);
        assert_holds_all(page, cJSON_GetObjectItem(code, "enum"), false);
        codes++;
    }
    ck_assert_int_gt(codes, 10);
    cJSON_Delete(document);
    free(page);
}
END_TEST

/* Whatever follows `mark` in the sources, as far as it is of these characters. */
static int assert_holds_found(const char *page, const char *pattern, const char *mark, const char *characters, const char *before)
{
    int count = 0;
    glob_t files;
    ck_assert_int_eq(glob(pattern, 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char *source = read_text(files.gl_pathv[i]);
        for (const char *found = source; (found = strstr(found, mark)) != NULL;) {
            char text[100];
            found += strlen(mark);
            const size_t length = strspn(found, characters);
            snprintf(text, sizeof text, "%s%.*s", before, (int)length, found);
            if (length > 0)
                assert_holds(page, text);
            count += length > 0;
        }
        free(source);
    }
    globfree(&files);
    return count;
}

START_TEST(test_metrics_options_environment)
{
    char *page = read_page("systemd/vitd.8");
    ck_assert_int_gt(assert_holds_found(page, "server/metrics.c", "\"vitd_", "abcdefghijklmnopqrstuvwxyz_", "vitd_"), 15);
    ck_assert_int_gt(assert_holds_found(page, "server/*.c", "getenv(\"", "ABCDEFGHIJKLMNOPQRSTUVWXYZ_", ""), 7);
    ck_assert_int_gt(assert_holds_found(page, "server/cli.c", "] = {\"", "abcdefghijklmnopqrstuvwxyz-", "--"), 20);
    free(page);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_every_key, test_every_route, test_headers_and_error_codes,
                                  test_metrics_options_environment};
    Suite *suite = suite_create("manual pages");
    TCase *all = tcase_create("all");
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}

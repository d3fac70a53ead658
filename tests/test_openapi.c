/* test_openapi.c - server/http/web/openapi.json is true: it describes every route, parameter, header, status and error code,
 * and replies of a live daemon are as it says. */
#include <check.h>
#include <glob.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/http/handlers.h"
#include "server/http/web/web.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/schema.h"
#include "tests/suite.h"
#include "tests/tiny_clip.h"

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static cJSON *open_document(void)
{
    cJSON *document = cJSON_ParseWithLength(web_openapi, web_openapi_length);
    ck_assert_msg(document != NULL, "openapi.json is not JSON, near %.40s", cJSON_GetErrorPtr());
    return document;
}

static const cJSON *component(const cJSON *document, const char *kind, const char *name)
{
    return member(member(member(document, "components"), kind), name);
}

/* ---- the document ---- */

static void check_references(const cJSON *document, const cJSON *node)
{
    const cJSON *item, *reference = member(node, "$ref");
    ck_assert_msg(schema_follow(document, node) != NULL, "%s leads nowhere", reference ? reference->valuestring : "");
    cJSON_ArrayForEach(item, node) check_references(document, item);
}

static bool is_referred_to(const cJSON *node, const char *path)
{
    const cJSON *item, *reference = member(node, "$ref");
    if (reference && strcmp(reference->valuestring, path) == 0)
        return true;
    cJSON_ArrayForEach(item, node) if (is_referred_to(item, path)) return true;
    return false;
}

START_TEST(test_references)
{
    cJSON *document = open_document();
    const cJSON *kind, *item;
    ck_assert_str_eq(member(document, "openapi")->valuestring, "3.1.0");
    check_references(document, document);
    cJSON_ArrayForEach(kind, member(document, "components")) {
        cJSON_ArrayForEach(item, kind) {
            char path[100];
            snprintf(path, sizeof path, "#/components/%s/%s", kind->string, item->string);
            ck_assert_msg(strcmp(kind->string, "securitySchemes") == 0 || is_referred_to(document, path),
                          "nothing refers to %s", path);
        }
    }
    cJSON_Delete(document);
}
END_TEST

/* ---- the routes ---- */

static const cJSON *operation_of(const cJSON *document, const struct route *route)
{
    const cJSON *operation =
        member(member(member(document, "paths"), route->path), strcmp(route->method, "POST") == 0 ? "post" : "get");
    ck_assert_msg(operation != NULL, "%s %s is not described", route->method, route->path);
    return operation;
}

/* Whether the workers have a part in the answer. */
static bool works(const struct route *route)
{
    return route->takes_images || route->handle == handle_inside;
}

/* Whether the parameters of a path or an operation hold that one. */
static bool is_in(const cJSON *document, const cJSON *holder, const char *where, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, member(holder, "parameters")) {
        const cJSON *parameter = schema_follow(document, item);
        if (strcmp(member(parameter, "name")->valuestring, name) == 0 && strcmp(member(parameter, "in")->valuestring, where) == 0)
            return true;
    }
    return false;
}

static void check_parameters(const cJSON *document, const struct route *route)
{
    const cJSON *path = member(member(document, "paths"), route->path), *operation = operation_of(document, route);
    const bool v2_infer = route->parse == parse_v2_infer;
    int count = 2 * works(route) + v2_infer;
    for (int id = 0; id < PARAMETER_COUNT; id++) {
        const bool taken = route->parameters & 1u << id;
        count += taken;
        ck_assert_msg(is_in(document, operation, "query", parameters[id].name) == taken, "%s: %s", route->path,
                      parameters[id].name);
    }
    ck_assert_msg(is_in(document, operation, "header", "Priority") == works(route), "%s: Priority", route->path);
    ck_assert_msg(is_in(document, operation, "header", "X-Request-Timeout-Ms") == works(route), "%s: timeout", route->path);
    ck_assert_msg(is_in(document, operation, "header", "Inference-Header-Content-Length") == v2_infer, "%s", route->path);
    ck_assert_msg(cJSON_GetArraySize(member(operation, "parameters")) == count, "%s: more parameters than it has",
                  route->path);
    ck_assert_msg(is_in(document, path, "header", "X-Request-Id") && is_in(document, path, "header", "Traceparent"), "%s",
                  route->path);
    for (const char *c = strchr(route->path, '{'); c; c = strchr(c + 1, '{')) {
        char name[20] = "";
        sscanf(c, "{%19[^}]", name);
        ck_assert_msg(is_in(document, path, "path", name), "%s: {%s}", route->path, name);
    }
}

/* Who needs a key of which role; without access.keys only an administrator needs one. */
static void check_security(const cJSON *document, const struct route *route)
{
    static const char *const wanted[] = {[ROLE_ADMIN] = "[{\"admin\":[]}]", [ROLE_METRICS] = "[{\"metrics\":[]},{}]",
                                         [ROLE_INFER] = "[{\"infer\":[]},{}]", [ROLE_OPEN] = "[]"};
    char *found = cJSON_PrintUnformatted(member(operation_of(document, route), "security"));
    ck_assert_msg(found && strcmp(found, wanted[route->role]) == 0, "%s: security %s, not %s", route->path,
                  found ? found : "none", wanted[route->role]);
    free(found);
}

static bool can_answer(const struct route *route, int status)
{
    switch (status) {
    case 200: case 400: case 408: case 413: case 431: case 503:
        return true;
    case 401: case 403:
        return route->role != ROLE_OPEN;
    case 404:
        return route->model == MODEL_IN_QUERY || strchr(route->path, '{') || route->role == ROLE_ADMIN;
    case 411: case 415:
        return route->takes_images;
    case 422: case 429: case 504:
        return works(route);
    case 500:
        return works(route) || route->handle == handle_page;
    default:
        return false;
    }
}

static void check_responses(const cJSON *document, const struct route *route)
{
    const cJSON *responses = member(operation_of(document, route), "responses"), *item;
    int described = 0;
    for (int status = 200; status < 600; status++) {
        char key[16];
        snprintf(key, sizeof key, "%d", status);
        const cJSON *response = member(responses, key), *reference = member(response, "$ref");
        described += response != NULL;
        ck_assert_msg((response != NULL) == can_answer(route, status), "%s: %d", route->path, status);
        if (reference && status != 408 && status != 431)
            ck_assert_msg((strstr(reference->valuestring, "-plain") != NULL) == (route->errors == ERRORS_PLAIN), "%s: %s",
                          route->path, reference->valuestring);
    }
    ck_assert_int_eq(described, cJSON_GetArraySize(responses));
    const cJSON *content = member(member(responses, "200"), "content");
    ck_assert_msg(!route->pictures || member(content, "image/png"), "%s", route->path);
    cJSON_ArrayForEach(item, content) ck_assert_ptr_nonnull(member(item, "schema"));
}

START_TEST(test_every_route_is_described)
{
    cJSON *document = open_document();
    size_t count, described = 0;
    const struct route *routes = routes_table(&count);
    for (size_t i = 0; i < count; i++) {
        const cJSON *operation = operation_of(document, &routes[i]);
        check_parameters(document, &routes[i]);
        check_security(document, &routes[i]);
        check_responses(document, &routes[i]);
        ck_assert_msg(!member(operation, "requestBody") == !routes[i].takes_images, "%s", routes[i].path);
    }
    const cJSON *path;
    cJSON_ArrayForEach(path, member(document, "paths")) described += member(path, "get") != NULL;
    cJSON_ArrayForEach(path, member(document, "paths")) described += member(path, "post") != NULL;
    ck_assert_uint_eq(described, count);
    cJSON_Delete(document);
}
END_TEST

/* ---- the error codes ---- */

/* The enum of a status's error codes. */
static cJSON *codes_of(const cJSON *document, int status)
{
    char key[16];
    snprintf(key, sizeof key, "%d", status);
    const cJSON *json = member(member(component(document, "responses", key), "content"), "application/json");
    const cJSON *part = member(cJSON_GetArrayItem(member(member(json, "schema"), "allOf"), 1), "properties");
    return cJSON_GetObjectItem(member(member(member(part, "error"), "properties"), "code"), "enum");
}

/* Takes a code off the enum if it is there, having been found in the sources. */
static void found_code(const cJSON *document, cJSON *seen, const char *file, int status, const char *code)
{
    char pair[80];
    const cJSON *item;
    bool described = false;
    if (status == 499 || status == 405) /* nobody is told; told of in general */
        return;
    cJSON_ArrayForEach(item, codes_of(document, status)) described |= strcmp(item->valuestring, code) == 0;
    ck_assert_msg(described, "%s has %d %s, which openapi.json has not", file, status, code);
    snprintf(pair, sizeof pair, "%d %s", status, code);
    if (!member(seen, pair))
        cJSON_AddTrueToObject(seen, pair);
}

/* Every code in a call of problem_set(problem, STATUS, "code", "message"...), where `which ? "one" : "other"` are two. */
static void find_codes(const cJSON *document, cJSON *seen, const char *file)
{
    size_t length;
    char *source = (char *)test_file(file, &length);
    for (const char *call = source; (call = strstr(call, "problem_set(")) != NULL;) {
        int status = 0;
        call = strchr(call, ',');
        if (sscanf(call, ", %d,", &status) != 1)
            continue;
        for (const char *quote = strchr(call, '"'); quote; quote = strchr(strchr(quote + 1, '"') + 1, '"')) {
            char code[40] = "";
            if (sscanf(quote, "\"%39[a-z_]", code) != 1 || quote[strlen(code) + 1] != '"')
                break;
            found_code(document, seen, file, status, code);
        }
    }
    free(source);
}

START_TEST(test_error_codes_are_those_of_the_sources)
{
    cJSON *document = open_document(), *seen = cJSON_CreateObject();
    glob_t files;
    int described = 0;
    ck_assert_int_eq(glob("server/http/*.c", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++)
        find_codes(document, seen, files.gl_pathv[i]);
    globfree(&files);
    found_code(document, seen, "server/http/connections.c", 408, "request_timeout"); /* a literal of its own */
    for (int status = 400; status < 600; status++)
        described += cJSON_GetArraySize(codes_of(document, status));
    char *found = cJSON_Print(seen);
    ck_assert_msg(described == cJSON_GetArraySize(seen), "%d codes are described, found are %s", described, found);
    free(found);
    cJSON_Delete(seen);
    cJSON_Delete(document);
}
END_TEST

/* ---- a live daemon ---- */

/* One that has everything: versions, a lazy model, one to unload, one that reads, keys, an administrator, a cache. */
struct live {
    struct daemon daemon;
    cJSON *document;
    char folder[32], keys[48], words[FOLDER_BYTES];
};

enum { MAX_BODY = 1000000 };

#define INFER "Authorization: Bearer of-infer"
#define METRICS "Authorization: Bearer of-metrics"
#define ADMIN "Authorization: Bearer of-admin"

static void put_key(FILE *file, const char *role)
{
    char key[32];
    unsigned char digest[32];
    snprintf(key, sizeof key, "of-%s", role);
    ck_assert_int_eq(gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), digest), 0);
    fprintf(file, "%s ", role);
    for (size_t i = 0; i < sizeof digest; i++)
        fprintf(file, "%02x", digest[i]);
    fprintf(file, " %s\n", role);
}

static struct live start_live(void)
{
    struct live live = {.document = open_document(), .folder = "/tmp/vitd-test-XXXXXX"};
    char config[2000], here[400];
    ck_assert_ptr_nonnull(mkdtemp(live.folder));
    snprintf(live.keys, sizeof live.keys, "%s/keys", live.folder);
    FILE *file = fopen(live.keys, "w");
    put_key(file, "infer");
    put_key(file, "metrics");
    put_key(file, "admin");
    fclose(file);
    chmod(live.keys, 0600);
    folder_make(live.words);
    tiny_clip_write(live.words);
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(config, sizeof config,
             "{\"models\": [{\"name\": \"small\", \"version\": 1, \"path\": \"%s/tests/golden/vit-hf\"},"
             "{\"name\": \"spare\", \"path\": \"%s/tests/golden/vit-timm-gap\"},"
             "{\"name\": \"lazy\", \"path\": \"%s/tests/golden/vit-timm\", \"lazy\": true},"
             "{\"name\": \"words\", \"path\": \"%s\"}],"
             "\"access\": {\"keys\": \"%s\", \"admin\": true}, \"cache\": {\"max_bytes\": 1000000},"
             "\"limits\": {\"max_body_bytes\": %d}}",
             here, here, here, live.words, live.keys, MAX_BODY);
    live.daemon = daemon_start(config, NULL);
    return live;
}

static void stop_live(struct live *live)
{
    daemon_stop(&live->daemon);
    cJSON_Delete(live->document);
    unlink(live->keys);
    rmdir(live->folder);
    folder_remove(live->words);
}

/* What is of HTTP itself, and of every reply. */
static bool is_common_header(const char *name)
{
    static const char *const names[] = {"Date", "Content-Type", "Content-Length", "Connection", "Cache-Control",
                                        "X-Content-Type-Options", "Content-Security-Policy"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static void check_headers(const char *what, const cJSON *response, const struct reply *reply, char type[64])
{
    for (const char *line = strstr(reply->headers, "\r\n") + 2; *line && *line != '\r'; line = strstr(line, "\r\n") + 2) {
        char name[64] = "";
        sscanf(line, "%63[^:]", name);
        if (strcasecmp(name, "Content-Type") == 0)
            sscanf(line, "%*[^:]: %63[^;\r]", type);
        ck_assert_msg(is_common_header(name) || member(member(response, "headers"), name), "%s: the header %s is not described",
                      what, name);
    }
}

/* Asserts that the reply has that status, and is as the route's description says. */
static void check_reply(const struct live *live, const struct route *route, const struct reply *reply, long status)
{
    char what[100], key[16], type[64] = "";
    struct schema_error error;
    snprintf(what, sizeof what, "%s %s: %ld", route->method, route->path, reply->status);
    ck_assert_msg(reply->curl == CURLE_OK && reply->status == status, "%s, not %ld: %.300s", what, status, reply->body);
    snprintf(key, sizeof key, "%ld", status);
    const cJSON *response =
        schema_follow(live->document, member(member(operation_of(live->document, route), "responses"), key));
    ck_assert_msg(response != NULL, "%s is not described", what);
    check_headers(what, response, reply, type);
    const cJSON *content = member(member(response, "content"), type);
    ck_assert_msg(content != NULL, "%s: %s is not described", what, type);
    if (strcmp(type, "application/json") == 0) {
        cJSON *json = reply_json(reply);
        ck_assert_msg(schema_check(live->document, member(content, "schema"), json, &error), "%s: %s", what, error.message);
        cJSON_Delete(json);
    }
}

/* Two pixels by two: small enough to be read here. */
static const char v2_body[] = "{\"id\":\"7\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[1,2,2,3],"
                              "\"data\":[1,2,3,4,5,6,7,8,9,10,11,12]}]}";
static const char v2_classes[] =
    "{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[2,2,3],\"data\":[1,2,3,4,5,6,7,8,9,10,11,12]}],"
    "\"outputs\":[{\"name\":\"logits\",\"parameters\":{\"classification\":2}},{\"name\":\"embedding\","
    "\"parameters\":{\"binary_data\":true}}],\"parameters\":{\"priority\":2,\"timeout\":20000000}}";
/* A picture of one pixel. */
#define DOT "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
static const char hf_body[] = "{\"inputs\":\"" DOT "\",\"parameters\":{\"top_k\":3,\"function_to_apply\":\"sigmoid\"}}";
static const char words_body[] = "{\"image\":\"" DOT "\",\"labels\":[\"a cat\",\"a dog, or two\"],\"template\":\"a photo of {}\"}";
static const char words_bodies[] = "{\"image\":[\"" DOT "\",\"" DOT "\"],\"labels\":[\"cat\"],\"target\":\"dog\"}";
static const char text_to_embed[] = "{\"text\":\"a cat\"}";
static const char texts_to_embed[] = "{\"text\":[\"a cat\",\"a dog\"]}";

struct body {
    const void *bytes;
    size_t length;
    const char *type;
};

static const struct body nothing = {NULL, 0, NULL};

static struct body text_body(const char *text)
{
    return (struct body){text, strlen(text), "application/json"};
}

/* The path with names of models in it. */
static void fill_path(char path[200], const struct route *route, const char *name)
{
    size_t length = 0;
    for (const char *c = route->path; *c; c++) {
        if (*c != '{') {
            path[length++] = *c;
            continue;
        }
        length += (size_t)sprintf(path + length, "%s", strncmp(c, "{name}", 6) == 0 ? name : "1");
        c = strchr(c, '}');
    }
    path[length] = '\0';
}

static struct reply ask(const struct live *live, const struct route *route, const char *name, struct body body,
                        const char *header)
{
    char path[200];
    fill_path(path, route, name);
    return daemon_request(&live->daemon, route->method, path, body.type, body.bytes, body.length, header);
}

static void expect(const struct live *live, const struct route *route, const char *name, struct body body, const char *header,
                   long status)
{
    struct reply reply = ask(live, route, name, body, header);
    check_reply(live, route, &reply, status);
    reply_free(&reply);
}

static const struct route *find(const char *path)
{
    size_t count;
    const struct route *route = routes_table(&count), *end = route + count;
    while (route < end && strcmp(route->path, path) != 0)
        route++;
    ck_assert_msg(route < end, "%s", path);
    return route;
}

/* Every route, really asked, answers as described, and refuses as described. */
START_TEST(test_routes_answer_as_described)
{
    struct live live = start_live();
    size_t count, length;
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length), *large = calloc(1, MAX_BODY + 1);
    const struct body image = {picture, length, "image/png"}, nonsense = {"nonsense", 8, "image/png"};
    const struct route *routes = routes_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct route *route = &routes[i];
        const bool v2 = route->parse == parse_v2_infer, unloads = route->handle == handle_unload;
        const struct body body = v2 ? text_body(v2_body) : route->takes_images ? image : nothing;
        expect(&live, route, unloads ? "spare" : "small", body, ADMIN, 200);
        expect(&live, route, "small", body, ADMIN "\r\nX-Request-Timeout-Ms: 0", 400);
        if (route->role != ROLE_OPEN) {
            expect(&live, route, "small", body, "Authorization: Bearer guessed", 401);
            expect(&live, route, "small", body, route->role == ROLE_INFER ? METRICS : INFER, 403);
        }
        if (strchr(route->path, '{'))
            expect(&live, route, "none", body, ADMIN, 404);
        if (!route->takes_images)
            continue;
        expect(&live, route, "small", nonsense, v2 ? INFER "\r\nInference-Header-Content-Length: 0" : INFER, 415);
        expect(&live, route, "small", nothing, INFER, 411);
        expect(&live, route, "small", (struct body){"", 0, NULL}, INFER, 400);
        expect(&live, route, "small", (struct body){large, MAX_BODY + 1, NULL}, INFER, 413);
    }
    free(large);
    free(picture);
    stop_live(&live);
}
END_TEST

START_TEST(test_answers_in_other_shapes)
{
    static const char *const classify[] = {"?attention=raw&layer=all&head=all", "?attention=rollout", "?attention=legrad",
                                           "?attention=legrad&target=1,2&layers=2&top_k=0"};
    struct live live = start_live();
    size_t length;
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length);
    const struct body image = {picture, length, "image/png"};
    for (size_t i = 0; i < sizeof classify / sizeof classify[0]; i++) {
        char path[100];
        snprintf(path, sizeof path, "/classify%s", classify[i]);
        struct reply reply = daemon_request(&live.daemon, "POST", path, NULL, picture, length, INFER);
        check_reply(&live, find("/classify"), &reply, 200);
        ck_assert_ptr_nonnull(strstr(reply.body, "\"attention\":{"));
        reply_free(&reply);
    }
    expect(&live, find("/explain"), "", image, INFER "\r\nAccept: application/json", 200);
    expect(&live, find("/attention-distance"), "", image, INFER "\r\nAccept: image/png", 200);
    expect(&live, find("/classify"), "", image, INFER "\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           200);
    const char form[] = "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\nbad\r\n"
                        "--x\r\nContent-Disposition: form-data; name=\"b\"; filename=\"b\"\r\n\r\nworse\r\n--x--\r\n";
    expect(&live, find("/embed"), "", (struct body){form, sizeof form - 1, "multipart/form-data; boundary=x"}, INFER, 200);
    expect(&live, find("/hf/{name}"), "small", text_body(hf_body), INFER, 200);
    expect(&live, find("/v2/models/{name}/infer"), "small", text_body(v2_classes), INFER, 200);
    expect(&live, find("/v2/models/{name}/infer"), "small", image, INFER "\r\nInference-Header-Content-Length: 0", 200);
    free(picture);

    expect(&live, find("/models/{name}"), "lazy", nothing, INFER, 200);
    expect(&live, find("/v2/models/{name}/ready"), "lazy", nothing, NULL, 200);
    expect(&live, find("/models/{name}/unload"), "small", nothing, ADMIN, 200);
    expect(&live, find("/models"), "", nothing, INFER, 200);
    expect(&live, find("/v2/repository/index"), "", nothing, INFER, 200);
    expect(&live, find("/v2/models/{name}/ready"), "small", nothing, NULL, 503);
    expect(&live, find("/hf/{name}"), "small", text_body(hf_body), INFER, 503);
    expect(&live, find("/predictions/{name}"), "small", text_body("x"), INFER, 503);
    stop_live(&live);
}
END_TEST

static void expect_words(const struct live *live, const char *path, const char *query, struct body body, const char *accept,
                         long status)
{
    char full[200], headers[200];
    snprintf(full, sizeof full, "%s?model=words%s", path, query);
    snprintf(headers, sizeof headers, INFER "\r\nAccept: %s", accept);
    struct reply reply =
        daemon_request(&live->daemon, "POST", full, body.type, body.bytes, body.length, headers);
    check_reply(live, find(path), &reply, status);
    reply_free(&reply);
}

START_TEST(test_answers_in_words)
{
    struct live live = start_live();
    size_t length;
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length);
    const struct body image = {picture, length, "image/png"};
    const char *json = "application/json";
    expect_words(&live, "/classify", "&labels=cat,dog&template=a+{}", image, json, 200);
    expect_words(&live, "/classify", "&labels=cat,dog&attention=legrad", image, json, 200);
    expect_words(&live, "/classify", "&labels=cat&attention=legrad&target=dog", image, json, 200);
    expect_words(&live, "/classify", "", text_body(words_body), json, 200);
    expect_words(&live, "/classify", "&attention=legrad", text_body(words_bodies), json, 200);
    expect_words(&live, "/explain", "&target=cat,dog", image, json, 200);
    expect_words(&live, "/explain", "&target=cat,dog", image, "image/png", 200);
    expect_words(&live, "/embed", "", text_body(text_to_embed), json, 200);
    expect_words(&live, "/embed", "", text_body(texts_to_embed), json, 200);
    expect_words(&live, "/embed", "", image, json, 200);
    expect_words(&live, "/attention-distance", "", image, json, 200);
    expect_words(&live, "/classify", "", image, json, 400);
    expect_words(&live, "/explain", "", image, json, 400);
    expect_words(&live, "/classify", "&labels=cat,", image, json, 400);
    expect(&live, find("/models/{name}"), "words", nothing, INFER, 200);
    expect(&live, find("/hf/{name}"), "words", image, INFER, 400);
    expect(&live, find("/v2/models/{name}"), "words", nothing, INFER, 200);
    expect(&live, find("/v2/models/{name}/infer"), "words", text_body(v2_classes), INFER, 400);
    free(picture);
    stop_live(&live);
}
END_TEST

/* Messages name a route as a whole, and are whole. */
START_TEST(test_wrong_routes)
{
    struct live live = start_live();
    struct reply reply = daemon_get(&live.daemon, "/nothing");
    reply_assert_error(&reply, 404, "route_not_found");
    ck_assert_ptr_nonnull(strstr(reply.body, "there is no /nothing here; GET /openapi.json says what there is\"}}"));
    reply_free(&reply);
    reply = daemon_request(&live.daemon, "DELETE", "/v2/models/small/versions/1/stats", NULL, NULL, 0, NULL);
    ck_assert_int_eq(reply.status, 405);
    ck_assert_str_eq(reply.body, "{\"error\":\"/v2/models/{name}/versions/{version}/stats takes GET, HEAD, not DELETE\"}");
    reply_free(&reply);
    stop_live(&live);
}
END_TEST

/* What the tests send is as described, too. */
START_TEST(test_bodies_are_described)
{
    cJSON *document = open_document();
    static const struct {
        const char *schema, *body;
    } cases[] = {{"V2Request", v2_body}, {"V2Request", v2_classes}, {"HfRequest", hf_body}, {"ImageRequest", words_body},
                 {"ImageRequest", words_bodies}, {"TextRequest", text_to_embed}, {"TextRequest", texts_to_embed}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct schema_error error;
        cJSON *json = cJSON_Parse(cases[i].body);
        ck_assert_msg(schema_check(document, component(document, "schemas", cases[i].schema), json, &error), "%s: %s",
                      cases[i].schema, error.message);
        cJSON_Delete(json);
    }
    cJSON_Delete(document);
}
END_TEST

/* The checker itself finds what it is for. */
START_TEST(test_checker)
{
    static const char schemas[] =
        "{\"a\": {\"type\": \"object\", \"required\": [\"n\"], \"properties\": {\"n\": {\"type\": \"integer\"}, \"list\": "
        "{\"type\": \"array\", \"items\": {\"$ref\": \"#/b\"}, \"maxItems\": 2}}}, \"b\": {\"oneOf\": [{\"type\": \"number\"}, "
        "{\"type\": \"string\", \"enum\": [\"all\"]}]}}";
    static const struct {
        const char *value, *said; /* NULL: it fits */
    } cases[] = {{"{\"n\": 1}", NULL}, {"{\"n\": 1, \"list\": [2.5, \"all\"]}", NULL}, {"[]", "the whole: is no object"},
                 {"{\"list\": []}", "the whole: lacks n"}, {"{\"n\": 1.5}", "n: is no integer"},
                 {"{\"n\": 1, \"m\": 1}", "the whole: has m"}, {"{\"n\": 1, \"list\": [1, \"some\"]}", "list[1]: found some"},
                 {"{\"n\": 1, \"list\": [1, 2, 3]}", "list: found 3 items"}};
    cJSON *document = cJSON_Parse(schemas);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct schema_error error = {""};
        cJSON *value = cJSON_Parse(cases[i].value);
        const bool fits = schema_check(document, member(document, "a"), value, &error);
        ck_assert_msg(fits == !cases[i].said, "%s: %s", cases[i].value, error.message);
        if (!fits)
            ck_assert_msg(strncmp(error.message, cases[i].said, strlen(cases[i].said)) == 0, "%s: %s", cases[i].value,
                          error.message);
        cJSON_Delete(value);
    }
    cJSON_Delete(document);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_references, test_every_route_is_described, test_error_codes_are_those_of_the_sources, test_bodies_are_described,
        test_checker, test_routes_answer_as_described, test_answers_in_other_shapes,
        test_answers_in_words, test_wrong_routes,
    };
    Suite *suite = suite_create("openapi.json");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}

/*
 * config_file.c - reads the configuration file: comments out, cJSON in, then every value goes through config_set(),
 * as written in the file, so that one table judges it. cJSON knows no lines; json_lines.h finds them again.
 */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/json_lines.h"
#include "server/small_file.h"

enum { MAX_DEPTH = 4, KEY_BYTES = 128 };

struct loader {
    const char *path;
    char *text;            /* comments blanked */
    struct config *config; /* being filled */
    struct config_error *error;
    size_t position[MAX_DEPTH]; /* where the walk is, for json_locate() */
    size_t depth;
};

/* "FILE:LINE: KEY: ..." for the member or element where the walk is. */
static bool fail(const struct loader *loader, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool fail(const struct loader *loader, const char *key, const char *format, ...)
{
    char *message = loader->error->message;
    const size_t size = sizeof loader->error->message;
    struct json_place place = json_locate(loader->text, loader->position, loader->depth);
    const size_t line = json_line(loader->text, place.start);
    size_t length = (size_t)snprintf(message, size / 2, "%s:%zu: ", loader->path, line);
    if (length >= size / 2)
        length = size / 2 - 1;
    if (*key != '\0')
        length += (size_t)snprintf(message + length, size / 4, "%.100s: ", key);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + length, size - length, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- text ---- */

static bool fail_file(struct config_error *error, const char *path, const char *what)
{
    snprintf(error->message, sizeof error->message, "%.300s: %s", path, what);
    return false;
}

static bool fail_line(const struct loader *loader, const char *at, const char *what)
{
    snprintf(loader->error->message, sizeof loader->error->message, "%.300s:%zu: %s", loader->path,
             json_line(loader->text, at), what);
    return false;
}

static bool fail_syntax(const struct loader *loader, const char *at)
{
    char what[160];
    if (at > loader->text && (at[-1] == '}' || at[-1] == ']'))
        at--; /* where a member was expected, cJSON points behind what it found */
    while (*at != '\0' && (unsigned char)*at <= ' ')
        at++;
    const int length = (int)strcspn(at, " \t\r\n");
    const char *before = at;
    while (before > loader->text && (unsigned char)before[-1] <= ' ')
        before--;
    if (*at == '\0')
        snprintf(what, sizeof what, "found the end of the file, allowed is the rest of a JSON object");
    else if ((*at == '}' || *at == ']') && before > loader->text && before[-1] == ',')
        snprintf(what, sizeof what, "found a comma before %c, allowed is none", *at);
    else
        snprintf(what, sizeof what, "found %.*s, allowed is JSON (and comments)", length < 40 ? length : 40, at);
    return fail_line(loader, at, what);
}

static cJSON *parse(const struct loader *loader, size_t length)
{
    const char *at = loader->text;
    if (strlen(loader->text) != length) {
        fail_line(loader, loader->text + strlen(loader->text), "found a zero byte, allowed is text");
        return NULL;
    }
    if (!json_blank_comments(loader->text, &at)) {
        fail_line(loader, at, "found a comment without an end, allowed is /* ... */");
        return NULL;
    }
    /* cJSON would end the string there: "port\u0000x" would pass for "port" */
    if ((at = strstr(loader->text, "\\u0000")) != NULL) {
        fail_line(loader, at, "found \\u0000, allowed is any other character");
        return NULL;
    }
    cJSON *root = cJSON_ParseWithLengthOpts(loader->text, length + 1, &at, 1);
    if (root == NULL)
        fail_syntax(loader, at != NULL ? at : loader->text);
    return root;
}

/* ---- values ---- */

/* The value where the walk is, in the file's own words. */
static const char *found(const struct loader *loader, const cJSON *value, char text[64])
{
    if (cJSON_IsObject(value) || cJSON_IsArray(value))
        return cJSON_IsObject(value) ? "an object" : "a list";
    struct json_place place = json_locate(loader->text, loader->position, loader->depth);
    const int length = place.length < 40 ? (int)place.length : 40;
    snprintf(text, 64, "%.*s%s%s", length, place.value, place.length > 40 ? "..." : "",
             cJSON_IsString(value) ? " (a string)" : "");
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7F)
            *p = '?';
    return text;
}

/* Relative paths are taken from the configuration file's folder. To be freed. */
static char *absolute_path(const struct loader *loader, const char *path)
{
    char *joined = NULL;
    const char *slash = strrchr(loader->path, '/');
    if (*path == '/' || *path == '\0' || slash == NULL)
        return strdup(path);
    return asprintf(&joined, "%.*s/%s", (int)(slash - loader->path), loader->path, path) < 0 ? NULL : joined;
}

/* A list of texts as one with line feeds between them, to be freed; NULL: it is no such list. */
static char *join_texts(const cJSON *list)
{
    size_t length = 1;
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item) || *item->valuestring == '\0' || strpbrk(item->valuestring, "\r\n") != NULL)
            return NULL;
        length += strlen(item->valuestring) + 1;
    }
    char *text = calloc(1, length), *end = text;
    for (const cJSON *item = list->child; text != NULL && item != NULL; item = item->next)
        end = stpcpy(end == text ? end : stpcpy(end, "\n"), item->valuestring);
    return text;
}

/* The value as config_set() takes it, to be freed; NULL where it is of another type. */
static char *as_text(const struct loader *loader, const cJSON *value, enum config_type type)
{
    char text[64];
    switch (type) {
    case CONFIG_NUMBER:
        return cJSON_IsNumber(value) ? strdup(found(loader, value, text)) : NULL;
    case CONFIG_BOOLEAN:
        return cJSON_IsBool(value) ? strdup(cJSON_IsTrue(value) ? "true" : "false") : NULL;
    case CONFIG_LIST:
        return cJSON_IsArray(value) ? join_texts(value) : NULL;
    case CONFIG_PATH:
        return cJSON_IsString(value) ? absolute_path(loader, value->valuestring) : NULL;
    case CONFIG_STRING:
        break;
    }
    return cJSON_IsString(value) ? strdup(value->valuestring) : NULL;
}

/* The value of a key where the walk is, for the configuration or, unless NULL, for a model. */
static bool load_scalar(const struct loader *loader, const char *name, const struct config_key *key, const cJSON *value,
                        struct config_model *model)
{
    char text[64];
    struct config_error error = {""};
    char *written = as_text(loader, value, key->type);
    if (written == NULL)
        return fail(loader, name, "found %s, allowed is %s", found(loader, value, text), key->allowed);
    const bool set = model != NULL ? config_model_set(model, key->name, written, &error)
                                   : config_set(loader->config, key->name, written, &error);
    free(written);
    return set || fail(loader, name, "%s", error.message);
}

static bool find_model_key(const char *name, struct config_key *key)
{
    for (size_t i = 0; config_describe_model(i, key); i++)
        if (strcmp(key->name, name) == 0)
            return true;
    return false;
}

static bool is_first_of_its_name(const cJSON *object, const cJSON *member)
{
    for (const cJSON *other = object->child; other != member; other = other->next)
        if (strcmp(other->string, member->string) == 0)
            return false;
    return true;
}

static bool fail_model_key(const struct loader *loader, const char *prefix, const char *name)
{
    char list[256] = "";
    size_t length = 0;
    struct config_key key;
    for (size_t i = 0; config_describe_model(i, &key); i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", i > 0 ? ", " : "", key.name);
    return fail(loader, prefix, "found the key \"%.60s\", allowed is %s", name, list);
}

static bool read_model(struct loader *loader, const char *prefix, const cJSON *object, struct config_model *model)
{
    char name[KEY_BYTES];
    struct config_key key;
    size_t *position = &loader->position[loader->depth++];
    *position = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next, (*position)++) {
        snprintf(name, sizeof name, "%.60s.%.60s", prefix, member->string);
        if (!find_model_key(member->string, &key))
            return fail_model_key(loader, prefix, member->string);
        if (!is_first_of_its_name(object, member))
            return fail(loader, name, "found a second time, allowed is once");
        if (!load_scalar(loader, name, &key, member, model))
            return false;
    }
    loader->depth--;
    return cJSON_HasObjectItem(object, "path") ||
           fail(loader, prefix, "found no path, allowed is a model folder in \"path\"");
}

static bool load_model(struct loader *loader, const char *prefix, const cJSON *object)
{
    struct config_model model;
    struct config_error error = {""};
    char text[64];
    if (!cJSON_IsObject(object))
        return fail(loader, prefix, "found %s, allowed is an object with the folder in \"path\"",
                    found(loader, object, text));
    config_model_init(&model, loader->config);
    bool added = read_model(loader, prefix, object, &model);
    if (added)
        added = config_append_model(loader->config, &model, &error) || fail(loader, prefix, "%s", error.message);
    config_model_release(&model);
    return added;
}

/* The walk is at the key "models". */
static bool load_models(struct loader *loader, const cJSON *list)
{
    char key[KEY_BYTES], text[64];
    if (!cJSON_IsArray(list))
        return fail(loader, "models", "found %s, allowed is a list", found(loader, list, text));
    config_clear_models(loader->config);
    size_t *position = &loader->position[loader->depth++];
    *position = 0;
    for (const cJSON *model = list->child; model != NULL; model = model->next, (*position)++) {
        snprintf(key, sizeof key, "models[%zu]", *position);
        if (!load_model(loader, key, model))
            return false;
    }
    loader->depth--;
    return true;
}

/* ---- the tree ---- */

static bool find_key(const struct config *config, const char *name, struct config_key *key)
{
    for (size_t i = 0; config_describe(config, i, key); i++)
        if (strcmp(key->name, name) == 0)
            return true;
    return false;
}

/* The names that may follow prefix ("" or "listen."), as the error of an unknown key lists them. */
static void list_names(const struct config *config, const char *prefix, char *list, size_t size)
{
    struct config_key key;
    size_t length = (size_t)snprintf(list, size, "%s", *prefix == '\0' ? "models" : "");
    for (size_t i = 0; config_describe(config, i, &key); i++) {
        if (strncmp(key.name, prefix, strlen(prefix)) != 0)
            continue;
        const char *name = key.name + strlen(prefix);
        const size_t part = strcspn(name, ".");
        if (length >= part && strncmp(list + length - part, name, part) == 0)
            continue; /* a section's next key */
        length += (size_t)snprintf(list + length, size - length, "%s%.*s", length > 0 ? ", " : "", (int)part,
                                   name);
    }
}

static bool is_section(const struct config *config, const char *name)
{
    struct config_key key;
    const size_t length = strlen(name);
    for (size_t i = 0; config_describe(config, i, &key); i++)
        if (strncmp(key.name, name, length) == 0 && key.name[length] == '.')
            return true;
    return false;
}

static bool load_object(struct loader *loader, const char *prefix, const cJSON *object);

static bool load_member(struct loader *loader, const char *prefix, const cJSON *object, const cJSON *member)
{
    char name[KEY_BYTES], text[256];
    struct config_key key;
    const bool fits = snprintf(name, sizeof name, "%s%s", prefix, member->string) < KEY_BYTES;
    const bool dotted = strchr(member->string, '.') != NULL; /* "listen.port" is {"listen": {"port"}} */
    const bool top = *prefix == '\0', is_models = top && strcmp(name, "models") == 0;
    const bool section = top && !dotted && is_section(loader->config, name);
    const bool scalar = fits && !dotted && find_key(loader->config, name, &key);
    if (!is_models && !section && !scalar) {
        list_names(loader->config, prefix, text, sizeof text);
        return fail(loader, name, "found an unknown key, allowed is %s", text);
    }
    if (!is_first_of_its_name(object, member))
        return fail(loader, name, "found a second time, allowed is once");
    if (scalar)
        return load_scalar(loader, key.name, &key, member, NULL);
    if (is_models)
        return true; /* read last: a model without a dtype takes the file's, wherever that stands */
    if (!cJSON_IsObject(member))
        return fail(loader, name, "found %s, allowed is an object", found(loader, member, text));
    strcat(name, ".");
    return load_object(loader, name, member);
}

static bool load_object(struct loader *loader, const char *prefix, const cJSON *object)
{
    size_t *position = &loader->position[loader->depth++];
    *position = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next, (*position)++)
        if (!load_member(loader, prefix, object, member))
            return false;
    loader->depth--;
    return true;
}

static bool load_root(struct loader *loader, const cJSON *root)
{
    if (!cJSON_IsObject(root))
        return fail(loader, "", "found no object, allowed is {...}");
    if (!load_object(loader, "", root))
        return false;
    loader->depth = 1;
    loader->position[0] = 0;
    for (const cJSON *member = root->child; member != NULL; member = member->next, loader->position[0]++)
        if (strcmp(member->string, "models") == 0)
            return load_models(loader, member);
    return true;
}

/* What a browser could send. */
static bool check_origins(const char *origins, const char *path, struct config_error *error)
{
    char text[200];
    while (*origins != '\0') {
        const int length = (int)strcspn(origins, "\n");
        const char *scheme = strstr(origins, "://");
        const bool named = scheme != NULL && scheme < origins + length &&
                           strcspn(scheme + 3, "/ \n") == strcspn(scheme + 3, "\n");
        if (!named && !(length == 1 && *origins == '*')) {
            snprintf(text, sizeof text,
                     "access.cors_origins: found %.*s, allowed is * or an origin such as https://example.org",
                     length < 80 ? length : 80, origins);
            return fail_file(error, path, text);
        }
        origins += length + (origins[length] != '\0');
    }
    return true;
}

/* Keys that only make sense together. */
static bool check_whole(const struct config *config, const char *path, struct config_error *error)
{
    if ((*config->tls.certificate == '\0') != (*config->tls.key == '\0'))
        return fail_file(error, path, "tls: found one of certificate and key, allowed is both or none");
    if (config->access.admin && *config->access.keys == '\0')
        return fail_file(error, path, "access.admin: found true without access.keys, allowed is true with a file of keys");
    char text[160];
    snprintf(text, sizeof text, "batching.max_queue_bytes: found %lld, allowed is limits.max_body_bytes, %d, or more",
             config->batching.max_queue_bytes, config->limits.max_body_bytes);
    if (config->batching.max_queue_bytes < config->limits.max_body_bytes)
        return fail_file(error, path, text);
    return check_origins(config->access.cors_origins, path, error);
}

bool config_load(struct config *config, const char *path, struct config_error *error)
{
    size_t length;
    const char *why;
    struct config next;
    struct loader loader = {.path = path, .config = &next, .error = error};
    loader.text = small_file_read(path, &length, NULL, &why);
    if (loader.text == NULL)
        return fail_file(error, path, why);
    config_copy(&next, config);
    cJSON *root = parse(&loader, length);
    bool loaded = root != NULL && load_root(&loader, root) && check_whole(&next, path, error);
    cJSON_Delete(root);
    free(loader.text);
    if (loaded) {
        config_release(config);
        *config = next;
    } else {
        config_release(&next);
    }
    return loaded;
}

/* config.c - the table of keys, and everything that reads or writes a value through it. */
#include "server/config.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_INT, KIND_ENUM, KIND_ADDRESS };

struct row {
    const char *key;
    enum kind kind;
    size_t offset; /* in struct config: of an int, or of the char * of an address */
    int min, max;  /* KIND_INT */
    const char *const *names; /* KIND_ENUM: in the enum's order, NULL-terminated */
    const char *initial;
};

static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};
static const char *const boolean_names[] = {"false", "true", NULL};
static const char *const dtype_names[] = {"fp32", "bf16", "int8", "auto", NULL};

#define INT(key, field, min, max, initial) \
    {key, KIND_INT, offsetof(struct config, field), min, max, NULL, initial}
#define ENUM(key, field, names, initial) \
    {key, KIND_ENUM, offsetof(struct config, field), 0, 0, names, initial}
#define ADDRESS(key, field, initial) \
    {key, KIND_ADDRESS, offsetof(struct config, field), 0, 0, NULL, initial}

static const struct row table[] = {
    ADDRESS("listen.address", listen.address, "127.0.0.1"),
    INT("listen.port", listen.port, 0, 65535, "8080"),
    INT("threads", threads, 0, 1024, "0"),
    ENUM("dtype", dtype, dtype_names, "fp32"),
    INT("image_size", image_size, 0, 16384, "0"),
    ENUM("draft", draft, boolean_names, "false"),
    INT("batching.max_batch_size", batching.max_batch_size, 1, 256, "8"),
    INT("batching.max_queue_delay_us", batching.max_queue_delay_us, 0, 1000000, "5000"),
    INT("batching.max_queue_size", batching.max_queue_size, 1, 65536, "256"),
    INT("batching.request_timeout_ms", batching.request_timeout_ms, 1, 600000, "30000"),
    INT("limits.max_body_bytes", limits.max_body_bytes, 1024, 1073741824, "16777216"),
    INT("limits.max_pixels", limits.max_pixels, 1, 268435456, "50000000"),
    INT("limits.max_connections", limits.max_connections, 1, 65536, "1024"),
    INT("limits.max_images_per_request", limits.max_images_per_request, 1, 1024, "32"),
    INT("limits.header_timeout_ms", limits.header_timeout_ms, 10, 600000, "15000"),
    INT("limits.body_timeout_ms", limits.body_timeout_ms, 10, 600000, "30000"),
    ENUM("log.level", log.level, level_names, "info"),
    ENUM("log.format", log.format, format_names, "text"),
};
enum { ROWS = sizeof table / sizeof table[0] };

static bool fail(struct config_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct config_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return false;
}

/* Only the start of the program allocates here, and it can do nothing without its configuration. */
static void *or_exit(void *memory)
{
    if (memory == NULL) {
        fputs("vitd: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* ---- scalar keys ---- */

static int *int_at(struct config *config, const struct row *row)
{
    return (int *)((char *)config + row->offset);
}

static char **string_at(struct config *config, const struct row *row)
{
    return (char **)((char *)config + row->offset);
}

static void describe_allowed(const struct row *row, char *text, size_t size)
{
    if (row->kind == KIND_INT) {
        snprintf(text, size, "%d to %d", row->min, row->max);
    } else if (row->kind == KIND_ADDRESS) {
        snprintf(text, size, "a numeric IPv4 or IPv6 address");
    } else {
        size_t length = 0;
        text[0] = '\0';
        for (size_t i = 0; row->names[i] != NULL && length < size; i++)
            length += (size_t)snprintf(text + length, size - length, "%s%s", i > 0 ? ", " : "", row->names[i]);
    }
}

static bool refuse(const struct row *row, const char *value, struct config_error *error)
{
    char allowed[80];
    describe_allowed(row, allowed, sizeof allowed);
    return fail(error, "found %.100s, allowed is %s", *value == '\0' ? "\"\"" : value, allowed);
}

/* Decimal, in JSON's spelling of a whole number. */
static bool parse_int(const char *text, int min, int max, int *number)
{
    const char *digits = *text == '-' ? text + 1 : text;
    const size_t length = strlen(digits);
    if (length == 0 || length > 10 || strspn(digits, "0123456789") != length || (*digits == '0' && length > 1))
        return false;
    long long parsed = strtoll(text, NULL, 10);
    if (parsed < min || parsed > max)
        return false;
    *number = (int)parsed;
    return true;
}

static int find_name(const char *const *names, const char *name)
{
    for (int i = 0; names != NULL && names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static bool set_int(int *field, const struct row *row, const char *value, struct config_error *error)
{
    return parse_int(value, row->min, row->max, field) || refuse(row, value, error);
}

static bool set_enum(int *field, const struct row *row, const char *value, struct config_error *error)
{
    const int index = find_name(row->names, value);
    if (index >= 0) {
        *field = index;
        return true;
    }
    return refuse(row, value, error);
}

static bool set_address(char **field, const struct row *row, const char *value, struct config_error *error)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, value, bytes) != 1 && inet_pton(AF_INET6, value, bytes) != 1)
        return refuse(row, value, error);
    free(*field);
    *field = or_exit(strdup(value));
    return true;
}

static bool set_row(struct config *config, const struct row *row, const char *value, struct config_error *error)
{
    switch (row->kind) {
    case KIND_INT:
        return set_int(int_at(config, row), row, value, error);
    case KIND_ENUM:
        return set_enum(int_at(config, row), row, value, error);
    case KIND_ADDRESS:
        return set_address(string_at(config, row), row, value, error);
    }
    return false;
}

static const struct row *find_row(const char *key)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(table[i].key, key) == 0)
            return &table[i];
    return NULL;
}

bool config_set(struct config *config, const char *key, const char *value, struct config_error *error)
{
    const struct row *row = find_row(key);
    return row != NULL ? set_row(config, row, value, error) : fail(error, "there is no key %.100s", key);
}

bool config_describe(const struct config *config, size_t i, struct config_key *key)
{
    if (i >= ROWS)
        return false;
    const struct row *row = &table[i];
    struct config *readable = (struct config *)config; /* the accessors serve writers too */
    *key = (struct config_key){.name = row->key,
                               .type = row->kind == KIND_INT           ? CONFIG_NUMBER
                                       : row->names == boolean_names ? CONFIG_BOOLEAN
                                                                     : CONFIG_STRING};
    describe_allowed(row, key->allowed, sizeof key->allowed);
    if (row->kind == KIND_INT)
        snprintf(key->value, sizeof key->value, "%d", *int_at(readable, row));
    else if (row->kind == KIND_ENUM)
        snprintf(key->value, sizeof key->value, "%s", row->names[*int_at(readable, row)]);
    else
        snprintf(key->value, sizeof key->value, "%s", *string_at(readable, row));
    return true;
}

/* ---- models ---- */

/* Names appear in URLs, where "." and ".." mean something else. */
static bool name_is_valid(const char *name)
{
    const size_t length = strlen(name);
    return length >= 1 && length <= CONFIG_MAX_NAME && strspn(name, ".") != length &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

/* The last component of a path; of ".", "..", "/" and the like, that of the folder they stand for. */
static char *folder_name(const char *path)
{
    char resolved[PATH_MAX];
    char *copy = or_exit(strdup(path));
    for (size_t length = strlen(copy); length > 1 && copy[length - 1] == '/'; length--)
        copy[length - 1] = '\0';
    const char *last = strrchr(copy, '/') != NULL ? strrchr(copy, '/') + 1 : copy;
    if (strspn(last, ".") == strlen(last) && realpath(copy, resolved) != NULL)
        last = strrchr(resolved, '/') + 1;
    char *name = or_exit(strdup(last));
    free(copy);
    return name;
}

static bool check_name(const struct config *config, const char *name, struct config_error *error)
{
    if (!name_is_valid(name))
        return fail(error, "found the name \"%.100s\", allowed is 1 to %d of the characters A-Z a-z 0-9 . _ -", name,
                    CONFIG_MAX_NAME);
    for (size_t i = 0; i < config->model_count; i++)
        if (strcmp(config->models[i].name, name) == 0)
            return fail(error, "found the name %s twice, allowed is a name of its own for each model", name);
    return true;
}

static void append_model(struct config *config, struct config_model model)
{
    config->models =
        or_exit(realloc(config->models, (config->model_count + 1) * sizeof *config->models));
    config->models[config->model_count++] = model;
}

bool config_put_model(struct config *config, const struct config_model_text *text, struct config_error *error)
{
    const char *name = text->name, *path = text->path;
    struct config_model model = {.dtype = config->dtype, .image_size = config->image_size, .draft = config->draft};
    if (config->model_count == CONFIG_MAX_MODELS)
        return fail(error, "found more than %d models, allowed is 0 to %d", CONFIG_MAX_MODELS, CONFIG_MAX_MODELS);
    if (*path == '\0')
        return fail(error, "found an empty path, allowed is a model folder");
    struct config_error why;
    if (text->dtype != NULL && !set_enum(&model.dtype, find_row("dtype"), text->dtype, &why))
        return fail(error, "dtype: %.200s", why.message);
    if (text->draft != NULL && !set_enum(&model.draft, find_row("draft"), text->draft, &why))
        return fail(error, "draft: %.200s", why.message);
    if (text->image_size != NULL && !set_int(&model.image_size, find_row("image_size"), text->image_size, &why))
        return fail(error, "image_size: %.200s", why.message);
    model.name = name != NULL ? or_exit(strdup(name)) : folder_name(path);
    if (!check_name(config, model.name, error)) {
        free(model.name);
        return false;
    }
    model.path = or_exit(strdup(path));
    append_model(config, model);
    return true;
}

bool config_add_model(struct config *config, const char *spec, struct config_error *error)
{
    const char *equals = strchr(spec, '='), *slash = strchr(spec, '/');
    if (equals == NULL || (slash != NULL && slash < equals)) /* an '=' inside the path */
        return config_put_model(config, &(struct config_model_text){.path = spec}, error);
    char *name = or_exit(strndup(spec, (size_t)(equals - spec)));
    bool added = config_put_model(config, &(struct config_model_text){.name = name, .path = equals + 1}, error);
    free(name);
    return added;
}

void config_clear_models(struct config *config)
{
    for (size_t i = 0; i < config->model_count; i++) {
        free(config->models[i].name);
        free(config->models[i].path);
    }
    free(config->models);
    config->models = NULL;
    config->model_count = 0;
}

/* ---- the whole ---- */

void config_init(struct config *config)
{
    struct config_error error;
    *config = (struct config){0};
    for (size_t i = 0; i < ROWS; i++)
        set_row(config, &table[i], table[i].initial, &error);
}

void config_release(struct config *config)
{
    config_clear_models(config);
    for (size_t i = 0; i < ROWS; i++)
        if (table[i].kind == KIND_ADDRESS)
            free(*string_at(config, &table[i]));
    *config = (struct config){0};
}

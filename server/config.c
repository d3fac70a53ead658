/* config.c - the table of keys, and everything that reads or writes a value through it. */
#include "server/config.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_INT, KIND_BYTES, KIND_ENUM, KIND_ADDRESS, KIND_PATH, KIND_LIST, KIND_TEXT };

struct row {
    const char *key;
    enum kind kind;
    size_t offset; /* in struct config or struct config_model: of an int (INT, ENUM), a long long (BYTES) or a char * */
    long long min, max;       /* INT, BYTES */
    const char *const *names; /* ENUM: in the enum's order, NULL-terminated */
    const char *initial;      /* of a model's row: the key of the configuration that it falls back to, or a value */
    bool restart;             /* a change takes effect at the next start only */
};

static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};
static const char *const boolean_names[] = {"false", "true", NULL};
static const char *const dtype_names[] = {"fp32", "bf16", "int8", "auto", NULL};

#define AT(field) offsetof(struct config, field)
#define INT(key, field, min, max, initial) {key, KIND_INT, AT(field), min, max, NULL, initial, false}
#define BYTES(key, field, min, max, initial) {key, KIND_BYTES, AT(field), min, max, NULL, initial, false}
#define ENUM(key, field, names, initial) {key, KIND_ENUM, AT(field), 0, 0, names, initial, false}
#define STRING(key, kind, field, initial) {key, kind, AT(field), 0, 0, NULL, initial, false}
#define RESTART(key, kind, field, min, max, initial) {key, kind, AT(field), min, max, NULL, initial, true}
#define TERABYTE (1LL << 40)

static const struct row table[] = {
    RESTART("listen.address", KIND_ADDRESS, listen.address, 0, 0, "127.0.0.1"),
    RESTART("listen.port", KIND_INT, listen.port, 0, 65535, "8080"),
    RESTART("listen.socket", KIND_PATH, listen.socket, 0, 0, ""),
    RESTART("tls.certificate", KIND_PATH, tls.certificate, 0, 0, ""),
    RESTART("tls.key", KIND_PATH, tls.key, 0, 0, ""),
    RESTART("threads", KIND_INT, threads, 0, 1024, "0"),
    BYTES("model_memory_bytes", model_memory_bytes, 0, TERABYTE, "0"),
    ENUM("dtype", dtype, dtype_names, "fp32"),
    INT("image_size", image_size, 0, 16384, "0"),
    ENUM("draft", draft, boolean_names, "false"),
    INT("batching.max_batch_size", batching.max_batch_size, 1, CONFIG_MAX_BATCH, "8"),
    INT("batching.max_queue_delay_us", batching.max_queue_delay_us, 0, 1000000, "5000"),
    INT("batching.max_queue_size", batching.max_queue_size, 1, 65536, "256"),
    BYTES("batching.max_queue_bytes", batching.max_queue_bytes, 1024, TERABYTE, "268435456"),
    INT("batching.request_timeout_ms", batching.request_timeout_ms, 1, 600000, "30000"),
    INT("limits.max_body_bytes", limits.max_body_bytes, 1024, 1073741824, "16777216"),
    INT("limits.max_pixels", limits.max_pixels, 1, 268435456, "50000000"),
    RESTART("limits.max_connections", KIND_INT, limits.max_connections, 1, 65536, "4096"),
    INT("limits.max_connections_per_address", limits.max_connections_per_address, 0, 65536, "0"),
    INT("limits.max_images_per_request", limits.max_images_per_request, 1, 1024, "32"),
    INT("limits.max_texts_per_request", limits.max_texts_per_request, 1, 65536, "4096"),
    INT("limits.header_timeout_ms", limits.header_timeout_ms, 10, 600000, "15000"),
    INT("limits.body_timeout_ms", limits.body_timeout_ms, 10, 600000, "30000"),
    STRING("access.keys", KIND_PATH, access.keys, ""),
    ENUM("access.admin", access.admin, boolean_names, "false"),
    STRING("access.cors_origins", KIND_LIST, access.cors_origins, ""),
    BYTES("cache.max_bytes", cache.max_bytes, 0, TERABYTE, "0"),
    BYTES("cache.max_text_bytes", cache.max_text_bytes, 0, TERABYTE, "67108864"),
    INT("drain_delay_ms", drain_delay_ms, 0, 600000, "0"),
    INT("drain_timeout_ms", drain_timeout_ms, 0, 600000, "60000"),
    ENUM("log.level", log.level, level_names, "info"),
    ENUM("log.format", log.format, format_names, "text"),
    ENUM("log.access", log.access, boolean_names, "true"),
};
enum { ROWS = sizeof table / sizeof table[0] };

#define MODEL(key, kind, field, min, max, names, initial) \
    {key, kind, offsetof(struct config_model, field), min, max, names, initial, false}

static const struct row model_table[] = {
    MODEL("name", KIND_TEXT, name, 0, 0, NULL, NULL),
    MODEL("path", KIND_PATH, path, 0, 0, NULL, NULL),
    MODEL("version", KIND_INT, version, 1, 1000000000, NULL, NULL),
    MODEL("dtype", KIND_ENUM, dtype, 0, 0, dtype_names, "dtype"),
    MODEL("image_size", KIND_INT, image_size, 0, 16384, NULL, "image_size"),
    MODEL("draft", KIND_ENUM, draft, 0, 0, boolean_names, "draft"),
    MODEL("max_batch_size", KIND_INT, max_batch_size, 1, CONFIG_MAX_BATCH, NULL, "batching.max_batch_size"),
    MODEL("max_queue_delay_us", KIND_INT, max_queue_delay_us, 0, 1000000, NULL, "batching.max_queue_delay_us"),
    MODEL("labels", KIND_LIST, labels, 0, 0, NULL, NULL),
    MODEL("template", KIND_TEXT, template, 0, 0, NULL, NULL),
    MODEL("lazy", KIND_ENUM, lazy, 0, 0, boolean_names, NULL),
};
enum { MODEL_ROWS = sizeof model_table / sizeof model_table[0] };

static bool fail(struct config_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct config_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return false;
}

/* Only the start of the program and a reload allocate here, some hundred bytes: without those nothing else works either. */
static void *or_exit(void *memory)
{
    if (memory == NULL) {
        fputs("vitd: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* ---- scalar keys: base is a struct config or a struct config_model ---- */

static int *int_at(void *base, const struct row *row)
{
    return (int *)(void *)((char *)base + row->offset);
}

static long long *bytes_at(void *base, const struct row *row)
{
    return (long long *)(void *)((char *)base + row->offset);
}

static char **string_at(void *base, const struct row *row)
{
    return (char **)(void *)((char *)base + row->offset);
}

static bool is_string(const struct row *row)
{
    return row->kind >= KIND_ADDRESS;
}

static void describe_allowed(const struct row *row, char *text, size_t size)
{
    static const char *const strings[] = {
        [KIND_ADDRESS] = "a numeric IPv4 or IPv6 address", [KIND_PATH] = "a path", [KIND_LIST] = "a list of strings",
        [KIND_TEXT] = "a string"};
    if (row->kind == KIND_INT || row->kind == KIND_BYTES) {
        snprintf(text, size, "%lld to %lld", row->min, row->max);
    } else if (is_string(row)) {
        snprintf(text, size, "%s", strings[row->kind]);
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
static bool parse_number(const char *text, long long min, long long max, long long *number)
{
    const char *digits = *text == '-' ? text + 1 : text;
    const size_t length = strlen(digits);
    if (length == 0 || length > 15 || strspn(digits, "0123456789") != length || (*digits == '0' && length > 1))
        return false;
    *number = strtoll(text, NULL, 10);
    return *number >= min && *number <= max;
}

static int find_name(const char *const *names, const char *name)
{
    for (int i = 0; names != NULL && names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static bool set_number(void *base, const struct row *row, const char *value, struct config_error *error)
{
    long long number;
    if (!parse_number(value, row->min, row->max, &number))
        return refuse(row, value, error);
    if (row->kind == KIND_BYTES)
        *bytes_at(base, row) = number;
    else
        *int_at(base, row) = (int)number;
    return true;
}

static bool set_enum(void *base, const struct row *row, const char *value, struct config_error *error)
{
    const int index = find_name(row->names, value);
    if (index < 0)
        return refuse(row, value, error);
    *int_at(base, row) = index;
    return true;
}

static bool set_string(void *base, const struct row *row, const char *value, struct config_error *error)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    if (row->kind == KIND_ADDRESS && inet_pton(AF_INET, value, bytes) != 1 && inet_pton(AF_INET6, value, bytes) != 1)
        return refuse(row, value, error);
    char *copy = or_exit(strdup(value)); /* value may be what is there */
    free(*string_at(base, row));
    *string_at(base, row) = copy;
    return true;
}

static bool set_row(void *base, const struct row *row, const char *value, struct config_error *error)
{
    if (row->kind == KIND_INT || row->kind == KIND_BYTES)
        return set_number(base, row, value, error);
    return row->kind == KIND_ENUM ? set_enum(base, row, value, error) : set_string(base, row, value, error);
}

static void copy_row(void *to, const void *from, const struct row *row)
{
    struct config_error error = {""};
    void *readable = (void *)(uintptr_t)from; /* the accessors serve writers too */
    if (row->kind == KIND_BYTES)
        *bytes_at(to, row) = *bytes_at(readable, row);
    else if (is_string(row))
        set_string(to, row, *string_at(readable, row), &error);
    else
        *int_at(to, row) = *int_at(readable, row);
}

static void release_strings(void *base, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_string(&rows[i])) {
            free(*string_at(base, &rows[i]));
            *string_at(base, &rows[i]) = NULL;
        }
}

static const struct row *find_row(const struct row *rows, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

bool config_set(struct config *config, const char *key, const char *value, struct config_error *error)
{
    const struct row *row = find_row(table, ROWS, key);
    return row != NULL ? set_row(config, row, value, error) : fail(error, "there is no key %.100s", key);
}

static enum config_type type_of(const struct row *row)
{
    switch (row->kind) {
    case KIND_INT:
    case KIND_BYTES:
        return CONFIG_NUMBER;
    case KIND_ENUM:
        return row->names == boolean_names ? CONFIG_BOOLEAN : CONFIG_STRING;
    case KIND_PATH:
        return CONFIG_PATH;
    case KIND_LIST:
        return CONFIG_LIST;
    case KIND_ADDRESS:
    case KIND_TEXT:
        break;
    }
    return CONFIG_STRING;
}

static void describe(const struct row *row, struct config_key *key)
{
    *key = (struct config_key){.name = row->key, .type = type_of(row), .restart = row->restart};
    describe_allowed(row, key->allowed, sizeof key->allowed);
}

bool config_describe(const struct config *config, size_t i, struct config_key *key)
{
    if (i >= ROWS)
        return false;
    const struct row *row = &table[i];
    void *readable = (void *)(uintptr_t)config;
    describe(row, key);
    if (is_string(row))
        snprintf(key->value, sizeof key->value, "%s", *string_at(readable, row));
    else if (row->kind == KIND_ENUM)
        snprintf(key->value, sizeof key->value, "%s", row->names[*int_at(readable, row)]);
    else
        snprintf(key->value, sizeof key->value, "%lld",
                 row->kind == KIND_BYTES ? *bytes_at(readable, row) : *int_at(readable, row));
    return true;
}

bool config_describe_model(size_t i, struct config_key *key)
{
    if (i >= MODEL_ROWS)
        return false;
    describe(&model_table[i], key);
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

static bool check_name(const struct config *config, const struct config_model *model, struct config_error *error)
{
    const char *name = model->name;
    if (!name_is_valid(name))
        return fail(error, "found the name \"%.100s\", allowed is 1 to %d of the characters A-Z a-z 0-9 . _ -", name,
                    CONFIG_MAX_NAME);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *other = &config->models[i];
        if (strcmp(other->name, name) != 0)
            continue;
        if (other->version == model->version)
            return fail(error, "found the name %s twice, allowed is a name or a version of its own for each model", name);
        if (other->version == 0 || model->version == 0)
            return fail(error, "found the name %s with and without a version, allowed is a version for each", name);
    }
    return true;
}

void config_model_init(struct config_model *model, const struct config *config)
{
    *model = (struct config_model){0};
    for (size_t i = 0; i < MODEL_ROWS; i++) {
        const struct row *row = &model_table[i];
        const struct row *global = row->initial != NULL ? find_row(table, ROWS, row->initial) : NULL;
        if (is_string(row))
            *string_at(model, row) = or_exit(strdup(""));
        else if (global != NULL)
            *int_at(model, row) = *int_at((void *)(uintptr_t)config, global);
    }
}

bool config_model_set(struct config_model *model, const char *key, const char *value, struct config_error *error)
{
    const struct row *row = find_row(model_table, MODEL_ROWS, key);
    return row != NULL ? set_row(model, row, value, error) : fail(error, "there is no key %.100s", key);
}

void config_model_release(struct config_model *model)
{
    release_strings(model, model_table, MODEL_ROWS);
}

void config_model_copy(struct config_model *copy, const struct config_model *model)
{
    *copy = (struct config_model){0};
    for (size_t i = 0; i < MODEL_ROWS; i++)
        copy_row(copy, model, &model_table[i]);
}

bool config_model_equal(const struct config_model *a, const struct config_model *b)
{
    return strcmp(a->path, b->path) == 0 && a->version == b->version && a->dtype == b->dtype &&
           a->image_size == b->image_size && a->draft == b->draft && a->max_batch_size == b->max_batch_size &&
           a->max_queue_delay_us == b->max_queue_delay_us && a->lazy == b->lazy &&
           strcmp(a->labels, b->labels) == 0 && strcmp(a->template, b->template) == 0;
}

bool config_append_model(struct config *config, struct config_model *model, struct config_error *error)
{
    if (config->model_count == CONFIG_MAX_MODELS)
        return fail(error, "found more than %d models, allowed is 0 to %d", CONFIG_MAX_MODELS, CONFIG_MAX_MODELS);
    if (*model->path == '\0')
        return fail(error, "found an empty path, allowed is a model folder");
    if (*model->name == '\0') {
        free(model->name);
        model->name = folder_name(model->path);
    }
    if (*model->template != '\0' && strstr(model->template, "{}") == NULL)
        return fail(error, "found the template \"%.100s\", allowed is a text with {} in the label's place", model->template);
    if (!check_name(config, model, error))
        return false;
    config->models = or_exit(realloc(config->models, (config->model_count + 1) * sizeof *config->models));
    config->models[config->model_count++] = *model;
    *model = (struct config_model){0};
    return true;
}

bool config_add_model(struct config *config, const char *spec, struct config_error *error)
{
    struct config_model model;
    const char *equals = strchr(spec, '='), *slash = strchr(spec, '/');
    if (slash != NULL && equals != NULL && slash < equals) /* an '=' inside the path */
        equals = NULL;
    config_model_init(&model, config);
    if (equals != NULL) {
        free(model.name);
        model.name = or_exit(strndup(spec, (size_t)(equals - spec)));
    }
    config_model_set(&model, "path", equals != NULL ? equals + 1 : spec, error);
    const bool named = equals == NULL || *model.name != '\0' || fail(error, "found an empty name, allowed is NAME=DIR");
    const bool added = named && config_append_model(config, &model, error);
    config_model_release(&model);
    return added;
}

const struct config_model *config_default_model(const struct config *config)
{
    const struct config_model *best = &config->models[0];
    for (size_t i = 1; i < config->model_count; i++)
        if (strcmp(config->models[i].name, best->name) == 0 && config->models[i].version > best->version)
            best = &config->models[i];
    return best;
}

void config_clear_models(struct config *config)
{
    for (size_t i = 0; i < config->model_count; i++)
        config_model_release(&config->models[i]);
    free(config->models);
    config->models = NULL;
    config->model_count = 0;
}

/* ---- the whole ---- */

void config_init(struct config *config)
{
    struct config_error error = {""};
    *config = (struct config){0};
    for (size_t i = 0; i < ROWS; i++)
        set_row(config, &table[i], table[i].initial, &error);
}

void config_copy(struct config *copy, const struct config *config)
{
    *copy = (struct config){0};
    for (size_t i = 0; i < ROWS; i++)
        copy_row(copy, config, &table[i]);
    copy->models = or_exit(calloc(config->model_count + 1, sizeof *copy->models));
    for (; copy->model_count < config->model_count; copy->model_count++)
        config_model_copy(&copy->models[copy->model_count], &config->models[copy->model_count]);
}

void config_release(struct config *config)
{
    config_clear_models(config);
    release_strings(config, table, ROWS);
    *config = (struct config){0};
}

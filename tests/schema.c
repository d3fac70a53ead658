#include "tests/schema.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 200 };

/* Where the check is. */
struct check {
    const cJSON *document;
    struct schema_error *error;
    char path[PATH_BYTES];
};

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

const cJSON *schema_follow(const cJSON *document, const cJSON *node)
{
    const cJSON *reference = member(node, "$ref");
    char path[PATH_BYTES], *rest = path;
    if (!reference)
        return node;
    if (!cJSON_IsString(reference) || strncmp(reference->valuestring, "#/", 2) != 0)
        return NULL;
    snprintf(path, sizeof path, "%s", reference->valuestring + 2);
    const cJSON *target = document;
    for (char *part; target && (part = strsep(&rest, "/")) != NULL;)
        target = member(target, part);
    return target;
}

static bool fail(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct check *check, const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(check->error->message, sizeof check->error->message, "%s: %s", *check->path ? check->path : "the whole", text);
    return false;
}

static bool is_valid(struct check *check, const cJSON *schema, const cJSON *value);

/* The same one step deeper. */
static bool is_valid_at(struct check *check, const cJSON *schema, const cJSON *value, const char *step)
{
    const size_t before = strlen(check->path);
    snprintf(check->path + before, sizeof check->path - before, "%s%s", *step == '[' || !before ? "" : ".", step);
    const bool valid = is_valid(check, schema, value);
    check->path[before] = '\0';
    return valid;
}

static bool has_type(const char *type, const cJSON *value)
{
    if (strcmp(type, "integer") == 0)
        return cJSON_IsNumber(value) && floor(value->valuedouble) == value->valuedouble;
    return (strcmp(type, "object") == 0 && cJSON_IsObject(value)) || (strcmp(type, "array") == 0 && cJSON_IsArray(value)) ||
           (strcmp(type, "string") == 0 && cJSON_IsString(value)) || (strcmp(type, "number") == 0 && cJSON_IsNumber(value)) ||
           (strcmp(type, "boolean") == 0 && cJSON_IsBool(value));
}

static bool check_enum(struct check *check, const cJSON *names, const cJSON *value)
{
    const cJSON *name;
    cJSON_ArrayForEach(name, names) if (cJSON_Compare(name, value, true)) return true;
    return fail(check, "found %.100s, which the enum has not", cJSON_IsString(value) ? value->valuestring : "no string");
}

static bool check_members(struct check *check, const cJSON *schema, const cJSON *value)
{
    const cJSON *properties = member(schema, "properties"), *others = member(schema, "additionalProperties"), *item;
    const bool closed = cJSON_IsFalse(others) || (!others && properties && member(schema, "type"));
    cJSON_ArrayForEach(item, member(schema, "required")) if (!member(value, item->valuestring))
        return fail(check, "lacks %s", item->valuestring);
    cJSON_ArrayForEach(item, value) {
        const cJSON *property = member(properties, item->string);
        if (!property && closed)
            return fail(check, "has %s, which is not described", item->string);
        if (!property && cJSON_IsObject(others))
            property = others;
        if (property && !is_valid_at(check, property, item, item->string))
            return false;
    }
    return true;
}

static bool check_items(struct check *check, const cJSON *schema, const cJSON *value)
{
    const cJSON *items = member(schema, "items"), *least = member(schema, "minItems"), *most = member(schema, "maxItems");
    const int count = cJSON_GetArraySize(value);
    if ((least && count < least->valueint) || (most && count > most->valueint))
        return fail(check, "found %d items", count);
    int i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, value) {
        char step[16];
        snprintf(step, sizeof step, "[%d]", i++);
        if (items && !is_valid_at(check, items, item, step))
            return false;
    }
    return true;
}

/* Exactly one of them; the error is the last one's that was tried. */
static bool check_one_of(struct check *check, const cJSON *schemas, const cJSON *value)
{
    int valid = 0;
    const cJSON *schema;
    cJSON_ArrayForEach(schema, schemas) valid += is_valid(check, schema, value);
    return valid == 1 || (valid > 1 && fail(check, "%d of the alternatives fit", valid));
}

static bool is_valid(struct check *check, const cJSON *schema, const cJSON *value)
{
    schema = schema_follow(check->document, schema);
    if (!schema)
        return fail(check, "the schema's $ref leads nowhere");
    const cJSON *type = member(schema, "type"), *part;
    if (type && !has_type(type->valuestring, value))
        return fail(check, "is no %s", type->valuestring);
    cJSON_ArrayForEach(part, member(schema, "allOf")) if (!is_valid(check, part, value)) return false;
    if (member(schema, "oneOf") && !check_one_of(check, member(schema, "oneOf"), value))
        return false;
    if (member(schema, "enum") && !check_enum(check, member(schema, "enum"), value))
        return false;
    if (cJSON_IsObject(value))
        return check_members(check, schema, value);
    return !cJSON_IsArray(value) || check_items(check, schema, value);
}

bool schema_check(const cJSON *document, const cJSON *schema, const cJSON *value, struct schema_error *error)
{
    struct check check = {.document = document, .error = error};
    return is_valid(&check, schema, value);
}

/*
 * json.h - reading the JSON files of a model folder with cJSON, strictly.
 *
 * A missing key and a key set to null are the same, as the hubs' writers treat them. Errors name file and key.
 */
#ifndef ENGINE_STORE_JSON_H
#define ENGINE_STORE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "vit_status.h"

/* Reads a whole regular file of at most max_bytes; *text is zero-terminated and to be freed. */
vit_status file_read(char **text, size_t *length, const char *path, size_t max_bytes, vit_error *err);

/* Parses a file that must hold one JSON object and nothing after it. Free with cJSON_Delete(). */
vit_status json_load(cJSON **object, const char *path, vit_error *err);

/* The value of key, or NULL when it is missing or null. Case-sensitive. */
const cJSON *json_get(const cJSON *object, const char *key);

/* Outputs stay untouched when the key is missing; *found (may be NULL) tells. A value of another type or out of
 * range is VIT_ERR_FORMAT. */
vit_status json_size(const cJSON *object, const char *key, size_t min, size_t max, size_t *value, bool *found,
                     vit_error *err);
vit_status json_number(const cJSON *object, const char *key, double *value, bool *found, vit_error *err);
vit_status json_bool(const cJSON *object, const char *key, bool *value, bool *found, vit_error *err);
/* *value is borrowed from object. */
vit_status json_string(const cJSON *object, const char *key, const char **value, bool *found, vit_error *err);
/* An array of exactly `count` numbers. */
vit_status json_floats(const cJSON *object, const char *key, float *values, size_t count, bool *found, vit_error *err);

#endif

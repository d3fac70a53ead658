/*
 * schema.h - whether JSON is as a schema of the API's description says: as much of JSON Schema as that uses. Stricter than
 * the standard in one thing: an object has no member that its properties do not name, so that nothing is left undescribed.
 */
#ifndef TESTS_SCHEMA_H
#define TESTS_SCHEMA_H

#include <cjson/cJSON.h>
#include <stdbool.h>

struct schema_error {
    char message[512]; /* "models[0].state: is no string" */
};

/* What a node, or the node that its "$ref" leads to, is in the document; NULL: it leads nowhere. */
const cJSON *schema_follow(const cJSON *document, const cJSON *node);

bool schema_check(const cJSON *document, const cJSON *schema, const cJSON *value, struct schema_error *error);

#endif

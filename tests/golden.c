/* golden.c - see golden.h. */
#include "tests/golden.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden {
    cJSON *header;
    unsigned char *data;
    size_t length;
};

static size_t element_size(const char *dtype)
{
    static const struct {
        const char *name;
        size_t size;
    } dtypes[] = {{"U8", 1},  {"I8", 1},  {"BOOL", 1}, {"F16", 2}, {"BF16", 2},
                  {"I16", 2}, {"F32", 4}, {"I32", 4},  {"F64", 8}, {"I64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i].name) == 0)
            return dtypes[i].size;
    return 0;
}

static int read_all(struct golden *golden, FILE *file)
{
    unsigned char length[8];
    if (fseek(file, 0, SEEK_END) != 0)
        return 0;
    long total = ftell(file);
    rewind(file);
    if (total < 8 || fread(length, 1, 8, file) != 8)
        return 0;
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | length[i];
    if (header > (uint64_t)total - 8)
        return 0;
    char *text = malloc(header + 1);
    if (text != NULL && fread(text, 1, header, file) == header)
        golden->header = cJSON_ParseWithLength(text, header);
    free(text);
    golden->length = (size_t)total - 8 - header;
    golden->data = malloc(golden->length + 1);
    return golden->header != NULL && golden->data != NULL &&
           fread(golden->data, 1, golden->length, file) == golden->length;
}

struct golden *golden_open(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    struct golden *golden = calloc(1, sizeof *golden);
    if (golden != NULL && !read_all(golden, file)) {
        golden_free(golden);
        golden = NULL;
    }
    fclose(file);
    return golden;
}

const void *golden_get(struct golden *golden, const char *name, const char *dtype, size_t *count)
{
    const cJSON *tensor = cJSON_GetObjectItemCaseSensitive(golden->header, name);
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(tensor, "data_offsets");
    const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tensor, "dtype"));
    size_t size = element_size(dtype);
    if (found == NULL || strcmp(found, dtype) != 0 || size == 0 || cJSON_GetArraySize(offsets) != 2)
        return NULL;
    size_t begin = (size_t)cJSON_GetNumberValue(cJSON_GetArrayItem(offsets, 0));
    size_t end = (size_t)cJSON_GetNumberValue(cJSON_GetArrayItem(offsets, 1));
    if (begin > end || end > golden->length || begin % size != 0)
        return NULL;
    *count = (end - begin) / size;
    return golden->data + begin;
}

size_t golden_shape(struct golden *golden, const char *name, size_t *shape, size_t most)
{
    const cJSON *tensor = cJSON_GetObjectItemCaseSensitive(golden->header, name);
    const cJSON *side = NULL;
    size_t n = 0;
    cJSON_ArrayForEach(side, cJSON_GetObjectItemCaseSensitive(tensor, "shape"))
    {
        if (n < most)
            shape[n] = (size_t)side->valuedouble;
        n++;
    }
    return n;
}

const char *golden_name(struct golden *golden, size_t i)
{
    const cJSON *tensor = golden->header->child;
    while (tensor != NULL && (strcmp(tensor->string, "__metadata__") == 0 || i-- > 0))
        tensor = tensor->next;
    return tensor != NULL ? tensor->string : NULL;
}

void golden_free(struct golden *golden)
{
    if (golden == NULL)
        return;
    cJSON_Delete(golden->header);
    free(golden->data);
    free(golden);
}

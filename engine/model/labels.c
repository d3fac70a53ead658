/* labels.c - the classes' names: id2label, else label_names, else labels.txt beside the model, else the index. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/model/model.h"
#include "engine/store/json.h"

enum { LABELS_MAX_BYTES = 16 << 20 };

void labels_free(char **labels, size_t classes)
{
    for (size_t i = 0; labels != NULL && i < classes; i++)
        free(labels[i]);
    free(labels);
}

/* {"0": "goldfish", ...}; a class may be left out, a key that is no class is an error. */
static vit_status from_id2label(char **labels, const cJSON *id2label, size_t classes, vit_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, id2label) {
        char *end;
        unsigned long index = strtoul(item->string, &end, 10);
        if (end == item->string || *end != '\0' || index >= classes || !cJSON_IsString(item))
            return vit_error_set(err, VIT_ERR_FORMAT,
                                 "config.json: \"id2label\": \"%.32s\" is not one of %zu classes with a string for a label",
                                 item->string, classes);
        free(labels[index]);
        labels[index] = strdup(item->valuestring);
        if (labels[index] == NULL)
            return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the labels");
    }
    return VIT_OK;
}

static vit_status from_list(char **labels, const cJSON *names, size_t classes, vit_error *err)
{
    if (!cJSON_IsArray(names) || (size_t)cJSON_GetArraySize(names) != classes)
        return vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"label_names\" must be a list of %zu strings", classes);
    size_t i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, names) {
        if (!cJSON_IsString(item))
            return vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"label_names\" must be a list of %zu strings",
                                 classes);
        if ((labels[i++] = strdup(item->valuestring)) == NULL)
            return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the labels");
    }
    return VIT_OK;
}

/* One label per line. */
static vit_status from_file(char **labels, const char *path, size_t classes, vit_error *err)
{
    char *text = NULL;
    vit_status status = file_read(&text, NULL, path, LABELS_MAX_BYTES, err);
    if (status != VIT_OK)
        return status;
    size_t count = 0;
    for (char *line = text; *line != '\0' && status == VIT_OK;) {
        size_t length = strcspn(line, "\r\n");
        char *next = line + length + strspn(line + length, "\r");
        next += *next == '\n';
        if (count < classes && (labels[count] = strndup(line, length)) == NULL)
            status = vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the labels");
        count++;
        line = next;
    }
    free(text);
    if (status == VIT_OK && count != classes)
        status = vit_error_set(err, VIT_ERR_FORMAT, "%s: %zu labels for %zu classes", path, count, classes);
    return status;
}

static vit_status name_the_rest(char **labels, size_t classes, vit_error *err)
{
    for (size_t i = 0; i < classes; i++)
        if (labels[i] == NULL && asprintf(&labels[i], "%zu", i) < 0) {
            labels[i] = NULL;
            return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the labels");
        }
    return VIT_OK;
}

vit_status labels_read(char ***labels, const struct folder *folder, const char *path, size_t classes, vit_error *err)
{
    char **read = calloc(classes, sizeof *read);
    if (read == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the labels");
    const cJSON *id2label = json_get(folder->config, "id2label"), *names = json_get(folder->pretrained, "label_names");
    if (names == NULL)
        names = json_get(folder->config, "label_names");
    char file[4096];
    snprintf(file, sizeof file, "%s/labels.txt", path);

    vit_status status = VIT_OK;
    if (cJSON_IsObject(id2label))
        status = from_id2label(read, id2label, classes, err);
    else if (names != NULL)
        status = from_list(read, names, classes, err);
    else if (access(file, F_OK) == 0)
        status = from_file(read, file, classes, err);
    if (status == VIT_OK)
        status = name_the_rest(read, classes, err);
    if (status != VIT_OK) {
        labels_free(read, classes);
        return status;
    }
    *labels = read;
    return VIT_OK;
}

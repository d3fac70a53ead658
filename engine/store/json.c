#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"

enum { JSON_MAX_BYTES = 64 << 20 };

static vit_status read_all(int fd, char *text, size_t length, const char *path, vit_error *err)
{
    size_t done = 0;
    while (done < length) {
        ssize_t n = read(fd, text + done, length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return vit_error_set(err, VIT_ERR_IO, "%s: cannot be read: %s", path,
                                 n < 0 ? strerror(errno) : "it shrank while being read");
        done += (size_t)n;
    }
    return VIT_OK;
}

vit_status file_read(char **text, size_t *length, const char *path, size_t max_bytes, vit_error *err)
{
    struct stat st;
    char *buffer = NULL;
    vit_status status = VIT_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return vit_error_set(err, VIT_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        status = vit_error_set(err, VIT_ERR_IO, "%s: is not a regular file", path);
    else if ((uint64_t)st.st_size > max_bytes)
        status = vit_error_set(err, VIT_ERR_FORMAT, "%s: has %lld bytes; at most %zu are read", path,
                               (long long)st.st_size, max_bytes);
    else if ((buffer = malloc((size_t)st.st_size + 1)) == NULL)
        status = vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory to read it", path);
    else
        status = read_all(fd, buffer, (size_t)st.st_size, path, err);
    close(fd);
    if (status != VIT_OK) {
        free(buffer);
        return status;
    }
    buffer[st.st_size] = '\0';
    *text = buffer;
    if (length != NULL)
        *length = (size_t)st.st_size;
    return VIT_OK;
}

vit_status json_load(cJSON **object, const char *path, vit_error *err)
{
    char *text = NULL;
    size_t length = 0;
    vit_status status = file_read(&text, &length, path, JSON_MAX_BYTES, err);
    if (status != VIT_OK)
        return status;
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, length + 1, &end, 1);
    if (root == NULL) {
        size_t line = 1;
        for (const char *p = text; end != NULL && p < end; p++)
            line += *p == '\n';
        status = vit_error_set(err, VIT_ERR_FORMAT, "%s:%zu: is not valid JSON", path, line);
    } else if (!cJSON_IsObject(root)) {
        status = vit_error_set(err, VIT_ERR_FORMAT, "%s: a JSON object was expected", path);
        cJSON_Delete(root);
    } else {
        *object = root;
    }
    free(text);
    return status;
}

const cJSON *json_get(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

/* The shared beginning of every getter: *value is NULL when there is nothing to read. */
static const cJSON *lookup(const cJSON *object, const char *key, bool *found)
{
    const cJSON *value = json_get(object, key);
    if (found != NULL)
        *found = value != NULL;
    return value;
}

vit_status json_size(const cJSON *object, const char *key, size_t min, size_t max, size_t *value, bool *found,
                     vit_error *err)
{
    const cJSON *item = lookup(object, key, found);
    if (item == NULL)
        return VIT_OK;
    double number = item->valuedouble;
    if (!cJSON_IsNumber(item) || number != floor(number) || number < (double)min || number > (double)max)
        return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be a whole number from %zu to %zu", key, min, max);
    *value = (size_t)number;
    return VIT_OK;
}

vit_status json_number(const cJSON *object, const char *key, double *value, bool *found, vit_error *err)
{
    const cJSON *item = lookup(object, key, found);
    if (item == NULL)
        return VIT_OK;
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be a number", key);
    *value = item->valuedouble;
    return VIT_OK;
}

vit_status json_bool(const cJSON *object, const char *key, bool *value, bool *found, vit_error *err)
{
    const cJSON *item = lookup(object, key, found);
    if (item == NULL)
        return VIT_OK;
    if (!cJSON_IsBool(item))
        return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be true or false", key);
    *value = cJSON_IsTrue(item);
    return VIT_OK;
}

vit_status json_string(const cJSON *object, const char *key, const char **value, bool *found, vit_error *err)
{
    const cJSON *item = lookup(object, key, found);
    if (item == NULL)
        return VIT_OK;
    if (!cJSON_IsString(item))
        return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be a string", key);
    *value = item->valuestring;
    return VIT_OK;
}

vit_status json_floats(const cJSON *object, const char *key, float *values, size_t count, bool *found, vit_error *err)
{
    const cJSON *array = lookup(object, key, found);
    if (array == NULL)
        return VIT_OK;
    if (!cJSON_IsArray(array) || (size_t)cJSON_GetArraySize(array) != count)
        return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be a list of %zu numbers", key, count);
    const cJSON *item;
    cJSON_ArrayForEach(item, array) {
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return vit_error_set(err, VIT_ERR_FORMAT, "\"%s\" must be a list of %zu numbers", key, count);
    }
    size_t i = 0;
    cJSON_ArrayForEach(item, array)
        values[i++] = (float)item->valuedouble;
    return VIT_OK;
}

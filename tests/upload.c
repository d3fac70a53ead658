/* upload.c - see upload.h. */
#include "tests/upload.h"

#include <check.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes ---- */

static struct bytes allocate(size_t length)
{
    struct bytes bytes = {calloc(length + 1, 1), length};
    ck_assert_ptr_nonnull(bytes.at);
    return bytes;
}

struct bytes bytes_of_file(const char *path)
{
    struct bytes bytes;
    bytes.at = test_file(path, &bytes.length);
    return bytes;
}

struct bytes bytes_of_pixels(unsigned width, unsigned height, unsigned seed)
{
    struct bytes pixels = allocate((size_t)3 * width * height);
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < pixels.length; i++) {
        state = state * 1664525u + 1013904223u;
        pixels.at[i] = (unsigned char)(state >> 24);
    }
    return pixels;
}

struct bytes bytes_of_bmp(const struct bytes *pixels, unsigned width, unsigned height)
{
    const unsigned row = (3 * width + 3) / 4 * 4, length = 54 + row * height;
    const unsigned header[] = {length, 0, 54, 40, width, height, 24u << 16 | 1, 0, length - 54, 0, 0, 0, 0};
    struct bytes bmp = allocate(length);
    memcpy(bmp.at, "BM", 2);
    memcpy(bmp.at + 2, header, sizeof header);
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++)
            for (unsigned c = 0; c < 3; c++) /* bottom row first, blue first */
                bmp.at[54 + row * (height - 1 - y) + 3 * x + c] = pixels->at[3 * (width * y + x) + 2 - c];
    return bmp;
}

struct bytes bytes_of_base64(const struct bytes *file)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct bytes text = allocate((file->length + 2) / 3 * 4);
    for (size_t i = 0, out = 0; i < file->length; i += 3) {
        const size_t left = file->length - i;
        const uint32_t group = (uint32_t)file->at[i] << 16 | (left > 1 ? (uint32_t)file->at[i + 1] << 8 : 0) |
                               (left > 2 ? file->at[i + 2] : 0u);
        for (unsigned k = 0; k < 4; k++)
            text.at[out++] = k > left ? '=' : (unsigned char)digits[group >> (18 - 6 * k) & 63];
    }
    return text;
}

/* ---- messages ---- */

static struct upload read_upload(char *text, size_t length, size_t json_length)
{
    return (struct upload){{(unsigned char *)text, length}, json_length};
}

static void begin(FILE *out, const char *name, const char *datatype, const char *shape)
{
    fprintf(out, "{\"inputs\":[{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":%s,", name, datatype, shape);
}

struct upload upload_files(const struct bytes *files, size_t count, const char *members)
{
    char *text = NULL, shape[32];
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    snprintf(shape, sizeof shape, "[%zu]", count);
    begin(out, "image", "BYTES", shape);
    fputs("\"data\":[", out);
    for (size_t i = 0; i < count; i++) {
        struct bytes base64 = bytes_of_base64(&files[i]);
        fprintf(out, "%s\"%s\"", i ? "," : "", (char *)base64.at);
        free(base64.at);
    }
    fprintf(out, "]}]%s}", members);
    fclose(out);
    return read_upload(text, length, SIZE_MAX);
}

struct upload upload_pixels(const unsigned char *values, const char *shape, size_t count, const char *members)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    begin(out, "pixels", "UINT8", shape);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%u", i ? "," : "\"data\":[", values[i]);
    fprintf(out, "]}]%s}", members);
    fclose(out);
    return read_upload(text, length, SIZE_MAX);
}

struct upload upload_floats(const float *values, const char *shape, size_t count, const char *members)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    begin(out, "pixel_values", "FP32", shape);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%.9g", i ? "," : "\"data\":[", (double)values[i]);
    fprintf(out, "]}]%s}", members);
    fclose(out);
    return read_upload(text, length, SIZE_MAX);
}

struct upload upload_tensor_binary(const char *name, const char *datatype, const char *shape, const void *tensor,
                                   size_t bytes, const char *members)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    begin(out, name, datatype, shape);
    fprintf(out, "\"parameters\":{\"binary_data_size\":%zu}}]%s}", bytes, members);
    const size_t json_length = (size_t)ftell(out);
    fwrite(tensor, 1, bytes, out);
    fclose(out);
    return read_upload(text, length, json_length);
}

struct upload upload_files_binary(const struct bytes *files, size_t count, const char *members)
{
    char *tensor = NULL, shape[32];
    size_t length = 0;
    FILE *out = open_memstream(&tensor, &length);
    for (size_t i = 0; i < count; i++) {
        const uint32_t size = (uint32_t)files[i].length;
        fwrite(&size, sizeof size, 1, out);
        fwrite(files[i].at, 1, files[i].length, out);
    }
    fclose(out);
    snprintf(shape, sizeof shape, "[%zu]", count);
    struct upload upload = upload_tensor_binary("image", "BYTES", shape, tensor, length, members);
    free(tensor);
    return upload;
}

struct upload upload_text(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    ck_assert_int_ge(length, 0);
    return read_upload(text, (size_t)length, SIZE_MAX);
}

struct upload upload_raw(const struct bytes *file)
{
    struct upload upload = {allocate(file->length), 0};
    memcpy(upload.body.at, file->at, file->length);
    return upload;
}

void upload_free(struct upload *upload)
{
    free(upload->body.at);
    *upload = (struct upload){0};
}

struct reply upload_post(const struct daemon *daemon, const char *path, const struct upload *upload, const char *header)
{
    char headers[512];
    const bool json = upload->json_length == SIZE_MAX;
    if (json)
        return daemon_request(daemon, "POST", path, "application/json", upload->body.at, upload->body.length, header);
    snprintf(headers, sizeof headers, "Inference-Header-Content-Length: %zu%s%s", upload->json_length,
             header != NULL ? "\r\n" : "", header != NULL ? header : "");
    return daemon_request(daemon, "POST", path, "application/octet-stream", upload->body.at, upload->body.length, headers);
}

/* ---- replies ---- */

static size_t binary_size(const cJSON *output)
{
    const cJSON *size = cJSON_GetObjectItem(cJSON_GetObjectItem(output, "parameters"), "binary_data_size");
    return cJSON_IsNumber(size) ? (size_t)size->valuedouble : 0;
}

size_t reply_values(const struct reply *reply, const char *name, float *values, size_t room)
{
    const char *header = reply_header(reply, "Inference-Header-Content-Length");
    size_t at = header != NULL ? strtoul(header, NULL, 10) : reply->length, count = 0;
    ck_assert_msg(reply->status == 200, "%ld %s", reply->status, reply->body);
    ck_assert_uint_le(at, reply->length);
    cJSON *json = cJSON_ParseWithLength(reply->body, at), *output;
    ck_assert_msg(json != NULL, "no JSON of %zu bytes: %s", at, reply->body);
    cJSON_ArrayForEach(output, cJSON_GetObjectItem(json, "outputs"))
    {
        const cJSON *data = cJSON_GetObjectItem(output, "data"), *value;
        const size_t bytes = binary_size(output);
        ck_assert_uint_le(at + bytes, reply->length);
        if (strcmp(cJSON_GetObjectItem(output, "name")->valuestring, name) == 0) {
            ck_assert_uint_le(bytes, room * sizeof *values);
            memcpy(values, reply->body + at, bytes);
            count = bytes / sizeof *values;
            cJSON_ArrayForEach(value, data)
            {
                ck_assert_uint_lt(count, room);
                values[count++] = (float)value->valuedouble;
            }
        }
        at += bytes;
    }
    ck_assert_uint_eq(at, reply->length);
    ck_assert_msg(count > 0, "no output %s in %s", name, reply->body);
    cJSON_Delete(json);
    return count;
}

void reply_assert_plain(const struct reply *reply, long status, const char *part)
{
    cJSON *json = reply_json(reply);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    ck_assert_msg(reply->status == status && cJSON_IsString(error) && strstr(error->valuestring, part) != NULL,
                  "%ld %s, not %ld with \"%s\"", reply->status, reply->body, status, part);
    ck_assert_int_eq(cJSON_GetArraySize(json), 1);
    cJSON_Delete(json);
}

void expect_plain(struct reply reply, long status, const char *part)
{
    reply_assert_plain(&reply, status, part);
    reply_free(&reply);
}

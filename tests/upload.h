/*
 * upload.h - requests put together as clients of other protocols do: pictures of known pixels, base64, and the messages
 * of the Open Inference Protocol v2 in JSON and in binary. Every failure is a failed Check assertion.
 */
#ifndef TESTS_UPLOAD_H
#define TESTS_UPLOAD_H

#include <stddef.h>

#include "tests/daemon.h"

struct bytes {
    unsigned char *at; /* to be freed; a zero follows */
    size_t length;
};

struct bytes bytes_of_file(const char *path);
/* RGB [height, width, 3] that differ with the seed, and the same as a BMP of 24 bits. */
struct bytes bytes_of_pixels(unsigned width, unsigned height, unsigned seed);
struct bytes bytes_of_bmp(const struct bytes *pixels, unsigned width, unsigned height);
struct bytes bytes_of_base64(const struct bytes *file);

/* A request's body. */
struct upload {
    struct bytes body;
    size_t json_length; /* for Inference-Header-Content-Length; SIZE_MAX: no such header */
};

/* N files as the input `image`, in JSON or in binary. members: more of the request, beginning with a comma, or "". */
struct upload upload_files(const struct bytes *files, size_t count, const char *members);
struct upload upload_files_binary(const struct bytes *files, size_t count, const char *members);
/* A tensor under that name. */
struct upload upload_pixels(const unsigned char *values, const char *shape, size_t count, const char *members);
struct upload upload_floats(const float *values, const char *shape, size_t count, const char *members);
struct upload upload_tensor_binary(const char *name, const char *datatype, const char *shape, const void *tensor,
                                   size_t bytes, const char *members);
/* JSON as it is. */
struct upload upload_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The file itself, with Inference-Header-Content-Length: 0. */
struct upload upload_raw(const struct bytes *file);
void upload_free(struct upload *upload);

/* Posts it. header: another one, or several that CRLF parts; NULL: none. */
struct reply upload_post(const struct daemon *daemon, const char *path, const struct upload *upload, const char *header);

/* The values of an output of a reply, in JSON or in binary, and their number, which is at most `room`. */
size_t reply_values(const struct reply *reply, const char *output, float *values, size_t room);
/* Asserts the status and {"error":"..."} with that in it. */
void reply_assert_plain(const struct reply *reply, long status, const char *part);
/* The same, and frees the reply. */
void expect_plain(struct reply reply, long status, const char *part);

#endif

/*
 * multipart.h - multipart/form-data (RFC 7578, RFC 2046) over a body that has arrived whole.
 *
 * Nothing is copied: a part's bytes are a slice of the body. Work is linear in the body; part headers are bounded.
 */
#ifndef SERVER_HTTP_MULTIPART_H
#define SERVER_HTTP_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MULTIPART_MAX_BOUNDARY = 70,     /* characters, RFC 2046 */
    MULTIPART_MAX_PART_HEADER = 8192 /* bytes of all header lines of one part */
};

enum multipart_kind {
    MULTIPART_NONE,  /* another content type, or none: the body is the image itself */
    MULTIPART_FORM,  /* multipart/form-data; boundary is filled in */
    MULTIPART_INVALID /* multipart/form-data, but without a usable boundary */
};

/* What a Content-Type header (may be NULL) says of the body. */
enum multipart_kind multipart_boundary(const char *content_type, char boundary[MULTIPART_MAX_BOUNDARY + 1]);

struct multipart_file {
    const uint8_t *bytes;
    size_t length;
};

enum multipart_result { MULTIPART_OK, MULTIPART_MALFORMED, MULTIPART_TOO_MANY };

/* Finds the parts that carry a file: those with a filename, or of type image/... or application/octet-stream. Other
 * fields are skipped, but for the one named "labels", whose text goes to *labels (bytes NULL: there is none), and so is the
 * empty, nameless file that a browser sends for an input left blank. On MULTIPART_MALFORMED *why says what is wrong (a
 * literal); on MULTIPART_TOO_MANY there are more than max_files. */
enum multipart_result multipart_files(const uint8_t *body, size_t length, const char *boundary,
                                      struct multipart_file *files, size_t max_files, size_t *count,
                                      struct multipart_file *labels, const char **why);

#endif

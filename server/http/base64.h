/*
 * base64.h - base64 (RFC 4648, section 4), strictly: the plain alphabet, full padding, no white space, no bits over.
 *
 * GnuTLS has a decoder, but it passes over white space, does not say what is wrong where, and allocates each result.
 */
#ifndef SERVER_HTTP_BASE64_H
#define SERVER_HTTP_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes text[0 .. length) into out, which has room for length / 4 * 3 bytes and may be text itself. *used is how many
 * characters are sound: all of them, or the result is false. */
bool base64_decode(uint8_t *out, size_t *out_length, const char *text, size_t length, size_t *used);

#endif

/* utf8.h - text from outside: is it UTF-8 (RFC 3629)? */
#ifndef SERVER_UTF8_H
#define SERVER_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the first character of text, which has `room` bytes (SIZE_MAX: it is terminated); 0: there is none, as of an
 * overlong form, a surrogate, something beyond U+10FFFF, or the end. A NUL is a character. */
size_t utf8_length(const void *text, size_t room);
bool utf8_is_valid(const char *text, size_t length);

#endif

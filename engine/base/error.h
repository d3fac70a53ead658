/* error.h - filling in a vit_error, the way every module of the engine reports. */
#ifndef ENGINE_BASE_ERROR_H
#define ENGINE_BASE_ERROR_H

#include "vit_status.h"

/* Formats the message into *err (NULL accepted) and returns status, so that callers write
 * `return vit_error_set(err, VIT_ERR_FORMAT, ...)`. The format must not print into err's own message. */
vit_status vit_error_set(vit_error *err, vit_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

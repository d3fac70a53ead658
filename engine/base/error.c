#include "engine/base/error.h"

#include <stdarg.h>
#include <stdio.h>

vit_status vit_error_set(vit_error *err, vit_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

#include "server/failure.h"

#include <stdarg.h>
#include <stdio.h>

vit_status failure_set(vit_error *err, vit_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    return status;
}

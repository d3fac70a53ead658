/* failure.h - filling in a vit_error, as the server's modules that speak the engine's statuses report. */
#ifndef SERVER_FAILURE_H
#define SERVER_FAILURE_H

#include "vit_status.h"

/* Formats the message into *err and returns status. */
vit_status failure_set(vit_error *err, vit_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif

/*
 * log.h - one line per event on standard error, as text or as JSON. Thread-safe: a line is one write().
 *
 *     2026-11-23T21:00:00.123Z info  listening on http://127.0.0.1:8080          text
 *     <6>listening on http://127.0.0.1:8080                                      text, into the systemd journal
 *     {"time":"2026-11-23T21:00:00.123Z","level":"info","message":"..."}         JSON
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include "server/config.h"

/* Sets level and format for the process, at any time. Defaults: info, text. */
void log_setup(enum log_level level, enum log_format format);
/* Whether a line of this level would be written. */
bool log_enabled(enum log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What is said of one finished request. Negative times are left out; strings are escaped. */
struct log_access {
    const char *id, *method, *path; /* path as sent, without the query */
    const char *route, *model;      /* "" if none */
    const char *user;               /* the name of the key it came with; "" if none */
    const char *trace, *span;       /* of its traceparent; "" if none */
    const char *cache;              /* "hit"; "" otherwise */
    const char *peer;
    int status;                     /* 499: the client left before the reply */
    const char *error_code;         /* "" if none */
    size_t bytes_in, bytes_out;
    size_t images, batch_size;      /* batch_size: the largest batch an image of the request ran in */
    double total_ms, queue_ms, preprocess_ms, inference_ms;
};
void log_request(const struct log_access *access);

/* Copies text with control characters and bytes that are not UTF-8 written as \xNN, so that text from files and
 * clients cannot drive a terminal. Cut to fit size (at least 8), then ending in "...". Returns out. */
char *log_clean(char *out, size_t size, const char *text);

#endif

/*
 * log.c - lines for people, for the systemd journal and for machines.
 *
 * A line is built in one buffer of at most PIPE_BUF bytes, which a pipe takes whole: lines of several threads, or of
 * several processes on one pipe, never mix. Strings are cut so that every line fits with room to spare.
 */
#include "server/log.h"

#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/utf8.h"

enum { LINE_BYTES = PIPE_BUF, MESSAGE_BYTES = 3000, PATH_BYTES = 1000, FIELD_BYTES = 200 };

static atomic_int threshold = LOG_LEVEL_INFO; /* enum log_level */
static atomic_int style = LOG_FORMAT_TEXT;    /* enum log_format */
static atomic_bool into_journal;

struct line {
    char text[LINE_BYTES];
    size_t length;
};

/* ---- text that cannot do harm ---- */

/* C0, DEL, and C1, whose members drive terminals too. */
static bool is_control(const unsigned char *p)
{
    return p[0] < 0x20 || p[0] == 0x7F || (p[0] == 0xC2 && p[1] < 0xA0);
}

/* Writes the character at p, escaped where need be, into piece; returns how many bytes of p it was. */
static size_t escape_text(char piece[8], const unsigned char *p, bool quoted)
{
    const size_t length = utf8_length(p, SIZE_MAX);
    if (length == 0 || (length == 1 && is_control(p)))
        snprintf(piece, 8, *p == '\n' ? "\\n" : "\\x%02X", *p);
    else if (is_control(p))
        snprintf(piece, 8, "\\x%02X", p[1]);
    else
        snprintf(piece, 8, "%s%.*s", quoted && (*p == '"' || *p == '\\') ? "\\" : "", (int)length, (const char *)p);
    return length > 0 ? length : 1;
}

static size_t escape_json(char piece[8], const unsigned char *p, bool quoted)
{
    const size_t length = utf8_length(p, SIZE_MAX);
    (void)quoted;
    if (length == 0)
        snprintf(piece, 8, "\\ufffd");
    else if (is_control(p))
        snprintf(piece, 8, "\\u%04x", length == 1 ? p[0] : p[1]);
    else
        snprintf(piece, 8, "%s%.*s", *p == '"' || *p == '\\' ? "\\" : "", (int)length, (const char *)p);
    return length > 0 ? length : 1;
}

/* What no function escapes. Most of every line is. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

typedef size_t escape_function(char piece[8], const unsigned char *p, bool quoted);

/* text, escaped, into out; cut to fit size, then ending in "...". */
static size_t escape(char *out, size_t size, const char *text, escape_function *function, bool quoted)
{
    size_t length = 0, cut = 0; /* cut: the last end of a piece that leaves room for "..." */
    char piece[8];
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
        size_t count = 1;
        if (is_plain(*p)) {
            piece[0] = (char)*p++;
        } else {
            p += function(piece, p, quoted);
            count = strlen(piece);
        }
        if (length + 3 < size)
            cut = length;
        if (length + count >= size) {
            memcpy(out + cut, "...", 4);
            return cut + 3;
        }
        memcpy(out + length, piece, count);
        length += count;
    }
    out[length] = '\0';
    return length;
}

char *log_clean(char *out, size_t size, const char *text)
{
    escape(out, size, text, escape_text, false);
    return out;
}

/* ---- building a line ---- */

static void add(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *line, const char *format, ...)
{
    const size_t room = sizeof line->text - line->length;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line->text + line->length, room, format, arguments);
    va_end(arguments);
    if (length > 0)
        line->length += (size_t)length < room ? (size_t)length : room - 1;
}

static void add_escaped(struct line *line, const char *text, size_t most, escape_function *function, bool quoted)
{
    const size_t room = sizeof line->text - line->length - 8;
    line->length += escape(line->text + line->length, most < room ? most : room, text, function, quoted);
}

/* A bare word where it is one, else quoted, so that no value can pass for another field. */
static void add_word(struct line *line, const char *text, size_t most)
{
    const bool bare = *text != '\0' && strpbrk(text, " \"=\\") == NULL;
    add(line, "%s", bare ? "" : "\"");
    add_escaped(line, text, most, escape_text, !bare);
    add(line, "%s", bare ? "" : "\"");
}

static void add_json(struct line *line, const char *text, size_t most)
{
    add(line, "\"");
    add_escaped(line, text, most, escape_json, true);
    add(line, "\"");
}

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return names[level];
}

static int syslog_priority(enum log_level level)
{
    static const int priorities[] = {3, 4, 6, 7};
    return priorities[level];
}

static void add_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    add(line, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

static void begin(struct line *line, enum log_level level)
{
    line->length = 0;
    if (into_journal)
        add(line, "<%d>", syslog_priority(level));
    if (style == LOG_FORMAT_JSON) {
        add(line, "{\"time\":\"");
        add_time(line);
        add(line, "\",\"level\":\"%s\"", level_name(level));
    } else if (!into_journal) {
        add_time(line);
        add(line, " %-5s ", level_name(level));
    }
}

/* A reader of standard error that has stopped must not stop the daemon: a line that would have to wait is lost, and the
 * next one that can be written says how many were. A pipe that poll() calls writable has room for PIPE_BUF bytes, and no
 * line is longer; the mutex keeps others from taking that room. */
static void write_line(const struct line *line)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static size_t lost;
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    pthread_mutex_lock(&mutex);
    if (lost > 0 && poll(&out, 1, 0) > 0 && (out.revents & POLLOUT)) {
        dprintf(STDERR_FILENO, style == LOG_FORMAT_JSON ? "{\"level\":\"warn\",\"message\":\"%zu log lines were lost\"}\n"
                                                        : "%zu log lines were lost\n", lost);
        lost = 0;
    }
    if (poll(&out, 1, 0) == 0 || write(STDERR_FILENO, line->text, line->length) < 0)
        lost++;
    pthread_mutex_unlock(&mutex);
}

static void end(struct line *line)
{
    if (style == LOG_FORMAT_JSON)
        add(line, "}");
    if (line->length == sizeof line->text - 1)
        line->length--;
    line->text[line->length++] = '\n';
    write_line(line);
}

/* ---- messages ---- */

static void log_message(enum log_level level, const char *format, va_list arguments)
{
    char message[MESSAGE_BYTES];
    struct line line;
    if (!log_enabled(level))
        return;
    vsnprintf(message, sizeof message, format, arguments);
    begin(&line, level);
    if (style == LOG_FORMAT_JSON) {
        add(&line, ",\"message\":");
        add_json(&line, message, MESSAGE_BYTES);
    } else {
        add_escaped(&line, message, MESSAGE_BYTES, escape_text, false);
    }
    end(&line);
}

#define DEFINE_LOG(name, level)          \
    void name(const char *format, ...)   \
    {                                    \
        va_list arguments;               \
        va_start(arguments, format);     \
        log_message(level, format, arguments); \
        va_end(arguments);               \
    }

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)

/* ---- requests ---- */

static void add_string_field(struct line *line, const char *name, const char *value, size_t most)
{
    if (value == NULL || *value == '\0')
        return;
    if (style == LOG_FORMAT_JSON) {
        add(line, ",\"%s\":", name);
        add_json(line, value, most);
    } else {
        add(line, " %s=", name);
        add_word(line, value, most);
    }
}

static void add_count(struct line *line, const char *name, size_t value)
{
    add(line, style == LOG_FORMAT_JSON ? ",\"%s\":%zu" : " %s=%zu", name, value);
}

/* The text form leaves the unit out: every time of a line is in milliseconds. */
static void add_time_field(struct line *line, const char *name, double ms)
{
    if (!(ms >= 0) || isinf(ms))
        return;
    add(line, style == LOG_FORMAT_JSON ? ",\"%s_ms\":%.3f" : " %s=%.1f", name, ms);
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static void add_subject(struct line *line, const struct log_access *access)
{
    if (style == LOG_FORMAT_JSON) {
        add_string_field(line, "method", access->method, FIELD_BYTES);
        add_string_field(line, "path", access->path, PATH_BYTES);
        add_count(line, "status", (size_t)access->status);
        add_time_field(line, "total", access->total_ms);
        add_string_field(line, "route", access->route, FIELD_BYTES);
        return;
    }
    add_word(line, or_empty(access->method), FIELD_BYTES);
    add(line, " ");
    add_word(line, or_empty(access->path), PATH_BYTES);
    add(line, " %d", access->status);
    if (access->total_ms >= 0)
        add(line, " %.1fms", access->total_ms);
}

void log_request(const struct log_access *access)
{
    const enum log_level level = access->status >= 500 ? LOG_LEVEL_WARN : LOG_LEVEL_INFO;
    struct line line;
    if (!log_enabled(level))
        return;
    begin(&line, level);
    if (style == LOG_FORMAT_JSON)
        add(&line, ",\"message\":\"request\"");
    add_subject(&line, access);
    add_string_field(&line, "id", access->id, FIELD_BYTES);
    add_string_field(&line, "error", access->error_code, FIELD_BYTES);
    add_string_field(&line, "model", access->model, FIELD_BYTES);
    add_time_field(&line, "queue", access->queue_ms);
    add_time_field(&line, "preprocess", access->preprocess_ms);
    add_time_field(&line, "inference", access->inference_ms);
    if (access->images > 0) {
        add_count(&line, "images", access->images);
        add_count(&line, "batch", access->batch_size);
    }
    add_count(&line, "in", access->bytes_in);
    add_count(&line, "out", access->bytes_out);
    add_string_field(&line, "cache", access->cache, FIELD_BYTES);
    add_string_field(&line, "peer", access->peer, FIELD_BYTES);
    add_string_field(&line, "user", access->user, FIELD_BYTES);
    add_string_field(&line, "trace", access->trace, FIELD_BYTES);
    add_string_field(&line, "span", access->span, FIELD_BYTES);
    end(&line);
}

/* ---- setting up ---- */

/* systemd names the socket it gave as standard error, so that a redirected one is not taken for it. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

void log_setup(enum log_level level, enum log_format format)
{
    threshold = (int)level;
    style = (int)format;
    into_journal = stderr_is_journal();
}

bool log_enabled(enum log_level level)
{
    return (int)level <= threshold;
}

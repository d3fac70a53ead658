/*
 * daemon.h - starts the real vitd on port 0 of 127.0.0.1 and talks to it with libcurl, for the suites that test it
 * whole. Every failure is a failed Check assertion in the calling test.
 */
#ifndef TESTS_DAEMON_H
#define TESTS_DAEMON_H

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct daemon {
    pid_t pid;
    int port;                /* 0: it has no TCP socket */
    int log_fd;              /* its standard error, after the line that told the port */
    char log_path[64];       /* all of it; removed by daemon_stop() */
    char socket[108];        /* of a Unix socket that requests go to; "": TCP */
    char certificate[108];   /* of the HTTPS server that requests trust; "": HTTP */
};

/* Starts `vitd serve --port 0` with more arguments (NULL-terminated) and a configuration (JSON text, NULL: none);
 * returns when it is ready. */
struct daemon daemon_start(const char *config, const char *const *arguments);
/* The same, but returns as soon as it answers, while it loads its models. */
struct daemon daemon_start_loading(const char *config);
/* The same as daemon_start() and daemon_start_loading() with a configuration file that stays the test's, to be rewritten. */
struct daemon daemon_start_file(const char *path, const char *const *arguments);
struct daemon daemon_start_file_loading(const char *path);
/* The same with a listening TCP socket on 127.0.0.1 that is passed as a service manager does it; fd stays the test's. */
struct daemon daemon_start_passed(const char *config, int fd);
/* The same with several, of any kind, and a configuration file. */
struct daemon daemon_start_on(const int *fds, size_t count, const char *path);
/* Runs vitd with that configuration file until it has failed to start, which is asserted; its log, to be freed. */
char *daemon_fail(const char *path);
/* Sends SIGHUP and waits until the new configuration is in force (true) or refused. */
bool daemon_reload(const struct daemon *daemon);
/* Writes a configuration file: in place, or one of its own in /tmp whose path goes to path[64] if that is "". */
void daemon_write_config(char *path, const char *config);
/* Sends SIGTERM, waits, and asserts exit status 0. Returns the seconds it took. */
double daemon_stop(struct daemon *daemon);
/* The same once it has its signal. */
double daemon_end(struct daemon *daemon);
/* Waits for the end without sending anything; the wait status. */
int daemon_wait(struct daemon *daemon);
/* What it has logged so far; to be freed. */
char *daemon_log(const struct daemon *daemon);
/* How often a text is in the log; and waits until it is there so often. */
int daemon_logged(const struct daemon *daemon, const char *text);
void daemon_await_log(const struct daemon *daemon, const char *text, int times);
/* Resident memory in KiB (VmRSS), or the peak (VmHWM). */
long daemon_memory(const struct daemon *daemon, const char *field);

struct reply {
    CURLcode curl;   /* CURLE_OK if a complete reply came */
    long status;
    char *headers;   /* as received, zero-terminated */
    char *body;      /* zero-terminated */
    size_t length;
};

/* One request on a connection of its own. type and header may be NULL; header is a "Name: value" line, or several with CRLF
 * between them. */
struct reply daemon_request(const struct daemon *daemon, const char *method, const char *path, const char *type,
                            const void *body, size_t length, const char *header);
struct reply daemon_get(const struct daemon *daemon, const char *path);
struct reply daemon_post(const struct daemon *daemon, const char *path, const void *body, size_t length);
/* Several files as multipart/form-data, each with its bytes. */
struct reply daemon_post_files(const struct daemon *daemon, const char *path, const void *const *files,
                               const size_t *lengths, size_t count);
void reply_free(struct reply *reply);

/* A header's value, in static memory of the thread, or NULL when there is none; asserted to come once at most. */
const char *reply_header(const struct reply *reply, const char *name);

/* The value of a line of GET /metrics, of which this is all before the value; -1: there is none. */
double reply_metric(const struct reply *reply, const char *name);
double daemon_metric(const struct daemon *daemon, const char *name);

/* The body as JSON (asserted to parse); free with cJSON_Delete(). */
cJSON *reply_json(const struct reply *reply);
/* The same of a reply asserted to have that status, which is freed. */
cJSON *json_of(struct reply reply, long status);
/* A member of an object, asserted to be a number, a string. */
double member_number(const cJSON *object, const char *key);
const char *member_string(const cJSON *object, const char *key);
/* Asserts status, and in the body error.code. */
void reply_assert_error(const struct reply *reply, long status, const char *code);
/* The first prediction's label, as a string inside json. */
const char *top_label(const cJSON *json);

/* A plain connection to the daemon. */
int daemon_connect(const struct daemon *daemon);
/* What comes back for bytes on a connection of its own, until the daemon ends it or is silent for 10 s; to be freed. */
char *daemon_exchange(const struct daemon *daemon, const char *bytes, size_t length);

/* A whole file; asserted to exist. */
unsigned char *test_file(const char *path, size_t *length);

double test_clock(void); /* seconds, monotonic */

#endif

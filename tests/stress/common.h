/*
 * common.h - what the stress drivers share: the daemon as a child process, samples, and the line that each prints.
 *
 * The drivers run in the repository's root. Whatever keeps one from measuring ends it with a message and status 2; a
 * broken bound ends it with status 1.
 */
#ifndef TESTS_STRESS_COMMON_H
#define TESTS_STRESS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CAT "config/samples/cat.jpg"

/* Seconds, monotonic. */
double now(void);
void sleep_seconds(double seconds);
/* Prints what and errno, and exits with 2. */
_Noreturn void die(const char *what);
/* Zeroed; dies when out of memory. */
void *allocate(size_t count, size_t size);
/* The whole number in the environment variable `name`, at least `least`; `otherwise` where it is not set. */
long setting(const char *name, long otherwise, long least);
/* Uniform in [0, 1), the same ones for the same STRESS_SEED (1). */
double random_part(void);
/* CPU time of this process so far, in seconds. */
double cpu_seconds(void);
/* Lets this process, and the daemon that it starts, open as many files as the system allows. */
void allow_many_files(void);

/* A file with a NUL after its bytes; the caller frees it. */
char *read_file(const char *path, size_t *length);
void write_file(const char *path, const char *bytes, size_t length);

/* ---- samples ---- */

struct samples {
    double *values;
    size_t count, room;
};

void samples_add(struct samples *samples, double value);
void samples_release(struct samples *samples);
/* Sorts; part in [0, 1]. 0 where there are none. */
double samples_at(struct samples *samples, double part);

/* ---- the daemon ---- */

struct vitd {
    pid_t pid; /* 0: has ended */
    int port;
    char folder[32]; /* its log and configuration; removed by vitd_release() */
};

/* Starts $VITD_BINARY (build/vitd) with config, JSON text ("{}": the bundled model), on `port` (0: a free one), and
 * waits until its log says that it listens. It ends when this process does. */
struct vitd vitd_start(const char *config, int port);
/* Whether it has ended, and its wait status. Does not block. */
bool vitd_ended(struct vitd *vitd, int *status);
/* Waits for its end; the wait status. */
int vitd_wait(struct vitd *vitd);
/* SIGTERM; dies unless it ends with status 0. Then vitd_release(). */
void vitd_stop(struct vitd *vitd);
void vitd_release(struct vitd *vitd);
/* VmRSS, VmHWM: in KiB. */
long vitd_memory(const struct vitd *vitd, const char *field);
/* A metric without labels, of GET /metrics. */
double vitd_metric(const struct vitd *vitd, const char *name);
/* Its log as it is now; the caller frees it. */
char *vitd_log(const struct vitd *vitd);
size_t vitd_log_count(const struct vitd *vitd, const char *text);
void vitd_log_empty(const struct vitd *vitd);

/* ---- the result ---- */

/* Says on standard error which bound is broken, and what was measured. */
void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints "NAME: ...: ok" or "...: BROKEN"; the exit status. */
int result(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

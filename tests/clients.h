/*
 * clients.h - clients of the real daemon that go on in threads of their own, and words on a bare connection.
 */
#ifndef TESTS_CLIENTS_H
#define TESTS_CLIENTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/daemon.h"

/* One request, until client_end() has its reply. path, body and header are borrowed until then. */
struct client {
    pthread_t thread;
    const struct daemon *daemon;
    const char *method, *path, *header;
    const void *body;
    size_t length;
    struct reply reply;
};
void client_begin(struct client *client, const struct daemon *daemon, const char *method, const char *path,
                  const void *body, size_t length, const char *header);
struct reply client_end(struct client *client);

/* Several that post one picture again and again to paths that take turns, until they are told to stop. */
enum { CROWD_MAX = 16 };
struct crowd {
    const struct daemon *daemon;
    const char *const *paths; /* NULL-terminated */
    const void *body;
    size_t length;
    const char *header; /* NULL: none */
    size_t count;
    pthread_t threads[CROWD_MAX];
    atomic_int stop, ok, wrong, lost, refused; /* replies of 200; others; none that is whole; no connection */
    char first_wrong[512];
};
void crowd_begin(struct crowd *crowd, size_t count);
void crowd_end(struct crowd *crowd);

/* Sends a text. */
void say(int fd, const char *text);
/* What comes until the connection ends, or until `end` is there (NULL: its end); in 10 s. */
const char *hear(int fd, const char *end);

#endif

#include "tests/clients.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- one request ---- */

static void *ask(void *context)
{
    struct client *client = context;
    client->reply = daemon_request(client->daemon, client->method, client->path, NULL, client->body, client->length,
                                   client->header);
    return NULL;
}

void client_begin(struct client *client, const struct daemon *daemon, const char *method, const char *path,
                  const void *body, size_t length, const char *header)
{
    *client = (struct client){.daemon = daemon, .method = method, .path = path, .body = body, .length = length,
                              .header = header};
    ck_assert_int_eq(pthread_create(&client->thread, NULL, ask, client), 0);
}

struct reply client_end(struct client *client)
{
    pthread_join(client->thread, NULL);
    return client->reply;
}

/* ---- many ---- */

static void count_reply(struct crowd *crowd, const struct reply *reply)
{
    if (reply->curl == CURLE_COULDNT_CONNECT)
        atomic_fetch_add(&crowd->refused, 1);
    else if (reply->curl != CURLE_OK)
        atomic_fetch_add(&crowd->lost, 1);
    else if (reply->status == 200)
        atomic_fetch_add(&crowd->ok, 1);
    else if (atomic_fetch_add(&crowd->wrong, 1) == 0)
        snprintf(crowd->first_wrong, sizeof crowd->first_wrong, "%ld %.400s", reply->status, reply->body);
}

static void *post(void *context)
{
    struct crowd *crowd = context;
    for (size_t i = 0; !atomic_load(&crowd->stop); i++) {
        if (crowd->paths[i] == NULL)
            i = 0;
        struct reply reply = daemon_request(crowd->daemon, "POST", crowd->paths[i], NULL, crowd->body, crowd->length,
                                            crowd->header);
        count_reply(crowd, &reply);
        const bool closed = reply.curl == CURLE_COULDNT_CONNECT;
        reply_free(&reply);
        if (closed)
            usleep(10000);
    }
    return NULL;
}

void crowd_begin(struct crowd *crowd, size_t count)
{
    ck_assert_uint_le(count, CROWD_MAX);
    for (crowd->count = 0; crowd->count < count; crowd->count++)
        ck_assert_int_eq(pthread_create(&crowd->threads[crowd->count], NULL, post, crowd), 0);
}

void crowd_end(struct crowd *crowd)
{
    atomic_store(&crowd->stop, 1);
    for (size_t i = 0; i < crowd->count; i++)
        pthread_join(crowd->threads[i], NULL);
}

/* ---- a bare connection ---- */

void say(int fd, const char *text)
{
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

const char *hear(int fd, const char *end)
{
    static char answer[1 << 20];
    const struct timeval wait = {.tv_sec = 10};
    size_t got = 0;
    ssize_t n = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    answer[0] = '\0';
    while (n > 0 && (end == NULL || strstr(answer, end) == NULL)) {
        n = recv(fd, answer + got, sizeof answer - 1 - got, 0);
        ck_assert_msg(n >= 0, "nothing in 10 s after \"%s\"", answer);
        got += (size_t)n;
        answer[got] = '\0';
    }
    return answer;
}

/*
 * client.h - many HTTP/1.1 clients on one thread, cheap enough to leave the CPU to the daemon: epoll, messages put
 * together once, one send and one receive each.
 *
 *     clients_open(&clients, 8, port, done)
 *     client_send(&clients.all[0], &message)    connects if need be
 *     clients_turn(&clients, seconds)           calls done(client, end) for each request that has ended
 *
 * done() may send the next message. It is called from clients_turn() only.
 */
#ifndef TESTS_STRESS_CLIENT_H
#define TESTS_STRESS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { CLIENT_HEAD_BYTES = 4096 };

/* What is sent, header and body. */
struct message {
    char *bytes;
    size_t length;
    bool head;     /* the reply has no body */
    bool abandons; /* the client closes once it has sent it, and wants no reply */
};

enum client_end {
    CLIENT_REPLY,     /* a complete one */
    CLIENT_REFUSED,   /* there was no connection */
    CLIENT_RACED,     /* a kept-alive connection was closed, and none of the request had arrived: to be sent again */
    CLIENT_LOST,      /* something had arrived, and there was no complete reply */
    CLIENT_ABANDONED, /* as message.abandons wants */
    CLIENT_ENDS
};

struct client {
    struct clients *clients;
    size_t number; /* in clients.all */
    int fd;        /* -1: closed */
    bool busy;
    const struct message *message;
    size_t sent, may_send;         /* may_send: less than the message's length while client_send_part() holds back */
    size_t sent_before;            /* bytes of the connection's earlier requests */
    unsigned replies;              /* on this connection */
    size_t received, reply_bytes;  /* reply_bytes: header and body, 0 until the header is there */
    bool wants_out, last;          /* last: the daemon closes the connection after this reply */
    int status;                    /* of the last reply */
    double begun, sent_at, ended;  /* when it was to be sent, when its last byte was, when the reply was complete */
    char head[CLIENT_HEAD_BYTES];  /* of the reply, with as much of the body as came with it; NUL-terminated */
};

struct clients {
    struct client *all;
    size_t count, busy;
    int port, poller;
    size_t idle_closes; /* connections that were closed while no request was under way */
    size_t unasked;     /* bytes that nobody had asked for: a bug of the daemon */
    void (*done)(struct client *client, enum client_end end);
};

void clients_open(struct clients *clients, size_t count, int port, void (*done)(struct client *, enum client_end));
/* Closes every connection; requests under way are forgotten. */
void clients_close(struct clients *clients);
/* The client must not be busy. The message must live until the request has ended. */
void client_send(struct client *client, const struct message *message);
/* Sends the first `length` bytes; client_send_rest() sends what is left. */
void client_send_part(struct client *client, const struct message *message, size_t length);
void client_send_rest(struct client *client);
/* Waits for at most that many seconds until something happens, and handles it. */
void clients_turn(struct clients *clients, double seconds);
/* Turns until no client is busy, or for at most that long; how many are busy still. */
size_t clients_finish(struct clients *clients, double seconds);

/* Puts a message together: "METHOD target", header lines each ended by CRLF (may be ""), and a body (NULL: no
 * Content-Length either). message_release() frees it. */
struct message message_make(const char *request, const char *headers, const void *body, size_t length);
/* POST target with a file as its body. */
struct message message_post_file(const char *target, const char *headers, const char *path);
void message_release(struct message *message);

#endif

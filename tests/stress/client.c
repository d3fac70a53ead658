/*
 * client.c - see client.h.
 *
 * Which requests are lost? A server may close an idle connection at any time, also just when a client begins to use it
 * again; such a request is sent once more (RFC 9112, 9.3.1). Whether this is what has happened, the kernel knows: none
 * of the request's bytes was acknowledged. Once one was, the daemon has it, and owes a reply.
 */
#include "tests/stress/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/stress/common.h"

enum { EVENTS = 64 };

void clients_open(struct clients *clients, size_t count, int port, void (*done)(struct client *, enum client_end))
{
    *clients = (struct clients){.count = count, .port = port, .done = done, .poller = epoll_create1(EPOLL_CLOEXEC)};
    clients->all = allocate(count, sizeof *clients->all);
    if (clients->poller < 0)
        die("epoll");
    for (size_t i = 0; i < count; i++) {
        clients->all[i].clients = clients;
        clients->all[i].fd = -1;
        clients->all[i].number = i;
    }
}

static void close_connection(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

void clients_close(struct clients *clients)
{
    for (size_t i = 0; i < clients->count; i++)
        close_connection(&clients->all[i]);
    close(clients->poller);
    free(clients->all);
    *clients = (struct clients){.poller = -1};
}

/* ---- sending ---- */

static void watch(struct client *client, int operation, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0u), .data.ptr = client};
    if (epoll_ctl(client->clients->poller, operation, client->fd, &event) != 0)
        die("epoll_ctl");
    client->wants_out = out;
}

/* Does not wait for the connection; what goes wrong is seen by the first receive(). */
static void open_connection(struct client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)client->clients->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, room = (int)(2 * client->message->length); /* a message goes in one piece */
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        die("socket");
    setsockopt(client->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS &&
        errno != ECONNREFUSED)
        die("connect");
    client->replies = 0;
    client->sent_before = 0;
    watch(client, EPOLL_CTL_ADD, false);
}

static bool is_sent(const struct client *client)
{
    return client->sent == client->message->length;
}

/* Errors are left to receive(). */
static void send_more(struct client *client)
{
    while (client->sent < client->may_send) {
        const ssize_t n = send(client->fd, client->message->bytes + client->sent, client->may_send - client->sent,
                               MSG_NOSIGNAL);
        if (n < 0)
            break;
        client->sent += (size_t)n;
    }
    if (is_sent(client))
        client->sent_at = now();
    const bool out = client->sent < client->may_send || (is_sent(client) && client->message->abandons);
    if (out != client->wants_out)
        watch(client, EPOLL_CTL_MOD, out);
}

void client_send_part(struct client *client, const struct message *message, size_t length)
{
    client->message = message;
    client->sent = client->received = client->reply_bytes = 0;
    client->may_send = length;
    client->status = 0;
    client->last = false;
    client->busy = true;
    client->clients->busy++;
    client->begun = now();
    if (client->fd < 0)
        open_connection(client);
    send_more(client);
}

void client_send(struct client *client, const struct message *message)
{
    client_send_part(client, message, message->length);
}

void client_send_rest(struct client *client)
{
    client->may_send = client->message->length;
    send_more(client);
}

/* ---- the end of a request ---- */

static void finish(struct client *client, enum client_end end)
{
    client->ended = now();
    client->busy = false;
    client->clients->busy--;
    client->sent_before += client->sent;
    client->replies += end == CLIENT_REPLY;
    if (end != CLIENT_REPLY || client->last || !is_sent(client))
        close_connection(client);
    client->clients->done(client, end);
}

/* Whether anything of the request has arrived. The SYN counts as a byte. */
static bool was_received(const struct client *client)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    getsockopt(client->fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    return info.tcpi_bytes_acked > client->sent_before + 1;
}

static void handle_close(struct client *client)
{
    if (!client->busy) {
        client->clients->idle_closes++;
        close_connection(client);
    } else if (client->replies > 0 && client->received == 0 && !was_received(client)) {
        finish(client, CLIENT_RACED);
    } else {
        finish(client, client->replies == 0 && client->sent == 0 ? CLIENT_REFUSED : CLIENT_LOST);
    }
}

/* ---- receiving ---- */

/* Sets reply_bytes once the header is complete. */
static void parse_head(struct client *client)
{
    client->head[client->received] = '\0';
    const char *end = strstr(client->head, "\r\n\r\n");
    if (end == NULL)
        return;
    const char *length = strcasestr(client->head, "\r\ncontent-length:");
    const char *closes = strcasestr(client->head, "\r\nconnection: close");
    const size_t body = length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0;
    client->last = closes != NULL && closes < end;
    client->reply_bytes = (size_t)(end + 4 - client->head) + (client->message->head ? 0 : body);
    client->status = strncmp(client->head, "HTTP/1.1 ", 9) == 0 ? atoi(client->head + 9) : 0;
}

/* Receives all there is. Bytes after the first CLIENT_HEAD_BYTES are counted, not kept. */
static void receive(struct client *client)
{
    static char rest[1 << 16];
    for (;;) {
        const bool headless = client->busy && client->reply_bytes == 0;
        const size_t room = headless ? CLIENT_HEAD_BYTES - 1 - client->received : sizeof rest;
        const ssize_t n = recv(client->fd, headless ? client->head + client->received : rest, room, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) { /* a header without end, too */
            handle_close(client);
            return;
        }
        if (!client->busy) {
            client->clients->unasked += (size_t)n;
            continue;
        }
        client->received += (size_t)n;
        if (headless)
            parse_head(client);
        if (client->reply_bytes == 0 || client->received < client->reply_bytes)
            continue;
        client->clients->unasked += client->received - client->reply_bytes;
        finish(client, CLIENT_REPLY);
        return;
    }
}

static void handle(struct client *client, uint32_t events)
{
    if (client->fd >= 0 && client->busy && events & EPOLLOUT) {
        if (client->message->abandons && is_sent(client)) {
            finish(client, CLIENT_ABANDONED);
            return;
        }
        send_more(client);
    }
    if (client->fd >= 0 && events & ~(uint32_t)EPOLLOUT)
        receive(client);
}

void clients_turn(struct clients *clients, double seconds)
{
    struct epoll_event events[EVENTS];
    const double wait = seconds > 0 ? seconds : 0;
    const struct timespec timeout = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
    const int count = epoll_pwait2(clients->poller, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < count; i++)
        handle(events[i].data.ptr, events[i].events);
}

size_t clients_finish(struct clients *clients, double seconds)
{
    const double give_up = now() + seconds;
    for (double left; clients->busy > 0 && (left = give_up - now()) > 0;)
        clients_turn(clients, left);
    return clients->busy;
}

/* ---- messages ---- */

struct message message_make(const char *request, const char *headers, const void *body, size_t length)
{
    char count[48] = "";
    if (body != NULL)
        snprintf(count, sizeof count, "Content-Length: %zu\r\n", length);
    const size_t room = strlen(request) + strlen(headers) + strlen(count) + 64;
    struct message message = {.bytes = allocate(room + length, 1), .head = strncmp(request, "HEAD ", 5) == 0};
    const int head =
        snprintf(message.bytes, room, "%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s\r\n", request, headers, count);
    if (body != NULL)
        memcpy(message.bytes + head, body, length);
    message.length = (size_t)head + length;
    return message;
}

struct message message_post_file(const char *target, const char *headers, const char *path)
{
    char request[256];
    size_t length;
    char *body = read_file(path, &length);
    snprintf(request, sizeof request, "POST %s", target);
    struct message message = message_make(request, headers, body, length);
    free(body);
    return message;
}

void message_release(struct message *message)
{
    free(message->bytes);
    *message = (struct message){0};
}

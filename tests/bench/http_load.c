/*
 * http_load.c - posts files over N keep-alive connections as fast as answers come, and says how fast that was.
 *
 * usage: http_load HOST PORT PATH CLIENTS SECONDS FILE...
 *
 * One thread and epoll: it must leave the CPU to the daemon it measures. Requests are put together once; client i
 * starts with file i and takes the files in turn. A closed loop: each client waits for its answer.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_BYTES = 1 << 16, MAX_CLIENTS = 4096, MAX_SAMPLES = 1 << 22 };

struct request {
    char *bytes; /* header and body */
    size_t length;
};

struct client {
    int fd;
    size_t file, sent, received;
    double started;
    char reply[REPLY_BYTES];
};

static struct {
    struct request *requests;
    size_t request_count;
    double *latencies; /* [MAX_SAMPLES] seconds */
    size_t answered, failed;
} load;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct request read_request(const char *host, const char *path, const char *name)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die(name);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(size + 1024);
    if (bytes == NULL)
        die(name);
    int head = snprintf(bytes, 1024, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n\r\n", path, host, size);
    if (fread(bytes + head, 1, size, file) != size)
        die(name);
    fclose(file);
    return (struct request){bytes, (size_t)head + size};
}

static int open_connection(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || fd < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void send_more(struct client *client)
{
    const struct request *request = &load.requests[client->file];
    while (client->sent < request->length) {
        ssize_t n = send(client->fd, request->bytes + client->sent, request->length - client->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0)
            die("send");
        client->sent += (size_t)n;
    }
}

static void start_request(struct client *client)
{
    client->file = (client->file + 1) % load.request_count;
    client->sent = client->received = 0;
    client->started = now();
    send_more(client);
}

/* Whether the whole reply is there. */
static int complete(const struct client *client)
{
    const char *end = memmem(client->reply, client->received, "\r\n\r\n", 4);
    const char *length = end != NULL ? strcasestr(client->reply, "content-length: ") : NULL;
    if (length == NULL || length > end)
        return 0;
    return client->received >= (size_t)(end + 4 - client->reply) + strtoul(length + 16, NULL, 10);
}

static void receive(struct client *client)
{
    ssize_t n = recv(client->fd, client->reply + client->received, REPLY_BYTES - 1 - client->received, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0)
        die("the daemon closed a connection");
    client->received += (size_t)n;
    client->reply[client->received] = '\0';
    if (!complete(client))
        return;
    if (strncmp(client->reply, "HTTP/1.1 200 ", 13) != 0)
        load.failed++;
    if (load.answered < MAX_SAMPLES)
        load.latencies[load.answered] = now() - client->started;
    load.answered++;
    start_request(client);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double part)
{
    size_t count = load.answered < MAX_SAMPLES ? load.answered : MAX_SAMPLES;
    return 1e3 * load.latencies[(size_t)(part * (double)(count - 1))];
}

static void run_until(int poller, double end)
{
    struct epoll_event events[64];
    for (double left; (left = end - now()) > 0;) {
        int count = epoll_wait(poller, events, 64, (int)(left * 1e3) + 1);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (events[i].events & EPOLLOUT && client->sent < load.requests[client->file].length)
                send_more(client);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(client);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 7 || atoi(argv[4]) < 1 || atoi(argv[4]) > MAX_CLIENTS || atof(argv[5]) <= 0) {
        fprintf(stderr, "usage: http_load HOST PORT PATH CLIENTS SECONDS FILE...\n");
        return 2;
    }
    const int clients = atoi(argv[4]), poller = epoll_create1(0);
    const double seconds = atof(argv[5]);
    load.request_count = (size_t)argc - 6;
    load.requests = calloc(load.request_count, sizeof *load.requests);
    load.latencies = malloc(MAX_SAMPLES * sizeof *load.latencies);
    struct client *all = calloc((size_t)clients, sizeof *all);
    if (load.requests == NULL || load.latencies == NULL || all == NULL || poller < 0)
        die("start");
    for (size_t i = 0; i < load.request_count; i++)
        load.requests[i] = read_request(argv[1], argv[3], argv[6 + i]);
    for (int i = 0; i < clients; i++) {
        all[i] = (struct client){.fd = open_connection(argv[1], atoi(argv[2])), .file = (size_t)i % load.request_count};
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event) != 0)
            die("epoll");
        start_request(&all[i]);
    }
    run_until(poller, now() + 1); /* warm-up */
    load.answered = 0;
    const double start = now();
    run_until(poller, start + seconds);
    if (load.answered == 0) {
        errno = ETIMEDOUT;
        die("no answer");
    }
    const double elapsed = now() - start;
    const size_t count = load.answered;
    qsort(load.latencies, count < MAX_SAMPLES ? count : MAX_SAMPLES, sizeof *load.latencies, by_value);
    printf("%4d clients %8.1f images/s   p50 %7.1f  p95 %7.1f  p99 %7.1f ms   %zu failed\n", clients,
           (double)count / elapsed, percentile(0.5), percentile(0.95), percentile(0.99), load.failed);
    return load.failed > 0;
}

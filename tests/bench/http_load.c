/*
 * http_load.c - posts files over keep-alive connections, and says how fast and how late the answers came.
 *
 * A closed loop (--clients) has N clients that each wait for their answer: it finds the most that the daemon can do. An
 * open loop (--rate) has arrivals of a Poisson process, which do not care how busy the daemon is: it finds how long
 * users wait. There a latency counts from the scheduled arrival, also where the request had to wait for a connection or
 * for this program; counting from the moment of sending would leave out the very delays that a slow daemon causes
 * ("coordinated omission").
 *
 * Both are one loop: dispatch() sends what is due on the connections that are free. A run warms up, measures, and then
 * waits for what is still under way, so that the next run finds the daemon idle and no slow answer is left out. It must
 * leave the CPU to the daemon: one thread, epoll, requests put together once, one send and one receive each; load_cpu
 * says what it took nevertheless.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 4096, MAX_CONNECTIONS = 4096, MAX_SAMPLES = 1 << 22, EVENTS = 64 };

static const double warm_up_seconds = 1, drain_seconds = 40; /* vitd gives up on a request after 30 */
static const double idle_seconds = 10;                       /* vitd closes an idle connection after 15 */

static const char usage_text[] =
    "usage: http_load (--clients N | --rate R) [OPTION]... HOST PORT PATH FILE...\n"
    "\n"
    "Posts the files in turn to http://HOST:PORT/PATH (HOST: a numeric IPv4 address) and prints one line: images per\n"
    "second, and percentiles of the latency. A warm-up goes before: 1 s, and an answer for each client. An answer\n"
    "other than 200 and a lost connection are failures, in the warm-up too. Exits with 1 if there was any.\n"
    "\n"
    "  --clients N      closed loop: N clients, each waits for its answer before it asks again\n"
    "  --rate R         open loop: R Poisson arrivals per second; latency counts from the scheduled arrival\n"
    "  --seconds S      how long to measure (default 8)\n"
    "  --connections N  open loop: at most so many at once; later arrivals wait for one (default 256)\n"
    "  --seed N         open loop: which arrivals; the same seed gives the same ones (default 1)\n"
    "  --header LINE    one more header, as \"Name: value\"\n"
    "  --json           print an object instead: mode (closed or open), clients, or rate and offered (the arrivals\n"
    "                   per second of this seed), images_per_second, p50_ms, p95_ms, p99_ms, answered, failed,\n"
    "                   load_cpu (CPU time that http_load itself took, as a share of one core)\n"
    "  --help           show this\n";

struct options {
    long clients, connections, port, seed;
    double rate, seconds; /* rate 0: a closed loop */
    bool json;
    const char *host, *path, *header; /* header: "" or a line, without its end */
};

struct request {
    char *bytes; /* header and body */
    size_t length;
};

struct connection {
    int fd; /* -1: closed */
    bool busy, last; /* last: the daemon closes it after this reply */
    const struct request *request;
    size_t sent, received, reply_bytes; /* reply_bytes: header and body, 0 until the header is there */
    double due, freed;                  /* latency counts from due; freed: when it was last used */
    char head[HEAD_BYTES];
};

static struct {
    const struct options *options;
    struct request *requests; /* taken in turn */
    size_t request_count, next_request, longest; /* longest: bytes */
    struct connection *connections;
    struct connection **free; /* the last is the next to use: few connections serve a low rate */
    size_t free_count, connection_count;
    double *arrivals; /* open loop: scheduled times, ascending */
    size_t arrival_count, next_arrival;
    int poller, timer;
    double timer_at;
    double start, end, last_answer; /* what is measured; closed loop: infinity during the warm-up */
    double *latencies;              /* [MAX_SAMPLES] seconds */
    size_t answered, failed, finished; /* answered: with 200, and measured; finished: all */
} load;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void die(const char *what)
{
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("out of memory");
    return memory;
}

/* ---- connections ---- */

static struct request read_request(const struct options *options, const char *name)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die(name);
    const size_t size = (size_t)ftell(file);
    const size_t room = 256 + strlen(options->path) + strlen(options->host) + strlen(options->header);
    rewind(file);
    char *bytes = allocate(size + room, 1);
    int head = snprintf(bytes, room, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n%s%s\r\n", options->path,
                        options->host, size, options->header, *options->header ? "\r\n" : "");
    if (fread(bytes + head, 1, size, file) != size)
        die(name);
    fclose(file);
    return (struct request){bytes, (size_t)head + size};
}

static void open_connection(struct connection *connection)
{
    const struct options *options = load.options;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    int room = (int)(2 * load.longest); /* a request goes in one piece: no second send, and nobody wakes up for it */
    if (inet_pton(AF_INET, options->host, &address.sin_addr) != 1 || fd < 0)
        die(options->host);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(load.poller, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll");
    connection->fd = fd;
}

static void close_connection(struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
}

/* The request is over: `good` if it was answered with 200. */
static void finish(struct connection *connection, bool good)
{
    const double time = now(), counts = load.arrivals != NULL ? connection->due : time;
    connection->busy = false;
    connection->freed = time;
    load.free[load.free_count++] = connection;
    load.finished++;
    if (!good)
        load.failed++;
    if (!good || counts < load.start || counts >= load.end || load.answered == MAX_SAMPLES)
        return;
    load.latencies[load.answered++] = time - connection->due;
    load.last_answer = time;
}

static void lose(struct connection *connection)
{
    close_connection(connection);
    if (connection->busy)
        finish(connection, false);
}

static void send_more(struct connection *connection)
{
    const struct request *request = connection->request;
    while (connection->sent < request->length) {
        ssize_t n = send(connection->fd, request->bytes + connection->sent, request->length - connection->sent,
                         MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            lose(connection);
            return;
        }
        connection->sent += (size_t)n;
    }
}

static void start_request(struct connection *connection, double due, double time)
{
    if (connection->fd >= 0 && time - connection->freed > idle_seconds)
        close_connection(connection);
    connection->request = &load.requests[load.next_request];
    load.next_request = (load.next_request + 1) % load.request_count;
    if (connection->fd < 0)
        open_connection(connection);
    connection->sent = connection->received = connection->reply_bytes = 0;
    connection->due = due;
    connection->busy = true;
    send_more(connection);
}

/* Sets reply_bytes once the header is complete. */
static void parse_head(struct connection *connection)
{
    connection->head[connection->received] = '\0';
    const char *end = strstr(connection->head, "\r\n\r\n");
    const char *length = strcasestr(connection->head, "\r\ncontent-length:");
    const char *closes = strcasestr(connection->head, "\r\nconnection: close");
    connection->last = closes != NULL && closes < end;
    if (end != NULL && length != NULL && length < end)
        connection->reply_bytes = (size_t)(end + 4 - connection->head) + strtoul(length + 17, NULL, 10);
}

/* Receives all there is. Bytes after the header are counted, not kept. */
static void receive(struct connection *connection)
{
    static char body[1 << 16];
    for (;;) {
        const bool headless = connection->reply_bytes == 0;
        const size_t room = headless ? HEAD_BYTES - 1 - connection->received : sizeof body;
        ssize_t n = recv(connection->fd, headless ? connection->head + connection->received : body, room, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0 || !connection->busy) { /* closed, a header without end, or an answer that nobody asked for */
            lose(connection);
            return;
        }
        connection->received += (size_t)n;
        if (headless)
            parse_head(connection);
        if (connection->reply_bytes > 0 && connection->received >= connection->reply_bytes) {
            if (connection->last || connection->sent < connection->request->length) /* refused, maybe early */
                close_connection(connection);
            finish(connection, strncmp(connection->head, "HTTP/1.1 200 ", 13) == 0);
            return;
        }
    }
}

/* ---- the loop ---- */

/* Sends what is due on the connections that are free. */
static void dispatch(void)
{
    const double time = now();
    for (size_t left = load.free_count; left > 0; left--) { /* what fails at once is not tried again here */
        double due = time;
        if (load.arrivals == NULL && time >= load.end)
            return;
        if (load.arrivals != NULL) {
            if (load.next_arrival == load.arrival_count || load.arrivals[load.next_arrival] > time)
                return;
            due = load.arrivals[load.next_arrival++];
        }
        start_request(load.free[--load.free_count], due, time);
    }
}

static void set_timer(double at)
{
    const time_t seconds = (time_t)at;
    const struct itimerspec when = {.it_value = {seconds, (long)((at - (double)seconds) * 1e9)}};
    if (at == load.timer_at)
        return;
    if (timerfd_settime(load.timer, TFD_TIMER_ABSTIME, &when, NULL) != 0)
        die("timer");
    load.timer_at = at;
}

/* One turn: sends what is due, then sleeps until an answer, the next arrival or `until`. */
static void turn(double until)
{
    const uint32_t closed = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    struct epoll_event events[EVENTS];
    dispatch();
    if (load.free_count > 0 && load.next_arrival < load.arrival_count)
        until = fmin(until, load.arrivals[load.next_arrival]);
    else if (load.free_count > 0 && load.arrivals == NULL && now() < load.end)
        until = now(); /* a client has lost its connection: dispatch() again */
    set_timer(until);
    const int count = epoll_wait(load.poller, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection == NULL) { /* the timer: it rings once */
            load.timer_at = 0;
            continue;
        }
        if (connection->fd < 0)
            continue;
        if (events[i].events & (EPOLLIN | closed))
            receive(connection);
        if (connection->fd >= 0 && events[i].events & closed) /* after its reply */
            lose(connection);
        if (connection->busy && connection->fd >= 0 && events[i].events & EPOLLOUT)
            send_more(connection);
    }
}

/* Arrivals of a Poisson process from `first` on for `seconds`. */
static void schedule_arrivals(double first, double seconds)
{
    const struct options *options = load.options;
    const double mean = options->rate * seconds;
    const size_t room = (size_t)(mean + 10 * sqrt(mean) + 16); /* ten standard deviations */
    load.arrivals = allocate(room, sizeof *load.arrivals);
    srand48(options->seed);
    for (double at = first; load.arrival_count < room; load.arrival_count++) {
        at -= log(1 - drand48()) / options->rate;
        if (at >= first + seconds)
            break;
        load.arrivals[load.arrival_count] = at;
    }
}

static void warm_up(void)
{
    const struct options *options = load.options;
    const double begin = now(), give_up = begin + drain_seconds;
    load.start = options->rate > 0 ? begin + warm_up_seconds : INFINITY;
    load.end = load.start + options->seconds;
    if (options->rate > 0)
        schedule_arrivals(begin, warm_up_seconds + options->seconds);
    while (now() < begin + warm_up_seconds)
        turn(begin + warm_up_seconds);
    while (options->rate <= 0 && load.finished < load.connection_count && now() < give_up)
        turn(give_up);
    load.start = fmin(load.start, now());
    load.end = load.start + options->seconds;
}

static void drain(void)
{
    const double give_up = now() + drain_seconds;
    while ((load.free_count < load.connection_count || load.next_arrival < load.arrival_count) && now() < give_up)
        turn(give_up);
    load.failed += load.connection_count - load.free_count + load.arrival_count - load.next_arrival;
}

/* Returns its own CPU time while it measured, as a share of one core. */
static double run(void)
{
    warm_up();
    const double used = cpu_seconds(), from = now();
    while (now() < load.end)
        turn(load.end);
    const double share = (cpu_seconds() - used) / (now() - from);
    drain();
    return share;
}

/* ---- what it says ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(double part)
{
    return 1e3 * load.latencies[(size_t)(part * (double)(load.answered - 1))];
}

static void print_json(const struct options *options, double offered, double images, double load_cpu)
{
    if (options->rate > 0)
        printf("{\"mode\": \"open\", \"rate\": %.2f, \"offered\": %.2f", options->rate, offered);
    else
        printf("{\"mode\": \"closed\", \"clients\": %ld", options->clients);
    printf(", \"images_per_second\": %.2f, \"p50_ms\": %.2f, \"p95_ms\": %.2f, \"p99_ms\": %.2f, \"answered\": %zu, "
           "\"failed\": %zu, \"load_cpu\": %.4f}\n", images, percentile_ms(.5), percentile_ms(.95), percentile_ms(.99),
           load.answered, load.failed, load_cpu);
}

static void print_line(const struct options *options, double offered, double images, double load_cpu)
{
    if (options->rate > 0)
        printf("%.1f arrivals/s", offered);
    else
        printf("%ld clients", options->clients);
    printf(": %.1f images/s, p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, %zu failed, load %.1f %% of a core\n", images,
           percentile_ms(.5), percentile_ms(.95), percentile_ms(.99), load.failed, 100 * load_cpu);
}

static void report(const struct options *options, double load_cpu)
{
    size_t arrived = 0;
    for (size_t i = 0; i < load.arrival_count; i++)
        arrived += load.arrivals[i] >= load.start;
    const double images = (double)load.answered / (fmax(load.end, load.last_answer) - load.start);
    qsort(load.latencies, load.answered, sizeof *load.latencies, by_value);
    (options->json ? print_json : print_line)(options, (double)arrived / options->seconds, images, load_cpu);
}

/* ---- the command line ---- */

static void usage_error(const char *problem, const char *value)
{
    fprintf(stderr, "http_load: %s%s; see http_load --help\n", problem, value);
    exit(2);
}

static double number(const char *refusal, const char *text, double least, double most, bool whole)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most) || (whole && value != floor(value)))
        usage_error(refusal, text);
    return value;
}

static struct options parse(int argc, char **argv)
{
    static const struct option list[] = {
        {"clients", 1, NULL, 'c'}, {"rate", 1, NULL, 'r'}, {"seconds", 1, NULL, 's'}, {"connections", 1, NULL, 'n'},
        {"seed", 1, NULL, 'e'},    {"header", 1, NULL, 'a'}, {"json", 0, NULL, 'j'}, {"help", 0, NULL, 'h'},    {0}};
    const double most = MAX_CONNECTIONS;
    struct options options = {.connections = 256, .seed = 1, .seconds = 8, .header = ""};
    for (int id; (id = getopt_long(argc, argv, "", list, NULL)) != -1;)
        switch (id) {
        case 'c': options.clients = (long)number("--clients cannot be ", optarg, 1, most, true); break;
        case 'r': options.rate = number("--rate cannot be ", optarg, 1e-3, 1e6, false); break;
        case 's': options.seconds = number("--seconds cannot be ", optarg, 1e-3, 86400, false); break;
        case 'n': options.connections = (long)number("--connections cannot be ", optarg, 1, most, true); break;
        case 'e': options.seed = (long)number("--seed cannot be ", optarg, 0, INT32_MAX, true); break;
        case 'a': options.header = optarg; break;
        case 'j': options.json = true; break;
        case 'h': fputs(usage_text, stdout); exit(0);
        default: exit(2);
        }
    if ((options.clients > 0) == (options.rate > 0))
        usage_error("either --clients or --rate is needed", "");
    if (options.rate * options.seconds > MAX_SAMPLES / 2)
        usage_error("too many arrivals", "");
    if (argc - optind < 4)
        usage_error("HOST PORT PATH FILE... are needed", "");
    options.host = argv[optind];
    options.port = (long)number("PORT cannot be ", argv[optind + 1], 1, 65535, true);
    options.path = argv[optind + 2];
    return options;
}

int main(int argc, char **argv)
{
    const struct options options = parse(argc, argv);
    load.options = &options;
    load.connection_count = (size_t)(options.rate > 0 ? options.connections : options.clients);
    load.connections = allocate(load.connection_count, sizeof *load.connections);
    load.free = allocate(load.connection_count, sizeof *load.free);
    load.latencies = allocate(MAX_SAMPLES, sizeof *load.latencies);
    load.request_count = (size_t)(argc - optind - 3);
    load.requests = allocate(load.request_count, sizeof *load.requests);
    for (size_t i = 0; i < load.request_count; i++) {
        load.requests[i] = read_request(&options, argv[optind + 3 + (int)i]);
        load.longest = load.requests[i].length > load.longest ? load.requests[i].length : load.longest;
    }
    for (size_t i = load.connection_count; i-- > 0;) {
        load.connections[i].fd = -1;
        load.free[load.free_count++] = &load.connections[i];
    }
    load.poller = epoll_create1(EPOLL_CLOEXEC);
    load.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event ring = {.events = EPOLLIN | EPOLLET};
    if (load.poller < 0 || load.timer < 0 || epoll_ctl(load.poller, EPOLL_CTL_ADD, load.timer, &ring) != 0)
        die("start");
    const double load_cpu = run();
    if (load.answered == 0) {
        fprintf(stderr, "http_load: no answer with 200 while it measured, %zu failures\n", load.failed);
        return 1;
    }
    report(&options, load_cpu);
    return load.failed > 0;
}

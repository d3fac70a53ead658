#include "tests/stress/common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATH_ROOM = 64, START_SECONDS = 60, SHOWN_LOG = 2000 };

static int broken_bounds;

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sleep_seconds(double seconds)
{
    const time_t whole = (time_t)seconds;
    nanosleep(&(struct timespec){whole, (long)((seconds - (double)whole) * 1e9)}, NULL);
}

void die(const char *what)
{
    fprintf(stderr, "stress: %s: %s\n", what, strerror(errno));
    exit(2);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("allocate");
    return memory;
}

long setting(const char *name, long otherwise, long least)
{
    const char *text = getenv(name);
    char *end;
    if (text == NULL || *text == '\0')
        return otherwise;
    const long value = strtol(text, &end, 10);
    if (*end != '\0' || value < least) {
        fprintf(stderr, "stress: %s=%s: a whole number of at least %ld is needed\n", name, text, least);
        exit(2);
    }
    return value;
}

double random_part(void)
{
    static bool seeded;
    if (!seeded)
        srand48(setting("STRESS_SEED", 1, 0));
    seeded = true;
    return drand48();
}

double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

void allow_many_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        die("RLIMIT_NOFILE");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* ---- files ---- */

char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die(path);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = allocate(size + 1, 1);
    if (fread(bytes, 1, size, file) != size)
        die(path);
    fclose(file);
    *length = size;
    return bytes;
}

void write_file(const char *path, const char *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        die(path);
}

/* ---- samples ---- */

void samples_add(struct samples *samples, double value)
{
    if (samples->count == samples->room) {
        samples->room = samples->room > 0 ? 2 * samples->room : 1024;
        samples->values = realloc(samples->values, samples->room * sizeof *samples->values);
        if (samples->values == NULL)
            die("allocate");
    }
    samples->values[samples->count++] = value;
}

void samples_release(struct samples *samples)
{
    free(samples->values);
    *samples = (struct samples){0};
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_at(struct samples *samples, double part)
{
    if (samples->count == 0)
        return 0;
    qsort(samples->values, samples->count, sizeof *samples->values, by_value);
    return samples->values[(size_t)(part * (double)(samples->count - 1))];
}

/* ---- the daemon ---- */

static const char *file_of(const struct vitd *vitd, const char *name)
{
    static char path[PATH_ROOM];
    snprintf(path, sizeof path, "%.31s/%s", vitd->folder, name);
    return path;
}

static void spawn(struct vitd *vitd)
{
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    char port[16], config[PATH_ROOM];
    snprintf(port, sizeof port, "%d", vitd->port);
    snprintf(config, sizeof config, "%s", file_of(vitd, "vitd.json"));
    const int log = open(file_of(vitd, "log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || (vitd->pid = fork()) < 0)
        die("start vitd");
    if (vitd->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(log, STDERR_FILENO);
        execl(binary, binary, "serve", "--config", config, "--port", port, NULL);
        _exit(127);
    }
    close(log);
}

/* The port in "listening on http://127.0.0.1:PORT (", or 0. */
static int port_in(const char *log)
{
    static const char before[] = "listening on http://127.0.0.1:";
    const char *line = strstr(log, before);
    return line != NULL && strchr(line, '\n') != NULL ? atoi(line + strlen(before)) : 0;
}

static _Noreturn void give_up(const struct vitd *vitd, const char *problem)
{
    const char *log = vitd_log(vitd);
    const size_t length = strlen(log);
    fprintf(stderr, "%s\nstress: vitd %s\n", log + (length > SHOWN_LOG ? length - SHOWN_LOG : 0), problem);
    exit(2);
}

struct vitd vitd_start(const char *config, int port)
{
    struct vitd vitd = {.port = port, .folder = "/tmp/vitd-stress-XXXXXX"};
    if (mkdtemp(vitd.folder) == NULL)
        die(vitd.folder);
    write_file(file_of(&vitd, "vitd.json"), config, strlen(config));
    spawn(&vitd);
    const double start = now();
    for (int listens = 0; listens == 0;) {
        int status;
        if (vitd_ended(&vitd, &status))
            give_up(&vitd, "ended at its start");
        if (now() - start > START_SECONDS)
            give_up(&vitd, "is not ready");
        char *log = vitd_log(&vitd);
        listens = port_in(log);
        free(log);
        if (listens > 0)
            vitd.port = listens;
        else
            sleep_seconds(.001);
    }
    return vitd;
}

bool vitd_ended(struct vitd *vitd, int *status)
{
    const pid_t ended = waitpid(vitd->pid, status, WNOHANG);
    if (ended < 0)
        die("waitpid");
    if (ended > 0)
        vitd->pid = 0;
    return ended > 0;
}

int vitd_wait(struct vitd *vitd)
{
    int status = 0;
    if (waitpid(vitd->pid, &status, 0) < 0)
        die("waitpid");
    vitd->pid = 0;
    return status;
}

void vitd_stop(struct vitd *vitd)
{
    if (kill(vitd->pid, SIGTERM) != 0)
        die("kill");
    if (vitd_wait(vitd) != 0)
        give_up(vitd, "did not end with status 0");
    vitd_release(vitd);
}

void vitd_release(struct vitd *vitd)
{
    unlink(file_of(vitd, "log"));
    unlink(file_of(vitd, "vitd.json"));
    rmdir(vitd->folder);
}

long vitd_memory(const struct vitd *vitd, const char *field)
{
    char path[PATH_ROOM], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)vitd->pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        die(path);
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
            kib = atol(line + strlen(field) + 1);
    fclose(file);
    return kib;
}

/* The reply to GET /metrics, NUL-terminated, to be freed. */
static char *read_metrics(const struct vitd *vitd)
{
    enum { ROOM = 1 << 20 };
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)vitd->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char *text = allocate(ROOM, 1);
    size_t length = 0;
    ssize_t more;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1)
        die("GET /metrics");
    while ((more = recv(fd, text + length, ROOM - 1 - length, 0)) > 0)
        length += (size_t)more;
    close(fd);
    return text;
}

double vitd_metric(const struct vitd *vitd, const char *name)
{
    char line[128], *text = read_metrics(vitd);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *found = strstr(text, line);
    if (found == NULL)
        die(name);
    const double value = atof(found + strlen(line));
    free(text);
    return value;
}

char *vitd_log(const struct vitd *vitd)
{
    size_t length;
    return read_file(file_of(vitd, "log"), &length);
}

size_t vitd_log_count(const struct vitd *vitd, const char *text)
{
    char *log = vitd_log(vitd);
    size_t count = 0;
    for (const char *at = log; (at = strstr(at, text)) != NULL; at += strlen(text))
        count++;
    free(log);
    return count;
}

void vitd_log_empty(const struct vitd *vitd)
{
    if (truncate(file_of(vitd, "log"), 0) != 0)
        die("truncate");
}

/* ---- the result ---- */

void broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("  broken: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    broken_bounds++;
}

int result(const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%s: ", name);
    vprintf(format, arguments);
    puts(broken_bounds > 0 ? ": BROKEN" : ": ok");
    va_end(arguments);
    return broken_bounds > 0;
}

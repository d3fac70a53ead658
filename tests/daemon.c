#include "tests/daemon.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 160, START_SECONDS = 60 };

double test_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

unsigned char *test_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*length + 1);
    ck_assert_uint_eq(fread(bytes, 1, *length, file), *length);
    bytes[*length] = '\0';
    fclose(file);
    return bytes;
}

/* ---- the process ---- */

void daemon_write_config(char *path, const char *config)
{
    const bool fresh = path[0] == '\0';
    if (fresh)
        strcpy(path, "/tmp/vitd-config-XXXXXX");
    int fd = fresh ? mkstemp(path) : open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, config, strlen(config)), (ssize_t)strlen(config));
    close(fd);
}

/* Sockets that are passed. */
struct passed {
    const int *fds;
    size_t count;
};

/* In the child, as sd_listen_fds(3) says. */
static void pass_sockets(const struct passed *passed)
{
    enum { FIRST = 3, OUT_OF_THE_WAY = 100 };
    const int count = (int)passed->count;
    char text[16];
    for (int i = 0; i < count; i++)
        dup2(passed->fds[i], OUT_OF_THE_WAY + i);
    for (int i = 0; i < count; i++) {
        dup2(OUT_OF_THE_WAY + i, FIRST + i);
        close(OUT_OF_THE_WAY + i);
    }
    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof text, "%d", count);
    setenv("LISTEN_FDS", text, 1);
}

static pid_t spawn(const char *binary, const char *const *arguments, int log_fd, const struct passed *passed)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(log_fd, STDERR_FILENO);
        if (passed->count > 0)
            pass_sockets(passed);
        execv(binary, (char *const *)arguments);
        _exit(127);
    }
    return pid;
}

/* The last of a log, short enough for a Check message. */
static const char *tail(const char *log)
{
    const size_t length = strlen(log);
    return length > 3000 ? log + length - 3000 : log;
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

/* Whether the log says that it listens on so many sockets; then the port in "listening on http://127.0.0.1:PORT (". */
static bool is_ready(const char *log, int sockets, int *port)
{
    const char *http = strstr(log, "listening on http"), *end = http != NULL ? strstr(http, " (") : NULL;
    if (count_of(log, "listening on ") < sockets || log[strlen(log) - 1] != '\n')
        return false;
    while (end != NULL && *end != ':')
        end--;
    *port = end != NULL ? atoi(end + 1) : 0;
    return true;
}

static const struct passed none;

/* config_path "": no configuration. */
static struct daemon launch(const char *config_path, int port, const char *const *arguments,
                            const struct passed *passed)
{
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    char port_text[16];
    const char *argv[MAX_ARGUMENTS] = {binary, "serve", "--port", port_text};
    size_t count = 4;
    snprintf(port_text, sizeof port_text, "%d", port);
    if (config_path[0] != '\0') {
        argv[count++] = "--config";
        argv[count++] = config_path;
    }
    for (size_t i = 0; arguments != NULL && arguments[i] != NULL; i++) {
        ck_assert_uint_lt(count + 1, MAX_ARGUMENTS);
        argv[count++] = arguments[i];
    }
    struct daemon daemon = {.port = port, .log_path = "/tmp/vitd-log-XXXXXX"};
    daemon.log_fd = mkstemp(daemon.log_path);
    daemon.pid = spawn(binary, argv, daemon.log_fd, passed);
    return daemon;
}

static struct daemon start(const char *config_path, const char *const *arguments, const struct passed *passed)
{
    struct daemon daemon = launch(config_path, 0, arguments, passed);
    const double start = test_clock();
    for (bool ready = false; !ready;) {
        char *log = daemon_log(&daemon);
        ck_assert_msg(waitpid(daemon.pid, NULL, WNOHANG) == 0, "vitd ended at start: %s", tail(log));
        ck_assert_msg(test_clock() - start < START_SECONDS, "vitd is not ready: %s", tail(log));
        ready = is_ready(log, passed->count > 0 ? (int)passed->count : 1, &daemon.port);
        free(log);
        sleep_ms(5);
    }
    return daemon;
}

struct daemon daemon_start_file(const char *path, const char *const *arguments)
{
    return start(path, arguments, &none);
}

struct daemon daemon_start(const char *config, const char *const *arguments)
{
    char path[64] = "";
    if (config != NULL)
        daemon_write_config(path, config);
    struct daemon daemon = start(path, arguments, &none);
    if (config != NULL)
        unlink(path);
    return daemon;
}

struct daemon daemon_start_passed(const char *config, int fd)
{
    char path[64] = "";
    daemon_write_config(path, config);
    struct daemon daemon = daemon_start_on(&fd, 1, path);
    unlink(path);
    return daemon;
}

struct daemon daemon_start_on(const int *fds, size_t count, const char *path)
{
    return start(path, NULL, &(struct passed){fds, count});
}

char *daemon_fail(const char *path)
{
    struct daemon daemon = launch(path, 0, NULL, &none);
    int status = 0, port;
    while (waitpid(daemon.pid, &status, WNOHANG) == 0) {
        char *so_far = daemon_log(&daemon);
        if (is_ready(so_far, 1, &port)) {
            kill(daemon.pid, SIGKILL);
            ck_abort_msg("vitd started: %s", tail(so_far));
        }
        free(so_far);
        sleep_ms(5);
    }
    char *log = daemon_log(&daemon);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 0, "wait status %d, log: %s", status, tail(log));
    close(daemon.log_fd);
    unlink(daemon.log_path);
    return log;
}

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

struct daemon daemon_start_file_loading(const char *path)
{
    struct daemon daemon = launch(path, free_port(), NULL, &none);
    const double start = test_clock();
    for (bool answers = false; !answers;) {
        ck_assert_msg(waitpid(daemon.pid, NULL, WNOHANG) == 0, "vitd ended at start");
        ck_assert_double_lt(test_clock() - start, START_SECONDS);
        struct reply reply = daemon_get(&daemon, "/healthz");
        answers = reply.curl == CURLE_OK;
        reply_free(&reply);
        sleep_ms(5);
    }
    return daemon;
}

struct daemon daemon_start_loading(const char *config)
{
    char path[64] = "";
    daemon_write_config(path, config);
    struct daemon daemon = daemon_start_file_loading(path);
    unlink(path);
    return daemon;
}

char *daemon_log(const struct daemon *daemon)
{
    size_t length;
    return (char *)test_file(daemon->log_path, &length);
}

int daemon_logged(const struct daemon *daemon, const char *text)
{
    char *log = daemon_log(daemon);
    const int times = count_of(log, text);
    free(log);
    return times;
}

void daemon_await_log(const struct daemon *daemon, const char *text, int times)
{
    const double start = test_clock();
    while (daemon_logged(daemon, text) < times) {
        char *log = daemon_log(daemon);
        ck_assert_msg(test_clock() - start < START_SECONDS, "not %d times \"%s\": %s", times, text, tail(log));
        free(log);
        sleep_ms(5);
    }
}

bool daemon_reload(const struct daemon *daemon)
{
    static const char done[] = " reloaded: ", refused[] = " reload refused, ";
    const int done_before = daemon_logged(daemon, done), refused_before = daemon_logged(daemon, refused);
    const double start = test_clock();
    ck_assert_int_eq(kill(daemon->pid, SIGHUP), 0);
    while (daemon_logged(daemon, refused) == refused_before) {
        if (daemon_logged(daemon, done) > done_before)
            return true;
        ck_assert_msg(test_clock() - start < START_SECONDS, "vitd does not reload");
        sleep_ms(5);
    }
    return false;
}

int daemon_wait(struct daemon *daemon)
{
    int status = 0;
    ck_assert_int_eq(waitpid(daemon->pid, &status, 0), daemon->pid);
    daemon->pid = 0;
    return status;
}

double daemon_stop(struct daemon *daemon)
{
    ck_assert_int_eq(kill(daemon->pid, SIGTERM), 0);
    return daemon_end(daemon);
}

double daemon_end(struct daemon *daemon)
{
    const double start = test_clock();
    int status = daemon_wait(daemon);
    char *log = daemon_log(daemon);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %d, log: %s", status, tail(log));
    free(log);
    close(daemon->log_fd);
    unlink(daemon->log_path);
    return test_clock() - start;
}

long daemon_memory(const struct daemon *daemon, const char *field)
{
    char path[64], line[256];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)daemon->pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            value = atol(line + strlen(field) + 1);
    fclose(file);
    return value;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

int daemon_connect(const struct daemon *daemon)
{
    if (daemon->socket[0] != '\0')
        return connect_unix(daemon->socket);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)daemon->port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

char *daemon_exchange(const struct daemon *daemon, const char *bytes, size_t length)
{
    enum { MOST = 65536 };
    const struct timeval wait = {.tv_sec = 10};
    char *answer = calloc(1, MOST);
    size_t got = 0;
    const int fd = daemon_connect(daemon);
    ck_assert_int_eq(send(fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    for (ssize_t n; got < MOST - 1 && (n = recv(fd, answer + got, MOST - 1 - got, 0)) > 0;)
        got += (size_t)n;
    close(fd);
    return answer;
}

/* ---- requests ---- */

struct buffer {
    char *bytes;
    size_t length;
};

static size_t collect(char *data, size_t size, size_t count, void *context)
{
    struct buffer *buffer = context;
    buffer->bytes = realloc(buffer->bytes, buffer->length + size * count + 1);
    memcpy(buffer->bytes + buffer->length, data, size * count);
    buffer->length += size * count;
    buffer->bytes[buffer->length] = '\0';
    return size * count;
}

static CURL *prepare(const struct daemon *daemon, const char *path, struct buffer *headers, struct buffer *body)
{
    char url[4096];
    CURL *curl = curl_easy_init();
    const bool https = daemon->certificate[0] != '\0';
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", https ? "https" : "http", daemon->port, path);
    *headers = (struct buffer){calloc(1, 1), 0};
    *body = (struct buffer){calloc(1, 1), 0};
    curl_easy_setopt(curl, CURLOPT_URL, url);
    if (daemon->socket[0] != '\0')
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, daemon->socket);
    if (https) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, daemon->certificate);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L); /* it names no host */
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, headers);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 120L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    return curl;
}

static struct reply perform(CURL *curl, const struct buffer *headers, const struct buffer *body)
{
    struct reply reply = {.curl = curl_easy_perform(curl)};
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
    reply.headers = headers->bytes;
    reply.body = body->bytes;
    reply.length = body->length;
    curl_easy_cleanup(curl);
    return reply;
}

struct reply daemon_request(const struct daemon *daemon, const char *method, const char *path, const char *type,
                            const void *body, size_t length, const char *header)
{
    struct buffer headers, text;
    char content_type[256];
    CURL *curl = prepare(daemon, path, &headers, &text);
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    if (type != NULL) {
        snprintf(content_type, sizeof content_type, "Content-Type: %s", type);
        list = curl_slist_append(list, content_type);
    }
    if (header != NULL)
        list = curl_slist_append(list, header);
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    struct reply reply = perform(curl, &headers, &text);
    curl_slist_free_all(list);
    return reply;
}

struct reply daemon_get(const struct daemon *daemon, const char *path)
{
    return daemon_request(daemon, "GET", path, NULL, NULL, 0, NULL);
}

struct reply daemon_post(const struct daemon *daemon, const char *path, const void *body, size_t length)
{
    return daemon_request(daemon, "POST", path, "application/octet-stream", body, length, NULL);
}

struct reply daemon_post_files(const struct daemon *daemon, const char *path, const void *const *files,
                               const size_t *lengths, size_t count)
{
    struct buffer headers, text;
    CURL *curl = prepare(daemon, path, &headers, &text);
    curl_mime *mime = curl_mime_init(curl);
    for (size_t i = 0; i < count; i++) {
        curl_mimepart *part = curl_mime_addpart(mime);
        curl_mime_name(part, "file");
        curl_mime_filename(part, "picture");
        curl_mime_data(part, files[i], lengths[i]);
    }
    curl_easy_setopt(curl, CURLOPT_MIMEPOST, mime);
    struct reply reply = perform(curl, &headers, &text);
    curl_mime_free(mime);
    return reply;
}

double reply_metric(const struct reply *reply, const char *name)
{
    char start[256];
    snprintf(start, sizeof start, "\n%s ", name);
    const char *line = reply->body != NULL ? strstr(reply->body, start) : NULL;
    return line != NULL ? atof(line + strlen(start)) : -1;
}

double daemon_metric(const struct daemon *daemon, const char *name)
{
    struct reply reply = daemon_get(daemon, "/metrics");
    const double value = reply_metric(&reply, name);
    reply_free(&reply);
    return value;
}

const char *reply_header(const struct reply *reply, const char *name)
{
    static _Thread_local char value[1024];
    const size_t length = strlen(name);
    const char *found = NULL;
    for (const char *line = reply->headers; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        ck_assert_msg(found == NULL, "%s twice: %s", name, reply->headers);
        found = line + length + 1;
    }
    if (found == NULL)
        return NULL;
    found += strspn(found, " ");
    snprintf(value, sizeof value, "%.*s", (int)strcspn(found, "\r"), found);
    return value;
}

void reply_free(struct reply *reply)
{
    free(reply->headers);
    free(reply->body);
    *reply = (struct reply){0};
}

cJSON *reply_json(const struct reply *reply)
{
    ck_assert_msg(reply->curl == CURLE_OK, "%s", curl_easy_strerror(reply->curl));
    cJSON *json = cJSON_ParseWithOpts(reply->body, NULL, 1);
    ck_assert_msg(json != NULL, "not JSON: %s", reply->body);
    return json;
}

void reply_assert_error(const struct reply *reply, long status, const char *code)
{
    cJSON *json = reply_json(reply);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(error, "code");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message");
    ck_assert_msg(reply->status == status && cJSON_IsString(found) && strcmp(found->valuestring, code) == 0,
                  "%ld %s, not %ld %s", reply->status, reply->body, status, code);
    ck_assert(cJSON_IsString(message) && strlen(message->valuestring) > 10);
    cJSON_Delete(json);
}

const char *top_label(const cJSON *json)
{
    const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "predictions"), 0);
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(first, "label");
    ck_assert_msg(cJSON_IsString(label), "no prediction");
    return label->valuestring;
}

cJSON *json_of(struct reply reply, long status)
{
    ck_assert_msg(reply.status == status, "%ld, not %ld: %.500s", reply.status, status, reply.body);
    cJSON *json = reply_json(&reply);
    reply_free(&reply);
    return json;
}

double member_number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    ck_assert_msg(cJSON_IsNumber(item), "no number \"%s\"", key);
    return item->valuedouble;
}

const char *member_string(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    ck_assert_msg(cJSON_IsString(item), "no string \"%s\"", key);
    return item->valuestring;
}

/* test_notify.c - what the real daemon tells its service manager, which is this test. */
#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/suite.h"

static char config_path[64];
static int manager = -1;
static struct daemon vitd;

/* What has come: a daemon whose messages nobody takes would have to wait. */
static struct {
    pthread_mutex_t mutex;
    pthread_t thread;
    char texts[1024][128];
    size_t count, taken;
} messages = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *receive(void *unused)
{
    char text[128];
    ssize_t length;
    (void)unused;
    while ((length = recv(manager, text, sizeof text - 1, 0)) > 0) {
        text[length] = '\0';
        pthread_mutex_lock(&messages.mutex);
        ck_assert_uint_lt(messages.count, sizeof messages.texts / sizeof messages.texts[0]);
        strcpy(messages.texts[messages.count++], text);
        pthread_mutex_unlock(&messages.mutex);
    }
    return NULL;
}

static void prepare(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    snprintf(name, sizeof name, "@vitd-test-notify-%d", (int)getpid());
    memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(manager, 0);
    const socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    ck_assert_int_eq(bind(manager, (struct sockaddr *)&address, length), 0);
    messages.count = messages.taken = 0;
    ck_assert_int_eq(pthread_create(&messages.thread, NULL, receive, NULL), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    config_path[0] = '\0';
}

static void clean_up(void)
{
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    shutdown(manager, SHUT_RDWR);
    pthread_join(messages.thread, NULL);
    close(manager);
    unlink(config_path);
}

static void configure(const char *config)
{
    char text[8192];
    folder_expand(text, sizeof text, config);
    daemon_write_config(config_path, text);
}

static const char *take(void)
{
    pthread_mutex_lock(&messages.mutex);
    const char *text = messages.taken < messages.count ? messages.texts[messages.taken++] : NULL;
    pthread_mutex_unlock(&messages.mutex);
    return text;
}

/* The next message, or NULL when none comes within so many seconds. */
static const char *next_message(double seconds)
{
    const double start_time = test_clock();
    const char *message;
    while ((message = take()) == NULL && test_clock() - start_time < seconds)
        usleep(5000);
    return message;
}

static void forget_messages(void)
{
    while (take())
        ;
}

/* The next message that is no ping begins so. */
static const char *expect(const char *beginning)
{
    const char *message;
    do
        message = next_message(20);
    while (message != NULL && strcmp(message, "WATCHDOG=1") == 0);
    ck_assert_msg(message != NULL && strncmp(message, beginning, strlen(beginning)) == 0, "%s, not %s",
                  message ? message : "nothing", beginning);
    return message;
}

#define MODEL "{\"threads\": 1, \"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]}"

START_TEST(test_life_is_told)
{
    setenv("WATCHDOG_USEC", "2000000", 1);
    configure(MODEL);
    vitd = daemon_start_file(config_path, NULL);
    expect("STATUS=loading models");
    expect("READY=1\nSTATUS=ready");
    forget_messages();
    for (int i = 0; i < 3; i++) {
        const char *message = next_message(2);
        ck_assert_str_eq(message ? message : "nothing", "WATCHDOG=1");
    }
    ck_assert(daemon_reload(&vitd));
    expect("RELOADING=1\nMONOTONIC_USEC=");
    ck_assert_str_eq(expect("READY=1\nSTATUS=ready"), "READY=1\nSTATUS=ready");
    ck_assert_str_eq(expect("STATUS=ready: "), "STATUS=ready: 0.0 images/s, 0 waiting");
    daemon_stop(&vitd);
    expect("STOPPING=1\nSTATUS=");
}
END_TEST

/* That the file differs from what is in force stays in view until it no longer does. */
START_TEST(test_refused_reload_is_told_until_one_succeeds)
{
    static const char refused[] = ", but the last reload was refused (see the log)";
    configure(MODEL);
    vitd = daemon_start_file(config_path, NULL);
    expect("STATUS=loading models");
    expect("READY=1\nSTATUS=ready");
    configure("{");
    ck_assert(!daemon_reload(&vitd));
    expect("RELOADING=1");
    ck_assert_ptr_nonnull(strstr(expect("READY=1\nSTATUS=ready"), refused));
    ck_assert_ptr_nonnull(strstr(expect("STATUS=ready: "), refused));
    configure(MODEL);
    ck_assert(daemon_reload(&vitd));
    expect("RELOADING=1");
    expect("READY=1\nSTATUS=ready");
    ck_assert_ptr_null(strstr(expect("STATUS=ready: "), refused));
    daemon_stop(&vitd);
}
END_TEST

static size_t put_chunk(uint8_t *out, const char *type, const uint8_t *data, size_t length)
{
    const uint32_t size = htonl((uint32_t)length);
    memcpy(out, &size, 4);
    memcpy(out + 4, type, 4);
    memcpy(out + 8, data, length);
    const uint32_t crc = htonl((uint32_t)crc32(0, out + 4, (uInt)length + 4));
    memcpy(out + 8 + length, &crc, 4);
    return length + 12;
}

/* A picture that takes long to decode, to be freed: a black PNG, of a few bytes and many pixels. */
static uint8_t *make_slow_picture(size_t *length)
{
    enum { SIDE = 12000 };
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    const size_t raw_length = (size_t)SIDE * (1 + 3 * SIDE);
    uLongf packed_length = compressBound(raw_length);
    uint8_t *raw = calloc(raw_length, 1), *packed = malloc(packed_length);
    uint8_t header[13] = {0, 0, SIDE >> 8, SIDE & 0xFF, 0, 0, SIDE >> 8, SIDE & 0xFF, 8, 2, 0, 0, 0};
    ck_assert_int_eq(compress2(packed, &packed_length, raw, raw_length, 1), Z_OK);
    uint8_t *png = malloc(packed_length + 100);
    memcpy(png, signature, sizeof signature);
    *length = sizeof signature;
    *length += put_chunk(png + *length, "IHDR", header, sizeof header);
    *length += put_chunk(png + *length, "IDAT", packed, packed_length);
    *length += put_chunk(png + *length, "IEND", header, 0);
    free(packed);
    free(raw);
    return png;
}

/* A worker that is longer at one image than the model lets one expect stops the pings, and they go on with it. */
START_TEST(test_stuck_worker_stops_the_pings)
{
    struct client client;
    size_t length;
    if (getenv("VITD_SANITIZED") != NULL)
        return; /* a minute of decoding there, for what test_workers shows them, too */
    uint8_t *picture = make_slow_picture(&length);
    setenv("WATCHDOG_USEC", "100000", 1);
    configure("{\"threads\": 1, \"limits\": {\"max_pixels\": 150000000}, "
              "\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\", \"max_batch_size\": 1}]}");
    vitd = daemon_start_file(config_path, NULL);
    client_begin(&client, &vitd, "POST", "/classify", picture, length, NULL);
    daemon_await_log(&vitd, "it is stuck, and the watchdog is told no more", 1);
    forget_messages();
    const char *message = next_message(0.15);
    ck_assert_msg(message == NULL || strcmp(message, "WATCHDOG=1") != 0, "%s", message);
    struct reply reply = client_end(&client);
    ck_assert_int_eq(reply.status, 200);
    reply_free(&reply);
    expect("STATUS=ready: ");
    message = next_message(1);
    ck_assert_str_eq(message ? message : "nothing", "WATCHDOG=1");
    ck_assert_int_eq(daemon_logged(&vitd, "it is stuck"), 1);
    daemon_stop(&vitd);
    free(picture);
}
END_TEST

/* One that does not read what it is told keeps nobody from being served, or vitd from ending. */
START_TEST(test_deaf_manager_holds_nothing_up)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    snprintf(name, sizeof name, "@vitd-test-deaf-%d", (int)getpid());
    memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
    const int deaf = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    ck_assert_int_eq(bind(deaf, (struct sockaddr *)&address, length), 0);
    const int filler = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    while (sendto(filler, "X=1", 3, 0, (struct sockaddr *)&address, length) == 3)
        ;
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "400000", 1);
    configure(MODEL);
    vitd = daemon_start_file(config_path, NULL);
    ck_assert(daemon_reload(&vitd));
    ck_assert_double_lt(daemon_stop(&vitd), 3);
    close(filler);
    close(deaf);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {test_life_is_told, test_refused_reload_is_told_until_one_succeeds,
                                test_stuck_worker_stops_the_pings, test_deaf_manager_holds_nothing_up};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("notify");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

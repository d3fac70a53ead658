/* test_access.c - the list of keys, what is wrong with one, and who is let in. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/access.h"
#include "tests/suite.h"

/* of "test", "alice" and "bob": printf %s test | sha256sum */
#define TEST_HASH "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define ALICE_HASH "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
#define BOB_HASH "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9"

static char path[] = "/tmp/vitd-access-XXXXXX";

static void write_file(const char *text, size_t length, mode_t mode)
{
    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
}

/* Loads text as a file; the caller frees what it returns. */
static struct access *load(const char *text, struct access_error *error)
{
    struct access *access = NULL;
    write_file(text, strlen(text), 0600);
    const bool loaded = access_load(&access, path, error);
    unlink(path);
    ck_assert(loaded == (access != NULL));
    if (!loaded) { /* the messages begin with the path, whatever it is */
        ck_assert_int_eq(strncmp(error->message, path, strlen(path)), 0);
        memmove(error->message, error->message + strlen(path), strlen(error->message) - strlen(path) + 1);
    }
    return access;
}

static struct access *load_good(const char *text)
{
    struct access_error error = {""};
    struct access *access = load(text, &error);
    ck_assert_msg(access != NULL, "%s", error.message);
    return access;
}

static enum access_verdict check(const struct access *access, const char *authorization, enum role role)
{
    const char *name = NULL;
    enum access_verdict verdict = access_check(access, authorization, role, &name);
    ck_assert_ptr_nonnull(name);
    return verdict;
}

START_TEST(test_keys_have_their_roles_and_names)
{
    static const struct {
        const char *authorization, *name;
        enum access_verdict infer, metrics, admin;
    } cases[] = {
        {"Bearer alice", "alice", ACCESS_GRANTED, ACCESS_FORBIDDEN, ACCESS_FORBIDDEN},
        {"Bearer bob", "bob@example.org", ACCESS_GRANTED, ACCESS_GRANTED, ACCESS_FORBIDDEN},
        {"Bearer test", "", ACCESS_GRANTED, ACCESS_GRANTED, ACCESS_GRANTED},
        {"Bearer mallory", "", ACCESS_UNKNOWN, ACCESS_UNKNOWN, ACCESS_UNKNOWN},
    };
    struct access *access = load_good("# who may\n\n"
                                      "infer " ALICE_HASH " alice\r\n"
                                      "  metrics,infer\t" BOB_HASH "  bob@example.org # until May\n"
                                      "admin " TEST_HASH);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *name = NULL;
        ck_assert_int_eq(access_check(access, cases[i].authorization, ROLE_INFER, &name), cases[i].infer);
        ck_assert_str_eq(name, cases[i].name);
        ck_assert_int_eq(access_check(access, cases[i].authorization, ROLE_METRICS, &name), cases[i].metrics);
        ck_assert_str_eq(name, cases[i].name);
        ck_assert_int_eq(access_check(access, cases[i].authorization, ROLE_ADMIN, &name), cases[i].admin);
        ck_assert_str_eq(name, cases[i].name);
    }
    access_free(access);
}
END_TEST

START_TEST(test_open_is_granted_to_anyone)
{
    static const char *const cases[] = {NULL, "", "Bearer alice", "Bearer mallory", "Basic YWxpY2U6"};
    struct access *access = load_good("infer " ALICE_HASH " alice\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *name = NULL;
        ck_assert_int_eq(access_check(access, cases[i], ROLE_OPEN, &name), ACCESS_GRANTED);
        ck_assert_str_eq(name, "");
    }
    access_free(access);
}
END_TEST

START_TEST(test_header_is_read_with_blanks_and_in_any_case)
{
    static const char *const granted[] = {"Bearer alice", "bearer alice", "BEARER\t alice", "Bearer   alice \t"};
    static const char *const unknown[] = {NULL, "", " ", "Bearer", "Bearer ", "Beareralice", "alice", "Basic alice",
                                          "Bearer Alice", "Bearer alic", "Bearer alicee", "Bearer: alice",
                                          "Bearer al ice", "Bearer \"alice\"", "Bearer alice,"};
    struct access *access = load_good("infer " ALICE_HASH "\n");
    for (size_t i = 0; i < sizeof granted / sizeof granted[0]; i++)
        ck_assert_msg(check(access, granted[i], ROLE_INFER) == ACCESS_GRANTED, "%s", granted[i]);
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        ck_assert_msg(check(access, unknown[i], ROLE_INFER) == ACCESS_UNKNOWN, "%s", unknown[i]);
    access_free(access);
}
END_TEST

/* The SHA-256 of nothing: whoever hashed an unset variable has not let everybody in. */
START_TEST(test_empty_key_is_never_granted)
{
    struct access *access = load_good("admin e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n");
    ck_assert_int_eq(check(access, "Bearer", ROLE_INFER), ACCESS_UNKNOWN);
    ck_assert_int_eq(check(access, "Bearer ", ROLE_INFER), ACCESS_UNKNOWN);
    ck_assert_int_eq(check(access, "", ROLE_INFER), ACCESS_UNKNOWN);
    access_free(access);
}
END_TEST

/* 512 and 513 times x */
START_TEST(test_tokens_are_bounded)
{
    char header[sizeof "Bearer " + ACCESS_MAX_KEY + 1] = "Bearer ";
    struct access *access = load_good("infer 64164443bb63e338ef1cfdb12a57117cd1212270cc935a798f6e8a665cdf4659\n"
                                      "infer 35ade0090e64e74d6ad04204009c23a4e34b82bdf0f4f317fbcc5f26f9b10241\n");
    memset(header + 7, 'x', ACCESS_MAX_KEY + 1);
    ck_assert_int_eq(check(access, header, ROLE_INFER), ACCESS_UNKNOWN);
    header[7 + ACCESS_MAX_KEY] = '\0';
    ck_assert_int_eq(check(access, header, ROLE_INFER), ACCESS_GRANTED);
    access_free(access);
}
END_TEST

START_TEST(test_hash_may_be_in_capitals)
{
    struct access *access = load_good("infer 2BD806C97F0E00AF1A1FC3328FA763A9269723C8DB8FAC4F93AF71DB186D6E90\n");
    ck_assert_int_eq(check(access, "Bearer alice", ROLE_INFER), ACCESS_GRANTED);
    access_free(access);
}
END_TEST

START_TEST(test_every_key_of_many_counts)
{
    enum { KEYS = 100 };
    char *text = malloc(KEYS * 80), *end = text, header[32];
    for (int i = 0; i < KEYS; i++) /* only the one of alice is of a key that we know */
        end += sprintf(end, "metrics %064x %d\n", (unsigned)i, i);
    for (int at = 0; at < KEYS; at += 9) {
        char *line = text;
        for (int i = 0; i < at; i++)
            line = strchr(line, '\n') + 1;
        char saved[64];
        memcpy(saved, line + 8, 64);
        memcpy(line + 8, ALICE_HASH, 64);
        struct access *access = load_good(text);
        const char *name = NULL;
        ck_assert_int_eq(access_check(access, "Bearer alice", ROLE_METRICS, &name), ACCESS_GRANTED);
        sprintf(header, "%d", at);
        ck_assert_str_eq(name, header);
        access_free(access);
        memcpy(line + 8, saved, 64);
    }
    free(text);
}
END_TEST

START_TEST(test_admin_is_noticed)
{
    struct access *access = load_good("infer,metrics " ALICE_HASH "\n");
    ck_assert(!access_has_admin(access));
    access_free(access);
    access = load_good("infer " ALICE_HASH "\nmetrics,admin " BOB_HASH "\n");
    ck_assert(access_has_admin(access));
    access_free(access);
}
END_TEST

START_TEST(test_errors_name_line_and_what_is_allowed)
{
    static const char allowed_line[] = "allowed is ROLES SHA256HEX [NAME]", digits[] = "64 hexadecimal digits",
                      roles[] = "allowed is a comma list of infer, metrics, admin";
    static const struct {
        const char *text, *found, *allowed;
    } cases[] = {
        {"", ": found no key", "at least one line ROLES SHA256HEX [NAME]"},
        {"# nobody\n \t\n", ": found no key", "at least one line"},
        {"infer\n", ":1: found one word", allowed_line},
        {"infer # " ALICE_HASH "\n", ":1: found one word", allowed_line},
        {"\ninfer " ALICE_HASH " alice cooper\n", ":2: found more than three words", allowed_line},
        {"infer alice\n", ":1: found a second word of 5 characters, not all hex", digits},
        {"infer 2bd806\n", ":1: found a second word of 6 characters, all hex", digits},
        {"infer " ALICE_HASH "0\n", ":1: found a second word of 65 characters", digits},
        {"infer g" ALICE_HASH "\n", ":1: found a second word of 65 characters, not all hex", digits},
        {"#\n#\ninfra " ALICE_HASH "\n", ":3: found the role \"infra\"", roles},
        {"infer,open " ALICE_HASH "\n", ":1: found the role \"open\"", roles},
        {"Admin " ALICE_HASH "\n", ":1: found the role \"Admin\"", roles},
        {"infer, " ALICE_HASH "\n", ":1: found the role \"\"", roles},
        {",infer " ALICE_HASH "\n", ":1: found the role \"\"", roles},
        {"infer " ALICE_HASH " a/b\n", ":1: found a name of 3 characters, not all usable", "up to 64 of A-Z"},
        {"infer " ALICE_HASH " " ALICE_HASH "a\n", ":1: found a name of 65 characters", "up to 64"},
        {"infer " ALICE_HASH "\ninfer " BOB_HASH "\n\nadmin " ALICE_HASH "\n", ":4: found the SHA-256 of line 1 again",
         "allowed is once"},
        {"infer 2BD806C97F0E00AF1A1FC3328FA763A9269723C8DB8FAC4F93AF71DB186D6E90\ninfer " ALICE_HASH "\n",
         ":2: found the SHA-256 of line 1 again", "allowed is once"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_error error = {""};
        ck_assert_msg(load(cases[i].text, &error) == NULL, "%s", cases[i].text);
        ck_assert_msg(strncmp(error.message, cases[i].found, strlen(cases[i].found)) == 0, "%s: \"%s\"", cases[i].text,
                      error.message);
        ck_assert_msg(strstr(error.message, cases[i].allowed) != NULL, "%s: \"%s\"", cases[i].text, error.message);
    }
}
END_TEST

/* A file of plain keys, in either column, is the likeliest mistake, and its message ends up in a log. */
START_TEST(test_messages_quote_no_key)
{
    static const char *const cases[] = {"s3cretkey\n",           "s3cretkey infer\n",       "infer s3cretkey\n",
                                        "s3cretkey s3cretkey\n", "s3cretkey infer alice\n",
                                        "infer " ALICE_HASH " s3cretkey/\n"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_error error = {""};
        ck_assert_ptr_null(load(cases[i], &error));
        ck_assert_msg(strstr(error.message, "s3cret") == NULL, "%s", error.message);
    }
}
END_TEST

START_TEST(test_files_that_others_may_write_are_refused)
{
    static const char text[] = "infer " ALICE_HASH "\n";
    static const mode_t refused[] = {0620, 0602, 0666}, taken[] = {0400, 0600, 0644, 0755};
    struct access_error error = {""};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct access *access = NULL;
        char mode[32];
        write_file(text, sizeof text - 1, refused[i]);
        ck_assert(!access_load(&access, path, &error));
        ck_assert_ptr_null(access);
        snprintf(mode, sizeof mode, ": found mode %04o, ", (unsigned)refused[i]);
        ck_assert_msg(strstr(error.message, mode) && strstr(error.message, "only its owner"), "%s", error.message);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        struct access *access = NULL;
        write_file(text, sizeof text - 1, taken[i]);
        ck_assert_msg(access_load(&access, path, &error), "%s", error.message);
        access_free(access);
        unlink(path);
    }
}
END_TEST

START_TEST(test_unreadable_files_are_refused)
{
    struct access *access = NULL;
    struct access_error error = {""};
    ck_assert(!access_load(&access, "/nonexistent/keys", &error));
    ck_assert_str_eq(error.message, "/nonexistent/keys: No such file or directory");
    ck_assert(!access_load(&access, "/", &error));
    ck_assert_str_eq(error.message, "/: Is a directory");

    static const char zero[] = "infer " ALICE_HASH "\n\0\n";
    write_file(zero, sizeof zero - 1, 0600);
    ck_assert(!access_load(&access, path, &error));
    ck_assert_ptr_nonnull(strstr(error.message, ": found a zero byte, allowed is text"));
    unlink(path);
    ck_assert_ptr_null(access);
}
END_TEST

START_TEST(test_size_is_bounded)
{
    enum { BYTES = 1 << 20 };
    static const char line[] = "\ninfer " ALICE_HASH;
    char *text = malloc(BYTES + 2);
    struct access_error error = {""};
    memset(text, '#', BYTES + 1);
    memcpy(text + BYTES - (sizeof line - 1), line, sizeof line);
    struct access *access = load(text, &error);
    ck_assert_msg(access != NULL, "%s", error.message);
    access_free(access);
    memcpy(text + BYTES, "\n", 2);
    ck_assert_ptr_null(load(text, &error));
    ck_assert_ptr_nonnull(strstr(error.message, ": found more than 1 MiB, allowed is up to 1 MiB"));
    free(text);
}
END_TEST

START_TEST(test_pipe_is_read)
{
    static const char text[] = "infer " ALICE_HASH "\n";
    struct access *access = NULL;
    struct access_error error = {""};
    int ends[2];
    char name[32];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], text, sizeof text - 1), (ssize_t)sizeof text - 1);
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    ck_assert_msg(access_load(&access, name, &error), "%s", error.message);
    ck_assert_int_eq(check(access, "Bearer alice", ROLE_INFER), ACCESS_GRANTED);
    access_free(access);
    close(ends[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_keys_have_their_roles_and_names);
    tcase_add_test(tests, test_open_is_granted_to_anyone);
    tcase_add_test(tests, test_header_is_read_with_blanks_and_in_any_case);
    tcase_add_test(tests, test_empty_key_is_never_granted);
    tcase_add_test(tests, test_tokens_are_bounded);
    tcase_add_test(tests, test_hash_may_be_in_capitals);
    tcase_add_test(tests, test_every_key_of_many_counts);
    tcase_add_test(tests, test_admin_is_noticed);
    tcase_add_test(tests, test_errors_name_line_and_what_is_allowed);
    tcase_add_test(tests, test_messages_quote_no_key);
    tcase_add_test(tests, test_files_that_others_may_write_are_refused);
    tcase_add_test(tests, test_unreadable_files_are_refused);
    tcase_add_test(tests, test_size_is_bounded);
    tcase_add_test(tests, test_pipe_is_read);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

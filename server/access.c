/*
 * access.c - see access.h.
 *
 * A token is hashed and its hash compared with every key's, each in constant time and without stopping at the one that
 * fits: how long a check takes depends on the token's length and the number of keys alone.
 */
#include "server/access.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "server/hex.h"
#include "server/small_file.h"

enum { HASH_BYTES = 32 };

struct key {
    unsigned char hash[HASH_BYTES];
    unsigned roles; /* bits 1 << enum role */
    size_t line;
    char name[ACCESS_MAX_NAME + 1];
};

struct access {
    struct key *keys;
    size_t count;
};

static const char *const role_names[] = {[ROLE_ADMIN] = "admin", [ROLE_METRICS] = "metrics", [ROLE_INFER] = "infer"};

enum { ROLES = sizeof role_names / sizeof role_names[0] };

/* ---- the file ---- */

struct loader {
    const char *path;
    size_t line;
    struct access *access; /* being filled */
    struct access_error *error;
};

/* A word of a line. */
struct word {
    const char *text;
    size_t length;
};

/* "FILE:LINE: ...", without a line where the file as a whole is meant. */
static bool fail(const struct loader *loader, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(const struct loader *loader, const char *format, ...)
{
    char *message = loader->error->message, line[24] = "";
    const size_t size = sizeof loader->error->message;
    if (loader->line)
        snprintf(line, sizeof line, ":%zu", loader->line);
    const size_t length = (size_t)snprintf(message, size, "%.150s%s: ", loader->path, line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + length, size - length, format, arguments);
    va_end(arguments);
    return false;
}

/* The file's text, to be freed, or NULL. */
static char *read_text(const struct loader *loader)
{
    size_t length;
    mode_t mode;
    const char *why;
    char *text = small_file_read(loader->path, &length, &mode, &why);
    if (!text)
        fail(loader, "%s", why);
    else if (mode & (S_IWGRP | S_IWOTH))
        fail(loader, "found mode %04o, allowed is a file that only its owner may write (chmod go-w)",
             (unsigned)mode & 07777);
    else if (strlen(text) != length)
        fail(loader, "found a zero byte, allowed is text");
    else
        return text;
    free(text);
    return NULL;
}

/* ---- a line ---- */

static bool read_hash(const struct loader *loader, struct word word, struct key *key)
{
    size_t digits = 0;
    while (digits < word.length && hex_digit(word.text[digits]) >= 0)
        digits++;
    if (digits != word.length || digits != 2 * HASH_BYTES)
        return fail(loader, "found a second word of %zu characters, %s, allowed is a SHA-256 of 64 hexadecimal digits",
                    word.length, digits == word.length ? "all hexadecimal" : "not all hexadecimal");
    for (size_t i = 0; i < HASH_BYTES; i++)
        key->hash[i] = (unsigned char)(hex_digit(word.text[2 * i]) * 16 + hex_digit(word.text[2 * i + 1]));
    for (size_t i = 0; i < loader->access->count; i++)
        if (memcmp(key->hash, loader->access->keys[i].hash, HASH_BYTES) == 0)
            return fail(loader, "found the SHA-256 of line %zu again, allowed is once", loader->access->keys[i].line);
    return true;
}

static bool read_role(const struct loader *loader, struct word word, struct key *key)
{
    for (unsigned role = 0; role < ROLES; role++) {
        if (strlen(role_names[role]) == word.length && memcmp(role_names[role], word.text, word.length) == 0) {
            key->roles |= role == ROLE_ADMIN ? ~0u : 1u << role;
            return true;
        }
    }
    return fail(loader, "found the role \"%.*s\", allowed is a comma list of infer, metrics, admin",
                word.length < 40 ? (int)word.length : 40, word.text);
}

static bool read_roles(const struct loader *loader, struct word word, struct key *key)
{
    const char *const end = word.text + word.length;
    const char *role = word.text;
    for (;;) {
        const char *comma = memchr(role, ',', (size_t)(end - role));
        const char *role_end = comma ? comma : end;
        if (!read_role(loader, (struct word){role, (size_t)(role_end - role)}, key))
            return false;
        if (!comma)
            return true;
        role = comma + 1;
    }
}

static bool read_name(const struct loader *loader, struct word word, struct key *key)
{
    size_t usable = 0;
    while (usable < word.length && (isalnum((unsigned char)word.text[usable]) || strchr("._@-", word.text[usable])))
        usable++;
    if (usable != word.length || word.length > ACCESS_MAX_NAME)
        return fail(loader, "found a name of %zu characters%s, allowed is up to %d of A-Z a-z 0-9 . _ @ -",
                    word.length, usable != word.length ? ", not all usable" : "", ACCESS_MAX_NAME);
    memcpy(key->name, word.text, word.length);
    return true;
}

static bool add(const struct loader *loader, const struct key *key)
{
    struct access *access = loader->access;
    struct key *keys = access->keys;
    if ((access->count & (access->count - 1)) == 0) { /* 0, 1, 2, 4, ...: all the room there is */
        keys = reallocarray(keys, access->count ? 2 * access->count : 1, sizeof *keys);
        if (!keys)
            return fail(loader, "out of memory");
        access->keys = keys;
    }
    keys[access->count++] = *key;
    return true;
}

/* Cuts the next word off the line's rest; false when none is left. */
static bool next_word(struct word *rest, struct word *word)
{
    static const char blanks[] = " \t\r";
    while (rest->length && strchr(blanks, *rest->text)) {
        rest->text++;
        rest->length--;
    }
    word->text = rest->text;
    while (rest->length && !strchr(blanks, *rest->text)) {
        rest->text++;
        rest->length--;
    }
    word->length = (size_t)(rest->text - word->text);
    return word->length > 0;
}

/* The hash comes first: where there is none, the first word may be a key, which no message must quote. */
static bool read_line(const struct loader *loader, struct word line)
{
    struct word roles, hash, name, more;
    struct key key = {.line = loader->line};
    if (!next_word(&line, &roles))
        return true;
    if (!next_word(&line, &hash))
        return fail(loader, "found one word, allowed is ROLES SHA256HEX [NAME]");
    const bool named = next_word(&line, &name);
    if (next_word(&line, &more))
        return fail(loader, "found more than three words, allowed is ROLES SHA256HEX [NAME]");
    return read_hash(loader, hash, &key) && read_roles(loader, roles, &key) &&
           (!named || read_name(loader, name, &key)) && add(loader, &key);
}

static bool read_lines(struct loader *loader, const char *text)
{
    while (*text) {
        const size_t length = strcspn(text, "\n");
        loader->line++;
        if (!read_line(loader, (struct word){text, strcspn(text, "#\n")}))
            return false;
        text += length + (text[length] == '\n');
    }
    loader->line = 0;
    return loader->access->count || fail(loader, "found no key, allowed is at least one line ROLES SHA256HEX [NAME]");
}

bool access_load(struct access **access, const char *path, struct access_error *error)
{
    struct loader loader = {.path = path, .error = error};
    char *text = read_text(&loader);
    if (!text)
        return false;
    loader.access = calloc(1, sizeof *loader.access);
    const bool loaded = loader.access ? read_lines(&loader, text) : fail(&loader, "out of memory");
    free(text);
    if (loaded)
        *access = loader.access;
    else
        access_free(loader.access);
    return loaded;
}

void access_free(struct access *access)
{
    if (!access)
        return;
    free(access->keys);
    free(access);
}

/* ---- a request ---- */

/* The token of "Bearer TOKEN"; empty where there is none. */
static struct word token_of(const char *authorization)
{
    static const char scheme[] = "bearer", blanks[] = " \t";
    const size_t scheme_length = sizeof scheme - 1;
    if (!authorization || strncasecmp(authorization, scheme, scheme_length) != 0)
        return (struct word){NULL, 0};
    const char *text = authorization + scheme_length;
    const size_t before = strspn(text, blanks);
    text += before;
    size_t length = before ? strlen(text) : 0;
    while (length && strchr(blanks, text[length - 1]))
        length--;
    return (struct word){text, length};
}

static const struct key *find(const struct access *access, struct word token)
{
    unsigned char hash[HASH_BYTES];
    const struct key *found = NULL;
    if (token.length < 1 || token.length > ACCESS_MAX_KEY ||
        gnutls_hash_fast(GNUTLS_DIG_SHA256, token.text, token.length, hash) != 0)
        return NULL;
    for (size_t i = 0; i < access->count; i++)
        if (gnutls_memcmp(hash, access->keys[i].hash, HASH_BYTES) == 0)
            found = &access->keys[i];
    return found;
}

enum access_verdict access_check(const struct access *access, const char *authorization, enum role role,
                                 const char **name)
{
    *name = "";
    if (role == ROLE_OPEN)
        return ACCESS_GRANTED;
    const struct key *key = find(access, token_of(authorization));
    if (!key)
        return ACCESS_UNKNOWN;
    *name = key->name;
    return key->roles & 1u << role ? ACCESS_GRANTED : ACCESS_FORBIDDEN;
}

const char *access_role_name(enum role role)
{
    return (size_t)role < ROLES ? role_names[role] : "";
}

bool access_has_admin(const struct access *access)
{
    for (size_t i = 0; i < access->count; i++)
        if (access->keys[i].roles & 1u << ROLE_ADMIN)
            return true;
    return false;
}

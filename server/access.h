/*
 * access.h - who may ask for what: bearer keys (RFC 6750), each with its roles, from a text file.
 *
 *     # ROLES SHA256HEX [NAME]
 *     infer,metrics 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 alice
 *
 * ROLES is a comma list of infer, metrics and admin; admin implies the others. SHA256HEX is that of the key itself,
 *
 *     printf %s "$KEY" | sha256sum
 *
 * so neither the file nor the daemon's memory holds a key. Keys should be random (openssl rand -hex 32): SHA-256 does
 * not protect one that can be guessed. NAME, of letters, digits and . _ @ -, is for the log; a key that is being
 * replaced and its successor may share it. Blank lines, and what follows a #, say nothing.
 *
 * A loaded list never changes: any thread may check, and a new file is a new list.
 */
#ifndef SERVER_ACCESS_H
#define SERVER_ACCESS_H

#include <stdbool.h>

/* What a route needs. ROLE_ADMIN is 0: a route that forgets to say needs the most. */
enum role { ROLE_ADMIN, ROLE_METRICS, ROLE_INFER, ROLE_OPEN };

enum { ACCESS_MAX_KEY = 512, ACCESS_MAX_NAME = 64 }; /* bytes */

struct access;

struct access_error {
    char message[384]; /* "keys:3: found the role infra, allowed is infer, metrics, admin" */
};

/* Reads the file, which may be a pipe. False, with *access untouched, when it cannot be read, is larger than 1 MiB, may
 * be written by group or others, has no key, or has a line that is not as above or repeats a hash. Messages never quote
 * what might be a key. */
bool access_load(struct access **access, const char *path, struct access_error *error);
/* Accepts NULL. */
void access_free(struct access *access);

enum access_verdict {
    ACCESS_GRANTED,
    ACCESS_UNKNOWN,  /* no key, or none of the list's: 401 */
    ACCESS_FORBIDDEN /* a key of the list, without the role: 403 */
};

/* authorization: the header's value, or NULL. *name is the key's NAME, "" for none and for ROLE_OPEN, which is granted
 * unseen; it lives as long as the list. Without a list there is nothing to check by, and the caller decides what that
 * means. */
enum access_verdict access_check(const struct access *access, const char *authorization, enum role role,
                                 const char **name);
/* "admin", "metrics", "infer"; "" for ROLE_OPEN. */
const char *access_role_name(enum role role);
/* Whether any key has the role admin. */
bool access_has_admin(const struct access *access);

#endif

/* cors.h - which web pages, of other origins than ours, may read replies (https://fetch.spec.whatwg.org/, "CORS protocol"). */
#ifndef SERVER_HTTP_CORS_H
#define SERVER_HTTP_CORS_H

#include <stdbool.h>

/* Whether the list, separated by line feeds, holds the origin, or "*". origin: the header's value, or NULL. */
bool cors_allows(const char *origins, const char *origin);

#endif

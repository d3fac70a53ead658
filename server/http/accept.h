/* accept.h - content negotiation between a picture and JSON (RFC 9110, section 12.5.1). */
#ifndef SERVER_HTTP_ACCEPT_H
#define SERVER_HTTP_ACCEPT_H

#include <stdbool.h>

/* Whether image/png is wanted rather than application/json: the higher quality wins, then the one that is named more
 * exactly, then `preferred`. accept: the header's value, or NULL. A client that takes neither gets what is preferred. */
bool accepts_picture(const char *accept, bool preferred);

#endif

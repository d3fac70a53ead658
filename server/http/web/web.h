/* web.h - files that the binary brings along, as they lie in this folder. */
#ifndef SERVER_HTTP_WEB_WEB_H
#define SERVER_HTTP_WEB_WEB_H

#include <stddef.h>

/* index.html; @NONCE@ stands for the nonce of the content security policy */
extern const char web_page[];
extern const size_t web_page_length;
/* openapi.json */
extern const char web_openapi[];
extern const size_t web_openapi_length;

#endif

/* record.h - the end of a request in metrics and in the log. */
#ifndef SERVER_HTTP_RECORD_H
#define SERVER_HTTP_RECORD_H

#include "server/http/request.h"

/* Counts and logs a request that has its status. */
void record_request(const struct request *request);

#endif

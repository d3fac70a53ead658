/* service.h - what the handlers serve from: borrowed from daemon.c, which fills in the rest before it says `ready`. */
#ifndef SERVER_HTTP_SERVICE_H
#define SERVER_HTTP_SERVICE_H

#include <stdatomic.h>

#include "server/config.h"
#include "server/metrics.h"
#include "server/registry.h"
#include "server/work/queue.h"

struct service {
    const struct config *config;
    struct metrics *metrics;
    atomic_bool ready;         /* set once, after the registry is filled and the queue is there */
    atomic_bool draining;      /* set once */
    struct registry *registry; /* its entries: only when ready */
    struct queue *queue;       /* only when ready */
};

#endif

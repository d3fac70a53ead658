/* service.h - what the handlers serve from. daemon.c makes it, and says `ready` when the models are there. */
#ifndef SERVER_HTTP_SERVICE_H
#define SERVER_HTTP_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/cache.h"
#include "server/metrics.h"
#include "server/models/loader.h"
#include "server/models/registry.h"
#include "server/settings.h"
#include "server/work/queue.h"
#include "server/work/workers.h"

struct service {
    struct metrics *metrics;
    struct registry *registry;
    struct loader *loader;
    struct queue *queue;
    struct workers *workers;
    struct cache *cache; /* of replies */
    struct cache *texts; /* of embeddings of texts */
    atomic_bool ready;    /* set once, after the registry is filled */
    atomic_bool draining; /* set once */

    atomic_size_t connections; /* open ones */

    pthread_mutex_t mutex; /* protects settings, the pointer */
    struct settings *settings;
};

/* The settings in force, with a reference. Thread-safe. */
struct settings *service_settings(struct service *service);
/* Puts others, whose reference is taken over, in force. */
void service_set_settings(struct service *service, struct settings *settings);

#endif

/*
 * registry.h - the models a daemon serves, by name. Filled at start, constant afterwards: readers take no lock.
 */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include <stddef.h>

#include "server/config.h"
#include "vit.h"

struct registry_entry {
    char *name;
    char *path;
    vit_model *model;
    bool draft; /* decode with vit_preprocess_decode() */
};

struct registry {
    struct registry_entry *entries;
    size_t count;
};

/* How to open a model of the configuration. */
vit_options registry_options(const struct config_model *configured);

/* Opens every model of the configuration; on failure nothing stays open and *err names the model. */
vit_status registry_open(struct registry *registry, const struct config *config, vit_error *err);
void registry_release(struct registry *registry);
/* Index of the model called name (NULL or "": the first), or -1. */
int registry_find(const struct registry *registry, const char *name);

#endif

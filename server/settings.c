/* settings.c - see settings.h. */
#include "server/settings.h"

#include <stdio.h>
#include <stdlib.h>

static bool read_keys(struct settings *settings, struct config_error *error)
{
    const char *path = settings->config.access.keys;
    struct access_error why = {""};
    if (*path == '\0')
        return true;
    if (!access_load(&settings->access, path, &why)) {
        snprintf(error->message, sizeof error->message, "access.keys: %s", why.message);
        return false;
    }
    if (settings->config.access.admin && !access_has_admin(settings->access)) {
        snprintf(error->message, sizeof error->message,
                 "access.admin: found true, but no key in %.300s has the role admin, allowed is true with such a key", path);
        return false;
    }
    return true;
}

struct settings *settings_create(const struct config *config, struct config_error *error)
{
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings) {
        snprintf(error->message, sizeof error->message, "out of memory");
        return NULL;
    }
    atomic_init(&settings->references, 1);
    config_copy(&settings->config, config);
    if (read_keys(settings, error))
        return settings;
    settings_unref(settings);
    return NULL;
}

struct settings *settings_ref(struct settings *settings)
{
    atomic_fetch_add_explicit(&settings->references, 1, memory_order_relaxed);
    return settings;
}

void settings_unref(struct settings *settings)
{
    if (!settings || atomic_fetch_sub_explicit(&settings->references, 1, memory_order_acq_rel) != 1)
        return;
    access_free(settings->access);
    config_release(&settings->config);
    free(settings);
}

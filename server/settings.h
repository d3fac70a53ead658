/*
 * settings.h - a configuration in force, and what was read from the files that it names. Counted by reference: a reload puts
 * new ones in the place of the old, and requests that began under the old ones end under them. Constant once made.
 */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include <stdatomic.h>

#include "server/access.h"
#include "server/config.h"

struct settings {
    struct config config;
    struct access *access; /* NULL: without keys everyone may do everything that config.access.admin does not keep back */
    atomic_size_t references;
};

/* Copies config and reads its files; NULL, with what is wrong in *error. One reference. */
struct settings *settings_create(const struct config *config, struct config_error *error);
struct settings *settings_ref(struct settings *settings);
/* Accepts NULL. */
void settings_unref(struct settings *settings);

#endif

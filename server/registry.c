/* registry.c - opens the configured models, in order. */
#include "server/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

vit_options registry_options(const struct config_model *configured)
{
    return (vit_options){.dtype = configured->dtype == DTYPE_AUTO ? vit_dtype_auto() : (vit_dtype)configured->dtype,
                         .image_size = (size_t)configured->image_size};
}

static vit_status open_entry(struct registry_entry *entry, const struct config_model *configured, vit_error *err)
{
    entry->name = strdup(configured->name);
    entry->path = strdup(configured->path);
    if (!entry->name || !entry->path) {
        snprintf(err->message, sizeof err->message, "model %s: out of memory", configured->name);
        return VIT_ERR_NO_MEMORY;
    }
    entry->draft = configured->draft;
    vit_error why = {{0}};
    const vit_options options = registry_options(configured);
    vit_status status = vit_model_open(&entry->model, configured->path, &options, &why);
    if (status != VIT_OK)
        snprintf(err->message, sizeof err->message, "model %s: %.310s", configured->name, why.message);
    return status;
}

vit_status registry_open(struct registry *registry, const struct config *config, vit_error *err)
{
    struct registry opened = {.entries = calloc(config->model_count + 1, sizeof *opened.entries)};
    if (!opened.entries) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return VIT_ERR_NO_MEMORY;
    }
    for (; opened.count < config->model_count; opened.count++) {
        struct registry_entry *entry = &opened.entries[opened.count];
        vit_status status = open_entry(entry, &config->models[opened.count], err);
        if (status != VIT_OK) {
            opened.count++;
            registry_release(&opened);
            return status;
        }
    }
    *registry = opened;
    return VIT_OK;
}

void registry_release(struct registry *registry)
{
    for (size_t i = 0; i < registry->count; i++) {
        vit_model_free(registry->entries[i].model);
        free(registry->entries[i].name);
        free(registry->entries[i].path);
    }
    free(registry->entries);
    *registry = (struct registry){0};
}

int registry_find(const struct registry *registry, const char *name)
{
    if (!name || !*name)
        return registry->count ? 0 : -1;
    for (size_t i = 0; i < registry->count; i++)
        if (strcmp(registry->entries[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* turns.c - see turns.h. */
#include "tests/turns.h"

#include <stdlib.h>

static void run_backwards(void *context, size_t parts, void (*part)(void *argument, size_t index, void *scratch),
                          void *argument)
{
    struct turns *turns = context;
    for (size_t i = parts; i-- > 0; turns->calls++)
        part(argument, i, turns->scratch[i % TEAM]);
}

void turns_init(struct turns *turns, size_t bytes)
{
    *turns = (struct turns){.team = {.threads = TEAM, .run = run_backwards, .context = turns}};
    for (size_t i = 0; i < TEAM; i++)
        turns->scratch[i] = aligned_alloc(64, bytes / 64 * 64 + 64);
}

void turns_release(struct turns *turns)
{
    for (size_t i = 0; i < TEAM; i++)
        free(turns->scratch[i]);
}

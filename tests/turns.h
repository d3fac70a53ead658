/* turns.h - a team on one thread, whose members take turns from the last part to the first: what depends on who computes
 * what, or in which order, shows. */
#ifndef TESTS_TURNS_H
#define TESTS_TURNS_H

#include <stddef.h>

#include "vit.h"

enum { TEAM = 3 };

struct turns {
    void *scratch[TEAM]; /* the members' own */
    size_t calls;        /* of parts, so far */
    vit_team team;
};

/* bytes: of each member's scratch. The struct stays where it is until turns_release(). */
void turns_init(struct turns *turns, size_t bytes);
void turns_release(struct turns *turns);

#endif

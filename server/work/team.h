/*
 * team.h - threads that lend a hand with one run: a leader hands out the parts of its loops, helpers take some.
 *
 * The leader's loops (vit_team.run) never wait for a helper to come: a part that nobody has taken is the leader's. So a
 * helper may come late and leave early, between two parts.
 */
#ifndef SERVER_WORK_TEAM_H
#define SERVER_WORK_TEAM_H

#include <stdbool.h>
#include <stddef.h>

#include "vit.h"

struct team;

struct team *team_create(void);
/* Accepts NULL. Nobody may be in it. */
void team_free(struct team *team);

/* The leader's side: opens the team for runs whose helpers need `scratch` bytes; *lent, so far of the leader alone, is for
 * the session until team_close(), which returns when every helper has left. */
void team_open(struct team *team, vit_team *lent, size_t scratch);
void team_close(struct team *team);

/* A helper's side. Joining is announced first, while the leader cannot close the team (see queue_take()); then it takes
 * parts until the team closes, or until leave(context) says that there is something better to do. Spins for a short time
 * when there are none, then sleeps. scratch: its own memory of team_scratch() bytes, 64-byte aligned. Without, it leaves. */
void team_join(struct team *team);
size_t team_scratch(const struct team *team);
void team_help(struct team *team, void *scratch, bool (*leave)(void *context), void *context);
void team_leave(struct team *team);

#endif

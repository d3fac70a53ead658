/*
 * commands.h - the subcommands of the vitd binary. Each takes what cli.c parsed and returns the exit status.
 */
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/config.h"
#include "server/parameters.h"

struct arguments; /* cli.c's */

struct cli {
    int (*command)(const struct cli *cli); /* one of those below */
    struct arguments *arguments;
    struct config config; /* defaults, then --config, then options; at least one model, except for inspect */
    const char *const *operands; /* images of classify, the folder of inspect */
    size_t operand_count;
    struct choices choices; /* classify */
    const char *output; /* classify --output: where the explanation's picture goes; NULL if not given */
    int restart_failure; /* errno of the restart that OpenBLAS needed, 0 if there was none to fail; see main.c */
    const char *image; /* bench --image: adds decode + preprocess + forward; NULL if not given */
    const char *json;  /* bench --json: where the figures go as JSON; NULL if not given */
    bool dtype_given;  /* bench measures that one alone */
};

int command_serve(const struct cli *cli);    /* daemon.c: runs until SIGTERM or SIGINT */
int command_classify(const struct cli *cli); /* classify.c */
int command_inspect(const struct cli *cli);  /* inspect.c */
int command_bench(const struct cli *cli);    /* bench.c */

#endif

/* cli.h - the command line (DESIGN section 7). */
#ifndef SERVER_CLI_H
#define SERVER_CLI_H

#include <stdbool.h>

#include "server/commands.h"

enum { EXIT_RUNTIME = 1, EXIT_USAGE = 2 };

/* Parses the command line and reads the configuration it names. true: cli->command is to be run, then cli is to be
 * released. false: all is said (help, the version, an error) and *status is the exit status. Borrows argv. */
bool cli_parse(struct cli *cli, int argc, char **argv, int *status);
void cli_release(struct cli *cli);

/* The configuration anew: defaults, the file as it is now, options. *config is fresh; false: it is unchanged, and *error says
 * why. */
bool cli_configure(const struct cli *cli, struct config *config, struct config_error *error);

#endif

/*
 * main.c - start here. The order of start-up:
 *
 *     1. fill the standard descriptors that are closed         (below)
 *     2. restart once, if OpenBLAS needs another environment   (below)
 *     3. read the command line and the configuration           cli.c, config.c, config_file.c
 *     4. bind OpenBLAS to one thread per call                  vit_blas_init()
 *     5. run the command                                       daemon.c, classify.c, inspect.c, bench.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "server/cli.h"
#include "vit.h"

/* The next socket would take a closed descriptor's number, and a client would get what is meant for the log. Opened the
 * wrong way round, so that whoever needs input or output still fails. */
static void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* gets the lowest free number, fd */
}

/*
 * OpenBLAS is configured by its environment, and by main() it is too late: the library's constructor has read it,
 * chosen its kernels and started a thread for every CPU, which would wait, each with its buffers, for work that never
 * comes. So the process replaces itself with the same program in the environment it needs. Every reason to do so is
 * gone the second time, hence no loop; should exec fail, vit_blas_init() still keeps calls on one thread.
 * Returns 0, or the errno of that failure; the environment is then as it was for those who look at it later.
 */
static int prepare_blas_environment(char **argv)
{
    const char *threads = getenv("OPENBLAS_NUM_THREADS");
    const char *core = getenv("OPENBLAS_CORETYPE") == NULL ? vit_blas_better_core() : NULL;
    const bool threads_are_right = threads != NULL && strcmp(threads, "1") == 0;
    if ((threads_are_right || sysconf(_SC_NPROCESSORS_CONF) == 1) && core == NULL)
        return 0;
    if (setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0 &&
        (core == NULL || setenv("OPENBLAS_CORETYPE", core, 1) == 0))
        execv("/proc/self/exe", argv);
    const int failure = errno;
    if (core != NULL)
        unsetenv("OPENBLAS_CORETYPE");
    return failure;
}

int main(int argc, char **argv)
{
    int status;
    struct cli cli;
    fill_standard_descriptors();
    const int restart_failure = prepare_blas_environment(argv);
    prctl(PR_SET_NAME, program_invocation_short_name); /* after the restart the kernel calls it "exe" */

    if (cli_parse(&cli, argc, argv, &status)) {
        cli.restart_failure = restart_failure;
        vit_blas_init();
        status = cli.command(&cli);
        cli_release(&cli);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("vitd: standard output");
        status = EXIT_RUNTIME;
    }
    return status;
}

/*
 * confine.c - runs a program under the system call filters that systemd would set for its unit.
 * usage: confine ALLOWED PROGRAM [ARGUMENT]...
 *
 * ALLOWED is a file with the name of an allowed system call in each line; every other call fails with EPERM. What
 * MemoryDenyWriteExecute, RestrictAddressFamilies (IPv4, IPv6, Unix), RestrictNamespaces and LockPersonality forbid is
 * forbidden as well, as systemd does it (src/shared/seccomp-util.c). Needs no rights: it sets no_new_privs.
 */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EPERM_ACTION = SCMP_ACT_ERRNO(EPERM) };

/* Names that this kernel's architecture does not have are passed over. */
static bool allow_listed(scmp_filter_ctx filter, const char *path)
{
    char line[64];
    int allowed = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        const int call = seccomp_syscall_resolve_name(line);
        if (call != __NR_SCMP_ERROR && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0)
            allowed++;
    }
    fclose(file);
    return allowed > 100; /* fewer is a broken list */
}

static bool load_list(const char *path)
{
    scmp_filter_ctx filter = seccomp_init(EPERM_ACTION);
    const bool loaded = filter && allow_listed(filter, path) && seccomp_load(filter) == 0;
    seccomp_release(filter);
    return loaded;
}

/* A second filter, on top of the list: there is no adding a narrower rule for a call that is allowed. */
static bool load_restrictions(void)
{
    static const unsigned namespaces[] = {CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
                                          CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS};
    const unsigned code = PROT_WRITE | PROT_EXEC;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    bool added =
        filter &&
        seccomp_rule_add(filter, EPERM_ACTION, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, code, code)) == 0 &&
        seccomp_rule_add(filter, EPERM_ACTION, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)) == 0 &&
        seccomp_rule_add(filter, EPERM_ACTION, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_NE, 0)) == 0 &&
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0; /* its flags are in memory */
    for (size_t i = 0; added && i < sizeof namespaces / sizeof namespaces[0]; i++)
        added = seccomp_rule_add(filter, EPERM_ACTION, SCMP_SYS(clone), 1,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i])) == 0;
    for (int family = 0; added && family < AF_MAX; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
            added = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family)) == 0;
    const bool loaded = added && seccomp_load(filter) == 0;
    seccomp_release(filter);
    return loaded;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: confine ALLOWED PROGRAM [ARGUMENT]...\n", stderr);
        return 2;
    }
    /* the list last: it may not allow seccomp() */
    if (!load_restrictions() || !load_list(argv[1])) {
        fprintf(stderr, "confine: cannot set the filters of %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 1;
}

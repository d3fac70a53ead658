/*
 * cpus.c - how many CPUs this process may use. A container or a systemd slice often allows fewer than the machine
 * has: by affinity (cpuset), or by a quota of CPU time that any group above the process's own may set.
 */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "server/config.h"

enum { PATH_BYTES = 4096 };

static double quota_v2(const char *folder)
{
    char path[PATH_BYTES + 32];
    double quota, period, cpus = INFINITY;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return cpus;
    if (fscanf(file, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0) /* "max 100000": no limit */
        cpus = quota / period;
    fclose(file);
    return cpus;
}

static double read_number(const char *folder, const char *name)
{
    char path[PATH_BYTES + 32];
    double number = -1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    if (fscanf(file, "%lf", &number) != 1)
        number = -1;
    fclose(file);
    return number;
}

static double quota_v1(const char *folder)
{
    double quota = read_number(folder, "cpu.cfs_quota_us"), period = read_number(folder, "cpu.cfs_period_us");
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The smallest quota of root/group, of every group above it, and of root. Inside a container the group's path may
 * be the host's and not exist below root; root is then the container's own group. */
static double smallest_quota(const char *root, const char *group, double (*quota)(const char *folder))
{
    char folder[PATH_BYTES];
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", root, group) >= sizeof folder)
        return quota(root);
    double cpus = INFINITY;
    while (strlen(folder) >= strlen(root)) {
        cpus = fmin(cpus, quota(folder));
        char *slash = strrchr(folder, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
    return cpus;
}

/* A line of /proc/self/cgroup is "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1). */
static double quota_of_line(char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL)
        return INFINITY;
    *group++ = '\0';
    controllers++;
    if (*controllers == '\0')
        return fmin(smallest_quota("/sys/fs/cgroup", group, quota_v2),
                    smallest_quota("/sys/fs/cgroup/unified", group, quota_v2));
    if (strcmp(controllers, "cpu") == 0 || strncmp(controllers, "cpu,", 4) == 0 || strstr(controllers, ",cpu,") ||
        (strlen(controllers) > 4 && strcmp(controllers + strlen(controllers) - 4, ",cpu") == 0))
        return fmin(smallest_quota("/sys/fs/cgroup/cpu", group, quota_v1),
                    smallest_quota("/sys/fs/cgroup/cpu,cpuacct", group, quota_v1));
    return INFINITY;
}

static double cgroup_quota(void)
{
    char line[PATH_BYTES];
    double cpus = INFINITY;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return cpus;
    while (fgets(line, sizeof line, file) != NULL)
        cpus = fmin(cpus, quota_of_line(line));
    fclose(file);
    return cpus;
}

int config_cpu_count(void)
{
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    double quota = cgroup_quota();
    if (quota < cpus)
        cpus = (int)ceil(quota);
    return cpus < 1 ? 1 : cpus;
}

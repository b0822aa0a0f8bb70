/* Control groups of containers.
 *
 * Three layouts exist: v1 (a hierarchy per controller), v2 (one for all), hybrid (v1 controllers beside an
 * empty v2 tree).  What decides is who holds the memory controller.  On hybrid machines without a v1 freezer
 * the v2 tree can freeze.  Values are written through libcgroup; where its tables do not know a file
 * (cgroup.freeze in a v2 tree without controllers) the file is written plainly.  Usage is read with plain
 * reads: libcgroup would read every file of the group for one number. */
#include "agent/cgroup/cgroup_internal.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <libcgroup.h>
#include <stdio.h>
#include <unistd.h>

enum { FREEZE_WAIT_US = 50000, FREEZE_STEP_US = 100, CPU_PERIOD_US = 100000 };

static struct dv_cg_mount g_mounts[CG_N]; /* set once by dv_cgroup_setup, read-only afterwards */
static enum dv_cgroup_version g_version = DV_CGROUP_V1;
static bool g_has_lib;

static int read_all(const char *path, char *out, size_t cap, struct dv_err *err)
{
    char dir[64];
    const char *slash = strrchr(path, '/');
    (void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
    int rc = dv_cg_read(dir, slash + 1, out, cap);
    return rc ? dv_err_set(err, rc, "cannot read %s", path) : DV_OK;
}

int dv_cgroup_setup(struct dv_err *err)
{
    size_t cap = 256 * 1024;
    DV_AUTO_STR char *text = dv_alloc(cap);
    char controllers[512] = "";
    if (!text)
        return dv_err_set(err, DV_E_NOMEM, "control groups");
    int rc = read_all("/proc/self/mountinfo", text, cap, err);
    if (rc)
        return rc;
    dv_cg_parse_mounts(dv_sv_c(text), g_mounts);
    if (!g_mounts[CG_MEMORY].at[0] && !g_mounts[CG_UNIFIED].at[0])
        return dv_err_set(err, DV_E_IO, "no control group hierarchy is mounted");
    g_version = g_mounts[CG_MEMORY].at[0] ? DV_CGROUP_V1 : DV_CGROUP_V2;
    if (g_version == DV_CGROUP_V2 &&
        dv_cg_read(g_mounts[CG_UNIFIED].at, "cgroup.controllers", controllers, sizeof(controllers)))
        return dv_err_set(err, DV_E_IO, "%s is not a cgroup v2 hierarchy", g_mounts[CG_UNIFIED].at);
    g_has_lib = cgroup_init() == 0; /* refuses some hybrid layouts; plain writes serve there */
    return DV_OK;
}

enum dv_cgroup_version dv_cgroup_version(void)
{
    return g_version;
}

int dv_cgroup_of_pid(int64_t pid, struct dv_cgroup **out, struct dv_err *err)
{
    char path[64], text[8192];
    (void)snprintf(path, sizeof(path), "/proc/%lld/cgroup", (long long)pid);
    int rc = pid > 0 ? read_all(path, text, sizeof(text), err) : DV_NOT_FOUND;
    if (rc)
        return dv_err_set(err, rc == DV_NOT_FOUND ? DV_NOT_FOUND : rc, "no process %lld", (long long)pid);
    return dv_cg_resolve(dv_sv_c(text), g_mounts, g_version, out, err);
}

/* ---- writing ---- */

/* One value through libcgroup; DV_UNSUPPORTED when it does not know the controller or file. */
static int lib_set(const char *name, const char *controller, const char *file, const char *value)
{
    if (!g_has_lib || !name)
        return DV_UNSUPPORTED;
    struct cgroup *cg = cgroup_new_cgroup(name);
    struct cgroup_controller *ctl = cg ? cgroup_add_controller(cg, controller) : NULL;
    int rc = !ctl || cgroup_set_value_string(ctl, file, value) || cgroup_modify_cgroup(cg) ? DV_UNSUPPORTED
                                                                                           : DV_OK;
    if (cg)
        cgroup_free(&cg);
    return rc;
}

static int set_value(struct dv_cgroup *g, int ctrl, const char *controller, const char *file,
                     const char *value, struct dv_err *err)
{
    if (!g->dir[ctrl])
        return dv_err_set(err, DV_UNSUPPORTED, "no %s controller here", controller);
    if (lib_set(g->name[ctrl], controller, file, value) == DV_OK)
        return DV_OK;
    return dv_cg_write(g->dir[ctrl], file, value, err);
}

static int set_number(struct dv_cgroup *g, int ctrl, const char *controller, const char *file, int64_t value,
                      struct dv_err *err)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%lld", (long long)value);
    return set_value(g, ctrl, controller, file, text, err);
}

/* ---- freezing ---- */

static bool freezes_v1(const struct dv_cgroup *g)
{
    return g->version == DV_CGROUP_V1 && g->dir[CG_FREEZER];
}

int dv_cgroup_is_frozen(struct dv_cgroup *g, bool *out, struct dv_err *err)
{
    char text[64] = "";
    int64_t frozen = 0;
    int rc = freezes_v1(g)        ? dv_cg_read(g->dir[CG_FREEZER], "freezer.state", text, sizeof(text))
             : g->dir[CG_UNIFIED] ? dv_cg_read_key(g->dir[CG_UNIFIED], "cgroup.events", "frozen", &frozen)
                                  : DV_UNSUPPORTED;
    if (rc)
        return dv_err_set(err, rc, "cannot tell whether the group is frozen");
    *out = frozen == 1 || !strcmp(text, "FROZEN");
    return DV_OK;
}

bool dv_cgroup_can_freeze(const struct dv_cgroup *g, const char *container)
{
    const char *dir = g->dir[freezes_v1(g) ? CG_FREEZER : CG_UNIFIED];
    return dir && container[0] && strstr(dir, container);
}

int dv_cgroup_freeze_begin(struct dv_cgroup *g, bool frozen, struct dv_err *err)
{
    return freezes_v1(g)
               ? set_value(g, CG_FREEZER, "freezer", "freezer.state", frozen ? "FROZEN" : "THAWED", err)
               : set_value(g, CG_UNIFIED, "cgroup", "cgroup.freeze", frozen ? "1" : "0", err);
}

int dv_cgroup_freeze(struct dv_cgroup *g, bool frozen, struct dv_err *err)
{
    int rc = dv_cgroup_freeze_begin(g, frozen, err);
    for (int waited_us = 0; !rc; waited_us += FREEZE_STEP_US) {
        bool is_frozen;
        rc = dv_cgroup_is_frozen(g, &is_frozen, err);
        if (rc || is_frozen == frozen)
            return rc;
        if (waited_us >= FREEZE_WAIT_US)
            return dv_err_set(err, DV_DEADLINE, "the kernel has not %s the group yet",
                              frozen ? "frozen" : "thawed");
        (void)usleep(FREEZE_STEP_US);
    }
    return rc;
}

/* ---- limits ---- */

static int set_limits_v1(struct dv_cgroup *g, int64_t memory, int64_t mcpu, int64_t pids, struct dv_err *err)
{
    int rc = DV_OK;
    if (memory && set_number(g, CG_MEMORY, "memory", "memory.limit_in_bytes", memory, NULL)) {
        /* Shrinking or growing past the limit with swap: that one has to move first. */
        rc = set_number(g, CG_MEMORY, "memory", "memory.memsw.limit_in_bytes", memory, err);
        if (!rc)
            rc = set_number(g, CG_MEMORY, "memory", "memory.limit_in_bytes", memory, err);
    } else if (memory) {
        /* Absent without swap accounting: then there is nothing to bound. */
        (void)set_number(g, CG_MEMORY, "memory", "memory.memsw.limit_in_bytes", memory, NULL);
    }
    if (!rc && mcpu)
        rc = set_number(g, CG_CPU, "cpu", "cpu.cfs_period_us", CPU_PERIOD_US, err);
    if (!rc && mcpu)
        rc = set_number(g, CG_CPU, "cpu", "cpu.cfs_quota_us", mcpu * CPU_PERIOD_US / 1000, err);
    if (!rc && pids)
        rc = set_number(g, CG_PIDS, "pids", "pids.max", pids, err);
    return rc;
}

static int set_limits_v2(struct dv_cgroup *g, int64_t memory, int64_t mcpu, int64_t pids, struct dv_err *err)
{
    char cpu[64];
    (void)snprintf(cpu, sizeof(cpu), "%lld %d", (long long)(mcpu * CPU_PERIOD_US / 1000), CPU_PERIOD_US);
    int rc = memory ? set_number(g, CG_UNIFIED, "memory", "memory.max", memory, err) : DV_OK;
    if (!rc && mcpu)
        rc = set_value(g, CG_UNIFIED, "cpu", "cpu.max", cpu, err);
    if (!rc && pids)
        rc = set_number(g, CG_UNIFIED, "pids", "pids.max", pids, err);
    return rc;
}

int dv_cgroup_set_limits(struct dv_cgroup *g, int64_t memory, int64_t mcpu, int64_t pids, struct dv_err *err)
{
    return g->version == DV_CGROUP_V1 ? set_limits_v1(g, memory, mcpu, pids, err)
                                      : set_limits_v2(g, memory, mcpu, pids, err);
}

/* ---- usage ---- */

/* A counter that this kernel may not have stays 0. */
static int optional(int rc)
{
    return rc == DV_NOT_FOUND ? DV_OK : rc;
}

static int64_t no_limit_is_0(int64_t limit)
{
    return limit >= INT64_MAX / 2 ? 0 : limit; /* v1 says "none" as the largest multiple of a page */
}

static int usage_v1(struct dv_cgroup *g, struct dv_cgroup_usage *u)
{
    int64_t inactive = 0, cpu_ns = 0;
    int rc = DV_OK;
    if (g->dir[CG_MEMORY]) {
        rc = dv_cg_read_i64(g->dir[CG_MEMORY], "memory.usage_in_bytes", &u->memory_bytes);
        if (!rc)
            rc = optional(dv_cg_read_key(g->dir[CG_MEMORY], "memory.stat", "total_inactive_file", &inactive));
        if (!rc)
            rc = optional(dv_cg_read_i64(g->dir[CG_MEMORY], "memory.limit_in_bytes", &u->memory_limit_bytes));
        if (!rc)
            rc = optional(dv_cg_read_key(g->dir[CG_MEMORY], "memory.oom_control", "oom_kill", &u->oom_kills));
    }
    if (!rc && g->dir[CG_CPUACCT])
        rc = dv_cg_read_i64(g->dir[CG_CPUACCT], "cpuacct.usage", &cpu_ns);
    if (!rc && g->dir[CG_PIDS])
        rc = optional(dv_cg_read_i64(g->dir[CG_PIDS], "pids.current", &u->pids));
    u->memory_bytes -= inactive < u->memory_bytes ? inactive : u->memory_bytes;
    u->cpu_us = cpu_ns / 1000;
    return rc;
}

static int usage_v2(struct dv_cgroup *g, struct dv_cgroup_usage *u)
{
    const char *dir = g->dir[CG_UNIFIED];
    int64_t inactive = 0;
    int rc = optional(dv_cg_read_i64(dir, "memory.current", &u->memory_bytes));
    if (!rc)
        rc = optional(dv_cg_read_key(dir, "memory.stat", "inactive_file", &inactive));
    if (!rc)
        rc = optional(dv_cg_read_i64(dir, "memory.max", &u->memory_limit_bytes));
    if (!rc)
        rc = optional(dv_cg_read_key(dir, "memory.events", "oom_kill", &u->oom_kills));
    if (!rc)
        rc = dv_cg_read_key(dir, "cpu.stat", "usage_usec", &u->cpu_us);
    if (!rc)
        rc = optional(dv_cg_read_i64(dir, "pids.current", &u->pids));
    u->memory_bytes -= inactive < u->memory_bytes ? inactive : u->memory_bytes;
    return rc;
}

int dv_cgroup_usage(struct dv_cgroup *g, struct dv_cgroup_usage *out, struct dv_err *err)
{
    struct dv_cgroup_usage u = {0};
    int rc = g->version == DV_CGROUP_V1 ? usage_v1(g, &u) : usage_v2(g, &u);
    if (rc)
        return dv_err_set(err, rc, "usage of control group %s",
                          dv_cgroup_path(g, "memory") ? dv_cgroup_path(g, "memory") : "");
    u.memory_limit_bytes = no_limit_is_0(u.memory_limit_bytes);
    *out = u;
    return DV_OK;
}

/* ---- taking memory ---- */

bool dv_cgroup_can_reclaim(const struct dv_cgroup *g)
{
    char path[4096];
    const char *dir = g->version == DV_CGROUP_V2 ? g->dir[CG_UNIFIED] : NULL;
    int n = dir ? snprintf(path, sizeof(path), "%s/memory.reclaim", dir) : -1;
    return n > 0 && (size_t)n < sizeof(path) && access(path, W_OK) == 0;
}

int dv_cgroup_reclaim(const char *dir, int64_t bytes, int64_t *out_bytes, struct dv_err *err)
{
    int64_t before, after;
    char text[24];
    struct dv_err why = DV_ERR_INIT;
    int rc = dv_cg_read_i64(dir, "memory.current", &before);
    if (rc)
        return dv_err_set(err, rc == DV_NOT_FOUND ? DV_UNSUPPORTED : rc, "%s has no memory to take", dir);
    (void)snprintf(text, sizeof(text), "%lld", (long long)bytes);
    rc = dv_cg_write(dir, "memory.reclaim", text, &why);
    bool is_short = rc == DV_E_IO && why.sys_errno == EAGAIN;
    if (rc && !is_short)
        return dv_err_set(err, rc == DV_NOT_FOUND ? DV_UNSUPPORTED : rc, "%s", why.msg);
    if (dv_cg_read_i64(dir, "memory.current", &after))
        return dv_err_set(err, DV_NOT_FOUND, "%s is gone", dir);
    *out_bytes = before > after ? before - after : 0;
    return is_short ? DV_NO_CAPACITY : DV_OK;
}

/* ---- the machine ---- */

int dv_machine_memory(int64_t *out_total_bytes, int64_t *out_available_bytes, struct dv_err *err)
{
    char text[8192];
    unsigned long long total, available;
    int rc = read_all("/proc/meminfo", text, sizeof(text), err);
    const char *all = rc ? NULL : strstr(text, "MemTotal:"),
               *left = rc ? NULL : strstr(text, "MemAvailable:");
    if (!all || !left || sscanf(all, "MemTotal: %llu kB", &total) != 1 ||
        sscanf(left, "MemAvailable: %llu kB", &available) != 1)
        return dv_err_set(err, DV_E_IO, "/proc/meminfo is not as expected");
    *out_total_bytes = (int64_t)(total * 1024);
    *out_available_bytes = (int64_t)(available * 1024);
    return DV_OK;
}

int dv_machine_usage(int64_t *out_cpu_used_us, int64_t *out_memory_available_bytes, struct dv_err *err)
{
    char text[16384];
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
    int rc = read_all("/proc/stat", text, sizeof(text), err);
    if (rc)
        return rc;
    if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait,
               &irq, &softirq, &steal) != 8)
        return dv_err_set(err, DV_E_IO, "/proc/stat is not as expected");
    int64_t total, available;
    rc = dv_machine_memory(&total, &available, err);
    if (rc)
        return rc;
    long hz = sysconf(_SC_CLK_TCK);
    *out_cpu_used_us =
        (int64_t)((user + nice + system + irq + softirq + steal) * (1000000ull / (unsigned long long)hz));
    *out_memory_available_bytes = available;
    return DV_OK;
}

const struct dv_freezer dv_freezer_cgroup = {.can = dv_cgroup_can_freeze,
                                             .set = dv_cgroup_freeze_begin,
                                             .is_frozen = dv_cgroup_is_frozen,
                                             .can_reclaim = dv_cgroup_can_reclaim,
                                             .reclaim = dv_cgroup_reclaim,
                                             .memory = dv_machine_memory};

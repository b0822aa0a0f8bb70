/* A container's control groups, found through its own pid (/proc/PID/cgroup), on v1, hybrid and v2.
 * Reads usage, freezes and thaws, sets limits: through libcgroup, one writer (the agent's state loop).  Calls
 * are short file operations and do not block. */
#ifndef DV_CGROUP_H
#define DV_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/auto.h"
#include "proto/base/err.h"

struct dv_cgroup;
enum dv_cgroup_version { DV_CGROUP_V1 = 1, DV_CGROUP_V2 = 2 };

struct dv_cgroup_usage {
    int64_t memory_bytes;       /* without reclaimable page cache: what people call working set */
    int64_t memory_limit_bytes; /* 0: none */
    int64_t cpu_us;             /* total since start */
    int64_t oom_kills;
    int64_t pids;
};

/* Once per process, before anything else here. */
int dv_cgroup_setup(struct dv_err *err);
enum dv_cgroup_version
dv_cgroup_version(void); /* of the machine: v2 when the unified hierarchy holds the controllers */
/* DV_OK; DV_NOT_FOUND (no such process); DV_E_IO. */
int dv_cgroup_of_pid(int64_t pid, struct dv_cgroup **out, struct dv_err *err);
void dv_cgroup_free(struct dv_cgroup *g); /* NULL accepted */
DV_AUTO_DEFINE(struct dv_cgroup *, dv_cgroup_free);
int dv_cgroup_usage(struct dv_cgroup *g, struct dv_cgroup_usage *out, struct dv_err *err);
int dv_cgroup_freeze(struct dv_cgroup *g, bool frozen,
                     struct dv_err *err); /* returns when the kernel says so; bounded to 50 ms: DV_DEADLINE */
/* The same without waiting for the kernel: dv_cgroup_is_frozen tells.  DV_OK; DV_NOT_FOUND (the group is
 * gone); DV_UNSUPPORTED; DV_E_IO. */
int dv_cgroup_freeze_begin(struct dv_cgroup *g, bool frozen, struct dv_err *err);
/* Is there a group to freeze that is the container's own?  Where its hierarchy has none (its processes sit in
 * somebody else's group) freezing would stop others. */
bool dv_cgroup_can_freeze(const struct dv_cgroup *g, const char *container);
int dv_cgroup_is_frozen(struct dv_cgroup *g, bool *out, struct dv_err *err);
int dv_cgroup_set_limits(struct dv_cgroup *g, int64_t memory_bytes, int64_t cpu_mcpu, int64_t pids,
                         struct dv_err *err); /* 0: leave */
const char *dv_cgroup_path(const struct dv_cgroup *g,
                           const char *controller); /* absolute; NULL when it has none */

/* Take bytes of memory from the group at dir (dv_cgroup_path of "memory"), of version 2; blocks while the
 * kernel works.  Any thread.  DV_OK or DV_NO_CAPACITY (less could be had): *out_bytes is what it came to;
 * DV_UNSUPPORTED (version 1, or a kernel without memory.reclaim); DV_NOT_FOUND (the group is gone); DV_E_IO.
 */
int dv_cgroup_reclaim(const char *dir, int64_t bytes, int64_t *out_bytes, struct dv_err *err);
bool dv_cgroup_can_reclaim(const struct dv_cgroup *g);
/* Freezing and what goes with it, as a table that tests can stand in for. */
struct dv_freezer {
    bool (*can)(const struct dv_cgroup *g, const char *container);
    int (*set)(struct dv_cgroup *g, bool frozen, struct dv_err *err);
    int (*is_frozen)(struct dv_cgroup *g, bool *out, struct dv_err *err);
    bool (*can_reclaim)(const struct dv_cgroup *g);
    int (*reclaim)(const char *dir, int64_t bytes, int64_t *out_bytes, struct dv_err *err); /* any thread */
    int (*memory)(int64_t *out_total_bytes, int64_t *out_available_bytes, struct dv_err *err);
};
extern const struct dv_freezer dv_freezer_cgroup;

/* Whole machine, for the node report: cpu time used (us since boot, all cores), memory available. */
int dv_machine_memory(int64_t *out_total_bytes, int64_t *out_available_bytes, struct dv_err *err);
int dv_machine_usage(int64_t *out_cpu_used_us, int64_t *out_memory_available_bytes, struct dv_err *err);

#endif

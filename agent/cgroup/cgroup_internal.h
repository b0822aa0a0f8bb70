/* Where a group's directories are, apart from how they were found: tests lay out their own. */
#ifndef DV_CGROUP_INTERNAL_H
#define DV_CGROUP_INTERNAL_H

#include "agent/cgroup/cgroup.h"
#include "proto/base/str.h"

enum dv_cg_ctrl { CG_MEMORY, CG_CPU, CG_CPUACCT, CG_PIDS, CG_FREEZER, CG_UNIFIED, CG_N };

struct dv_cg_mount {
    char at[256];   /* mount point; empty when the controller is not mounted */
    char root[256]; /* what of the hierarchy is mounted there; usually "/" */
};

struct dv_cgroup {
    enum dv_cgroup_version version;
    char *dir[CG_N];  /* absolute; NULL when there is none */
    char *name[CG_N]; /* below the mount point, for libcgroup; NULL: plain writes only */
};

/* Mount points out of the text of /proc/self/mountinfo.  mounts has CG_N places.  Pure. */
void dv_cg_parse_mounts(struct dv_sv mountinfo, struct dv_cg_mount *mounts);
/* Directories out of the text of /proc/PID/cgroup.  DV_OK, DV_E_IO (outside what is mounted here),
 * DV_E_NOMEM. */
int dv_cg_resolve(struct dv_sv proc_cgroup, const struct dv_cg_mount *mounts, enum dv_cgroup_version version,
                  struct dv_cgroup **out, struct dv_err *err);

/* files.c: small files read and written whole.  DV_OK; DV_NOT_FOUND (no such file); DV_E_IO. */
int dv_cg_read(const char *dir, const char *file, char *out, size_t cap);
int dv_cg_read_i64(const char *dir, const char *file, int64_t *out); /* "max" reads as INT64_MAX */
int dv_cg_read_key(const char *dir, const char *file, const char *key, int64_t *out); /* "key value" lines */
int dv_cg_write(const char *dir, const char *file, const char *value, struct dv_err *err);

#endif

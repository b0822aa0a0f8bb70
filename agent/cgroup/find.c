/* From a pid to directories: /proc/PID/cgroup says where in each hierarchy the process is, mountinfo where
 * that hierarchy (or the part of it that we may see) is mounted. */
#include "agent/cgroup/cgroup_internal.h"
#include "proto/base/alloc.h"

static const char *const ctrl_names[CG_N] = {[CG_MEMORY] = "memory",
                                             [CG_CPU] = "cpu",
                                             [CG_CPUACCT] = "cpuacct",
                                             [CG_PIDS] = "pids",
                                             [CG_FREEZER] = "freezer"};

static bool has_word(struct dv_sv list, const char *word)
{
    for (struct dv_sv head; list.n;) {
        (void)dv_sv_cut(list, ',', &head, &list);
        if (dv_sv_eq(head, dv_sv_c(word)))
            return true;
    }
    return false;
}

static void set_mount(struct dv_cg_mount *m, struct dv_sv at, struct dv_sv root)
{
    if (m->at[0] || at.n >= sizeof(m->at) || root.n >= sizeof(m->root))
        return; /* the first mount of a hierarchy is as good as its next */
    memcpy(m->at, at.p, at.n);
    memcpy(m->root, root.p, root.n);
}

/* "36 35 98:0 /root /mount/point rw,noatime master:1 - cgroup cgroup rw,memory" */
static void take_mount(struct dv_sv line, struct dv_cg_mount *mounts)
{
    struct dv_sv f[6], rest = line, word, type, super = {NULL, 0};
    for (size_t i = 0; i < DV_COUNT(f); i++)
        if (!dv_sv_cut(rest, ' ', &f[i], &rest))
            return;
    do {
        if (!dv_sv_cut(rest, ' ', &word, &rest))
            return;
    } while (!dv_sv_eq(word, DV_SV("-")));
    (void)dv_sv_cut(rest, ' ', &type, &rest);
    (void)dv_sv_cut(rest, ' ', &word, &rest);
    (void)dv_sv_cut(rest, ' ', &super, &rest);
    if (dv_sv_eq(type, DV_SV("cgroup2")))
        set_mount(&mounts[CG_UNIFIED], f[4], f[3]);
    for (int i = 0; i < CG_N && dv_sv_eq(type, DV_SV("cgroup")); i++)
        if (ctrl_names[i] && has_word(super, ctrl_names[i]))
            set_mount(&mounts[i], f[4], f[3]);
}

void dv_cg_parse_mounts(struct dv_sv mountinfo, struct dv_cg_mount *mounts)
{
    memset(mounts, 0, CG_N * sizeof(*mounts));
    for (struct dv_sv line; mountinfo.n;) {
        (void)dv_sv_cut(mountinfo, '\n', &line, &mountinfo);
        take_mount(line, mounts);
    }
}

/* path below the mount, or .p NULL when that part of the hierarchy is not mounted here. */
static struct dv_sv below(const struct dv_cg_mount *m, struct dv_sv path)
{
    struct dv_sv root = dv_sv_c(m->root);
    if (dv_sv_eq(root, DV_SV("/")))
        return path;
    if (!dv_sv_starts(path, root) || (path.n > root.n && path.p[root.n] != '/'))
        return (struct dv_sv){NULL, 0};
    return path.n == root.n ? DV_SV("/") : dv_sv(path.p + root.n, path.n - root.n);
}

static int place(struct dv_cgroup *g, int ctrl, const struct dv_cg_mount *m, struct dv_sv path,
                 struct dv_err *err)
{
    if (!m->at[0] || g->dir[ctrl])
        return DV_OK;
    struct dv_sv rel = below(m, path);
    if (!rel.p || dv_sv_starts(path, DV_SV("/..")))
        return dv_err_set(err, DV_E_IO, "control group %.*s is not visible under %s", (int)path.n, path.p,
                          m->at);
    g->dir[ctrl] = dv_asprintf("%s%.*s", m->at, rel.n == 1 ? 0 : (int)rel.n, rel.p);
    g->name[ctrl] = dv_strndup(rel.p + 1, rel.n - 1);
    return g->dir[ctrl] && g->name[ctrl] ? DV_OK : dv_err_set(err, DV_E_NOMEM, "control group");
}

static int take_line(struct dv_cgroup *g, struct dv_sv line, const struct dv_cg_mount *mounts,
                     struct dv_err *err)
{
    struct dv_sv number, ctrls, path;
    if (!dv_sv_cut(line, ':', &number, &path) || !dv_sv_cut(path, ':', &ctrls, &path) || !path.n)
        return DV_OK;
    if (!ctrls.n)
        return place(g, CG_UNIFIED, &mounts[CG_UNIFIED], path, err);
    int rc = DV_OK;
    for (int i = 0; i < CG_N && !rc && g->version == DV_CGROUP_V1; i++)
        if (ctrl_names[i] && has_word(ctrls, ctrl_names[i]))
            rc = place(g, i, &mounts[i], path, err);
    return rc;
}

int dv_cg_resolve(struct dv_sv text, const struct dv_cg_mount *mounts, enum dv_cgroup_version version,
                  struct dv_cgroup **out, struct dv_err *err)
{
    DV_AUTO(dv_cgroup_free) struct dv_cgroup *g = dv_zalloc(sizeof(*g));
    if (!g)
        return dv_err_set(err, DV_E_NOMEM, "control group");
    g->version = version;
    for (struct dv_sv line; text.n;) {
        (void)dv_sv_cut(text, '\n', &line, &text);
        int rc = take_line(g, line, mounts, err);
        if (rc)
            return rc;
    }
    if (version == DV_CGROUP_V2 && !g->dir[CG_UNIFIED])
        return dv_err_set(err, DV_E_IO, "the process is in no control group of the unified hierarchy");
    *out = dv_steal(&g);
    return DV_OK;
}

void dv_cgroup_free(struct dv_cgroup *g)
{
    for (int i = 0; g && i < CG_N; i++) {
        dv_free(g->dir[i]);
        dv_free(g->name[i]);
    }
    dv_free(g);
}

const char *dv_cgroup_path(const struct dv_cgroup *g, const char *controller)
{
    for (int i = 0; i < CG_N && g->version == DV_CGROUP_V1; i++)
        if (ctrl_names[i] && !strcmp(ctrl_names[i], controller))
            return g->dir[i];
    return g->version == DV_CGROUP_V2 ? g->dir[CG_UNIFIED] : NULL;
}

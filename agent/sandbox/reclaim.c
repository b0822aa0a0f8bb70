/* While the node runs short of memory, frozen replicas give theirs back.
 *
 * Only under cgroup v2 (memory.reclaim, Linux 5.19): the kernel drops what can be read again and swaps out
 * what cannot.  Version 1 has nothing that takes an amount and leaves the rest alone.
 *
 * Who and how much is decided in agent/core/reclaim.h, once a second and after each step.  The kernel works
 * while it is written to, for as long as its disks take, so a step runs on a thread of its own, one at a
 * time; it knows the group by its path alone, since the replica may be gone when it is done.  A replica that
 * is thawed meanwhile runs: its pages come back as it touches them. */
#include "agent/sandbox/sandbox_internal.h"
#include "agent/core/reclaim.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/mailbox.h"

#include <pthread.h>
#include <signal.h>

struct sb_reclaim {
    struct dv_sandbox *sb;
    struct dv_mailbox *mailbox; /* from the thread */
    struct dv_msg done;
    bool is_running, is_short;
    /* the step: the thread's while it runs */
    pthread_t thread;
    const struct dv_freezer *freezer;
    uint64_t replica;
    char *dir;
    int64_t asked_bytes, got_bytes;
    int code;
};

static const struct dv_freezer *freezer(const struct dv_sandbox *s)
{
    return s->cfg.freezer ? s->cfg.freezer : &dv_freezer_cgroup;
}

/* ---- a step ---- */

static void ignore(struct dv_msg *m)
{
    (void)m;
}

static void *run(void *arg)
{
    struct sb_reclaim *rc = arg;
    rc->code = rc->freezer->reclaim(rc->dir, rc->asked_bytes, &rc->got_bytes, NULL);
    dv_mailbox_post(rc->mailbox, &rc->done);
    return NULL;
}

static void on_done(struct dv_msg *m)
{
    struct sb_reclaim *rc = DV_CONTAINER_OF(m, struct sb_reclaim, done);
    struct dv_sandbox *s = rc->sb;
    struct sb_replica *r = sb_find(s, rc->replica);
    (void)pthread_join(rc->thread, NULL);
    dv_free(rc->dir);
    rc->dir = NULL;
    rc->is_running = false;
    s->counts.reclaims++;
    s->counts.reclaimed_bytes += rc->got_bytes > 0 ? (uint64_t)rc->got_bytes : 0;
    if (r && r->sleep.state == SLEEP_FROZEN) {
        r->sleep.is_spent = rc->code || rc->got_bytes < rc->asked_bytes;
        if (r->cgroup)
            (void)dv_cgroup_usage(r->cgroup, &r->usage, NULL); /* gone: about to be told */
        sb_reclaim_consider(s);
    }
}

static void begin(struct sb_reclaim *rc, struct sb_replica *r, int64_t bytes)
{
    const char *dir = dv_cgroup_path(r->cgroup, "memory");
    sigset_t all, before;
    rc->dir = dir ? dv_strdup(dir) : NULL;
    if (!rc->dir)
        return;
    rc->freezer = freezer(rc->sb);
    rc->replica = r->id;
    rc->asked_bytes = bytes;
    rc->got_bytes = 0;
    rc->done.fn = on_done;
    (void)sigfillset(&all); /* signals are the state loop's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    rc->is_running = pthread_create(&rc->thread, NULL, run, rc) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!rc->is_running) {
        dv_free(rc->dir);
        rc->dir = NULL;
    }
}

/* ---- deciding ---- */

static bool is_candidate(const struct sb_replica *r)
{
    return r->sleep.state == SLEEP_FROZEN && freezer(r->sb)->can_reclaim(r->cgroup);
}

static bool has_candidates(struct dv_sandbox *s)
{
    DV_LIST_FOR_EACH (n, &s->replicas)
        if (is_candidate(DV_LIST_ENTRY(n, struct sb_replica, node)))
            return true;
    return false;
}

static size_t candidates(struct dv_sandbox *s, struct dv_reclaim_replica *v)
{
    size_t count = 0;
    DV_LIST_FOR_EACH (n, &s->replicas) {
        const struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, node);
        if (is_candidate(r))
            v[count++] = (struct dv_reclaim_replica){r->id, (sb_now(s) - r->sleep.began_ns) / DV_MS,
                                                     r->usage.memory_bytes, r->sleep.is_spent};
    }
    return count;
}

static bool is_short(struct sb_reclaim *rc, struct dv_reclaim_node *node)
{
    node->is_short = rc->is_short;
    rc->is_short = dv_reclaim_missing(node) > 0;
    if (rc->is_short && !node->is_short)
        dv_log(DV_LOG_INFO, "short of memory: frozen replicas give theirs back",
               DV_LU("available_bytes", (uint64_t)node->available_bytes));
    return rc->is_short;
}

void sb_reclaim_consider(struct dv_sandbox *s)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_reclaim_node node = {.percent = s->cfg.reclaim_percent};
    struct dv_reclaim_step step;
    struct sb_reclaim *rc = s->reclaim;
    if (!node.percent || rc->is_running || !has_candidates(s) ||
        freezer(s)->memory(&node.memory_bytes, &node.available_bytes, NULL) || !is_short(rc, &node))
        return;
    struct dv_reclaim_replica *v = dv_arena_alloc(&arena, (s->by_id.n + 1) * sizeof(*v));
    if (v && dv_reclaim_next(&node, v, candidates(s, v), &step))
        begin(rc, sb_find(s, step.id), step.bytes);
}

/* ---- life ---- */

int sb_reclaim_new(struct dv_sandbox *s, struct dv_err *err)
{
    s->reclaim = dv_zalloc(sizeof(*s->reclaim));
    if (!s->reclaim)
        return dv_err_set(err, DV_E_NOMEM, "sandbox");
    s->reclaim->sb = s;
    return dv_mailbox_new(s->cfg.loop, &s->reclaim->mailbox, err);
}

void sb_reclaim_free(struct dv_sandbox *s)
{
    struct sb_reclaim *rc = s->reclaim;
    if (!rc)
        return;
    s->cfg.reclaim_percent = 0; /* no step after this one */
    if (rc->is_running)
        (void)pthread_join(rc->thread, NULL); /* its step is bounded; what it posted is not heard any more */
    if (rc->mailbox) {
        rc->done.fn = ignore;
        dv_mailbox_free(rc->mailbox);
    }
    dv_free(rc->dir);
    dv_free(rc);
    s->reclaim = NULL;
}

/* Functions: compare how many replicas one should have with how many it has, and close the gap.
 *
 * Replicas of a function fall into those that count (of its generation, where they can be reached), and those
 * that leave: of an older generation, on a draining node, not ready on a node whose engine is down.  The
 * number wanted is made of the first; the second serve until enough of the first do (settle_leaving), so a
 * deploy or a drain never takes capacity away before it has put some in place.  Only where the cluster is so
 * full that nothing new fits beside the old, one old replica at a time makes room. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/sched_internal.h"
#include "proto/wire/codec.h"

#define SECOND 1000000000ull

enum {
    TOMBSTONES_MAX = 3,
    STOPS_MAX = 256 /* chosen at once: each choice looks at every replica */
};
#define TOMBSTONE_NS (600 * SECOND)

struct census {
    int64_t live;            /* count towards the number wanted */
    int64_t ready, starting; /* of those */
    int64_t leaving_ready;   /* serve still */
};

static struct census take_census(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns)
{
    struct census k = {0};
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (!dv_life_is_live(r->state) || !dv_cl_is_counted(c, r, now_ns))
            continue;
        bool is_ready = dv_life_is_ready(r->state);
        if (dv_cl_is_leaving(r)) {
            k.leaving_ready += is_ready;
            continue;
        }
        k.live++;
        k.ready += is_ready;
        k.starting += !is_ready;
    }
    return k;
}

/* ---- starting ---- */

static struct dv_need need_of(const struct dv_cluster_fn *f)
{
    const struct dv_fn_spec *s = &f->def->spec;
    struct dv_requests q = dv_fn_requests(s);
    return (struct dv_need){q.cpu_mcpu, q.memory_bytes, &s->constraints};
}

/* Tell the views how many replicas of this function each node has, for as long as it is being placed. */
static void count_own(struct dv_cluster *c, const struct dv_cluster_fn *f)
{
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (r->node && dv_life_is_live(r->state))
            c->views[r->node->index].n_of_function++;
    }
}

static void uncount_own(struct dv_cluster *c, const struct dv_cluster_fn *f)
{
    DV_LIST_FOR_EACH (it, &f->replicas)
        if (REPLICA_OF_FN(it)->node)
            c->views[REPLICA_OF_FN(it)->node->index].n_of_function = 0;
}

static struct dv_sched_query query_of(struct dv_cluster *c, const struct dv_cluster_fn *f,
                                      const struct dv_need *need)
{
    struct dv_sched_query q = {.need = need, .views = c->views, .seed = dv_rng_u64(&c->rng)};
    dv_cl_image_find(c, f->def->spec.image, q.image);
    return q;
}

static const char *explain(struct dv_cluster *c, const struct dv_need *need, uint64_t now_ns)
{
    uint64_t hash = dv_sched_constraints_hash(need->constraints);
    uint64_t slot = hash ^ (uint64_t)need->cpu_mcpu ^ (uint64_t)need->memory_bytes >> 10;
    struct explained *e = &c->explained[slot % DV_CL_EXPLAINED];
    bool is_it = e->at_ns && e->constraints == hash && e->cpu_mcpu == need->cpu_mcpu &&
                 e->memory_bytes == need->memory_bytes && now_ns - e->at_ns < SECOND;
    if (!is_it) {
        *e = (struct explained){need->cpu_mcpu, need->memory_bytes, hash, now_ns, ""};
        dv_sched_explain(need, c->views, c->n_views, e->text, sizeof(e->text));
    }
    return e->text;
}

static void note_unplaced(struct dv_cluster *c, struct dv_cluster_fn *f, const struct dv_need *need,
                          uint64_t now_ns)
{
    if (f->unplaced_since_ns)
        return;
    f->unplaced_since_ns = now_ns;
    dv_cl_event(c, f, NULL, NULL, "unplaceable", "%s", explain(c, need, now_ns));
}

static int place_one(struct dv_cluster *c, struct dv_cluster_fn *f, struct dv_sched_query *q,
                     const struct cl_kind *kind, uint64_t now_ns)
{
    size_t at;
    int rc = dv_sched_index_place(&c->index, q, &at);
    if (rc)
        return rc;
    q->seed++;
    struct dv_cluster_replica *r = NULL;
    if ((rc = dv_cl_replica_new(c, dv_rng_u64(&c->rng), f, c->by_index[at], now_ns, &r)))
        return rc;
    r->asked_ns = f->asked_ns;
    r->sent_ns = now_ns;
    c->views[at].n_of_function++;
    dv_cl_why(r, "%s", f->hot->decision.reason);
    dv_cl_mark(c, r, DV_MARK_START);
    bool has_image = dv_have_has(q->image[0], (uint32_t)at) || dv_have_has(q->image[1], (uint32_t)at);
    bool is_primed = dv_cl_primed_take(c, kind, r->node);
    q->primed = dv_cl_primed_nodes(c, kind);
    dv_cl_pools_started(c, f, now_ns);
    dv_cl_event(c, f, r, r->node, "placed", "%s",
                is_primed   ? "a primed sandbox is there"
                : has_image ? "the image is there"
                            : "the image is not known to be there yet");
    return DV_OK;
}

static int64_t start_some(struct dv_cluster *c, struct dv_cluster_fn *f, int64_t n, uint64_t now_ns)
{
    struct dv_need need = need_of(f);
    struct dv_sched_query q = query_of(c, f, &need);
    const struct cl_kind *kind = dv_cl_primed_kind(c, &f->def->spec);
    q.primed = dv_cl_primed_nodes(c, kind);
    count_own(c, f);
    int64_t started = 0;
    while (started < n) {
        int rc = place_one(c, f, &q, kind, now_ns);
        if (rc == DV_NO_CAPACITY)
            note_unplaced(c, f, &need, now_ns);
        if (rc)
            break; /* out of memory: the next tick tries again */
        started++;
    }
    uncount_own(c, f);
    if (started == n)
        f->unplaced_since_ns = 0;
    return started;
}

/* Before all nodes have spoken, only for somebody who waits, and not at once: what is there may be on its
 * way. */
static bool may_start(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns)
{
    if (dv_crashloop_blocks(&f->crash, now_ns))
        return false;
    return c->is_learned || (f->hot->scale.last.waiting > 0 && now_ns - c->born_ns >= SECOND);
}

/* ---- stopping ---- */

/* a goes before b: what serves nobody yet, then what is cut off, then the idlest, then the youngest. */
static bool goes_first(const struct dv_cluster_replica *a, const struct dv_cluster_replica *b)
{
    bool ra = dv_life_is_ready(a->state), rb = dv_life_is_ready(b->state);
    if (ra != rb)
        return !ra;
    if (a->node->is_connected != b->node->is_connected)
        return !a->node->is_connected;
    if (a->in_flight != b->in_flight)
        return a->in_flight < b->in_flight;
    if ((a->state == DV_REPLICA_FROZEN) != (b->state == DV_REPLICA_FROZEN))
        return a->state == DV_REPLICA_FROZEN; /* idle for longer */
    if (a->placed_ns != b->placed_ns)
        return a->placed_ns > b->placed_ns;
    return a->id > b->id;
}

static bool may_stop(const struct dv_cluster *c, const struct dv_cluster_replica *r, bool leaving,
                     uint64_t now_ns)
{
    return dv_life_is_live(r->state) && dv_cl_is_counted(c, r, now_ns) && dv_cl_is_leaving(r) == leaving;
}

/* To zero, mostly: then no choice is to be made. */
static bool stop_all(struct dv_cluster *c, struct dv_cluster_fn *f, bool leaving, int64_t n, const char *why,
                     uint64_t now_ns)
{
    int64_t there = 0;
    DV_LIST_FOR_EACH (it, &f->replicas)
        there += may_stop(c, REPLICA_OF_FN(it), leaving, now_ns);
    if (there > n)
        return false;
    DV_LIST_FOR_EACH_SAFE (it, &f->replicas)
        if (may_stop(c, REPLICA_OF_FN(it), leaving, now_ns))
            dv_cl_stop(c, REPLICA_OF_FN(it), why, now_ns);
    return true;
}

static void stop_some(struct dv_cluster *c, struct dv_cluster_fn *f, bool leaving, int64_t n, const char *why,
                      uint64_t now_ns)
{
    if (n <= 0 || stop_all(c, f, leaving, n, why, now_ns))
        return;
    if (n > STOPS_MAX)
        n = STOPS_MAX; /* the next tick goes on */
    while (n-- > 0) {
        struct dv_cluster_replica *victim = NULL;
        DV_LIST_FOR_EACH (it, &f->replicas) {
            struct dv_cluster_replica *r = REPLICA_OF_FN(it);
            if (may_stop(c, r, leaving, now_ns) && (!victim || goes_first(r, victim)))
                victim = r;
        }
        dv_cl_stop(c, victim, why, now_ns);
    }
}

static const char *why_leaving(const struct dv_cluster_replica *r)
{
    if (r->generation != r->fn->generation)
        return "replaced by a newer generation of its function";
    return r->node && r->node->is_draining ? "its node is drained" : "the engine of its node is down";
}

static void settle_leaving(struct dv_cluster *c, struct dv_cluster_fn *f, const struct census *k,
                           uint64_t now_ns)
{
    DV_LIST_FOR_EACH_SAFE (it, &f->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (dv_life_is_live(r->state) && !dv_life_is_ready(r->state) && dv_cl_is_leaving(r))
            dv_cl_stop(c, r, why_leaving(r), now_ns);
    }
    if (k->leaving_ready == 0)
        return;
    int64_t needed = f->asked - k->ready;
    if (needed < 0)
        needed = 0;
    if (k->leaving_ready > needed) {
        stop_some(c, f, true, k->leaving_ready - needed, "another serves in its place", now_ns);
        return;
    }
    bool is_stuck =
        k->starting == 0 && f->unplaced_since_ns && now_ns - f->unplaced_since_ns >= c->cfg.unplaced_ns;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (!is_stuck || !dv_life_is_live(r->state) || r->generation == f->generation)
            continue;
        dv_cl_stop(c, r, "makes room for a newer generation of its function", now_ns);
        f->unplaced_since_ns = now_ns;
        return;
    }
}

/* ---- failing ---- */

static bool is_functions_fault(enum dv_reason reason)
{
    switch (reason) {
    case DV_REASON_STOPPED:
    case DV_REASON_NODE_LOST:
    case DV_REASON_ENGINE_DOWN:
    case DV_REASON_INTERRUPTED:
    case DV_REASON_REMOVED:
        return false;
    default:
        return true;
    }
}

static void tell_trouble(struct dv_cluster_fn *f, const struct dv_replica_report *rep)
{
    char code[40] = "", out[DV_CL_TEXT_MAX + 1];
    size_t cap = sizeof(out);
    if (rep->reason == DV_REASON_EXITED)
        (void)snprintf(code, sizeof(code), " (exit code %lld)", (long long)rep->exit_code);
    const char *message = rep->message && *rep->message ? rep->message : NULL;
    const char *tail = rep->log_tail && *rep->log_tail ? rep->log_tail : NULL;
    (void)snprintf(out, cap, "%s%s%s%s%s%s", dv_reason_text(rep->reason), code, message ? ": " : "",
                   message ? message : "", tail ? "; its last words: " : "", tail ? tail : "");
    for (char *p = out; *p; p++)
        if (*p == '\n' || *p == '\r' || *p == '\t')
            *p = ' ';
    dv_cl_text_set(&f->trouble, out);
}

void dv_cl_failed(struct dv_cluster *c, struct dv_cluster_fn *f, const struct dv_cluster_replica *r,
                  const struct dv_replica_report *rep, bool was_ready, uint64_t now_ns)
{
    dv_cl_why((struct dv_cluster_replica *)r, "%s%s%s", dv_reason_text(rep->reason), rep->message ? ": " : "",
              rep->message ? rep->message : "");
    bool is_told = is_functions_fault(rep->reason) && r->generation == f->generation;
    if (is_told) {
        tell_trouble(f, rep);
        if (was_ready && (r->is_adopted || now_ns - r->warm_ns >= DV_CRASHLOOP_PROVEN_NS))
            dv_crashloop_clear(&f->crash); /* it served; another may be made at once */
        else
            dv_crashloop_fail(&f->crash, now_ns);
    }
    dv_cl_event(c, f, r, NULL, "failed", "%s", is_told && f->trouble[0] ? f->trouble : r->why);
}

static void update_failing(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    struct census k = take_census(c, f, now_ns);
    char text[DV_CL_TEXT_MAX + 1] = "";
    if (k.ready + k.starting + k.leaving_ready == 0) {
        if (dv_crashloop_blocks(&f->crash, now_ns)) {
            (void)dv_copy(text, sizeof(text), f->trouble[0] ? f->trouble : "its replicas fail to start");
        } else if (f->unplaced_since_ns && now_ns - f->unplaced_since_ns >= c->cfg.unplaced_ns) {
            struct dv_need need = need_of(f);
            (void)dv_copy(text, sizeof(text), explain(c, &need, now_ns));
        }
    }
    dv_cl_set_failing(c, f, text);
}

/* ---- what is kept only while something goes on ---- */

static void policy_of(const struct dv_cluster *c, const struct dv_cluster_fn *f, struct dv_scale_policy *out)
{
    const struct dv_function *def = f->def;
    struct dv_fn_spec spec;
    dv_fn_spec_resolved(&def->spec, c->cfg.default_idle_ms, &spec);
    dv_scale_policy_of(&spec, def->desired_override, out);
    if (f->scheduled_min > out->min) {
        out->is_scheduled = true;
        out->min = f->scheduled_min < out->max ? f->scheduled_min : out->max;
    }
    dv_cl_keep_policy(f, out);
}

int dv_cl_heat(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (f->hot)
        return DV_OK;
    struct dv_cluster_hot *hot = dv_zalloc(sizeof(*hot));
    if (!hot)
        return DV_E_NOMEM;
    policy_of(c, f, &hot->policy);
    f->hot = hot;
    return DV_OK;
}

static void cool(struct dv_cluster_fn *f)
{
    dv_free(f->hot);
    f->hot = NULL;
}

/* ---- the comparison ---- */

static void prune_tombstones(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    int n = 0;
    bool has_proven = false;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        n += r->state == DV_REPLICA_FAILED;
        has_proven |= dv_life_is_ready(r->state) && r->generation == f->generation &&
                      now_ns - r->since_ns >= DV_CRASHLOOP_PROVEN_NS;
    }
    if (has_proven && f->crash.failures) {
        dv_crashloop_clear(&f->crash);
        dv_cl_text_set(&f->trouble, "");
    }
    DV_LIST_FOR_EACH_SAFE (it, &f->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (r->state != DV_REPLICA_FAILED)
            continue;
        if (n > TOMBSTONES_MAX || now_ns - r->since_ns > TOMBSTONE_NS || r->generation != f->generation) {
            dv_cl_gone(c, r, now_ns);
            n--;
        }
    }
}

static void still_unplaced(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    size_t at;
    struct dv_need need = need_of(f);
    struct dv_sched_query q = query_of(c, f, &need);
    /* Callers are being turned away, so nobody waits; they may again once there is room. */
    if (!f->failing[0] || dv_sched_index_place(&c->index, &q, &at) == DV_OK)
        f->unplaced_since_ns = 0;
}

static void decide(struct dv_cluster *c, struct dv_cluster_fn *f, const struct census *k, uint64_t now_ns)
{
    int64_t before = f->asked;
    struct cl_asks asks;
    dv_cl_asks(c, f, now_ns, &asks);
    struct dv_scale_seen seen = {k->ready + k->leaving_ready, k->starting, asks.v, asks.n};
    struct dv_scale_policy policy = f->hot->policy;
    if (f->hot->is_evicted)
        policy.idle_ns = 0;
    dv_scale_decide(&f->hot->scale, &policy, &seen, now_ns, &f->hot->decision);
    f->hot->is_evicted &= f->hot->decision.wanted == 0; /* otherwise somebody needs it after all */
    if (f->hot->is_evicted)
        (void)dv_copy(f->hot->decision.reason, sizeof(f->hot->decision.reason),
                      "a node is short of memory, and this is idle");
    if (f->hot->decision.override_over && f->hot->policy.override == 0) {
        f->hot->policy.override = -1;
        f->spent_override = true;
        dv_cl_dirty(c, f);
    }
    dv_scale_keep(&f->hot->decision, k->live + k->leaving_ready);
    if (f->hot->decision.wanted == 0 && f->hot->policy.override < 0 && dv_cl_keep_holds(f)) {
        f->hot->decision.wanted = 1;
        f->hot->decision.signal = DV_SIG_AHEAD;
        (void)dv_copy(f->hot->decision.reason, sizeof(f->hot->decision.reason),
                      "ready ahead of its next request");
    }
    f->asked = f->hot->decision.wanted;
    if (f->asked == 0 && before > 0 && !f->hot->is_evicted)
        dv_cl_keep_explain(f, f->hot->decision.reason, sizeof(f->hot->decision.reason));
    if (f->asked != before)
        dv_cl_event(c, f, NULL, NULL, "scaled", "%lld to %lld: %s", (long long)before, (long long)f->asked,
                    f->hot->decision.reason);
    if (f->asked != before)
        dv_cl_decided(c, f, before, now_ns);
}

static bool is_busy(const struct dv_cluster_fn *f)
{
    return f->hot && f->hot->scale.last.waiting + f->hot->scale.last.in_flight > 0;
}

static bool has_starting(const struct dv_cluster_fn *f)
{
    DV_LIST_FOR_EACH (it, &f->replicas) {
        enum dv_replica_state s = REPLICA_OF_FN(it)->state;
        if (s == DV_REPLICA_COLD || s == DV_REPLICA_STARTING)
            return true;
    }
    return false;
}

static void set_active(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    bool is_active = !dv_list_empty(&f->replicas) || f->hot->decision.wanted > 0 ||
                     f->hot->scale.last.waiting > 0 || f->failing[0] || f->unplaced_since_ns ||
                     dv_crashloop_blocks(&f->crash, now_ns);
    if (!is_active) {
        dv_list_remove(&f->active);
        dv_list_remove(&f->busy);
        dv_cl_keep_rest(c, f, now_ns);
        cool(f);
    } else {
        dv_cl_active(c, f, is_busy(f) || has_starting(f));
    }
    bool is_lacking = f->unplaced_since_ns || dv_cluster_fn_waiting(f) > 0;
    if (!is_lacking)
        dv_list_remove(&f->lacking);
    else if (dv_list_empty(&f->lacking))
        dv_list_push_back(&c->lacking, &f->lacking);
}

/* Counting the replicas of a function takes a while where there are many, and in a burst each of them reports
 * several times.  A count of a moment ago will do then: the next tick makes a new one. */
void dv_cl_reconcile_soon(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    if (now_ns - f->reconciled_ns >= dv_cl_pause_ns(f))
        dv_cl_reconcile(c, f, now_ns);
}

void dv_cl_due(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (dv_list_empty(&f->due))
        dv_list_push_back(&c->due, &f->due);
}

void dv_cl_reconcile_due(struct dv_cluster *c, uint64_t now_ns)
{
    struct dv_list *it;
    while ((it = dv_list_pop_front(&c->due)))
        dv_cl_reconcile(c, DV_LIST_ENTRY(it, struct dv_cluster_fn, due), now_ns);
}

void dv_cl_reconcile(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    f->reconciled_ns = now_ns;
    if (dv_cl_heat(c, f)) {
        dv_cl_active(c, f, true); /* the next tick tries again */
        return;
    }
    prune_tombstones(c, f, now_ns);
    struct census k = take_census(c, f, now_ns);
    decide(c, f, &k, now_ns);
    int64_t lacking = f->hot->decision.wanted - k.live;
    if (lacking > 0 && may_start(c, f, now_ns)) {
        int64_t started = start_some(c, f, lacking, now_ns);
        k.starting += started;
        if (started < lacking)
            dv_scale_bound(&f->hot->decision, k.live, started);
    } else if (lacking <= 0 && f->unplaced_since_ns) {
        still_unplaced(c, f);
    }
    if (c->is_learned) {
        if (lacking < 0)
            stop_some(c, f, false, -lacking, f->hot->decision.reason, now_ns);
        settle_leaving(c, f, &k, now_ns);
    }
    update_failing(c, f, now_ns);
    set_active(c, f, now_ns);
}

/* ---- inputs ---- */

static int fn_new(struct dv_cluster *c, const struct dv_function *def, struct dv_cluster_fn **out)
{
    struct dv_cluster_fn *f = dv_zalloc(sizeof(*f));
    if (!f)
        return DV_E_NOMEM;
    f->uid = def->uid;
    f->generation = def->generation;
    f->def = def;
    f->failing = f->trouble = "";
    dv_list_init(&f->replicas);
    dv_list_init(&f->active);
    dv_list_init(&f->busy);
    dv_list_init(&f->dirty);
    dv_list_init(&f->lacking);
    dv_list_init(&f->due);
    int rc = dv_idmap_put(&c->fns, f->uid, f);
    if (rc) {
        dv_free(f);
        return rc;
    }
    *out = f;
    return DV_OK;
}

void dv_cl_fn_free(struct dv_cluster_fn *f)
{
    dv_cl_text_set(&f->failing, "");
    dv_cl_text_set(&f->trouble, "");
    dv_cl_watch_free(f);
    dv_free(f->hot);
    dv_free(f->keep);
    dv_free(f);
}

int dv_cluster_fn_put(struct dv_cluster *c, const struct dv_function *def, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, def->uid);
    int rc;
    if (!f && (rc = fn_new(c, def, &f)))
        return rc;
    const struct dv_function *old = f->def == def ? NULL : f->def;
    f->def = def;
    if ((rc = dv_cl_watch(f, old)))
        return rc;
    rc = dv_cl_pools_fn(c, f);
    dv_cl_keep_changed(c, f);
    if (f->hot)
        policy_of(c, f, &f->hot->policy);
    if (f->generation != def->generation) {
        f->generation = def->generation;
        f->unplaced_since_ns = 0;
        dv_cl_text_set(&f->trouble, "");
        dv_crashloop_clear(&f->crash);
    }
    dv_cl_reconcile(c, f, now_ns);
    return rc;
}

void dv_cluster_fn_set(struct dv_cluster *c, uint64_t uid, int64_t replicas, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, uid);
    if (!f || dv_cl_heat(c, f))
        return;
    f->hot->policy.override = -1;
    dv_scale_set(&f->hot->scale, &f->hot->policy, replicas, now_ns);
    dv_cl_reconcile(c, f, now_ns);
}

void dv_cluster_schedule(struct dv_cluster *c, uint64_t fn_uid, int64_t min, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (!f || f->scheduled_min == min)
        return;
    f->scheduled_min = (int32_t)min;
    if (f->hot) {
        int64_t override = f->hot->policy.override; /* may be ahead of the definition */
        policy_of(c, f, &f->hot->policy);
        f->hot->policy.override = override;
    }
    dv_cl_reconcile(c, f, now_ns);
}

void dv_cluster_fn_begin(struct dv_cluster *c, uint64_t uid, int64_t replicas, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, uid);
    if (!f || dv_cl_heat(c, f))
        return;
    if (replicas <= f->hot->policy.min) {
        dv_cl_reconcile(c, f, now_ns); /* it may be at rest */
        return;
    }
    dv_scale_begin(&f->hot->scale, &f->hot->policy, replicas, now_ns);
    dv_cl_reconcile(c, f, now_ns);
}

void dv_cluster_fn_remove(struct dv_cluster *c, uint64_t uid, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_remove(&c->fns, uid);
    if (!f)
        return;
    while (!dv_list_empty(&f->replicas)) {
        struct dv_cluster_replica *r = REPLICA_OF_FN(f->replicas.next);
        if (r->state == DV_REPLICA_FAILED && !r->node) {
            dv_cl_gone(c, r, now_ns);
            continue;
        }
        dv_cl_detach_fn(c, r);
        if (dv_life_is_live(r->state))
            dv_cl_stop(c, r, "its function was deleted", now_ns);
    }
    dv_list_remove(&f->active);
    dv_list_remove(&f->busy);
    dv_list_remove(&f->dirty);
    dv_list_remove(&f->lacking);
    dv_list_remove(&f->due);
    dv_decisions_forget(&c->decisions, &f->decisions);
    dv_cl_keep_forget(c, f);
    dv_cl_fn_free(f);
}

void dv_cluster_demand(struct dv_cluster *c, uint64_t fn_uid, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (!f)
        return;
    dv_cl_keep_used(c, f, !is_busy(f), now_ns);
    if (dv_cl_heat(c, f)) /* short of memory: whoever waits is told of again */
        return;
    dv_scale_touch(&f->hot->scale, now_ns);
    if (f->hot->scale.last.waiting == 0)
        f->hot->scale.last.waiting = 1;
    if (f->asked_ns == 0)
        f->asked_ns = now_ns;
    dv_cl_reconcile(c, f, now_ns);
}

void dv_cluster_load(struct dv_cluster *c, uint64_t fn_uid, const struct dv_scale_sample *s, uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (f)
        dv_cl_keep_used(c, f, !is_busy(f), s->waiting + s->in_flight > 0 ? now_ns : s->last_activity_ns);
    bool is_at_rest = f && !f->hot && s->waiting == 0;
    if (f && !is_at_rest && dv_cl_heat(c, f) == DV_OK)
        dv_scale_observe(&f->hot->scale, &f->hot->policy, s, now_ns);
    if (f && is_busy(f) && !dv_list_empty(&f->active) && dv_list_empty(&f->busy))
        dv_list_push_back(&c->busy, &f->busy);
}

/* Davit: the control row's part of a decision, without its sockets.  Demand, reports and ticks go to the
 * core; what the core decides becomes messages to agents, and routes for the dispatcher.
 *
 * A message takes link_ns and is lost when the link broke meanwhile (its node's epoch changed).  As the real
 * agents do, fake ones report a change at once, everything every full_report_ns and after each connect, and
 * are answered with the ids that are wanted on them; what they hold beyond these, for two seconds or longer,
 * they stop. */
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"
#include "tests/sim/sim.h"

#define DEMAND_AGAIN_NS (100 * SIM_MS) /* as the gateway repeats it */
#define SPARED_NS       (2 * SIM_S)    /* a sync does not stop what is younger */

struct davit {
    struct dv_cluster *c;
    bool is_pumping;
    uint64_t tick_at_ns, ticked_ns; /* tick_at_ns 0: none pending */
};

struct address { /* of a node, over one life of its link */
    uint64_t node, epoch;
};

struct message {
    struct address of;
    struct sim_fn *fn;
    uint64_t generation;
    size_t n;
    bool is_full;
    struct dv_replica_report reports[];
};

static struct davit *davit_of(struct sim *s)
{
    return s->sys_state;
}

struct dv_cluster *sim_davit_cluster(struct sim *s)
{
    return s->sys == &sim_davit ? davit_of(s)->c : NULL;
}

static struct sim_fn *fn_by_uid(struct sim *s, uint64_t uid)
{
    return uid >= 1000 && uid - 1000 < s->n_fns ? s->fns[uid - 1000] : NULL;
}

static struct sim_node *node_by_id(struct sim *s, uint64_t id)
{
    return &s->nodes[id - 1];
}

static struct message *message_new(struct sim_node *n, size_t n_reports)
{
    struct message *m = dv_zalloc(sizeof(*m) + n_reports * sizeof(m->reports[0]));
    if (!m)
        abort();
    m->of.node = n->id;
    m->of.epoch = n->epoch;
    m->n = n_reports;
    return m;
}

/* The node it was for, or from, over a link that held; NULL: lost on the way. */
static struct sim_node *delivered(struct sim *s, const struct address *a)
{
    struct sim_node *n = node_by_id(s, a->node);
    return n->link_up && n->epoch == a->epoch ? n : NULL;
}

/* ---- time ---- */

static void pump(struct sim *s);

static void sample(void *ctx, const struct dv_cluster_fn *cf)
{
    struct sim *s = ctx;
    struct sim_fn *f = fn_by_uid(s, cf->uid);
    struct dv_load l;
    dv_live_load(f->live, s->now, &l);
    struct dv_scale_sample sm = {.arrived = l.arrived,
                                 .answered = l.answered,
                                 .service_ns = l.service_ns,
                                 .in_flight_time = l.in_flight_time,
                                 .waiting = l.waiting,
                                 .in_flight = l.in_flight,
                                 .oldest_wait_ns = l.oldest_wait_ns,
                                 .last_activity_ns = l.last_activity_ns};
    DV_LIST_FOR_EACH (it, &f->replicas) {
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        dv_cluster_replica_busy(davit_of(s)->c, r->id, r->in_flight);
    }
    if (s->cfg.is_checked)
        sim_note_load(s, f);
    dv_cluster_load(davit_of(s)->c, f->def.uid, &sm, s->now);
}

static void on_tick(struct sim *s, struct sim_event *e)
{
    struct davit *d = davit_of(s);
    if (e->a != d->tick_at_ns)
        return; /* another was set since */
    d->tick_at_ns = 0;
    d->ticked_ns = s->now;
    dv_cluster_each_active(d->c, sample, s);
    dv_cluster_tick(d->c, s->now);
    pump(s);
}

static void see_to_tick(struct sim *s)
{
    struct davit *d = davit_of(s);
    uint64_t at = dv_cluster_next_tick(d->c, s->now);
    if (at == UINT64_MAX)
        return;
    if (at < d->ticked_ns + s->cfg.tick_ns)
        at = d->ticked_ns + s->cfg.tick_ns;
    if (d->tick_at_ns && d->tick_at_ns <= at)
        return;
    d->tick_at_ns = at;
    sim_at(s, at, on_tick, NULL, at, 0);
}

/* ---- demand ---- */

static void on_demand(struct sim *s, struct sim_event *e)
{
    struct sim_fn *f = e->ptr;
    f->has_demand = false;
    if (f->is_removed)
        return;
    if (!f->queue.n_waiting)
        return;
    const struct dv_cluster_fn *cf = dv_cluster_fn_find(davit_of(s)->c, f->def.uid);
    f->demand_ns = s->now;
    sample(s, cf);
    dv_cluster_demand(davit_of(s)->c, f->def.uid, s->now);
    pump(s);
    if (f->queue.n_waiting && !f->has_demand) {
        f->has_demand = true;
        sim_at(s, s->now + DEMAND_AGAIN_NS, on_demand, f, 0, 0);
    }
}

static void waits(struct sim *s, struct sim_fn *f)
{
    if (f->has_demand)
        return;
    f->has_demand = true;
    uint64_t at = f->demand_ns + DEMAND_AGAIN_NS;
    if (!f->demand_ns || at < s->now + s->cfg.link_ns)
        at = s->now + s->cfg.link_ns;
    sim_at(s, at, on_demand, f, 0, 0);
}

/* ---- to agents ---- */

static void on_start(struct sim *s, struct sim_event *e)
{
    struct message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    if (n)
        sim_agent_start(s, n, m->fn, e->a, m->generation);
    dv_free(m);
}

static void on_stop(struct sim *s, struct sim_event *e)
{
    struct message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    struct sim_replica *r = n ? sim_replica_find(s, e->a) : NULL;
    if (r && r->node == n)
        sim_agent_stop(s, r);
    dv_free(m);
}

static void on_sync(struct sim *s, struct sim_event *e)
{
    struct message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    struct dv_map listed;
    dv_map_init(&listed, 1);
    for (size_t i = 0; n && i < m->n; i++)
        (void)dv_idmap_put(&listed, m->reports[i].id, m);
    if (n)
        DV_LIST_FOR_EACH_SAFE (it, &n->replicas) {
            struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_node);
            if (!dv_idmap_find(&listed, r->id) && s->now - r->made_ns >= SPARED_NS)
                sim_agent_stop(s, r);
        }
    dv_map_deinit(&listed);
    dv_free(m);
}

static void send_sync(struct sim *s, struct sim_node *n)
{
    const struct dv_cluster_node *cn = dv_cluster_node_find(davit_of(s)->c, n->id);
    size_t count = 0;
    DV_LIST_FOR_EACH (it, &cn->replicas)
        count++;
    struct message *m = message_new(n, count);
    count = 0;
    DV_LIST_FOR_EACH (it, &cn->replicas)
        m->reports[count++].id = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_node)->id;
    sim_at_own(s, s->now + s->cfg.link_ns, on_sync, m, 0, 0);
}

static void send_command(struct sim *s, const struct dv_action *a)
{
    struct sim_node *n = a->node ? node_by_id(s, a->node->id) : NULL;
    if (!n || !n->link_up)
        return; /* the next full report shows what is missing */
    struct message *m = message_new(n, 0);
    if (a->kind == DV_ACT_START) {
        m->fn = fn_by_uid(s, a->fn_uid);
        m->generation = a->replica->generation;
        if (s->cfg.is_checked)
            sim_check_start(s, m->fn, a->replica_id);
        sim_trace(s, "start %016llx of %s on %llu: %s", (unsigned long long)a->replica_id, m->fn->name,
                  (unsigned long long)n->id, a->replica->why);
    } else {
        sim_trace(s, "stop %016llx on %llu: %s", (unsigned long long)a->replica_id, (unsigned long long)n->id,
                  a->replica->why);
    }
    sim_at_own(s, s->now + s->cfg.link_ns, a->kind == DV_ACT_START ? on_start : on_stop, m, a->replica_id, 0);
}

struct pools_message {
    struct address of;
    int64_t wanted[SIM_IMAGES_MAX];
};

static void on_pools(struct sim *s, struct sim_event *e)
{
    struct pools_message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    for (size_t i = 0; n && i < SIM_IMAGES_MAX; i++)
        n->pools[i].wanted = m->wanted[i];
    if (n)
        sim_agent_pools(s, n);
    dv_free(m);
}

static size_t image_no(const char *image)
{
    uint64_t i = 0;
    const char *digits = strchr(image, '-');
    return digits && dv_parse_u64(dv_sv_c(digits + 1), &i) && i < SIM_IMAGES_MAX ? (size_t)i : 0;
}

static void send_pools(struct sim *s, const struct dv_action *a)
{
    struct sim_node *n = node_by_id(s, a->node->id);
    if (!n->link_up || !s->cfg.has_pools)
        return;
    struct pools_message *m = dv_zalloc(sizeof(*m));
    struct dv_pool pools[SIM_IMAGES_MAX];
    if (!m)
        abort();
    m->of.node = n->id;
    m->of.epoch = n->epoch;
    size_t count = dv_cluster_pools(davit_of(s)->c, a->node, pools, DV_COUNT(pools));
    for (size_t i = 0; i < count; i++)
        m->wanted[image_no(pools[i].image)] += pools[i].n;
    sim_at_own(s, s->now + s->cfg.link_ns, on_pools, m, 0, 0);
}

/* ---- to the dispatcher ---- */

static void publish(struct sim *s, const struct dv_cluster_fn *cf)
{
    struct sim_fn *f = fn_by_uid(s, cf->uid);
    struct sim_replica *few[64], **set = few;
    size_t n = 0, count = 0;
    DV_LIST_FOR_EACH (it, &cf->replicas)
        count++;
    if (count > DV_COUNT(few) && !(set = dv_zalloc_n(count, sizeof(struct sim_replica *))))
        abort();
    DV_LIST_FOR_EACH (it, &cf->replicas) {
        const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        struct sim_replica *held = dv_cluster_routable(r) ? sim_replica_find(s, r->id) : NULL;
        if (held) /* otherwise it has just gone, and the report of it is on its way */
            set[n++] = held;
    }
    sim_routes(s, f, set, n);
    if (set != few)
        dv_free(set);
}

static void set_failing(struct sim *s, const struct dv_cluster_fn *cf)
{
    struct sim_fn *f = fn_by_uid(s, cf->uid);
    f->is_failing = cf->failing[0] != '\0';
    sim_trace(s, "%s: %s", f->name, f->is_failing ? cf->failing : "callers may wait again");
    if (f->is_failing)
        sim_refuse_waiting(s, f);
}

static void carry_out(struct sim *s, const struct dv_action *a)
{
    switch (a->kind) {
    case DV_ACT_START:
    case DV_ACT_STOP:
        send_command(s, a);
        break;
    case DV_ACT_POOLS:
        send_pools(s, a);
        break;
    case DV_ACT_ROUTES:
        publish(s, a->fn);
        break;
    case DV_ACT_FAILING:
        set_failing(s, a->fn);
        break;
    case DV_ACT_AWAKE:
        fn_by_uid(s, a->fn_uid)->def.desired_override = -1;
        break;
    case DV_ACT_EVENT:
        sim_trace(s, "%s: fn %llu replica %016llx node %llu: %s", a->event, (unsigned long long)a->fn_uid,
                  (unsigned long long)a->replica_id, (unsigned long long)a->node_id, a->message);
        break;
    case DV_ACT_FORGET:
        break;
    }
}

static void pump(struct sim *s)
{
    struct davit *d = davit_of(s);
    if (d->is_pumping)
        return;
    d->is_pumping = true;
    struct dv_action a;
    while (dv_cluster_next(d->c, &a))
        carry_out(s, &a);
    d->is_pumping = false;
    see_to_tick(s);
}

/* ---- from agents ---- */

/* A hint for the dispatcher, which asks the frozen last. */
static void tell_frozen(struct sim *s, uint64_t replica)
{
    const struct dv_cluster_replica *r = dv_cluster_replica_find(davit_of(s)->c, replica);
    struct sim_replica *held = r ? sim_replica_find(s, replica) : NULL;
    if (held)
        atomic_store_explicit(&held->live->is_frozen, r->state == DV_REPLICA_FROZEN, memory_order_relaxed);
}

static void on_reports(struct sim *s, struct sim_event *e)
{
    struct message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    if (n) {
        if (dv_cluster_reports(davit_of(s)->c, n->id, m->reports, m->n, m->is_full, s->now))
            abort();
        for (size_t i = 0; i < m->n; i++)
            tell_frozen(s, m->reports[i].id);
        pump(s);
        if (m->is_full)
            send_sync(s, n);
    }
    dv_free(m);
}

static struct dv_replica_report report_of(const struct sim *s, const struct sim_replica *r,
                                          enum dv_reason why)
{
    return (struct dv_replica_report){.times = {.ready_us = (int64_t)(s->cfg.own_start_ms * 1e3)},
                                      .id = r->id,
                                      .fn_uid = r->fn->def.uid,
                                      .generation = r->generation,
                                      .state = r->state,
                                      .reason = why,
                                      .in_flight = r->in_flight,
                                      .exit_code = 1,
                                      .message = (char *)"as chance had it"};
}

static void changed(struct sim *s, struct sim_replica *r, enum dv_reason why)
{
    if (!r->node->link_up)
        return;
    struct message *m = message_new(r->node, 1);
    m->reports[0] = report_of(s, r, why);
    sim_at_own(s, s->now + s->cfg.link_ns, on_reports, m, 0, 0);
}

static void report_full(struct sim *s, struct sim_node *n)
{
    struct message *m = message_new(n, n->n_replicas);
    size_t i = 0;
    DV_LIST_FOR_EACH (it, &n->replicas)
        m->reports[i++] = report_of(s, DV_LIST_ENTRY(it, struct sim_replica, of_node), DV_REASON_NONE);
    m->is_full = true;
    sim_at_own(s, s->now + s->cfg.link_ns, on_reports, m, 0, 0);
}

/* The primed sandboxes that are ready, by image; returns how many kinds. */
static size_t ready_pools(const struct sim_node *n, char names[][16], struct dv_pool *out)
{
    size_t count = 0;
    for (size_t i = 0; i < SIM_IMAGES_MAX; i++) {
        if (!n->pools[i].ready)
            continue;
        (void)snprintf(names[count], sizeof(names[0]), "runtime-%zu", i);
        out[count] = (struct dv_pool){.image = names[count], .read_only = true, .n = n->pools[i].ready};
        count++;
    }
    return count;
}

static void on_node_report(struct sim *s, struct sim_event *e)
{
    struct message *m = e->ptr;
    struct sim_node *n = delivered(s, &m->of);
    char names[SIM_IMAGES_MAX][16];
    struct dv_pool pools[SIM_IMAGES_MAX];
    if (n) {
        struct dv_node_report r = {.node = n->id,
                                   .engine_ok = n->engine_ok,
                                   .cpus = s->cfg.node_mcpu / 1000,
                                   .memory_bytes = s->cfg.node_bytes,
                                   .memory_available_bytes = s->cfg.node_bytes - n->used_bytes,
                                   .replicas_max = s->cfg.node_replicas,
                                   .pools = pools,
                                   .n_pools = ready_pools(n, names, pools)};
        if (dv_cluster_node_report(davit_of(s)->c, n->id, &r, s->now))
            abort();
        pump(s);
    }
    dv_free(m);
}

static void node_changed(struct sim *s, struct sim_node *n)
{
    if (n->link_up)
        sim_at_own(s, s->now + s->cfg.link_ns, on_node_report, message_new(n, 0), 0, 0);
}

static void on_full_report(struct sim *s, struct sim_event *e)
{
    struct sim_node *n = e->ptr;
    if (n->epoch != e->a)
        return;
    report_full(s, n);
    sim_at(s, s->now + s->cfg.full_report_ns, on_full_report, n, n->epoch, 0);
}

static void link_event(struct sim *s, struct sim_node *n)
{
    if (n->link_up)
        dv_cluster_node_up(davit_of(s)->c, n->id, s->now);
    else
        dv_cluster_node_down(davit_of(s)->c, n->id, s->now);
    pump(s);
    if (!n->link_up)
        return;
    node_changed(s, n);
    report_full(s, n);
    sim_at(s, s->now + s->cfg.full_report_ns, on_full_report, n, n->epoch, 0);
}

/* ---- life ---- */

static void begin_core(struct sim *s, struct davit *d)
{
    struct dv_cluster_cfg cfg = {.seed = s->cfg.seed + s->steps + 1, .default_idle_ms = s->cfg.idle_ms};
    if (dv_cluster_new(&cfg, s->now, &d->c))
        abort();
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        struct dv_node_record rec = {.node = s->nodes[i].id};
        if (dv_cluster_node_put(d->c, &rec, s->now))
            abort();
    }
}

static void init(struct sim *s)
{
    struct davit *d = dv_zalloc(sizeof(*d));
    if (!d)
        abort();
    s->sys_state = d;
    begin_core(s, d);
    for (size_t i = 0; i < s->cfg.n_nodes; i++)
        link_event(s, &s->nodes[i]);
}

void sim_davit_restart(struct sim *s)
{
    struct davit *d = davit_of(s);
    bool was_up[SIM_RESTART_NODES_MAX];
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        was_up[i] = s->nodes[i].link_up;
        sim_node_cut(s, &s->nodes[i]);
    }
    dv_cluster_free(d->c);
    d->tick_at_ns = 0;
    begin_core(s, d);
    for (size_t i = 0; i < s->n_fns; i++) {
        struct sim_fn *f = s->fns[i];
        if (f->is_removed)
            continue;
        sim_refuse_waiting(s, f);
        f->is_failing = false;
        sim_routes(s, f, NULL, 0);
        if (dv_cluster_fn_put(d->c, &f->def, s->now))
            abort();
    }
    pump(s);
    for (size_t i = 0; i < s->cfg.n_nodes; i++)
        if (was_up[i])
            sim_node_mend(s, &s->nodes[i]);
}

void sim_davit_remove(struct sim *s, struct sim_fn *f)
{
    f->is_removed = true;
    sim_refuse_waiting(s, f);
    sim_routes(s, f, NULL, 0);
    dv_cluster_fn_remove(davit_of(s)->c, f->def.uid, s->now);
    pump(s);
}

void sim_davit_cordon(struct sim *s, struct sim_node *n, bool is_draining)
{
    n->is_draining = is_draining;
    dv_cluster_node_cordon(davit_of(s)->c, n->id, is_draining, is_draining, s->now);
    pump(s);
}

static void deinit(struct sim *s)
{
    dv_cluster_free(davit_of(s)->c);
    dv_free(s->sys_state);
}

static void fn_added(struct sim *s, struct sim_fn *f)
{
    if (s->cfg.down_ms)
        f->def.spec.scale.down_ms = s->cfg.down_ms;
    if (s->cfg.ask_primed && s->cfg.has_pools)
        f->def.spec.scale.primed = s->cfg.ask_primed;
    if (dv_cluster_fn_put(davit_of(s)->c, &f->def, s->now))
        abort();
    pump(s);
}

static void idle(struct sim *s, struct sim_replica *r)
{
    (void)s;
    (void)r;
}

const struct sim_sys_ops sim_davit = {.name = "davit",
                                      .init = init,
                                      .fn_added = fn_added,
                                      .waits = waits,
                                      .idle = idle,
                                      .changed = changed,
                                      .link = link_event,
                                      .node = node_changed,
                                      .deinit = deinit};

/* The state loop's centre.
 *
 *   control.c            life of the whole: loading, serving, the core's actions, ticks
 *   control_write.c      commits, compare-and-swap on what they were decided on
 *   control_functions.c  functions and what happened to them
 *   control_nodes.c      nodes: joining, cordon, drain; replicas as seen
 *   node_session.c       one control link to one agent
 *   control_namespaces.c, control_secrets.c, control_logs.c, control_metrics.c
 *
 * Every input (a report, a commit, demand, a tick) goes to the core (orchestrator/core/cluster.h) and is
 * followed by ctl_pump, which carries out what the core decided: commands to agents, routes to the gateway,
 * events for people. Nothing on the way from demand to a start command touches the store or waits for a tick.
 *
 * Ticks: every 100 ms while requests are about or replicas start, every second otherwise, none at all in a
 * cluster without nodes and without functions in use. */
#include "orchestrator/control/control_internal.h"

#include "proto/rt/httpc.h"

/* ---- actions ---- */

static void send_start(struct dv_control *c, const struct dv_action *a)
{
    struct ctl_node *n = a->node ? ctl_node_of(c, a->node->id) : NULL;
    if (!n || !n->is_open || !a->fn)
        return; /* the next full report of the node finds it missing */
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_err err = DV_ERR_INIT;
    const struct dv_function *def = a->fn->def;
    struct dv_cmd_start cmd = {
        .id = a->replica->id, .fn_uid = def->uid, .generation = a->replica->generation, .spec = def->spec};
    int rc = ctl_secrets_for(c, &def->spec, &arena, &cmd.secrets, &cmd.n_secrets, &err);
    if (!rc)
        rc = ctl_registry_for(c, def->spec.image, &arena, &cmd.registry, &err);
    if (!rc)
        rc = ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"start", .start = &cmd});
    if (!rc) {
        c->n.starts++;
        return;
    }
    dv_log(DV_LOG_ERROR, "a replica cannot be started", DV_LS("function", def->spec.name),
           DV_LID("replica", cmd.id), DV_LS("why", dv_err_msg(&err, rc)));
    ctl_event(c, def->uid, "failed", dv_err_msg(&err, rc), cmd.id, n->id);
}

static void send_stop(struct dv_control *c, const struct dv_action *a)
{
    struct ctl_node *n = a->node ? ctl_node_of(c, a->node->id) : NULL;
    if (!n || !n->is_open)
        return;
    struct dv_cmd_stop cmd = {.id = a->replica_id, .grace_ms = -1};
    if (ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"stop", .stop = &cmd}) == DV_OK)
        c->n.stops++;
}

static void send_pools(struct dv_control *c, const struct dv_action *a)
{
    struct ctl_node *n = ctl_node_of(c, a->node->id);
    size_t max = dv_cluster_pools_max(a->node);
    if (!n || !n->is_open)
        return; /* told when it is back */
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_cmd_pools cmd = {.pools = dv_arena_alloc(&arena, (max + 1) * sizeof(struct dv_pool))};
    if (!cmd.pools) {
        dv_log(DV_LOG_ERROR, "out of memory: a node is not told its pools", DV_LS("node", n->rec.name));
        return;
    }
    cmd.n_pools = dv_cluster_pools(c->cluster, a->node, cmd.pools, max);
    (void)ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"pools", .pools = &cmd}); /* logged */
}

static void forget(struct dv_control *c, uint64_t replica)
{
    struct ctl_replica *k = dv_idmap_remove(&c->replicas, replica);
    if (!k)
        return;
    dv_arena_deinit(&k->arena);
    dv_free(k);
}

static void carry_out(struct dv_control *c, const struct dv_action *a)
{
    switch (a->kind) {
    case DV_ACT_START:
        send_start(c, a);
        break;
    case DV_ACT_STOP:
        send_stop(c, a);
        break;
    case DV_ACT_FORGET:
        forget(c, a->replica_id);
        break;
    case DV_ACT_ROUTES:
        ctl_fn_routes(c, a->fn);
        break;
    case DV_ACT_FAILING: {
        const struct ctl_fn *cf = dv_idmap_find(&c->fns_by_uid, a->fn_uid);
        if (cf)
            ctl_fn_tell_gateway(c, a->fn, cf);
        break;
    }
    case DV_ACT_AWAKE:
        ctl_fn_awake(c, a->fn_uid);
        break;
    case DV_ACT_POOLS:
        send_pools(c, a);
        break;
    case DV_ACT_EVENT:
        ctl_event(c, a->fn_uid, a->event, a->message, a->replica_id, a->node_id);
        break;
    }
}

static void see_to_tick(struct dv_control *c)
{
    uint64_t now = ctl_now(c);
    if (!c->gateway || (c->tick.pos && c->tick.at_ns <= now + CTL_S / 10))
        return;
    uint64_t at = dv_cluster_next_tick(c->cluster, now);
    if (at == UINT64_MAX)
        dv_timer_cancel(c->cfg.loop, &c->tick);
    else if (!c->tick.pos || at < c->tick.at_ns)
        (void)dv_timer_set(c->cfg.loop, &c->tick, at); /* short of memory: the next input tries again */
}

void ctl_pump(struct dv_control *c)
{
    if (!c->is_loaded || c->is_pumping)
        return;
    c->is_pumping = true;
    struct dv_action a;
    while (dv_cluster_next(c->cluster, &a))
        carry_out(c, &a);
    c->is_pumping = false;
    see_to_tick(c);
}

/* ---- load and time ---- */

int64_t ctl_wall_of(const struct dv_control *c, uint64_t mono_ns)
{
    uint64_t now = ctl_now(c);
    return ctl_wall(c) - (int64_t)((now > mono_ns ? now - mono_ns : 0) / CTL_MS);
}

static void sample(void *ctx, const struct dv_cluster_fn *f)
{
    struct dv_control *c = ctx;
    struct dv_load l;
    if (dv_gateway_load(c->gateway, f->uid, &l))
        return;
    struct dv_scale_sample s = {.arrived = l.arrived,
                                .answered = l.answered,
                                .service_ns = l.service_ns,
                                .in_flight_time = l.in_flight_time,
                                .waiting = l.waiting,
                                .in_flight = l.in_flight,
                                .oldest_wait_ns = l.oldest_wait_ns,
                                .last_activity_ns = l.last_activity_ns};
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        if (dv_life_is_ready(r->state))
            dv_cluster_replica_busy(c->cluster, r->id,
                                    (int64_t)dv_gateway_replica_in_flight(c->gateway, f->uid, r->id));
    }
    struct dv_backlog b = {0};
    if (c->backlog) {
        c->backlog(c->backlog_ctx, f->uid, &b.items, &b.parallel);
        dv_cluster_backlog(c->cluster, f->uid, &b);
    }
    dv_cluster_load(c->cluster, f->uid, &s, ctl_now(c));
}

void dv_control_set_backlog(struct dv_control *c,
                            void (*backlog)(void *ctx, uint64_t fn_uid, uint64_t *items, uint64_t *parallel),
                            void *ctx)
{
    c->backlog = backlog;
    c->backlog_ctx = ctx;
}

void dv_control_set_on_removed(struct dv_control *c, void (*fn)(void *ctx, uint64_t fn_uid), void *ctx)
{
    c->on_removed = fn;
    c->on_removed_ctx = ctx;
}

static void on_tick(struct dv_timer *t)
{
    struct dv_control *c = DV_CONTAINER_OF(t, struct dv_control, tick);
    uint64_t now = ctl_now(c);
    dv_cluster_each_due(c->cluster, now, sample, c);
    dv_cluster_tick(c->cluster, now);
    ctl_pump(c);
}

void dv_control_on_demand(void *control, uint64_t fn_uid)
{
    struct dv_control *c = control;
    if (!c->gateway)
        return;
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, fn_uid);
    if (!f)
        return;
    sample(c, f);
    if (dv_cluster_fn_waiting(f) == 0)
        return; /* served while the message was on its way */
    dv_cluster_demand(c->cluster, fn_uid, ctl_now(c));
    ctl_pump(c);
}

/* ---- loading ---- */

struct ctl_load {
    struct dv_store_job job;
    struct dv_control *c; /* NULL: the control was freed meanwhile */
    struct dv_arena arena;
    struct dv_store_entry *entries;
    size_t n, cap;
    bool is_short; /* of memory */
};

static int gather(void *ctx, const struct dv_store_entry *e)
{
    struct ctl_load *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        struct dv_store_entry *more = dv_realloc(l->entries, cap * sizeof(*more));
        if (!more) {
            l->is_short = true;
            return 1;
        }
        l->entries = more;
        l->cap = cap;
    }
    struct dv_store_entry copy = {dv_arena_sv(&l->arena, e->key), dv_arena_sv(&l->arena, e->value),
                                  e->revision};
    l->is_short = !copy.key.p || !copy.value.p;
    if (!l->is_short)
        l->entries[l->n++] = copy;
    return l->is_short;
}

static int (*const loaders[])(struct dv_control *, const struct dv_store_entry *, struct dv_err *) = {
    ctl_ns_load, ctl_secret_load, ctl_registry_load, ctl_node_load, ctl_fn_load};
static const char *const prefixes[] = {"ns/", "secret/", "registry/", "node/", "fn/"};
_Static_assert(DV_COUNT(loaders) == DV_COUNT(prefixes), "every kind of record has its loader");

static int read_all(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct ctl_load *l = DV_CONTAINER_OF(job, struct ctl_load, job);
    for (size_t i = 0; i < DV_COUNT(prefixes); i++) {
        int rc = store->ops->list(store, dv_sv_c(prefixes[i]), dv_sv("", 0), 0, gather, l, err);
        if (rc)
            return rc;
        if (l->is_short)
            return dv_err_set(err, DV_E_NOMEM, "reading the state");
    }
    return DV_OK;
}

static int take_in(struct dv_control *c, const struct ctl_load *l, struct dv_err *err)
{
    for (size_t i = 0; i < l->n; i++)
        for (size_t k = 0; k < DV_COUNT(prefixes); k++) {
            if (!dv_sv_starts(l->entries[i].key, dv_sv_c(prefixes[k])))
                continue;
            int rc = loaders[k](c, &l->entries[i], err);
            if (rc)
                return dv_err_wrap(err, "reading %.*s", (int)l->entries[i].key.n, l->entries[i].key.p);
        }
    return DV_OK;
}

static void load_free(struct ctl_load *l)
{
    dv_arena_deinit(&l->arena);
    dv_free(l->entries);
    dv_free(l);
}

static void on_read(struct dv_store_job *job)
{
    struct ctl_load *l = DV_CONTAINER_OF(job, struct ctl_load, job);
    struct dv_control *c = l->c;
    struct dv_err err = job->err;
    int rc = job->code;
    if (c) {
        c->load = NULL;
        if (!rc)
            rc = take_in(c, l, &err);
        c->is_loaded = rc == DV_OK;
    }
    load_free(l);
    if (!c)
        return;
    c->on_loaded(c->on_loaded_ctx, rc, &err);
}

static int start_loading(struct dv_control *c)
{
    struct ctl_load *l = dv_zalloc(sizeof(*l));
    if (!l)
        return DV_E_NOMEM;
    l->c = c;
    l->job = (struct dv_store_job){.reply_to = c->cfg.mailbox, .run = read_all, .done = on_read};
    c->load = l;
    dv_storer_submit(c->cfg.storer, &l->job);
    return DV_OK;
}

/* ---- life ---- */

int dv_control_new(const struct dv_control_cfg *cfg,
                   void (*on_loaded)(void *ctx, int code, const struct dv_err *err), void *ctx,
                   struct dv_control **out, struct dv_err *err)
{
    struct dv_control *c = dv_zalloc(sizeof(*c));
    if (!c)
        return dv_err_set(err, DV_E_NOMEM, "control");
    c->cfg = *cfg;
    c->on_loaded = on_loaded;
    c->on_loaded_ctx = ctx;
    c->tick.fn = on_tick;
    c->last_epoch = cfg->seed >> 16; /* results of a process before are not taken for this one's */
    dv_list_init(&c->logs);
    dv_list_init(&c->writes);
    dv_rng_init(&c->rng, cfg->seed);
    struct dv_map *const maps[] = {&c->fns_by_uid, &c->nodes,      &c->replicas, &c->namespaces,
                                   &c->secrets,    &c->registries, &c->zones};
    for (size_t i = 0; i < DV_COUNT(maps); i++)
        dv_map_init(maps[i], dv_rng_u64(&c->rng));
    struct dv_cluster_cfg core = {.seed = dv_rng_u64(&c->rng),
                                  .node_lost_ns = cfg->node_lost_ms * CTL_MS,
                                  .keep = cfg->keep,
                                  .default_idle_ms = cfg->default_idle_ms};
    int rc = dv_cluster_new(&core, ctl_now(c), &c->cluster);
    if (!rc)
        rc = start_loading(c);
    if (rc) {
        dv_control_free(c);
        return dv_err_set(err, rc, "control");
    }
    *out = c;
    return DV_OK;
}

void dv_control_serve(struct dv_control *c, struct dv_gateway *g)
{
    c->gateway = g;
    for (size_t i = 0; i < c->n_fns; i++)
        ctl_fn_tell_gateway(c, dv_cluster_fn_find(c->cluster, c->fns[i]->uid), c->fns[i]);
    struct ctl_node *n;
    for (size_t i = 0; (n = dv_map_next(&c->nodes, &i));)
        ctl_node_tell_gateway(n);
    for (size_t i = 0; (n = dv_map_next(&c->nodes, &i));)
        ctl_session_start(n);
    dv_cluster_tick(c->cluster, ctl_now(c));
    ctl_pump(c);
}

void dv_control_free(struct dv_control *c)
{
    if (!c)
        return;
    c->is_loaded = false; /* what ending leaves in the core is not carried out */
    dv_timer_cancel(c->cfg.loop, &c->tick);
    if (c->load)
        c->load->c = NULL;
    DV_LIST_FOR_EACH_SAFE (it, &c->writes) {
        dv_list_remove(it);
        DV_LIST_ENTRY(it, struct ctl_write, node)->c = NULL;
    }
    ctl_logs_free_all(c);
    void *v;
    for (size_t i = 0; (v = dv_map_next(&c->nodes, &i));)
        ctl_node_free(v);
    for (size_t i = 0; i < c->n_fns; i++)
        ctl_fn_free(c->fns[i]);
    dv_free(c->fns);
    if (c->http)
        dv_httpc_free(c->http);
    for (size_t i = 0; (v = dv_map_next(&c->replicas, &i));) {
        dv_arena_deinit(&((struct ctl_replica *)v)->arena);
        dv_free(v);
    }
    dv_free(c->images);
    dv_map_deinit(&c->fns_by_uid);
    dv_map_deinit(&c->nodes);
    dv_map_deinit(&c->replicas);
    ctl_secrets_free(c);
    ctl_namespaces_free(c);
    ctl_zones_free(c);
    dv_cluster_free(c->cluster);
    dv_free(c);
}

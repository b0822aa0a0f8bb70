/* The node's replicas together.
 *
 * The engine is one of: down (asked again with growing pauses), connecting, up.  Whenever it comes up, and
 * every ten seconds, its containers are listed and compared with the replicas known here
 * (agent/core/reconcile.h): that one comparison adopts after a restart of the agent, notices what a restart
 * of the engine killed, and removes what nobody wants.  The event stream only makes it quick.
 *
 * While the engine is down replicas keep serving: requests need it not. */
#include "agent/sandbox/sandbox_internal.h"
#include "agent/core/reconcile.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"

enum { LIST_MS = 10000, BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 2000 };

static void engine_lost(struct dv_sandbox *s, const struct dv_err *err);

void sb_changed(struct dv_sandbox *s)
{
    s->cfg.on_change(s->cfg.ctx);
}

struct sb_replica *sb_find(struct dv_sandbox *s, uint64_t id)
{
    return dv_idmap_find(&s->by_id, id);
}

struct sb_replica *sb_by_container(struct dv_sandbox *s, const char *container)
{
    DV_LIST_FOR_EACH (n, &s->replicas) {
        struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, node);
        if (r->container[0] && !strcmp(r->container, container))
            return r;
    }
    return NULL;
}

/* ---- comparing ---- */

static void on_orphan_removed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    if (code)
        dv_log(DV_LOG_WARN, "a container without owner could not be removed",
               DV_LS("error", dv_err_msg(err, code)));
}

void sb_container_remove(struct dv_sandbox *s, const char *container)
{
    sb_ops(s)->remove(s->cfg.engine, container, true, on_orphan_removed, NULL);
}

static void act(struct dv_sandbox *s, const struct dv_rc_action *a)
{
    struct sb_replica *r = a->replica ? sb_find(s, a->replica) : NULL;
    switch (a->kind) {
    case DV_RC_ADOPT:
    case DV_RC_EXITED: /* the look at it that follows tells how it ended */
        if (r && r->phase == PH_LOST)
            sb_replica_adopt(r, a->container);
        else if (r)
            sb_replica_look(r);
        break;
    case DV_RC_LOST:
        if (r && r->phase == PH_LOST) /* one whose process had ended would be in the list */
            sb_replica_fail(r, DV_REASON_INTERRUPTED, "its container is not there");
        else if (r)
            sb_replica_fail(r, DV_REASON_REMOVED, "");
        break;
    case DV_RC_REMOVE:
        s->counts.orphans++;
        dv_log(DV_LOG_INFO, "removing a container without owner", DV_LS("container", a->container));
        sb_container_remove(s, a->container);
        break;
    case DV_RC_STOP:
        if (r)
            sb_replica_stop(r, -1, false);
        break;
    }
}

static struct dv_rc_replica *known(struct dv_sandbox *s, struct dv_arena *arena, size_t *out_n)
{
    struct dv_rc_replica *v = dv_arena_alloc(arena, (s->by_id.n + 1) * sizeof(*v));
    *out_n = 0;
    DV_LIST_FOR_EACH (n, &s->replicas) {
        struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, node);
        bool is_up = r->phase == PH_PROBE || r->phase == PH_WARM || r->phase == PH_DRAIN;
        bool is_ended = r->phase == PH_FAILED || r->phase == PH_GONE;
        if (!v || r->is_dead)
            continue;
        v[(*out_n)++] =
            (struct dv_rc_replica){.id = r->id,
                                   .container = r->container[0] ? r->container : NULL,
                                   /* what moved since the list was asked for is not in it as it is now */
                                   .is_busy = r->calls || (!is_up && !is_ended && r->phase != PH_LOST) ||
                                              (r->phase != PH_LOST && r->phase_ns >= s->list_began_ns),
                                   .is_attached = is_up,
                                   .is_ended = is_ended,
                                   .is_stopping = r->want_stop,
                                   .started_ms = r->asked_ns / DV_MS};
    }
    return v;
}

static uint64_t label_id(const struct dv_engine_container *c)
{
    uint64_t id = 0;
    for (size_t i = 0; i < c->labels.n; i++)
        if (!strcmp(c->labels.v[i].k, "dev.davit.replica"))
            (void)dv_parse_hex64(dv_sv_c(c->labels.v[i].v), &id); /* unreadable stays 0 */
    return id;
}

static int compare(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    size_t n_known;
    struct dv_rc_replica *replicas = known(s, &arena, &n_known);
    struct dv_rc_container *seen = dv_arena_alloc(&arena, (n + 1) * sizeof(*seen));
    size_t n_seen = 0;
    struct dv_rc_action *acts = dv_arena_alloc(&arena, (n + n_known + 1) * sizeof(*acts));
    if (!replicas || !seen || !acts)
        return DV_E_NOMEM;
    sb_boxes_listed(s, c, n);
    for (size_t i = 0; i < n; i++) {
        bool is_closed = false;
        uint64_t owner;
        if (!sb_boxes_owner(s, &c[i], &is_closed, &owner))
            owner = label_id(&c[i]);
        if (!is_closed && !sb_nets_is_holder(&c[i]))
            seen[n_seen++] = (struct dv_rc_container){c[i].id, owner, sb_nets_is_running(&c[i])};
    }
    size_t n_acts = dv_rc_containers(replicas, n_known, seen, n_seen, acts);
    sb_nets_listed(s, c, n);
    for (size_t i = 0; i < n_acts; i++)
        act(s, &acts[i]);
    sb_nets_settled(s, c, n);
    return DV_OK;
}

static void on_listed(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                      const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    s->is_listing = false;
    if (!code)
        code = compare(s, c, n);
    if (code) {
        engine_lost(s, err);
        return;
    }
    DV_LIST_FOR_EACH_SAFE (it, &s->replicas)
        sb_replica_resume_ending(DV_LIST_ENTRY(it, struct sb_replica, node));
    if (s->engine_state == ENG_UP)
        return;
    s->engine_state = ENG_UP;
    s->backoff_ms = BACKOFF_MIN_MS;
    s->engine_message[0] = '\0';
    if (s->is_ok)
        return;
    s->is_ok = true;
    sb_nets_refill(s);
    sb_pools_tick(s);
    dv_log(DV_LOG_INFO, "engine ready", DV_LS("engine", s->info.name), DV_LS("version", s->info.version),
           DV_LS("api", s->info.api), DV_LU("containers", n));
    sb_images_list(s);
    sb_changed(s);
}

void sb_list_soon(struct dv_sandbox *s)
{
    if (s->is_listing)
        return;
    s->is_listing = true;
    s->list_began_ns = sb_now(s);
    sb_ops(s)->list(s->cfg.engine, s->label, on_listed, s);
}

/* ---- the engine ---- */

static void engine_lost(struct dv_sandbox *s, const struct dv_err *err)
{
    const char *why = err && err->msg[0] ? err->msg : "the container engine closed its event stream";
    if (strcmp(why, s->engine_message) != 0)
        dv_log(DV_LOG_WARN, "engine not available", DV_LS("error", why));
    if (s->is_ok)
        s->counts.engine_losses++;
    (void)dv_copy(s->engine_message, sizeof(s->engine_message), why);
    s->is_ok = false;
    s->engine_state = ENG_DOWN;
    uint64_t pause_ms = s->backoff_ms;
    s->backoff_ms = s->backoff_ms * 2 < BACKOFF_MAX_MS ? s->backoff_ms * 2 : BACKOFF_MAX_MS;
    (void)dv_timer_set(s->cfg.loop, &s->engine_timer,
                       sb_now(s) + pause_ms * DV_MS); /* else the next tick asks */
    sb_changed(s);
}

void sb_engine_suspect(struct dv_sandbox *s)
{
    if (s->engine_state != ENG_UP)
        return; /* being asked already */
    s->engine_state = ENG_DOWN;
    (void)dv_timer_set(s->cfg.loop, &s->engine_timer, sb_now(s) + BACKOFF_MIN_MS * DV_MS);
}

static void on_die(struct dv_sandbox *s, struct sb_replica *r, const struct dv_engine_event *ev)
{
    (void)s;
    if (r->phase < PH_INSPECT) {
        r->died_early = true; /* an inspect follows the start, and will see it */
        return;
    }
    /* 137 may be the kernel's doing for want of memory: the engine's record says so. */
    if (ev->exit_code == 137 && !r->was_oom && !r->calls && r->phase < PH_DRAIN)
        sb_replica_look(r);
    else
        sb_replica_exited(r, ev->exit_code, r->was_oom);
}

static void on_event(void *ctx, const struct dv_engine_event *ev)
{
    struct dv_sandbox *s = ctx;
    struct sb_replica *r =
        sb_nets_event(s, ev) || sb_box_event(s, ev) ? NULL : sb_by_container(s, ev->container);
    if (!r)
        return;
    if (!strcmp(ev->action, "oom"))
        r->was_oom = true;
    else if (!strcmp(ev->action, "die"))
        on_die(s, r, ev);
    else if (!strcmp(ev->action, "kill") || !strncmp(ev->action, "exec_create", 11))
        sb_sleep_rouse(r); /* somebody wants it to hear a signal, or to run another program */
    else if (!strcmp(ev->action, "destroy") && r->phase >= PH_PROBE && r->phase <= PH_DRAIN)
        sb_replica_fail(r, DV_REASON_REMOVED, "");
}

static void on_events_over(void *ctx, int code, const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    (void)code;
    s->has_events = false;
    engine_lost(s, err);
}

static void on_network(void *ctx, int code, const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    if (code) {
        engine_lost(s, err);
        return;
    }
    s->engine_state = ENG_LISTING;
    if (!s->has_events) { /* before the list, so that nothing falls between the two */
        s->has_events = true;
        sb_ops(s)->events(s->cfg.engine, s->label, on_event, on_events_over, s);
    }
    sb_list_soon(s);
}

static void on_connected(void *ctx, int code, const struct dv_engine_info *info, const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    if (code) {
        engine_lost(s, err);
        return;
    }
    s->info = *info;
    s->engine_state = ENG_NETWORK;
    sb_ops(s)->network_ensure(s->cfg.engine, s->cfg.network, on_network, s);
}

static void engine_connect(struct dv_sandbox *s)
{
    s->engine_state = ENG_CONNECTING;
    sb_ops(s)->connect(s->cfg.engine, on_connected, s);
}

static void on_engine_timer(struct dv_timer *t)
{
    engine_connect(DV_CONTAINER_OF(t, struct dv_sandbox, engine_timer));
}

/* ---- every second ---- */

static void measure(struct sb_replica *r)
{
    uint64_t in_flight, served;
    if (dv_carry_load(r->sb->cfg.carry, r->id, &in_flight, &served) == DV_OK) {
        r->in_flight = in_flight;
        r->served = served;
    }
    if (r->cgroup &&
        sb_sleep_is_measured(r)) /* a group that vanishes is about to be told by its container's end */
        (void)dv_cgroup_usage(r->cgroup, &r->usage, NULL);
    sb_box_check_limits(r);
}

static void on_tick(struct dv_timer *t)
{
    struct dv_sandbox *s = DV_CONTAINER_OF(t, struct dv_sandbox, tick);
    uint64_t now = sb_now(s);
    DV_LIST_FOR_EACH (n, &s->replicas)
        measure(DV_LIST_ENTRY(n, struct sb_replica, node));
    sb_reclaim_consider(s);
    if (s->engine_state == ENG_UP && now - s->list_began_ns >= LIST_MS * DV_MS)
        sb_list_soon(s);
    if (s->engine_state == ENG_UP && now - s->images.listed_ns >= SB_IMAGES_MS * DV_MS)
        sb_images_list(s);
    sb_nets_tick(s);
    sb_pools_tick(s);
    if (s->engine_state == ENG_DOWN && !s->engine_timer.pos)
        engine_connect(s);
    (void)dv_timer_set(s->cfg.loop, t, now + SB_TICK_MS * DV_MS); /* its place in the heap is still there */
}

/* ---- life ---- */

static void remember(struct dv_sandbox *s, const struct dv_cmd_start *cmd)
{
    struct sb_replica *r = sb_find(s, cmd->id) ? NULL : sb_replica_new(s, cmd);
    if (!r)
        return;
    r->was_adopted = true;
    r->want_stop = sb_file_was_stopping(r);
    r->grace_ms = -1;
}

static void abandon(struct dv_sandbox *s)
{
    dv_timer_cancel(s->cfg.loop, &s->tick);
    dv_timer_cancel(s->cfg.loop, &s->engine_timer);
    sb_reclaim_free(s);
    sb_logs_free(s);
    DV_LIST_FOR_EACH_SAFE (n, &s->replicas)
        sb_replica_free(DV_LIST_ENTRY(n, struct sb_replica, node));
    sb_nets_free(s);
    sb_pools_free(s);
    dv_map_deinit(&s->by_id);
    sb_images_free(s);
    sb_tails_free(s);
    dv_free(s->replicas_dir);
    dv_free(s->secrets_dir);
    dv_free(s);
}

int dv_sandbox_new(const struct dv_sandbox_cfg *cfg, struct dv_sandbox **out, struct dv_err *err)
{
    struct dv_sandbox *s = dv_zalloc(sizeof(*s));
    if (!s)
        return dv_err_set(err, DV_E_NOMEM, "sandbox");
    s->cfg = *cfg;
    s->backoff_ms = BACKOFF_MIN_MS;
    (void)snprintf(s->label, sizeof(s->label), "dev.davit.node=%016llx", (unsigned long long)cfg->node);
    dv_list_init(&s->replicas);
    dv_list_init(&s->queue);
    sb_nets_init(s);
    sb_pools_init(s);
    dv_list_init(&s->log_requests);
    dv_list_init(&s->tail_order);
    dv_map_init(&s->by_id, cfg->node);
    dv_map_init(&s->tails, cfg->node);
    dv_map_init(&s->images.by_name, cfg->node);
    s->tick.fn = on_tick;
    s->engine_timer.fn = on_engine_timer;
    s->replicas_dir = dv_asprintf("%s/replicas", cfg->state_dir);
    s->secrets_dir = dv_asprintf("%s/secrets", cfg->run_dir);
    s->pools.dir = dv_asprintf("%s/box", cfg->run_dir);
    int rc = s->replicas_dir && s->secrets_dir && s->pools.dir
                 ? dv_timer_set(cfg->loop, &s->tick, sb_now(s) + SB_TICK_MS * DV_MS)
                 : DV_E_NOMEM;
    if (rc)
        (void)dv_err_set(err, rc, "sandbox");
    else
        rc = sb_reclaim_new(s, err);
    if (!rc)
        rc = sb_files_load(s, remember, err);
    if (rc) {
        abandon(s);
        return rc;
    }
    engine_connect(s);
    *out = s;
    return DV_OK;
}

void dv_sandbox_free(struct dv_sandbox *s)
{
    if (s)
        abandon(s);
}

/* ---- commands ---- */

size_t dv_sandbox_n_replicas(const struct dv_sandbox *s)
{
    size_t n_replicas = 0;
    DV_LIST_FOR_EACH (n, &s->replicas)
        if (DV_LIST_ENTRY(n, struct sb_replica, node)->phase < PH_FAILED)
            n_replicas++;
    return n_replicas;
}

void dv_sandbox_start(struct dv_sandbox *s, const struct dv_cmd_start *cmd)
{
    struct sb_replica *r = sb_find(s, cmd->id);
    if (r) {
        r->is_dirty = true;
        sb_changed(s);
        return;
    }
    bool is_full = (int64_t)dv_sandbox_n_replicas(s) >= s->cfg.replicas_max;
    r = sb_replica_new(s, cmd);
    if (!r) { /* the orchestrator asks again when nothing is reported */
        dv_log(DV_LOG_ERROR, "no memory for a replica", DV_LID("replica", cmd->id));
        return;
    }
    r->started_ms = dv_clock_wall_ms(dv_loop_clock(s->cfg.loop));
    if (is_full)
        sb_replica_fail(r, DV_REASON_CREATE_FAILED,
                        "this node holds as many replicas as it may (--max-replicas)");
    else
        sb_replica_begin(r);
}

void dv_sandbox_stop(struct dv_sandbox *s, const struct dv_cmd_stop *cmd)
{
    struct sb_replica *r = sb_find(s, cmd->id);
    if (r)
        sb_replica_stop(r, cmd->grace_ms, cmd->now);
}

void dv_sandbox_sync(struct dv_sandbox *s, const struct dv_cmd_sync *cmd)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    size_t n;
    struct dv_rc_replica *replicas = known(s, &arena, &n);
    struct dv_rc_action *acts = dv_arena_alloc(&arena, (n + 1) * sizeof(*acts));
    if (!replicas || !acts)
        return; /* the next list comes in seconds */
    n = dv_rc_sync(replicas, n, cmd->ids, cmd->n_ids, sb_now(s) / DV_MS, acts);
    for (size_t i = 0; i < n; i++)
        act(s, &acts[i]);
}

void dv_sandbox_on_trouble(struct dv_sandbox *s, uint64_t replica, enum dv_link_reset what)
{
    struct sb_replica *r = sb_find(s, replica);
    if (r && r->phase == PH_WARM && what == DV_RESET_CONNECT)
        sb_replica_probe(r); /* reported as starting until it listens again */
}

void dv_sandbox_on_drained(struct dv_sandbox *s, uint64_t replica)
{
    struct sb_replica *r = sb_find(s, replica);
    if (r)
        sb_replica_drained(r);
}

void dv_sandbox_on_closed(struct dv_sandbox *s, uint64_t replica)
{
    sb_nets_closed(s, replica);
}

bool dv_sandbox_is_settled(const struct dv_sandbox *s)
{
    return s->is_ok || s->engine_message[0];
}

void dv_sandbox_engine(const struct dv_sandbox *s, struct dv_sandbox_engine_state *out)
{
    bool is_ok = s->is_ok;
    *out = (struct dv_sandbox_engine_state){.is_ok = is_ok,
                                            .message = is_ok ? NULL
                                                       : s->engine_message[0]
                                                           ? s->engine_message
                                                           : "connecting to the container engine",
                                            .info = &s->info,
                                            .images = &s->images.names,
                                            .images_version = s->images.version,
                                            .pools = s->pools.view,
                                            .n_pools = s->pools.n_view,
                                            .primed_max = s->cfg.primed_max,
                                            .pools_version = s->pools.version};
}

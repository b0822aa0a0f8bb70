/* A replica's way up: image, turn, create, start, inspect, probe, warm.
 *
 *   LOST -> IMAGE -> QUEUE -> CREATE -> START -> INSPECT -> PROBE -> WARM
 *     `------------------ adopted ------------------^
 *
 * Where a primed sandbox is ready it is opened instead (box.c): LOST -> PROBE -> WARM.
 *
 * A cold start is these engine calls and nothing else; nothing is asked twice, and each step begins in the
 * callback of the one before.  A replica that is asked to stop while a call is under way goes down when the
 * call is back. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/wire/codec.h"

static const char *const phase_names[PH_N] = {
    [PH_LOST] = "lost",     [PH_IMAGE] = "image",     [PH_QUEUE] = "queue", [PH_CREATE] = "create",
    [PH_START] = "start",   [PH_INSPECT] = "inspect", [PH_PROBE] = "probe", [PH_WARM] = "warm",
    [PH_DRAIN] = "drain",   [PH_STOP] = "stop",       [PH_WORDS] = "words", [PH_REMOVE] = "remove",
    [PH_FAILED] = "failed", [PH_GONE] = "gone"};

enum dv_replica_state sb_replica_state(const struct sb_replica *r)
{
    switch (r->phase) {
    case PH_WARM:
        return r->sleep.state == SLEEP_FROZEN ? DV_REPLICA_FROZEN : DV_REPLICA_WARM;
    case PH_DRAIN:
    case PH_STOP:
        return DV_REPLICA_DRAINING;
    case PH_WORDS:
    case PH_REMOVE: /* the way it ends is known only with its last words */
        return r->reason == DV_REASON_STOPPED ? DV_REPLICA_DRAINING
               : r->phase == PH_REMOVE        ? DV_REPLICA_FAILED
                                              : DV_REPLICA_STARTING;
    case PH_FAILED:
        return DV_REPLICA_FAILED;
    case PH_GONE:
        return DV_REPLICA_GONE;
    default:
        return DV_REPLICA_STARTING;
    }
}

void sb_replica_move(struct sb_replica *r, enum sb_phase to)
{
    struct dv_sandbox *s = r->sb;
    bool creates = to == PH_CREATE || to == PH_START;
    dv_log(DV_LOG_DEBUG, "replica", DV_LID("replica", r->id), DV_LS("from", phase_names[r->phase]),
           DV_LS("to", phase_names[to]), DV_LU("after_us", (sb_now(s) - r->phase_ns) / 1000));
    r->phase = to;
    r->phase_ns = sb_now(s);
    r->is_dirty = true;
    if (creates != r->is_counted) {
        s->n_creating += creates ? 1 : -1;
        r->is_counted = creates;
    }
    sb_changed(s);
}

static int copy_command(struct sb_replica *r, const struct dv_cmd_start *cmd)
{
    /* through the text of the message: the one deep copy of it there is */
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    struct dv_cmd_start from = *cmd;
    struct dv_control_msg msg = {.type = "start", .start = &from}, copy;
    int rc = dv_wire_encode(&dv_type_control, &msg, &text);
    if (!rc)
        rc = dv_wire_decode(&dv_type_control, dv_buf_sv(&text), SIZE_MAX, DV_WIRE_IGNORE_UNKNOWN, &r->arena,
                            &copy, NULL);
    if (dv_buf_len(&text))
        explicit_bzero(dv_buf_ptr(&text), dv_buf_len(&text)); /* it holds secrets */
    if (!rc)
        rc = dv_fn_spec_finish(&copy.start->spec, &r->arena, NULL);
    if (!rc)
        r->cmd = *copy.start;
    return rc;
}

struct sb_replica *sb_replica_new(struct dv_sandbox *s, const struct dv_cmd_start *cmd)
{
    struct sb_replica *r = dv_zalloc(sizeof(*r));
    if (!r)
        return NULL;
    r->sb = s;
    r->id = cmd->id;
    r->phase = PH_LOST;
    r->asked_ns = r->phase_ns = sb_now(s);
    r->grace_ms = -1;
    dv_list_init(&r->node);
    dv_list_init(&r->in_image);
    dv_list_init(&r->in_queue);
    if (copy_command(r, cmd) || dv_idmap_put(&s->by_id, r->id, r)) {
        dv_arena_deinit(&r->arena);
        dv_free(r);
        return NULL;
    }
    (void)snprintf(r->fn_name, sizeof(r->fn_name), "%s.%s", r->cmd.spec.name, r->cmd.spec.ns);
    dv_list_push_back(&s->replicas, &r->node);
    r->is_dirty = true;
    return r;
}

void sb_replica_free(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    if (dv_idmap_find(&s->by_id, r->id) == r)
        (void)dv_idmap_remove(&s->by_id, r->id);
    dv_list_remove(&r->node);
    dv_list_remove(&r->in_image);
    dv_list_remove(&r->in_queue);
    sb_probe_free(r->probe);
    if (r->box)
        r->box->replica = NULL;
    if (r->holder) /* the agent ends; its containers stay */
        sb_holder_pass(r->holder, NULL, NULL);
    dv_timer_cancel(s->cfg.loop, &r->timer);
    sb_sleep_free(r);
    dv_cgroup_free(r->cgroup);
    sb_lines_free(&r->tail);
    dv_free(r->tail_text);
    dv_arena_deinit(&r->arena);
    dv_free(r);
}

bool sb_replica_back(struct sb_replica *r)
{
    r->calls--;
    if (r->is_dead) {
        if (!r->calls)
            sb_replica_free(r);
        return false;
    }
    if (r->want_stop && r->phase < PH_WARM) {
        sb_replica_stop(r, r->grace_ms, r->stop_now);
        return false;
    }
    return true;
}

/* ---- image, turn ---- */

void sb_replica_begin(struct sb_replica *r)
{
    struct dv_err err = DV_ERR_INIT;
    struct sb_box *box = sb_pools_find(r->sb, &r->cmd.spec);
    if (box && sb_box_open(box, r) == DV_OK) /* needs no engine */
        return;
    if (!r->sb->is_ok) {
        sb_replica_fail(r, DV_REASON_ENGINE_DOWN,
                        r->sb->engine_message[0] ? r->sb->engine_message
                                                 : "the container engine is not connected yet");
        return;
    }
    int rc = sb_file_save(r, &err);
    if (!rc)
        rc = sb_secrets_write(r, &err);
    if (rc) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, dv_err_msg(&err, rc));
        return;
    }
    r->sb->counts.started++;
    sb_replica_move(r, PH_IMAGE);
    sb_image_want(r, r->cmd.spec.pull == DV_PULL_ALWAYS);
}

void sb_replica_image_ready(struct sb_replica *r)
{
    sb_replica_move(r, PH_QUEUE);
    dv_list_push_back(&r->sb->queue, &r->in_queue);
    sb_queue_run(r->sb);
}

/* ---- create ---- */

static void create(struct sb_replica *r);
static void inspect(struct sb_replica *r);

/* The network it was to join, or had joined, is gone. */
static void on_network_lost(void *ctx)
{
    struct sb_replica *r = ctx;
    r->holder = NULL;
    r->is_network_lost = true;
    if (r->phase >= PH_INSPECT && r->phase <= PH_DRAIN)
        sb_replica_fail(r, DV_REASON_ENGINE_DOWN, "the network that its container had joined was removed");
}

/* A create or start failed that was to join a holder: was it the holder's fault?  Then it is done over with a
 * network of its own. */
static void do_over(struct sb_replica *r)
{
    if (r->container[0])
        sb_container_remove(r->sb, r->container);
    r->container[0] = '\0';
    sb_holder_give_back(dv_steal(&r->holder), false);
    r->is_alone = true;
    r->retried_create = true; /* the short name may still be taken */
    sb_replica_move(r, PH_CREATE);
    create(r);
}

static void on_holder_inspected(void *ctx, int code, const struct dv_engine_container *c,
                                const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    struct dv_sandbox *s = r->sb;
    char why[sizeof(r->message)];
    (void)dv_copy(why, sizeof(why), r->message);
    if (!sb_replica_back(r))
        (void)0; /* dealt with */
    else if (code == DV_E_ENGINE)
        sb_replica_fail_engine(r, DV_REASON_CREATE_FAILED, code, err);
    else if (!code && sb_nets_is_running(c) && !r->is_network_lost)
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, why);
    else
        do_over(r);
    sb_queue_run(s);
}

/* True: the failure is being looked into, or was nobody's but the holder's; nothing else is to be done. */
static bool blame_holder(struct sb_replica *r, int code, const struct dv_err *err)
{
    if (r->is_alone || code == DV_E_NOMEM || (!r->holder && !r->is_network_lost))
        return false;
    if (r->is_network_lost) {
        do_over(r);
        return true;
    }
    (void)dv_copy(r->message, sizeof(r->message), dv_err_msg(err, code));
    r->calls++;
    sb_ops(r->sb)->inspect(r->sb->cfg.engine, r->holder->container, on_holder_inspected, r);
    return true;
}

static void on_started(void *ctx, int code, const struct dv_err *err);

static void on_created(void *ctx, int code, const char *id, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    struct dv_sandbox *s = r->sb;
    if (!code) /* known before anything else, so that whatever follows can remove it */
        (void)dv_copy(r->container, sizeof(r->container), id);
    r->is_unsure = r->is_unsure || code < 0;
    if (!sb_replica_back(r)) {
        sb_queue_run(s);
        return;
    }
    if (code == DV_CONFLICT && !r->retried_create) {
        /* The short name is taken: by another replica of the function, or by what an earlier try left behind
         * and the next comparison removes.  The long one is this replica's alone. */
        r->retried_create = true;
        create(r);
        return;
    }
    if (code == DV_NOT_FOUND && !r->retried_image) {
        /* The image went away since it was seen. */
        r->retried_image = true;
        sb_image_forget(s, r->cmd.spec.image);
        sb_replica_move(r, PH_IMAGE);
        sb_image_want(r, false);
    } else if (code && blame_holder(r, code, err)) {
        return;
    } else if (code) {
        sb_replica_fail_engine(r, code == DV_NOT_FOUND ? DV_REASON_IMAGE_MISSING : DV_REASON_CREATE_FAILED,
                               code, err);
    } else {
        r->times.create_us = (int64_t)((sb_now(s) - r->phase_ns) / 1000);
        dv_hist_add_ns(&s->counts.create, sb_now(s) - r->phase_ns);
        sb_replica_move(r, PH_START);
        r->calls++;
        sb_ops(s)->start(s->cfg.engine, r->container, on_started, r);
    }
    sb_queue_run(s);
}

static void create(struct sb_replica *r)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_engine_create spec;
    if (!r->holder && !r->is_alone) {
        r->is_network_lost = false;
        r->holder = sb_holder_take(r->sb, on_network_lost, r);
    }
    if (sb_container_spec(r, &arena, &spec)) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, "the agent is out of memory");
        return;
    }
    r->calls++;
    sb_ops(r->sb)->create(r->sb->cfg.engine, &spec, on_created, r);
}

void sb_queue_run(struct dv_sandbox *s)
{
    struct dv_list *n;
    sb_nets_refill(s); /* only what has waited for too long */
    while (s->n_creating + s->nets.n_refills < sb_starts_max(s) && (n = dv_list_pop_front(&s->queue))) {
        struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, in_queue);
        sb_replica_move(r, PH_CREATE);
        create(r);
    }
    sb_nets_refill(s);
    sb_pools_refill(s);
}

/* ---- start, inspect ---- */

void sb_replica_set_address(struct sb_replica *r, const char *ip)
{
    bool is_v6 = strchr(ip, ':') != NULL;
    (void)snprintf(r->address, sizeof(r->address), is_v6 ? "[%s]:%u" : "%s:%u", ip,
                   (unsigned)r->cmd.spec.port);
}

static void started(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    r->times.start_us = (int64_t)((sb_now(s) - r->phase_ns) / 1000);
    dv_hist_add_ns(&s->counts.start, sb_now(s) - r->phase_ns);
    r->start_ns = sb_now(s);
    if (!r->holder || r->died_early) {
        inspect(r);
        return;
    }
    sb_replica_set_address(r,
                           r->holder->address); /* known: the engine is asked for the rest when it is ready */
    sb_logs_replica_up(r);
    sb_replica_probe(r);
}

static void on_started(void *ctx, int code, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    struct dv_sandbox *s = r->sb;
    if (!sb_replica_back(r))
        (void)0; /* dealt with */
    else if (!code && !r->is_network_lost)
        started(r);
    else if (!code)
        do_over(r);
    else if (!blame_holder(r, code, err))
        sb_replica_fail_engine(r, DV_REASON_CREATE_FAILED, code, err);
    sb_queue_run(s);
}

static void warm(struct sb_replica *r);

static void find_cgroup(struct sb_replica *r)
{
    struct dv_err err = DV_ERR_INIT;
    if (!r->cgroup && r->pid && dv_cgroup_of_pid(r->pid, &r->cgroup, &err))
        dv_log(DV_LOG_WARN, "a replica's control group cannot be found", DV_LID("replica", r->id),
               DV_LE(&err));
}

static void on_inspected(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    if (!sb_replica_back(r) || r->phase < PH_INSPECT || r->phase > PH_DRAIN)
        return;
    if (code == DV_NOT_FOUND) {
        sb_replica_fail(r, DV_REASON_REMOVED, "");
        return;
    }
    if (code && r->phase != PH_INSPECT) { /* only a second look: what we knew still holds */
        sb_engine_suspect(r->sb);
        return;
    }
    if (code) {
        sb_replica_fail_engine(r, DV_REASON_CREATE_FAILED, code, err);
        return;
    }
    if (strcmp(c->state, "running") != 0 && strcmp(c->state, "paused") != 0) {
        sb_replica_exited(r, c->exit_code, c->oom_killed);
        return;
    }
    r->pid = c->pid;
    if (r->box)
        r->box->gate.only_pid = c->pid;
    if (c->started_ms)
        r->started_ms = c->started_ms;
    find_cgroup(r);
    if (r->phase == PH_WARM)
        sb_sleep_begin(r);
    if (!r->holder && c->joins[0]) /* adopted */
        r->holder = sb_holder_claim(r->sb, c->joins, on_network_lost, r);
    if (!r->holder && !c->address[0]) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, "the engine gave its container no address");
        return;
    }
    sb_replica_set_address(r, r->holder ? r->holder->address : c->address);
    if (r->phase == PH_INSPECT) {
        sb_logs_replica_up(r);
        if (r->was_adopted && !strcmp(c->state, "running") && sb_sleep_found(r))
            warm(r);
        else
            sb_replica_probe(r);
    }
}

static void inspect(struct sb_replica *r)
{
    sb_replica_move(r, PH_INSPECT);
    r->calls++;
    sb_ops(r->sb)->inspect(r->sb->cfg.engine, r->container, on_inspected, r);
}

void sb_replica_adopt(struct sb_replica *r, const char *container)
{
    (void)dv_copy(r->container, sizeof(r->container), container);
    r->was_adopted = true;
    r->start_ns = sb_now(r->sb);
    r->sb->counts.adopted++;
    if (r->want_stop)
        sb_replica_stop_again(r);
    else
        inspect(r);
}

/* ---- probe ---- */

static void warm(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    struct dv_carry_replica route = {
        .id = r->id, .address = r->address, .concurrency = (uint32_t)r->cmd.spec.scale.concurrency};
    find_cgroup(r);
    int rc = dv_carry_replica_put(s->cfg.carry, &route);
    if (rc) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, dv_err_text(rc));
        return;
    }
    if (!r->times.ready_us)
        r->times.ready_us = (int64_t)((sb_now(s) - r->start_ns) / 1000);
    dv_hist_add_ns(&s->counts.ready_time, sb_now(s) - r->start_ns);
    if (!r->was_adopted)
        dv_hist_add_ns(&s->counts.total, sb_now(s) - r->asked_ns);
    s->counts.ready++;
    r->message[0] = '\0';
    sb_replica_move(r, PH_WARM);
    sb_sleep_begin(r);
    dv_log(DV_LOG_INFO, "replica ready", DV_LID("replica", r->id), DV_LS("function", r->fn_name),
           DV_LS("address", r->address), DV_LU("ms", (sb_now(s) - r->asked_ns) / DV_MS));
    if (!r->pid) /* nothing waits for this any more */
        sb_replica_look(r);
}

static void on_probed(void *ctx, int code, const char *why)
{
    struct sb_replica *r = ctx;
    char text[240];
    (void)snprintf(text, sizeof(text), "nothing answers on port %lld after %lld ms: %s",
                   (long long)r->cmd.spec.port, (long long)r->cmd.spec.health.start_timeout_ms, why);
    sb_probe_free(r->probe); /* and why with it */
    r->probe = NULL;
    if (code)
        sb_replica_fail(r, DV_REASON_NOT_READY, text);
    else
        warm(r);
}

/* Silent for a while: was its end missed? */
static void on_waiting(void *ctx)
{
    sb_replica_look(ctx);
}

void sb_replica_look(struct sb_replica *r)
{
    if (r->calls)
        return;
    r->calls++;
    sb_ops(r->sb)->inspect(r->sb->cfg.engine, r->container, on_inspected, r);
}

void sb_replica_probe(struct sb_replica *r)
{
    const struct dv_health *h = &r->cmd.spec.health;
    struct sb_probe_cfg cfg = {.loop = r->sb->cfg.loop,
                               .address = r->address,
                               .path = h->path,
                               .timeout_ms = (uint64_t)h->timeout_ms,
                               .interval_ms = (uint64_t)h->interval_ms,
                               .is_eager = r->box && !r->was_adopted,
                               .deadline_ns = sb_now(r->sb) + (uint64_t)h->start_timeout_ms * DV_MS,
                               .on_done = on_probed,
                               .on_waiting = on_waiting,
                               .ctx = r};
    sb_sleep_end(r);
    sb_replica_move(r, PH_PROBE);
    int rc = sb_probe_start(&cfg, &r->probe);
    if (rc)
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, dv_err_text(rc));
}

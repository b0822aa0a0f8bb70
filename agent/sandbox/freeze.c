/* Idle replicas get no processor: their control group is frozen, and thawed when a request comes.
 *
 *            idle for scale.freeze                the kernel says so
 *   AWAKE --------------------------> FREEZING ---------------------> FROZEN
 *     ^--------- a request, 50 ms -------'                               |
 *     ^--------- a request, an end, a look from the engine --------------'
 *
 * All of it happens here, on the state loop, which alone writes control groups; the engine is not asked.  A
 * request meets it through the carry (agent/carry/hold.c): the carry is put to sleep before the group is
 * frozen and woken after it was thawed, so that no request is ever given to a replica that does not run, and
 * a replica with a request inside (a stream, a WebSocket, one that waits for its thaw) is never frozen.
 *
 * Freezing is begun and then looked at, never waited for: a group of version 1 may stay FREEZING while one of
 * its tasks sleeps where the kernel cannot stop it.  What is not frozen after FREEZE_MS is thawed again and
 * tried later.  A thaw is one write and needs no look: the tasks run when the kernel has taken it.
 *
 * What else wakes a replica: its end (it must be able to answer SIGTERM); trouble with its connections (it is
 * probed again); and somebody who turns to its container through the engine, since a frozen one answers
 * neither `docker stop` nor `docker exec`: the engine's events tell of it before it is done.
 *
 * Ends of the agent.  One that is asked to stop thaws everything: nobody is left who would.  One that dies
 * leaves the frozen as they are; the next one finds them frozen, and since only ready replicas are ever
 * frozen it takes them over that way, without waking a node full of them only to put them to sleep again.
 *
 * Connections kept alive live through it.  Their age counts on meanwhile (CARRY_IDLE_MS), as it does for the
 * server at their other end, whose clock does not stop. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/rt/log.h"

enum {
    LOOK_MS = 1,       /* between looks at a group that is FREEZING */
    FREEZE_MS = 50,    /* after which it is given up */
    RETRY_MS = 10,     /* after a thaw that failed */
    THAW_TRIES = 100,  /* of them */
    ROUSED_MS = 60000, /* left alone after somebody turned to it through the engine */
    PAUSE_MAX_MS = 60000,
    PER_TURN = 4, /* freezes in one turn of the loop: a request to be woken waits no longer than these take */
    MEASURE_MS = 10000
};

static const double thaw_bounds[] = {50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 700e-6, 1e-3,
                                     2e-3,  5e-3,   10e-3,  20e-3,  50e-3,  0.1,    1};
static const struct dv_hist_bounds thaw_seconds = {thaw_bounds, DV_COUNT(thaw_bounds)};

static const struct dv_freezer *freezer(const struct sb_replica *r)
{
    return r->sb->cfg.freezer ? r->sb->cfg.freezer : &dv_freezer_cgroup;
}

static bool is_down(const struct sb_replica *r) /* its group has been told to freeze */
{
    return r->sleep.state == SLEEP_FREEZING || r->sleep.state == SLEEP_FROZEN;
}

static void again_in(struct sb_replica *r, uint64_t ms)
{
    /* Without memory for the timer it stays as it is, awake or frozen: a request still wakes it. */
    (void)dv_timer_set(r->sb->cfg.loop, &r->sleep.timer, sb_now(r->sb) + ms * DV_MS);
}

/* ---- thawing ---- */

static int thaw(struct sb_replica *r, struct dv_err *err)
{
    int rc = is_down(r) ? freezer(r)->set(r->cgroup, false, err) : DV_OK;
    return rc == DV_NOT_FOUND ? DV_OK : rc; /* the group is gone: its end is about to be told */
}

static void thaw_failed(struct sb_replica *r, int code, const struct dv_err *err)
{
    r->sb->counts.thaw_failures++;
    if (!r->sleep.n_thaw_tries++)
        dv_log(DV_LOG_ERROR, "a replica cannot be thawed", DV_LID("replica", r->id),
               DV_LS("function", r->fn_name), DV_LS("error", dv_err_msg(err, code)));
    if (r->sleep.n_thaw_tries < THAW_TRIES)
        again_in(r, RETRY_MS);
    else
        sb_replica_fail(r, DV_REASON_NOT_READY, "it was frozen and cannot be thawed");
}

static void awake(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    if (r->sleep.state == SLEEP_FROZEN) {
        s->counts.thaws++;
        r->is_dirty = true;
        sb_changed(s);
    }
    r->sleep.n_thaw_tries = 0;
    r->sleep.state = SLEEP_AWAKE;
    again_in(r, (uint64_t)r->cmd.spec.scale.freeze_ms);
}

void sb_sleep_wake(struct sb_replica *r)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = thaw(r, &err);
    if (rc) {
        thaw_failed(r, rc, &err);
        return;
    }
    if (is_down(r))
        awake(r);
    dv_carry_replica_wake(r->sb->cfg.carry, r->id);
}

void sb_sleep_rouse(struct sb_replica *r)
{
    if (r->sleep.state == SLEEP_OFF)
        return;
    sb_sleep_wake(r);
    r->sleep.not_before_ns = sb_now(r->sb) + ROUSED_MS * DV_MS;
}

void sb_sleep_end(struct sb_replica *r)
{
    bool was_frozen = r->sleep.state == SLEEP_FROZEN;
    dv_timer_cancel(r->sb->cfg.loop, &r->sleep.timer);
    if (thaw(r, NULL))
        r->sb->counts.thaw_failures++; /* the engine's SIGKILL ends it all the same */
    else if (was_frozen)
        r->sb->counts.thaws++;
    r->sleep.state = SLEEP_OFF;
    dv_carry_replica_wake(r->sb->cfg.carry, r->id);
}

void sb_sleep_free(struct sb_replica *r)
{
    dv_timer_cancel(r->sb->cfg.loop, &r->sleep.timer);
    (void)thaw(r, NULL); /* nobody is left to tell */
    r->sleep.state = SLEEP_OFF;
}

/* ---- freezing ---- */

/* It is awake again, or about to be; each failure in a row doubles the time until the next try. */
static void freeze_failed(struct sb_replica *r, int code, const struct dv_err *err)
{
    uint64_t pause_ms = (uint64_t)r->cmd.spec.scale.freeze_ms
                        << (r->sleep.n_failures < 16 ? r->sleep.n_failures : 16);
    r->sb->counts.freeze_failures++;
    if (!r->sleep.n_failures++)
        dv_log(DV_LOG_WARN, "a replica cannot be frozen", DV_LID("replica", r->id),
               DV_LS("function", r->fn_name), DV_LS("error", dv_err_msg(err, code)));
    sb_sleep_wake(r);
    if (r->sleep.state == SLEEP_AWAKE)
        again_in(r, pause_ms < PAUSE_MAX_MS ? pause_ms : PAUSE_MAX_MS);
}

static void look(struct sb_replica *r)
{
    struct dv_err err = DV_ERR_INIT;
    struct dv_sandbox *s = r->sb;
    bool is_frozen = false;
    int rc = freezer(r)->is_frozen(r->cgroup, &is_frozen, &err);
    if (!rc && !is_frozen && sb_now(s) - r->sleep.began_ns >= FREEZE_MS * DV_MS)
        rc = dv_err_set(&err, DV_DEADLINE, "the kernel has not frozen it after %d ms", FREEZE_MS);
    if (rc) {
        freeze_failed(r, rc, &err);
        return;
    }
    if (!is_frozen) {
        again_in(r, LOOK_MS);
        return;
    }
    r->sleep.state = SLEEP_FROZEN;
    r->sleep.began_ns = sb_now(s);
    r->sleep.measured_ns = r->sleep.n_failures = 0;
    r->sleep.is_spent = false;
    s->counts.freezes++;
    r->is_dirty = true;
    sb_changed(s);
}

static void freeze(struct sb_replica *r)
{
    struct dv_err err = DV_ERR_INIT;
    r->sleep.state = SLEEP_FREEZING;
    r->sleep.began_ns = sb_now(r->sb);
    int rc = freezer(r)->set(r->cgroup, true, &err);
    if (!rc) {
        look(r);
        return;
    }
    r->sleep.state = SLEEP_AWAKE; /* nothing was written: there is nothing to undo */
    freeze_failed(r, rc, &err);
}

/* In how many ms it may be frozen; 0: now. */
static uint64_t left_awake_ms(struct sb_replica *r)
{
    uint64_t now = sb_now(r->sb), since, limit = (uint64_t)r->cmd.spec.scale.freeze_ms * DV_MS;
    if (r->phase != PH_WARM || dv_carry_idle_since(r->sb->cfg.carry, r->id, &since) || !since)
        return limit / DV_MS;
    uint64_t at = since + limit > r->sleep.not_before_ns ? since + limit : r->sleep.not_before_ns;
    return at > now ? (at - now + DV_MS - 1) / DV_MS : 0;
}

static bool has_turn(struct dv_sandbox *s)
{
    if (s->freeze_turn_ns != sb_now(s)) {
        s->freeze_turn_ns = sb_now(s);
        s->n_freeze_turn = 0;
    }
    return s->n_freeze_turn++ < PER_TURN;
}

static void consider(struct sb_replica *r)
{
    uint64_t ms = left_awake_ms(r);
    if (ms)
        again_in(r, ms);
    else if (!has_turn(r->sb))
        again_in(r, LOOK_MS);
    else if (dv_carry_replica_sleep(r->sb->cfg.carry, r->id))
        again_in(r, (uint64_t)r->cmd.spec.scale.freeze_ms); /* a request was quicker */
    else
        freeze(r);
}

static void on_timer(struct dv_timer *t)
{
    struct sb_replica *r = DV_CONTAINER_OF(t, struct sb_replica, sleep.timer);
    switch (r->sleep.state) {
    case SLEEP_AWAKE:
        consider(r);
        break;
    case SLEEP_FREEZING:
        if (r->sleep.n_thaw_tries)
            sb_sleep_wake(r);
        else
            look(r);
        break;
    case SLEEP_FROZEN: /* a thaw has failed */
        sb_sleep_wake(r);
        break;
    case SLEEP_OFF:
        break;
    }
}

/* ---- coming and going ---- */

static bool may_sleep(const struct sb_replica *r)
{
    return r->cgroup && r->cmd.spec.cpu != DV_CPU_ALWAYS && freezer(r)->can(r->cgroup, r->container);
}

void sb_sleep_begin(struct sb_replica *r)
{
    r->sleep.timer.fn = on_timer;
    if (r->sleep.state != SLEEP_OFF || !may_sleep(r))
        return;
    r->sleep.not_before_ns = 0;
    if (r->sleep.was_found && dv_carry_replica_sleep(r->sb->cfg.carry, r->id) == DV_OK) {
        r->sleep.state = SLEEP_FROZEN;
        r->sleep.began_ns = sb_now(r->sb);
    } else {
        r->sleep.state = SLEEP_AWAKE;
        again_in(r, (uint64_t)r->cmd.spec.scale.freeze_ms);
    }
    r->sleep.was_found = false;
}

bool sb_sleep_found(struct sb_replica *r)
{
    bool is_frozen = false;
    if (!r->cgroup || !freezer(r)->can(r->cgroup, r->container))
        return false;
    if (freezer(r)->is_frozen(r->cgroup, &is_frozen, NULL))
        return false;
    r->sleep.was_found = is_frozen && r->cmd.spec.cpu != DV_CPU_ALWAYS;
    if (!r->sleep.was_found) /* it may have been FREEZING when its agent died */
        (void)freezer(r)->set(r->cgroup, false, NULL);
    return r->sleep.was_found;
}

bool sb_sleep_is_measured(struct sb_replica *r)
{
    uint64_t now = sb_now(r->sb);
    if (r->sleep.state != SLEEP_FROZEN)
        return true;
    if (r->sleep.measured_ns && now - r->sleep.measured_ns < MEASURE_MS * DV_MS)
        return false;
    r->sleep.measured_ns = now;
    return true;
}

void dv_sandbox_on_wake(struct dv_sandbox *s, uint64_t replica, uint64_t held_ns)
{
    struct sb_replica *r = sb_find(s, replica);
    if (!r) {
        dv_carry_replica_wake(s->cfg.carry, replica);
        return;
    }
    bool was_down = is_down(r);
    sb_sleep_wake(r);
    uint64_t now = dv_clock_now_ns(dv_loop_clock(s->cfg.loop));
    if (was_down && r->sleep.state == SLEEP_AWAKE)
        dv_hist_add(&s->counts.thaw, &thaw_seconds, now > held_ns ? (double)(now - held_ns) / 1e9 : 0);
}

/* ---- Prometheus ---- */

void sb_sleep_metrics(const struct dv_sandbox *s, struct dv_buf *out)
{
    static const char failures[] = "davit_agent_freeze_failures_total",
                      seconds[] = "davit_agent_thaw_seconds";
    const struct dv_label freezing = {"what", DV_SV("freeze")}, thawing = {"what", DV_SV("thaw")};
    /* failures of writing stay in out->failed */
    (void)dv_metric_head(out, "davit_agent_freezes_total", DV_METRIC_COUNTER,
                         "Idle replicas that were frozen.");
    (void)dv_metric_u64(out, "davit_agent_freezes_total", NULL, 0, s->counts.freezes);
    (void)dv_metric_head(out, "davit_agent_thaws_total", DV_METRIC_COUNTER,
                         "Frozen replicas that were thawed.");
    (void)dv_metric_u64(out, "davit_agent_thaws_total", NULL, 0, s->counts.thaws);
    (void)dv_metric_head(out, failures, DV_METRIC_COUNTER,
                         "Freezes that were undone, and thaws tried again.");
    (void)dv_metric_u64(out, failures, &freezing, 1, s->counts.freeze_failures);
    (void)dv_metric_u64(out, failures, &thawing, 1, s->counts.thaw_failures);
    (void)dv_metric_head(out, "davit_agent_reclaims_total", DV_METRIC_COUNTER,
                         "Times a frozen replica was asked for its memory, the node being short of it.");
    (void)dv_metric_u64(out, "davit_agent_reclaims_total", NULL, 0, s->counts.reclaims);
    (void)dv_metric_head(out, "davit_agent_reclaimed_bytes_total", DV_METRIC_COUNTER,
                         "Memory that frozen replicas gave back.");
    (void)dv_metric_u64(out, "davit_agent_reclaimed_bytes_total", NULL, 0, s->counts.reclaimed_bytes);
    (void)dv_metric_head(out, seconds, DV_METRIC_HISTOGRAM,
                         "From the request that found a replica frozen to its thaw.");
    (void)dv_metric_hist(out, seconds, NULL, 0, &s->counts.thaw, &thaw_seconds);
}

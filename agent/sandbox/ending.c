/* A replica's way down.
 *
 *   wanted:  WARM -> DRAIN -> STOP -> WORDS -> REMOVE -> GONE
 *   failed:  anything ------------> WORDS -> REMOVE -> FAILED (kept for the report until it is no longer
 * wanted)
 *
 * Before the container is removed its last lines are fetched: they are what a person needs, and the engine
 * forgets them with the container. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/wire/codec.h"

/* Requests still inside have been seen by the function, however the replica ends: they must not look
 * repeatable. */
static void detach(struct sb_replica *r)
{
    sb_sleep_end(r);
    sb_probe_free(r->probe);
    r->probe = NULL;
    dv_timer_cancel(r->sb->cfg.loop, &r->timer);
    sb_image_leave(r);
    dv_list_remove(&r->in_queue);
    uint64_t in_flight, served;
    if (dv_carry_load(r->sb->cfg.carry, r->id, &in_flight, &served) == DV_OK)
        r->served = served;
    r->in_flight = 0;
    const char *why = r->reason == DV_REASON_STOPPED ? "the replica was stopped"
                      : r->message[0]                ? r->message
                                                     : dv_reason_text(r->reason);
    if (dv_carry_replica_ended(r->sb->cfg.carry, r->id, why) == DV_OK && r->holder)
        sb_holder_closing(r->holder, r->id);
}

/* Its container is gone, or (not is_gone) may still be inside the network it joined. */
static void leave_network(struct sb_replica *r, bool is_gone)
{
    sb_holder_give_back(dv_steal(&r->holder), is_gone && !r->is_unsure);
}

void sb_replica_forget(struct sb_replica *r)
{
    detach(r);
    leave_network(r, !r->container[0]); /* what had one has left in settle */
    sb_file_drop(r);
    sb_tails_take(r);
    if (r->phase != PH_GONE)
        sb_replica_move(r, PH_GONE);
}

/* ---- the end ---- */

static void settle(struct sb_replica *r, bool is_gone)
{
    leave_network(r, is_gone);
    if (r->reason == DV_REASON_STOPPED || r->want_stop) {
        sb_replica_forget(r);
        return;
    }
    sb_file_drop(r);
    sb_tails_take(r);
    sb_replica_move(r, PH_FAILED);
}

static void on_removed(void *ctx, int code, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    if (!sb_replica_back(r))
        return;
    if (code == DV_E_ENGINE && r->end_tries++ < SB_END_TRIES) {
        sb_engine_suspect(r->sb);
        return; /* said again when the engine has answered */
    }
    if (code) /* whatever stays behind belongs to nobody and goes with the next comparison */
        dv_log(DV_LOG_WARN, "container not removed", DV_LS("container", r->container),
               DV_LS("error", dv_err_msg(err, code)));
    settle(r, !code);
}

static void remove_container(struct sb_replica *r)
{
    sb_replica_move(r, PH_REMOVE);
    r->calls++;
    sb_ops(r->sb)->remove(r->sb->cfg.engine, r->container, true, on_removed, r);
}

static void words_over(struct sb_replica *r)
{
    r->logs_handle = NULL;
    dv_timer_cancel(r->sb->cfg.loop, &r->timer);
    dv_free(r->tail_text);
    r->tail_text = sb_lines_text(&r->tail, SB_REPORT_LINES);
    remove_container(r);
}

static void on_word(void *ctx, const struct dv_engine_log *line)
{
    struct sb_replica *r = ctx;
    (void)sb_lines_add(&r->tail, r->id, line); /* without memory: without words */
}

static void on_words(void *ctx, int code, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    (void)err;
    (void)code;
    if (sb_replica_back(r))
        words_over(r);
}

static void on_words_timer(struct dv_timer *t)
{
    struct sb_replica *r = DV_CONTAINER_OF(t, struct sb_replica, timer);
    sb_ops(r->sb)->logs_cancel(r->sb->cfg.engine, r->logs_handle);
    r->calls--;
    words_over(r);
}

static void last_words(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    detach(r);
    if (!r->container[0]) {
        settle(r, true);
        return;
    }
    sb_replica_move(r, PH_WORDS);
    r->timer.fn = on_words_timer;
    if (dv_timer_set(s->cfg.loop, &r->timer, sb_now(s) + SB_LAST_WORDS_MS * DV_MS)) {
        remove_container(r);
        return;
    }
    r->calls++;
    /* Told before the engine knew: followed, the lines end when it has them all. */
    r->logs_handle =
        sb_ops(s)->logs(s->cfg.engine, r->container, SB_TAIL_LINES, 0, r->is_end_told, on_word, on_words, r);
}

/* ---- failing ---- */

void sb_replica_fail(struct sb_replica *r, enum dv_reason reason, const char *message)
{
    if (r->phase >= PH_WORDS)
        return;
    r->reason = r->want_stop ? DV_REASON_STOPPED : reason;
    (void)dv_copy(r->message, sizeof(r->message), message);
    r->sb->counts.failed[r->reason]++;
    dv_log(r->want_stop ? DV_LOG_DEBUG : DV_LOG_WARN, "replica failed", DV_LID("replica", r->id),
           DV_LS("function", r->fn_name), DV_LS("reason", dv_reason_name(reason)), DV_LS("message", message));
    last_words(r);
}

void sb_replica_fail_engine(struct sb_replica *r, enum dv_reason reason, int code, const struct dv_err *err)
{
    if (code == DV_E_ENGINE) {
        if (!r->sb->has_events || !r->sb->is_ok)
            reason = DV_REASON_ENGINE_DOWN;
        sb_engine_suspect(r->sb);
    }
    sb_replica_fail(r, reason, dv_err_msg(err, code));
}

void sb_replica_exited(struct sb_replica *r, int64_t exit_code, bool oom)
{
    char text[160];
    if (r->phase >= PH_WORDS)
        return;
    r->exit_code = exit_code;
    oom = oom || r->was_oom;
    if (r->phase == PH_STOP || r->phase == PH_DRAIN) {
        r->reason = DV_REASON_STOPPED;
        if (r->phase == PH_DRAIN)
            last_words(r);
        return; /* the stop's own answer leads on */
    }
    if (oom)
        (void)snprintf(text, sizeof(text), "it ran out of memory (limit %lld bytes) and was killed",
                       (long long)r->cmd.spec.limits.memory_bytes);
    else
        (void)snprintf(text, sizeof(text), "its process ended with exit code %lld%s", (long long)exit_code,
                       r->phase == PH_WARM ? "" : " before it was ready");
    sb_replica_fail(r, oom ? DV_REASON_OOM : DV_REASON_EXITED, text);
}

/* ---- stopping ---- */

static void on_stopped(void *ctx, int code, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    if (!sb_replica_back(r))
        return;
    if (code == DV_E_ENGINE && r->end_tries++ < SB_END_TRIES) {
        sb_engine_suspect(r->sb);
        return;
    }
    if (code)
        dv_log(DV_LOG_WARN, "container not stopped, removing it", DV_LS("container", r->container),
               DV_LS("error", dv_err_msg(err, code)));
    last_words(r);
}

static void stop_container(struct sb_replica *r)
{
    int64_t grace = r->grace_ms >= 0 ? r->grace_ms : r->cmd.spec.grace_ms;
    sb_sleep_end(r);
    dv_carry_replica_drain(r->sb->cfg.carry, r->id); /* nothing new, whatever the reason */
    sb_replica_move(r, PH_STOP);
    sb_file_stopping(r);
    r->calls++;
    sb_ops(r->sb)->stop(r->sb->cfg.engine, r->container, grace, on_stopped, r);
}

void sb_replica_stop_again(struct sb_replica *r)
{
    r->reason = DV_REASON_STOPPED;
    stop_container(r);
}

static void on_drain_timer(struct dv_timer *t)
{
    stop_container(DV_CONTAINER_OF(t, struct sb_replica, timer));
}

void sb_replica_drained(struct sb_replica *r)
{
    if (r->phase != PH_DRAIN)
        return;
    dv_timer_cancel(r->sb->cfg.loop, &r->timer);
    stop_container(r);
}

static void drain(struct sb_replica *r)
{
    struct dv_sandbox *s = r->sb;
    sb_sleep_end(r);
    sb_replica_move(r, PH_DRAIN);
    r->timer.fn = on_drain_timer;
    /* Requests inside have their own deadline, the function's time-out; a conversation that outlasts it is
     * cut. */
    if (dv_timer_set(s->cfg.loop, &r->timer, sb_now(s) + (uint64_t)(r->cmd.spec.timeout_ms + 1000) * DV_MS))
        stop_container(r);
    else
        dv_carry_replica_drain(s->cfg.carry, r->id);
}

void sb_replica_stop(struct sb_replica *r, int64_t grace_ms, bool now)
{
    r->want_stop = true;
    r->stop_now = r->stop_now || now;
    r->grace_ms = grace_ms;
    if (r->phase < PH_DRAIN)
        r->reason = DV_REASON_STOPPED;
    switch (r->phase) {
    case PH_LOST: /* its container, should there be one, is found without an owner and removed */
    case PH_IMAGE:
    case PH_QUEUE:
    case PH_FAILED:
        sb_replica_forget(r);
        break;
    case PH_CREATE:
    case PH_START:
    case PH_INSPECT:
        if (r->calls)
            break; /* when the call is back: sb_replica_back */
        if (r->container[0])
            stop_container(r);
        else
            sb_replica_forget(r);
        break;
    case PH_PROBE:
        detach(r);
        stop_container(r);
        break;
    case PH_WARM:
        r->sb->counts.stopped++;
        if (now)
            stop_container(r);
        else
            drain(r);
        break;
    case PH_DRAIN:
        if (now)
            sb_replica_drained(r);
        break;
    default:
        break;
    }
}

void sb_replica_resume_ending(struct sb_replica *r)
{
    if (r->calls)
        return;
    if (r->phase == PH_STOP)
        stop_container(r);
    else if (r->phase == PH_REMOVE)
        remove_container(r);
}

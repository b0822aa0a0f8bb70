/* One engine on one loop, and calls to it that wait: for tests of engines. */
#ifndef DV_ENGINE_WORLD_H
#define DV_ENGINE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/engine/engine.h"
#include "proto/rt/loop.h"

static struct engine_world {
    struct dv_loop *loop;
    struct dv_engine *e;
    int n_done, code;
    char msg[240];
    char id[72];
    struct dv_engine_info info;
    struct dv_engine_container c;
    char logs[4096]; /* "out:text\n" "err:text\n" */
    int64_t log_ms;
    int n_lines, n_events, n_progress, last_percent;
    char events[1024]; /* "start die:3 destroy " */
    bool events_over;
} ew;

static void ew_note(int code, const struct dv_err *err)
{
    ew.n_done++;
    ew.code = code;
    (void)dv_copy(ew.msg, sizeof(ew.msg), err ? err->msg : "");
}

__attribute__((unused)) static void ew_done(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    ew_note(code, err);
}

__attribute__((unused)) static void ew_created(void *ctx, int code, const char *id, const struct dv_err *err)
{
    (void)ctx;
    (void)dv_copy(ew.id, sizeof(ew.id), id ? id : "");
    ew_note(code, err);
}

__attribute__((unused)) static void ew_inspected(void *ctx, int code, const struct dv_engine_container *c,
                                                 const struct dv_err *err)
{
    (void)ctx;
    ew.c = c ? *c : (struct dv_engine_container){0};
    ew_note(code, err);
}

__attribute__((unused)) static void ew_connected(void *ctx, int code, const struct dv_engine_info *info,
                                                 const struct dv_err *err)
{
    (void)ctx;
    ew.info = info ? *info : (struct dv_engine_info){0};
    ew_note(code, err);
}

__attribute__((unused)) static void ew_line(void *ctx, const struct dv_engine_log *l)
{
    size_t n = strlen(ew.logs);
    (void)ctx;
    ew.n_lines++;
    ew.log_ms = l->wall_ms;
    (void)snprintf(ew.logs + n, sizeof(ew.logs) - n, "%s:%.*s\n", l->is_stderr ? "err" : "out",
                   (int)l->text.n, l->text.p);
}

__attribute__((unused)) static void ew_event(void *ctx, const struct dv_engine_event *ev)
{
    size_t n = strlen(ew.events);
    (void)ctx;
    ew.n_events++;
    if (strcmp(ev->action, "die") == 0)
        (void)snprintf(ew.events + n, sizeof(ew.events) - n, "die:%lld ", (long long)ev->exit_code);
    else
        (void)snprintf(ew.events + n, sizeof(ew.events) - n, "%s ", ev->action);
}

__attribute__((unused)) static void ew_events_over(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    ew.events_over = true;
    ew_note(code, err);
}

/* Turn the loop until *counter reached value, or 20 s passed. */
__attribute__((unused)) static void ew_until(const int *counter, int value)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + 20 * DV_S;
    while (*counter < value && dv_clock_now_ns(&dv_clock_system) < end)
        assert_int_equal(dv_loop_turn(ew.loop, 20), DV_OK);
    if (*counter < value)
        fail_msg("waited for %d, got %d (last: %d %s)", value, *counter, ew.code, ew.msg);
}

/* CALL(remove, id, true): run ops->remove and wait for its end; the code is left in ew.code. */
#define EW_CALL(op, ...)                                                                                     \
    do {                                                                                                     \
        int ew_before_ = ew.n_done;                                                                          \
        ew.e->ops->op(ew.e, __VA_ARGS__, NULL);                                                              \
        assert_int_equal(ew.n_done, ew_before_); /* never before the call returned */                        \
        ew_until(&ew.n_done, ew_before_ + 1);                                                                \
    } while (0)

#define EW_OK(op, ...)                                                                                       \
    do {                                                                                                     \
        EW_CALL(op, __VA_ARGS__);                                                                            \
        if (ew.code)                                                                                         \
            fail_msg(#op ": %s", ew.msg);                                                                    \
    } while (0)

#endif

/* Accepting with its first, second, third ... allocation failing: answered exactly once, nothing leaks, and
 * what was answered with DV_OK is in the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/events/async.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/loop.h"

#include <unistd.h>

static int n_answered, last_code;

static int find(void *ctx, uint64_t uid, struct dv_async_fn *out)
{
    (void)ctx;
    *out = (struct dv_async_fn){"f", "default", 1000, 1, NULL};
    return uid < 100 ? DV_OK : DV_NOT_FOUND;
}

static void on_answer(void *ctx, struct dv_async_accept *a, int code, const struct dv_err *err)
{
    (void)ctx;
    assert_true(!code || err->msg[0]);
    n_answered++;
    last_code = code;
    dv_free(a->body);
    dv_free(a);
}

static struct dv_async_accept *a_request(uint64_t uid)
{
    struct dv_async_accept *a = dv_zalloc(sizeof(*a));
    a->fn_uid = uid;
    a->fn = (char *)"f.default";
    a->method = (char *)"POST";
    a->target = (char *)"/";
    a->fields = (char *)"A: b\r\n";
    a->body = dv_strdup("body");
    a->body_bytes = 4;
    return a;
}

static void accepting_answers_once_and_keeps_what_it_promised(void **state)
{
    (void)state;
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_store *store;
    struct dv_storer *storer;
    struct dv_async *async = NULL;
    assert_int_equal(dv_loop_new(&dv_clock_system, &loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(loop, &mailbox, NULL), DV_OK);
    assert_int_equal(dv_store_memory_open(&store, NULL), DV_OK);
    assert_int_equal(dv_storer_start(store, &storer, NULL), DV_OK);
    struct dv_async_cfg cfg = {.loop = loop,
                               .mailbox = mailbox,
                               .storer = storer,
                               .clock = &dv_clock_system,
                               .internal_path = "/nonexistent/gateway.sock",
                               .find = find,
                               .answer = on_answer};
    uint64_t n = 0;
    do
        dv_alloc_fail_at(++n);
    while (dv_async_new(&cfg, &async, NULL) == DV_E_NOMEM && n < 100);
    dv_alloc_fail_at(0);
    assert_true(n > 1 && async);
    for (int i = 0; i < 5; i++) /* before the first request the queues of the store must be known */
        assert_int_equal(dv_loop_turn(loop, 2), DV_OK);
    int n_failed = 0;
    for (uint64_t uid = 1; uid < 20; uid++) { /* a queue of its own each time */
        struct dv_async_accept *a = a_request(uid);
        int before = n_answered;
        dv_alloc_fail_at(uid);
        dv_async_accept(async, a);
        dv_alloc_fail_at(0);
        for (int i = 0; i < 1000 && n_answered == before; i++)
            assert_int_equal(dv_loop_turn(loop, 2), DV_OK);
        assert_int_equal(n_answered, before + 1);
        assert_true(last_code == DV_OK || last_code == DV_E_NOMEM);
        n_failed += last_code != DV_OK;
        assert_int_equal(dv_async_backlog(async, uid), last_code == DV_OK);
    }
    assert_in_range(n_failed, 2, 15);
    dv_async_free(async);
    dv_storer_stop(storer);
    dv_mailbox_free(mailbox);
    dv_loop_free(loop);
}

int main(void)
{
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, STDERR_FILENO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepting_answers_once_and_keeps_what_it_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

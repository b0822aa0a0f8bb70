/* The gateway when memory runs out: starting fails whole, news is refused whole, nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "orchestrator/gateway/dispatch.h"
#include "orchestrator/gateway/gateway.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"

struct world {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    char dir[64], internal[128];
};

static void world_init(struct world *w)
{
    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/davit-gwf-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->internal, sizeof(w->internal), "%s/gateway.sock", w->dir);
    assert_int_equal(dv_loop_new(&dv_clock_system, &w->loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(w->loop, &w->mailbox, NULL), DV_OK);
}

static void world_deinit(struct world *w)
{
    dv_mailbox_free(w->mailbox);
    dv_loop_free(w->loop);
    (void)unlink(w->internal);
    assert_int_equal(rmdir(w->dir), 0);
}

static int start(struct world *w, struct dv_gateway **out, struct dv_err *err)
{
    struct dv_gateway_cfg cfg = {.clock = &dv_clock_system,
                                 .listen = "127.0.0.1:0",
                                 .internal_path = w->internal,
                                 .api_path = "/nowhere/api.sock",
                                 .n_loops = 2,
                                 .user = "admin",
                                 .password = "secret",
                                 .access_log_fd = -1,
                                 .state = w->mailbox};
    return dv_gateway_start(&cfg, out, err);
}

static void starting_without_memory_fails_whole(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    uint64_t n = 1;
    for (;; n++) {
        struct dv_gateway *g = NULL;
        struct dv_err err = DV_ERR_INIT;
        dv_alloc_fail_at(n);
        int rc = start(&w, &g, &err);
        bool was_reached = dv_alloc_count() >= n;
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            dv_gateway_free(g);
            if (!was_reached)
                break;
            continue; /* an allocation that may fail without harm */
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_null(g);
        assert_int_not_equal(err.msg[0], 0);
    }
    assert_true(n > 10);
    world_deinit(&w);
}

/* Each piece of news with the n-th allocation failing: DV_E_NOMEM from the call, or the loop does without;
 * then the same again with memory, and it must have arrived. */
static void news_without_memory_is_refused_or_told_again(void **state)
{
    (void)state;
    struct world w;
    struct dv_gateway *g;
    struct dv_err err = DV_ERR_INIT;
    world_init(&w);
    assert_int_equal(start(&w, &g, &err), DV_OK);
    for (uint64_t n = 1; n <= 40; n++) {
        struct dv_route_fn fn = {
            .uid = n, .name = "f", .ns = "default", .timeout_ms = 100, .queue_max = 1, .failing = "x"};
        struct dv_route_replica r[2] = {{.id = n * 10, .node = 1, .concurrency = 1},
                                        {.id = n * 10 + 1, .node = 2, .concurrency = 1}};
        struct dv_route_node node = {.id = 1, .address = "127.0.0.1:1"};
        struct dv_load load;
        dv_alloc_fail_at(n);
        int a = dv_gateway_fn_put(g, &fn), b = dv_gateway_replicas_put(g, n, r, 2),
            c = dv_gateway_node_put(g, &node);
        assert_true((a == DV_OK || a == DV_E_NOMEM) && (b == DV_OK || b == DV_E_NOMEM || b == DV_NOT_FOUND));
        assert_true(c == DV_OK || c == DV_E_NOMEM);
        dv_alloc_fail_at(0);
        assert_int_equal(dv_gateway_fn_put(g, &fn), DV_OK);
        assert_int_equal(dv_gateway_replicas_put(g, n, r, 2), DV_OK);
        assert_int_equal(dv_gateway_node_put(g, &node), DV_OK);
        assert_int_equal(dv_gateway_load(g, n, &load), DV_OK);
        dv_gateway_fn_remove(g, n);
        assert_int_equal(dv_gateway_load(g, n, &load), DV_NOT_FOUND);
        dv_gateway_node_remove(g, 1);
    }
    dv_gateway_free(g);
    world_deinit(&w);
}

static void metrics_without_memory_are_marked_failed(void **state)
{
    (void)state;
    struct world w;
    struct dv_gateway *g;
    world_init(&w);
    assert_int_equal(start(&w, &g, NULL), DV_OK);
    DV_AUTO_BUF struct dv_buf out = DV_BUF_INIT;
    dv_alloc_fail_at(1);
    dv_gateway_metrics(g, &out);
    dv_alloc_fail_at(0);
    assert_int_equal(out.failed, DV_E_NOMEM);
    dv_buf_clear(&out);
    dv_gateway_metrics(g, &out);
    assert_int_equal(out.failed, 0);
    dv_gateway_free(g);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starting_without_memory_fails_whole),
        cmocka_unit_test(news_without_memory_is_refused_or_told_again),
        cmocka_unit_test(metrics_without_memory_are_marked_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Every allocation on the way of an API call fails once.  Whatever fails: exactly one answer, no leak, no
 * crash, and a 500 that says so, until the call goes through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/api_world.h"

static const struct {
    const char *method, *target, *body;
} calls[] = {
    {"GET", "/v1/functions?label=a=b", NULL},
    {"GET", "/v1/functions/hello", NULL},
    {"POST", "/v1/functions", "{\"name\":\"new\",\"image\":\"i\",\"env\":{\"A\":\"1\"}}"},
    {"POST", "/v1/functions?dry_run=true", "{\"name\":\"new\",\"image\":\"i\"}"},
    {"PUT", "/v1/functions/hello", "{\"image\":\"i2\"}"},
    {"PATCH", "/v1/functions/hello", "{\"env\":{\"B\":\"2\"}}"},
    {"DELETE", "/v1/functions/hello", NULL},
    {"POST", "/v1/functions/hello/scale", "{\"replicas\":2}"},
    {"GET", "/v1/functions/hello/events", NULL},
    {"GET", "/v1/functions/hello/replicas", NULL},
    {"GET", "/v1/functions/hello/logs", NULL},
    {"POST", "/v1/apply",
     "{\"functions\":[{\"name\":\"x\",\"image\":\"i\"},{\"name\":\"y\",\"image\":\"i\"}]}"},
    {"GET", "/v1/nodes", NULL},
    {"POST", "/v1/nodes/n1/drain", NULL},
    {"DELETE", "/v1/nodes/n1", NULL},
    {"POST", "/v1/secrets", "{\"name\":\"s\",\"value_base64\":\"AAE=\"}"},
    {"PUT", "/v1/registries/r", "{\"username\":\"u\",\"password\":\"p\"}"},
    {"POST", "/v1/namespaces", "{\"name\":\"prod\",\"labels\":{\"a\":\"b\"}}"},
    {"GET", "/v1/version", NULL},
    {"GET", "/v1/nothing", NULL},
    {"POST", "/v1/functions", "{\"name\":\"UPPER\"}"},
    {"GET", "/metrics", NULL},
    {"POST", "/system/functions",
     "{\"service\":\"of\",\"image\":\"i\",\"envProcess\":\"cat\",\"constraints\":[\"a=b\"],\"labels\":{\"com."
     "openfaas.scale.zero\":\"true\"},"
     "\"limits\":{\"memory\":\"64Mi\",\"cpu\":\"1\"},\"annotations\":{\"com.openfaas.health.http.path\":\"/"
     "h\"}}"},
    {"PUT", "/system/functions",
     "{\"service\":\"hello\",\"image\":\"i\",\"envVars\":{\"max_inflight\":\"3\"}}"},
    {"DELETE", "/system/functions", "{\"functionName\":\"hello\"}"},
    {"POST", "/system/scale-function/hello", "{\"replicas\":3}"},
    {"GET", "/system/functions", NULL},
    {"GET", "/system/function/hello?usage=1", NULL},
    {"GET", "/system/logs?name=hello", NULL},
    {"POST", "/system/secrets", "{\"name\":\"s\",\"rawValue\":\"AAE=\"}"},
    {"POST", "/system/namespace/", "{\"name\":\"prod\"}"},
    {"GET", "/system/info", NULL},
    {"GET", "/ui/", NULL},
};

/* One call in a world of its own, the n-th allocation failing.  False once nothing failed any more. */
static bool try_call(size_t i, uint64_t n)
{
    static struct world w;
    struct dv_http_req first, r;
    world_init(&w);
    world_request(&first, "POST", "/v1/functions", "{\"name\":\"hello\",\"image\":\"i\"}");
    world_header(&first, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &first);
    world_commit(&w);
    assert_int_equal(first.status, 201);
    world_free(&first);

    world_request(&r, calls[i].method, calls[i].target, calls[i].body);
    world_header(&r, "Authorization", "Bearer secret");
    dv_alloc_fail_at(n);
    dv_api_on_request(w.api, &r);
    bool was_sent = w.control.n_pending > 0;
    uint64_t used = dv_alloc_count();
    dv_alloc_fail_at(0);
    bool failed = used >= n;
    world_commit(&w);
    if (w.control.logs_open)
        w.control.logs.end(w.control.logs.ctx);
    assert_true(r.is_answered);
    bool fine = r.status == 500 || r.status == 400 || r.status == 404 || r.status < 300;
    if (!fine || (!failed && r.status == 500) || (was_sent && r.status >= 500))
        fail_msg("%s %s, allocation %d: %d %s", calls[i].method, calls[i].target, (int)n, r.status,
                 dv_buf_cstr(&r.out));
    world_free(&r);
    world_deinit(&w);
    return failed;
}

static void a_failing_allocation_is_answered_and_leaks_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < DV_COUNT(calls); i++) {
        uint64_t n = 1;
        while (try_call(i, n))
            n++;
        assert_true(n > 1);
    }
}

/* The answer is written after the commit: memory may be short then, too. */
static void memory_that_runs_out_after_the_commit_is_told_as_such(void **state)
{
    (void)state;
    static const char *const writes[][3] = {{"PUT", "/v1/functions/hello", "{\"image\":\"i\"}"},
                                            {"POST", "/v1/namespaces", "{\"name\":\"prod\"}"},
                                            {"POST", "/v1/nodes/n1/cordon", ""}};
    for (size_t i = 0; i < DV_COUNT(writes); i++) {
        for (uint64_t n = 1;; n++) {
            static struct world w;
            struct dv_http_req r;
            world_init(&w);
            world_request(&r, writes[i][0], writes[i][1], writes[i][2]);
            world_header(&r, "Authorization", "Bearer secret");
            dv_api_on_request(w.api, &r);
            dv_alloc_fail_at(n + 1); /* the first is the fake's own copy */
            world_commit(&w);
            bool failed = dv_alloc_count() >= n + 1;
            dv_alloc_fail_at(0);
            assert_true(r.is_answered);
            assert_true(r.status < 300 || r.status == 500);
            world_free(&r);
            world_deinit(&w);
            if (!failed)
                break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_allocation_is_answered_and_leaks_nothing),
        cmocka_unit_test(memory_that_runs_out_after_the_commit_is_told_as_such),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

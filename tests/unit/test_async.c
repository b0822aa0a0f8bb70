/* Asynchronous invocations against a fake gateway on a unix socket, on the memory store and on SQLite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/events/async.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/log.h"
#include "proto/rt/loop.h"
#include "proto/wire/types.h"

#include <unistd.h>

enum { MAX_SEEN = 400, MAX_PARKED = 100 };

struct seen { /* one request as the gateway, or the callback's receiver, got it */
    char method[16], target[128], call_id[48], type[64], custom[64], host[64], hop[32];
    char status[16], name[64], duration[32], retry[16], from_fn[64];
    char body[256];
    size_t body_n;
};

struct receiver { /* a server that answers as told */
    struct dv_httpd *d;
    struct seen seen[MAX_SEEN];
    int n;
    int statuses[16]; /* of the first requests; 0: park; then 200 */
    int n_statuses;
    bool parks_all;
    const char *parks_prefix; /* park what starts with it */
    struct dv_http_req *parked[MAX_PARKED];
    int n_parked;
    const char *header_name, *header_value;
    const char *answer;
};

struct fn {
    uint64_t uid;
    const char *name;
    bool is_there;
    int64_t parallel;
    struct dv_kvs annotations;
};

static char *k_min = "com.openfaas.retry.min_wait", *k_max = "com.openfaas.retry.max_wait";
static char *k_attempts = "com.openfaas.retry.attempts";

static struct rig {
    bool is_sqlite;
    char dir[64], db[96], sock[96];
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_storer *storer;
    struct dv_async *async;
    struct dv_async_cfg cfg;
    struct receiver gateway, callback;
    struct fn fns[4];
    int n_answered, codes[MAX_SEEN];
    char last_msg[240];
} rig;

/* ---- servers ---- */

static void keep(char *to, size_t cap, struct dv_sv s)
{
    (void)snprintf(to, cap, "%.*s", (int)s.n, s.p ? s.p : "");
}

static void note(struct receiver *r, struct dv_http_req *req)
{
    assert_true(r->n < MAX_SEEN);
    struct seen *s = &r->seen[r->n++];
    struct dv_sv path = dv_http_path(req), query = dv_http_query(req), body = dv_http_body(req);
    (void)snprintf(s->target, sizeof(s->target), "%.*s%s%.*s", (int)path.n, path.p, query.n ? "?" : "",
                   (int)query.n, query.p ? query.p : "");
    keep(s->method, sizeof(s->method), dv_http_method(req));
    keep(s->call_id, sizeof(s->call_id), dv_http_header(req, "X-Call-Id"));
    keep(s->type, sizeof(s->type), dv_http_header(req, "Content-Type"));
    keep(s->custom, sizeof(s->custom), dv_http_header(req, "X-Custom"));
    keep(s->host, sizeof(s->host), dv_http_header(req, "Host"));
    keep(s->hop, sizeof(s->hop), dv_http_header(req, "Keep-Alive"));
    keep(s->status, sizeof(s->status), dv_http_header(req, "X-Function-Status"));
    keep(s->name, sizeof(s->name), dv_http_header(req, "X-Function-Name"));
    keep(s->duration, sizeof(s->duration), dv_http_header(req, "X-Duration-Seconds"));
    keep(s->retry, sizeof(s->retry), dv_http_header(req, "X-Retry"));
    keep(s->from_fn, sizeof(s->from_fn), dv_http_header(req, "X-From-Function"));
    s->body_n = body.n;
    keep(s->body, sizeof(s->body), body);
}

static void on_request(void *ctx, struct dv_http_req *req)
{
    struct receiver *r = ctx;
    note(r, req);
    int status = r->n <= r->n_statuses ? r->statuses[r->n - 1] : 200;
    bool parks = r->parks_all || status == 0 ||
                 (r->parks_prefix && dv_sv_starts(dv_http_path(req), dv_sv_c(r->parks_prefix)));
    if (parks) {
        assert_true(r->n_parked < MAX_PARKED);
        r->parked[r->n_parked++] = req;
        return;
    }
    if (r->header_name)
        dv_http_set_header(req, r->header_name, r->header_value);
    dv_http_reply(req, status, "application/x-answer", dv_sv_c(r->answer ? r->answer : "ok"));
}

static void unpark(struct receiver *r, int status)
{
    for (int i = 0; i < r->n_parked; i++)
        dv_http_reply(r->parked[i], status, "text/plain", DV_SV("late"));
    r->n_parked = 0;
}

static void start_gateway(void)
{
    struct dv_httpd_cfg cfg = {
        .unix_path = rig.sock, .body_max = 9 << 20, .on_request = on_request, .ctx = &rig.gateway};
    assert_int_equal(dv_httpd_start(rig.loop, &cfg, &rig.gateway.d, NULL), DV_OK);
}

/* ---- what the state loop gives ---- */

static int find(void *ctx, uint64_t uid, struct dv_async_fn *out)
{
    (void)ctx;
    for (size_t i = 0; i < DV_COUNT(rig.fns); i++) {
        const struct fn *f = &rig.fns[i];
        if (f->uid != uid || !f->is_there)
            continue;
        *out = (struct dv_async_fn){f->name, "default", 5000, f->parallel, &f->annotations};
        return DV_OK;
    }
    return DV_NOT_FOUND;
}

static void free_accept(struct dv_async_accept *a)
{
    dv_free(a->fn);
    dv_free(a->method);
    dv_free(a->target);
    dv_free(a->fields);
    dv_free(a->body);
    dv_free(a->callback_url);
    dv_free(a);
}

static void on_answer(void *ctx, struct dv_async_accept *a, int code, const struct dv_err *err)
{
    (void)ctx;
    assert_true(rig.n_answered < MAX_SEEN);
    rig.codes[rig.n_answered++] = code;
    (void)dv_copy(rig.last_msg, sizeof(rig.last_msg), code ? dv_err_msg(err, code) : "");
    free_accept(a);
}

/* ---- the rig ---- */

static void start_async(void)
{
    struct dv_store *store;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(rig.is_sqlite ? dv_store_sqlite_open(rig.db, &store, &err)
                                   : dv_store_memory_open(&store, &err),
                     DV_OK);
    assert_int_equal(dv_storer_start(store, &rig.storer, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(rig.loop, &rig.mailbox, NULL), DV_OK);
    rig.cfg.loop = rig.loop;
    rig.cfg.mailbox = rig.mailbox;
    rig.cfg.storer = rig.storer;
    rig.cfg.clock = &dv_clock_system;
    rig.cfg.internal_path = rig.sock;
    rig.cfg.seed = 42;
    rig.cfg.find = find;
    rig.cfg.answer = on_answer;
    assert_int_equal(dv_async_new(&rig.cfg, &rig.async, NULL), DV_OK);
}

static void stop_async(void)
{
    dv_async_free(rig.async);
    rig.async = NULL;
    dv_storer_stop(rig.storer);
    dv_mailbox_free(rig.mailbox);
}

static int set_up(void **state, bool is_sqlite)
{
    (void)state;
    static struct dv_kv quick[] = {{NULL, "3"}, {NULL, "40ms"}, {NULL, "10ms"}};
    quick[0].k = k_attempts, quick[1].k = k_max, quick[2].k = k_min;
    memset(&rig, 0, sizeof(rig));
    rig.is_sqlite = is_sqlite;
    (void)snprintf(rig.dir, sizeof(rig.dir), "/tmp/davit-test-async-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    (void)snprintf(rig.db, sizeof(rig.db), "%s/store.db", rig.dir);
    (void)snprintf(rig.sock, sizeof(rig.sock), "%s/gateway.sock", rig.dir);
    for (size_t i = 0; i < DV_COUNT(rig.fns); i++)
        rig.fns[i] = (struct fn){.uid = 0xa0 + i,
                                 .name = (const char *[]){"one", "two", "three", "four"}[i],
                                 .is_there = true,
                                 .parallel = 100,
                                 .annotations = {quick, 3}};
    assert_int_equal(dv_loop_new(&dv_clock_system, &rig.loop, NULL), DV_OK);
    start_gateway();
    struct dv_httpd_cfg cfg = {
        .address = "127.0.0.1:0", .body_max = 9 << 20, .on_request = on_request, .ctx = &rig.callback};
    assert_int_equal(dv_httpd_start(rig.loop, &cfg, &rig.callback.d, NULL), DV_OK);
    start_async();
    return 0;
}

static int set_up_memory(void **state)
{
    return set_up(state, false);
}

static int set_up_sqlite(void **state)
{
    return set_up(state, true);
}

static int tear_down(void **state)
{
    (void)state;
    stop_async();
    if (rig.gateway.d)
        dv_httpd_stop(rig.gateway.d);
    dv_httpd_stop(rig.callback.d);
    dv_loop_free(rig.loop);
    (void)unlink(rig.db);
    (void)unlink(rig.sock);
    assert_int_equal(rmdir(rig.dir), 0);
    return 0;
}

/* ---- verbs ---- */

struct ask {
    int fn;
    const char *method, *target, *fields, *body, *call_id, *callback;
    size_t body_n; /* 0: of the string */
};

static void ask(struct ask q)
{
    struct dv_async_accept *a = dv_zalloc(sizeof(*a));
    size_t n = q.body_n ? q.body_n : q.body ? strlen(q.body) : 0;
    a->fn_uid = rig.fns[q.fn].uid;
    a->fn = dv_asprintf("%s.default", rig.fns[q.fn].name);
    a->method = dv_strdup(q.method ? q.method : "POST");
    a->target = dv_strdup(q.target ? q.target : "");
    a->fields = dv_strdup(q.fields ? q.fields : "");
    a->body = dv_zalloc(n + 1);
    if (q.body)
        memcpy(a->body, q.body, strlen(q.body));
    a->body_bytes = n;
    (void)dv_copy(a->call_id, sizeof(a->call_id), q.call_id ? q.call_id : "call-0");
    a->callback_url = dv_strdup(q.callback);
    dv_async_accept(rig.async, a);
}

#define TURN_UNTIL(condition)                                                                                \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 3000 && !(condition); turn_++)                                           \
            assert_int_equal(dv_loop_turn(rig.loop, 2), DV_OK);                                              \
        assert_true(condition);                                                                              \
    } while (0)

static void turn_for_ms(int ms)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + (uint64_t)((unsigned)ms * DV_MS);
    while (dv_clock_now_ns(&dv_clock_system) < until)
        assert_int_equal(dv_loop_turn(rig.loop, 2), DV_OK);
}

static uint64_t backlog(int fn)
{
    return dv_async_backlog(rig.async, rig.fns[fn].uid);
}

static const char *callback_url(void)
{
    static char url[64];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/done?x=1", dv_httpd_port(rig.callback.d));
    return url;
}

/* Value of a sample in the metrics; -1: not there. */
static int64_t metric(const char *sample)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    dv_async_metrics(rig.async, &b);
    DV_AUTO_STR char *line = dv_asprintf("\n%s", sample);
    const char *at = strstr(dv_buf_cstr(&b), line);
    return at ? strtoll(at + strlen(line), NULL, 10) : -1;
}

/* ---- tests ---- */

static void an_accepted_request_reaches_the_function_as_it_was_sent(void **state)
{
    (void)state;
    ask((struct ask){
        .method = "PUT",
        .target = "/a/../b%20c?q=1",
        .fields = "Host: example.test\r\nX-Custom: \tyes\r\nContent-Type: text/csv\r\nKeep-Alive: 5\r\n"
                  "X-Call-Id: other\r\nContent-Length: 999\r\nExpect: 100-continue\r\n",
        .body = "a,b,c",
        .call_id = "id-7"});
    assert_int_equal(rig.n_answered, 0); /* never before the call returned */
    TURN_UNTIL(rig.n_answered == 1 && rig.gateway.n == 1);
    assert_int_equal(rig.codes[0], DV_OK);
    const struct seen *s = &rig.gateway.seen[0];
    assert_string_equal(s->method, "PUT");
    assert_string_equal(s->target, "/function/one.default/a/../b%20c?q=1");
    assert_string_equal(s->call_id, "id-7");
    assert_string_equal(s->type, "text/csv");
    assert_string_equal(s->custom, "yes");
    assert_string_equal(s->host, "example.test");
    assert_string_equal(s->hop, "");
    assert_string_equal(s->body, "a,b,c");
    TURN_UNTIL(backlog(0) == 0);
    turn_for_ms(30);
    assert_int_equal(rig.gateway.n, 1);
    assert_int_equal(metric("davit_async_done_total{function=\"one.default\"} "), 1);
    assert_int_equal(metric("queue_worker_messages_submitted_total{queue_name=\"faas-request\",function_name="
                            "\"one.openfaas-fn\"} "),
                     1);
}

static void bodies_of_any_bytes_and_sizes_arrive_whole(void **state)
{
    (void)state;
    ask((struct ask){.body_n = 8 * 1024 * 1024});
    ask((struct ask){.method = "GET"});
    TURN_UNTIL(rig.gateway.n == 2 && backlog(0) == 0);
    assert_int_equal(rig.gateway.seen[0].body_n + rig.gateway.seen[1].body_n, 8 * 1024 * 1024);
}

static void a_busy_function_is_tried_again_until_it_takes_the_request(void **state)
{
    (void)state;
    rig.gateway.statuses[0] = 503, rig.gateway.statuses[1] = 429, rig.gateway.n_statuses = 2;
    ask((struct ask){.body = "x", .call_id = "id-1"});
    TURN_UNTIL(rig.gateway.n == 3 && backlog(0) == 0);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(rig.gateway.seen[i].call_id, "id-1");
        assert_string_equal(rig.gateway.seen[i].body, "x");
    }
    assert_int_equal(metric("davit_async_retries_total{function=\"one.default\"} "), 2);
    assert_int_equal(metric("davit_async_failed_total{function=\"one.default\"} "), 0);
}

static void after_the_last_attempt_it_is_given_up(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++)
        rig.gateway.statuses[i] = 503;
    rig.gateway.n_statuses = 8;
    ask((struct ask){.body = "x", .callback = callback_url()});
    TURN_UNTIL(rig.callback.n == 1 && backlog(0) == 0);
    assert_int_equal(rig.gateway.n, 3);
    assert_string_equal(rig.callback.seen[0].status, "503");
    assert_string_equal(rig.callback.seen[0].retry, "3");
    assert_int_equal(metric("davit_async_failed_total{function=\"one.default\"} "), 1);
}

static void a_failure_of_the_function_itself_is_not_repeated(void **state)
{
    (void)state;
    rig.gateway.statuses[0] = 500, rig.gateway.n_statuses = 1;
    ask((struct ask){.body = "x"});
    TURN_UNTIL(rig.gateway.n == 1 && backlog(0) == 0);
    turn_for_ms(60);
    assert_int_equal(rig.gateway.n, 1);
}

static void retry_after_is_obeyed(void **state)
{
    (void)state;
    rig.gateway.statuses[0] = 503, rig.gateway.n_statuses = 1;
    rig.gateway.header_name = "Retry-After", rig.gateway.header_value = "1";
    ask((struct ask){.body = "x"});
    TURN_UNTIL(rig.gateway.n == 1);
    turn_for_ms(300); /* far behind max_wait */
    assert_int_equal(rig.gateway.n, 1);
    TURN_UNTIL(rig.gateway.n == 2);
}

static void the_callback_gets_the_functions_answer(void **state)
{
    (void)state;
    rig.gateway.header_name = "X-From-Function", rig.gateway.header_value = "hello";
    rig.gateway.answer = "the answer";
    ask((struct ask){.body = "x", .call_id = "id-9", .callback = callback_url()});
    TURN_UNTIL(rig.callback.n == 1);
    const struct seen *s = &rig.callback.seen[0];
    assert_string_equal(s->method, "POST");
    assert_string_equal(s->target, "/done?x=1");
    assert_string_equal(s->body, "the answer");
    assert_string_equal(s->type, "application/x-answer");
    assert_string_equal(s->from_fn, "hello");
    assert_string_equal(s->call_id, "id-9");
    assert_string_equal(s->status, "200");
    assert_string_equal(s->name, "one.openfaas-fn");
    assert_true(strtod(s->duration, NULL) > 0 && strtod(s->duration, NULL) < 5);
    TURN_UNTIL(metric("davit_async_callbacks_backlog{function=\"one.default\"} ") == 0);
    assert_int_equal(metric("davit_async_callbacks_total{function=\"one.default\"} "), 1);
    assert_int_equal(rig.gateway.n, 1);
}

static void a_failing_callback_is_repeated_without_calling_the_function_again(void **state)
{
    (void)state;
    rig.callback.statuses[0] = 500, rig.callback.n_statuses = 1;
    rig.gateway.statuses[0] = 404, rig.gateway.n_statuses = 1;
    ask((struct ask){.body = "x", .callback = callback_url()});
    TURN_UNTIL(rig.callback.n == 2);
    assert_int_equal(rig.gateway.n, 1);
    assert_string_equal(rig.callback.seen[1].status, "404");
    assert_string_equal(rig.callback.seen[1].body, "ok");
}

static void one_at_a_time_keeps_the_order_of_acceptance(void **state)
{
    (void)state;
    rig.fns[0].parallel = 1;
    enum { N = 30 };
    for (int i = 0; i < N; i++) {
        char body[16];
        (void)snprintf(body, sizeof(body), "%d", i);
        ask((struct ask){.body = body});
    }
    TURN_UNTIL(rig.gateway.n == N);
    for (int i = 0; i < N; i++)
        assert_int_equal(strtol(rig.gateway.seen[i].body, NULL, 10), i);
}

static void no_more_are_in_flight_than_the_function_can_hold(void **state)
{
    (void)state;
    rig.fns[0].parallel = 3;
    rig.gateway.parks_all = true;
    for (int i = 0; i < 10; i++)
        ask((struct ask){.body = "x"});
    TURN_UNTIL(rig.n_answered == 10 && rig.gateway.n_parked == 3);
    turn_for_ms(30);
    assert_int_equal(rig.gateway.n, 3);
    assert_int_equal(backlog(0), 10);
    assert_int_equal(metric("davit_async_in_flight{function=\"one.default\"} "), 3);
    assert_int_equal(metric("queue_worker_pending_messages{queue_name=\"faas-request\",function_name="
                            "\"one.openfaas-fn\"} "),
                     7);
    rig.gateway.parks_all = false;
    unpark(&rig.gateway, 200);
    TURN_UNTIL(rig.gateway.n == 10 && backlog(0) == 0);
}

static void functions_that_hang_do_not_hold_up_the_others(void **state)
{
    (void)state;
    stop_async();
    rig.cfg.in_flight_max = 8;
    start_async();
    rig.gateway.parks_prefix = "/function/one.";
    for (int i = 0; i < 20; i++)
        ask((struct ask){.fn = 0, .body = "hangs"});
    TURN_UNTIL(rig.gateway.n_parked >= 4);
    for (int i = 0; i < 20; i++)
        ask((struct ask){.fn = 1, .body = "runs"});
    TURN_UNTIL(rig.n_answered == 40 && backlog(1) == 0);
    assert_int_equal(backlog(0), 20);
    assert_true(rig.gateway.n_parked < 8);
    rig.gateway.parks_prefix = NULL; /* and once they answer, all of theirs is worked off as well */
    unpark(&rig.gateway, 200);
    TURN_UNTIL(backlog(0) == 0);
}

static void a_deleted_functions_queue_is_dropped_and_no_other(void **state)
{
    (void)state;
    rig.fns[0].parallel = rig.fns[1].parallel = 1;
    rig.gateway.parks_all = true;
    for (int i = 0; i < 5; i++) {
        ask((struct ask){.fn = 0, .body = "x"});
        ask((struct ask){.fn = 1, .body = "y"});
    }
    TURN_UNTIL(rig.n_answered == 10 && rig.gateway.n_parked == 2);
    rig.fns[0].is_there = false;
    dv_async_fn_removed(rig.async, rig.fns[0].uid);
    ask((struct ask){.fn = 0, .body = "x"});
    TURN_UNTIL(rig.n_answered == 11);
    assert_int_equal(rig.codes[10], DV_NOT_FOUND);
    rig.gateway.parks_all = false;
    unpark(&rig.gateway, 200);
    TURN_UNTIL(backlog(1) == 0 && backlog(0) == 0);
    turn_for_ms(30);
    assert_int_equal(rig.gateway.n, 1 + 5);
    assert_int_equal(metric("davit_async_backlog{function=\"one.default\"} "), -1); /* and forgotten */
}

static void a_function_found_gone_loses_its_queue_without_being_told(void **state)
{
    (void)state;
    rig.gateway.statuses[0] = 503, rig.gateway.n_statuses = 1;
    ask((struct ask){.body = "x"});
    TURN_UNTIL(rig.gateway.n == 1);
    rig.fns[0].is_there = false;
    TURN_UNTIL(backlog(0) == 0);
    assert_int_equal(rig.gateway.n, 1);
}

static void a_deleted_function_leaves_no_series_behind(void **state)
{
    (void)state;
    stop_async();
    rig.cfg.sweep_ms = 20;
    start_async();
    ask((struct ask){.fn = 0, .body = "x", .callback = callback_url()});
    ask((struct ask){.fn = 1, .body = "x"});
    TURN_UNTIL(rig.callback.n == 1 && rig.gateway.n == 2 && backlog(0) + backlog(1) == 0);
    assert_int_equal(metric("davit_async_done_total{function=\"one.default\"} "), 1);
    rig.fns[0].is_there = false;
    TURN_UNTIL(metric("davit_async_done_total{function=\"one.default\"} ") == -1 &&
               metric("davit_async_callbacks_total{function=\"one.default\"} ") == -1);
    assert_int_equal(metric("davit_async_done_total{function=\"two.default\"} "), 1);
}

static int refused(struct ask q)
{
    int n = rig.n_answered;
    ask(q);
    assert_int_equal(rig.n_answered, n + 1);
    return rig.codes[n];
}

static void what_cannot_be_taken_is_refused_at_once(void **state)
{
    (void)state;
    stop_async();
    rig.cfg.backlog_max = 4;
    rig.cfg.held_bytes_max = 10 << 20;
    start_async();
    rig.fns[3].is_there = false;
    assert_int_equal(refused((struct ask){.fn = 3, .body = "x"}), DV_NOT_FOUND);
    assert_int_equal(refused((struct ask){.body = "x", .callback = "file:///etc/passwd"}), DV_INVALID);
    assert_int_equal(refused((struct ask){.body = "x", .callback = "http://x/\r\nEvil: 1"}), DV_INVALID);
    assert_int_equal(refused((struct ask){.body_n = DV_STORE_PAYLOAD_MAX}), DV_TOO_LARGE);
    assert_int_equal(refused((struct ask){.body_n = 11 << 20}), DV_NO_CAPACITY);
    rig.gateway.parks_all = true;
    for (int i = 0; i < 4; i++)
        ask((struct ask){.body = "x"});
    assert_int_equal(refused((struct ask){.body = "x"}), DV_QUOTA);
    TURN_UNTIL(rig.n_answered == 10);
    assert_int_equal(refused((struct ask){.body = "x"}), DV_QUOTA);
    ask((struct ask){.fn = 1, .body = "x"}); /* the others are not concerned */
    TURN_UNTIL(rig.n_answered == 12);
    assert_int_equal(rig.codes[11], DV_OK);
}

static void memory_held_does_not_follow_the_backlog(void **state)
{
    (void)state;
    stop_async();
    rig.cfg.held_bytes_max = 300000;
    start_async();
    enum { N = 120, BYTES = 20000 };
    rig.gateway.parks_all = true;
    for (int i = 0; i < N; i++) {
        ask((struct ask){.fn = i % 4, .body_n = BYTES});
        TURN_UNTIL(rig.n_answered == i + 1);
        assert_int_equal(rig.codes[i], DV_OK);
    }
    TURN_UNTIL(rig.gateway.n_parked >= 14);
    turn_for_ms(20);
    int64_t held = metric("davit_async_held_bytes ");
    assert_in_range(held, 14 * BYTES, 300000 + 33 * (BYTES + 200));
    assert_true(rig.gateway.n_parked < N / 2);
    rig.gateway.parks_all = false;
    unpark(&rig.gateway, 200);
    TURN_UNTIL(backlog(0) + backlog(1) + backlog(2) + backlog(3) == 0);
    assert_int_equal(rig.gateway.n, N);
    assert_int_equal(metric("davit_async_held_bytes "), 0);
}

static void a_gateway_that_is_not_there_is_tried_again(void **state)
{
    (void)state;
    dv_httpd_stop(rig.gateway.d);
    rig.gateway.d = NULL;
    (void)unlink(rig.sock);
    static struct dv_kv patient[] = {{NULL, "30"}, {NULL, "40ms"}, {NULL, "10ms"}};
    patient[0].k = k_attempts, patient[1].k = k_max, patient[2].k = k_min;
    rig.fns[0].annotations.v = patient;
    ask((struct ask){.body = "x"});
    TURN_UNTIL(metric("davit_async_retries_total{function=\"one.default\"} ") >= 2);
    start_gateway();
    TURN_UNTIL(rig.gateway.n == 1 && backlog(0) == 0);
}

static void stopping_with_everything_under_way_leaks_and_loses_nothing(void **state)
{
    (void)state;
    rig.gateway.parks_prefix = "/function/one.";
    for (int i = 0; i < 20; i++)
        ask((struct ask){.fn = i % 2, .body = "x", .callback = i % 3 ? NULL : callback_url()});
    TURN_UNTIL(rig.gateway.n_parked >= 2);
    for (int i = 0; i < 20; i++)
        ask((struct ask){.fn = i % 2, .body = "x"});
    dv_async_free(
        rig.async); /* with jobs at the store's thread, calls in flight, and others not yet started */
    assert_int_equal(rig.n_answered, 40); /* nobody is answered later */
    rig.async = NULL;
    stop_async();
    assert_int_equal(rig.n_answered, 40);
    for (int i = 0; i < 40; i++)
        assert_true(rig.codes[i] == DV_OK || rig.codes[i] == DV_CLOSED);
    start_async();
}

/* ---- across restarts ---- */

static void what_was_accepted_is_delivered_after_a_restart(void **state)
{
    (void)state;
    rig.gateway.parks_all = true;
    for (int i = 0; i < 6; i++)
        ask((struct ask){.fn = i % 2, .body = "x", .call_id = "id-r"});
    TURN_UNTIL(rig.n_answered == 6 &&
               rig.gateway.n_parked == 6); /* all leased to the process that now ends */
    stop_async();
    turn_for_ms(10);
    rig.gateway.parks_all = false;
    unpark(&rig.gateway, 200); /* nobody listens any more */
    int before = rig.gateway.n;
    start_async();
    TURN_UNTIL(rig.gateway.n == before + 6 && backlog(0) + backlog(1) == 0);
    assert_string_equal(rig.gateway.seen[before].call_id, "id-r");
    assert_string_equal(rig.gateway.seen[before].body, "x");
}

static void a_callback_not_yet_delivered_is_delivered_after_a_restart(void **state)
{
    (void)state;
    rig.callback.parks_all = true;
    ask((struct ask){.body = "x", .callback = callback_url()});
    TURN_UNTIL(rig.callback.n_parked == 1);
    stop_async();
    turn_for_ms(10);
    rig.callback.parks_all = false;
    unpark(&rig.callback, 200);
    rig.fns[0].is_there = false; /* callbacks outlive their function */
    start_async();
    TURN_UNTIL(rig.callback.n == 2);
    assert_string_equal(rig.callback.seen[1].status, "200");
    assert_int_equal(rig.gateway.n, 1);
}

static void work_of_a_function_deleted_meanwhile_is_dropped_at_the_start(void **state)
{
    (void)state;
    rig.gateway.parks_all = true;
    ask((struct ask){.fn = 0, .body = "x"});
    ask((struct ask){.fn = 1, .body = "y"});
    TURN_UNTIL(rig.gateway.n_parked == 2);
    stop_async();
    turn_for_ms(10);
    rig.gateway.parks_all = false;
    unpark(&rig.gateway, 200);
    rig.fns[0].is_there = false;
    start_async();
    TURN_UNTIL(rig.gateway.n == 3 && backlog(0) == 0 && backlog(1) == 0);
    assert_string_equal(rig.gateway.seen[2].body, "y");
    stop_async(); /* and it is gone from the store, too */
    rig.fns[0].is_there = true;
    start_async();
    turn_for_ms(30);
    assert_int_equal(rig.gateway.n, 3);
}

#define BOTH(test)                                                                                           \
    {#test " (memory)", test, set_up_memory, tear_down, NULL},                                               \
    {                                                                                                        \
#test " (sqlite)", test, set_up_sqlite, tear_down, NULL                                              \
    }
#define SQLITE_ONLY(test) cmocka_unit_test_setup_teardown(test, set_up_sqlite, tear_down)

int main(void)
{
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, STDERR_FILENO); /* the warnings are meant to be */
    const struct CMUnitTest tests[] = {
        BOTH(an_accepted_request_reaches_the_function_as_it_was_sent),
        BOTH(bodies_of_any_bytes_and_sizes_arrive_whole),
        BOTH(a_busy_function_is_tried_again_until_it_takes_the_request),
        BOTH(after_the_last_attempt_it_is_given_up),
        BOTH(a_failure_of_the_function_itself_is_not_repeated),
        SQLITE_ONLY(retry_after_is_obeyed),
        BOTH(the_callback_gets_the_functions_answer),
        SQLITE_ONLY(a_failing_callback_is_repeated_without_calling_the_function_again),
        BOTH(one_at_a_time_keeps_the_order_of_acceptance),
        BOTH(no_more_are_in_flight_than_the_function_can_hold),
        BOTH(functions_that_hang_do_not_hold_up_the_others),
        BOTH(a_deleted_functions_queue_is_dropped_and_no_other),
        BOTH(a_function_found_gone_loses_its_queue_without_being_told),
        BOTH(a_deleted_function_leaves_no_series_behind),
        BOTH(what_cannot_be_taken_is_refused_at_once),
        BOTH(memory_held_does_not_follow_the_backlog),
        BOTH(a_gateway_that_is_not_there_is_tried_again),
        BOTH(stopping_with_everything_under_way_leaks_and_loses_nothing),
        SQLITE_ONLY(what_was_accepted_is_delivered_after_a_restart),
        SQLITE_ONLY(a_callback_not_yet_delivered_is_delivered_after_a_restart),
        SQLITE_ONLY(work_of_a_function_deleted_meanwhile_is_dropped_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The API on the real rows: dv_control over a memory store, the HTTP server on a unix socket, libcurl as
 * client. The unit suites go through every corner with fakes; this one holds the fakes to the truth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <unistd.h>
#include "orchestrator/api/api_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/httpc.h"
#include "proto/rt/log.h"
#include "proto/rt/loop.h"

enum { PATIENCE = 2000, BODY_MAX = 64 * 1024 };

static struct rig {
    char dir[64], socket[96], key[96];
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_storer *storer;
    struct dv_seal *seal;
    struct dv_control *control;
    struct dv_api *api;
    struct dv_httpd *httpd;
    struct dv_httpc *client;
    bool is_loaded;
    /* the last answer */
    bool is_done;
    long status;
    char headers[2048];
    char body[64 * 1024];
} g;

/* ---------------------------------------------------------------- the rig */

static void on_loaded(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx, (void)err;
    assert_int_equal(code, DV_OK);
    g.is_loaded = true;
}

static void turn_until(const bool *what)
{
    for (int i = 0; i < PATIENCE && !*what; i++)
        assert_int_equal(dv_loop_turn(g.loop, 10), 0);
    assert_true(*what);
}

static void start_control(void)
{
    struct dv_store *store;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_store_memory_open(&store, &err), DV_OK);
    assert_int_equal(dv_storer_start(store, &g.storer, &err), DV_OK);
    assert_int_equal(dv_seal_open(g.key, &g.seal, &err), DV_OK);
    struct dv_control_cfg cfg = {.loop = g.loop,
                                 .mailbox = g.mailbox,
                                 .clock = &dv_clock_system,
                                 .storer = g.storer,
                                 .seal = g.seal,
                                 .seed = 1};
    assert_int_equal(dv_control_new(&cfg, on_loaded, NULL, &g.control, &err), DV_OK);
    turn_until(&g.is_loaded);
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof(g));
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, 2);
    (void)snprintf(g.dir, sizeof(g.dir), "/tmp/davit-test-XXXXXX");
    assert_non_null(mkdtemp(g.dir));
    (void)snprintf(g.socket, sizeof(g.socket), "%s/api.sock", g.dir);
    (void)snprintf(g.key, sizeof(g.key), "%s/seal.key", g.dir);
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_loop_new(&dv_clock_system, &g.loop, &err), DV_OK);
    assert_int_equal(dv_mailbox_new(g.loop, &g.mailbox, &err), DV_OK);
    start_control();
    struct dv_api_cfg cfg = {.control = g.control,
                             .clock = &dv_clock_system,
                             .user = "admin",
                             .password = "secret",
                             .join_token = "join-me"};
    assert_int_equal(dv_api_new(&cfg, &g.api, &err), DV_OK);
    struct dv_httpd_cfg http = {.unix_path = g.socket,
                                .body_max = BODY_MAX,
                                .on_request = dv_api_on_request,
                                .on_error = dv_api_on_error,
                                .ctx = g.api};
    assert_int_equal(dv_httpd_start(g.loop, &http, &g.httpd, &err), DV_OK);
    assert_int_equal(dv_httpc_new(g.loop, &g.client, &err), DV_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dv_httpc_free(g.client);
    dv_httpd_stop(g.httpd);
    dv_api_free(g.api);
    dv_control_free(g.control);
    dv_storer_stop(g.storer);
    dv_seal_free(g.seal);
    dv_mailbox_free(g.mailbox);
    dv_loop_free(g.loop);
    (void)unlink(g.key);
    (void)unlink(g.socket);
    return rmdir(g.dir);
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    (void)ctx;
    assert_int_equal(res->code, DV_OK);
    g.status = res->status;
    (void)snprintf(g.headers, sizeof(g.headers), "%.*s", (int)res->headers.n,
                   res->headers.p ? res->headers.p : "");
    (void)snprintf(g.body, sizeof(g.body), "%.*s", (int)res->body.n, res->body.p ? res->body.p : "");
    g.is_done = true;
}

static void send_with(const char *method, const char *target, struct dv_sv body, const char *bearer,
                      const char *header)
{
    char url[512];
    const char *headers[] = {header, NULL};
    struct dv_err err = DV_ERR_INIT;
    (void)snprintf(url, sizeof(url), "http://davit%s", target);
    struct dv_httpc_request r = {.method = method,
                                 .url = url,
                                 .unix_socket = g.socket,
                                 .body = body,
                                 .timeout_ms = 5000,
                                 .headers = header ? headers : NULL,
                                 .on_done = on_done};
    r.bearer = bearer;
    r.userpwd = bearer ? NULL : "admin:secret";
    g.is_done = false;
    assert_int_equal(dv_httpc_send(g.client, &r, NULL, &err), DV_OK);
    turn_until(&g.is_done);
}

/* Ask, and hold the answer to what is expected. */
static void ask(const char *method, const char *target, const char *body, long status, const char *part)
{
    send_with(method, target, dv_sv_c(body ? body : ""), NULL, NULL);
    if (g.status != status || (part && !strstr(g.body, part)))
        fail_msg("%s %s: %ld %s; wanted %ld %s", method, target, g.status, g.body, status, part ? part : "");
}

static void expect_field(const char *field)
{
    cJSON *o = cJSON_Parse(g.body);
    const cJSON *f = cJSON_GetObjectItem(o, "field");
    assert_string_equal(cJSON_IsString(f) ? f->valuestring : "", field);
    cJSON_Delete(o);
}

static bool has_header(const char *line)
{
    return strcasestr(g.headers, line) != NULL;
}

/* ---------------------------------------------------------------- the truth */

static void a_function_lives_and_dies(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", "{\"name\":\"hello\",\"image\":\"davit/hello\"}", 201,
        "\"phase\":\"asleep\"");
    assert_true(has_header("Location: /v1/functions/hello?namespace=default"));
    assert_true(has_header("ETag: \""));
    ask("POST", "/v1/functions", "{\"name\":\"hello\",\"image\":\"davit/hello\"}", 409,
        "\"code\":\"exists\"");
    ask("GET", "/v1/functions/hello", NULL, 200, "\"replicas\":[]");
    ask("PATCH", "/v1/functions/hello", "{\"env\":{\"A\":\"1\"},\"timeout\":\"5s\"}", 200,
        "\"queue_timeout\":\"5s\"");
    ask("PUT", "/v1/functions/hello", "{\"image\":\"davit/hello:2\"}", 200, "\"generation\":3");
    ask("GET", "/v1/functions?q=hel&limit=1", NULL, 200, "davit/hello:2");
    ask("PATCH", "/v1/functions/hello",
        "{\"limits\":{\"cpu\":\"1\"},\"scale\":{\"cpu\":70,\"window\":\"30s\",\"metrics\":[{\"name\":"
        "\"depth\",\"url\":"
        "\"http://127.0.0.1:1/m\",\"target\":2.5}],\"schedule\":[{\"cron\":\"0 8 * * "
        "1-5\",\"duration\":\"1h\",\"min\":2}]}}",
        200, "\"metrics\":[{\"name\":\"depth\",\"url\":\"http://127.0.0.1:1/m\",\"target\":2.5,");
    ask("GET", "/v1/functions/hello", NULL, 200,
        "\"schedule\":[{\"cron\":\"0 8 * * 1-5\",\"duration\":\"1h\",\"min\":2}]");
    ask("PATCH", "/v1/functions/hello",
        "{\"scale\":{\"metrics\":[{\"name\":\"depth\",\"url\":\"x\",\"target\":1}]}}", 400, NULL);
    expect_field("scale.metrics[0].url");
    ask("PATCH", "/v1/functions/hello",
        "{\"scale\":{\"schedule\":[{\"cron\":\"@daily\",\"duration\":\"1h\",\"min\":2,\"timezone\":\"No/"
        "Where\"}]}}",
        400, NULL);
    expect_field("scale.schedule[0].timezone");
    ask("PATCH", "/v1/functions/hello", "{\"limits\":null}", 400, NULL);
    expect_field("scale.cpu");
    ask("PATCH", "/v1/functions/hello",
        "{\"scale\":{\"cpu\":null,\"metrics\":null,\"schedule\":[]},\"limits\":null}", 200, NULL);
    ask("GET", "/v1/functions/hello/events", NULL, 200, "\"kind\":\"created\"");
    ask("GET", "/v1/functions/hello/decisions", NULL, 200, "\"decisions\":[");
    ask("GET", "/v1/functions/nobody/decisions", NULL, 404, "nobody");
    ask("POST", "/v1/functions/hello/scale", "{\"replicas\":3}", 200, "\"override\":3");
    ask("GET", "/v1/functions/hello/decisions", NULL, 200, "\"to\":3,\"signal\":\"pinned\"");
    ask("POST", "/v1/functions/hello/scale", "{\"replicas\":21}", 400, NULL);
    expect_field("replicas");
    ask("POST", "/v1/functions/hello/scale", "{\"replicas\":null}", 200, NULL);
    ask("DELETE", "/v1/functions/hello", NULL, 204, NULL);
    ask("GET", "/v1/functions/hello", NULL, 404, "no function");
    ask("DELETE", "/v1/functions/hello", NULL, 404, NULL);
}

static void etags_guard_writes(void **state)
{
    (void)state;
    char etag[64], line[96];
    ask("POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"i\"}", 201, NULL);
    const char *at = strcasestr(g.headers, "ETag: ");
    assert_non_null(at);
    (void)snprintf(etag, sizeof(etag), "%.*s", (int)strcspn(at + 6, "\r\n"), at + 6);
    (void)snprintf(line, sizeof(line), "If-Match: %s", etag);
    send_with("PUT", "/v1/functions/a", DV_SV("{\"image\":\"j\"}"), NULL, line);
    assert_int_equal(g.status, 200);
    static const char *const methods[] = {"PUT", "PATCH", "DELETE"};
    for (size_t i = 0; i < DV_COUNT(methods); i++) {
        send_with(methods[i], "/v1/functions/a", DV_SV("{\"image\":\"k\"}"), NULL, line);
        assert_int_equal(g.status, 412);
    }
    ask("GET", "/v1/functions/a", NULL, 200, "\"image\":\"j\"");
}

static void apply_names_the_function_at_fault_and_keeps_none(void **state)
{
    (void)state;
    ask("POST", "/v1/apply",
        "{\"functions\":[{\"name\":\"a\",\"image\":\"i\"},{\"name\":\"b\",\"image\":\"i\",\"secrets\":[\"s\"]"
        "}]}",
        400, NULL);
    expect_field("functions[1].secrets[0]");
    ask("POST", "/v1/apply", "{\"functions\":[{\"name\":\"a\",\"image\":\"i\",\"namespace\":\"nope\"}]}", 400,
        NULL);
    expect_field("functions[0].namespace");
    ask("POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"i\",\"secrets\":[\"s\"]}", 400, NULL);
    expect_field("secrets[0]");
    ask("GET", "/v1/functions", NULL, 200, "{\"functions\":[]}");
    ask("POST", "/v1/apply?dry_run=true", "{\"functions\":[{\"name\":\"a\",\"image\":\"i\"}]}", 200,
        "\"dry_run\":true");
    ask("GET", "/v1/functions", NULL, 200, "{\"functions\":[]}");
    ask("POST", "/v1/apply",
        "{\"functions\":[{\"name\":\"a\",\"image\":\"i\"},{\"name\":\"b\",\"image\":\"i\"}]}", 200,
        "\"name\":\"b\"");
}

static void pages_go_on_where_they_ended(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        char body[80];
        (void)snprintf(body, sizeof(body), "{\"name\":\"f%d\",\"image\":\"i\"}", i);
        ask("POST", "/v1/functions", body, 201, NULL);
    }
    ask("GET", "/v1/functions?limit=2", NULL, 200, "\"next\":\"default/f1\"");
    ask("GET", "/v1/functions?limit=2&after=default%2Ff1", NULL, 200, "\"next\":\"default/f3\"");
    ask("GET", "/v1/functions?limit=2&after=default/f3", NULL, 200, "\"name\":\"f4\"");
    assert_null(strstr(g.body, "next"));
}

static void secrets_and_namespaces_and_registries(void **state)
{
    (void)state;
    ask("POST", "/v1/namespaces", "{\"name\":\"prod\",\"labels\":{\"a\":\"b\"}}", 201,
        "\"labels\":{\"a\":\"b\"}");
    ask("POST", "/v1/namespaces", "{\"name\":\"prod\"}", 409, NULL);
    ask("PUT", "/v1/secrets/db?namespace=prod", "{\"value\":\"x\"}", 404, NULL);
    ask("POST", "/v1/secrets?namespace=prod", "{\"name\":\"db\",\"value\":\"hunter2\"}", 201, NULL);
    ask("POST", "/v1/secrets/db?namespace=prod", "{\"value_base64\":\"AAE=\"}", 409, NULL);
    ask("PUT", "/v1/secrets/db?namespace=prod", "{\"value_base64\":\"AAE=\"}", 200, NULL);
    ask("GET", "/v1/secrets", NULL, 200, "{\"name\":\"db\",\"namespace\":\"prod\"");
    ask("DELETE", "/v1/namespaces/prod", NULL, 409, NULL);
    ask("POST", "/v1/functions?namespace=prod", "{\"name\":\"f\",\"image\":\"i\",\"secrets\":[\"db\"]}", 201,
        NULL);
    ask("DELETE", "/v1/secrets/db?namespace=prod", NULL, 204, NULL);
    ask("DELETE", "/v1/secrets/db?namespace=prod", NULL, 404, NULL);
    ask("DELETE", "/v1/functions/f?namespace=prod", NULL, 204, NULL);
    ask("DELETE", "/v1/namespaces/prod", NULL, 204, NULL);
    ask("GET", "/v1/namespaces", NULL, 200, "\"name\":\"default\"");
    ask("DELETE", "/v1/namespaces/prod", NULL, 404, NULL);
    ask("PUT", "/v1/registries/ghcr.io", "{\"username\":\"u\",\"password\":\"hunter2\"}", 200, NULL);
    ask("GET", "/v1/registries", NULL, 200, "{\"registries\":[{\"server\":\"ghcr.io\",\"username\":\"u\"}]}");
    ask("DELETE", "/v1/registries/ghcr.io", NULL, 204, NULL);
    ask("GET", "/v1/registries", NULL, 200, "{\"registries\":[]}");
    ask("DELETE", "/v1/registries/ghcr.io", NULL, 404, NULL);
}

static void a_node_joins_with_the_token_and_is_shown(void **state)
{
    (void)state;
    struct dv_sv join = DV_SV("{\"name\":\"n1\",\"incarnation\":\"0000000000000001\",\"address\":\"127.0.0.1:"
                              "1\",\"version\":\"t\"}");
    send_with("POST", "/v1/nodes/join", join, "wrong", NULL);
    assert_int_equal(g.status, 401);
    assert_true(has_header("WWW-Authenticate: Bearer"));
    send_with("POST", "/v1/nodes/join", join, "join-me", NULL);
    assert_int_equal(g.status, 200);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_join_reply reply;
    assert_int_equal(dv_wire_decode(&dv_type_join_reply, dv_sv_c(g.body), 4096, 0, &arena, &reply, NULL),
                     DV_OK);
    ask("GET", "/v1/nodes", NULL, 200, "\"name\":\"n1\"");
    assert_null(strstr(g.body, reply.key));
    ask("GET", "/v1/nodes/n1", NULL, 200, "\"state\":\"");
    ask("POST", "/v1/nodes/n1/cordon", NULL, 200, "\"is_cordoned\":true");
    ask("POST", "/v1/nodes/n1/uncordon", NULL, 200, "\"is_cordoned\":false");
    ask("POST", "/v1/nodes/n2/cordon", NULL, 404, NULL);
    ask("DELETE", "/v1/nodes/n1?force=perhaps", NULL, 400, "force");
    ask("DELETE", "/v1/nodes/n1?force=true", NULL, 204, NULL);
    ask("DELETE", "/v1/nodes/n1", NULL, 404, NULL);
    ask("GET", "/v1/nodes", NULL, 200, "{\"nodes\":[]}");
}

static void logs_of_a_cluster_without_nodes_end_at_once(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"i\"}", 201, NULL);
    ask("GET", "/v1/functions/a/logs?follow=true", NULL, 200, NULL);
    assert_string_equal(g.body, "");
    assert_true(has_header("Content-Type: application/x-ndjson"));
}

static void openfaas_clients_find_what_they_sent(void **state)
{
    (void)state;
    ask("PUT", "/system/functions", "{\"service\":\"figlet\",\"image\":\"i\"}", 404, "figlet");
    ask("POST", "/system/functions",
        "{\"service\":\"figlet\",\"image\":\"i\",\"namespace\":\"openfaas-fn\",\"envProcess\":\"figlet\","
        "\"labels\":{\"a\":\"b\"}}",
        202, NULL);
    ask("GET", "/system/functions", NULL, 200,
        "\"namespace\":\"openfaas-fn\",\"envProcess\":\"figlet\",\"labels\":{\"a\":\"b\"}");
    ask("POST", "/system/scale-function/figlet", "{\"serviceName\":\"figlet\",\"replicas\":2}", 202, NULL);
    ask("GET", "/system/function/figlet?usage=1", NULL, 200, "\"replicas\":2");
    ask("POST", "/system/functions", "{\"service\":\"b\",\"image\":\"i\",\"secrets\":[\"nope\"]}", 400,
        "secret \"nope\" does not exist");
    ask("POST", "/system/secrets", "{\"name\":\"s\",\"value\":\"x\"}", 202, NULL);
    ask("POST", "/system/secrets", "{\"name\":\"s\",\"value\":\"x\"}", 409, NULL);
    ask("DELETE", "/system/secrets", "{\"name\":\"s\"}", 202, NULL);
    ask("POST", "/system/namespace/", "{\"name\":\"dev\"}", 201, NULL);
    ask("GET", "/system/namespaces", NULL, 200, "\"openfaas-fn\"");
    ask("DELETE", "/system/namespace/dev", NULL, 202, NULL);
    ask("DELETE", "/system/functions", "{\"functionName\":\"figlet\"}", 202, NULL);
    ask("DELETE", "/system/functions", "{\"functionName\":\"figlet\"}", 404, NULL);
    ask("GET", "/", NULL, 307, NULL);
    assert_true(has_header("Location: /ui/"));
    ask("GET", "/ui/", NULL, 200, "Davit");
}

static void bad_requests_get_problems_from_the_server_too(void **state)
{
    (void)state;
    static char large[BODY_MAX + 100];
    memset(large, 'x', sizeof(large));
    send_with("POST", "/v1/functions", dv_sv(large, sizeof(large)), NULL, NULL);
    assert_int_equal(g.status, 413);
    assert_non_null(strstr(g.body, "\"status\":413"));
    assert_true(has_header("application/problem+json"));
    send_with("GET", "/v1/functions", DV_SV(""), "wrong", NULL);
    assert_int_equal(g.status, 401);
    assert_true(has_header("WWW-Authenticate: Basic"));
    ask("POST", "/v1/nodes", "{}", 405, "GET");
    assert_true(has_header("Allow: GET, HEAD"));
    ask("GET", "/readyz", NULL, 503, "\"ready\":false");
    ask("GET", "/v1/version", NULL, 200, "\"version\":\"" DAVIT_VERSION "\"");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_function_lives_and_dies),
        T(etags_guard_writes),
        T(apply_names_the_function_at_fault_and_keeps_none),
        T(pages_go_on_where_they_ended),
        T(secrets_and_namespaces_and_registries),
        T(a_node_joins_with_the_token_and_is_shown),
        T(logs_of_a_cluster_without_nodes_end_at_once),
        T(openfaas_clients_find_what_they_sent),
        T(bad_requests_get_problems_from_the_server_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

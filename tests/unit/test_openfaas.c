/* OpenFaaS's face: what its CLI sends and what it takes for success; against a dv_control in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/api_world.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_deinit(&w);
    return 0;
}

static struct dv_http_req *ask(const char *method, const char *target, const char *body)
{
    static struct dv_http_req r;
    world_free(&r);
    world_request(&r, method, target, body);
    world_header(&r, "Authorization", "Basic YWRtaW46c2VjcmV0");
    dv_api_on_request(w.api, &r);
    world_commit(&w);
    assert_true(r.is_answered);
    if (r.status >= 400)
        assert_string_equal(r.type, "text/plain; charset=utf-8");
    return &r;
}

static void expect(struct dv_http_req *r, int status, const char *part)
{
    const char *text = dv_buf_cstr(&r->out);
    if (r->status != status || (part && !strstr(text, part)))
        fail_msg("%s %s: %d %s; wanted %d %s", r->method, r->path, r->status, text, status, part ? part : "");
}

static const struct dv_fn_spec *kept(const char *name)
{
    const struct dv_function *fn = dv_control_fn_find(&w.control, DV_SV("default"), dv_sv_c(name));
    assert_non_null(fn);
    return &fn->spec;
}

/* ---------------------------------------------------------------- functions */

static void what_was_deployed_comes_back_as_it_was_sent(void **state)
{
    (void)state;
    ask("POST", "/system/secrets", "{\"name\":\"db\",\"value\":\"x\"}");
    const char *sent =
        "{\"service\":\"figlet\",\"image\":\"ghcr.io/openfaas/figlet:latest\",\"namespace\":\"openfaas-fn\","
        "\"envProcess\":\"figlet -w 80\",\"envVars\":{\"write_debug\":\"true\"},\"constraints\":[\"zone=a\"],"
        "\"secrets\":[\"db\"],\"labels\":{\"com.openfaas.scale.max\":\"3\",\"team\":\"x\"},"
        "\"annotations\":{\"topic\":\"a,b\"},\"limits\":{\"memory\":\"128Mi\",\"cpu\":\"100m\"},"
        "\"requests\":{\"memory\":\"1G\"},\"readOnlyRootFilesystem\":true,\"network\":\"old\","
        "\"registryAuth\":\"\"}";
    const char *too_large = "requests.memory (1000000000) must not be above limits.memory (128Mi)";
    expect(ask("POST", "/system/functions", sent), 400, too_large);
    const char *good =
        "{\"service\":\"figlet\",\"image\":\"ghcr.io/openfaas/figlet:latest\",\"namespace\":\"openfaas-fn\","
        "\"envProcess\":\"figlet -w 80\",\"envVars\":{\"write_debug\":\"true\"},\"constraints\":[\"zone=a\"],"
        "\"secrets\":[\"db\"],\"labels\":{\"com.openfaas.scale.max\":\"3\",\"team\":\"x\"},"
        "\"annotations\":{\"topic\":\"a,b\"},\"limits\":{\"memory\":\"2G\",\"cpu\":\"100m\"},"
        "\"requests\":{\"memory\":\"1G\"},\"readOnlyRootFilesystem\":true,\"network\":\"old\","
        "\"registryAuth\":\"\"}";
    struct dv_http_req *r = ask("POST", "/system/functions", good);
    expect(r, 202, NULL);
    assert_int_equal(dv_buf_len(&r->out), 0);
    expect(
        ask("GET", "/system/function/figlet", NULL), 200,
        "{\"name\":\"figlet\",\"image\":\"ghcr.io/openfaas/figlet:latest\",\"namespace\":\"openfaas-fn\","
        "\"envProcess\":\"figlet -w 80\",\"envVars\":{\"write_debug\":\"true\"},\"constraints\":[\"zone=a\"],"
        "\"secrets\":[\"db\"],\"labels\":{\"com.openfaas.scale.max\":\"3\",\"team\":\"x\"},\"annotations\":{"
        "\"topic\":\"a,b\"},"
        "\"limits\":{\"memory\":\"2G\",\"cpu\":\"100m\"},\"requests\":{\"memory\":\"1G\"},"
        "\"readOnlyRootFilesystem\":true,"
        "\"invocationCount\":7,\"replicas\":1,\"availableReplicas\":1,\"createdAt\":\"");
}

static void a_short_deployment_shows_nothing_that_was_not_sent(void **state)
{
    (void)state;
    expect(ask("PUT", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}"), 404, NULL);
    expect(ask("POST", "/system/functions",
               "{\"service\":\"a\",\"image\":\"i\",\"labels\":null,\"annotations\":null}"),
           202, NULL);
    expect(ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}"), 409, "exists");
    struct dv_http_req *r = ask("GET", "/system/functions", NULL);
    expect(
        r, 200,
        "[{\"name\":\"a\",\"image\":\"i\",\"namespace\":\"openfaas-fn\",\"labels\":{},\"annotations\":{},");
    static const char *const absent[] = {"env",         "limits",   "requests", "secrets",
                                         "constraints", "readOnly", "usage"};
    for (size_t i = 0; i < DV_COUNT(absent); i++)
        assert_null(strstr(dv_buf_cstr(&r->out), absent[i]));
    expect(ask("PUT", "/system/functions", "{\"service\":\"a\",\"image\":\"j\"}"), 202, NULL);
    assert_string_equal(kept("a")->image, "j");
}

static void scaling_follows_the_labels_and_zero_is_opt_in(void **state)
{
    (void)state;
    static const struct {
        const char *labels;
        int64_t min, max, idle_ms;
    } rows[] = {
        {"{}", 1, 20, 0},
        {"{\"com.openfaas.scale.min\":\"2\",\"com.openfaas.scale.max\":\"4\"}", 2, 4, 0},
        {"{\"com.openfaas.scale.min\":\"30\"}", 30, 30, 0},
        {"{\"com.openfaas.scale.min\":\"0\"}", 1, 20, 0},
        {"{\"com.openfaas.scale.zero\":\"true\"}", 0, 20, 900000},
        {"{\"com.openfaas.scale.zero\":\"true\",\"com.openfaas.scale.zero-duration\":\"5m\"}", 0, 20, 300000},
        {"{\"com.openfaas.scale.zero\":\"false\",\"com.openfaas.scale.zero-duration\":\"5m\"}", 1, 20, 0},
    };
    /* 0: nothing was said, the cluster's default counts */
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        char body[300];
        (void)snprintf(body, sizeof(body), "{\"service\":\"a\",\"image\":\"i\",\"labels\":%s}",
                       rows[i].labels);
        expect(ask("PUT", "/system/functions", body), 202, NULL);
        assert_int_equal(kept("a")->scale.min, rows[i].min);
        assert_int_equal(kept("a")->scale.max, rows[i].max);
        assert_int_equal(kept("a")->scale.idle_ms, rows[i].idle_ms);
    }
}

#define TYPE(type) "\"com.openfaas.scale.type\":\"" type "\""
#define TARGET(n)  "\"com.openfaas.scale.target\":\"" n "\""
#define PART(x)    "\"com.openfaas.scale.target-proportion\":\"" x "\""

static void the_labels_of_type_and_target_say_what_one_replica_carries(void **state)
{
    (void)state;
    static const struct {
        const char *labels, *env;
        int64_t concurrency, target, rps;
    } rows[] = {
        {"", "", 100, 70, 5}, /* nothing was said: in-flight, and where the community edition's alert fires */
        {TARGET("20"), "", 100, 70, 18},
        {TYPE("rps"), "", 100, 70, 45},
        {TYPE("rps") "," TARGET("10") "," PART("0.5"), "", 100, 70, 5},
        {TYPE("rps") "," TARGET("1"), "", 100, 70, 1},
        {TYPE("rps") "," TARGET("9000000"), "", 100, 70, 1000000},
        {TYPE("capacity"), "", 100, 45, 0},
        {TYPE("capacity") "," TARGET("50"), "", 100, 45, 0},
        {TYPE("capacity") "," TARGET("400"), "", 360, 360, 0},
        {TYPE("capacity") "," TARGET("90000"), "", 10000, 10000, 0},
        {TYPE("capacity") "," TARGET("1"), "", 100, 1, 0},
        {TYPE("capacity") "," TARGET("10") "," PART("0.7"), "", 100, 7, 0},
        {"", "10", 10, 7, 5},
        {TYPE("capacity") "," TARGET("50"), "10", 10, 10, 0},
        {TYPE("cpu") "," TARGET("500"), "", 100, 70, 0},
    };
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        char body[400];
        (void)snprintf(
            body, sizeof(body),
            "{\"service\":\"a\",\"image\":\"i\",\"labels\":{%s},\"envVars\":{\"max_inflight\":\"%s\"}}",
            rows[i].labels, rows[i].env);
        expect(ask("PUT", "/system/functions", body), 202, NULL);
        const struct dv_scale *s = &kept("a")->scale;
        if (s->concurrency != rows[i].concurrency || s->target != rows[i].target || s->rps != rows[i].rps)
            fail_msg("%s: %d %d %d", body, (int)s->concurrency, (int)s->target, (int)s->rps);
    }
}

static void a_type_that_is_not_measured_is_said_to_be_steered_by_requests(void **state)
{
    (void)state;
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\",\"labels\":{" TYPE("cpu") "}}");
    assert_string_equal(w.control.note,
                        "scaling type \"cpu\" is steered by requests in flight: no metrics of "
                        "that kind are collected");
    expect(ask("GET", "/system/function/a", NULL), 200, "\"labels\":{" TYPE("cpu") "}");
    static const char *const measured[] = {"", TYPE("rps"), TYPE("capacity"), TYPE("")};
    for (size_t i = 0; i < DV_COUNT(measured); i++) {
        char body[200];
        (void)snprintf(body, sizeof(body), "{\"service\":\"a\",\"image\":\"i\",\"labels\":{%s}}",
                       measured[i]);
        expect(ask("PUT", "/system/functions", body), 202, NULL);
        assert_string_equal(w.control.note, "");
    }
}

static void what_may_sleep_begins_awake(void **state)
{
    (void)state;
    static const struct {
        const char *labels;
        int64_t min, begin_with;
    } rows[] = {{"{}", 1, 1},
                {"{\"com.openfaas.scale.zero\":\"true\"}", 0, 1},
                {"{\"com.openfaas.scale.zero\":\"true\",\"com.openfaas.scale.min\":\"3\"}", 0, 3},
                {"{\"com.openfaas.scale.zero\":\"true\",\"com.openfaas.scale.min\":\"0\"}", 0, 1}};
    char body[256];
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        (void)snprintf(body, sizeof(body), "{\"service\":\"a\",\"image\":\"i\",\"labels\":%s}",
                       rows[i].labels);
        expect(ask(i ? "PUT" : "POST", "/system/functions", body), 202, NULL);
        assert_int_equal(kept("a")->scale.min, rows[i].min);
        assert_int_equal(w.control.begin_with, rows[i].begin_with);
    }
}

static void limits_and_requests_come_back_exactly_when_they_were_sent(void **state)
{
    (void)state;
    static const char *const sent[] = {
        ("\"limits\":{\"memory\":\"128Mi\",\"cpu\":\"100m\"},\"requests\":{\"memory\":\"128Mi\",\"cpu\":"
         "\"100m\"}"),
        "\"limits\":{\"memory\":\"128Mi\"},\"requests\":{\"memory\":\"64Mi\"}",
        "\"requests\":{\"memory\":\"64Mi\",\"cpu\":\"50m\"}",
        "\"requests\":{\"cpu\":\"50m\"}",
        "\"limits\":{\"cpu\":\"20m\"}",
    };
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    for (size_t i = 0; i < DV_COUNT(sent); i++) {
        char body[300], shown[300];
        (void)snprintf(body, sizeof(body), "{\"service\":\"a\",\"image\":\"i\",%s}", sent[i]);
        (void)snprintf(shown, sizeof(shown), "\"annotations\":{},%s,\"invocationCount\"", sent[i]);
        expect(ask("PUT", "/system/functions", body), 202, NULL);
        expect(ask("GET", "/system/function/a", NULL), 200, shown);
    }
    expect(ask("PUT", "/system/functions",
               "{\"service\":\"a\",\"image\":\"i\",\"limits\":{\"cpu\":\"20m\"},\"requests\":{\"cpu\":"
               "\"50m\"}}"),
           400, "requests.cpu (50m) must not be above limits.cpu (20m)");
}

static void annotations_and_environment_set_health_and_time(void **state)
{
    (void)state;
    expect(ask("POST", "/system/functions",
               "{\"service\":\"a\",\"image\":\"i\",\"envVars\":{\"exec_timeout\":\"5m\"},\"annotations\":{"
               "\"com.openfaas.health.http.path\":\"/h\",\"com.openfaas.ready.http.path\":\"/"
               "r\",\"com.openfaas.health.http.timeoutSeconds\":\"3\"}}"),
           202, NULL);
    assert_string_equal(kept("a")->health.path, "/r");
    assert_int_equal(kept("a")->health.timeout_ms, 3000);
    assert_int_equal(kept("a")->timeout_ms, 300000);
    assert_false(kept("a")->read_only);
    assert_string_equal(kept("a")->face, "openfaas");
    expect(ask("PUT", "/system/functions",
               "{\"service\":\"a\",\"image\":\"i\",\"constraints\":[\"zone == a\",\"arch != arm\"]}"),
           202, NULL);
    assert_string_equal(kept("a")->constraints.v[0], "zone == a");
    assert_string_equal(kept("a")->constraints.v[1], "arch != arm");
    assert_null(kept("a")->health.path);
}

static void a_bad_deployment_is_refused_in_its_own_words(void **state)
{
    (void)state;
    static const struct {
        const char *body, *why;
    } rows[] = {
        {"{", "not valid JSON"},
        {"[]", "must be a JSON object"},
        {"{\"image\":\"i\"}", "service: must be given"},
        {"{\"service\":\"a\"}", "image: must be given"},
        {"{\"service\":\"A_b\",\"image\":\"i\"}", "service: must be a name"},
        {"{\"service\":\"a\",\"image\":\"\"}", "image: must not be empty"},
        {"{\"service\":\"a\",\"image\":\"i\",\"envVars\":{\"N\":1}}", "envVars.N: must be a string"},
        {"{\"service\":\"a\",\"image\":\"i\",\"envVars\":[]}", "envVars: must be an object"},
        {"{\"service\":\"a\",\"image\":\"i\",\"readOnlyRootFilesystem\":\"yes\"}",
         "readOnlyRootFilesystem: must be true or false"},
        {"{\"service\":\"a\",\"image\":\"i\",\"secrets\":[\"nope\"]}", "secret does not exist"},
        {"{\"service\":\"a\",\"image\":\"i\",\"limits\":{\"memory\":\"lots\"}}", "limits.memory: must be"},
        {"{\"service\":\"a\",\"image\":\"i\",\"namespace\":\"nope\"}", "namespace does not exist"},
        {"{\"service\":\"a\",\"image\":\"i\",\"namespace\":7}", "namespace: must be a string"},
        {"{\"service\":\"a\",\"image\":\"i\",\"labels\":{\"com.openfaas.scale.min\":\"x\"}}",
         "com.openfaas.scale.min must be a number"},
        {"{\"service\":\"a\",\"image\":\"i\",\"labels\":{\"com.openfaas.scale.min\":\"5\",\"com.openfaas."
         "scale.max\":\"2\"}}",
         "scale.min"},
        {"{\"service\":\"a\",\"image\":\"i\",\"labels\":{\"com.openfaas.scale.zero\":\"true\",\"com.openfaas."
         "scale.zero-duration\":\"x\"}}",
         "duration"},
        {"{\"service\":\"a\",\"image\":\"i\",\"labels\":{\"com.openfaas.scale.target-proportion\":\"7\"}}",
         "at most 1"},
        {"{\"service\":\"a\",\"image\":\"i\",\"labels\":[]}", "labels: must be an object"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        expect(ask("POST", "/system/functions", rows[i].body), 400, rows[i].why);
}

static void a_function_is_found_by_either_name_of_its_namespace(void **state)
{
    (void)state;
    ask("POST", "/system/namespace/", "{\"name\":\"prod\"}");
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    ask("POST", "/system/functions", "{\"service\":\"b\",\"image\":\"i\",\"namespace\":\"prod\"}");
    static const struct {
        const char *target;
        int status;
    } rows[] = {
        {"/system/function/a", 200},
        {"/system/function/a.openfaas-fn", 200},
        {"/system/function/a.default", 200},
        {"/system/function/a?namespace=openfaas-fn", 200},
        {"/system/function/a?namespace=prod", 404},
        {"/system/function/b", 404},
        {"/system/function/b.prod", 200},
        {"/system/function/b?namespace=prod", 200},
        {"/system/function/nope", 404},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        expect(ask("GET", rows[i].target, NULL), rows[i].status, NULL);
    expect(ask("GET", "/system/functions?namespace=prod", NULL), 200, "[{\"name\":\"b\"");
    expect(ask("GET", "/system/function/a?usage=1", NULL), 200,
           "\"usage\":{\"cpu\":500.000,\"totalMemoryBytes\":1024}");
}

static void deleting_and_scaling_take_the_namespace_from_body_or_query(void **state)
{
    (void)state;
    ask("POST", "/system/namespace/", "{\"name\":\"prod\"}");
    ask("POST", "/system/functions", "{\"service\":\"b\",\"image\":\"i\",\"namespace\":\"prod\"}");
    expect(ask("POST", "/system/scale-function/b", "{\"serviceName\":\"b\",\"replicas\":2}"), 404, NULL);
    expect(ask("POST", "/system/scale-function/b",
               "{\"serviceName\":\"b\",\"replicas\":2,\"namespace\":\"prod\"}"),
           202, NULL);
    expect(ask("GET", "/system/function/b.prod", NULL), 200, "\"replicas\":2");
    expect(ask("POST", "/system/scale-function/b?namespace=prod", "{\"replicas\":99}"), 202, NULL);
    expect(ask("GET", "/system/function/b.prod", NULL), 200, "\"replicas\":20");
    expect(ask("POST", "/system/scale-function/b.prod", "{\"replicas\":-1}"), 400, "from 0");
    expect(ask("POST", "/system/scale-function/b.prod", "{\"replicas\":0}"), 202, NULL);
    struct dv_http_req *r = ask("GET", "/system/function/b.prod", NULL);
    assert_null(strstr(dv_buf_cstr(&r->out), "\"replicas\""));
    expect(ask("DELETE", "/system/functions", "{\"functionName\":\"b\"}"), 404, NULL);
    expect(ask("DELETE", "/system/functions", "{}"), 400, "missing");
    expect(ask("DELETE", "/system/functions?namespace=prod", "{\"functionName\":\"b\"}"), 202, NULL);
    expect(ask("GET", "/system/function/b.prod", NULL), 404, NULL);
}

static void scaling_sets_a_number_and_pins_nothing(void **state)
{
    (void)state;
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    expect(ask("POST", "/system/scale-function/a", "{\"replicas\":4}"), 202, NULL);
    assert_int_equal(dv_control_fn_find(&w.control, DV_SV("default"), DV_SV("a"))->desired_override, -1);
    expect(ask("GET", "/system/function/a", NULL), 200, "\"replicas\":4");
    expect(ask("POST", "/system/scale-function/a", "{\"replicas\":0}"), 202, NULL);
    assert_int_equal(dv_control_fn_find(&w.control, DV_SV("default"), DV_SV("a"))->desired_override, 0);
}

/* ---------------------------------------------------------------- the rest */

static void secrets_answer_202_and_never_show_a_value(void **state)
{
    (void)state;
    expect(ask("POST", "/system/secrets",
               "{\"name\":\"s\",\"value\":\"hunter2\",\"rawValue\":\"aHVudGVyMg==\"}"),
           202, NULL);
    expect(ask("POST", "/system/secrets", "{\"name\":\"s\",\"value\":\"x\"}"), 409, NULL);
    expect(ask("PUT", "/system/secrets", "{\"name\":\"s\",\"value\":\"x\"}"), 202, NULL);
    expect(ask("PUT", "/system/secrets", "{\"name\":\"t\",\"value\":\"x\"}"), 404, NULL);
    expect(ask("GET", "/system/secrets?namespace=openfaas-fn", NULL), 200,
           "[{\"name\":\"s\",\"namespace\":\"openfaas-fn\"}]");
    expect(ask("POST", "/system/secrets", "{\"name\":\"u\",\"rawValue\":\"***\"}"), 400, "base64");
    expect(ask("POST", "/system/secrets", "{\"value\":\"x\"}"), 400, "name");
    expect(ask("DELETE", "/system/secrets", "{\"name\":\"s\"}"), 202, NULL);
    expect(ask("DELETE", "/system/secrets", "{\"name\":\"nope\"}"), 404, NULL);
    expect(ask("DELETE", "/system/secrets", "{}"), 400, NULL);
}

static void the_raw_value_of_a_secret_wins(void **state)
{
    (void)state;
    struct dv_http_req r;
    world_request(&r, "POST", "/system/secrets",
                  "{\"name\":\"s\",\"value\":\"trimmed\",\"rawValue\":\"cmF3\"}");
    world_header(&r, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &r);
    assert_string_equal(w.control.pending[0].value, "raw");
    world_commit(&w);
    assert_int_equal(r.status, 202);
    world_free(&r);
}

/* As faas-cli sends a file that is no text; a value that ends in an escaped backslash and "u0000" is text. */
static void a_secret_of_any_bytes_comes_as_its_raw_value(void **state)
{
    (void)state;
    struct dv_http_req r;
    world_request(&r, "POST", "/system/secrets",
                  "{\"name\":\"s\",\"value\":\"\\u0000\\u0000z\",\"rawValue\":\"cmF3\"}");
    world_header(&r, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &r);
    assert_string_equal(w.control.pending[0].value, "raw");
    world_commit(&w);
    assert_int_equal(r.status, 202);
    world_free(&r);
    world_request(&r, "PUT", "/system/secrets", "{\"name\":\"s\",\"value\":\"a\\\\u0000\"}");
    world_header(&r, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &r);
    assert_string_equal(w.control.pending[0].value, "a\\u0000");
    world_commit(&w);
    assert_int_equal(r.status, 202);
    world_free(&r);
    expect(ask("PUT", "/system/secrets", "{\"name\":\"s\",\"value\":\"a\\u0000\"}"), 400, "rawValue");
    expect(ask("PUT", "/system/secrets", "{\"name\":\"s\\u0000\",\"rawValue\":\"cmF3\"}"), 400, "name");
    expect(ask("PUT", "/system/secrets", "[]"), 400, "object");
    expect(ask("PUT", "/system/secrets", ""), 400, NULL);
}

static void namespaces_are_managed_as_the_cli_does_it(void **state)
{
    (void)state;
    expect(ask("GET", "/system/namespaces", NULL), 200, "[\"openfaas-fn\"]");
    expect(ask("POST", "/system/namespace/", "{\"name\":\"prod\",\"annotations\":{\"openfaas\":\"1\"}}"), 201,
           NULL);
    expect(ask("POST", "/system/namespace/prod", "{\"name\":\"prod\"}"), 409, NULL);
    expect(ask("POST", "/system/namespace/", "{}"), 400, "name");
    expect(ask("GET", "/system/namespaces", NULL), 200, "[\"openfaas-fn\",\"prod\"]");
    expect(ask("GET", "/system/namespace/prod", NULL), 200,
           "{\"name\":\"prod\",\"annotations\":{},\"labels\":{}}");
    expect(ask("GET", "/system/namespace/openfaas-fn", NULL), 200, "{\"name\":\"openfaas-fn\"");
    expect(ask("GET", "/system/namespace/nope", NULL), 404, NULL);
    expect(ask("PUT", "/system/namespace/prod", "{\"name\":\"prod\",\"labels\":{\"a\":\"b\"}}"), 202, NULL);
    expect(ask("PUT", "/system/namespace/nope", "{}"), 404, NULL);
    expect(ask("DELETE", "/system/namespace/prod", NULL), 202, NULL);
    expect(ask("DELETE", "/system/namespace/nope", NULL), 404, NULL);
}

static void logs_have_openfaas_fields(void **state)
{
    (void)state;
    ask("POST", "/system/functions", "{\"service\":\"a\",\"image\":\"i\"}");
    struct dv_http_req *r = ask("GET", "/system/logs?name=a&follow=1&tail=-1&since=", NULL);
    expect(r, 200, NULL);
    assert_string_equal(r->type, "application/x-ndjson");
    assert_true(w.control.logs.follow);
    assert_int_equal(w.control.logs.tail, -1);
    struct dv_log_line line = {.replica = 1, .wall_ms = 1700000000000, .text = (char *)"Forking fprocess"};
    w.control.logs.line(w.control.logs.ctx, 0xbb, &line);
    expect(r, 200,
           "{\"name\":\"a\",\"namespace\":\"openfaas-fn\",\"instance\":\"0000000000000001\",\"timestamp\":"
           "\"2023-11-14T22:13:20.000Z\","
           "\"text\":\"Forking fprocess\"}\n");
    w.control.logs.end(w.control.logs.ctx);
    expect(ask("GET", "/system/logs", NULL), 400, "name is missing");
    expect(ask("GET", "/system/logs?name=nope", NULL), 404, NULL);
    expect(ask("GET", "/system/logs?name=a&tail=x", NULL), 422, "tail");
    expect(ask("GET", "/system/logs?name=a&since=x", NULL), 422, "since");
    expect(ask("GET", "/system/logs?name=a&follow=x", NULL), 422, "follow");
    expect(ask("GET", "/system/logs?name=a&instance=x", NULL), 422, "instance");
}

static void info_has_both_versions(void **state)
{
    (void)state;
    expect(ask("GET", "/system/info", NULL), 200,
           "{\"provider\":{\"provider\":\"davit\",\"version\":{\"commit_message\":\"\",\"sha\":\"unknown\","
           "\"release\":\"1.2.3\"},"
           "\"orchestration\":\"davit\"},\"version\":{\"commit_message\":\"\",\"sha\":\"unknown\","
           "\"release\":\"1.2.3\"},\"arch\":\"");
}

static void the_other_paths_answer(void **state)
{
    (void)state;
    expect(ask("POST", "/system/alert", "{\"receiver\":\"scale-up\",\"alerts\":[]}"), 200, NULL);
    expect(ask("POST", "/system/alert", "{"), 400, NULL);
    expect(ask("GET", "/system/telemetry", NULL), 200, "false");
    struct dv_http_req *r = ask("GET", "/ui/", NULL);
    expect(r, 200, "0 functions on 1 node.");
    assert_string_equal(r->type, "text/html; charset=utf-8");
    expect(ask("GET", "/ui/x.js", NULL), 404, NULL);
    r = ask("GET", "/", NULL);
    expect(r, 307, NULL);
    assert_string_equal(world_answer_header(r, "Location"), "/ui/");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_was_deployed_comes_back_as_it_was_sent),
        T(a_short_deployment_shows_nothing_that_was_not_sent),
        T(scaling_follows_the_labels_and_zero_is_opt_in),
        T(the_labels_of_type_and_target_say_what_one_replica_carries),
        T(a_type_that_is_not_measured_is_said_to_be_steered_by_requests),
        T(what_may_sleep_begins_awake),
        T(limits_and_requests_come_back_exactly_when_they_were_sent),
        T(scaling_sets_a_number_and_pins_nothing),
        T(annotations_and_environment_set_health_and_time),
        T(a_bad_deployment_is_refused_in_its_own_words),
        T(a_function_is_found_by_either_name_of_its_namespace),
        T(deleting_and_scaling_take_the_namespace_from_body_or_query),
        T(secrets_answer_202_and_never_show_a_value),
        T(the_raw_value_of_a_secret_wins),
        T(a_secret_of_any_bytes_comes_as_its_raw_value),
        T(namespaces_are_managed_as_the_cli_does_it),
        T(logs_have_openfaas_fields),
        T(info_has_both_versions),
        T(the_other_paths_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

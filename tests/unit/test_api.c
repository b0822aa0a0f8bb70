/* The API's rules: who may, what is where, what is refused and how; against a dv_control in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/api_world.h"

#define HELLO "{\"name\":\"hello\",\"image\":\"davit/hello\"}"

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

/* ---------------------------------------------------------------- asking */

/* The pattern with "{..}" taken as "x" or as itself: enough to find the route of a target. */
static bool route_is(const struct dv_api_route *route, const char *method, const char *path)
{
    const char *p = route->pattern, *s = path;
    if (strcmp(route->method, method) != 0)
        return false;
    while (*p && *s) {
        if (*p == '{') {
            p = strchr(p, '}') + 1;
            s += strcspn(s, "/");
        } else if (*p++ != *s++) {
            return false;
        }
    }
    return !*p && !*s;
}

/* Every status that the program answers with is one that its table, and so its description, names. */
static void check_documented(const struct dv_http_req *r)
{
    char wanted[8];
    (void)snprintf(wanted, sizeof(wanted), "%d", r->status);
    for (size_t i = 0; i < dv_api_n_routes; i++)
        if (route_is(&dv_api_route_table[i], r->method, r->path)) {
            if (!strstr(dv_api_route_table[i].statuses, wanted))
                fail_msg("%s %s answered %s, which its route does not name", r->method, r->path, wanted);
            return;
        }
}

static struct dv_http_req *ask_with(const char *method, const char *target, const char *body,
                                    const char *header, const char *value)
{
    static struct dv_http_req r;
    world_free(&r);
    world_request(&r, method, target, body);
    world_header(&r, "Authorization", "Basic YWRtaW46c2VjcmV0");
    if (header)
        world_header(&r, header, value);
    dv_api_on_request(w.api, &r);
    world_commit(&w);
    assert_true(r.is_answered);
    check_documented(&r);
    return &r;
}

static struct dv_http_req *ask(const char *method, const char *target, const char *body)
{
    return ask_with(method, target, body, NULL, NULL);
}

static void expect(struct dv_http_req *r, int status, const char *part)
{
    const char *text = dv_buf_cstr(&r->out);
    if (r->status != status || (part && !strstr(text, part)))
        fail_msg("%s %s: %d %s; wanted %d %s", r->method, r->path, r->status, text, status, part ? part : "");
}

static void expect_problem(struct dv_http_req *r, int status, const char *field, const char *part)
{
    expect(r, status, part);
    assert_string_equal(r->type, "application/problem+json");
    cJSON *o = cJSON_Parse(dv_buf_cstr(&r->out));
    assert_non_null(o);
    assert_int_equal(cJSON_GetObjectItem(o, "status")->valueint, status);
    const cJSON *f = cJSON_GetObjectItem(o, "field");
    assert_string_equal(f ? f->valuestring : "", field);
    assert_true(cJSON_IsString(cJSON_GetObjectItem(o, "code")));
    cJSON_Delete(o);
}

static void fill_pattern(const char *pattern, char *out, size_t cap)
{
    size_t n = 0;
    for (const char *p = pattern; *p && n + 2 < cap; p++)
        if (*p == '{') {
            out[n++] = 'x';
            p = strchr(p, '}');
        } else {
            out[n++] = *p;
        }
    out[n] = '\0';
}

/* ---------------------------------------------------------------- routes */

static void every_protected_route_refuses_a_stranger(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        NULL,     "Basic YWRtaW46d3Jvbmc=", "Bearer wrong", "Basic !!!", "Bearer ", "Basic",
        "secret", "Basic c2VjcmV0"};
    for (size_t i = 0; i < dv_api_n_routes; i++) {
        const struct dv_api_route *route = &dv_api_route_table[i];
        char path[128];
        fill_pattern(route->pattern, path, sizeof(path));
        for (size_t k = 0; k < DV_COUNT(wrong); k++) {
            struct dv_http_req r;
            world_request(&r, route->method, path, "{}");
            if (wrong[k])
                world_header(&r, "Authorization", wrong[k]);
            dv_api_on_request(w.api, &r);
            if (route->auth == DV_API_OPEN) {
                assert_int_not_equal(r.status, 401);
            } else {
                if (r.status != 401)
                    fail_msg("%s %s let a stranger in (%d)", route->method, path, r.status);
                assert_non_null(world_answer_header(&r, "WWW-Authenticate"));
            }
            world_free(&r);
        }
    }
}

static void the_join_token_opens_joining_and_nothing_else(void **state)
{
    (void)state;
    struct dv_http_req r;
    const char *join =
        "{\"name\":\"n1\",\"incarnation\":\"0000000000000001\",\"address\":\"10.0.0.7:8090\",\"newer\":1}";
    world_request(&r, "POST", "/v1/nodes/join", join);
    world_header(&r, "Authorization", "Bearer join-me");
    dv_api_on_request(w.api, &r);
    expect(&r, 200, "\"node\":\"00000000000000a1\",\"key\":\"0011\"");
    world_free(&r);
    world_request(&r, "GET", "/v1/functions", NULL);
    world_header(&r, "Authorization", "Bearer join-me");
    dv_api_on_request(w.api, &r);
    assert_int_equal(r.status, 401);
    world_free(&r);
    world_request(&r, "POST", "/v1/nodes/join", join);
    world_header(&r, "Authorization", "Basic YWRtaW46c2VjcmV0");
    dv_api_on_request(w.api, &r);
    assert_int_equal(r.status, 401);
    world_free(&r);
    world_request(&r, "POST", "/v1/nodes/join", "{\"name\":\"n1\"}");
    world_header(&r, "Authorization", "Bearer join-me");
    dv_api_on_request(w.api, &r);
    expect_problem(&r, 400, "incarnation", "must be given");
    world_free(&r);
}

static void the_password_is_a_bearer_token_too(void **state)
{
    (void)state;
    struct dv_http_req r;
    world_request(&r, "GET", "/v1/functions", NULL);
    world_header(&r, "Authorization", "bearer secret");
    dv_api_on_request(w.api, &r);
    assert_int_equal(r.status, 200);
    world_free(&r);
}

static void a_wrong_method_is_told_the_right_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < dv_api_n_routes; i++) {
        char path[128];
        fill_pattern(dv_api_route_table[i].pattern, path, sizeof(path));
        struct dv_http_req *r = ask("BREW", path, NULL);
        assert_int_equal(r->status, 405);
        assert_non_null(strstr(world_answer_header(r, "Allow"), dv_api_route_table[i].method));
    }
    assert_string_equal(world_answer_header(ask("TRACE", "/v1/functions/x", NULL), "Allow"),
                        "GET, HEAD, PUT, PATCH, DELETE");
    expect(ask("HEAD", "/v1/functions", NULL), 200, NULL);
}

static void what_is_not_there_is_404(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "/nothing", "/v1", "/v1/", "/v1/functions/", "/v1/functions/a/b", "/v1/functions/a/events/x", "//"};
    for (size_t i = 0; i < DV_COUNT(paths); i++)
        expect_problem(ask("GET", paths[i], NULL), 404, "", "there is nothing at");
    struct dv_http_req *r = ask("GET", "/system/nothing", NULL);
    assert_int_equal(r->status, 404);
    assert_string_equal(r->type, "text/plain; charset=utf-8");
    expect_problem(ask("GET", "/v1/functions/nope", NULL), 404, "",
                   "no function \\\"nope\\\" in namespace \\\"default\\\"");
    expect_problem(ask("GET", "/v1/functions/%zz", NULL), 400, "", "percent");
    expect_problem(ask("GET", "/v1/functions/a%00b", NULL), 400, "", "percent");
}

static void an_unknown_query_parameter_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < dv_api_n_routes; i++) {
        const struct dv_api_route *route = &dv_api_route_table[i];
        char path[128];
        if (dv_api_face_of(route) == DV_API_OPENFAAS || route->auth == DV_API_JOIN ||
            strcmp(route->pattern, "/") == 0)
            continue;
        fill_pattern(route->pattern, path, sizeof(path) - 16);
        strncat(path, "?namespce=prod", sizeof(path) - strlen(path) - 1);
        expect_problem(ask(route->method, path, "{}"), 400, "namespce", "unknown query parameter");
    }
}

static void the_route_table_is_printed_line_by_line(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_api_routes(&b), DV_OK);
    assert_non_null(
        strstr(dv_buf_cstr(&b), "GET /v1/functions 200,400,401,500 namespace,label,image,q,limit,after\n"));
    assert_non_null(strstr(dv_buf_cstr(&b), "POST /system/alert 200,400,401,413,500 -\n"));
}

static void errors_of_the_server_look_like_ours(void **state)
{
    (void)state;
    struct dv_http_req r;
    world_request(&r, "POST", "/v1/functions", NULL);
    dv_api_on_error(w.api, &r, 413, "the body is too large\n");
    expect_problem(&r, 413, "", "the body is too large\"");
    world_free(&r);
}

/* ---------------------------------------------------------------- functions */

static void a_function_is_created_read_replaced_and_deleted(void **state)
{
    (void)state;
    struct dv_http_req *r = ask("POST", "/v1/functions", HELLO);
    expect(r, 201, "\"spec\":{\"name\":\"hello\",\"namespace\":\"default\"");
    assert_string_equal(world_answer_header(r, "Location"), "/v1/functions/hello?namespace=default");
    assert_string_equal(world_answer_header(r, "ETag"), "\"1\"");
    expect_problem(ask("POST", "/v1/functions", HELLO), 409, "name", "exists");
    r = ask("GET", "/v1/functions/hello", NULL);
    expect(r, 200, "\"phase\":\"ready\",\"message\":\"1 replica answers\"");
    expect(r, 200, "\"log_tail\":\"boom\"");
    expect(r, 200, "\"invocations\":7");
    expect(r, 200, "\"scale_reason\":\"1 request in flight\"");
    expect(r, 200,
           "\"keep_alive\":{\"basis\":\"histogram\",\"idle\":\"10m\",\"ahead\":\"primed\",\"from\":\"10m\","
           "\"until\":\"23m6s\",\"gaps\":43,\"why\":\"kept 10m, then a primed sandbox until 23m6s: gaps of "
           "1m to "
           "21m, 43 seen\"}");
    assert_string_equal(world_answer_header(r, "ETag"), "\"1\"");
    r = ask("PUT", "/v1/functions/hello", "{\"image\":\"davit/hello:2\"}");
    expect(r, 200, "davit/hello:2");
    assert_string_equal(world_answer_header(r, "ETag"), "\"2\"");
    expect(ask("PUT", "/v1/functions/other", "{\"image\":\"i\"}"), 201, "\"name\":\"other\"");
    r = ask("DELETE", "/v1/functions/hello", NULL);
    expect(r, 204, NULL);
    assert_int_equal(dv_buf_len(&r->out), 0);
    expect(ask("DELETE", "/v1/functions/hello", NULL), 404, NULL);
}

static void the_path_and_the_body_must_name_the_same_function(void **state)
{
    (void)state;
    expect_problem(ask("PUT", "/v1/functions/other", HELLO), 400, "name", "in the address");
    expect_problem(ask("PUT", "/v1/functions/hello?namespace=a", "{\"image\":\"i\",\"namespace\":\"b\"}"),
                   400, "namespace", NULL);
    expect_problem(ask("POST", "/v1/functions?namespace=nope", HELLO), 400, "namespace", "does not exist");
    expect_problem(ask("POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"i\",\"secrets\":[\"s\"]}"), 400,
                   "secrets[0]", NULL);
}

static void a_body_that_is_no_good_is_refused_with_its_field(void **state)
{
    (void)state;
    static const struct {
        const char *body, *field, *why;
    } rows[] = {
        {NULL, "", "no JSON given"},
        {"nonsense", "", "not valid JSON"},
        {"[]", "", "must be a JSON object"},
        {"{\"image\":\"i\"}", "name", "must be given"},
        {"{\"name\":\"a\",\"image\":\"i\",\"image\":\"j\"}", "image", "twice"},
        {"{\"name\":\"a\",\"image\":\"i\",\"replicas\":3}", "replicas", "unknown field"},
        {"{\"name\":\"a\",\"image\":\"i\",\"scale\":{\"min\":3,\"max\":2}}", "scale.min",
         "must not be above"},
        {"{\"name\":\"a\",\"image\":\"i\",\"limits\":{\"memory\":\"1Mi\"}}", "limits.memory", "6Mi"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        expect_problem(ask("POST", "/v1/functions", rows[i].body), 400, rows[i].field, rows[i].why);
}

static void a_write_with_an_old_etag_is_refused(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", HELLO);
    ask("PUT", "/v1/functions/hello", "{\"image\":\"b\"}");
    static const char *const methods[] = {"PUT", "PATCH", "DELETE"};
    for (size_t i = 0; i < DV_COUNT(methods); i++) {
        expect_problem(ask_with(methods[i], "/v1/functions/hello", "{\"image\":\"c\"}", "If-Match", "\"1\""),
                       412, "name", "changed since");
        expect_problem(
            ask_with(methods[i], "/v1/functions/hello", "{\"image\":\"c\"}", "If-Match", "W/\"2\""), 412, "",
            "ETag");
    }
    expect_problem(ask_with("PUT", "/v1/functions/gone", "{\"image\":\"c\"}", "If-Match", "*"), 412, "",
                   "any more");
    expect_problem(ask_with("PUT", "/v1/functions/hello", "{\"image\":\"c\"}", "If-None-Match", "*"), 412, "",
                   "already");
    expect(ask_with("PUT", "/v1/functions/hello", "{\"image\":\"c\"}", "If-Match", "\"2\""), 200, NULL);
    expect(ask_with("DELETE", "/v1/functions/hello", NULL, "If-Match", "\"3\""), 204, NULL);
}

static void a_patch_changes_what_it_names(void **state)
{
    (void)state;
    ask("POST", "/v1/functions",
        "{\"name\":\"hello\",\"image\":\"i\",\"env\":{\"A\":\"1\"},\"scale\":{\"max\":7}}");
    struct dv_http_req *r = ask("PATCH", "/v1/functions/hello",
                                "{\"env\":{\"B\":\"2\",\"A\":null},\"scale\":{\"concurrency\":10}}");
    expect(r, 200, "\"env\":{\"B\":\"2\"}");
    expect(r, 200, "\"max\":7,\"concurrency\":10,\"target\":7");
    expect_problem(ask("PATCH", "/v1/functions/hello", "{\"name\":\"x\"}"), 400, "name", "cannot be renamed");
    expect_problem(ask("PATCH", "/v1/functions/hello", "{\"namespace\":\"x\"}"), 400, "namespace",
                   "cannot be moved");
    expect_problem(ask("PATCH", "/v1/functions/hello", "{\"scale\":{\"min\":8}}"), 400, "scale.min", NULL);
    expect_problem(ask("PATCH", "/v1/functions/nope", "{}"), 404, "", NULL);
}

static void two_patches_at_once_do_not_swallow_each_other(void **state)
{
    (void)state;
    struct dv_http_req r;
    ask("POST", "/v1/functions", HELLO);
    world_request(&r, "PATCH", "/v1/functions/hello", "{\"timeout\":\"5s\"}");
    world_header(&r, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &r);
    assert_false(r.is_answered);
    w.control.commit_fails = DV_PRECONDITION;
    world_commit(&w);
    expect_problem(&r, 409, "", "the store said no");
    world_free(&r);
}

static void what_was_not_given_is_shown_as_it_works_and_not_kept(void **state)
{
    (void)state;
    const struct dv_function *fn;
    expect(ask("POST", "/v1/functions", HELLO), 201, "\"idle\":\"7s\"");
    expect(ask("POST", "/v1/functions?dry_run=true", "{\"name\":\"other\",\"image\":\"i\"}"), 200,
           "\"requests\":{\"memory\":\"64Mi\",\"cpu\":\"50m\"}");
    expect(ask("PATCH", "/v1/functions/hello", "{\"port\":9,\"scale\":{\"rps\":20}}"), 200,
           "\"rps\":20,\"idle\":\"7s\"");
    fn = dv_control_fn_find(&w.control, DV_SV("default"), DV_SV("hello"));
    assert_int_equal(fn->spec.scale.idle_ms, 0);
    assert_int_equal(fn->spec.requests.memory_bytes, 0);
    assert_int_equal(fn->spec.scale.rps, 20);
    expect(ask("PATCH", "/v1/functions/hello", "{\"scale\":{\"idle\":\"1m\"}}"), 200, "\"idle\":\"1m\"");
    fn = dv_control_fn_find(&w.control, DV_SV("default"), DV_SV("hello"));
    assert_int_equal(fn->spec.scale.idle_ms, 60000);
    expect(ask("PATCH", "/v1/functions/hello", "{\"scale\":{\"idle\":null}}"), 200, "\"idle\":\"7s\"");
}

static void a_dry_run_shows_what_would_be_kept_and_keeps_nothing(void **state)
{
    (void)state;
    struct dv_http_req *r = ask("POST", "/v1/functions?dry_run=true", HELLO);
    expect(r, 200, "{\"dry_run\":true,\"functions\":[{\"name\":\"hello\"");
    expect(r, 200, "\"concurrency\":100,\"target\":70");
    expect(ask("GET", "/v1/functions/hello", NULL), 404, NULL);
    expect_problem(ask("POST", "/v1/functions?dry_run=maybe", HELLO), 400, "dry_run", NULL);
    ask("POST", "/v1/functions", HELLO);
    expect(ask("DELETE", "/v1/functions/hello?dry_run=true", NULL), 204, NULL);
    expect(ask("PATCH", "/v1/functions/hello?dry_run=true", "{\"port\":9}"), 200, "\"port\":9");
    expect(ask("GET", "/v1/functions/hello", NULL), 200, "\"port\":8080");
}

static void apply_is_all_or_nothing_and_names_the_function_at_fault(void **state)
{
    (void)state;
    expect(ask("POST", "/v1/apply",
               "{\"functions\":[{\"name\":\"a\",\"image\":\"i\"},{\"name\":\"b\",\"image\":\"i\"}]}"),
           200, "\"name\":\"b\"");
    static const struct {
        const char *body, *field;
    } rows[] = {
        {"{\"functions\":[{\"name\":\"c\",\"image\":\"i\"},{\"name\":\"d\"}]}", "functions[1].image"},
        {"{\"functions\":[{\"name\":\"c\",\"image\":\"i\"},{\"name\":\"d\",\"image\":\"i\",\"protocol\":"
         "\"stdio\"}]}",
         "functions[1].command"},
        {"{\"functions\":[{\"name\":\"c\",\"image\":\"i\"},{\"name\":\"d\",\"image\":\"i\",\"namespace\":"
         "\"x\"}]}",
         "functions[1].namespace"},
        {"{\"functions\":[{\"name\":\"c\",\"image\":\"i\"},{\"name\":\"c\",\"image\":\"i\"}]}",
         "functions[1].name"},
        {"{\"functions\":[{\"name\":\"d\",\"image\":\"i\",\"namespace\":\"x\"}]}", "functions[0].namespace"},
        {"{\"functions\":[]}", "functions"},
        {"{}", "functions"},
        {"{\"functions\":{}}", "functions"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        expect_problem(ask("POST", "/v1/apply", rows[i].body), 400, rows[i].field, NULL);
    expect(ask("GET", "/v1/functions/c", NULL), 404, NULL);
    expect(ask("POST", "/v1/apply?dry_run=true", "{\"functions\":[{\"name\":\"c\",\"image\":\"i\"}]}"), 200,
           "\"dry_run\":true");
    expect(ask("GET", "/v1/functions/c", NULL), 404, NULL);
}

static void lists_are_filtered_and_paged(void **state)
{
    (void)state;
    ask("POST", "/v1/namespaces", "{\"name\":\"prod\"}");
    ask("POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"one\",\"labels\":{\"tier\":\"gold\"}}");
    ask("POST", "/v1/functions", "{\"name\":\"b\",\"image\":\"two\",\"labels\":{\"tier\":\"tin\"}}");
    ask("POST", "/v1/functions?namespace=prod", "{\"name\":\"a\",\"image\":\"two\"}");
    static const struct {
        const char *query;
        int n;
        const char *next;
    } rows[] = {
        {"", 3, NULL},
        {"?namespace=prod", 1, NULL},
        {"?image=two", 2, NULL},
        {"?q=b", 1, NULL},
        {"?label=tier", 2, NULL},
        {"?label=tier=gold", 1, NULL},
        {"?label=tier=lead", 0, NULL},
        {"?label=tier=gold&label=x", 0, NULL},
        {"?limit=1", 1, "default/a"},
        {"?limit=1&after=default/a", 1, "default/b"},
        {"?limit=1&after=default/b", 1, NULL},
        {"?limit=3", 3, NULL},
        {"?image=two&limit=1", 1, "default/b"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        char target[80];
        (void)snprintf(target, sizeof(target), "/v1/functions%s", rows[i].query);
        struct dv_http_req *r = ask("GET", target, NULL);
        assert_int_equal(r->status, 200);
        cJSON *o = cJSON_Parse(dv_buf_cstr(&r->out));
        const cJSON *next = cJSON_GetObjectItem(o, "next");
        if (cJSON_GetArraySize(cJSON_GetObjectItem(o, "functions")) != rows[i].n ||
            strcmp(next ? next->valuestring : "", rows[i].next ? rows[i].next : "") != 0)
            fail_msg("%s: %s", target, dv_buf_cstr(&r->out));
        cJSON_Delete(o);
    }
    expect_problem(ask("GET", "/v1/functions?limit=0", NULL), 400, "limit", "1 to 1000");
    expect_problem(ask("GET", "/v1/functions?limit=x", NULL), 400, "limit", NULL);
}

static void scaling_takes_a_number_or_null(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", HELLO);
    expect(ask("POST", "/v1/functions/hello/scale", "{\"replicas\":3}"), 200, "\"override\":3");
    struct dv_http_req *r = ask("POST", "/v1/functions/hello/scale", "{\"replicas\":null}");
    expect(r, 200, NULL);
    assert_null(strstr(dv_buf_cstr(&r->out), "override"));
    expect_problem(ask("POST", "/v1/functions/hello/scale", "{}"), 400, "replicas", "null");
    expect_problem(ask("POST", "/v1/functions/hello/scale", "{\"replicas\":-1}"), 400, "replicas", NULL);
    expect_problem(ask("POST", "/v1/functions/hello/scale", "{\"replicas\":\"3\"}"), 400, "replicas", NULL);
    expect_problem(ask("POST", "/v1/functions/hello/scale", "{\"replicas\":21}"), 400, "replicas",
                   "scale.max");
    expect_problem(ask("POST", "/v1/functions/nope/scale", "{\"replicas\":1}"), 404, "", NULL);
}

static void a_client_that_leaves_does_not_stop_its_write(void **state)
{
    (void)state;
    struct dv_http_req r;
    world_request(&r, "POST", "/v1/functions", HELLO);
    world_header(&r, "Authorization", "Bearer secret");
    dv_api_on_request(w.api, &r);
    assert_false(r.is_answered);
    assert_non_null(r.on_gone);
    r.on_gone(r.user);
    assert_true(r.is_answered); /* the server has its request back */
    world_free(&r);
    world_commit(&w);
    expect(ask("GET", "/v1/functions/hello", NULL), 200, NULL);
}

static void a_store_that_fails_is_told_as_it_is(void **state)
{
    (void)state;
    w.control.commit_fails = DV_E_STORE;
    expect_problem(ask("POST", "/v1/functions", HELLO), 500, "", "the store said no");
    expect(ask("GET", "/v1/functions/hello", NULL), 404, NULL);
}

static void events_and_replicas_tell_their_reasons(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", HELLO);
    expect(ask("GET", "/v1/functions/hello/events", NULL), 200,
           "\"kind\":\"created\",\"message\":\"by the API\"");
    expect(
        ask("GET", "/v1/functions/hello/decisions", NULL), 200,
        "\"signals\":[{\"signal\":\"cpu\",\"replicas\":2,\"message\":\"cpu at 90 %, target 70 %\"}],"
        "\"decisions\":[{\"time_ms\":1767225600000,\"time\":\"2026-01-01T00:00:00.000Z\",\"from\":0,\"to\":4,"
        "\"signal\":\"metric\",\"reason\":\"more needed: metric depth is 40\","
        "\"signals\":[{\"signal\":\"stable\",\"replicas\":1},"
        "{\"signal\":\"metric\",\"metric\":\"depth\",\"replicas\":4,\"held\":true}]}]}");
    expect(ask("GET", "/v1/functions/hello/replicas", NULL), 200,
           "\"why\":\"exit code 3\",\"reason\":\"exited\"");
    expect(ask("GET", "/v1/replicas", NULL), 200, "\"function\":\"hello\"");
    expect(ask("GET", "/v1/replicas?namespace=other", NULL), 200, "{\"replicas\":[]}");
}

/* ---------------------------------------------------------------- logs */

static void logs_are_lines_of_json_until_they_end(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", HELLO);
    struct dv_http_req *r =
        ask("GET", "/v1/functions/hello/logs?follow=true&tail=5&since=10m&replica=0000000000000001", NULL);
    assert_string_equal(r->type, "application/x-ndjson");
    assert_true(w.control.logs.follow);
    assert_int_equal(w.control.logs.tail, 5);
    assert_int_equal(w.control.logs.replica, 1);
    assert_int_equal(w.control.logs.since_ms, 1700000000000 - 600000);
    struct dv_log_line line = {.replica = 1, .wall_ms = 1700000000000, .text = (char *)"hi \"there\""};
    w.control.logs.line(w.control.logs.ctx, 0xa1, &line);
    expect(r, 200,
           "{\"time\":\"2023-11-14T22:13:20.000Z\",\"replica\":\"0000000000000001\",\"node\":\"n1\","
           "\"stream\":\"stdout\",\"text\":\"hi "
           "\\\"there\\\"\"}\n");
    w.control.logs.end(w.control.logs.ctx);
    assert_true(r->is_ended);
    static const char *const bad[][2] = {
        {"tail=x", "tail"}, {"follow=x", "follow"}, {"since=yesterday", "since"}, {"replica=1", "replica"}};
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        char target[80];
        (void)snprintf(target, sizeof(target), "/v1/functions/hello/logs?%s", bad[i][0]);
        expect_problem(ask("GET", target, NULL), 400, bad[i][1], NULL);
    }
}

static void a_reader_of_logs_that_leaves_closes_them(void **state)
{
    (void)state;
    ask("POST", "/v1/functions", HELLO);
    struct dv_http_req *r = ask("GET", "/v1/functions/hello/logs?follow=true", NULL);
    assert_true(w.control.logs_open);
    r->on_gone(r->user);
    assert_false(w.control.logs_open);
    assert_true(r->is_ended);
}

/* ---------------------------------------------------------------- the other nouns */

static void nodes_are_shown_without_their_keys(void **state)
{
    (void)state;
    struct dv_http_req *r = ask("GET", "/v1/nodes", NULL);
    expect(r, 200, "\"id\":\"00000000000000a1\",\"name\":\"n1\"");
    assert_null(strstr(dv_buf_cstr(&r->out), "sealed-key"));
    expect(ask("GET", "/v1/nodes/n1", NULL), 200, "\"state\":\"ready\"");
    expect(ask("GET", "/v1/nodes/00000000000000a1", NULL), 200, NULL);
    expect_problem(ask("GET", "/v1/nodes/n2", NULL), 404, "", "n2");
    static const char *const ops[] = {"cordon", "uncordon", "drain"};
    for (size_t i = 0; i < DV_COUNT(ops); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "/v1/nodes/n1/%s", ops[i]);
        expect(ask("POST", path, NULL), 200, "\"name\":\"n1\"");
        (void)snprintf(path, sizeof(path), "/v1/nodes/n2/%s", ops[i]);
        expect(ask("POST", path, NULL), 404, NULL);
    }
    expect(ask("DELETE", "/v1/nodes/n1", NULL), 204, NULL);
}

static void secrets_are_written_and_only_their_names_come_back(void **state)
{
    (void)state;
    expect(ask("POST", "/v1/secrets", "{\"name\":\"db\",\"value\":\"hunter2\"}"), 201,
           "{\"name\":\"db\",\"namespace\":\"default\"}");
    expect(ask("POST", "/v1/secrets/db2", "{\"value_base64\":\"AAE=\"}"), 201, NULL);
    expect_problem(ask("POST", "/v1/secrets/db", "{\"value\":\"x\"}"), 409, "", "exists");
    expect(ask("PUT", "/v1/secrets/db", "{\"value\":\"new\"}"), 200, NULL);
    expect_problem(ask("PUT", "/v1/secrets/nope", "{\"value\":\"new\"}"), 404, "", NULL);
    struct dv_http_req *r = ask("GET", "/v1/secrets", NULL);
    expect(r, 200, "{\"name\":\"db\",\"namespace\":\"default\"");
    assert_null(strstr(dv_buf_cstr(&r->out), "hunter2"));
    expect_problem(ask("POST", "/v1/secrets/x", "{}"), 400, "value", "value_base64");
    expect_problem(ask("POST", "/v1/secrets/x", "{\"value\":\"a\",\"value_base64\":\"YQ==\"}"), 400, "value",
                   NULL);
    expect_problem(ask("POST", "/v1/secrets/x", "{\"value_base64\":\"***\"}"), 400, "value_base64",
                   "RFC 4648");
    expect_problem(ask("POST", "/v1/secrets/x", "{\"name\":\"y\",\"value\":\"a\"}"), 400, "name", NULL);
    expect_problem(ask("POST", "/v1/secrets/X", "{\"value\":\"a\"}"), 400, "name", "must be a name");
    expect(ask("DELETE", "/v1/secrets/db", NULL), 204, NULL);
    expect(ask("DELETE", "/v1/secrets/nope", NULL), 404, NULL);
}

static void namespaces_and_registries_are_kept(void **state)
{
    (void)state;
    expect(ask("POST", "/v1/namespaces", "{\"name\":\"prod\"}"), 201, "\"name\":\"prod\"");
    expect_problem(ask("POST", "/v1/namespaces", "{\"name\":\"prod\"}"), 409, "", NULL);
    expect(ask("GET", "/v1/namespaces/prod", NULL), 200, NULL);
    expect(ask("PUT", "/v1/namespaces/prod", "{\"labels\":{\"a\":\"b\"}}"), 200, NULL);
    expect(ask("PUT", "/v1/namespaces/nope", "{}"), 404, NULL);
    expect(ask("GET", "/v1/namespaces/nope", NULL), 404, NULL);
    expect(ask("GET", "/v1/namespaces", NULL), 200, "\"name\":\"default\"");
    expect(ask("DELETE", "/v1/namespaces/prod", NULL), 204, NULL);
    expect(ask("PUT", "/v1/registries/registry.example.com", "{\"username\":\"u\",\"password\":\"hunter2\"}"),
           200, NULL);
    struct dv_http_req *r = ask("GET", "/v1/registries", NULL);
    expect(r, 200, "{\"registries\":[{\"server\":\"registry.example.com\",\"username\":\"u\"}]}");
    expect_problem(ask("POST", "/v1/registries", "{\"username\":\"u\",\"password\":\"p\"}"), 400, "server",
                   NULL);
    expect_problem(ask("POST", "/v1/registries", "{\"server\":\"s\",\"password\":\"p\"}"), 400, "username",
                   NULL);
    expect(ask("DELETE", "/v1/registries/registry.example.com", NULL), 204, NULL);
    expect(ask("DELETE", "/v1/registries/registry.example.com", NULL), 404, NULL);
}

static void health_readiness_version_and_metrics_answer(void **state)
{
    (void)state;
    expect(ask("GET", "/healthz", NULL), 200, "OK");
    expect(ask("GET", "/v1/health", NULL), 200, "OK");
    expect(ask("GET", "/readyz", NULL), 503, "no node has joined");
    w.control.is_ready = true;
    expect(ask("GET", "/v1/ready", NULL), 200, "\"ready\":true");
    expect(ask("GET", "/v1/version", NULL), 200, "\"version\":\"1.2.3\"");
    expect(ask("GET", "/metrics", NULL), 200, "davit_up 1");
}

static void the_metrics_listener_serves_metrics_and_health_alone(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int status;
    } rows[] = {{"/metrics", 200},
                {"/healthz", 200},
                {"/readyz", 503},
                {"/v1/functions", 404},
                {"/system/functions", 404}};
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        struct dv_http_req r;
        world_request(&r, "GET", rows[i].path, NULL);
        dv_api_on_metrics_request(w.api, &r);
        assert_int_equal(r.status, rows[i].status);
        world_free(&r);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_protected_route_refuses_a_stranger),
        T(the_join_token_opens_joining_and_nothing_else),
        T(the_password_is_a_bearer_token_too),
        T(a_wrong_method_is_told_the_right_ones),
        T(what_is_not_there_is_404),
        T(an_unknown_query_parameter_is_named),
        T(the_route_table_is_printed_line_by_line),
        T(errors_of_the_server_look_like_ours),
        T(a_function_is_created_read_replaced_and_deleted),
        T(the_path_and_the_body_must_name_the_same_function),
        T(a_body_that_is_no_good_is_refused_with_its_field),
        T(a_write_with_an_old_etag_is_refused),
        T(a_patch_changes_what_it_names),
        T(two_patches_at_once_do_not_swallow_each_other),
        T(what_was_not_given_is_shown_as_it_works_and_not_kept),
        T(a_dry_run_shows_what_would_be_kept_and_keeps_nothing),
        T(apply_is_all_or_nothing_and_names_the_function_at_fault),
        T(lists_are_filtered_and_paged),
        T(scaling_takes_a_number_or_null),
        T(a_client_that_leaves_does_not_stop_its_write),
        T(a_store_that_fails_is_told_as_it_is),
        T(events_and_replicas_tell_their_reasons),
        T(logs_are_lines_of_json_until_they_end),
        T(a_reader_of_logs_that_leaves_closes_them),
        T(nodes_are_shown_without_their_keys),
        T(secrets_are_written_and_only_their_names_come_back),
        T(namespaces_and_registries_are_kept),
        T(health_readiness_version_and_metrics_answer),
        T(the_metrics_listener_serves_metrics_and_health_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

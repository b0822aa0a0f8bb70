/* The codec from a caller's side: what is taken, what is refused and under which name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include "proto/wire/codec.h"

#define SPEC(rest) "{\"name\":\"f\",\"image\":\"i\"" rest "}"

static int decode_spec(struct dv_arena *a, const char *json, unsigned flags, struct dv_fn_spec *out,
                       struct dv_err *err)
{
    return dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 65536, flags, a, out, err);
}

/* ---------------------------------------------------------------- JSON itself */

static void json_that_is_not_json_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "no JSON given"},
        {"  \n", "no JSON given"},
        {"{\"a\":1} x", "column 9: something follows"},
        {"{\"a\":1}{", "something follows"},
        {"{\n \"a\" 1}", "line 2, column 6: ':' is expected"},
        {"{\"a\":1,}", "a key in quotes"},
        {"[1,]", "a value is expected"},
        {"{'a':1}", "a key in quotes"},
        {"[01]", "',' or ']'"},
        {"[+1]", "a value is expected"},
        {"[.5]", "a value is expected"},
        {"[1.]", "decimal point"},
        {"[1e]", "exponent"},
        {"[NaN]", "a value is expected"},
        {"[Infinity]", "a value is expected"},
        {"[-]", "a value is expected"},
        {"[1e999]", "too large"},
        {"[nul]", "a value is expected"},
        {"\"abc", "closing quote"},
        {"\"a\\x\"", "unknown escape"},
        {"\"a\\u12g4\"", "four hex digits"},
        {"\"a\\u0000b\"", "NUL"},
        {"\"a\\ud800\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"\\ud800\\u0041\"", "surrogate"},
        {"\"tab\there\"", "escaped"},
        {"\"\xc3(\"", "UTF-8"},
        {"{\"a\":1,\"a\":2}", "twice"},
        {"{\"a\":1,\"\\u0061\":2}", "twice"},
        {"\xef\xbb\xbf{}", "a value is expected"},
        {"[1111111111111111111111111111111111111111111111111]", "too many digits"},
        {"[", "the text ends"},
        {"{\"a\"", "':' is expected"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        cJSON *tree = NULL;
        struct dv_err e = DV_ERR_INIT;
        int rc = dv_json_parse(dv_sv_c(rows[i].text), 1000, &tree, &e);
        if (rc != DV_INVALID || !strstr(e.msg, rows[i].why))
            fail_msg("%s: got %d, \"%s\"; wanted \"%s\"", rows[i].text, rc, e.msg, rows[i].why);
        assert_null(tree);
    }
}

static void a_raw_nul_byte_in_the_text_is_refused(void **state)
{
    (void)state;
    cJSON *tree = NULL;
    assert_int_equal(dv_json_parse(dv_sv("\"a\0b\"", 5), 100, &tree, NULL), DV_INVALID);
    assert_int_equal(dv_json_parse(dv_sv("{}\0", 3), 100, &tree, NULL), DV_INVALID);
    assert_null(tree);
}

static void equal_keys_are_found_in_large_objects_too(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    cJSON *tree = NULL;
    struct dv_err e = DV_ERR_INIT;
    for (int i = 0; i < 5000; i++)
        assert_int_equal(dv_buf_addf(&b, "%c\"k%d\":1", i ? ',' : '{', i), DV_OK);
    size_t n = dv_buf_len(&b);
    dv_buf_add_c(&b, "}");
    assert_int_equal(dv_json_parse(dv_buf_sv(&b), 1 << 20, &tree, &e), DV_OK);
    cJSON_Delete(tree);
    dv_buf_truncate(&b, n);
    dv_buf_add_c(&b, ",\"k77\":2}");
    assert_int_equal(dv_json_parse(dv_buf_sv(&b), 1 << 20, &tree, &e), DV_INVALID);
    assert_string_equal(e.field, "k77");
}

static void depth_and_size_have_an_end(void **state)
{
    (void)state;
    char deep[80] = "";
    cJSON *tree = NULL;
    struct dv_err e = DV_ERR_INIT;
    memset(deep, '[', 32);
    memset(deep + 32, ']', 32);
    assert_int_equal(dv_json_parse(dv_sv(deep, 64), 100, &tree, &e), DV_OK);
    cJSON_Delete(tree);
    memset(deep, '[', 33);
    memset(deep + 33, ']', 33);
    assert_int_equal(dv_json_parse(dv_sv(deep, 66), 100, &tree, &e), DV_INVALID);
    assert_non_null(strstr(e.msg, "32 deep"));
    assert_int_equal(dv_json_parse(dv_sv(deep, 66), 65, &tree, &e), DV_TOO_LARGE);
}

static void surrogate_pairs_become_one_character(void **state)
{
    (void)state;
    cJSON *tree = NULL;
    assert_int_equal(dv_json_parse(DV_SV("\"\\ud83d\\udea2\""), 100, &tree, NULL), DV_OK);
    assert_string_equal(tree->valuestring, "\xf0\x9f\x9a\xa2");
    cJSON_Delete(tree);
}

/* ---------------------------------------------------------------- fields */

static void a_short_spec_gets_every_default(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s;
    struct dv_err e = DV_ERR_INIT;
    assert_int_equal(decode_spec(&a, SPEC(""), 0, &s, &e), DV_OK);
    assert_int_equal(dv_fn_spec_finish(&s, &a, &e), DV_OK);
    assert_string_equal(s.ns, "default");
    assert_string_equal(s.face, "v1");
    assert_int_equal(s.port, 8080);
    assert_int_equal(s.protocol, DV_PROTO_HTTP);
    assert_int_equal(s.timeout_ms, 60000);
    assert_int_equal(s.grace_ms, 10000);
    assert_true(s.read_only);
    assert_null(s.user);
    assert_null(s.health.path);
    assert_int_equal(s.health.interval_ms, 20);
    assert_int_equal(s.health.start_timeout_ms, 60000);
    assert_int_equal(s.limits.memory_bytes, 0);
    assert_int_equal(s.limits.pids, 512);
    assert_int_equal(s.limits.tmp_bytes, 64 << 20);
    assert_int_equal(s.requests.memory_bytes, 0);
    assert_int_equal(s.requests.cpu_mcpu, 0);
    assert_int_equal(s.scale.rps, 0);
    assert_int_equal(s.scale.min, 0);
    assert_int_equal(s.scale.max, 20);
    assert_int_equal(s.scale.concurrency, 100);
    assert_int_equal(s.scale.target, 70);
    assert_int_equal(s.scale.idle_ms, 0);
    assert_int_equal(s.scale.queue_max, 1000);
    assert_int_equal(s.scale.queue_timeout_ms, 60000);
}

static void a_wrong_field_is_named_by_its_path(void **state)
{
    (void)state;
    static const struct {
        const char *json, *field, *why;
    } rows[] = {
        {"[]", "", "must be an object, not an array"},
        {"{\"image\":\"i\"}", "name", "must be given"},
        {"{\"name\":\"f\"}", "image", "must be given"},
        {"{\"name\":null,\"image\":\"i\"}", "name", "must be given"},
        {SPEC(",\"colour\":1"), "colour", "unknown field"},
        {SPEC(",\"Port\":80"), "Port", "unknown field"},
        {SPEC(",\"scale\":{\"mix\":1}"), "scale.mix", "unknown field"},
        {SPEC(",\"port\":\"80\""), "port", "must be a number, not a string"},
        {SPEC(",\"port\":80.5"), "port", "whole number"},
        {SPEC(",\"port\":0"), "port", "must be 1 to 65535"},
        {SPEC(",\"port\":65536"), "port", "must be 1 to 65535"},
        {SPEC(",\"port\":1e300"), "port", "whole number"},
        {SPEC(",\"scale\":{\"max\":0}"), "scale.max", "must be 1 to 10000"},
        {SPEC(",\"scale\":{\"concurrency\":0}"), "scale.concurrency", "must be 1 to 10000"},
        {SPEC(",\"scale\":[]"), "scale", "must be an object, not an array"},
        {SPEC(",\"timeout\":30"), "timeout", "with its unit, as \"30s\""},
        {SPEC(",\"timeout\":\"30\""), "timeout", "with its unit"},
        {SPEC(",\"timeout\":\"25h\""), "timeout", "must be 1ms to 24h"},
        {SPEC(",\"health\":{\"interval\":\"5ms\"}"), "health.interval", "must be 10ms to 1s"},
        {SPEC(",\"health\":{\"path\":\"ready\"}"), "health.path", "must begin with '/'"},
        {SPEC(",\"limits\":{\"memory\":\"1Mi\"}"), "limits.memory", "must be 6Mi to 1024Ti"},
        {SPEC(",\"limits\":{\"memory\":\"128mb\"}"), "limits.memory", "as \"128Mi\""},
        {SPEC(",\"limits\":{\"memory\":-1}"), "limits.memory", "as \"128Mi\""},
        {SPEC(",\"limits\":{\"cpu\":2}"), "limits.cpu", "as \"500m\""},
        {SPEC(",\"read_only\":1"), "read_only", "must be true or false, not a number"},
        {SPEC(",\"protocol\":\"grpc\""), "protocol", "must be one of \"http\", \"stdio\""},
        {SPEC(",\"protocol\":1"), "protocol", "must be one of"},
        {SPEC(",\"env\":{\"N\":1}"), "env.N", "put the value in quotes"},
        {SPEC(",\"env\":{\"A=B\":\"\"}"), "env.A=B", "must not be empty or contain '='"},
        {SPEC(",\"env\":[\"A=1\"]"), "env", "must be an object of strings, not an array"},
        {SPEC(",\"command\":\"wc -c\""), "command", "must be an array of strings, not a string"},
        {SPEC(",\"command\":[\"a\",2]"), "command[1]", "must be a string, not a number"},
        {SPEC(",\"secrets\":[\"Bad_Name\"]"), "secrets[0]", "must be a name"},
        {SPEC(",\"constraints\":[\"zone\"]"), "constraints[0]", "label=value"},
        {SPEC(",\"constraints\":[\"!=b\"]"), "constraints[0]", "label=value"},
        {SPEC(",\"namespace\":\"A\""), "namespace", "must be a name"},
        {SPEC(",\"face\":\"x\""), "face", "must be"},
        {SPEC(",\"scale\":{\"cpu\":1001}"), "scale.cpu", "must be 1 to 1000"},
        {SPEC(",\"scale\":{\"memory\":\"80%\"}"), "scale.memory", "must be a number"},
        {SPEC(",\"scale\":{\"window\":\"1s\"}"), "scale.window", "must be 6s to 1h"},
        {SPEC(",\"scale\":{\"panic_window\":0}"), "scale.panic_window", "must be 1 to 100"},
        {SPEC(",\"scale\":{\"panic_threshold\":100}"), "scale.panic_threshold", "must be 110 to 1000"},
        {SPEC(",\"scale\":{\"down\":60}"), "scale.down", "a duration with its unit"},
        {SPEC(",\"scale\":{\"up_rate\":1}"), "scale.up_rate", "must be 2 to 1000"},
        {SPEC(",\"scale\":{\"down_rate\":-2}"), "scale.down_rate", "must be 2 to 1000"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q-depth\",\"url\":\"replica:/m\",\"target\":1}]}"),
         "scale.metrics[0].name", "must be a metric's name"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"ftp://x/m\",\"target\":1}]}"),
         "scale.metrics[0].url", "must be"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/m\"}]}"),
         "scale.metrics[0].target", "must be given"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/m\",\"target\":\"1\"}]}"),
         "scale.metrics[0].target", "must be a number"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/m\",\"target\":-1}]}"),
         "scale.metrics[0].target", "must be 0 to"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/"
              "m\",\"target\":1,\"activation\":-1}]}"),
         "scale.metrics[0].activation", "must be 0 to"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/"
              "m\",\"target\":1,\"interval\":\"1ms\"}]}"),
         "scale.metrics[0].interval", "must be 1s to 1h"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/"
              "m\",\"target\":1,\"aggregate\":\"min\"}]}"),
         "scale.metrics[0].aggregate", "must be one of"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"replica:/"
              "m\",\"target\":1,\"labels\":{\"a-b\":\"c\"}}]}"),
         "scale.metrics[0].labels.a-b", "must be a label's name"},
        {SPEC(",\"scale\":{\"metrics\":[{},{},{},{},{},{},{},{},{}]}"), "scale.metrics", "at most 8"},
        {SPEC(",\"scale\":{\"schedule\":[{\"cron\":\"0 8 * *\",\"duration\":\"1h\",\"min\":1}]}"),
         "scale.schedule[0].cron", "needs five fields"},
        {SPEC(",\"scale\":{\"schedule\":[{\"cron\":\"0 8 * * 1-5\",\"min\":1}]}"),
         "scale.schedule[0].duration", "must be given"},
        {SPEC(",\"scale\":{\"schedule\":[{\"cron\":\"@daily\",\"duration\":\"5s\",\"min\":1}]}"),
         "scale.schedule[0].duration", "must be 1m"},
        {SPEC(",\"scale\":{\"schedule\":[{\"cron\":\"@daily\",\"duration\":\"1h\",\"min\":0}]}"),
         "scale.schedule[0].min", "must be 1 to 10000"},
        {SPEC(",\"scale\":{\"schedule\":[{\"cron\":\"@daily\",\"duration\":\"1h\",\"min\":1,"
              "\"timezone\":\"../etc/passwd\"}]}"),
         "scale.schedule[0].timezone", "name of a time zone"},
        {"{\"name\":\"Hello\",\"image\":\"i\"}", "name", "must be a name"},
        {"{\"name\":\"f\",\"image\":\"\"}", "image", "must not be empty"},
        {"{\"name\":\"f\",\"image\":\"a b\"}", "image", "image reference"},
        {"{\"name\":\"f\",\"image\":\"-rm\"}", "image", "image reference"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
        struct dv_fn_spec s = {.port = 4711};
        struct dv_err e = DV_ERR_INIT;
        int rc = decode_spec(&a, rows[i].json, 0, &s, &e);
        if (rc != DV_INVALID || strcmp(e.field, rows[i].field) != 0 || !strstr(e.msg, rows[i].why))
            fail_msg("%s: got %d, %s, \"%s\"", rows[i].json, rc, e.field, e.msg);
        assert_int_equal(s.port, 4711); /* untouched */
    }
}

static void rules_across_fields_are_checked_by_finish(void **state)
{
    (void)state;
    static const struct {
        const char *json, *field;
    } rows[] = {
        {SPEC(",\"scale\":{\"min\":5,\"max\":4}"), "scale.min"},
        {SPEC(",\"scale\":{\"concurrency\":4,\"target\":5}"), "scale.target"},
        {SPEC(",\"scale\":{\"cpu\":70}"), "scale.cpu"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"http://x/m\",\"target\":0}]}"),
         "scale.metrics[0].target"},
        {SPEC(",\"scale\":{\"metrics\":[{\"name\":\"q\",\"url\":\"http://x/"
              "m\",\"target\":1,\"interval\":\"1s\","
              "\"timeout\":\"2s\"}]}"),
         "scale.metrics[0].timeout"},
        {SPEC(",\"protocol\":\"stdio\",\"command\":[\"x\"],\"scale\":{\"metrics\":[{\"name\":\"q\","
              "\"url\":\"replica:/m\",\"target\":1}]}"),
         "scale.metrics[0].url"},
        {SPEC(",\"scale\":{\"max\":4,\"schedule\":[{\"cron\":\"@daily\",\"duration\":\"1h\",\"min\":4},"
              "{\"cron\":\"@hourly\",\"duration\":\"1m\",\"min\":5}]}"),
         "scale.schedule[1].min"},
        {SPEC(",\"scale\":{\"memory\":70},\"limits\":{\"cpu\":\"1\"}"), "scale.memory"},
        {SPEC(",\"protocol\":\"stdio\""), "command"},
        {SPEC(",\"command\":[\"\"]"), "command[0]"},
        {SPEC(",\"entrypoint\":[\"\"]"), "entrypoint[0]"},
        {SPEC(",\"secrets\":[\"a\",\"b\",\"a\"]"), "secrets[2]"},
        {SPEC(",\"limits\":{\"memory\":\"64Mi\"},\"requests\":{\"memory\":\"65Mi\"}"), "requests.memory"},
        {SPEC(",\"limits\":{\"cpu\":\"500m\"},\"requests\":{\"cpu\":\"1\"}"), "requests.cpu"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
        struct dv_fn_spec s;
        struct dv_err e = DV_ERR_INIT;
        assert_int_equal(decode_spec(&a, rows[i].json, 0, &s, &e), DV_OK);
        assert_int_equal(dv_fn_spec_finish(&s, &a, &e), DV_INVALID);
        assert_string_equal(e.field, rows[i].field);
    }
}

static void defaults_that_depend_on_others_follow_them(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s;
    assert_int_equal(
        decode_spec(&a,
                    SPEC(",\"protocol\":\"stdio\",\"command\":[\"wc\"],\"timeout\":\"5s\",\"limits\":{"
                         "\"memory\":\"32Mi\",\"cpu\":\"20m\"}"),
                    0, &s, NULL),
        DV_OK);
    assert_int_equal(dv_fn_spec_finish(&s, &a, NULL), DV_OK);
    assert_int_equal(s.scale.concurrency, 1);
    assert_int_equal(s.scale.target, 1);
    assert_int_equal(s.scale.queue_timeout_ms, 5000);
    assert_int_equal(dv_fn_requests(&s).memory_bytes, 32 << 20);
    assert_int_equal(dv_fn_requests(&s).cpu_mcpu, 20);
}

static void what_was_left_to_the_cluster_is_resolved_where_it_is_used(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s, r;
    assert_int_equal(decode_spec(&a, SPEC(""), 0, &s, NULL), DV_OK);
    dv_fn_spec_resolved(&s, 0, &r);
    assert_int_equal(r.scale.idle_ms, 60000);
    assert_int_equal(r.requests.memory_bytes, 64 << 20);
    assert_int_equal(r.requests.cpu_mcpu, 50);
    assert_int_equal(s.scale.idle_ms, 0);
    assert_int_equal(dv_fn_idle_ms(&s, 5000), 5000);
    s.face = (char *)"openfaas";
    assert_int_equal(dv_fn_idle_ms(&s, 0), 45000);
    assert_int_equal(dv_fn_idle_ms(&s, 5000), 5000);
    assert_int_equal(
        decode_spec(&a, SPEC(",\"scale\":{\"idle\":\"1m\"},\"requests\":{\"cpu\":\"30m\"}"), 0, &s, NULL),
        DV_OK);
    assert_int_equal(dv_fn_idle_ms(&s, 5000), 60000); /* chosen, though it is what the default was */
    assert_int_equal(dv_fn_requests(&s).cpu_mcpu, 30);
    assert_int_equal(decode_spec(&a, SPEC(",\"scale\":{\"idle\":\"0s\"}"), 0, &s, NULL), DV_INVALID);
}

static void a_patch_moves_derived_values_and_keeps_chosen_ones(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s;
    struct dv_err e = DV_ERR_INIT;
    assert_int_equal(
        decode_spec(
            &a, SPEC(",\"env\":{\"A\":\"1\",\"B\":\"2\"},\"scale\":{\"max\":7},\"command\":[\"x\",\"y\"]"), 0,
            &s, &e),
        DV_OK);
    assert_int_equal(dv_fn_spec_finish(&s, &a, &e), DV_OK);
    dv_fn_spec_unfinish(&s);
    assert_int_equal(
        decode_spec(
            &a,
            "{\"scale\":{\"concurrency\":10},\"timeout\":\"5s\",\"env\":{\"A\":null,\"C\":\"3\",\"Z\":null},"
            "\"command\":[\"z\"],\"port\":null}",
            DV_WIRE_PARTIAL, &s, &e),
        DV_OK);
    assert_int_equal(dv_fn_spec_finish(&s, &a, &e), DV_OK);
    assert_string_equal(s.name, "f");
    assert_int_equal(s.scale.max, 7);
    assert_int_equal(s.scale.concurrency, 10);
    assert_int_equal(s.scale.target, 7);
    assert_int_equal(s.scale.queue_timeout_ms, 5000);
    assert_int_equal(s.env.n, 2);
    assert_null(dv_kvs_find(&s.env, "A"));
    assert_string_equal(dv_kvs_find(&s.env, "B"), "2");
    assert_string_equal(dv_kvs_find(&s.env, "C"), "3");
    assert_int_equal(s.command.n, 1);
    assert_int_equal(s.port, 8080);
    assert_int_equal(decode_spec(&a, "{\"image\":null}", DV_WIRE_PARTIAL, &s, &e), DV_INVALID);
    assert_string_equal(e.field, "image");
}

static void maps_are_sorted_by_key(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s;
    assert_int_equal(decode_spec(&a, SPEC(",\"env\":{\"B\":\"2\",\"A\":\"1\",\"C\":\"3\"}"), 0, &s, NULL),
                     DV_OK);
    assert_string_equal(s.env.v[0].k, "A");
    assert_string_equal(s.env.v[2].k, "C");
}

static void unknown_fields_are_skipped_only_when_asked(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec s;
    const char *json = SPEC(",\"future\":{\"deep\":[1,2]},\"scale\":{\"future\":1}");
    assert_int_equal(decode_spec(&a, json, DV_WIRE_STRICT, &s, NULL), DV_INVALID);
    assert_int_equal(decode_spec(&a, json, DV_WIRE_IGNORE_UNKNOWN, &s, NULL), DV_OK);
}

static void a_tagged_message_holds_the_member_of_its_type_and_no_other(void **state)
{
    (void)state;
    static const struct {
        const char *json, *field;
    } rows[] = {
        {"{\"type\":\"stop\"}", "stop"},
        {"{\"type\":\"stop\",\"stop\":{\"id\":\"0000000000000001\"},\"sync\":{\"ids\":[]}}", "sync"},
        {"{\"type\":\"dance\"}", "type"},
        {"{\"type\":\"stop\",\"stop\":{\"id\":\"1\"}}", "stop.id"},
        {"{\"type\":\"stop\",\"stop\":{\"id\":1}}", "stop.id"},
        {"{\"type\":\"sync\",\"sync\":{\"ids\":[\"0000000000000001\",\"xyz\"]}}", "sync.ids[1]"},
        {"{\"type\":\"sync\",\"sync\":{}}", "sync.ids"},
        {"{\"type\":\"start\",\"start\":{\"id\":\"0000000000000001\",\"fn_uid\":\"0000000000000001\","
         "\"generation\":1}}",
         "start.spec"},
    };
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_control_msg c;
    struct dv_err e = DV_ERR_INIT;
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        assert_int_equal(dv_wire_decode(&dv_type_control, dv_sv_c(rows[i].json), 1000, 0, &a, &c, &e),
                         DV_INVALID);
        assert_string_equal(e.field, rows[i].field);
    }
    /* An older agent skips what it does not know. */
    assert_int_equal(dv_wire_decode(&dv_type_control, DV_SV("{\"type\":\"dance\",\"dance\":{}}"), 1000,
                                    DV_WIRE_IGNORE_UNKNOWN, &a, &c, &e),
                     DV_OK);
    assert_string_equal(c.type, "dance");
}

static void large_integers_travel_as_text_and_small_ones_must_not(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_function f;
    static const struct {
        const char *number;
        uint64_t value; /* 0: refused */
    } rows[] = {
        {"4503599627370496", 1ull << 52},
        {"\"4503599627370497\"", (1ull << 52) + 1},
        {"\"18446744073709551615\"", UINT64_MAX},
        {"4503599627370498", 0},
        {"\"5\"", 0},
        {"-1", 0},
        {"1.5", 0},
        {"\"18446744073709551616\"", 0},
        {"true", 0},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        char json[200];
        (void)snprintf(
            json, sizeof(json),
            "{\"uid\":\"00000000000000ff\",\"generation\":%s,\"spec\":{\"name\":\"f\",\"image\":\"i\"}}",
            rows[i].number);
        int rc = dv_wire_decode(&dv_type_function, dv_sv_c(json), 1000, 0, &a, &f, NULL);
        assert_int_equal(rc, rows[i].value ? DV_OK : DV_INVALID);
        if (!rc)
            assert_true(f.generation == rows[i].value);
    }
}

/* ---------------------------------------------------------------- quantities and names */

static void durations_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } rows[] = {
        {"0", 0},
        {"0s", 0},
        {"250ms", 250},
        {"30s", 30000},
        {"1m30s", 90000},
        {"1h2m3.5s", 3723500},
        {"1.5h", 5400000},
        {"2m", 120000},
        {"0.0005s", 0},
        {"", -1},
        {"30", -1},
        {"s", -1},
        {"1.s", -1},
        {".5s", -1},
        {"-1s", -1},
        {"1d", -1},
        {"1 s", -1},
        {"9223372036854775807s", -1},
        {"9223372036854775808ms", -1},
        {"1s1", -1},
        {"1.0000000001s", -1},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        int64_t ms = -1;
        int rc = dv_parse_duration_ms(dv_sv_c(rows[i].text), &ms);
        if (rc != (rows[i].ms < 0 ? DV_INVALID : DV_OK) || ms != rows[i].ms)
            fail_msg("\"%s\": %d, %lld", rows[i].text, rc, (long long)ms);
    }
}

static void amounts_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes, mcpu; /* -1: refused */
    } rows[] = {
        {"128Mi", 128 << 20, -1},
        {"1G", 1000000000, -1},
        {"512k", 512000, -1},
        {"1048576", 1048576, 1048576000},
        {"1.5Gi", 1610612736, -1},
        {"0.5", -1, 500},
        {"2", 2, 2000},
        {"500m", -1, 500},
        {"0.5m", -1, -1},
        {"", -1, -1},
        {"Mi", -1, -1},
        {"1MiB", -1, -1},
        {"-1", -1, -1},
        {"9999999Ti", -1, -1},
        {"0", 0, 0},
        {"1e3", -1, -1},
        {"0.001", -1, 1},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        int64_t b = -1, c = -1;
        (void)dv_parse_bytes(dv_sv_c(rows[i].text), &b);
        (void)dv_parse_mcpu(dv_sv_c(rows[i].text), &c);
        if (b != rows[i].bytes || c != rows[i].mcpu)
            fail_msg("\"%s\": %lld bytes, %lld mcpu", rows[i].text, (long long)b, (long long)c);
    }
}

static void what_is_formatted_reads_back_the_same(void **state)
{
    (void)state;
    static const int64_t values[] = {0,    1,     20,      250,     999,     1000,      1500,
                                     1001, 59999, 60000,   90000,   3600000, 3661500,   86400000,
                                     1024, 1536,  1048576, 6291456, 1000000, 1ll << 50, INT64_MAX};
    char text[32];
    for (size_t i = 0; i < DV_COUNT(values); i++) {
        int64_t back = -1;
        dv_format_duration(values[i], text);
        assert_int_equal(dv_parse_duration_ms(dv_sv_c(text), &back), DV_OK);
        assert_true(back == values[i]);
        dv_format_bytes(values[i], text);
        assert_int_equal(dv_parse_bytes(dv_sv_c(text), &back), DV_OK);
        assert_true(back == values[i]);
        dv_format_mcpu(values[i], text);
        assert_int_equal(dv_parse_mcpu(dv_sv_c(text), &back), DV_OK);
        assert_true(back == values[i]);
    }
    dv_format_duration(90000, text);
    assert_string_equal(text, "1m30s");
    dv_format_duration(1500, text);
    assert_string_equal(text, "1.5s");
    dv_format_bytes(134217728, text);
    assert_string_equal(text, "128Mi");
    dv_format_mcpu(2500, text);
    assert_string_equal(text, "2500m");
}

static void names_are_dns_labels(void **state)
{
    (void)state;
    static const char *const good[] = {
        "a", "wc", "a-b", "0", "x9", "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabc"};
    static const char *const bad[] = {
        "",    "-a",  "a-", "A",        "a_b",
        "a.b", "a/b", " a", "\xc3\xa4", "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcd"};
    for (size_t i = 0; i < DV_COUNT(good); i++)
        assert_true(dv_name_valid(good[i]));
    for (size_t i = 0; i < DV_COUNT(bad); i++)
        assert_false(dv_name_valid(bad[i]));
    assert_false(dv_name_valid(NULL));
}

static void every_state_and_reason_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < DV_REPLICA_N_STATES; i++)
        assert_string_not_equal(dv_replica_state_name((enum dv_replica_state)i), "unknown");
    for (int i = 0; i < DV_REASON_N; i++) {
        assert_string_not_equal(dv_reason_name((enum dv_reason)i), "unknown");
        assert_string_not_equal(dv_reason_text((enum dv_reason)i), "unknown reason");
    }
    assert_string_equal(dv_replica_state_name(DV_REPLICA_N_STATES), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_that_is_not_json_is_refused_with_its_place),
        cmocka_unit_test(a_raw_nul_byte_in_the_text_is_refused),
        cmocka_unit_test(equal_keys_are_found_in_large_objects_too),
        cmocka_unit_test(depth_and_size_have_an_end),
        cmocka_unit_test(surrogate_pairs_become_one_character),
        cmocka_unit_test(a_short_spec_gets_every_default),
        cmocka_unit_test(a_wrong_field_is_named_by_its_path),
        cmocka_unit_test(rules_across_fields_are_checked_by_finish),
        cmocka_unit_test(defaults_that_depend_on_others_follow_them),
        cmocka_unit_test(what_was_left_to_the_cluster_is_resolved_where_it_is_used),
        cmocka_unit_test(a_patch_moves_derived_values_and_keeps_chosen_ones),
        cmocka_unit_test(maps_are_sorted_by_key),
        cmocka_unit_test(unknown_fields_are_skipped_only_when_asked),
        cmocka_unit_test(a_tagged_message_holds_the_member_of_its_type_and_no_other),
        cmocka_unit_test(large_integers_travel_as_text_and_small_ones_must_not),
        cmocka_unit_test(durations_are_read_as_people_write_them),
        cmocka_unit_test(amounts_are_read_as_people_write_them),
        cmocka_unit_test(what_is_formatted_reads_back_the_same),
        cmocka_unit_test(names_are_dns_labels),
        cmocka_unit_test(every_state_and_reason_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

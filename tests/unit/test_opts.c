#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "proto/rt/opts.h"
#include "proto/rt/sys.h"

static struct {
    const char *listen, *output;
    bool verbose, colour;
    int64_t loops, idle_ms, memory;
    struct dv_strs labels;
    const char *token;
} got;

static const struct dv_opt k_opts[] = {
    {.name = "listen",
     .kind = DV_OPT_STR,
     .out = &got.listen,
     .arg = "HOST:PORT",
     .help = "Listen here.",
     .preset = "127.0.0.1:8080"},
    {.name = "output",
     .kind = DV_OPT_STR,
     .out = &got.output,
     .help = "Shape of the output.",
     .preset = "table",
     .choices = "json|table|wide",
     .letter = 'o',
     .cli_only = true},
    {.name = "verbose",
     .kind = DV_OPT_BOOL,
     .out = &got.verbose,
     .help = "Say more.",
     .preset = "false",
     .letter = 'v'},
    {.name = "colour",
     .kind = DV_OPT_BOOL,
     .out = &got.colour,
     .help = "Colours.",
     .preset = "true",
     .letter = 'c'},
    {.name = "loops",
     .kind = DV_OPT_INT,
     .out = &got.loops,
     .help = "Threads.",
     .preset = "2",
     .min = 1,
     .max = 64},
    {.name = "idle", .kind = DV_OPT_MS, .out = &got.idle_ms, .help = "Idle time.", .preset = "60s"},
    {.name = "memory-limit", .kind = DV_OPT_BYTES, .out = &got.memory, .help = "Memory.", .preset = "64Mi"},
    {.name = "label",
     .kind = DV_OPT_STRS,
     .out = &got.labels,
     .arg = "K=V",
     .help = "Label of the node.",
     .letter = 'l'},
    {.name = "join-token", .kind = DV_OPT_STR, .out = &got.token, .help = "Token."},
};

static struct dv_opts_spec spec = {
    .program = "davit-test", .about = "A program.", .opts = k_opts, .n_opts = DV_COUNT(k_opts)};
static struct dv_arena arena;
static struct dv_err err;
static struct dv_opts_result res;
static char config[64];

static int reset(void **state)
{
    (void)state;
    memset(&got, 0, sizeof(got));
    memset(&err, 0, sizeof(err));
    spec.takes_args = spec.stops_at_arg = false;
    return 0;
}

static int clean(void **state)
{
    (void)state;
    dv_arena_deinit(&arena);
    if (config[0])
        (void)unlink(config);
    config[0] = '\0';
    return 0;
}

#define PARSE(env, ...)                                                                                      \
    dv_opts_parse(&spec, (int)DV_COUNT(((const char *[]){"prog", __VA_ARGS__})),                             \
                  (char *const *)(uintptr_t)(const char *[]){"prog", __VA_ARGS__}, env, &arena, &res, &err)
#define ENV(...) ((char *const *)(uintptr_t)(const char *[]){__VA_ARGS__, NULL})

static const char *config_file(const char *json)
{
    (void)snprintf(config, sizeof(config), "/tmp/dv-opts-%d.json", (int)getpid());
    assert_int_equal(dv_file_write(config, dv_sv_c(json), 0600, NULL), DV_OK);
    return config;
}

static void nothing_given_leaves_the_presets(void **state)
{
    (void)state;
    char *argv[] = {(char *)(uintptr_t) "prog"};
    assert_int_equal(dv_opts_parse(&spec, 1, argv, NULL, &arena, &res, &err), DV_OK);
    assert_string_equal(got.listen, "127.0.0.1:8080");
    assert_true(got.colour);
    assert_int_equal(got.loops, 2);
    assert_int_equal(got.idle_ms, 60000);
    assert_int_equal(got.memory, 64 << 20);
    assert_int_equal(got.labels.n, 0);
    assert_null(got.token);
    assert_null(res.config);
}

static void every_way_to_write_an_option_is_taken(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NULL, "--listen", "a:1", "--idle=1m30s", "-ojson", "--no-colour", "-v", "-l",
                           "a=b", "--label=c=d", "--memory-limit", "1G"),
                     DV_OK);
    assert_string_equal(got.listen, "a:1");
    assert_string_equal(got.output, "json");
    assert_int_equal(got.idle_ms, 90000);
    assert_false(got.colour);
    assert_true(got.verbose);
    assert_int_equal(got.labels.n, 2);
    assert_string_equal(got.labels.v[0], "a=b");
    assert_string_equal(got.labels.v[1], "c=d");
    assert_true(got.memory == 1000000000);
    assert_int_equal(PARSE(NULL, "--verbose=false", "-o=wide", "-vc"), DV_OK);
    assert_true(got.verbose);
    assert_string_equal(got.output, "wide");
}

static void line_wins_over_environment_wins_over_file(void **state)
{
    (void)state;
    const char *file =
        config_file("{\"listen\": \"file:1\", \"loops\": 3, \"idle\": \"3s\", \"label\": [\"f=1\", \"f=2\"], "
                    "\"verbose\": true}");
    assert_int_equal(
        PARSE(ENV("DAVIT_LISTEN=env:1", "DAVIT_LOOPS=4", "DAVIT_LABEL=e=1, e=2,e=3", "DAVIT_JOIN_TOKEN="),
              "--config", file, "--listen", "line:1"),
        DV_OK);
    assert_string_equal(got.listen, "line:1");
    assert_int_equal(got.loops, 4);
    assert_int_equal(got.idle_ms, 3000);
    assert_true(got.verbose);
    assert_int_equal(got.labels.n, 3);
    assert_string_equal(got.labels.v[1], "e=2");
    assert_null(got.token);
    assert_string_equal(res.config, file);
    assert_int_equal(PARSE(NULL, "--config", file, "--label", "only=1"), DV_OK);
    assert_int_equal(got.labels.n, 1);
}

static void the_file_may_be_named_in_the_environment(void **state)
{
    (void)state;
    char var[96];
    (void)snprintf(var, sizeof(var), "DAVIT_CONFIG=%s", config_file("{\"loops\": 5}"));
    char *env[] = {var, NULL};
    assert_int_equal(PARSE(env, "-v"), DV_OK);
    assert_int_equal(got.loops, 5);
}

static void an_unknown_option_names_the_closest(void **state)
{
    (void)state;
    assert_int_equal(PARSE(NULL, "--lisen", "x"), DV_INVALID);
    assert_string_equal(err.msg, "unknown option --lisen; did you mean --listen");
}

static void wrong_values_name_the_option_and_what_is_wanted(void **state)
{
    (void)state;
    static const struct {
        const char *arg, *says;
    } rows[] = {
        {"--idle=soon", "--idle: \"soon\" is not a duration such as 250ms or 1m30s"},
        {"--loops=x", "--loops: \"x\" is not a whole number"},
        {"--loops=65", "--loops: 65 is out of range (1 to 64)"},
        {"--memory-limit=big", "--memory-limit: \"big\" is not an amount such as 512Ki or 64Mi"},
        {"--output=xml", "--output: \"xml\" is not one of json|table|wide"},
        {"--verbose=maybe", "--verbose: \"maybe\" is neither true nor false"},
        {"--listen", "--listen needs a value"},
        {"-z", "unknown option -z; see --help"},
        {"stray", "unexpected argument \"stray\""},
        {"--no-listen", "unknown option --no-listen"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        assert_int_equal(PARSE(NULL, rows[i].arg), DV_INVALID);
        if (strncmp(err.msg, rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("%s: %s", rows[i].arg, err.msg);
    }
    assert_int_equal(PARSE(ENV("DAVIT_IDLE=soon"), "-v"), DV_INVALID);
    assert_non_null(strstr(err.msg, "DAVIT_IDLE: \"soon\""));
}

static void a_bad_file_is_refused_with_its_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"{\"lisen\": \"x\"}", "unknown option lisen; did you mean listen"},
        {"{\"output\": \"json\"}", "unknown option output"},
        {"{\"loops\": true}", "loops: wrong type of value"},
        {"{\"loops\": 2.5}", "loops: \"2.5\" is not a whole number"},
        {"{\"label\": [1]}", "label: wrong type of value"},
        {"[]", "not a JSON object"},
        {"{\"loops\": 2, \"loops\": 3}", ""},
        {"{", ""},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        const char *file = config_file(rows[i].json);
        assert_int_equal(PARSE(NULL, "--config", file), DV_INVALID);
        assert_non_null(strstr(err.msg, file));
        assert_non_null(strstr(err.msg, rows[i].says));
    }
    assert_int_equal(PARSE(NULL, "--config=/no/such/file"), DV_INVALID);
    assert_non_null(strstr(err.msg, "/no/such/file"));
}

static void arguments_and_what_follows_dashes_are_kept_apart(void **state)
{
    (void)state;
    spec.takes_args = true;
    assert_int_equal(PARSE(NULL, "wc", "--loops", "3", "more", "-", "--", "wc", "--lines"), DV_OK);
    assert_int_equal(res.args.n, 3);
    assert_string_equal(res.args.v[1], "more");
    assert_string_equal(res.args.v[2], "-");
    assert_true(res.has_dashes);
    assert_int_equal(res.after.n, 2);
    assert_string_equal(res.after.v[1], "--lines");
    assert_int_equal(got.loops, 3);
}

static void a_subcommand_ends_the_options(void **state)
{
    (void)state;
    spec.stops_at_arg = true;
    assert_int_equal(PARSE(NULL, "-v", "deploy", "--anything", "--", "x"), DV_OK);
    assert_int_equal(res.args.n, 4);
    assert_string_equal(res.args.v[1], "--anything");
    assert_true(got.verbose);
}

static void help_and_version_come_before_any_complaint(void **state)
{
    (void)state;
    assert_int_equal(PARSE(ENV("DAVIT_LOOPS=nonsense"), "--help", "--what"), DV_OK);
    assert_true(res.want_help);
    assert_int_equal(PARSE(NULL, "-h"), DV_OK);
    assert_true(res.want_help);
    assert_int_equal(PARSE(NULL, "--version"), DV_OK);
    assert_true(res.want_version);
}

static void help_lists_every_option_with_its_default(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_opts_help(&spec, &b), DV_OK);
    const char *text = dv_buf_cstr(&b);
    for (size_t i = 0; i < DV_COUNT(k_opts); i++)
        assert_non_null(strstr(text, k_opts[i].name));
    assert_non_null(strstr(text, "--listen HOST:PORT          Listen here. (default 127.0.0.1:8080)\n"));
    assert_non_null(strstr(text, "  -o, --output json|table|wide"));
    assert_non_null(strstr(text, "--config FILE"));
    assert_non_null(strstr(text, "DAVIT_METRICS_LISTEN"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, reset, clean)
    const struct CMUnitTest tests[] = {
        T(nothing_given_leaves_the_presets),
        T(every_way_to_write_an_option_is_taken),
        T(line_wins_over_environment_wins_over_file),
        T(the_file_may_be_named_in_the_environment),
        T(an_unknown_option_names_the_closest),
        T(wrong_values_name_the_option_and_what_is_wanted),
        T(a_bad_file_is_refused_with_its_name),
        T(arguments_and_what_follows_dashes_are_kept_apart),
        T(a_subcommand_ends_the_options),
        T(help_and_version_come_before_any_complaint),
        T(help_lists_every_option_with_its_default),
    };
    return cmocka_run_group_tests_name("opts", tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

/* Usage errors are spoken on stderr; the tests look at their codes only. */
static int saved_stderr = -1;

static int hush(void **state)
{
    (void)state;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    saved_stderr = dup(2);
    return dup2(null_fd, 2) < 0 || close(null_fd);
}

static int unhush(void **state)
{
    (void)state;
    return dup2(saved_stderr, 2) < 0 || close(saved_stderr);
}

static char *json_of(const char *yaml, bool as_text)
{
    cJSON *doc = NULL;
    struct dv_err err = DV_ERR_INIT;
    if (cli_yaml_parse(yaml, strlen(yaml), as_text, &doc, &err) != DV_OK)
        fail_msg("%s", err.msg);
    char *text = cJSON_PrintUnformatted(doc);
    cJSON_Delete(doc);
    return text;
}

static void assert_json(const char *yaml, bool as_text, const char *wanted)
{
    char *got = json_of(yaml, as_text);
    assert_string_equal(got, wanted);
    cJSON_free(got);
}

static void assert_refused(const char *yaml, const char *words)
{
    cJSON *doc = NULL;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(cli_yaml_parse(yaml, strlen(yaml), false, &doc, &err), DV_INVALID);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
    assert_null(doc);
}

/* ---------------------------------------------------------------- YAML */

static void scalars_are_typed_as_json_would(void **state)
{
    (void)state;
    assert_json("a: 1\nb: true\nc: ~\nd: text\ne: '1'\nf: 0.5\ng:\n", false,
                "{\"a\":1,\"b\":true,\"c\":null,\"d\":\"text\",\"e\":\"1\",\"f\":0.5,\"g\":null}");
}

static void values_of_env_stay_texts_whatever_they_look_like(void **state)
{
    (void)state;
    assert_json("env: {PORT: 8080, VERSION: 1.10, ON: true}\ncommand: [sleep, 5]\nport: 8080\n", false,
                "{\"env\":{\"PORT\":\"8080\",\"VERSION\":\"1.10\",\"ON\":\"true\"},\"command\":[\"sleep\","
                "\"5\"],\"port\":8080}");
}

static void aliases_and_merges_are_followed(void **state)
{
    (void)state;
    assert_json("base: &b {x: 1, y: 2}\nfn: {<<: *b, y: 3}\nlist: [*b]\n", false,
                "{\"base\":{\"x\":1,\"y\":2},\"fn\":{\"y\":3,\"x\":1},\"list\":[{\"x\":1,\"y\":2}]}");
}

static void broken_yaml_is_refused_with_its_line(void **state)
{
    (void)state;
    assert_refused("a: 1\nb: [1, 2\n", "line 3");
    assert_refused("a: 1\na: 2\n", "twice");
    assert_refused("", "empty");
}

static void a_small_file_cannot_unfold_into_a_huge_one(void **state)
{
    (void)state;
    assert_refused("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c "
                   "[*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
                   "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
                   "too much");
}

/* ---------------------------------------------------------------- stack.yml */

static const char *lookup(const char *name)
{
    return strcmp(name, "TAG") == 0 ? "1.2" : strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static void assert_substituted(const char *from, const char *to)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(cli_stack_substitute(from, strlen(from), lookup, &b, NULL), DV_OK);
    assert_string_equal(dv_buf_cstr(&b), to);
}

static void variables_are_substituted_as_faas_cli_does(void **state)
{
    (void)state;
    assert_substituted("img:${TAG} $$5 ${NO:-x/y} ${EMPTY:-z}|${EMPTY-z}|${NO} $HOME",
                       "img:1.2 $5 x/y z|| $HOME");
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(cli_stack_substitute("${TAG", 5, lookup, &b, NULL), DV_INVALID);
    assert_int_equal(cli_stack_substitute("${TAG%x}", 8, lookup, &b, NULL), DV_INVALID);
}

static int stack_function(const char *yaml, char **out_json, struct dv_err *err)
{
    struct cli c = {0};
    cJSON *doc = NULL, *body = NULL;
    assert_int_equal(cli_yaml_parse(yaml, strlen(yaml), true, &doc, err), DV_OK);
    int code = cli_stack_function(&c, doc, "fn", ".", &body, err);
    *out_json = body ? cJSON_PrintUnformatted(body) : NULL;
    cJSON_Delete(body);
    cJSON_Delete(doc);
    dv_arena_deinit(&c.arena);
    return code;
}

static void a_stack_function_becomes_an_openfaas_deployment(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    char *json;
    assert_int_equal(
        stack_function(
            "lang: go\nhandler: ./fn\nimage: r/fn:1\nfprocess: wc -l\nreadonly_root_filesystem: true\n"
            "environment: {A: 1, B: }\nlabels: {com.openfaas.scale.max: 5}\nsecrets: [key]\n"
            "limits: {memory: 40Mi, cpu: 100m}\n",
            &json, &err),
        DV_OK);
    assert_string_equal(
        json,
        "{\"service\":\"fn\",\"image\":\"r/fn:1\",\"envProcess\":\"wc -l\",\"readOnlyRootFilesystem\":true,"
        "\"envVars\":{\"A\":\"1\",\"B\":\"\"},\"labels\":{\"com.openfaas.scale.max\":\"5\"},"
        "\"secrets\":[\"key\"],\"limits\":{\"memory\":\"40Mi\",\"cpu\":\"100m\"}}");
    cJSON_free(json);
}

static void a_stack_function_with_a_mistake_names_it(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    char *json;
    assert_int_equal(stack_function("image: r/fn\nimagee: x\n", &json, &err), DV_INVALID);
    assert_string_equal(err.field, "imagee");
    assert_int_equal(stack_function("lang: go\n", &json, &err), DV_INVALID);
    assert_string_equal(err.field, "image");
    assert_int_equal(stack_function("image: r/fn\nsecrets: key\n", &json, &err), DV_INVALID);
    assert_string_equal(err.field, "secrets");
    assert_int_equal(stack_function("image: r/fn\nlabels: {a: [b]}\n", &json, &err), DV_INVALID);
    assert_string_equal(err.field, "labels");
    assert_null(json);
}

/* ---------------------------------------------------------------- options */

struct taken {
    const char *image;
    struct cli_list env;
    int64_t memory, idle, max;
    bool wait;
};

#define OPT(name_, letter_, kind_, member)                                                                   \
    {                                                                                                        \
        .name = (name_), .letter = (letter_), .kind = (kind_), .offset = offsetof(struct taken, member),     \
        .value = "V", .help = ""                                                                             \
    }

static const struct cli_opt opts[] = {
    OPT("--image", 'i', CLI_TEXT, image),
    OPT("--env", 'e', CLI_LIST, env),
    OPT("--memory", 0, CLI_BYTES, memory),
    OPT("--idle", 0, CLI_DURATION, idle),
    OPT("--max", 0, CLI_INT, max),
    OPT("--wait", 'w', CLI_FLAG, wait),
    {.name = NULL},
};
static const struct cli_cmd cmd = {.name = "t",
                                   .synopsis = "",
                                   .summary = "",
                                   .opts = opts,
                                   .min_words = 1,
                                   .max_words = 1,
                                   .takes_command = true};

static int parse(struct cli *c, struct taken *t, struct cli_list *words, const char *const *argv)
{
    bool help;
    int n = 0;
    while (argv[n])
        n++;
    *t = (struct taken){0};
    *words = (struct cli_list){0};
    return cli_args_parse(c, &cmd, n, (char **)(uintptr_t)argv, t, words, &help);
}

#define PARSE(...) parse(&c, &t, &words, (const char *const[]){__VA_ARGS__, NULL})

static void options_and_words_may_stand_in_any_order(void **state)
{
    (void)state;
    struct cli c = {0};
    struct taken t;
    struct cli_list words;
    assert_int_equal(PARSE("-i", "img", "fn", "--env=A=1", "-eB=2", "--memory", "64Mi", "--idle", "1m30s",
                           "-w", "-n", "prod", "--", "wc", "-c"),
                     CLI_OK);
    assert_string_equal(t.image, "img");
    assert_int_equal(t.env.n, 2);
    assert_string_equal(t.env.v[0], "A=1");
    assert_string_equal(t.env.v[1], "B=2");
    assert_int_equal(t.memory, 64 << 20);
    assert_int_equal(t.idle, 90000);
    assert_true(t.wait);
    assert_string_equal(c.ns, "prod");
    assert_int_equal(words.n, 3);
    assert_string_equal(words.v[2], "-c");
    dv_arena_deinit(&c.arena);
}

static void a_number_left_alone_differs_from_zero(void **state)
{
    (void)state;
    struct cli c = {0};
    struct taken t;
    struct cli_list words;
    assert_int_equal(PARSE("fn"), CLI_OK);
    assert_true(t.max == CLI_UNSET);
    assert_int_equal(PARSE("fn", "--max", "0"), CLI_OK);
    assert_true(t.max == 0);
    dv_arena_deinit(&c.arena);
}

static void wrong_options_are_usage_errors(void **state)
{
    (void)state;
    struct cli c = {0};
    struct taken t;
    struct cli_list words;
    assert_int_equal(PARSE("fn", "--nonsense"), CLI_USAGE);
    assert_int_equal(PARSE("fn", "--image"), CLI_USAGE);
    assert_int_equal(PARSE("fn", "--wait=yes"), CLI_USAGE);
    assert_int_equal(PARSE("fn", "--memory", "lots"), CLI_USAGE);
    assert_int_equal(PARSE("fn", "--max", "3x"), CLI_USAGE);
    assert_int_equal(PARSE("fn", "other"), CLI_USAGE);
    assert_int_equal(PARSE("--wait"), CLI_USAGE);
    dv_arena_deinit(&c.arena);
}

static void every_command_has_a_place_for_its_options(void **state)
{
    (void)state;
    for (const struct cli_cmd *k = cli_commands; k->name; k++) {
        assert_non_null(k->run);
        for (const struct cli_opt *o = k->opts; o && o->name; o++) {
            assert_true(o->offset < k->args_bytes);
            assert_true(strncmp(o->name, "--", 2) == 0);
            for (const struct cli_opt *other = k->opts; other != o; other++) {
                assert_string_not_equal(o->name, other->name);
                assert_false(o->letter && o->letter == other->letter);
            }
            for (const struct cli_opt *g = cli_global_opts; g->name; g++)
                assert_string_not_equal(o->name, g->name);
        }
    }
}

/* ---------------------------------------------------------------- who and where */

static void only_loopback_counts_as_this_machine(void **state)
{
    (void)state;
    assert_true(cli_gateway_is_local("http://127.0.0.1:8080"));
    assert_true(cli_gateway_is_local("https://localhost"));
    assert_true(cli_gateway_is_local("http://[::1]:8080"));
    assert_false(cli_gateway_is_local("http://127.0.0.1.example.com:8080"));
    assert_false(cli_gateway_is_local("http://localhost@example.com"));
    assert_false(cli_gateway_is_local("http://10.0.0.1:8080"));
}

static void a_name_may_carry_its_namespace(void **state)
{
    (void)state;
    struct cli c = {0};
    assert_string_equal(cli_fn_path(&c, "wc", "/logs"), "/v1/functions/wc/logs");
    assert_string_equal(cli_fn_path(&c, "wc.prod", ""), "/v1/functions/wc?namespace=prod");
    assert_string_equal(cli_fn_path(&c, "../x y", ""), "/v1/functions/.?namespace=%2Fx%20y");
    c.ns = "prod";
    assert_string_equal(cli_fn_path(&c, "wc", ""), "/v1/functions/wc?namespace=prod");
    dv_arena_deinit(&c.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_typed_as_json_would),
        cmocka_unit_test(values_of_env_stay_texts_whatever_they_look_like),
        cmocka_unit_test(aliases_and_merges_are_followed),
        cmocka_unit_test(broken_yaml_is_refused_with_its_line),
        cmocka_unit_test(a_small_file_cannot_unfold_into_a_huge_one),
        cmocka_unit_test(variables_are_substituted_as_faas_cli_does),
        cmocka_unit_test(a_stack_function_becomes_an_openfaas_deployment),
        cmocka_unit_test(a_stack_function_with_a_mistake_names_it),
        cmocka_unit_test(options_and_words_may_stand_in_any_order),
        cmocka_unit_test(a_number_left_alone_differs_from_zero),
        cmocka_unit_test_setup_teardown(wrong_options_are_usage_errors, hush, unhush),
        cmocka_unit_test(every_command_has_a_place_for_its_options),
        cmocka_unit_test(only_loopback_counts_as_this_machine),
        cmocka_unit_test(a_name_may_carry_its_namespace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

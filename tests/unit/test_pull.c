#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/engine/pull.h"
#include "proto/base/auto.h"
#include "proto/base/err.h"

static void progress_is_over_all_layers_and_never_falls(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int percent;
    } rows[] = {
        {"{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}", -1},
        {"{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"a\"}", 0},
        {"{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"b\"}", 0},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":50,\"total\":100},\"id\":\"a\"}", 20},
        {"{\"status\":\"Download complete\",\"progressDetail\":{},\"id\":\"a\"}", 40},
        {"{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"b\"}", 90},
        {"{\"status\":\"Waiting\",\"progressDetail\":{},\"id\":\"a\"}", 90},
        {"{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"c\"}",
         90}, /* a late layer: no step back */
        {"{\"status\":\"Extracting\",\"progressDetail\":{\"current\":200,\"total\":100},\"id\":\"a\"}", 90},
        {"rubbish", 90},
        {"{\"status\":\"Pull complete\",\"id\":\"c\"}", 100},
        {"{\"status\":\"Status: Downloaded newer image\"}", 100},
    };
    struct dv_pull_state s;
    dv_pull_init(&s);
    assert_int_equal(s.percent, -1);
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        (void)dv_pull_line(&s, dv_sv_c(rows[i].line));
        if (s.percent != rows[i].percent)
            fail_msg("after line %zu: %d %%, not %d %%", i, s.percent, rows[i].percent);
    }
    assert_string_equal(s.status, "Status: Downloaded newer image");
    assert_string_equal(s.error, "");
}

static void only_news_is_news(void **state)
{
    (void)state;
    struct dv_pull_state s;
    static const char line[] =
        "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}";
    dv_pull_init(&s);
    assert_true(dv_pull_line(&s, dv_sv_c(line)));
    assert_string_equal(s.status, "a: Downloading");
    assert_false(dv_pull_line(&s, dv_sv_c(line)));
    assert_false(dv_pull_line(&s, dv_sv_c("[1,2]")));
    assert_false(dv_pull_line(&s, dv_sv_c("{\"status\":7,\"id\":{},\"progressDetail\":[]}")));
}

static void more_layers_than_are_counted_do_no_harm(void **state)
{
    (void)state;
    struct dv_pull_state s;
    dv_pull_init(&s);
    for (int i = 0; i < 3 * DV_PULL_LAYERS; i++) {
        char line[96];
        (void)snprintf(line, sizeof(line), "{\"status\":\"Already exists\",\"id\":\"%012d\"}", i);
        (void)dv_pull_line(&s, dv_sv_c(line));
    }
    assert_int_equal(s.percent, 100);
    assert_int_equal(s.n_layers, DV_PULL_LAYERS);
}

static void the_engines_words_are_kept_and_sorted(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        int code;
    } rows[] = {
        {"manifest for alpine:nope not found: manifest unknown: manifest unknown", DV_NOT_FOUND},
        {"No such image: x:1", DV_NOT_FOUND},
        {"repository name not known to registry: name unknown", DV_NOT_FOUND},
        {"pull access denied for x/y, repository does not exist or may require 'docker login': denied: "
         "requested access "
         "to the resource is denied",
         DV_DENIED},
        {"Get \"https://r.example/v2/\": unauthorized: authentication required", DV_DENIED},
        {"Head \"http://127.0.0.1:5000/v2/a/manifests/1\": no basic auth credentials", DV_DENIED},
        {"no matching manifest for linux/s390x in the manifest list entries", DV_UNSUPPORTED},
        {"image with reference x was found but does not match the specified platform: wanted linux/arm64",
         DV_UNSUPPORTED},
        {"Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused", DV_E_ENGINE},
        {"write /var/lib/docker/tmp/x: no space left on device", DV_E_ENGINE},
        {"toomanyrequests: You have reached your pull rate limit", DV_E_ENGINE},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        if (dv_pull_classify(rows[i].words) != rows[i].code)
            fail_msg("%s: %s", rows[i].words, dv_err_name(dv_pull_classify(rows[i].words)));
    struct dv_pull_state s;
    dv_pull_init(&s);
    (void)dv_pull_line(&s, DV_SV("{\"errorDetail\":{\"message\":\"the detail\"},\"error\":\"the error\"}"));
    assert_string_equal(s.error, "the detail");
    dv_pull_init(&s);
    (void)dv_pull_line(&s, DV_SV("{\"error\":\"the error\"}"));
    assert_string_equal(s.error, "the error");
}

static void names_are_cut_into_repository_and_tag(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"busybox", "busybox", "latest"},
        {"busybox:1.36", "busybox", "1.36"},
        {"r.example:5000/a/b", "r.example:5000/a/b", "latest"},
        {"r.example:5000/a/b:v1", "r.example:5000/a/b", "v1"},
        {"a/b@sha256:00ff", "a/b", "sha256:00ff"},
        {"r:5000/a:tag@sha256:00ff", "r:5000/a", "sha256:00ff"},
        {"r:5000/a@sha256:00ff", "r:5000/a", "sha256:00ff"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        char name[64];
        (void)dv_copy(name, sizeof(name), rows[i][0]);
        assert_string_equal(dv_pull_split(name), rows[i][2]);
        assert_string_equal(name, rows[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_is_over_all_layers_and_never_falls),
        cmocka_unit_test(only_news_is_news),
        cmocka_unit_test(more_layers_than_are_counted_do_no_harm),
        cmocka_unit_test(the_engines_words_are_kept_and_sorted),
        cmocka_unit_test(names_are_cut_into_repository_and_tag),
    };
    return cmocka_run_group_tests_name("pull", tests, NULL, NULL);
}

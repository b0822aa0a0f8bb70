/* The description of the API and the API itself say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>
#include "tests/support/api_world.h"

/* check_openapi.py's verdict on these routes: its exit status. */
static int verdict(struct dv_sv routes, const char *redirect)
{
    char command[600];
    (void)snprintf(command, sizeof(command),
                   "python3 %s/tests/unit/check_openapi.py %s/proto/openapi.yaml %s", DAVIT_SOURCE_DIR,
                   DAVIT_SOURCE_DIR, redirect);
    FILE *f = popen(command, "we");
    assert_non_null(f);
    (void)fwrite(routes.p, 1, routes.n, f); /* a script that died is seen in its status */
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void skip_without_python(int status)
{
    if (status != 77 && status != 127)
        return;
    print_message("SKIPPED: python3 with its yaml module is needed (apt install python3-yaml)\n");
    skip();
}

static void every_route_status_and_parameter_is_described(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_api_routes(&b), DV_OK);
    int status = verdict(dv_buf_sv(&b), "");
    skip_without_python(status);
    assert_int_equal(status, 0);
}

static void a_route_too_few_or_too_many_or_with_another_status_is_noticed(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_api_routes(&b), DV_OK);
    size_t whole = dv_buf_len(&b);
    struct dv_sv first, rest;
    (void)dv_sv_cut(dv_buf_sv(&b), '\n', &first, &rest);
    int status = verdict(rest, "2>/dev/null");
    skip_without_python(status);
    assert_int_equal(status, 1);
    dv_buf_add_c(&b, "GET /v1/new 200 -\n");
    assert_int_equal(verdict(dv_buf_sv(&b), "2>/dev/null"), 1);
    dv_buf_truncate(&b, whole);
    char *at = strstr((char *)(uintptr_t)dv_buf_cstr(&b), "200,400,401,500 namespace");
    assert_non_null(at);
    at[2] = '6';
    assert_int_equal(verdict(dv_buf_sv(&b), "2>/dev/null"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_status_and_parameter_is_described),
        cmocka_unit_test(a_route_too_few_or_too_many_or_with_another_status_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

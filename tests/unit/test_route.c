/* From a request's target to the function it means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/gateway/route.h"

struct expect {
    const char *target;
    enum dv_route_kind kind;
    const char *name, *ns, *below; /* below: what the function is sent */
};

static void check(const struct expect *e)
{
    struct dv_route r;
    char below[256];
    dv_route_parse(dv_sv_c(e->target), &r);
    if (r.kind != e->kind)
        fail_msg("%s: kind %d, expected %d", e->target, (int)r.kind, (int)e->kind);
    if (!e->name)
        return;
    (void)snprintf(below, sizeof(below), "%s%.*s", r.add_slash ? "/" : "", (int)r.rest.n, r.rest.p);
    if (!dv_sv_eq(r.name, dv_sv_c(e->name)) || !dv_sv_eq(r.ns, dv_sv_c(e->ns)) ||
        strcmp(below, e->below) != 0)
        fail_msg("%s: %.*s in %.*s below %s", e->target, (int)r.name.n, r.name.p, (int)r.ns.n, r.ns.p, below);
}

static void function_targets_name_function_namespace_and_rest(void **state)
{
    (void)state;
    static const struct expect table[] = {
        {"/function/echo", DV_ROUTE_SYNC, "echo", "default", "/"},
        {"/function/echo/", DV_ROUTE_SYNC, "echo", "default", "/"},
        {"/function/echo?x=1", DV_ROUTE_SYNC, "echo", "default", "/?x=1"},
        {"/function/echo/?x=1", DV_ROUTE_SYNC, "echo", "default", "/?x=1"},
        {"/function/echo.team/a/b?c=/d", DV_ROUTE_SYNC, "echo", "team", "/a/b?c=/d"},
        {"/function/echo.openfaas-fn/x", DV_ROUTE_SYNC, "echo", "default", "/x"},
        {"/async-function/echo.default", DV_ROUTE_ASYNC, "echo", "default", "/"},
        {"http://host:80/function/echo/x", DV_ROUTE_SYNC, "echo", "default", "/x"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        check(&table[i]);
}

static void percent_encoding_and_dot_segments_reach_the_function_untouched(void **state)
{
    (void)state;
    check(&(struct expect){"/function/a/%2e%2e/../b%2Fc//d/./?q=%20", DV_ROUTE_SYNC, "a", "default",
                           "/%2e%2e/../b%2Fc//d/./?q=%20"});
}

static void invoke_takes_its_namespace_from_the_query_and_forwards_all_of_it(void **state)
{
    (void)state;
    static const struct expect table[] = {
        {"/v1/functions/echo/invoke", DV_ROUTE_INVOKE, "echo", "default", "/"},
        {"/v1/functions/echo/invoke?namespace=team", DV_ROUTE_INVOKE, "echo", "team", "/?namespace=team"},
        {"/v1/functions/echo/invoke/a/b?x=1&namespace=openfaas-fn", DV_ROUTE_INVOKE, "echo", "default",
         "/a/b?x=1&namespace=openfaas-fn"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        check(&table[i]);
}

static void everything_else_goes_to_the_api(void **state)
{
    (void)state;
    static const char *const targets[] = {"/",
                                          "/v1/functions",
                                          "/v1/functions/echo",
                                          "/v1/functions/echo/invoked",
                                          "/functions/x",
                                          "/function",
                                          "/function/",
                                          "/function/?x",
                                          "*",
                                          "/healthzz",
                                          "//function/echo",
                                          "/v1/functions//invoke",
                                          "/system/functions",
                                          "/v1/functions/a?x=/invoke"};
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
        check(&(struct expect){targets[i], DV_ROUTE_API, NULL, NULL, NULL});
    check(&(struct expect){"/healthz", DV_ROUTE_HEALTH, NULL, NULL, NULL});
    check(&(struct expect){"/healthz?x", DV_ROUTE_HEALTH, NULL, NULL, NULL});
}

static void names_that_cannot_be_functions_make_no_key(void **state)
{
    (void)state;
    char key[DV_ROUTE_KEY_MAX], longest[64];
    memset(longest, 'a', sizeof(longest));
    assert_int_equal(dv_route_key(dv_sv(longest, 63), dv_sv(longest, 63), key), 127);
    assert_int_equal(dv_route_key(dv_sv(longest, 64), DV_SV("default"), key), 0);
    assert_int_equal(dv_route_key(DV_SV("a"), dv_sv("", 0), key), 0);
    assert_int_equal(dv_route_key(DV_SV("a"), DV_SV("b"), key), 3);
    assert_memory_equal(key, "a.b", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(function_targets_name_function_namespace_and_rest),
        cmocka_unit_test(percent_encoding_and_dot_segments_reach_the_function_untouched),
        cmocka_unit_test(invoke_takes_its_namespace_from_the_query_and_forwards_all_of_it),
        cmocka_unit_test(everything_else_goes_to_the_api),
        cmocka_unit_test(names_that_cannot_be_functions_make_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

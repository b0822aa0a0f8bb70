/* Calls to a Docker engine with the first, second, third ... allocation failing: each is answered exactly
 * once, and nothing leaks (under the sanitizer).  The scripted engine shares the heap, so it fails too at
 * times: any outcome will do, silence and a crash will not. */
#include "tests/support/engine_world.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/engine/engine_fake.h"
#include "proto/base/alloc.h"
#include "proto/rt/httpd.h"

static struct dv_httpd *server;
static char dir[32], sock[64];
static int n_ended;

static void on_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    struct dv_sv path = dv_http_path(r);
    if (dv_sv_ends(path, DV_SV("/create")))
        dv_http_reply(r, 201, "application/json", DV_SV("{\"Id\":\"abc\"}"));
    else if (dv_sv_ends(path, DV_SV("/logs")))
        dv_http_reply(r, 200, "x",
                      dv_sv("\1\0\0\0\0\0\0\6"
                            "hello\n",
                            14));
    else if (dv_sv_ends(path, DV_SV("/containers/json")))
        dv_http_reply(r, 200, "x",
                      DV_SV("[{\"Id\":\"a\",\"Names\":[\"/n\"],\"Labels\":{\"a\":\"b\",\"c\":\"d\"}}]"));
    else if (dv_sv_ends(path, DV_SV("/images/json")))
        dv_http_reply(r, 200, "x", DV_SV("[{\"Id\":\"a\",\"RepoTags\":[\"b:c\"],\"RepoDigests\":null}]"));
    else if (dv_sv_starts(path, DV_SV("/images/x/")))
        dv_http_reply(r, 200, "x", DV_SV("{\"Id\":\"a\",\"Config\":{\"Env\":[\"A=b\"],\"Cmd\":[\"c\"]}}"));
    else
        dv_http_reply(r, 200, "x",
                      DV_SV("{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"State\":{}}"));
}

static void ended(int code, const struct dv_err *err)
{
    assert_true(code == DV_OK || (err && err->msg[0]));
    n_ended++;
}

static void on_info(void *ctx, int code, const struct dv_engine_info *i, const struct dv_err *err)
{
    (void)ctx, (void)i;
    ended(code, err);
}

static void on_image(void *ctx, int code, const struct dv_engine_image *i, const struct dv_err *err)
{
    (void)ctx, (void)i;
    ended(code, err);
}

static void on_images(void *ctx, int code, const struct dv_image_ref *i, size_t n, const struct dv_err *err)
{
    (void)ctx, (void)i, (void)n;
    ended(code, err);
}

static void on_created(void *ctx, int code, const char *id, const struct dv_err *err)
{
    (void)ctx;
    assert_true(code != DV_OK || id[0]);
    ended(code, err);
}

static void on_inspected(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err)
{
    (void)ctx, (void)c;
    ended(code, err);
}

static void on_listed(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                      const struct dv_err *err)
{
    (void)ctx, (void)c, (void)n;
    ended(code, err);
}

static void on_plain(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    ended(code, err);
}

static void on_line(void *ctx, const struct dv_engine_log *l)
{
    (void)ctx, (void)l;
}

static void call(struct dv_engine *e, int which)
{
    static struct dv_kv labels[] = {{(char *)(uintptr_t) "k", (char *)(uintptr_t) "v"}};
    static const struct dv_registry_auth auth = {.username = (char *)(uintptr_t) "u",
                                                 .password = (char *)(uintptr_t) "p"};
    const struct dv_engine_create spec = {.name = "n", .image = "x", .labels = {labels, 1}, .tmp_bytes = 1};
    switch (which) {
    case 0:
        e->ops->connect(e, on_info, NULL);
        break;
    case 1:
        e->ops->image_inspect(e, "x", on_image, NULL);
        break;
    case 2:
        e->ops->image_pull(e, "x", &auth, NULL, on_plain, NULL);
        break;
    case 3:
        e->ops->image_list(e, on_images, NULL);
        break;
    case 4:
        e->ops->create(e, &spec, on_created, NULL);
        break;
    case 5:
        e->ops->stop(e, "x", 10, on_plain, NULL);
        break;
    case 6:
        e->ops->inspect(e, "x", on_inspected, NULL);
        break;
    case 7:
        e->ops->list(e, "k", on_listed, NULL);
        break;
    case 8:
        (void)e->ops->logs(e, "x", -1, 0, false, on_line, on_plain, NULL);
        break;
    default:
        e->ops->network_ensure(e, "x", on_plain, NULL);
    }
}

/* The n-th allocation of one call fails; true when the call needed fewer. */
static bool one_round(struct dv_engine *e, int which, uint64_t n)
{
    n_ended = 0;
    dv_alloc_fail_at(n);
    call(e, which);
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
    while (!n_ended && dv_clock_now_ns(&dv_clock_system) < end)
        (void)dv_loop_turn(ew.loop, 5);
    bool is_past = dv_alloc_count() < n;
    dv_alloc_fail_at(0);
    if (n_ended != 1)
        fail_msg("call %d with allocation %d failing: ended %d times", which, (int)n, n_ended);
    (void)dv_loop_turn(ew.loop, 0);
    assert_int_equal(n_ended, 1);
    return is_past;
}

static void every_call_ends_once_whatever_allocation_fails(void **state)
{
    (void)state;
    for (int which = 0; which < 10; which++) {
        uint64_t n = 1;
        while (!one_round(ew.e, which, n))
            assert_true(++n < 400);
        assert_true(n > 2);
    }
}

static int start_http(void **state)
{
    (void)state;
    char endpoint[80];
    memset(&ew, 0, sizeof(ew));
    (void)dv_copy(dir, sizeof(dir), "/tmp/dv-fault-XXXXXX");
    if (!mkdtemp(dir) || dv_loop_new(&dv_clock_system, &ew.loop, NULL))
        return -1;
    (void)snprintf(sock, sizeof(sock), "%s/s", dir);
    (void)snprintf(endpoint, sizeof(endpoint), "unix://%s", sock);
    const struct dv_httpd_cfg cfg = {.unix_path = sock, .body_max = 1 << 20, .on_request = on_request};
    if (dv_httpd_start(ew.loop, &cfg, &server, NULL))
        return -1;
    return dv_engine_docker_open(ew.loop, endpoint, &ew.e, NULL);
}

static int start_fake(void **state)
{
    struct dv_engine_fake *f;
    (void)state;
    memset(&ew, 0, sizeof(ew));
    server = NULL;
    if (dv_loop_new(&dv_clock_system, &ew.loop, NULL) || dv_engine_fake_open(ew.loop, &f))
        return -1;
    dv_engine_fake_add_image(f, "x", NULL, true);
    ew.e = dv_engine_fake_engine(f);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ew.e->ops->close(ew.e);
    dv_httpd_stop(server);
    dv_loop_free(ew.loop);
    return server ? rmdir(dir) : 0;
}

static void the_fake_ends_every_call_once_too(void **state)
{
    (void)state;
    for (int which = 0; which < 10; which++)
        for (uint64_t n = 1; !one_round(ew.e, which, n); n++)
            assert_true(n < 400);
}

static void opening_gives_up_cleanly(void **state)
{
    (void)state;
    struct dv_loop *loop = NULL;
    assert_int_equal(dv_loop_new(&dv_clock_system, &loop, NULL), DV_OK);
    for (uint64_t n = 1;; n++) {
        struct dv_engine *e = NULL;
        struct dv_err err = DV_ERR_INIT;
        dv_alloc_fail_at(n);
        int rc = dv_engine_docker_open(loop, "unix:///nowhere", &e, &err);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            e->ops->close(e);
            assert_true(n > 2);
            break;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_null(e);
    }
    dv_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_call_ends_once_whatever_allocation_fails, start_http, stop),
        cmocka_unit_test_setup_teardown(the_fake_ends_every_call_once_too, start_fake, stop),
        cmocka_unit_test(opening_gives_up_cleanly),
    };
    return cmocka_run_group_tests_name("engine without memory", tests, NULL, NULL);
}

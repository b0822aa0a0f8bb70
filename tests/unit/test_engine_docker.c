/* The Docker client against a scripted engine: versions, refusals, pulls, broken streams, no engine at all.
 */
#include "tests/support/engine_world.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/sys.h"

/* What the scripted engine answers to any path that begins so; the first row that fits wins. */
struct row {
    const char *method, *path;
    int status;
    const char *body;
    size_t n; /* 0: strlen(body) */
};

static struct {
    struct dv_httpd *d;
    char dir[32], sock[64], endpoint[80];
    const struct row *rows;
    const char *server, *api;
    char last[512], body[4096], auth[512]; /* request line, body and registry auth of the last call */
    char statuses[1024];
    struct dv_http_req *open_stream;
} dk;

static void put_together(char *to, size_t cap, struct dv_sv a, struct dv_sv b, struct dv_sv c)
{
    (void)snprintf(to, cap, "%.*s %.*s?%.*s", (int)a.n, a.p, (int)b.n, b.p, (int)c.n, c.n ? c.p : "");
}

static void on_request(void *ctx, struct dv_http_req *r)
{
    struct dv_sv auth = dv_http_header(r, "X-Registry-Auth");
    (void)ctx;
    put_together(dk.last, sizeof(dk.last), dv_http_method(r), dv_http_path(r), dv_http_query(r));
    (void)snprintf(dk.body, sizeof(dk.body), "%.*s", (int)dv_http_body(r).n, dv_http_body(r).p);
    (void)snprintf(dk.auth, sizeof(dk.auth), "%.*s", (int)auth.n, auth.n ? auth.p : "");
    if (dk.server)
        dv_http_set_header(r, "Server", dk.server);
    if (dk.api)
        dv_http_set_header(r, "Api-Version", dk.api);
    for (const struct row *row = dk.rows; row && row->path; row++) {
        struct dv_sv body = dv_sv(row->body, row->n ? row->n : strlen(row->body));
        if (!dv_sv_starts(dv_http_path(r), dv_sv_c(row->path)) ||
            (row->method && !dv_sv_eq(dv_http_method(r), dv_sv_c(row->method))))
            continue;
        if (row->status) {
            dv_http_reply(r, row->status, "application/json", body);
        } else { /* a stream that stays open */
            dv_http_stream(r, 200, "application/json");
            (void)dv_http_stream_write(r, body);
            dk.open_stream = r;
        }
        return;
    }
    dv_http_reply(r, 404, "application/json", DV_SV("{\"message\":\"page not found\"}"));
}

static int start(void **state)
{
    (void)state;
    memset(&ew, 0, sizeof(ew));
    memset(&dk, 0, sizeof(dk));
    (void)dv_copy(dk.dir, sizeof(dk.dir), "/tmp/dv-docker-XXXXXX");
    if (!mkdtemp(dk.dir) || dv_loop_new(&dv_clock_system, &ew.loop, NULL))
        return -1;
    (void)snprintf(dk.sock, sizeof(dk.sock), "%s/s", dk.dir);
    (void)snprintf(dk.endpoint, sizeof(dk.endpoint), "unix://%s", dk.sock);
    const struct dv_httpd_cfg cfg = {.unix_path = dk.sock, .body_max = 1 << 20, .on_request = on_request};
    if (dv_httpd_start(ew.loop, &cfg, &dk.d, NULL))
        return -1;
    return dv_engine_docker_open(ew.loop, dk.endpoint, &ew.e, NULL);
}

static int stop(void **state)
{
    (void)state;
    if (ew.e)
        ew.e->ops->close(ew.e);
    if (dk.open_stream)
        dv_http_stream_end(dk.open_stream);
    dv_httpd_stop(dk.d);
    dv_loop_free(ew.loop);
    return rmdir(dk.dir);
}

#define PING                                                                                                 \
    {                                                                                                        \
        NULL, "/_ping", 200, "OK", 0                                                                         \
    }
#define INFO(version)                                                                                        \
    {                                                                                                        \
        NULL, "/v" version "/info", 200,                                                                     \
            "{\"NCPU\":8,\"MemTotal\":16000000000,\"CgroupVersion\":\"2\",\"MemoryLimit\":true,"             \
            "\"PidsLimit\":true,"                                                                            \
            "\"CpuCfsQuota\":false,\"Unknown\":{\"x\":[1]}}",                                                \
            0                                                                                                \
    }
#define VERSION(api, min)                                                                                    \
    {                                                                                                        \
        NULL, "/version", 200,                                                                               \
            "{\"Version\":\"v9\",\"ApiVersion\":\"" api "\",\"MinAPIVersion\":\"" min                        \
            "\",\"Os\":\"linux\",\"Arch\":\"arm64\"}",                                                       \
            0                                                                                                \
    }

static void the_highest_version_that_both_know_is_spoken(void **state)
{
    (void)state;
    static const struct {
        const char *says;
        struct row rows[4];
    } cases[] = {
        {"1.41", {PING, VERSION("1.41", "1.12"), INFO("1.41"), {0}}}, /* 20.10 */
        {"1.43", {PING, VERSION("1.43", "1.12"), INFO("1.43"), {0}}}, /* 24 */
        {"1.47", {PING, VERSION("1.52", "1.44"), INFO("1.47"), {0}}}, /* 29 */
        {"1.41", {PING, VERSION("1.41", "1.24"), INFO("1.41"), {0}}}, /* podman */
    };
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        dk.rows = cases[i].rows;
        dk.server = i == 3 ? "Libpod/4.3.1 (linux)" : "Docker/20.10 (linux)";
        EW_OK(connect, ew_connected);
        assert_string_equal(ew.info.api, cases[i].says);
        assert_string_equal(ew.info.name, i == 3 ? "podman" : "docker");
        assert_string_equal(ew.info.cgroup, "v2");
        assert_string_equal(ew.info.arch, "arm64");
        assert_int_equal(ew.info.cpus, 8);
        assert_true(ew.info.memory_bytes == 16000000000);
        assert_true(ew.info.has_memory_limit && ew.info.has_pids_limit && !ew.info.has_cpu_quota);
    }
    EW_CALL(inspect, "abc", ew_inspected);
    assert_string_equal(dk.last, "GET /v1.41/containers/abc/json?");
}

static void engines_too_old_or_too_new_are_refused_by_name(void **state)
{
    (void)state;
    static const struct row old[] = {PING, VERSION("1.40", "1.12"), {0}};
    static const struct row new[] = {PING, VERSION("1.60", "1.48"), {0}};
    dk.rows = old;
    EW_CALL(connect, ew_connected);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_string_equal(ew.msg,
                        "container engine v9 speaks API 1.40; Davit needs 1.41 (Docker 20.10) or later");
    dk.rows = new;
    EW_CALL(connect, ew_connected);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_non_null(strstr(ew.msg, "wants API 1.48 or later"));
}

static void what_is_no_engine_is_told_apart(void **state)
{
    (void)state;
    static const struct row html[] = {PING, {NULL, "/version", 200, "<html>hello</html>", 0}, {0}};
    dk.rows = html;
    EW_CALL(connect, ew_connected);
    assert_int_equal(ew.code, DV_E_ENGINE);
    dk.rows = NULL; /* 404 to everything */
    EW_CALL(connect, ew_connected);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_non_null(strstr(ew.msg, "does not answer as a container engine does"));
    uint64_t calls, errors;
    ew.e->ops->stats(ew.e, &calls, &errors);
    assert_int_equal(calls, 3);
}

static void refusals_are_sorted_by_status_and_keep_the_engines_words(void **state)
{
    (void)state;
    static const struct {
        struct row rows[2];
        int code;
        const char *says;
    } cases[] = {
        {{{NULL, "/containers", 400, "{\"message\":\"bad thing\"}", 0}, {0}}, DV_INVALID, ": bad thing"},
        {{{NULL, "/containers", 401, "{\"message\":\"who are you\"}", 0}, {0}}, DV_DENIED, ": who are you"},
        {{{NULL, "/containers", 403, "{\"message\":\"no plugin\"}", 0}, {0}}, DV_DENIED, ": no plugin"},
        {{{NULL, "/containers", 404, "{\"message\":\"No such container: x\"}", 0}, {0}},
         DV_NOT_FOUND,
         "No such"},
        {{{NULL, "/containers", 409, "{\"message\":\"in use\"}", 0}, {0}}, DV_CONFLICT, ": in use"},
        {{{NULL, "/containers", 500, "{\"message\":\"oci runtime\"}", 0}, {0}}, DV_E_ENGINE, ": oci runtime"},
        {{{NULL, "/containers", 502, "<html>bad gateway", 0}, {0}}, DV_E_ENGINE, "answered 502"},
        {{{NULL, "/containers", 200, "{\"Id\":\"truncated", 0}, {0}}, DV_E_ENGINE, "not JSON"},
    };
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        dk.rows = cases[i].rows;
        EW_CALL(inspect, "0123456789abcdef", ew_inspected);
        assert_int_equal(ew.code, cases[i].code);
        if (!strstr(ew.msg, cases[i].says))
            fail_msg("%s", ew.msg);
    }
}

static void a_status_that_says_already_so_is_done(void **state)
{
    (void)state;
    static const struct row rows[] = {{NULL, "/containers", 304, "", 0}, {0}};
    dk.rows = rows;
    EW_OK(start, "x", ew_done);
    EW_OK(stop, "x", 1500, ew_done);
    assert_string_equal(dk.last, "POST /containers/x/stop?t=2");
}

static void the_order_to_create_is_complete(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {NULL, "/containers/create", 201, "{\"Id\":\"c0ffee\",\"Warnings\":[]}", 0}, {0}};
    static char *command[] = {(char *)(uintptr_t) "run \"it\"", (char *)(uintptr_t) "\xc3\xa9"};
    static char *env[] = {(char *)(uintptr_t) "A=b"};
    static struct dv_kv labels[] = {{(char *)(uintptr_t) "k", (char *)(uintptr_t) "v"}};
    static const struct dv_engine_mount mounts[] = {{"/src", "/dst", true}};
    const struct dv_engine_create spec = {.name = "davit-x-1",
                                          .image = "img:1",
                                          .command = {command, 2},
                                          .env = {env, 1},
                                          .labels = {labels, 1},
                                          .user = "1000",
                                          .workdir = "/w",
                                          .network = "davit",
                                          .hostname = "h",
                                          .mounts = mounts,
                                          .n_mounts = 1,
                                          .memory_bytes = 64 << 20,
                                          .cpu_mcpu = 1500,
                                          .pids = 99,
                                          .files = 1024,
                                          .tmp_bytes = 1 << 20,
                                          .read_only = true};
    dk.rows = rows;
    EW_OK(create, &spec, ew_created);
    assert_string_equal(ew.id, "c0ffee");
    assert_string_equal(dk.last, "POST /containers/create?name=davit-x-1");
    static const char *const wanted[] = {
        "\"Image\":\"img:1\"",
        "\"Cmd\":[\"run \\\"it\\\"\",\"\xc3\xa9\"]",
        "\"Env\":[\"A=b\"]",
        "\"Labels\":{\"k\":\"v\"}",
        "\"User\":\"1000\"",
        "\"WorkingDir\":\"/w\"",
        "\"Hostname\":\"h\"",
        "\"NetworkMode\":\"davit\"",
        "\"CapDrop\":[\"ALL\"]",
        "\"SecurityOpt\":[\"no-new-privileges\"]",
        "\"Privileged\":false",
        "\"ReadonlyRootfs\":true",
        "\"Tmpfs\":{\"/tmp\":\"rw,exec,nosuid,nodev,mode=1777,size=1048576\"}",
        "\"PidsLimit\":99",
        "\"Memory\":67108864,\"MemorySwap\":67108864",
        "\"NanoCpus\":1500000000",
        "\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":1024,\"Hard\":1024}]",
        "\"RestartPolicy\":{\"Name\":\"no\"}",
        "\"LogConfig\":{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"1m\",\"max-file\":\"2\"}}",
        "\"Init\":false",
        "\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/src\",\"Target\":\"/dst\",\"ReadOnly\":true}]",
    };
    for (size_t i = 0; i < DV_COUNT(wanted); i++)
        if (!strstr(dk.body, wanted[i]))
            fail_msg("no %s in %s", wanted[i], dk.body);
    assert_null(strstr(dk.body, "Entrypoint")); /* the image's own */
}

#define BRIDGE(icc)                                                                                          \
    {                                                                                                        \
        "GET", "/networks/bridge", 200,                                                                      \
            "{\"Name\":\"bridge\",\"Options\":{\"com.docker.network.bridge.enable_icc\":\"" icc "\"}}", 0    \
    }
#define OWN                                                                                                  \
    {                                                                                                        \
        "GET", "/networks/davit", 200, "{}", 0                                                               \
    }
#define CREATED                                                                                              \
    {                                                                                                        \
        "POST", "/containers/create", 201, "{\"Id\":\"c0ffee\"}", 0                                          \
    }

static void the_engines_own_bridge_is_taken_only_where_it_keeps_containers_apart(void **state)
{
    (void)state;
    static const struct row apart[] = {BRIDGE("false"), CREATED, {0}};
    static const struct row together[] = {BRIDGE("true"), OWN, CREATED, {0}};
    static const struct row unknown[] = {OWN, CREATED, {0}};
    static const struct {
        const struct row *rows;
        const char *network;
    } cases[] = {{apart, "\"NetworkMode\":\"bridge\""},
                 {together, "\"NetworkMode\":\"davit\""},
                 {unknown, "\"NetworkMode\":\"davit\""}};
    const struct dv_engine_create spec = {.name = "x", .image = "i", .network = DV_ENGINE_NETWORK_AUTO};
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        dk.rows = cases[i].rows;
        EW_OK(network_ensure, DV_ENGINE_NETWORK_AUTO, ew_done);
        EW_OK(create, &spec, ew_created);
        if (!strstr(dk.body, cases[i].network))
            fail_msg("case %zu: no %s in %s", i, cases[i].network, dk.body);
    }
}

static void on_progress(void *ctx, int percent, const char *status)
{
    size_t n = strlen(dk.statuses);
    (void)ctx;
    ew.n_progress++;
    ew.last_percent = percent;
    (void)snprintf(dk.statuses + n, sizeof(dk.statuses) - n, "%d %s;", percent, status);
}

static void a_pull_tells_its_progress_and_sends_credentials(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"POST", "/images/create", 200,
         "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"a1\"}\r\n"
         "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10},\"id\":\"a1\"}\r\n"
         "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"a1\"}\r\n",
         0},
        {0}};
    const struct dv_registry_auth auth = {.username = (char *)(uintptr_t) "u\"ser",
                                          .password = (char *)(uintptr_t) "p~?>",
                                          .server = (char *)(uintptr_t) "r.example"};
    dk.rows = rows;
    EW_OK(image_pull, "r.example:5000/a/b", &auth, on_progress, ew_done);
    assert_string_equal(dk.last, "POST /images/create?fromImage=r.example:5000/a/b&tag=latest");
    assert_string_equal(dk.statuses, "0 a1: Pulling fs layer;40 a1: Downloading;100 a1: Pull complete;");
    char json[256] = "", standard[512];
    (void)dv_copy(standard, sizeof(standard), dk.auth);
    for (char *c = standard; *c; c++)
        *c = *c == '-' ? '+' : *c == '_' ? '/' : *c;
    ptrdiff_t n = dv_base64_decode(dv_sv_c(standard), json);
    assert_true(n > 0);
    json[n] = '\0';
    assert_string_equal(json,
                        "{\"username\":\"u\\\"ser\",\"password\":\"p~?>\",\"serveraddress\":\"r.example\"}");
    EW_OK(image_pull, "x@sha256:00ff", NULL, NULL, ew_done);
    assert_string_equal(dk.last, "POST /images/create?fromImage=x&tag=sha256:00ff");
    assert_string_equal(dk.auth, "");
}

static void a_pull_that_fails_midway_is_sorted_by_its_words(void **state)
{
    (void)state;
#define STREAM(words)                                                                                        \
    {                                                                                                        \
        NULL, "/images/create", 200,                                                                         \
            "{\"status\":\"Pulling from x\"}\n{\"errorDetail\":{\"message\":\"" words                        \
            "\"},\"error\":\"" words "\"}",                                                                  \
            0                                                                                                \
    }
    static const struct {
        struct row rows[2];
        int code;
        const char *says;
    } cases[] = {
        {{STREAM("manifest for x:1 not found"), {0}}, DV_NOT_FOUND, "manifest for x:1 not found"},
        {{STREAM("unauthorized: authentication required"), {0}}, DV_DENIED, "unauthorized"},
        {{STREAM("no matching manifest for linux/arm64/v8"), {0}}, DV_UNSUPPORTED, "linux/arm64"},
        {{STREAM("no space left on device"), {0}}, DV_E_ENGINE, "no space left"},
        {{{NULL, "/images/create", 404, "{\"message\":\"pull access denied for x\"}", 0}, {0}},
         DV_DENIED,
         "denied"},
        {{{NULL, "/images/create", 404, "{\"message\":\"strange\"}", 0}, {0}}, DV_NOT_FOUND, "strange"},
        {{{NULL, "/images/create", 400, "{\"message\":\"invalid reference format\"}", 0}, {0}},
         DV_NOT_FOUND,
         "invalid"},
        {{{NULL, "/images/create", 500, "{\"message\":\"no basic auth credentials\"}", 0}, {0}},
         DV_DENIED,
         "no basic"},
        {{{NULL, "/images/create", 500, "{\"message\":\"dial tcp: lookup r: no such host\"}", 0}, {0}},
         DV_E_ENGINE,
         "dial"},
    };
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        dk.rows = cases[i].rows;
        EW_CALL(image_pull, "denied:1", NULL, NULL, ew_done); /* the name is not taken for words */
        if (ew.code != cases[i].code || !strstr(ew.msg, cases[i].says))
            fail_msg("%zu: %s: %s", i, dv_err_name(ew.code), ew.msg);
    }
}

static void events_survive_rubbish_and_tell_their_end(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {NULL, "/events", 0,
         "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"c1\",\"Attributes\":{}},"
         "\"timeNano\":5}\n"
         "{broken\n"
         "{\"Action\":\"die\",\"Actor\":{\"ID\":\"c1\",\"Attributes\":{\"exitCode\":\"9\"}},\"time\":1}\n"
         "{\"Action\":\"die\",\"Actor\":{\"ID\":\"c2\",\"Attributes\":{\"containerExitCode\":\"4\"}}}\n",
         0},
        {0}};
    dk.rows = rows;
    ew.e->ops->events(ew.e, "dev.davit.node=1", ew_event, ew_events_over, NULL);
    ew_until(&ew.n_events, 3);
    assert_string_equal(ew.events, "start die:9 die:4 ");
    assert_non_null(strstr(dk.last, "%22label%22%3A%5B%22dev.davit.node%3D1%22%5D"));
    assert_false(ew.events_over);
    dv_http_stream_end(dk.open_stream);
    dk.open_stream = NULL;
    ew_until(&ew.n_done, 1);
    assert_int_equal(ew.code, DV_CLOSED);
}

static void a_log_stream_that_is_none_ends_with_a_word(void **state)
{
    (void)state;
    static const struct row rows[] = {{NULL, "/containers", 200, "plain text of a terminal", 0}, {0}};
    dk.rows = rows;
    assert_non_null(ew.e->ops->logs(ew.e, "x", 10, 1500, true, ew_line, ew_done, NULL));
    ew_until(&ew.n_done, 1);
    assert_int_equal(ew.code, DV_E_PROTO);
    assert_non_null(strstr(dk.last, "tail=10&since=1.500000000"));
    assert_non_null(strstr(dk.last, "follow=true"));
}

static void an_engine_that_dies_midway_breaks_its_streams(void **state)
{
    (void)state;
    static const struct row rows[] = {{NULL, "/events", 0, "\n", 0}, {0}};
    dk.rows = rows;
    ew.e->ops->events(ew.e, "k", ew_event, ew_events_over, NULL);
    for (int i = 0; i < 100 && !dk.open_stream; i++)
        (void)dv_loop_turn(ew.loop, 10);
    dv_httpd_stop(dk.d);
    dk.d = NULL;
    dk.open_stream = NULL;
    ew_until(&ew.n_done, 1);
    assert_true(ew.events_over);
    assert_int_not_equal(ew.code, DV_OK);
    EW_CALL(inspect, "x", ew_inspected);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_non_null(strstr(ew.msg, dk.sock));
    assert_non_null(strstr(ew.msg, "start dockerd"));
    uint64_t calls, errors;
    ew.e->ops->stats(ew.e, &calls, &errors);
    assert_true(errors >= 1);
}

static void a_socket_that_nobody_serves_is_told_from_one_that_is_absent(void **state)
{
    (void)state;
    char path[80], endpoint[96];
    int fd = -1;
    struct dv_engine *dead = NULL;
    (void)snprintf(path, sizeof(path), "%s/dead", dk.dir);
    (void)snprintf(endpoint, sizeof(endpoint), "unix://%s", path);
    assert_int_equal(dv_listen_unix(path, 0600, &fd, NULL), DV_OK);
    (void)close(fd);
    assert_int_equal(dv_engine_docker_open(ew.loop, endpoint, &dead, NULL), DV_OK);
    dead->ops->connect(dead, ew_connected, NULL);
    ew_until(&ew.n_done, 1);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_non_null(strstr(ew.msg, "nobody listens there; start dockerd"));
    (void)unlink(path);
    dead->ops->connect(dead, ew_connected, NULL);
    ew_until(&ew.n_done, 2);
    assert_int_equal(ew.code, DV_E_ENGINE);
    assert_non_null(strstr(ew.msg, "there is no such socket"));
    dead->ops->close(dead);
}

static void endpoints_are_checked_before_anything_is_sent(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "/var/run/docker.sock", "unix://", "unix://relative", "http://x", "tcp://", "tcp://a:99999"};
    static const char *const good[] = {"tcp://127.0.0.1:2375", "tcp://docker", "tcp://[::1]:2375",
                                       "unix:///run/podman/podman.sock"};
    struct dv_err err;
    struct dv_engine *e = NULL;
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        memset(&err, 0, sizeof(err));
        assert_int_equal(dv_engine_docker_open(ew.loop, bad[i], &e, &err), DV_INVALID);
        assert_true(err.msg[0]);
        assert_null(e);
    }
    for (size_t i = 0; i < DV_COUNT(good); i++) {
        assert_int_equal(dv_engine_docker_open(ew.loop, good[i], &e, NULL), DV_OK);
        e->ops->close(e);
        e = NULL;
    }
}

static void names_cannot_leave_their_place_in_the_path(void **state)
{
    (void)state;
    EW_CALL(inspect, "../images/json?x=", ew_inspected);
    assert_string_equal(dk.last, "GET /containers/..%2Fimages%2Fjson%3Fx%3D/json?");
    EW_CALL(remove, "a&force=false#", true, ew_done);
    assert_string_equal(dk.last, "DELETE /containers/a%26force%3Dfalse%23?v=true&force=true");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(the_highest_version_that_both_know_is_spoken),
        T(engines_too_old_or_too_new_are_refused_by_name),
        T(what_is_no_engine_is_told_apart),
        T(refusals_are_sorted_by_status_and_keep_the_engines_words),
        T(a_status_that_says_already_so_is_done),
        T(the_engines_own_bridge_is_taken_only_where_it_keeps_containers_apart),
        T(the_order_to_create_is_complete),
        T(a_pull_tells_its_progress_and_sends_credentials),
        T(a_pull_that_fails_midway_is_sorted_by_its_words),
        T(events_survive_rubbish_and_tell_their_end),
        T(a_log_stream_that_is_none_ends_with_a_word),
        T(an_engine_that_dies_midway_breaks_its_streams),
        T(a_socket_that_nobody_serves_is_told_from_one_that_is_absent),
        T(endpoints_are_checked_before_anything_is_sent),
        T(names_cannot_leave_their_place_in_the_path),
    };
    return cmocka_run_group_tests_name("engine over HTTP", tests, NULL, NULL);
}

/* davit-orchestrator: wiring.
 *
 * One state loop (this thread) with the control, the API and the async queue; the gateway's loops and the
 * store have threads of their own.  Start: options, state directory, store, then everything kept is read, and
 * only then the public port opens.  End: SIGTERM or SIGINT stops taking connections and lets requests end
 * (--drain-timeout); a second signal ends at once.  Replicas keep running on their nodes either way.  SIGHUP
 * reads the TLS certificate again. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "davit_commit.h"
#include "orchestrator/api/api.h"
#include "orchestrator/boot.h"
#include "orchestrator/control/control.h"
#include "orchestrator/events/async.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/gateway/gw_tls.h"
#include "proto/rt/httpd.h"
#include "proto/rt/log.h"
#include "proto/rt/opts.h"
#include "proto/rt/sys.h"

enum { API_BODY_MAX = 8 * 1024 * 1024 };

struct options {
    const char *listen, *metrics_listen, *state_dir, *log_level, *log_format, *access_log;
    const char *keep_alive, *password_file, *token_file, *tls_cert, *tls_key;
    int64_t threads, busy_poll_us, drain_ms, lost_ms, idle_ms;
    bool print_routes;
};

struct app {
    struct options o;
    struct dv_arena arena;
    const char *password, *join_token;
    char api_sock[512], internal_sock[512];
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_signals *signals;
    struct dv_seal *seal;
    struct dv_storer *storer;
    struct dv_control *control;
    struct dv_tls_keys *keys;
    struct dv_gateway *gateway;
    struct dv_async *async;
    struct dv_api *api;
    struct dv_httpd *api_httpd, *metrics_httpd;
    int access_fd;
    bool is_ending;
    int exit_code;
};

static int give_up(struct app *a, const struct dv_err *err)
{
    dv_log(DV_LOG_ERROR, "cannot start", DV_LE(err));
    a->exit_code = 1;
    return err->code ? err->code : DV_E_BUG;
}

/* ---------------------------------------------------------------- what the parts tell each other */

static void on_demand(void *ctx, uint64_t fn_uid)
{
    struct app *a = ctx;
    if (a->control)
        dv_control_on_demand(a->control, fn_uid);
}

static void on_async(void *ctx, struct dv_async_accept *accept)
{
    struct app *a = ctx;
    if (a->async)
        dv_async_accept(a->async, accept);
    else if (a->gateway)
        dv_gateway_async_done(a->gateway, accept, DV_CLOSED, NULL);
}

static void write_metrics(void *ctx, struct dv_buf *out)
{
    struct app *a = ctx;
    dv_control_metrics(a->control, out);
    dv_gateway_metrics(a->gateway, out);
    dv_async_metrics(a->async, out);
}

static void on_drained(void *ctx)
{
    dv_loop_stop(((struct app *)ctx)->loop);
}

/* A pair that cannot be used changes nothing: the one in use goes on. */
static void reload_keys(struct app *a)
{
    struct dv_err err = DV_ERR_INIT;
    struct dv_tls_keys *keys = NULL;
    if (!a->keys) {
        dv_log(DV_LOG_INFO, "nothing to reload: TLS is off", DV_LS("signal", "HUP"));
        return;
    }
    int rc = dv_boot_tls_keys(a->o.tls_cert, a->o.tls_key, &keys, &err);
    if (!rc && a->gateway)
        rc = dv_gateway_tls_put(a->gateway, keys);
    if (rc) {
        err.code = rc;
        dv_log(DV_LOG_ERROR, "certificate not reloaded; the present one stays in use", DV_LE(&err));
        dv_tls_keys_unref(keys);
        return;
    }
    dv_tls_keys_unref(a->keys);
    a->keys = keys;
}

static void on_signal(void *ctx, int signo)
{
    struct app *a = ctx;
    if (signo == SIGHUP) {
        reload_keys(a);
        return;
    }
    if (a->is_ending || !a->gateway) {
        dv_loop_stop(a->loop);
        return;
    }
    a->is_ending = true;
    dv_log(DV_LOG_INFO, "draining", DV_LS("signal", signo == SIGTERM ? "TERM" : "INT"),
           DV_LI("timeout_ms", a->o.drain_ms));
    dv_gateway_drain(a->gateway, dv_clock_now_ns(&dv_clock_system) + (uint64_t)a->o.drain_ms * DV_MS,
                     on_drained);
}

/* ---------------------------------------------------------------- parts */

static int start_gateway(struct app *a, struct dv_err *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct dv_gateway_cfg cfg = {
        .clock = &dv_clock_system,
        .listen = a->o.listen,
        .tls = a->keys,
        .internal_path = a->internal_sock,
        .api_path = a->api_sock,
        .n_loops = (int)(a->o.threads > 0 ? a->o.threads
                         : cores > 0      ? cores
                                          : 1),
        .busy_poll_ns = (uint64_t)a->o.busy_poll_us * 1000,
        .user = "admin",
        .password = a->password,
        .access_log_fd = a->access_fd,
        .state = a->mailbox,
        .on_demand = on_demand,
        .on_async = on_async,
        .ctx = a,
    };
    int rc = dv_gateway_start(&cfg, &a->gateway, err);
    return rc ? dv_err_wrap(err, "--listen %s", a->o.listen) : DV_OK;
}

static int start_async(struct app *a, struct dv_err *err)
{
    struct dv_async_cfg cfg = {.loop = a->loop,
                               .mailbox = a->mailbox,
                               .storer = a->storer,
                               .clock = &dv_clock_system,
                               .internal_path = a->internal_sock};
    int rc = dv_random(&cfg.seed, sizeof(cfg.seed), err);
    dv_async_wire(&cfg, a->control, a->gateway);
    if (!rc)
        rc = dv_async_new(&cfg, &a->async, err);
    if (!rc)
        dv_control_set_backlog(a->control, dv_async_depth, a->async);
    if (!rc)
        dv_control_set_on_removed(a->control, dv_async_fn_removed, a->async);
    return rc;
}

static int start_api(struct app *a, struct dv_err *err)
{
    struct dv_api_cfg cfg = {.control = a->control,
                             .gateway = a->gateway,
                             .clock = &dv_clock_system,
                             .user = "admin",
                             .password = a->password,
                             .join_token = a->join_token,
                             .commit = DAVIT_COMMIT,
                             .default_idle_ms = a->o.idle_ms,
                             .metrics = write_metrics,
                             .metrics_ctx = a};
    int rc = dv_api_new(&cfg, &a->api, err);
    if (rc)
        return rc;
    struct dv_httpd_cfg api = {.unix_path = a->api_sock,
                               .body_max = API_BODY_MAX,
                               .on_request = dv_api_on_request,
                               .on_error = dv_api_on_error,
                               .ctx = a->api};
    struct dv_httpd_cfg metrics = {.address = a->o.metrics_listen,
                                   .body_max = 4096,
                                   .on_request = dv_api_on_metrics_request,
                                   .ctx = a->api};
    if ((rc = dv_httpd_start(a->loop, &api, &a->api_httpd, err)))
        return rc;
    if ((rc = dv_httpd_start(a->loop, &metrics, &a->metrics_httpd, err)))
        return dv_err_wrap(err, "--metrics-listen %s", a->o.metrics_listen);
    return DV_OK;
}

/* Everything kept is known: open the doors. */
static void on_loaded(void *ctx, int code, const struct dv_err *load_err)
{
    struct app *a = ctx;
    struct dv_err err = *load_err;
    if (!code)
        code = start_gateway(a, &err);
    if (!code)
        code = start_async(a, &err);
    if (!code)
        code = start_api(a, &err);
    if (code) {
        err.code = code;
        (void)give_up(a, &err);
        dv_loop_stop(a->loop);
        return;
    }
    dv_control_serve(a->control, a->gateway);
    dv_log(DV_LOG_INFO, "serving", DV_LS("listen", a->o.listen), DV_LI("port", dv_gateway_port(a->gateway)),
           DV_LS("scheme", a->keys ? "https" : "http"), DV_LS("metrics", a->o.metrics_listen),
           DV_LI("metrics_port", dv_httpd_port(a->metrics_httpd)), DV_LS("state", a->o.state_dir),
           DV_LS("version", DAVIT_VERSION));
}

static int start_control(struct app *a, struct dv_err *err)
{
    struct dv_control_cfg cfg = {.loop = a->loop,
                                 .mailbox = a->mailbox,
                                 .clock = &dv_clock_system,
                                 .storer = a->storer,
                                 .seal = a->seal,
                                 .node_lost_ms = (uint64_t)a->o.lost_ms,
                                 .default_idle_ms = a->o.idle_ms,
                                 .keep = {.is_fixed = strcmp(a->o.keep_alive, "fixed") == 0}};
    int rc = dv_random(&cfg.seed, sizeof(cfg.seed), err);
    return rc ? rc : dv_control_new(&cfg, on_loaded, a, &a->control, err);
}

/* ---------------------------------------------------------------- state directory */

static int in_state_dir(const struct app *a, const char *name, char *out, size_t cap, struct dv_err *err)
{
    int n = snprintf(out, cap, "%s/%s", a->o.state_dir, name);
    return n > 0 && (size_t)n < cap ? DV_OK : dv_err_set(err, DV_INVALID, "--state-dir is too long");
}

static int check_exposure(const struct app *a, struct dv_err *err)
{
    struct dv_hostport hp;
    int rc = dv_hostport_parse(a->o.listen, -1, &hp, err);
    if (rc)
        return dv_err_wrap(err, "--listen");
    if (!dv_hostport_is_loopback(&hp) && (!a->password || strlen(a->password) < 8))
        return dv_err_set(
            err, DV_DENIED,
            "--listen %s can be reached from other machines, and the admin password has fewer than 8 "
            "characters; choose a longer one, or listen on 127.0.0.1",
            a->o.listen);
    return DV_OK;
}

static int open_state(struct app *a, struct dv_err *err)
{
    char store_path[512], key_path[512];
    int rc = dv_mkdirs(a->o.state_dir, 0700, err);
    if (rc)
        return dv_err_wrap(err, "--state-dir");
    if ((rc = in_state_dir(a, "store.db", store_path, sizeof(store_path), err)) ||
        (rc = in_state_dir(a, "seal.key", key_path, sizeof(key_path), err)) ||
        (rc = in_state_dir(a, "api.sock", a->api_sock, sizeof(a->api_sock), err)) ||
        (rc = in_state_dir(a, "gateway.sock", a->internal_sock, sizeof(a->internal_sock), err)))
        return rc;
    if ((rc = dv_boot_credential(a->o.password_file, a->o.state_dir, "admin-password", &a->arena,
                                 &a->password, err)) ||
        (rc = dv_boot_credential(a->o.token_file, a->o.state_dir, "join-token", &a->arena, &a->join_token,
                                 err)) ||
        (rc = check_exposure(a, err)))
        return rc;
    struct dv_store *store = NULL;
    if ((rc = dv_store_sqlite_open(store_path, &store, err)))
        return rc;
    if ((rc = dv_seal_open(key_path, &a->seal, err)) || (rc = dv_storer_start(store, &a->storer, err)))
        store->ops->close(store);
    return rc;
}

static int open_logs(struct app *a, struct dv_err *err)
{
    enum dv_log_level level = DV_LOG_INFO;
    enum dv_log_format format = DV_LOG_LOGFMT;
    (void)dv_log_level_parse(a->o.log_level, &level); /* the option's choices have been checked */
    (void)dv_log_format_parse(a->o.log_format, &format);
    dv_log_setup(level, format, STDERR_FILENO);
    a->access_fd = -1;
    if (!a->o.access_log)
        return DV_OK;
    a->access_fd = strcmp(a->o.access_log, "-") == 0
                       ? STDOUT_FILENO
                       : open(a->o.access_log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    return a->access_fd >= 0 ? DV_OK : dv_err_sys(err, DV_E_IO, errno, "--access-log %s", a->o.access_log);
}

/* ---------------------------------------------------------------- start and end */

static int start(struct app *a, struct dv_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    int rc = open_logs(a, err);
    if (!rc)
        rc = dv_loop_new(&dv_clock_system, &a->loop, err);
    if (!rc)
        rc = dv_mailbox_new(a->loop, &a->mailbox, err);
    if (!rc) /* before there is another thread */
        rc = dv_signals_start(a->loop, signals, DV_COUNT(signals), on_signal, a, &a->signals, err);
    if (!rc)
        rc = dv_boot_tls_keys(a->o.tls_cert, a->o.tls_key, &a->keys, err);
    if (!rc)
        rc = open_state(a, err);
    return rc ? rc : start_control(a, err);
}

/* In the order that owners need: callers before callees, threads before the mailbox they post to. */
static void end(struct app *a)
{
    if (a->api_httpd)
        dv_httpd_stop(a->api_httpd);
    if (a->metrics_httpd)
        dv_httpd_stop(a->metrics_httpd);
    dv_api_free(a->api);
    if (a->control) {
        dv_control_set_backlog(a->control, NULL, NULL);
        dv_control_set_on_removed(a->control, NULL, NULL);
    }
    dv_async_free(a->async);
    a->async = NULL;
    dv_control_free(a->control);
    a->control = NULL;
    if (a->storer)
        dv_storer_stop(a->storer);
    if (a->loop)
        (void)dv_loop_turn(a->loop, 0); /* the store's last answers, while the gateway can pass them on */
    if (a->gateway) {
        struct dv_gateway *g = a->gateway;
        a->gateway = NULL;
        dv_gateway_free(g);
    }
    dv_tls_keys_unref(a->keys);
    dv_signals_stop(a->signals);
    if (a->mailbox)
        dv_mailbox_free(a->mailbox);
    dv_seal_free(a->seal);
    dv_loop_free(a->loop);
    if (a->access_fd > STDERR_FILENO)
        (void)close(a->access_fd);
    dv_arena_deinit(&a->arena);
}

static bool parse(struct app *a, int argc, char **argv)
{
    struct options *o = &a->o;
    /* clang-format off */
#define ROW(n, k, field, a_, h, ...) {.name = (n), .kind = DV_OPT_##k, .out = &o->field, .arg = (a_), .help = (h), __VA_ARGS__}
    const struct dv_opt opts[] = {
        ROW("listen", STR, listen, "HOST:PORT", "Where the API and functions are served.",
            .preset = "127.0.0.1:8080"),
        ROW("metrics-listen", STR, metrics_listen, "HOST:PORT", "Where /metrics, /healthz and /readyz are.",
            .preset = "127.0.0.1:8082"),
        ROW("state-dir", STR, state_dir, "DIR", "Database, keys, password, sockets.",
            .preset = dv_boot_state_dir(&a->arena)),
        ROW("admin-password-file", STR, password_file, "FILE",
            "Password of the user admin; made at random in the state directory when not given.", .preset = NULL),
        ROW("join-token-file", STR, token_file, "FILE",
            "Token that nodes join with; made at random in the state directory when not given.", .preset = NULL),
        ROW("tls-cert", STR, tls_cert, "FILE",
            "Certificate (PEM, with its chain) to serve --listen over TLS with; read again at SIGHUP.", .preset = NULL),
        ROW("tls-key", STR, tls_key, "FILE", "Its private key (PEM).", .preset = NULL),
        ROW("gateway-threads", INT, threads, "N", "Loops that serve requests; 0: one per processor.",
            .preset = "0", .max = 256),
        ROW("busy-poll-us", INT, busy_poll_us, "N",
            "Microseconds that a gateway loop looks for more before it sleeps, while waits are short; 0: never.",
            .preset = "100", .max = 1000),
        ROW("drain-timeout", MS, drain_ms, "TIME", "How long requests may take to end after SIGTERM.",
            .preset = "30s", .max = 86400000),
        ROW("node-lost", MS, lost_ms, "TIME", "Silence after which a node's replicas are replaced.",
            .preset = "10s", .min = 1000, .max = 86400000),
        ROW("idle", MS, idle_ms, "TIME", "Idle time of functions that give no scale.idle; 0: 1m (OpenFaaS API: 45s).",
            .preset = "0", .max = 86400000),
        ROW("keep-alive", STR, keep_alive, "POLICY",
            "histogram: functions without scale.idle are kept as the gaps between their requests suggest; fixed: as --idle says.",
            .preset = "histogram", .choices = "histogram|fixed"),
        ROW("access-log", STR, access_log, "FILE", "A line for every request; - is standard output.", .preset = NULL),
        ROW("log-level", STR, log_level, "LEVEL", "What is logged.",
            .preset = "info", .choices = "debug|info|warn|error"),
        ROW("log-format", STR, log_format, "FORMAT", "How it is written.",
            .preset = "logfmt", .choices = "logfmt|json"),
        ROW("print-routes", BOOL, print_routes, NULL, "Print every route of the API with its statuses, and end.",
            .cli_only = true),
    };
#undef ROW
    /* clang-format on */
    const struct dv_opts_spec spec = {
        .program = "davit-orchestrator",
        .about = "Serves functions on a cluster of container engines: REST API, gateway, "
                 "queues, autoscaler, scheduler.",
        .opts = opts,
        .n_opts = DV_COUNT(opts)};
    struct dv_opts_result res;
    return dv_opts_main(&spec, argc, argv, &a->arena, &res, &a->exit_code);
}

static int print_routes(struct app *a)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    bool ok =
        dv_api_routes(&b) == DV_OK && fwrite(dv_buf_ptr(&b), 1, dv_buf_len(&b), stdout) == dv_buf_len(&b);
    dv_arena_deinit(&a->arena);
    return ok && fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct app a = {.access_fd = -1};
    struct dv_err err = DV_ERR_INIT;
    (void)signal(SIGPIPE, SIG_IGN);
    dv_boot_raise_limits();
    if (!parse(&a, argc, argv)) {
        dv_arena_deinit(&a.arena);
        return a.exit_code;
    }
    if (a.o.print_routes)
        return print_routes(&a);
    int rc = start(&a, &err);
    if (rc)
        (void)give_up(&a, &err);
    else if (dv_loop_run(a.loop))
        a.exit_code = 1;
    end(&a);
    if (!a.exit_code)
        dv_log(DV_LOG_INFO, "ended");
    return a.exit_code;
}

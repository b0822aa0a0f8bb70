/* davit-agent: owns one node's replicas.
 *
 *   engine  <-  sandbox  ->  carry  <=  data links (gateways)
 *                 ^  |
 *        commands |  v reports
 *               session  <=  control link (orchestrator)
 *
 * One state loop holds sandbox and session; the carry has loops of its own.  The agent joins with a token,
 * then waits for the orchestrator to connect; without a control link for three seconds it joins again, since
 * its address may have changed or the orchestrator may have lost its state.
 *
 * SIGTERM: nothing new comes in, what is inside ends (--drain-timeout), then the program does; a second
 * signal ends it at once.  Its replicas keep running, and the next start takes them over. */
#include "agent/carry/carry.h"
#include "agent/cgroup/cgroup.h"
#include "agent/engine/engine.h"
#include "agent/node/join.h"
#include "agent/node/session.h"
#include "agent/node/settings.h"
#include "agent/sandbox/sandbox.h"
#include "proto/base/alloc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/log.h"
#include "proto/rt/metrics.h"
#include "proto/rt/sys.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { REJOIN_MS = 3000, LEAVE_MS = 15000, TICK_MS = 250, DRAIN_TELL_MS = 1000 };

struct agent {
    struct dv_agent_settings set;
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_signals *signals;
    struct dv_engine *engine;
    struct dv_carry *carry;
    struct dv_sandbox *sandbox; /* from the moment the node has an id */
    struct dv_session *session;
    struct dv_join_client *join;
    struct dv_httpd *metrics;
    struct dv_identity id;
    struct dv_timer tick, drain_timer;
    uint64_t drain_by_ns;
    uint64_t leave_by_ns; /* another identity was given: what runs under the old one ends by then */
    bool is_stopping, want_restart;
    int exit_code;
};

/* ---- between the parts ---- */

static void on_trouble(void *ctx, uint64_t replica, enum dv_link_reset what)
{
    struct agent *a = ctx;
    if (a->sandbox)
        dv_sandbox_on_trouble(a->sandbox, replica, what);
}

static void on_drained(void *ctx, uint64_t replica)
{
    struct agent *a = ctx;
    if (a->sandbox)
        dv_sandbox_on_drained(a->sandbox, replica);
}

static void on_closed(void *ctx, uint64_t replica)
{
    struct agent *a = ctx;
    if (a->sandbox)
        dv_sandbox_on_closed(a->sandbox, replica);
}

static void on_wake(void *ctx, uint64_t replica, uint64_t held_ns)
{
    struct agent *a = ctx;
    if (a->sandbox)
        dv_sandbox_on_wake(a->sandbox, replica, held_ns);
}

static void on_change(void *ctx)
{
    struct agent *a = ctx;
    if (a->session)
        dv_session_changed(a->session);
}

static void on_logs(void *ctx, const struct dv_log_chunk *chunk)
{
    struct agent *a = ctx;
    dv_session_logs(a->session, chunk);
}

static int open_sandbox(struct agent *a, struct dv_err *err)
{
    struct dv_sandbox_cfg cfg = {.loop = a->loop,
                                 .engine = a->engine,
                                 .carry = a->carry,
                                 .node = a->id.node,
                                 .state_dir = a->set.state_dir,
                                 .run_dir = a->set.run_dir,
                                 .init_path = a->set.init_path,
                                 .network = a->set.network,
                                 .replicas_max = a->set.max_replicas,
                                 .primed_max = a->set.primed_max,
                                 .ready_networks = a->set.ready_networks,
                                 .reclaim_percent = a->set.reclaim_below,
                                 .on_change = on_change,
                                 .on_logs = on_logs,
                                 .ctx = a};
    int rc = dv_agent_settings_run_dir(&a->set, a->id.node, err);
    if (rc)
        return rc;
    cfg.run_dir = a->set.run_dir;
    rc = dv_sandbox_new(&cfg, &a->sandbox, err);
    if (!rc)
        dv_session_open(a->session, &a->id, a->sandbox);
    return rc;
}

static void quit(struct agent *a, int exit_code)
{
    a->exit_code = exit_code;
    dv_loop_stop(a->loop);
}

/* ---- joining ---- */

/* The orchestrator does not know this node any more and gave it another id: what runs here belongs to nobody.
 * It is drained and removed, then the agent begins anew. */
static void change_identity(struct agent *a)
{
    dv_log(DV_LOG_WARN, "this node was given a new identity: its replicas end, then it begins anew",
           DV_LID("node", a->id.node));
    a->leave_by_ns = dv_loop_now(a->loop) + LEAVE_MS * DV_MS;
    dv_sandbox_sync(a->sandbox, &(struct dv_cmd_sync){0});
}

static void on_joined(void *ctx, const struct dv_join_reply *reply)
{
    struct agent *a = ctx;
    struct dv_err err = DV_ERR_INIT;
    uint64_t before = a->id.node;
    int rc = dv_identity_take(&a->id, a->set.state_dir, reply, &err);
    if (!rc && !a->sandbox)
        rc = open_sandbox(a, &err);
    else if (!rc && before != a->id.node)
        change_identity(a);
    else if (!rc)
        dv_session_open(a->session, &a->id, a->sandbox);
    if (rc) {
        dv_log(DV_LOG_ERROR, "cannot begin as a node", DV_LE(&err));
        quit(a, 1);
        return;
    }
    dv_log(DV_LOG_INFO, "joined", DV_LID("node", a->id.node), DV_LS("orchestrator", a->set.orchestrator));
}

static void ask_to_join(struct agent *a)
{
    struct dv_join join = {.name = (char *)(uintptr_t)a->set.name,
                           .node = a->id.node,
                           .incarnation = a->id.incarnation,
                           .address = a->set.advertise,
                           .version = (char *)(uintptr_t)DAVIT_VERSION,
                           .labels = a->set.labels};
    if (dv_join_start(a->join, &join))
        dv_log(DV_LOG_ERROR, "joining: out of memory");
}

static void on_control(void *ctx, bool is_open)
{
    struct agent *a = ctx;
    if (is_open)
        dv_join_stop(a->join);
}

static void on_tick(struct dv_timer *t)
{
    struct agent *a = DV_CONTAINER_OF(t, struct agent, tick);
    uint64_t now = dv_loop_now(a->loop);
    bool is_alone = !dv_session_has_control(a->session) &&
                    now - dv_session_last_control_ns(a->session) >= REJOIN_MS * DV_MS;
    if (a->leave_by_ns && (!dv_sandbox_n_replicas(a->sandbox) || now >= a->leave_by_ns)) {
        a->want_restart = true;
        dv_loop_stop(a->loop);
        return;
    }
    if (is_alone && !a->leave_by_ns && !dv_join_is_asking(a->join))
        ask_to_join(a);
    (void)dv_timer_set(a->loop, t, now + TICK_MS * DV_MS); /* its place in the heap is still there */
}

/* ---- metrics, health ---- */

static void on_request(void *ctx, struct dv_http_req *r)
{
    struct agent *a = ctx;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_sv path = dv_http_path(r), method = dv_http_method(r);
    if (!dv_sv_eq(method, DV_SV("GET")) && !dv_sv_eq(method, DV_SV("HEAD"))) {
        dv_http_set_header(r, "Allow", "GET, HEAD");
        dv_http_reply(r, 405, "text/plain; charset=utf-8", DV_SV("only GET and HEAD\n"));
    } else if (dv_sv_eq(path, DV_SV("/healthz"))) {
        dv_http_reply(r, 200, "text/plain; charset=utf-8", DV_SV("OK\n"));
    } else if (dv_sv_eq(path, DV_SV("/readyz"))) {
        bool is_ready = a->sandbox && dv_session_has_control(a->session);
        dv_http_reply(r, is_ready ? 200 : 503, "text/plain; charset=utf-8",
                      is_ready ? DV_SV("OK\n") : DV_SV("no orchestrator is connected\n"));
    } else if (dv_sv_eq(path, DV_SV("/metrics"))) {
        if (a->sandbox)
            dv_sandbox_metrics(a->sandbox, &b);
        dv_carry_metrics(a->carry, &b);
        (void)dv_metric_head(&b, "davit_agent_connected", DV_METRIC_GAUGE,
                             "1 while an orchestrator's control link is open.");
        (void)dv_metric_u64(&b, "davit_agent_connected", NULL, 0, dv_session_has_control(a->session));
        dv_http_reply(r, b.failed ? 500 : 200, DV_METRICS_CONTENT_TYPE, dv_buf_sv(&b));
    } else {
        dv_http_reply(r, 404, "text/plain; charset=utf-8",
                      DV_SV("/metrics, /healthz and /readyz are here\n"));
    }
}

/* ---- stopping ---- */

static bool has_drained(const struct agent *a)
{
    return !dv_carry_n_links(a->carry) && dv_session_is_quiet(a->session);
}

static void on_left(void *ctx)
{
    struct agent *a = ctx;
    if (has_drained(a))
        quit(a, 0);
}

/* Now and then: says what is waited for, ends the wait when its time is over.  (A link that failed in its
 * handshake is noticed here, too.) */
static void on_drain_timer(struct dv_timer *t)
{
    struct agent *a = DV_CONTAINER_OF(t, struct agent, drain_timer);
    uint64_t now = dv_loop_now(a->loop), inside = dv_carry_n_inside(a->carry),
             next = now + DRAIN_TELL_MS * DV_MS;
    if (has_drained(a)) {
        quit(a, 0);
        return;
    }
    if (now >= a->drain_by_ns) {
        dv_log(DV_LOG_WARN, "the time to drain is over: requests inside are cut off",
               DV_LU("requests", inside));
        quit(a, 0);
        return;
    }
    dv_log(DV_LOG_INFO, "draining: waits for requests inside", DV_LU("requests", inside),
           DV_LU("links", dv_carry_n_links(a->carry)), DV_LU("left_ms", (a->drain_by_ns - now) / DV_MS));
    (void)dv_timer_set(a->loop, t,
                       next < a->drain_by_ns ? next : a->drain_by_ns); /* its place in the heap is there */
}

/* Gateways are told to send nothing new, and say when nothing is on its way any more; whatever is inside ends
 * in its own time.  Replicas stay. */
static void on_signal(void *ctx, int signo)
{
    struct agent *a = ctx;
    uint64_t now = dv_clock_now_ns(&dv_clock_system);
    if (a->is_stopping) {
        dv_log(DV_LOG_WARN, "a second signal: requests inside are cut off",
               DV_LU("requests", dv_carry_n_inside(a->carry)));
        quit(a, 0);
        return;
    }
    a->is_stopping = true;
    a->drain_by_ns = now + (uint64_t)a->set.drain_ms * DV_MS;
    dv_log(DV_LOG_INFO, "draining; replicas keep running", DV_LS("signal", signo == SIGTERM ? "TERM" : "INT"),
           DV_LU("requests", dv_carry_n_inside(a->carry)), DV_LI("timeout_ms", a->set.drain_ms));
    dv_join_stop(a->join);
    dv_timer_cancel(a->loop, &a->tick);
    dv_session_goaway(a->session);
    dv_carry_goaway(a->carry);
    if (!a->set.drain_ms || dv_timer_set(a->loop, &a->drain_timer, now + DRAIN_TELL_MS * DV_MS))
        quit(a, 0);
}

/* ---- life ---- */

static int open_loop(struct agent *a, struct dv_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT};
    int rc = dv_loop_new(&dv_clock_system, &a->loop, err);
    if (!rc) /* before any thread, which inherits what is blocked here */
        rc = dv_signals_start(a->loop, signals, DV_COUNT(signals), on_signal, a, &a->signals, err);
    return rc ? rc : dv_mailbox_new(a->loop, &a->mailbox, err);
}

static int open_parts(struct agent *a, struct dv_err *err)
{
    int fd;
    int rc = dv_listen_tcp(a->set.listen, 0, "--listen", &fd, err);
    if (rc)
        return rc;
    rc = dv_agent_settings_advertise(&a->set, dv_socket_port(fd), err);
    if (rc) {
        (void)close(fd);
        return rc;
    }
    struct dv_session_cfg sc = {.loop = a->loop,
                                .listen_fd = fd,
                                .address = a->set.advertise,
                                .replicas_max = a->set.max_replicas,
                                .on_control = on_control,
                                .ctx = a};
    struct dv_carry_cfg cc = {.clock = &dv_clock_system,
                              .n_loops = (int)a->set.loops,
                              .busy_poll_ns = (uint64_t)a->set.busy_poll_us * 1000,
                              .state = a->mailbox,
                              .on_trouble = on_trouble,
                              .on_drained = on_drained,
                              .on_closed = on_closed,
                              .on_wake = on_wake,
                              .on_left = on_left,
                              .ctx = a};
    struct dv_join_cfg jc = {.loop = a->loop,
                             .orchestrator = a->set.orchestrator,
                             .token = a->set.join_token,
                             .on_joined = on_joined,
                             .ctx = a};
    struct dv_httpd_cfg hc = {
        .address = a->set.metrics_listen, .body_max = 4096, .on_request = on_request, .ctx = a};
    rc = dv_carry_start(&cc, &a->carry, err);
    if (rc) {
        (void)close(fd);
        return rc;
    }
    sc.carry = a->carry;
    rc = dv_session_new(&sc, &a->session, err);
    if (!rc)
        rc = dv_join_new(&jc, &a->join, err);
    if (!rc && a->set.metrics_listen[0])
        rc = dv_httpd_start(a->loop, &hc, &a->metrics, err);
    return rc ? rc : dv_engine_docker_open(a->loop, a->set.docker, &a->engine, err);
}

static int start(struct agent *a, struct dv_err *err)
{
    int rc = open_loop(a, err);
    if (!rc)
        rc = dv_cgroup_setup(err);
    if (!rc)
        rc = dv_identity_load(a->set.state_dir, &a->id, err);
    if (!rc)
        rc = open_parts(a, err);
    if (!rc && a->id.node)
        rc = open_sandbox(a, err);
    if (rc)
        return rc;
    a->tick.fn = on_tick;
    a->drain_timer.fn = on_drain_timer;
    dv_log(DV_LOG_INFO, "davit-agent", DV_LS("version", DAVIT_VERSION), DV_LS("name", a->set.name),
           DV_LS("listen", a->set.listen), DV_LS("advertise", a->set.advertise),
           DV_LS("engine", a->set.docker), DV_LS("state_dir", a->set.state_dir));
    ask_to_join(a);
    return dv_timer_set(a->loop, &a->tick, dv_loop_now(a->loop) + TICK_MS * DV_MS);
}

static void finish(struct agent *a)
{
    dv_httpd_stop(a->metrics);
    dv_join_free(a->join);
    dv_session_free(a->session);
    if (a->engine)
        a->engine->ops->close(a->engine);
    dv_carry_free(a->carry);
    dv_sandbox_free(a->sandbox);
    if (a->loop) {
        dv_timer_cancel(a->loop, &a->tick);
        dv_timer_cancel(a->loop, &a->drain_timer);
    }
    if (a->mailbox)
        dv_mailbox_free(a->mailbox);
    dv_signals_stop(a->signals);
    dv_loop_free(a->loop);
}

static int run(const struct dv_agent_settings *set, bool *again)
{
    struct agent a = {.set = *set};
    struct dv_err err = DV_ERR_INIT;
    int rc = start(&a, &err);
    if (rc) {
        dv_log(DV_LOG_ERROR, "cannot start", DV_LS("error", dv_err_msg(&err, rc)));
        a.exit_code = 1;
    } else if (dv_loop_run(a.loop)) {
        dv_log(DV_LOG_ERROR, "the event loop failed");
        a.exit_code = 1;
    } else if (a.is_stopping) {
        dv_log(DV_LOG_INFO, "ended; replicas keep running");
    }
    *again = a.want_restart;
    finish(&a);
    return a.exit_code;
}

int main(int argc, char **argv)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_agent_settings set;
    int exit_code;
    if (!dv_agent_settings_read(&set, argc, argv, &arena, &exit_code))
        return exit_code;
    for (bool again = true; again;)
        exit_code = run(&set, &again);
    return exit_code;
}

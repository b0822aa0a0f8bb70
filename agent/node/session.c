/* Commands in, reports out.
 *
 * Reports are gathered: whatever changed within one loop turn leaves as one message at its end.  A whole
 * report goes out right after a control link opens and every few seconds, so that nothing rests on a message
 * having arrived; the same holds for commands, which are safe to repeat.
 *
 * The newest control link is the one that counts: an orchestrator that came back does not wait for its old
 * connection to be noticed. */
#include "agent/node/session.h"
#include "agent/cgroup/cgroup.h"
#include "agent/node/node_report.h"
#include "agent/node/scraper.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NODE_MS = 1000, FULL_MS = 5000, HANDSHAKES_MAX = 64 };

struct session_link {
    struct dv_list node;
    struct dv_session *session;
    struct dv_linkio *io;
};

struct dv_session {
    struct dv_session_cfg cfg;
    struct dv_io listener, near; /* near: gateways of this machine; fd -1: nobody listens there */
    struct dv_identity id;
    struct dv_sandbox *sandbox;
    struct dv_list links; /* in their handshake, and the one for control */
    size_t n_links;
    struct session_link *control; /* open; NULL: none */
    uint64_t last_control_ns, full_ns, node_ns;
    struct dv_timer timer;
    struct dv_defer gather;
    bool want_full, want_node;
    struct dv_node_meter meter;
    struct dv_scraper *scraper;
    bool has_scrapes;
    struct dv_buf text; /* scratch */
};

/* ---- reports ---- */

static int send_report(struct dv_session *s, const struct dv_report *report)
{
    dv_buf_clear(&s->text);
    int rc = dv_wire_encode(&dv_type_report, report, &s->text);
    if (!rc)
        rc = dv_link_report(dv_linkio_link(s->control->io), dv_buf_sv(&s->text));
    if (!rc)
        dv_linkio_kick(s->control->io);
    dv_buf_reset(&s->text, 64 * 1024);
    return rc;
}

static void report_replicas(struct dv_session *s, bool full)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_report report = {.type = "replicas", .is_full = full};
    int rc = dv_sandbox_report(s->sandbox, full, &arena, &report.replicas, &report.n_replicas);
    if (!rc && (full || report.n_replicas))
        rc = send_report(s, &report);
    for (size_t i = 0; rc == DV_TOO_LARGE && i < report.n_replicas; i++)
        report.replicas[i].log_tail = NULL; /* the states matter more than the words */
    if (rc == DV_TOO_LARGE)
        rc = send_report(s, &report);
    s->want_full = rc != DV_OK; /* what was not told now is told with all the rest */
    if (full && !rc)
        s->full_ns = dv_loop_now(s->cfg.loop);
    if (rc)
        dv_log(DV_LOG_WARN, "report not sent", DV_LS("error", dv_err_text(rc)));
}

static void report_node(struct dv_session *s)
{
    struct dv_node_report node;
    struct dv_report report = {.type = "node", .node = &node};
    dv_node_report_fill(&s->meter, s->sandbox, &s->id, s->cfg.replicas_max, dv_loop_now(s->cfg.loop), &node);
    if (send_report(s, &report) == DV_OK) { /* the next one comes within a second */
        s->node_ns = dv_loop_now(s->cfg.loop);
        s->want_node = false;
    }
}

/* A result that gets lost is a reading that failed: the next one comes with its interval. */
static void report_scrapes(struct dv_session *s)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_report report = {.type = "scrapes"};
    s->has_scrapes = false;
    if (dv_scraper_take(s->scraper, &arena, &report.scrapes, &report.n_scrapes) == DV_OK && report.n_scrapes)
        (void)send_report(s, &report);
}

static void on_scraped(void *ctx)
{
    struct dv_session *s = ctx;
    s->has_scrapes = true;
    dv_session_changed(s);
}

static void on_gather(struct dv_defer *d)
{
    struct dv_session *s = DV_CONTAINER_OF(d, struct dv_session, gather);
    if (!s->control || !dv_sandbox_is_settled(s->sandbox))
        return; /* the sandbox says so when it has settled */
    if (s->want_node || dv_node_report_is_news(&s->meter, s->sandbox))
        report_node(s);
    if (s->want_full || dv_sandbox_has_changes(s->sandbox))
        report_replicas(s, s->want_full);
    if (s->has_scrapes)
        report_scrapes(s);
}

void dv_session_changed(struct dv_session *s)
{
    if (s->control)
        dv_loop_defer(s->cfg.loop, &s->gather);
}

void dv_session_logs(struct dv_session *s, const struct dv_log_chunk *chunk)
{
    struct dv_log_chunk copy = *chunk;
    struct dv_report report = {.type = "logs", .logs = &copy};
    int rc = s->control ? send_report(s, &report) : DV_CLOSED;
    if (rc && rc != DV_CLOSED)
        dv_log(DV_LOG_WARN, "log lines dropped", DV_LU("lines", chunk->n_lines),
               DV_LS("error", dv_err_text(rc)));
}

static void on_timer(struct dv_timer *t)
{
    struct dv_session *s = DV_CONTAINER_OF(t, struct dv_session, timer);
    uint64_t now = dv_loop_now(s->cfg.loop);
    if (s->control) {
        s->last_control_ns = now;
        s->want_node = true;
        s->want_full = s->want_full || now - s->full_ns >= FULL_MS * DV_MS;
        dv_session_changed(s);
    }
    (void)dv_timer_set(s->cfg.loop, t, now + NODE_MS * DV_MS); /* its place in the heap is still there */
}

/* ---- commands ---- */

static void obey(struct dv_session *s, struct dv_sv json)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_control_msg msg;
    struct dv_err err = DV_ERR_INIT;
    if (dv_wire_decode(&dv_type_control, json, DV_LINK_MAX_MESSAGE, DV_WIRE_IGNORE_UNKNOWN, &arena, &msg,
                       &err)) {
        dv_log(DV_LOG_WARN, "command not understood", DV_LE(&err));
        return;
    }
    if (msg.start)
        dv_sandbox_start(s->sandbox, msg.start);
    else if (msg.stop)
        dv_sandbox_stop(s->sandbox, msg.stop);
    else if (msg.sync)
        dv_sandbox_sync(s->sandbox, msg.sync);
    else if (msg.pools)
        dv_sandbox_pools(s->sandbox, msg.pools);
    else if (msg.logs)
        dv_sandbox_logs(s->sandbox, msg.logs);
    else if (msg.scrape)
        dv_scraper_obey(s->scraper, s->sandbox, msg.scrape);
}

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct session_link *l = ctx;
    if (ev->kind == DV_LINK_EV_CONTROL && l->session->control == l)
        obey(l->session, ev->bytes);
}

/* ---- links ---- */

static void watch_listener(struct dv_session *s)
{
    bool may = s->sandbox && s->n_links < HANDSHAKES_MAX;
    struct dv_io *both[] = {&s->listener, &s->near};
    for (size_t i = 0; i < DV_COUNT(both); i++)
        if (both[i]->fd >= 0)
            (void)dv_io_mod(s->cfg.loop, both[i],
                            may ? EPOLLIN : 0); /* fails only when it is not registered */
}

static void link_drop(struct session_link *l)
{
    struct dv_session *s = l->session;
    bool was_control = s->control == l;
    dv_list_remove(&l->node);
    s->n_links--;
    dv_linkio_free(l->io);
    dv_free(l);
    watch_listener(s);
    if (!was_control)
        return;
    s->control = NULL;
    s->last_control_ns = dv_loop_now(s->cfg.loop);
    dv_sandbox_logs_drop(s->sandbox);
    dv_scraper_drop(s->scraper);
    s->has_scrapes = false;
    s->cfg.on_control(s->cfg.ctx, false);
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    struct session_link *l = ctx;
    bool is_control = l->session->control == l;
    dv_log(is_control ? DV_LOG_WARN : DV_LOG_DEBUG,
           is_control ? "control link closed" : "link closed in its handshake",
           DV_LS("error", dv_err_msg(err, code)));
    link_drop(l);
}

static void on_open(void *ctx, struct dv_linkio *io)
{
    struct session_link *l = ctx;
    struct dv_session *s = l->session;
    if (dv_link_purpose(dv_linkio_link(io)) == DV_LINK_DATA_CONN) {
        dv_linkio_detach(io);
        dv_carry_adopt(s->cfg.carry, io);
        l->io = NULL;
        link_drop(l);
        return;
    }
    struct session_link *old = s->control;
    s->control = l;
    s->want_full = s->want_node = true;
    if (old)
        link_drop(old);
    dv_log(DV_LOG_INFO, "control link open");
    dv_session_changed(s);
    s->cfg.on_control(s->cfg.ctx, true);
}

static void take(struct dv_session *s, int fd)
{
    struct dv_err err = DV_ERR_INIT;
    struct session_link *l = dv_zalloc(sizeof(*l));
    if (!l) {
        (void)close(fd);
        return;
    }
    struct dv_linkio_cfg cfg = {.link = {.role = DV_LINK_SERVER,
                                         .node = s->id.node,
                                         .incarnation = s->id.incarnation,
                                         .on_event = on_event,
                                         .ctx = l},
                                .on_open = on_open,
                                .on_closed = on_closed};
    memcpy(cfg.link.key, s->id.key, sizeof(cfg.link.key));
    l->session = s;
    int rc = dv_linkio_accept(s->cfg.loop, fd, &cfg, &l->io, &err);
    explicit_bzero(cfg.link.key, sizeof(cfg.link.key));
    if (rc) {
        dv_log(DV_LOG_WARN, "link not taken", DV_LE(&err));
        dv_free(l);
        return;
    }
    dv_list_push_back(&s->links, &l->node);
    s->n_links++;
    watch_listener(s);
}

static void take_all(struct dv_session *s, struct dv_io *io)
{
    while (s->n_links < HANDSHAKES_MAX) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EINTR)
            continue;
        if (fd < 0)
            return;
        take(s, fd);
    }
}

static void on_listener(struct dv_io *io, uint32_t events)
{
    (void)events;
    take_all(DV_CONTAINER_OF(io, struct dv_session, listener), io);
}

static void on_near(struct dv_io *io, uint32_t events)
{
    (void)events;
    take_all(DV_CONTAINER_OF(io, struct dv_session, near), io);
}

/* Faster, not needed: without it they come by TCP as everybody else. */
static void listen_near(struct dv_session *s)
{
    struct dv_err err = DV_ERR_INIT;
    int fd = -1, rc = dv_listen_near(s->cfg.address, &fd, &err);
    if (!rc)
        rc = dv_io_add(s->cfg.loop, &s->near, fd, 0, &err);
    if (!rc)
        return;
    dv_log(DV_LOG_INFO, "gateways of this machine will come by TCP", DV_LS("error", dv_err_msg(&err, rc)));
    if (fd >= 0)
        (void)close(fd);
}

/* ---- life ---- */

int dv_session_new(const struct dv_session_cfg *cfg, struct dv_session **out, struct dv_err *err)
{
    struct dv_session *s = dv_zalloc(sizeof(*s));
    if (!s) {
        (void)close(cfg->listen_fd);
        return dv_err_set(err, DV_E_NOMEM, "session");
    }
    s->cfg = *cfg;
    s->listener = (struct dv_io){.fd = -1, .fn = on_listener};
    s->near = (struct dv_io){.fd = -1, .fn = on_near};
    s->timer.fn = on_timer;
    s->gather.fn = on_gather;
    dv_list_init(&s->gather.node);
    dv_list_init(&s->links);
    s->last_control_ns = dv_loop_now(cfg->loop);
    int rc = dv_io_add(cfg->loop, &s->listener, cfg->listen_fd, 0, err);
    if (!rc && dv_timer_set(cfg->loop, &s->timer, s->last_control_ns + NODE_MS * DV_MS))
        rc = dv_err_set(err, DV_E_NOMEM, "session");
    if (!rc)
        rc = dv_scraper_new(cfg->loop, on_scraped, s, &s->scraper, err);
    if (rc) {
        dv_timer_cancel(cfg->loop, &s->timer);
        dv_io_del(cfg->loop, &s->listener);
        (void)close(cfg->listen_fd);
        dv_free(s);
        return rc;
    }
    if (cfg->address)
        listen_near(s);
    *out = s;
    return DV_OK;
}

static void close_listeners(struct dv_session *s)
{
    struct dv_io *both[] = {&s->listener, &s->near};
    for (size_t i = 0; i < DV_COUNT(both); i++) {
        int fd = both[i]->fd;
        dv_io_del(s->cfg.loop, both[i]);
        if (fd >= 0)
            (void)close(fd);
    }
}

static void drop_all(struct dv_session *s)
{
    DV_LIST_FOR_EACH_SAFE (n, &s->links)
        link_drop(DV_LIST_ENTRY(n, struct session_link, node));
}

void dv_session_free(struct dv_session *s)
{
    if (!s)
        return;
    s->control = NULL; /* nobody needs to be told any more */
    drop_all(s);
    close_listeners(s);
    dv_timer_cancel(s->cfg.loop, &s->timer);
    dv_defer_cancel(&s->gather);
    dv_scraper_free(s->scraper);
    dv_buf_deinit(&s->text);
    explicit_bzero(&s->id, sizeof(s->id));
    dv_free(s);
}

void dv_session_open(struct dv_session *s, const struct dv_identity *id, struct dv_sandbox *sandbox)
{
    bool is_same = s->id.node == id->node && !memcmp(s->id.key, id->key, sizeof(id->key));
    if (s->sandbox &&
        !is_same) /* links of the same identity stay: the orchestrator may have come before its reply */
        drop_all(s);
    s->id = *id;
    s->sandbox = sandbox;
    watch_listener(s);
}

void dv_session_goaway(struct dv_session *s)
{
    close_listeners(s);
    if (!s->control)
        return;
    (void)dv_link_goaway(dv_linkio_link(s->control->io)); /* one that fails here is about to close */
    dv_linkio_kick(s->control->io);
}

bool dv_session_is_quiet(const struct dv_session *s)
{
    return s->n_links == (s->control ? 1 : 0);
}

bool dv_session_has_control(const struct dv_session *s)
{
    return s->control != NULL;
}

uint64_t dv_session_last_control_ns(const struct dv_session *s)
{
    return s->control ? dv_loop_now(s->cfg.loop) : s->last_control_ns;
}

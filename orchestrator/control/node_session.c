/* One control link to one agent: connects, comes back after a break with growing pauses (50 ms to 2 s), takes
 * reports to the core, carries commands.
 *
 * After the first full report of a connection, and after each later one, the agent is told the ids that are
 * wanted on it (`sync`); what it holds beyond them it stops.  So a command that got lost with a connection is
 * made good by the next, without anybody remembering it. */
#include "orchestrator/control/control_internal.h"

#define BACKOFF_FIRST (50 * CTL_MS)
#define BACKOFF_LAST  (2 * CTL_S)

static void retry_later(struct ctl_node *n)
{
    struct dv_control *c = n->c;
    n->backoff_ns = n->backoff_ns ? n->backoff_ns * 2 : BACKOFF_FIRST;
    if (n->backoff_ns > BACKOFF_LAST)
        n->backoff_ns = BACKOFF_LAST;
    uint64_t spread =
        dv_rng_below(&c->rng, n->backoff_ns / 4 + 1); /* nodes of one rack do not come back in step */
    if (dv_timer_set(c->cfg.loop, &n->retry, ctl_now(c) + n->backoff_ns + spread))
        dv_log(DV_LOG_ERROR, "out of memory: a node is not connected to again", DV_LS("node", n->rec.name));
}

/* ---- reports ---- */

static void observe_start(struct dv_control *c, const struct dv_cluster_replica *r,
                          const struct dv_replica_report *rep)
{
    struct dv_hist *h = c->n.phases;
    uint64_t asked = r->asked_ns && r->asked_ns <= r->placed_ns ? r->asked_ns : r->placed_ns;
    dv_hist_add_ns(&h[CTL_PHASE_PLACE], r->placed_ns - asked);
    if (rep->times.pull_us > 0)
        dv_hist_add_ns(&h[CTL_PHASE_PULL], (uint64_t)rep->times.pull_us * 1000);
    dv_hist_add_ns(&h[CTL_PHASE_CREATE],
                   (uint64_t)(rep->times.create_us > 0 ? rep->times.create_us : 0) * 1000);
    dv_hist_add_ns(&h[CTL_PHASE_START], (uint64_t)(rep->times.start_us > 0 ? rep->times.start_us : 0) * 1000);
    dv_hist_add_ns(&h[CTL_PHASE_READY], (uint64_t)(rep->times.ready_us > 0 ? rep->times.ready_us : 0) * 1000);
    dv_hist_add_ns(&h[CTL_PHASE_TOTAL], r->warm_ns - asked);
}

/* Keep what was said, for people. */
static void remember(struct dv_control *c, const struct dv_replica_report *rep, uint64_t now_ns)
{
    const struct dv_cluster_replica *r = dv_cluster_replica_find(c->cluster, rep->id);
    if (!r)
        return;
    struct ctl_replica *k = dv_idmap_find(&c->replicas, rep->id);
    if (!k) {
        k = dv_zalloc(sizeof(*k));
        if (!k)
            return;
        k->id = rep->id;
        if (dv_idmap_put(&c->replicas, k->id, k)) {
            dv_free(k);
            return;
        }
    }
    if (rep->state == DV_REPLICA_FAILED && k->report.state != DV_REPLICA_FAILED &&
        (unsigned)rep->reason < DV_REASON_N)
        c->n.failures[rep->reason]++;
    dv_arena_reset(&k->arena);
    if (dv_wire_copy(&dv_type_replica_report, rep, &k->arena, &k->report))
        k->report = (struct dv_replica_report){.id = rep->id, .state = rep->state};
    if (c->gateway)
        dv_gateway_replica_frozen(c->gateway, r->fn_uid, r->id, r->state == DV_REPLICA_FROZEN);
    if (r->warm_ns == now_ns && !r->is_adopted)
        observe_start(c, r, rep);
}

static void send_sync(struct ctl_node *n)
{
    struct dv_control *c = n->c;
    const struct dv_cluster_node *cn = dv_cluster_node_find(c->cluster, n->id);
    if (!cn)
        return;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    size_t count = 0;
    DV_LIST_FOR_EACH (it, &cn->replicas)
        count++;
    uint64_t *ids = dv_arena_alloc(&arena, (count + 1) * sizeof(*ids));
    if (!ids)
        return; /* the next full report is five seconds away */
    count = 0;
    DV_LIST_FOR_EACH (it, &cn->replicas)
        ids[count++] = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_node)->id;
    struct dv_cmd_sync sync = {ids, count};
    (void)ctl_session_send(
        n, &(struct dv_control_msg){.type = (char *)"sync", .sync = &sync}); /* closed: comes again */
}

static void take_replicas(struct ctl_node *n, const struct dv_report *rep)
{
    struct dv_control *c = n->c;
    uint64_t now = ctl_now(c);
    if (dv_cluster_reports(c->cluster, n->id, rep->replicas, rep->n_replicas, rep->is_full, now))
        dv_log(DV_LOG_WARN, "a report was not taken in whole", DV_LS("node", n->rec.name));
    for (size_t i = 0; i < rep->n_replicas; i++)
        remember(c, &rep->replicas[i], now);
    ctl_pump(c);
    if (rep->is_full)
        send_sync(n);
}

static void take_node(struct ctl_node *n, const struct dv_node_report *rep)
{
    struct dv_control *c = n->c;
    struct dv_arena arena = DV_ARENA_INIT;
    struct dv_node_report copy, whole = *rep;
    whole.images = (struct dv_strs){0}; /* the core knows them */
    if (dv_wire_copy(&dv_type_node_report, &whole, &arena, &copy)) {
        dv_arena_deinit(&arena);
        return;
    }
    if (n->has_report && n->report.engine_ok != copy.engine_ok)
        dv_log(copy.engine_ok ? DV_LOG_INFO : DV_LOG_WARN,
               copy.engine_ok ? "engine is back" : "engine is down", DV_LS("node", n->rec.name),
               DV_LS("why", copy.engine_message ? copy.engine_message : ""));
    dv_arena_deinit(&n->report_arena);
    n->report_arena = arena;
    n->report = copy;
    n->has_report = true;
    (void)dv_cluster_node_report(c->cluster, n->id, rep, ctl_now(c)); /* DV_NOT_FOUND: being removed */
    ctl_pump(c);
}

static void take_report(struct ctl_node *n, struct dv_sv json)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_err err = DV_ERR_INIT;
    struct dv_report rep;
    n->c->n.reports++;
    if (dv_wire_decode(&dv_type_report, json, DV_LINK_MAX_MESSAGE, DV_WIRE_IGNORE_UNKNOWN, &arena, &rep,
                       &err)) {
        dv_log(DV_LOG_WARN, "an agent's report cannot be read", DV_LS("node", n->rec.name), DV_LE(&err),
               DV_LS("field", err.field));
        return;
    }
    n->seen_wall_ms = ctl_wall(n->c);
    if (strcmp(rep.type, "node") == 0)
        take_node(n, rep.node);
    else if (strcmp(rep.type, "replicas") == 0)
        take_replicas(n, &rep);
    else if (strcmp(rep.type, "logs") == 0)
        ctl_logs_chunk(n->c, n, rep.logs);
    else if (strcmp(rep.type, "scrapes") == 0)
        ctl_scrapes_take(n, &rep);
}

/* ---- the link ---- */

/* NULL: none.  Short of memory nothing is said, which is for people only. */
static void set_trouble(struct ctl_node *n, const char *why)
{
    dv_free(n->trouble);
    n->trouble = dv_strdup(why);
}

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct ctl_node *n = ctx;
    struct dv_control *c = n->c;
    if (ev->kind == DV_LINK_EV_OPEN) {
        n->is_open = true;
        n->backoff_ns = 0;
        set_trouble(n, NULL);
        n->seen_wall_ms = ctl_wall(c);
        c->n.link_opened++;
        dv_log(DV_LOG_INFO, "node connected", DV_LS("node", n->rec.name), DV_LS("address", n->rec.address));
        dv_cluster_node_up(c->cluster, n->id, ctl_now(c));
        ctl_pump(c);
    } else if (ev->kind == DV_LINK_EV_GOAWAY) {
        /* Its agent ends once the requests inside have; until then it reports and obeys, but nothing new is
         * sent there, and what it holds is replaced as if it were cut off. */
        dv_log(DV_LOG_INFO, "node leaves: its agent is being stopped", DV_LS("node", n->rec.name));
        dv_cluster_node_down(c->cluster, n->id, ctl_now(c));
        ctl_pump(c);
    } else if (ev->kind == DV_LINK_EV_REPORT) {
        take_report(n, ev->bytes);
    }
}

static void link_down(struct ctl_node *n)
{
    bool was_open = n->is_open;
    n->is_open = false;
    dv_linkio_free(n->io);
    n->io = NULL;
    if (!was_open)
        return;
    n->c->n.link_closed++;
    dv_cluster_node_down(n->c->cluster, n->id, ctl_now(n->c));
    ctl_logs_node_down(n->c, n);
    ctl_pump(n->c);
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    struct ctl_node *n = ctx;
    bool is_news = n->is_open || !n->trouble;
    set_trouble(n, dv_err_msg(err, code));
    if (is_news)
        dv_log(DV_LOG_WARN, n->is_open ? "node disconnected" : "node cannot be reached",
               DV_LS("node", n->rec.name), DV_LS("address", n->rec.address),
               DV_LS("why", dv_err_msg(err, code)));
    link_down(n);
    retry_later(n);
}

void ctl_session_start(struct ctl_node *n)
{
    struct dv_control *c = n->c;
    if (n->io || !c->gateway)
        return;
    dv_timer_cancel(c->cfg.loop, &n->retry);
    struct dv_linkio_cfg cfg = {
        .link = {.role = DV_LINK_CLIENT,
                 .purpose = DV_LINK_CONTROL_CONN,
                 .node = n->id,
                 .on_event = on_event,
                 .ctx = n},
        .on_closed = on_closed,
    };
    memcpy(cfg.link.key, n->key, sizeof(cfg.link.key));
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_linkio_connect(c->cfg.loop, n->rec.address, &cfg, &n->io, &err);
    if (rc) {
        if (!n->trouble)
            dv_log(DV_LOG_WARN, "node cannot be reached", DV_LS("node", n->rec.name), DV_LE(&err));
        set_trouble(n, dv_err_msg(&err, rc));
        n->io = NULL;
        retry_later(n);
    }
}

void ctl_session_stop(struct ctl_node *n)
{
    dv_timer_cancel(n->c->cfg.loop, &n->retry);
    if (n->io)
        link_down(n);
}

void ctl_session_restart(struct ctl_node *n)
{
    ctl_session_stop(n);
    n->backoff_ns = 0;
    ctl_session_start(n);
}

int ctl_session_send(struct ctl_node *n, const struct dv_control_msg *msg)
{
    if (!n->is_open)
        return DV_CLOSED;
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    int rc = dv_wire_encode(&dv_type_control, msg, &json);
    if (!rc)
        rc = dv_link_control(dv_linkio_link(n->io), dv_buf_sv(&json));
    if (rc) {
        n->c->n.unsent++;
        dv_log(DV_LOG_WARN, "a command did not leave", DV_LS("node", n->rec.name),
               DV_LS("command", msg->type), DV_LS("why", dv_err_text(rc)));
        return rc;
    }
    dv_linkio_kick(n->io);
    return DV_OK;
}

/* Each replica by name, since a list spares what was started in the last two seconds; then the empty list,
 * for what only the agent knows of. */
void ctl_session_dismiss(struct ctl_node *n)
{
    const struct dv_cluster_node *cn = dv_cluster_node_find(n->c->cluster, n->id);
    uint64_t none = 0;
    struct dv_cmd_sync sync = {&none, 0};
    if (!n->is_open)
        return;
    if (cn)
        DV_LIST_FOR_EACH (it, &cn->replicas) {
            struct dv_cmd_stop stop = {
                .id = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_node)->id, .grace_ms = -1, .now = true};
            (void)ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"stop", .stop = &stop});
        }
    (void)ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"sync", .sync = &sync});
    dv_linkio_flush(n->io);
    ctl_session_stop(n);
}

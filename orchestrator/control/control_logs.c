/* Logs of a function: asked of every connected node at once, handed on as they come.
 *
 * A node that has not answered within five seconds is given up; one that answered may take as long as it
 * wants (follow).  The request ends when no node is left in it, or a moment after the function was deleted:
 * what its replicas say on their way out is still told. */
#include "orchestrator/control/control_internal.h"

#define ANSWER_NS     (5 * CTL_S)
#define LAST_WORDS_NS (1 * CTL_S)

struct asked {
    uint64_t node;
    bool has_answered;
};

struct dv_logs {
    struct dv_list node; /* of control->logs */
    struct dv_control *c;
    struct dv_logs_request req;
    uint64_t id;
    struct asked *asked;
    size_t n_asked;
    bool is_over; /* the function is gone */
    struct dv_timer deadline;
    struct dv_defer ending;
};

static int ask(struct dv_logs *l, struct ctl_node *n, bool cancel)
{
    struct dv_cmd_logs cmd = {.request = l->id,
                              .fn_uid = l->req.fn_uid,
                              .replica = l->req.replica,
                              .tail = l->req.tail,
                              .since_ms = l->req.since_ms,
                              .follow = l->req.follow,
                              .cancel = cancel};
    return ctl_session_send(n, &(struct dv_control_msg){.type = (char *)"logs", .logs = &cmd});
}

static void logs_free(struct dv_logs *l)
{
    dv_timer_cancel(l->c->cfg.loop, &l->deadline);
    dv_defer_cancel(&l->ending);
    dv_list_remove(&l->node);
    dv_free(l->asked);
    dv_free(l);
}

static void on_ending(struct dv_defer *d)
{
    struct dv_logs *l = DV_CONTAINER_OF(d, struct dv_logs, ending);
    void (*end)(void *) = l->req.end;
    void *ctx = l->req.ctx;
    logs_free(l);
    end(ctx);
}

static void drop(struct dv_logs *l, size_t i)
{
    l->asked[i] = l->asked[--l->n_asked];
    if (l->n_asked == 0)
        dv_loop_defer(l->c->cfg.loop, &l->ending);
}

static void on_deadline(struct dv_timer *t)
{
    struct dv_logs *l = DV_CONTAINER_OF(t, struct dv_logs, deadline);
    for (size_t i = l->n_asked; i-- > 0;) {
        struct ctl_node *n = ctl_node_of(l->c, l->asked[i].node);
        if (l->is_over && n)
            (void)ask(l, n, true);
        if (l->is_over || !l->asked[i].has_answered)
            drop(l, i);
    }
}

int dv_control_logs_open(struct dv_control *c, const struct dv_logs_request *req, struct dv_logs **out,
                         struct dv_err *err)
{
    struct dv_logs *l = dv_zalloc(sizeof(*l));
    if (l)
        l->asked = dv_zalloc_n(c->nodes.n + 1, sizeof(*l->asked));
    if (!l || !l->asked) {
        dv_free(l);
        return dv_err_set(err, DV_E_NOMEM, "reading logs");
    }
    l->c = c;
    l->req = *req;
    l->id = ++c->last_log;
    l->deadline.fn = on_deadline;
    l->ending.fn = on_ending;
    dv_list_push_back(&c->logs, &l->node);
    struct ctl_node *n;
    for (size_t i = 0; (n = dv_map_next(&c->nodes, &i));)
        if (ask(l, n, false) == DV_OK)
            l->asked[l->n_asked++].node = n->id;
    if (l->n_asked == 0)
        dv_loop_defer(c->cfg.loop, &l->ending);
    else if (dv_timer_set(c->cfg.loop, &l->deadline, ctl_now(c) + ANSWER_NS)) {
        dv_control_logs_close(l);
        return dv_err_set(err, DV_E_NOMEM, "reading logs");
    }
    *out = l;
    return DV_OK;
}

void dv_control_logs_close(struct dv_logs *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_asked; i++) {
        struct ctl_node *n = ctl_node_of(l->c, l->asked[i].node);
        if (n)
            (void)ask(l, n, true); /* not open: the agent forgets with the connection */
    }
    logs_free(l);
}

static struct dv_logs *find(struct dv_control *c, uint64_t id)
{
    DV_LIST_FOR_EACH (it, &c->logs) {
        struct dv_logs *l = DV_LIST_ENTRY(it, struct dv_logs, node);
        if (l->id == id)
            return l;
    }
    return NULL;
}

void ctl_logs_chunk(struct dv_control *c, struct ctl_node *n, const struct dv_log_chunk *chunk)
{
    for (size_t i = 0; i < chunk->n_lines; i++) {
        struct dv_logs *l = find(c, chunk->request); /* a line's receiver may close it */
        if (!l)
            return;
        l->req.line(l->req.ctx, n->id, &chunk->lines[i]);
    }
    struct dv_logs *l = find(c, chunk->request);
    for (size_t i = 0; l && i < l->n_asked; i++) {
        if (l->asked[i].node != n->id)
            continue;
        l->asked[i].has_answered = true;
        if (chunk->end)
            drop(l, i);
        return;
    }
}

void ctl_logs_fn_gone(struct dv_control *c, uint64_t fn_uid)
{
    DV_LIST_FOR_EACH (it, &c->logs) {
        struct dv_logs *l = DV_LIST_ENTRY(it, struct dv_logs, node);
        if (l->req.fn_uid == fn_uid && !l->is_over)
            l->is_over = dv_timer_set(c->cfg.loop, &l->deadline, ctl_now(c) + LAST_WORDS_NS) == DV_OK;
    }
}

void ctl_logs_node_down(struct dv_control *c, struct ctl_node *n)
{
    DV_LIST_FOR_EACH (it, &c->logs) {
        struct dv_logs *l = DV_LIST_ENTRY(it, struct dv_logs, node);
        for (size_t i = 0; i < l->n_asked; i++)
            if (l->asked[i].node == n->id) {
                drop(l, i);
                break;
            }
    }
}

void ctl_logs_free_all(struct dv_control *c)
{
    DV_LIST_FOR_EACH_SAFE (it, &c->logs)
        logs_free(DV_LIST_ENTRY(it, struct dv_logs, node));
}

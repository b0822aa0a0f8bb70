/* Nodes: kept under node/<id>, found by id or name.  A node's link key is made at its first join and stays;
 * it is sealed in the store and open in memory only. */
#include "orchestrator/control/control_internal.h"

/* ---- memory ---- */

struct ctl_node *ctl_node_of(const struct dv_control *c, uint64_t id)
{
    return dv_idmap_find(&c->nodes, id);
}

static struct ctl_node *find(const struct dv_control *c, struct dv_sv name_or_id)
{
    struct ctl_node *n;
    for (size_t i = 0; (n = dv_map_next(&c->nodes, &i));)
        if (dv_sv_eq(dv_sv_c(n->rec.name), name_or_id))
            return n;
    uint64_t id;
    return name_or_id.n == DV_ID_TEXT - 1 && dv_parse_hex64(name_or_id, &id) ? ctl_node_of(c, id) : NULL;
}

void ctl_node_free(struct ctl_node *n)
{
    if (!n)
        return;
    ctl_session_stop(n);
    dv_arena_deinit(&n->rec_arena);
    dv_arena_deinit(&n->report_arena);
    dv_free(n->trouble);
    explicit_bzero(n->key, sizeof(n->key));
    dv_free(n);
}

static void on_retry(struct dv_timer *t)
{
    ctl_session_start(DV_CONTAINER_OF(t, struct ctl_node, retry));
}

static void node_key_name(uint64_t id, char out[32])
{
    char text[DV_ID_TEXT];
    dv_id_text(id, text);
    (void)snprintf(out, 32, "node/%s", text);
}

static int open_key(struct dv_control *c, const struct dv_node_record *rec, uint8_t out[DV_LINK_KEY_BYTES],
                    struct dv_err *err)
{
    char name[32];
    node_key_name(rec->node, name);
    DV_AUTO_BUF struct dv_buf hex = DV_BUF_INIT;
    int rc = dv_seal_unwrap(c->cfg.seal, dv_sv_c(name), dv_sv_c(rec->key), &hex, err);
    if (!rc && !dv_unhex(dv_buf_sv(&hex), out, DV_LINK_KEY_BYTES))
        rc = dv_err_set(err, DV_E_STORE, "the link key of node %s is damaged", rec->name);
    if (hex.data)
        explicit_bzero(hex.data, hex.cap);
    return rc;
}

/* Takes over the record in arena, for a node that is new or known. */
static int put_node(struct dv_control *c, const struct dv_node_record *rec, struct dv_arena *arena,
                    uint64_t revision, struct ctl_node **out, struct dv_err *err)
{
    struct ctl_node *n = ctl_node_of(c, rec->node);
    bool is_new = n == NULL;
    if (is_new) {
        n = dv_zalloc(sizeof(*n));
        if (!n)
            return dv_err_set(err, DV_E_NOMEM, "node %s", rec->name);
        n->c = c;
        n->id = rec->node;
        n->retry.fn = on_retry;
    }
    int rc = open_key(c, rec, n->key, err);
    if (!rc && is_new)
        rc = dv_idmap_put(&c->nodes, n->id, n);
    if (rc) {
        if (is_new)
            dv_free(n);
        return rc;
    }
    dv_arena_deinit(&n->rec_arena);
    n->rec_arena = *arena;
    *arena = (struct dv_arena)DV_ARENA_INIT;
    n->rec = *rec;
    n->revision = revision;
    (void)dv_cluster_node_put(c->cluster, rec,
                              ctl_now(c)); /* short of memory: without its labels, or at its next join */
    dv_cluster_node_cordon(c->cluster, n->id, rec->is_cordoned, rec->is_draining, ctl_now(c));
    *out = n;
    return DV_OK;
}

int ctl_node_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT, exact = DV_ARENA_INIT;
    struct dv_node_record rec;
    int rc = dv_wire_decode(&dv_type_node_record, e->value, DV_STORE_VALUE_MAX, DV_WIRE_IGNORE_UNKNOWN,
                            &arena, &rec, err);
    if (!rc && (rc = dv_wire_copy(&dv_type_node_record, &rec, &exact, &rec)))
        (void)dv_err_set(err, rc, "loading nodes");
    struct ctl_node *n;
    return rc ? rc : put_node(c, &rec, &exact, e->revision, &n, err);
}

void ctl_node_tell_gateway(struct ctl_node *n)
{
    if (!n->c->gateway)
        return;
    struct dv_route_node r = {.id = n->id, .address = n->rec.address};
    memcpy(r.key, n->key, sizeof(r.key));
    if (dv_gateway_node_put(n->c->gateway, &r))
        dv_log(DV_LOG_ERROR, "gateway did not learn a node", DV_LS("node", n->rec.name));
}

/* Out of the cluster: forget it everywhere. */
static void node_gone(struct ctl_node *n)
{
    struct dv_control *c = n->c;
    ctl_session_stop(n);
    (void)dv_idmap_remove(&c->nodes, n->id);
    dv_cluster_node_remove(c->cluster, n->id, ctl_now(c));
    if (c->gateway)
        dv_gateway_node_remove(c->gateway, n->id);
    ctl_node_free(n);
}

/* ---- join ---- */

typedef void join_done(void *ctx, int code, const struct dv_err *err, const struct dv_join_reply *reply);

struct join {
    struct dv_join join;
    struct dv_node_record rec;
    char key_hex[CTL_LINK_KEY_TEXT];
    struct dv_control *c;
    join_done *done;
    void *ctx;
};

static void join_cleanup(struct ctl_write *w)
{
    struct join *j = w->payload;
    explicit_bzero(j->key_hex, sizeof(j->key_hex));
}

static int new_key(char hex[CTL_LINK_KEY_TEXT])
{
    uint8_t raw[DV_LINK_KEY_BYTES];
    int rc = dv_random_bytes(raw, sizeof(raw));
    if (!rc)
        dv_hex(raw, sizeof(raw), hex);
    explicit_bzero(raw, sizeof(raw));
    return rc;
}

/* Who is this?  The same id, or the same name while that node is away (an agent that lost its state
 * directory). */
static int identify(struct dv_control *c, const struct dv_join *join, const struct ctl_node **out,
                    struct dv_err *err)
{
    const struct ctl_node *by_name = find(c, dv_sv_c(join->name));
    const struct ctl_node *by_id = join->node ? ctl_node_of(c, join->node) : NULL;
    if (by_id) {
        if (by_name && by_name != by_id)
            return dv_err_field(err, DV_CONFLICT, "name", "another node is called \"%s\"", join->name);
        *out = by_id;
        return DV_OK;
    }
    if (by_name && (by_name->is_open || join->node != 0))
        return dv_err_field(err, DV_CONFLICT, "name",
                            "a node called \"%s\" %s; give this one another name, or remove that one",
                            join->name, by_name->is_open ? "is connected" : "is known under another id");
    *out = by_name;
    return DV_OK;
}

static void refuse_from_now(struct dv_control *c, const struct ctl_node *n)
{
    if (!n->is_open)
        return;
    c->refused[c->next_refused++ % CTL_REFUSED_MAX] =
        (struct ctl_refused){n->id, dv_link_peer_incarnation(dv_linkio_link(n->io))};
}

static int check_not_refused(const struct dv_control *c, const struct dv_join *join, struct dv_err *err)
{
    for (size_t i = 0; join->node && i < CTL_REFUSED_MAX; i++)
        if (c->refused[i].node == join->node && c->refused[i].incarnation == join->incarnation)
            return dv_err_set(err, DV_CONFLICT,
                              "the node \"%s\" was removed; restart its agent to have it join again",
                              join->name);
    return DV_OK;
}

static int join_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct join *j = w->payload;
    struct dv_control *c = w->c;
    const struct ctl_node *have = NULL;
    int rc = check_not_refused(c, &j->join, err);
    if (!rc)
        rc = identify(c, &j->join, &have, err);
    if (rc)
        return rc;
    struct dv_node_record *rec = &j->rec;
    *rec = (struct dv_node_record){.node = have ? have->id : j->join.node,
                                   .name = j->join.name,
                                   .address = j->join.address,
                                   .labels = j->join.labels,
                                   .joined_ms = have ? have->rec.joined_ms : ctl_wall(c),
                                   .is_cordoned = have && have->rec.is_cordoned,
                                   .is_draining = have && have->rec.is_draining};
    while (rec->node == 0)
        if ((rc = dv_random_bytes(&rec->node, sizeof(rec->node))))
            return dv_err_set(err, rc, "no random bytes for a node id");
    if (have)
        dv_hex(have->key, sizeof(have->key), j->key_hex);
    else if ((rc = new_key(j->key_hex)))
        return dv_err_set(err, rc, "no random bytes for a link key");
    char key[32];
    node_key_name(rec->node, key);
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT, json = DV_BUF_INIT;
    if ((rc = dv_seal_wrap(c->cfg.seal, dv_sv_c(key), dv_sv_c(j->key_hex), &sealed, err)))
        return rc;
    rec->key = dv_arena_strndup(&w->arena, dv_buf_ptr(&sealed), dv_buf_len(&sealed));
    rc = rec->key ? dv_wire_encode(&dv_type_node_record, rec, &json) : DV_E_NOMEM;
    if (!rc)
        rc = ctl_write_add(w, key, dv_buf_sv(&json), false, have ? have->revision : DV_REV_ABSENT);
    return rc ? dv_err_set(err, rc, "joining node %s", rec->name) : DV_OK;
}

static void join_apply(struct ctl_write *w)
{
    struct join *j = w->payload;
    struct dv_control *c = w->c;
    const struct ctl_node *have = ctl_node_of(c, j->rec.node);
    bool has_moved = have && strcmp(have->rec.address, j->rec.address) != 0;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_node_record rec;
    struct ctl_node *n = NULL;
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_wire_copy(&dv_type_node_record, &j->rec, &arena, &rec);
    if (!rc)
        rc = put_node(c, &rec, &arena, w->revision, &n, &err);
    if (rc) {
        dv_log(DV_LOG_ERROR, "a node joined and cannot be used before the next start",
               DV_LS("node", j->rec.name), DV_LS("why", dv_err_msg(&err, rc)));
        return;
    }
    dv_log(DV_LOG_INFO, have ? "node joined again" : "node joined", DV_LS("node", n->rec.name),
           DV_LID("id", n->id), DV_LS("address", n->rec.address));
    ctl_node_tell_gateway(n);
    n->backoff_ns = 0; /* it is there now */
    if (has_moved)
        ctl_session_restart(n);
    else
        ctl_session_start(n);
}

static void join_finished(void *ctx, int code, const struct dv_err *err, uint64_t revision)
{
    (void)revision;
    struct join *j = ctx;
    struct dv_join_reply reply = {.node = j->rec.node, .key = j->key_hex, .version = (char *)DAVIT_VERSION};
    if (j->done)
        j->done(j->ctx, code, err, code == DV_OK ? &reply : NULL);
}

int dv_control_node_join(struct dv_control *c, const struct dv_join *join, join_done *done, void *ctx,
                         struct dv_err *err)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct join), join_finished, NULL);
    struct join *j = w ? w->payload : NULL;
    int rc = j ? dv_wire_copy(&dv_type_join, join, &w->arena, &j->join) : DV_E_NOMEM;
    if (rc) {
        if (w)
            ctl_write_free(w);
        return dv_err_set(err, rc, "joining a node");
    }
    j->done = done;
    j->ctx = ctx;
    w->ctx = j;
    w->prepare = join_prepare;
    w->apply = join_apply;
    w->cleanup = join_cleanup;
    return ctl_write_submit(w, err);
}

/* ---- cordon, drain, remove ---- */

struct op {
    uint64_t id;
    enum dv_node_op op;
    struct dv_node_record rec;
};

static int op_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct op *o = w->payload;
    const struct ctl_node *n = ctl_node_of(w->c, o->id);
    if (!n)
        return dv_err_set(err, DV_NOT_FOUND, "the node was removed");
    char key[32];
    node_key_name(n->id, key);
    if (o->op == DV_NODE_REMOVE && n->is_open)
        return dv_err_set(err, DV_CONFLICT,
                          "node %s is connected: drain it and stop its agent first, or force its removal "
                          "(?force=true, davit nodes remove --force), which stops its replicas at once",
                          n->rec.name);
    if (o->op == DV_NODE_REMOVE || o->op == DV_NODE_REMOVE_FORCED)
        return ctl_write_add(w, key, dv_sv("", 0), true, n->revision);
    int rc = dv_wire_copy(&dv_type_node_record, &n->rec, &w->arena, &o->rec);
    if (rc)
        return dv_err_set(err, rc, "node %s", n->rec.name);
    o->rec.is_cordoned = o->op != DV_NODE_UNCORDON;
    o->rec.is_draining = o->op == DV_NODE_DRAIN || (o->op == DV_NODE_CORDON && n->rec.is_draining);
    if (o->rec.is_cordoned == n->rec.is_cordoned && o->rec.is_draining == n->rec.is_draining)
        return DV_OK;
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    rc = dv_wire_encode(&dv_type_node_record, &o->rec, &json);
    if (!rc)
        rc = ctl_write_add(w, key, dv_buf_sv(&json), false, n->revision);
    return rc ? dv_err_set(err, rc, "node %s", n->rec.name) : DV_OK;
}

static void op_apply(struct ctl_write *w)
{
    const struct op *o = w->payload;
    struct ctl_node *n = ctl_node_of(w->c, o->id);
    if (!n)
        return;
    if (o->op == DV_NODE_REMOVE || o->op == DV_NODE_REMOVE_FORCED) {
        dv_log(DV_LOG_INFO, "node removed", DV_LS("node", n->rec.name), DV_LID("id", n->id));
        refuse_from_now(w->c, n);
        ctl_session_dismiss(n);
        node_gone(n);
        ctl_pump(w->c);
        return;
    }
    n->rec.is_cordoned = o->rec.is_cordoned;
    n->rec.is_draining = o->rec.is_draining;
    n->revision = w->revision;
    dv_cluster_node_cordon(w->c->cluster, n->id, n->rec.is_cordoned, n->rec.is_draining, ctl_now(w->c));
}

int dv_control_node_op(struct dv_control *c, struct dv_sv name_or_id, enum dv_node_op op,
                       dv_control_done *done, void *ctx, struct dv_err *err)
{
    const struct ctl_node *n = find(c, name_or_id);
    if (!n)
        return dv_err_set(err, DV_NOT_FOUND, "no node \"%.*s\"", (int)name_or_id.n, name_or_id.p);
    struct ctl_write *w = ctl_write_new(c, sizeof(struct op), done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "node %s", n->rec.name);
    *(struct op *)w->payload = (struct op){.id = n->id, .op = op};
    w->prepare = op_prepare;
    w->apply = op_apply;
    return ctl_write_submit(w, err);
}

/* ---- reading ---- */

const char *dv_node_state_name(enum dv_node_state s)
{
    static const char *const names[] = {"joining", "ready", "not_ready", "cordoned", "draining", "lost"};
    return (unsigned)s < DV_COUNT(names) ? names[s] : "unknown";
}

static void describe(const struct dv_control *c, const struct ctl_node *n, struct dv_node_status *out)
{
    const struct dv_cluster_node *cn = dv_cluster_node_find(c->cluster, n->id);
    *out = (struct dv_node_status){.record = &n->rec,
                                   .report = n->has_report ? &n->report : NULL,
                                   .last_seen_ms = n->seen_wall_ms,
                                   .state = DV_NODE_NOT_READY,
                                   .message = ""};
    if (!cn)
        return;
    const struct dv_node_view *v = dv_cluster_view(c->cluster, cn);
    out->n_replicas = v->n_replicas;
    out->promised_mcpu = v->promised_mcpu;
    out->promised_bytes = v->promised_bytes;
    if (cn->is_lost) {
        out->state = DV_NODE_LOST;
        out->message = n->trouble ? n->trouble : "silent for too long";
    } else if (!cn->is_connected) {
        out->state = n->has_report ? DV_NODE_NOT_READY : DV_NODE_JOINING;
        out->message = n->trouble ? n->trouble : "not connected yet";
    } else if (!cn->is_reported || !cn->is_learned) {
        out->state = DV_NODE_JOINING;
        out->message = "connected; has not said yet what it holds";
    } else if (!cn->engine_ok) {
        out->message = n->report.engine_message ? n->report.engine_message : "its container engine is down";
    } else {
        out->state = cn->is_draining ? DV_NODE_DRAINING : cn->is_cordoned ? DV_NODE_CORDONED : DV_NODE_READY;
        out->message = !cn->is_draining ? "" : v->n_replicas ? "replicas move elsewhere" : "empty";
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* With its images, whose names the core keeps once for all nodes.  Short of memory: without. */
static void describe_whole(struct dv_control *c, const struct ctl_node *n, struct dv_node_status *out)
{
    describe(c, n, out);
    const struct dv_cluster_node *cn = dv_cluster_node_find(c->cluster, n->id);
    size_t count = cn ? cn->images.n : 0;
    if (count > c->cap_images) {
        const char **more = dv_realloc(c->images, count * sizeof(*more));
        if (!more)
            return;
        c->images = more;
        c->cap_images = count;
    }
    for (size_t i = 0; i < count; i++)
        c->images[i] = cn->images.v[i]->name;
    if (count)
        qsort(c->images, count, sizeof(*c->images), by_text);
    out->images = c->images;
    out->n_images = count;
}

static int by_name(const void *a, const void *b)
{
    const struct ctl_node *const *x = a, *const *y = b;
    int d = strcmp((*x)->rec.name, (*y)->rec.name);
    return d ? d : (*x)->id < (*y)->id ? -1 : 1;
}

void dv_control_nodes_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_node_status *n),
                           void *ctx)
{
    void **nodes;
    size_t n;
    if (ctl_sorted(&c->nodes, by_name, &nodes, &n))
        return;
    for (size_t i = 0; i < n; i++) {
        struct dv_node_status s;
        describe_whole(c, nodes[i], &s);
        if (each(ctx, &s))
            break;
    }
    dv_free(nodes);
}

int dv_control_node_find(struct dv_control *c, struct dv_sv name_or_id, struct dv_node_status *out)
{
    const struct ctl_node *n = find(c, name_or_id);
    if (!n)
        return DV_NOT_FOUND;
    describe_whole(c, n, out);
    return DV_OK;
}

struct walk {
    struct dv_control *c;
    int (*each)(void *ctx, const struct dv_replica_view *r);
    void *ctx;
    bool is_over;
};

static void visit(struct walk *w, const struct dv_cluster_replica *r)
{
    struct dv_control *c = w->c;
    if (w->is_over)
        return;
    const struct ctl_replica *k = dv_idmap_find(&c->replicas, r->id);
    struct dv_replica_report blank = {.id = r->id,
                                      .fn_uid = r->fn_uid,
                                      .generation = r->generation,
                                      .state = r->state,
                                      .reason = r->reason};
    const struct ctl_node *n = r->node ? ctl_node_of(c, r->node->id) : NULL;
    struct dv_replica_view v = {
        .report = k ? &k->report : &blank,
        .state = r->state,
        .node = r->node ? r->node->id : 0,
        .node_name = n ? n->rec.name : "",
        .why = r->why,
        .in_flight = c->gateway ? dv_gateway_replica_in_flight(c->gateway, r->fn_uid, r->id) : 0,
        .since_ms = ctl_wall_of(c, r->since_ns),
    };
    w->is_over = w->each(w->ctx, &v) != 0;
}

static void visit_any(void *ctx, const struct dv_cluster_replica *r)
{
    visit(ctx, r);
}

void dv_control_replicas_each(struct dv_control *c, uint64_t fn_uid,
                              int (*each)(void *ctx, const struct dv_replica_view *r), void *ctx)
{
    struct walk w = {c, each, ctx, false};
    if (fn_uid == 0) {
        dv_cluster_each_replica(c->cluster, visit_any, &w);
        return;
    }
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, fn_uid);
    if (f)
        DV_LIST_FOR_EACH (it, &f->replicas)
            visit(&w, DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn));
}

bool dv_control_ready(struct dv_control *c, char *message, size_t cap)
{
    size_t ready = 0;
    const struct ctl_node *n;
    for (size_t i = 0; c->is_loaded && (n = dv_map_next(&c->nodes, &i));) {
        struct dv_node_status s;
        describe(c, n, &s);
        ready += s.state == DV_NODE_READY;
    }
    if (!c->is_loaded)
        (void)dv_copy(message, cap, "the state is being read");
    else if (c->nodes.n == 0)
        (void)dv_copy(message, cap, "no node has joined");
    else
        (void)snprintf(message, cap, "%zu of %zu nodes ready", ready, c->nodes.n);
    return ready > 0;
}

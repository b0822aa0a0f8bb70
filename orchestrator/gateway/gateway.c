/* The gateway as the state loop sees it.  The state loop's calls become one message per loop, which owns what
 * it carries.  What loops count is read here without asking them (live.h). */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

/* The state loop's own record of a function. */
struct shared_fn {
    uint64_t uid;
    struct dv_live_fn *live;
    struct dv_live_replica **replicas; /* in the set, and those leaving while requests are still inside */
    size_t n_replicas;
    size_t
        cursor; /* where the next look-up begins: callers go through replicas in the order they gave them */
};

/* ---- face ---- */

struct dv_gw_face *dv_gw_face_ref(struct dv_gw_face *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void dv_gw_face_unref(struct dv_gw_face *f)
{
    if (f && atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) == 1)
        dv_free(f);
}

/* ---- start and stop ---- */

static int copy_cfg(struct dv_gateway *g, const struct dv_gateway_cfg *cfg, struct dv_err *err)
{
    g->cfg = *cfg;
    if (!g->cfg.max_connections)
        g->cfg.max_connections = 65536;
    if (!g->cfg.head_timeout_ms)
        g->cfg.head_timeout_ms = 10000;
    if (!g->cfg.idle_timeout_ms)
        g->cfg.idle_timeout_ms = 75000;
    int rc = dv_addr_parse(cfg->listen, &g->listen_addr, err);
    if (rc)
        return dv_err_wrap(err, "listen address");
    g->keys = cfg->tls ? dv_tls_keys_ref(cfg->tls) : NULL;
    g->api_path = dv_strdup(cfg->api_path);
    g->internal_path = dv_strdup(cfg->internal_path);
    g->user = dv_strdup(cfg->user);
    g->password = dv_strdup(cfg->password);
    if ((cfg->api_path && !g->api_path) || (cfg->internal_path && !g->internal_path) ||
        (cfg->user && !g->user) || (cfg->password && !g->password))
        return dv_err_set(err, DV_E_NOMEM, "gateway");
    if (g->api_path) {
        g->api_addr.len = sizeof(g->api_addr.un);
        g->api_addr.un.sun_family = AF_UNIX;
        if (!dv_copy(g->api_addr.un.sun_path, sizeof(g->api_addr.un.sun_path), g->api_path))
            return dv_err_set(err, DV_INVALID, "socket path too long: %s", g->api_path);
    }
    if (g->user && g->password) {
        DV_AUTO_STR char *pair = dv_asprintf("%s:%s", g->user, g->password);
        g->basic = pair ? dv_alloc(dv_base64_len(strlen(pair)) + 1) : NULL;
        if (!g->basic)
            return dv_err_set(err, DV_E_NOMEM, "gateway");
        dv_base64(pair, strlen(pair), g->basic);
    }
    return DV_OK;
}

static int start_loops(struct dv_gateway *g, struct dv_err *err)
{
    uint32_t n = (uint32_t)(g->cfg.n_loops > 0 ? g->cfg.n_loops : 1);
    g->loops = dv_zalloc_n(n, sizeof(struct dv_gw_loop *));
    if (!g->loops)
        return dv_err_set(err, DV_E_NOMEM, "gateway");
    int rc = g->cfg.access_log_fd >= 0 ? dv_accesslog_start(g->cfg.access_log_fd, n, &g->log, err) : DV_OK;
    for (uint32_t i = 0; !rc && i < n; i++) {
        rc = dv_gw_loop_new(g, i, &g->loops[i], err);
        g->n_loops += !rc;
    }
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = dv_gw_loop_start(g->loops[i], err);
    return rc;
}

int dv_gateway_start(const struct dv_gateway_cfg *cfg, struct dv_gateway **out, struct dv_err *err)
{
    struct dv_gateway *g = dv_zalloc(sizeof(*g));
    if (!g)
        return dv_err_set(err, DV_E_NOMEM, "gateway");
    g->face = dv_zalloc(sizeof(*g->face));
    int rc = g->face ? DV_OK : dv_err_set(err, DV_E_NOMEM, "gateway");
    if (!rc) {
        atomic_init(&g->face->refs, 1);
        g->face->g = g;
        if (getrandom(&g->seed, sizeof(g->seed), 0) != sizeof(g->seed))
            rc = dv_err_sys(err, DV_E_IO, errno, "random seed");
    }
    dv_map_init(&g->fns, g->seed);
    rc = rc ? rc : copy_cfg(g, cfg, err);
    rc = rc ? rc : start_loops(g, err);
    if (rc) {
        dv_gateway_free(g);
        return rc;
    }
    *out = g;
    return DV_OK;
}

static void shared_free(struct shared_fn *s)
{
    for (size_t i = 0; i < s->n_replicas; i++)
        dv_live_replica_unref(s->replicas[i]);
    dv_free(s->replicas);
    dv_live_fn_unref(s->live);
    dv_free(s);
}

void dv_gateway_free(struct dv_gateway *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_loops; i++)
        dv_gw_loop_join(g->loops[i]);
    if (g->internal_path && g->n_loops)
        (void)unlink(g->internal_path);         /* a stale one is replaced at the next start */
    for (uint32_t i = 0; i < g->n_loops; i++) { /* messages first: a poke of one loop may name another */
        dv_mailbox_free(g->loops[i]->mailbox);
        g->loops[i]->mailbox = NULL;
    }
    for (uint32_t i = 0; i < g->n_loops; i++)
        dv_gw_loop_free(g->loops[i]);
    dv_accesslog_stop(g->log);
    struct shared_fn *s;
    for (size_t i = 0; (s = dv_map_next(&g->fns, &i));)
        shared_free(s);
    dv_map_deinit(&g->fns);
    if (g->face)
        g->face->g = NULL;
    dv_gw_face_unref(g->face);
    dv_tls_keys_unref(g->keys);
    dv_free(g->loops);
    dv_free(g->api_path);
    dv_free(g->internal_path);
    dv_free(g->user);
    dv_free(g->password);
    dv_free(g->basic);
    dv_free(g);
}

int dv_gateway_port(const struct dv_gateway *g)
{
    return g->port;
}

/* ---- draining ---- */

struct drain_msg {
    struct dv_msg msg;
    struct dv_gw_loop *loop;
    uint64_t deadline_ns;
};

static void on_drain(struct dv_msg *m)
{
    struct drain_msg *d = DV_CONTAINER_OF(m, struct drain_msg, msg);
    struct dv_gw_loop *l = d->loop;
    uint64_t deadline_ns = d->deadline_ns;
    dv_free(d);
    if (!l->is_stopped)
        dv_gw_loop_drain(l, deadline_ns);
}

static void one_drained(struct dv_gateway *g)
{
    if (--g->n_draining == 0 && g->on_drained)
        g->on_drained(g->cfg.ctx);
}

void dv_gateway_drain(struct dv_gateway *g, uint64_t deadline_ns, void (*on_drained)(void *ctx))
{
    g->on_drained = on_drained;
    g->n_draining = g->n_loops;
    for (uint32_t i = 0; i < g->n_loops; i++) {
        struct drain_msg *d = dv_alloc(sizeof(*d));
        if (!d) { /* without memory there is no grace either: the loop is ended by dv_gateway_free */
            one_drained(g);
            continue;
        }
        *d = (struct drain_msg){.msg.fn = on_drain, .loop = g->loops[i], .deadline_ns = deadline_ns};
        dv_mailbox_post(g->loops[i]->mailbox, &d->msg);
    }
}

struct drained_msg {
    struct dv_msg msg;
    struct dv_gw_face *face;
};

static void on_loop_drained(struct dv_msg *m)
{
    struct drained_msg *d = DV_CONTAINER_OF(m, struct drained_msg, msg);
    struct dv_gw_face *face = d->face;
    dv_free(d);
    if (face->g)
        one_drained(face->g);
    dv_gw_face_unref(face);
}

void dv_gw_told_drained(struct dv_gw_loop *l)
{
    struct drained_msg *d = dv_alloc(sizeof(*d));
    if (!d)
        return; /* the caller of drain has its own deadline */
    *d = (struct drained_msg){.msg.fn = on_loop_drained, .face = dv_gw_face_ref(l->g->face)};
    dv_mailbox_post(l->g->cfg.state, &d->msg);
}

/* ---- news for the loops ---- */

enum news_kind { NEWS_FN_PUT, NEWS_FN_REMOVE, NEWS_REPLICAS, NEWS_NODE_PUT, NEWS_NODE_REMOVE, NEWS_TLS };

struct news {
    struct dv_msg msg;
    enum news_kind kind;
    struct dv_gw_loop *loop;
    uint64_t id;              /* of the function, or the node */
    struct dv_gw_def *def;    /* a reference */
    struct dv_live_fn *live;  /* a reference */
    struct dv_tls_keys *keys; /* a reference */
    struct dv_route_node node;
    char *address;                     /* of node */
    struct dv_live_replica **replicas; /* references */
    size_t n_replicas;
};

static void news_free(struct news *n)
{
    dv_free(n->address);
    dv_gw_def_unref(n->def);
    for (size_t i = 0; i < n->n_replicas; i++)
        dv_live_replica_unref(n->replicas[i]);
    dv_free(n->replicas);
    dv_live_fn_unref(n->live);
    dv_tls_keys_unref(n->keys);
    dv_free(n);
}

static void on_news(struct dv_msg *m)
{
    struct news *n = DV_CONTAINER_OF(m, struct news, msg);
    struct dv_gw_loop *l = n->loop;
    int rc = DV_OK;
    if (!l->is_stopped) {
        switch (n->kind) {
        case NEWS_FN_PUT:
            rc = dv_gw_fn_put(l, n->def);
            break;
        case NEWS_FN_REMOVE:
            dv_gw_fn_remove(l, n->live);
            break;
        case NEWS_REPLICAS:
            rc = dv_gw_fn_replicas(l, n->live, n->replicas, n->n_replicas);
            break;
        case NEWS_NODE_PUT:
            rc = dv_gw_node_put(l, &n->node);
            break;
        case NEWS_NODE_REMOVE:
            dv_gw_node_remove(l, n->id);
            break;
        case NEWS_TLS:
            dv_tls_keys_unref(l->keys);
            l->keys = dv_tls_keys_ref(n->keys);
            break;
        }
    }
    (void)rc; /* out of memory: the state loop tells everything again with its next change */
    news_free(n);
}

static struct news *news_new(enum news_kind kind, uint64_t id)
{
    struct news *n = dv_zalloc(sizeof(*n));
    if (n) {
        n->msg.fn = on_news;
        n->kind = kind;
        n->id = id;
    }
    return n;
}

static void news_post(struct dv_gateway *g, uint32_t loop, struct news *n)
{
    n->loop = g->loops[loop];
    dv_mailbox_post(n->loop->mailbox, &n->msg);
}

/* ---- functions ---- */

static int shared_put(struct dv_gateway *g, const struct dv_route_fn *fn, struct shared_fn **out)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn->uid);
    if (!s) {
        s = dv_zalloc(sizeof(*s));
        if (!s)
            return DV_E_NOMEM;
        s->uid = fn->uid;
        if (dv_live_fn_new(fn->uid, fn->name, fn->ns, g->n_loops, g, &s->live) ||
            dv_idmap_put(&g->fns, fn->uid, s)) {
            shared_free(s);
            return DV_E_NOMEM;
        }
    }
    *out = s;
    return DV_OK;
}

static struct dv_gw_def *def_new(const struct dv_route_fn *fn, struct dv_live_fn *live)
{
    const char *failing = fn->failing ? fn->failing : "";
    size_t n = strlen(failing) + 1;
    struct dv_gw_def *d = dv_zalloc(sizeof(*d) + n);
    if (!d)
        return NULL;
    atomic_init(&d->refs, 1);
    d->live = dv_live_fn_ref(live);
    d->timeout_ms = fn->timeout_ms;
    d->queue_max = fn->queue_max;
    d->queue_timeout_ms = fn->queue_timeout_ms;
    d->auth_required = fn->auth_required;
    memcpy(d->failing, failing, n);
    return d;
}

struct dv_gw_def *dv_gw_def_ref(struct dv_gw_def *d)
{
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

void dv_gw_def_unref(struct dv_gw_def *d)
{
    if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
        return;
    dv_live_fn_unref(d->live);
    dv_free(d);
}

int dv_gateway_fn_put(struct dv_gateway *g, const struct dv_route_fn *fn)
{
    char key[DV_ROUTE_KEY_MAX];
    struct shared_fn *s;
    if (!dv_route_key(dv_sv_c(fn->name), dv_sv_c(fn->ns), key))
        return DV_INVALID;
    int rc = shared_put(g, fn, &s);
    struct dv_gw_def *def = rc ? NULL : def_new(fn, s->live);
    if (!rc && !def)
        rc = DV_E_NOMEM;
    for (uint32_t i = 0; !rc && i < g->n_loops; i++) {
        struct news *n = news_new(NEWS_FN_PUT, fn->uid);
        if (!n) {
            rc = DV_E_NOMEM; /* loops told so far agree with a caller who tries again */
            break;
        }
        n->def = dv_gw_def_ref(def);
        news_post(g, i, n);
    }
    dv_gw_def_unref(def);
    return rc;
}

void dv_gateway_fn_remove(struct dv_gateway *g, uint64_t uid)
{
    struct shared_fn *s = dv_idmap_remove(&g->fns, uid);
    if (!s)
        return;
    for (uint32_t i = 0; i < g->n_loops; i++) {
        struct news *n = news_new(NEWS_FN_REMOVE, uid);
        if (!n)
            continue;
        n->live = dv_live_fn_ref(s->live);
        news_post(g, i, n);
    }
    shared_free(s);
}

static struct dv_live_replica *replica_find(struct shared_fn *s, uint64_t id)
{
    for (size_t k = 0, i = s->cursor; k < s->n_replicas; k++, i++) {
        i = i < s->n_replicas ? i : 0;
        if (s->replicas[i]->id != id)
            continue;
        s->cursor = i + 1;
        return s->replicas[i];
    }
    return NULL;
}

/* *cursor: as above, of the set. */
static bool in_set(const struct dv_route_replica *r, size_t n, uint64_t id, size_t *cursor)
{
    for (size_t k = 0, i = *cursor; k < n; k++, i++) {
        i = i < n ? i : 0;
        if (r[i].id != id)
            continue;
        *cursor = i + 1;
        return true;
    }
    return false;
}

/* The new record: live objects of the set (known ones again), then leavers with requests inside.  The first n
 * are the set. */
static int replicas_merge(struct shared_fn *s, const struct dv_route_replica *r, size_t n)
{
    struct dv_live_replica **v = dv_zalloc_n(n + s->n_replicas + 1, sizeof(*v));
    size_t k = 0;
    if (!v)
        return DV_E_NOMEM;
    for (; k < n; k++) {
        struct dv_live_replica *known = replica_find(s, r[k].id);
        if (known && known->node == r[k].node) {
            atomic_store_explicit(&known->concurrency, r[k].concurrency, memory_order_relaxed);
            v[k] = dv_live_replica_ref(known);
        } else if (dv_live_replica_new(&r[k], &v[k])) {
            while (k--)
                dv_live_replica_unref(v[k]);
            dv_free(v);
            return DV_E_NOMEM;
        }
    }
    for (size_t i = 0, cursor = 0; i < s->n_replicas; i++) {
        struct dv_live_replica *old = s->replicas[i];
        if (!in_set(r, n, old->id, &cursor) && atomic_load(&old->in_flight))
            v[k++] = dv_live_replica_ref(old);
        dv_live_replica_unref(old);
    }
    dv_free(s->replicas);
    s->replicas = v;
    s->n_replicas = k;
    return DV_OK;
}

int dv_gateway_replicas_put(struct dv_gateway *g, uint64_t fn_uid, const struct dv_route_replica *r, size_t n)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn_uid);
    if (!s)
        return DV_NOT_FOUND;
    int rc = replicas_merge(s, r, n);
    for (uint32_t i = 0; !rc && i < g->n_loops; i++) {
        struct news *m = news_new(NEWS_REPLICAS, fn_uid);
        if (!m || !(m->replicas = dv_zalloc_n(n + 1, sizeof(*m->replicas)))) {
            if (m)
                news_free(m);
            return DV_E_NOMEM;
        }
        m->live = dv_live_fn_ref(s->live);
        for (; m->n_replicas < n; m->n_replicas++)
            m->replicas[m->n_replicas] = dv_live_replica_ref(s->replicas[m->n_replicas]);
        news_post(g, i, m);
    }
    return rc;
}

void dv_gateway_replica_frozen(struct dv_gateway *g, uint64_t fn_uid, uint64_t replica, bool is_frozen)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn_uid);
    struct dv_live_replica *r = s ? replica_find(s, replica) : NULL;
    if (r)
        atomic_store_explicit(&r->is_frozen, is_frozen, memory_order_relaxed);
}

/* ---- nodes ---- */

int dv_gateway_node_put(struct dv_gateway *g, const struct dv_route_node *node)
{
    for (uint32_t i = 0; i < g->n_loops; i++) {
        struct news *n = news_new(NEWS_NODE_PUT, node->id);
        if (!n)
            return DV_E_NOMEM;
        n->node = *node;
        n->node.address = n->address = dv_strdup(node->address);
        if (!n->address) {
            news_free(n);
            return DV_E_NOMEM;
        }
        news_post(g, i, n);
    }
    return DV_OK;
}

void dv_gateway_node_remove(struct dv_gateway *g, uint64_t node)
{
    for (uint32_t i = 0; i < g->n_loops; i++) {
        struct news *n = news_new(NEWS_NODE_REMOVE, node);
        if (n)
            news_post(g, i, n);
    }
}

/* ---- certificates ---- */

int dv_gateway_tls_put(struct dv_gateway *g, struct dv_tls_keys *k)
{
    if (!g->keys)
        return DV_UNSUPPORTED;
    for (uint32_t i = 0; i < g->n_loops; i++) {
        struct news *n = news_new(NEWS_TLS, 0);
        if (!n)
            return DV_E_NOMEM;
        n->keys = dv_tls_keys_ref(k);
        news_post(g, i, n);
    }
    dv_tls_keys_unref(g->keys);
    g->keys = dv_tls_keys_ref(k);
    return DV_OK;
}

/* ---- what is going on ---- */

int dv_gateway_load(struct dv_gateway *g, uint64_t fn_uid, struct dv_load *out)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn_uid);
    if (!s)
        return DV_NOT_FOUND;
    dv_live_load(s->live, dv_clock_now_ns(g->cfg.clock), out);
    return DV_OK;
}

uint64_t dv_gateway_replica_in_flight(struct dv_gateway *g, uint64_t fn_uid, uint64_t replica)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn_uid);
    struct dv_live_replica *r = s ? replica_find(s, replica) : NULL;
    return r ? atomic_load(&r->in_flight) : 0;
}

uint64_t dv_gateway_invocations(struct dv_gateway *g, uint64_t fn_uid)
{
    struct shared_fn *s = dv_idmap_find(&g->fns, fn_uid);
    uint64_t n = 0;
    for (uint32_t i = 0; s && i < g->n_loops; i++)
        for (struct dv_live_code *c = dv_live_codes(s->live, i); c;
             c = atomic_load_explicit(&c->next, memory_order_acquire))
            n += dv_live_get(&c->hist.n);
    return n;
}

void dv_gw_fns_each(struct dv_gateway *g, void (*each)(void *ctx, const struct dv_live_fn *fn), void *ctx)
{
    struct shared_fn *s;
    for (size_t i = 0; (s = dv_map_next(&g->fns, &i));)
        each(ctx, s->live);
}

/* How many primed sandboxes of which kind: what the orchestrator wants, within this node's budget, made in
 * the background.
 *
 * Whatever a request waits for goes first.  A refill takes a turn at the engine only when no start is queued
 * (sb_refill_may), and not while starts come in: making a container takes a core for a tenth of a second, and
 * those who were just served by the pool need that core for their own first steps.  After a second of wanting
 * it goes ahead all the same.
 *
 * A pool that fails waits longer each time and says why once; starts go their cold way meanwhile. */
#include "agent/sandbox/box.h"
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/wire/codec.h"

enum {
    QUIET_MS = 200,      /* without a start, before refilling begins */
    QUIET_MAX_MS = 1000, /* but no longer than this after something was first missing */
    CHECK_MS = 5000,     /* between two looks at what an image's name stands for */
    RETRY_MS = 1000,     /* after a failure, doubling up to: */
    RETRY_MAX_MS = 300000,
    REMOVES_MAX = 2
};

/* ---- pools ---- */

static void view_rebuild(struct dv_sandbox *s)
{
    struct sb_pools *ps = &s->pools;
    ps->n_view = 0;
    DV_LIST_FOR_EACH (n, &ps->all) {
        const struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        if (!p->n_ready)
            continue;
        struct dv_pool *v = &ps->view[ps->n_view++];
        *v = p->kind;
        v->n = (int64_t)p->n_ready;
    }
}

void sb_pools_changed(struct dv_sandbox *s, bool is_news)
{
    view_rebuild(s);
    if (!is_news)
        return; /* what was taken goes with the next regular report */
    s->pools.version++;
    sb_changed(s);
}

static int copy_kind(struct sb_pool *p, const struct dv_pool *kind)
{
    p->kind = *kind;
    p->kind.n = 0;
    p->kind.image = dv_arena_strdup(&p->arena, kind->image);
    p->kind.user = kind->user ? dv_arena_strdup(&p->arena, kind->user) : NULL;
    return p->kind.image && (p->kind.user || !kind->user) ? DV_OK : DV_E_NOMEM;
}

static struct sb_pool *find(struct dv_sandbox *s, const struct dv_pool *kind)
{
    DV_LIST_FOR_EACH (n, &s->pools.all) {
        struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        if (dv_pool_same(&p->kind, kind))
            return p;
    }
    return NULL;
}

static void pool_free(struct sb_pool *p)
{
    dv_list_remove(&p->node);
    dv_arena_deinit(&p->arena);
    dv_arena_deinit(&p->image_arena);
    dv_free(p);
}

struct sb_pool *sb_pool_get(struct dv_sandbox *s, const struct dv_pool *kind)
{
    struct sb_pool *p = find(s, kind);
    size_t n = 1;
    if (p)
        return p;
    DV_LIST_FOR_EACH (it, &s->pools.all)
        n++;
    struct dv_pool *view = dv_realloc(s->pools.view, n * sizeof(*view));
    if (!view)
        return NULL;
    s->pools.view = view;
    p = dv_zalloc(sizeof(*p));
    if (!p)
        return NULL;
    p->sb = s;
    dv_list_init(&p->node);
    if (copy_kind(p, kind)) {
        pool_free(p);
        return NULL;
    }
    dv_list_push_back(&s->pools.all, &p->node);
    return p;
}

void sb_pool_failed(struct sb_pool *p, const char *why)
{
    uint64_t pause_ms = (uint64_t)RETRY_MS << (p->failures < 16 ? p->failures : 16);
    pause_ms = pause_ms < RETRY_MAX_MS ? pause_ms : RETRY_MAX_MS;
    p->failures++;
    p->retry_ns = sb_now(p->sb) + pause_ms * DV_MS;
    p->sb->pools.counts.failures++;
    if (strcmp(p->why, why) != 0)
        dv_log(DV_LOG_WARN, "no primed sandbox could be made", DV_LS("image", p->kind.image),
               DV_LS("error", why), DV_LU("again_ms", pause_ms));
    (void)dv_copy(p->why, sizeof(p->why), why);
}

/* ---- images ---- */

static void drop_others(struct sb_pool *p)
{
    DV_LIST_FOR_EACH_SAFE (n, &p->sb->pools.boxes) {
        struct sb_box *b = DV_LIST_ENTRY(n, struct sb_box, node);
        if (b->pool == p && strcmp(b->image_id, p->image_id) != 0)
            sb_box_discard(b);
    }
    sb_pools_changed(p->sb, true);
}

static int copy_strs(struct dv_arena *a, const struct dv_strs *from, struct dv_strs *to)
{
    to->n = from->n;
    to->v = dv_arena_alloc(a, (from->n + 1) * sizeof(*to->v));
    for (size_t i = 0; to->v && i < from->n; i++)
        if (!(to->v[i] = dv_arena_strdup(a, from->v[i])))
            return DV_E_NOMEM;
    return to->v ? DV_OK : DV_E_NOMEM;
}

static void learn(struct sb_pool *p, const struct dv_engine_image *img)
{
    const char *node_arch = p->sb->info.arch;
    char why[160];
    p->image = POOL_HERE;
    p->checked_ns = sb_now(p->sb);
    if (!strcmp(p->image_id, img->id))
        return;
    bool was_known = p->image_id[0] != '\0';
    p->image_id[0] = '\0';
    p->entrypoint = p->command = (struct dv_strs){0};
    dv_arena_reset(&p->image_arena);
    if (img->arch[0] && node_arch[0] && strcmp(img->arch, node_arch) != 0) {
        (void)snprintf(why, sizeof(why), "the image is built for %s, this node is %s", img->arch, node_arch);
        sb_pool_failed(p, why);
        p->image = POOL_UNKNOWN;
    } else if (copy_strs(&p->image_arena, &img->entrypoint, &p->entrypoint) ||
               copy_strs(&p->image_arena, &img->command, &p->command)) {
        sb_pool_failed(p, dv_err_text(DV_E_NOMEM));
        p->image = POOL_UNKNOWN;
    } else {
        (void)dv_copy(p->image_id, sizeof(p->image_id), img->id);
        p->retry_ns = 0;
        if (was_known)
            dv_log(DV_LOG_INFO, "an image is another one now: its primed sandboxes are made anew",
                   DV_LS("image", p->kind.image));
    }
    drop_others(p);
}

void sb_pools_image(struct dv_sandbox *s, const char *name, const struct dv_engine_image *img)
{
    DV_LIST_FOR_EACH (n, &s->pools.all) {
        struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        if (p->image != POOL_ASKING && p->image != POOL_PULLING && !strcmp(p->kind.image, name))
            learn(p, img); /* those that ask are told by themselves */
    }
}

static void on_pulled(void *ctx, int code, const struct dv_err *err)
{
    struct sb_pool *p = ctx;
    p->image = POOL_UNKNOWN;
    p->checked_ns = 0;
    if (code)
        sb_pool_failed(p, dv_err_msg(err, code));
    else
        sb_images_list(p->sb);
}

/* The image is not here (any more).  Registries that ask for a name are left to the start that brings it. */
static void fetch(struct sb_pool *p)
{
    p->image = POOL_UNKNOWN;
    p->image_id[0] = '\0';
    drop_others(p);
    if (!p->is_wanted || p->kind.n <= 0 || sb_now(p->sb) < p->retry_ns)
        return;
    p->image = POOL_PULLING;
    sb_ops(p->sb)->image_pull(p->sb->cfg.engine, p->kind.image, NULL, NULL, on_pulled, p);
}

static void on_image(void *ctx, int code, const struct dv_engine_image *img, const struct dv_err *err)
{
    struct sb_pool *p = ctx;
    p->checked_ns = sb_now(p->sb);
    p->image = p->image_id[0] ? POOL_HERE : POOL_UNKNOWN;
    if (!code)
        learn(p, img);
    else if (code == DV_NOT_FOUND)
        fetch(p);
    else if (!p->image_id[0])
        sb_pool_failed(p, dv_err_msg(err, code));
    sb_pools_refill(p->sb);
}

static void ask(struct sb_pool *p)
{
    p->image = POOL_ASKING;
    sb_ops(p->sb)->image_inspect(p->sb->cfg.engine, p->kind.image, on_image, p);
}

/* The one not looked at for longest, should it be time. */
static void look_at_one(struct dv_sandbox *s)
{
    struct sb_pool *oldest = NULL;
    uint64_t now = sb_now(s);
    DV_LIST_FOR_EACH (n, &s->pools.all) {
        struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        bool is_due = !p->checked_ns || now - p->checked_ns >= CHECK_MS * DV_MS;
        bool is_busy = p->image == POOL_ASKING || p->image == POOL_PULLING;
        if (is_due && !is_busy && now >= p->retry_ns && (!oldest || p->checked_ns < oldest->checked_ns))
            oldest = p;
    }
    if (oldest)
        ask(oldest);
}

/* ---- filling and trimming ---- */

/* Calls each with every pool and its share of the budget, in the orchestrator's order. */
static void each_share(struct dv_sandbox *s, void (*each)(struct sb_pool *p, int64_t share))
{
    int64_t left = s->cfg.primed_max;
    DV_LIST_FOR_EACH_SAFE (n, &s->pools.all) {
        struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        int64_t share = !p->is_wanted ? 0 : p->kind.n < left ? p->kind.n : left;
        left -= share;
        each(p, share);
    }
}

static void fill_one(struct sb_pool *p, int64_t share)
{
    struct dv_sandbox *s = p->sb;
    if ((int64_t)(p->n_ready + p->n_making) >= share)
        return;
    if (!p->image_id[0] && p->image == POOL_UNKNOWN && sb_now(s) >= p->retry_ns)
        ask(p);
    if (p->image_id[0] && sb_now(s) >= p->retry_ns && sb_refill_may(s) && sb_box_make(p) == DV_OK)
        s->pools.n_begun++;
}

static void trim_one(struct sb_pool *p, int64_t share)
{
    struct dv_sandbox *s = p->sb;
    DV_LIST_FOR_EACH_SAFE (n, &s->pools.boxes) {
        struct sb_box *b = DV_LIST_ENTRY(n, struct sb_box, node);
        if ((int64_t)(p->n_ready + p->n_making) <= share || s->pools.n_removing >= REMOVES_MAX)
            break;
        if (b->pool == p && b->state == BOX_READY)
            sb_box_discard(b);
    }
    bool is_busy = p->image == POOL_ASKING || p->image == POOL_PULLING;
    if (!p->is_wanted && !p->n_ready && !p->n_making && !is_busy)
        pool_free(p);
}

static bool is_quiet(struct dv_sandbox *s)
{
    uint64_t now = sb_now(s), until = s->pools.last_take_ns + QUIET_MS * DV_MS,
             latest = s->pools.need_ns + QUIET_MAX_MS * DV_MS;
    until = until < latest ? until : latest;
    if (!s->pools.need_ns || now >= until)
        return true;
    return dv_timer_set(s->cfg.loop, &s->pools.timer, until) != DV_OK;
}

void sb_pools_refill(struct dv_sandbox *s)
{
    if (!s->is_ok || !s->pools.is_told || s->pools.is_filling)
        return;
    if (!is_quiet(s))
        return;
    s->pools.is_filling = true; /* a box that fails at once comes back here */
    do {
        s->pools.n_begun = 0;
        each_share(s, fill_one);
    } while (s->pools.n_begun && sb_refill_may(s));
    s->pools.is_filling = false;
    if (sb_refill_may(s)) /* all is there that can be had */
        s->pools.need_ns = 0;
}

static void on_timer(struct dv_timer *t)
{
    sb_pools_refill(DV_CONTAINER_OF(t, struct dv_sandbox, pools.timer));
}

static void trim(struct dv_sandbox *s)
{
    if (s->is_ok && s->pools.is_told)
        each_share(s, trim_one);
    sb_pools_changed(s, false);
}

void sb_pools_tick(struct dv_sandbox *s)
{
    if (!s->is_ok)
        return;
    trim(s);
    look_at_one(s);
    sb_pools_refill(s);
}

/* ---- taking ---- */

struct sb_box *sb_pools_find(struct dv_sandbox *s, const struct dv_fn_spec *spec)
{
    struct dv_pool kind;
    dv_pool_of(spec, &kind);
    struct sb_pool *p = spec->pull == DV_PULL_ALWAYS ? NULL : find(s, &kind);
    s->pools.last_take_ns = sb_now(s); /* a cold start wants its peace, too */
    if (!p)
        return NULL;
    if (!s->pools.need_ns)
        s->pools.need_ns = sb_now(s);
    DV_LIST_FOR_EACH (n, &s->pools.boxes) {
        struct sb_box *b = DV_LIST_ENTRY(n, struct sb_box, node);
        if (b->pool == p && b->state == BOX_READY && !strcmp(b->image_id, p->image_id))
            return b;
    }
    s->pools.counts.missed++;
    return NULL;
}

/* ---- commands and reports ---- */

void dv_sandbox_pools(struct dv_sandbox *s, const struct dv_cmd_pools *cmd)
{
    struct dv_list order;
    struct dv_list *n;
    dv_list_init(&order);
    DV_LIST_FOR_EACH (it, &s->pools.all)
        DV_LIST_ENTRY(it, struct sb_pool, node)->is_wanted = false;
    for (size_t i = 0; i < cmd->n_pools; i++) {
        struct sb_pool *p = sb_pool_get(s, &cmd->pools[i]);
        if (!p)
            continue; /* without memory: as if it had not been listed; it comes again */
        p->is_wanted = true;
        p->kind.n = cmd->pools[i].n;
        dv_list_remove(&p->node); /* the budget goes by the orchestrator's order */
        dv_list_push_back(&order, &p->node);
    }
    while ((n = dv_list_pop_front(&s->pools.all)))
        dv_list_push_back(&order, n);
    while ((n = dv_list_pop_front(&order)))
        dv_list_push_back(&s->pools.all, n);
    s->pools.is_told = true;
    trim(s);
    sb_pools_refill(s);
}

static void gauge(struct dv_buf *out, const char *name, const char *help, uint64_t value)
{
    (void)dv_metric_head(out, name, DV_METRIC_GAUGE, help);
    (void)dv_metric_u64(out, name, NULL, 0, value);
}

static void counter(struct dv_buf *out, const char *name, const char *help, uint64_t value)
{
    (void)dv_metric_head(out, name, DV_METRIC_COUNTER, help);
    (void)dv_metric_u64(out, name, NULL, 0, value);
}

void sb_pools_metrics(const struct dv_sandbox *s, struct dv_buf *out)
{
    const struct sb_pools *ps = &s->pools;
    uint64_t wanted = 0, ready = 0, making = 0;
    DV_LIST_FOR_EACH (n, &ps->all) {
        const struct sb_pool *p = DV_LIST_ENTRY(n, struct sb_pool, node);
        wanted += p->is_wanted ? (uint64_t)p->kind.n : 0;
        ready += p->n_ready;
        making += p->n_making;
    }
    gauge(out, "davit_agent_primed_wanted", "Primed sandboxes that the orchestrator wants here.", wanted);
    gauge(out, "davit_agent_primed_ready", "Primed sandboxes that are ready.", ready);
    gauge(out, "davit_agent_primed_making", "Primed sandboxes being made.", making);
    counter(out, "davit_agent_primed_made_total", "Primed sandboxes that became ready.", ps->counts.made);
    counter(out, "davit_agent_primed_opened_total", "Primed sandboxes opened for a replica.",
            ps->counts.opened);
    counter(out, "davit_agent_primed_missed_total", "Starts that found their pool empty.", ps->counts.missed);
    counter(out, "davit_agent_primed_lost_total", "Primed sandboxes that went away by themselves.",
            ps->counts.lost);
    counter(out, "davit_agent_primed_failures_total", "Primed sandboxes that could not be made.",
            ps->counts.failures);
}

/* ---- life ---- */

void sb_pools_init(struct dv_sandbox *s)
{
    dv_list_init(&s->pools.all);
    dv_list_init(&s->pools.boxes);
    dv_map_init(&s->pools.by_id, s->cfg.node);
    s->pools.timer.fn = on_timer;
}

void sb_pools_free(struct dv_sandbox *s)
{
    dv_timer_cancel(s->cfg.loop, &s->pools.timer);
    DV_LIST_FOR_EACH_SAFE (n, &s->pools.boxes)
        sb_box_free(DV_LIST_ENTRY(n, struct sb_box, node));
    DV_LIST_FOR_EACH_SAFE (n, &s->pools.all)
        pool_free(DV_LIST_ENTRY(n, struct sb_pool, node));
    dv_map_deinit(&s->pools.by_id);
    dv_free(s->pools.view);
    dv_free(s->pools.dir);
}

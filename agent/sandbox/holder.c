/* Ready networks: a pool of holders, made in the background, lent to one user at a time.
 *
 *   CREATE -> START -> INSPECT -> READY <-> TAKEN
 *                                   ^         |
 *   FOUND (after a restart) --------+-- CLOSING
 *
 * The engine's listing and its events are the truth: a holder that is not there, or does not run, is dropped
 * at once, whoever is inside told, and another made.  Nothing of it is kept in files: after a restart of the
 * agent the engine says which holders there are and, of each container, whose network it has joined.  A
 * holder found so stays FOUND until its user has claimed it, or a listing shows nobody inside.
 *
 * The image is empty: the waiting program is davit-init, mounted as it is for functions of protocol stdio, so
 * the image never changes and is made when the engine says that it has none. */
#include "agent/sandbox/nets.h"
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"

#define IMAGE       "davit/holder:1"
#define LABEL       "dev.davit.holder"
#define INIT_TARGET "/.davit/init"

enum {
    STARTS_MAX = 16,                 /* the engine's own locks let it do no more, however many cores it has */
    REFILLS_MAX = 2,                 /* creates for pools at once, while nothing else is created */
    STARVED_MS = 1000,               /* without a refill, while starts wait for their turn */
    RETRY_MS = 5000,                 /* after making one has failed */
    SURPLUS_MS = 30000,              /* more than wanted, given back by many users at once: kept this long */
    MEMORY_BYTES = 16 * 1024 * 1024, /* what starting it takes, not what it uses */
    PIDS = 64,
    FILES = 64
};

/* ---- turns ---- */

/* A start keeps a core busy for six tenths of the time that it takes, the rest it waits.  Measured on two
 * cores, with ready networks: four at once do a fifth more than three, each taking an eighth longer; with six
 * nothing more is done, only later. */
int sb_starts_max(const struct dv_sandbox *s)
{
    int64_t n = s->info.cpus * 2;
    return n < 2 ? 2 : n > STARTS_MAX ? STARTS_MAX : (int)n;
}

bool sb_refill_may(const struct dv_sandbox *s)
{
    int n = s->nets.n_refills;
    if (!s->is_ok || s->n_creating + n >= sb_starts_max(s))
        return false;
    if (dv_list_empty(&s->queue))
        return n < (s->n_creating ? 1 : REFILLS_MAX);
    /* Under a stream of starts that never ends the pool would stay empty, and every start slow. */
    return n == 0 && s->cfg.ready_networks > 0 && !s->nets.n[HO_READY] &&
           sb_now(s) - s->nets.refill_ns >= STARVED_MS * DV_MS;
}

void sb_refill_begin(struct dv_sandbox *s)
{
    s->nets.n_refills++;
    s->nets.refill_ns = sb_now(s);
}

void sb_refill_end(struct dv_sandbox *s)
{
    s->nets.n_refills--;
}

/* ---- one holder ---- */

static void move(struct sb_holder *h, enum sb_holder_state to)
{
    struct sb_nets *nets = &h->sb->nets;
    nets->n[h->state]--;
    nets->n[to]++;
    h->state = to;
    h->since_ns = sb_now(h->sb);
    dv_list_remove(&h->node);
    dv_list_push_back(&nets->all, &h->node);
}

static struct sb_holder *holder_new(struct dv_sandbox *s, uint64_t id, enum sb_holder_state state)
{
    struct sb_holder *h = dv_zalloc(sizeof(*h));
    if (!h)
        return NULL;
    *h = (struct sb_holder){.sb = s, .id = id, .state = state, .since_ns = sb_now(s)};
    dv_list_push_back(&s->nets.all, &h->node);
    s->nets.n[state]++;
    return h;
}

static void end_refill(struct sb_holder *h)
{
    if (h->is_refill)
        sb_refill_end(h->sb);
    h->is_refill = false;
}

static void holder_free(struct sb_holder *h)
{
    end_refill(h);
    h->sb->nets.n[h->state]--;
    dv_list_remove(&h->node);
    dv_free(h);
}

static struct sb_holder *by_id(const struct dv_sandbox *s, uint64_t id)
{
    DV_LIST_FOR_EACH (n, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(n, struct sb_holder, node);
        if (h->id == id)
            return h;
    }
    return NULL;
}

static struct sb_holder *by_container(const struct dv_sandbox *s, const char *container)
{
    DV_LIST_FOR_EACH (n, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(n, struct sb_holder, node);
        if (h->container[0] && strcmp(h->container, container) == 0)
            return h;
    }
    return NULL;
}

static void on_removed(void *ctx, int code, const struct dv_err *err)
{
    struct sb_holder *h = ctx;
    struct dv_sandbox *s = h->sb;
    if (code) /* the next listing finds it without an owner */
        dv_log(DV_LOG_WARN, "a ready network could not be removed", DV_LS("container", h->container),
               DV_LS("error", dv_err_msg(err, code)));
    holder_free(h);
    sb_queue_run(s);
}

static void discard(struct sb_holder *h)
{
    end_refill(h);
    if (!h->container[0]) {
        holder_free(h);
        return;
    }
    move(h, HO_REMOVE);
    h->sb->nets.counts.removed++;
    sb_ops(h->sb)->remove(h->sb->cfg.engine, h->container, true, on_removed, h);
}

/* It is not there any more, or does not run. */
static void lose(struct sb_holder *h)
{
    void (*on_lost)(void *) = h->state == HO_TAKEN ? h->on_lost : NULL;
    void *ctx = h->ctx;
    h->sb->nets.counts.lost++;
    dv_log(DV_LOG_WARN, "a ready network is gone", DV_LS("container", h->container),
           DV_LS("address", h->address), DV_LI("in_use", on_lost != NULL));
    discard(h);
    if (on_lost)
        on_lost(ctx);
}

/* ---- making ---- */

static void failed(struct dv_sandbox *s, int code, const struct dv_err *err)
{
    s->nets.counts.failures++;
    s->nets.retry_ns = sb_now(s) + RETRY_MS * DV_MS;
    if (!s->nets.is_bad)
        dv_log(DV_LOG_WARN, "no ready network could be made, containers get networks of their own",
               DV_LS("error", dv_err_msg(err, code)));
    s->nets.is_bad = true;
    if (code == DV_E_ENGINE)
        sb_engine_suspect(s);
}

static void fail_one(struct sb_holder *h, int code, const struct dv_err *err)
{
    struct dv_sandbox *s = h->sb;
    failed(s, code, err);
    discard(h);
    sb_queue_run(s);
}

static void on_inspected(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err)
{
    struct sb_holder *h = ctx;
    struct dv_sandbox *s = h->sb;
    struct dv_err why = DV_ERR_INIT;
    if (!code && (!sb_nets_is_running(c) || !c->address[0])) {
        code = dv_err_set(&why, DV_INVALID, "container %.12s is %s and has %s", h->container, c->state,
                          c->address[0] ? "ended" : "no address");
        err = &why;
    }
    if (code) {
        fail_one(h, code, err);
        return;
    }
    (void)dv_copy(h->address, sizeof(h->address), c->address);
    end_refill(h);
    s->nets.counts.made++;
    s->nets.is_bad = false;
    move(h, HO_READY);
    sb_queue_run(s);
}

static void on_started(void *ctx, int code, const struct dv_err *err)
{
    struct sb_holder *h = ctx;
    if (code) {
        fail_one(h, code, err);
        return;
    }
    move(h, HO_INSPECT);
    sb_ops(h->sb)->inspect(h->sb->cfg.engine, h->container, on_inspected, h);
}

static void on_imported(void *ctx, int code, const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    s->nets.is_importing = false;
    if (code)
        failed(s, code, err);
    sb_nets_refill(s);
}

static void on_created(void *ctx, int code, const char *id, const struct dv_err *err)
{
    static const char empty_tar[1024];
    struct sb_holder *h = ctx;
    struct dv_sandbox *s = h->sb;
    if (code == DV_NOT_FOUND && !s->nets.is_importing) {
        s->nets.is_importing = true;
        discard(h);
        sb_ops(s)->image_import(s->cfg.engine, IMAGE, dv_sv(empty_tar, sizeof(empty_tar)), on_imported, s);
    } else if (code == DV_NOT_FOUND) {
        discard(h);
    } else if (code) {
        fail_one(h, code, err);
    } else {
        (void)dv_copy(h->container, sizeof(h->container), id);
        move(h, HO_START);
        sb_ops(s)->start(s->cfg.engine, h->container, on_started, h);
    }
}

static bool make(struct dv_sandbox *s)
{
    uint64_t id;
    struct sb_holder *h = dv_random(&id, sizeof(id), NULL) ? NULL : holder_new(s, id, HO_CREATE);
    if (!h) {
        failed(s, DV_E_NOMEM, NULL);
        return false;
    }
    char name[48], holder[DV_ID_TEXT], node[DV_ID_TEXT];
    (void)snprintf(name, sizeof(name), "davit-network-%016llx", (unsigned long long)id);
    dv_id_text(id, holder);
    dv_id_text(s->cfg.node, node);
    char *words[] = {INIT_TARGET, "hold"};
    struct dv_kv labels[] = {{LABEL, holder}, {"dev.davit.node", node}};
    const struct dv_engine_mount init = {s->cfg.init_path, INIT_TARGET, true};
    const struct dv_engine_create spec = {.name = name,
                                          .image = IMAGE,
                                          .entrypoint = {words, 1},
                                          .command = {words + 1, 1},
                                          .labels = {labels, DV_COUNT(labels)},
                                          .network = s->cfg.network,
                                          .hostname = "davit",
                                          .mounts = &init,
                                          .n_mounts = 1,
                                          .memory_bytes = MEMORY_BYTES,
                                          .pids = PIDS,
                                          .files = FILES,
                                          .read_only = true};
    h->is_refill = true;
    sb_refill_begin(s);
    sb_ops(s)->create(s->cfg.engine, &spec, on_created, h);
    return true;
}

/* A refill beside a start takes the processor that the start needs: as long as half of them are there it
 * waits for the start's end. */
static bool can_wait(const struct dv_sandbox *s)
{
    return s->n_creating && (int64_t)s->nets.n[HO_READY] * 2 >= s->cfg.ready_networks;
}

void sb_nets_refill(struct dv_sandbox *s)
{
    const struct sb_nets *nets = &s->nets;
    while (!can_wait(s) && !nets->is_importing && sb_now(s) >= nets->retry_ns && sb_refill_may(s) &&
           (int64_t)(nets->n[HO_CREATE] + nets->n[HO_START] + nets->n[HO_INSPECT] + nets->n[HO_FOUND] +
                     nets->n[HO_READY]) < s->cfg.ready_networks)
        if (!make(s))
            return;
}

/* ---- lending ---- */

struct sb_holder *sb_holder_take(struct dv_sandbox *s, void (*on_lost)(void *ctx), void *ctx)
{
    if (s->cfg.ready_networks <= 0)
        return NULL;
    DV_LIST_FOR_EACH (n, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(n, struct sb_holder, node);
        if (h->state != HO_READY) /* the one that was used longest ago comes first */
            continue;
        move(h, HO_TAKEN);
        sb_holder_pass(h, on_lost, ctx);
        s->nets.counts.joined++;
        return h;
    }
    s->nets.counts.missed++;
    return NULL;
}

void sb_holder_pass(struct sb_holder *h, void (*on_lost)(void *ctx), void *ctx)
{
    h->on_lost = on_lost;
    h->ctx = ctx;
}

void sb_holder_give_back(struct sb_holder *h, bool is_gone)
{
    if (!h)
        return;
    h->on_lost = NULL;
    h->ctx = NULL;
    if (!is_gone)
        discard(h);
    else
        move(h, h->is_closing ? HO_CLOSING : HO_READY);
}

void sb_holder_closing(struct sb_holder *h, uint64_t replica)
{
    h->is_closing = true;
    h->replica = replica;
}

void sb_nets_closed(struct dv_sandbox *s, uint64_t replica)
{
    DV_LIST_FOR_EACH (n, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(n, struct sb_holder, node);
        if (!h->is_closing || h->replica != replica)
            continue;
        h->is_closing = false;
        if (h->state == HO_CLOSING)
            move(h, HO_READY);
        return;
    }
}

struct sb_holder *sb_holder_claim(struct dv_sandbox *s, const char *joins, void (*on_lost)(void *ctx),
                                  void *ctx)
{
    struct sb_holder *h = joins[0] ? by_container(s, joins) : NULL;
    if (!h || h->state != HO_FOUND)
        return NULL;
    move(h, HO_TAKEN);
    sb_holder_pass(h, on_lost, ctx);
    return h;
}

/* ---- the engine's word ---- */

bool sb_nets_is_running(const struct dv_engine_container *c)
{
    return strcmp(c->state, "running") == 0 || strcmp(c->state, "paused") == 0;
}

static uint64_t holder_id(const struct dv_engine_container *c)
{
    uint64_t id = 0;
    for (size_t i = 0; i < c->labels.n; i++)
        if (strcmp(c->labels.v[i].k, LABEL) == 0 && !dv_parse_hex64(dv_sv_c(c->labels.v[i].v), &id))
            id = UINT64_MAX; /* unreadable: of nobody */
    return id;
}

bool sb_nets_is_holder(const struct dv_engine_container *c)
{
    return holder_id(c) != 0;
}

static void find(struct dv_sandbox *s, const struct dv_engine_container *c)
{
    struct sb_holder *h = holder_new(s, holder_id(c), HO_FOUND);
    if (!h)
        return; /* the next listing shows it again */
    (void)dv_copy(h->container, sizeof(h->container), c->id);
    (void)dv_copy(h->address, sizeof(h->address), c->address);
    if (!sb_nets_is_running(c) || !c->address[0])
        discard(h);
}

static const struct dv_engine_container *listed(const struct sb_holder *h,
                                                const struct dv_engine_container *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(c[i].id, h->container) == 0)
            return &c[i];
    return NULL;
}

/* What changed since the listing was asked for is not in it as it is now. */
static bool is_judged(const struct sb_holder *h)
{
    return h->state >= HO_FOUND && h->state != HO_REMOVE && h->since_ns < h->sb->list_began_ns;
}

void sb_nets_listed(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (sb_nets_is_holder(&c[i]) && !by_id(s, holder_id(&c[i])))
            find(s, &c[i]);
    for (bool again = true; again;) { /* whoever is told of a loss may give back others */
        again = false;
        DV_LIST_FOR_EACH (it, &s->nets.all) {
            struct sb_holder *h = DV_LIST_ENTRY(it, struct sb_holder, node);
            const struct dv_engine_container *seen = is_judged(h) ? listed(h, c, n) : NULL;
            if (!is_judged(h) || (seen && sb_nets_is_running(seen)))
                continue;
            lose(h);
            again = true;
            break;
        }
    }
}

static bool has_guest(const struct sb_holder *h, const struct dv_engine_container *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!sb_nets_is_holder(&c[i]) && (!c[i].is_network_told || strcmp(c[i].joins, h->container) == 0))
            return true;
    return false;
}

void sb_nets_settled(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n)
{
    DV_LIST_FOR_EACH_SAFE (it, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(it, struct sb_holder, node);
        if (h->state == HO_FOUND && listed(h, c, n) && !has_guest(h, c, n))
            move(h, HO_READY);
    }
    sb_nets_refill(s);
}

bool sb_nets_event(struct dv_sandbox *s, const struct dv_engine_event *ev)
{
    struct sb_holder *h = by_container(s, ev->container);
    bool is_end = strcmp(ev->action, "die") == 0 || strcmp(ev->action, "destroy") == 0;
    if (h && is_end && h->state >= HO_FOUND && h->state != HO_REMOVE) {
        lose(h);
        sb_nets_refill(s);
    }
    return h != NULL;
}

/* ---- life ---- */

static void trim(struct dv_sandbox *s)
{
    bool is_off = s->cfg.ready_networks <= 0;
    if ((int64_t)s->nets.n[HO_READY] <= s->cfg.ready_networks || !s->is_ok ||
        (!is_off && (s->n_creating || !dv_list_empty(&s->queue))))
        return;
    DV_LIST_FOR_EACH_SAFE (it, &s->nets.all) {
        struct sb_holder *h = DV_LIST_ENTRY(it, struct sb_holder, node);
        if (h->state != HO_READY || (!is_off && sb_now(s) - h->since_ns < SURPLUS_MS * DV_MS))
            continue;
        discard(h);
        if (!is_off)
            return; /* one a second */
    }
}

void sb_nets_tick(struct dv_sandbox *s)
{
    trim(s);
    sb_nets_refill(s);
}

void sb_nets_init(struct dv_sandbox *s)
{
    dv_list_init(&s->nets.all);
}

void sb_nets_free(struct dv_sandbox *s)
{
    DV_LIST_FOR_EACH_SAFE (it, &s->nets.all)
        holder_free(DV_LIST_ENTRY(it, struct sb_holder, node));
}

/* Asynchronous invocations.
 *
 * Way of a request: the gateway hands it over -> one append to queue "fn/<uid>", group-committed by the
 * store's thread -> 202.  From then on it belongs to the store; memory holds per queue only a count and the
 * next due time. Working it off: a queue with something due stands in `ready`; the pump takes the queues in
 * turn, claims one item from each (async_item.c does the rest), and stops at the bounds.  So no function
 * waits behind another's backlog, and the memory held does not depend on the backlog.
 *
 * What must hold:
 *  - delivered at least once: an item leaves the store only by the ack after its last attempt, and the ack of
 * a request with a callback appends the callback in the same transaction;
 *  - n_items counts what the store has of a queue; it is corrected whenever a claim finds the queue empty;
 *  - jobs are answered in order of submission, so what an answer says about a queue is never older than what
 * an earlier answer said.
 *
 * Half of in_flight_max is open to whoever comes first; the other half is shared evenly between the queues
 * that have work, so that functions that hang cannot take all of it. */
#include "orchestrator/events/async_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"

#include <assert.h>

enum {
    PER_FUNCTION_MAX = 64,
    IN_FLIGHT_MAX = 512,
    CALLBACKS_MAX = 16, /* in flight per function */
    CLAIMS_MAX = 32,    /* claim jobs under way: bounds what held_bytes_max may be overrun by */
    BACKLOG_MAX = 100000,
    ANSWERS_FACTOR = 4, /* answers kept for callbacks may take the memory to this much of held_bytes_max */
    SWEEP_MS = 30000,
    LOOK_AGAIN_MS = 60000, /* longest sleep of a queue's timer: wall time may jump */
};
static const size_t held_bytes_default = (size_t)64 * 1024 * 1024;

/* ---- queues ---- */

void dv_async_queue_name(char out[DV_ASYNC_QUEUE_NAME], bool is_callback, uint64_t fn_uid)
{
    (void)snprintf(out, DV_ASYNC_QUEUE_NAME, "%s/%016llx", is_callback ? "cb" : "fn",
                   (unsigned long long)fn_uid);
}

static int64_t wall_ms(const struct dv_async *a)
{
    return dv_clock_wall_ms(a->cfg.clock);
}

static void on_queue_timer(struct dv_timer *t)
{
    dv_async_queue_kick(DV_CONTAINER_OF(t, struct dv_async_queue, timer));
}

struct dv_async_queue *dv_async_queue_get(struct dv_async *a, bool is_callback, uint64_t fn_uid, bool create)
{
    char name[DV_ASYNC_QUEUE_NAME];
    dv_async_queue_name(name, is_callback, fn_uid);
    struct dv_async_queue *q = dv_map_find(&a->queues, dv_sv_c(name));
    if (q || !create)
        return q;
    q = dv_zalloc(sizeof(*q));
    if (!q)
        return NULL;
    memcpy(q->name, name, sizeof(name));
    q->owner = a;
    q->fn_uid = fn_uid;
    q->is_callback = is_callback;
    q->next_due_ms = INT64_MAX;
    q->timer.fn = on_queue_timer;
    dv_list_init(&q->ready);
    if (dv_map_put(&a->queues, dv_sv_c(q->name), q)) {
        dv_free(q);
        return NULL;
    }
    return q;
}

static void queue_unready(struct dv_async_queue *q)
{
    dv_list_remove(&q->ready);
    q->is_in_ready = false;
}

static void queue_free(struct dv_async_queue *q)
{
    (void)dv_map_remove(&q->owner->queues, dv_sv_c(q->name));
    dv_timer_cancel(q->owner->cfg.loop, &q->timer);
    queue_unready(q);
    dv_free(q->fn);
    dv_free(q);
}

static uint64_t n_waiting(const struct dv_async_queue *q)
{
    uint64_t busy = q->n_in_flight + q->n_claims;
    return q->n_items > busy ? q->n_items - busy : 0;
}

static size_t n_queues_with_work(const struct dv_async *a)
{
    size_t n = 0;
    const struct dv_async_queue *q;
    for (size_t i = 0; (q = dv_map_next(&a->queues, &i));)
        n += q->n_items > 0;
    return n ? n : 1;
}

/* Calls that the queue may have in flight by itself.  fn: NULL for callbacks. */
static uint64_t queue_limit(const struct dv_async_queue *q, const struct dv_async_fn *fn)
{
    uint64_t limit = q->is_callback ? CALLBACKS_MAX : q->owner->cfg.per_function_max;
    return fn && fn->parallel > 0 && (uint64_t)fn->parallel < limit ? (uint64_t)fn->parallel : limit;
}

/* ... and beside the others. */
static uint64_t queue_share(const struct dv_async_queue *q)
{
    const struct dv_async *a = q->owner;
    size_t half = a->cfg.in_flight_max / 2;
    if (a->n_in_flight + a->n_claims < half)
        return UINT64_MAX;
    size_t share = half / n_queues_with_work(a);
    return share ? share : 1;
}

static void arm(struct dv_async_queue *q, int64_t now_ms)
{
    struct dv_loop *loop = q->owner->cfg.loop;
    if (q->next_due_ms == INT64_MAX) {
        dv_timer_cancel(loop, &q->timer);
        return;
    }
    int64_t ms = q->next_due_ms - now_ms;
    ms = ms < 1 ? 1 : ms > LOOK_AGAIN_MS ? LOOK_AGAIN_MS : ms;
    /* Without memory for the timer the queue waits for its next event. */
    (void)dv_timer_set(loop, &q->timer, dv_loop_now(loop) + (uint64_t)ms * DV_MS);
}

void dv_async_queue_kick(struct dv_async_queue *q)
{
    struct dv_async *a = q->owner;
    if (q->is_gone) {
        if (!q->n_in_flight && !q->n_jobs)
            queue_free(q);
        return;
    }
    if (!a->is_loaded || q->is_in_ready || !n_waiting(q))
        return;
    int64_t now_ms = wall_ms(a);
    if (q->next_due_ms > now_ms) {
        arm(q, now_ms);
        return;
    }
    q->is_in_ready = true;
    dv_list_push_back(&a->ready, &q->ready);
    dv_loop_defer(a->cfg.loop, &a->pump);
}

void dv_async_room(struct dv_async *a)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&a->throttled))) {
        struct dv_async_queue *q = DV_LIST_ENTRY(n, struct dv_async_queue, ready);
        q->is_in_ready = false;
        dv_async_queue_kick(q);
    }
    dv_loop_defer(a->cfg.loop, &a->pump);
}

bool dv_async_hold(struct dv_async *a, size_t n)
{
    if (a->held_bytes + n > a->cfg.held_bytes_max * ANSWERS_FACTOR)
        return false;
    a->held_bytes += n;
    return true;
}

/* ---- jobs ---- */

void dv_async_job_start(struct dv_async_queue *q, struct dv_store_job *job,
                        int (*run)(struct dv_store_job *job, struct dv_store *store, struct dv_err *err),
                        void (*done)(struct dv_store_job *job))
{
    struct dv_async *a = q->owner;
    q->n_jobs++;
    a->n_jobs++;
    job->reply_to = a->cfg.mailbox;
    job->run = run;
    job->done = done;
    dv_storer_submit(a->cfg.storer, job);
}

static void free_rest(struct dv_async *a)
{
    struct dv_async_queue *q;
    size_t i = 0;
    while ((q = dv_map_next(&a->queues, &i))) {
        queue_free(q); /* shifts what follows */
        i = 0;
    }
    dv_map_deinit(&a->queues);
    dv_free(a->internal_path);
    dv_free(a);
}

bool dv_async_job_end(struct dv_async *a, struct dv_async_queue *q)
{
    if (q)
        q->n_jobs--;
    a->n_jobs--;
    if (!a->is_closing)
        return true;
    if (!a->n_jobs)
        free_rest(a);
    return false;
}

/* ---- dropping ---- */

struct drop_job {
    struct dv_store_job job;
    struct dv_async_queue *q;
    char name[DV_ASYNC_QUEUE_NAME];
    uint64_t n;
};

static int drop_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct drop_job *d = DV_CONTAINER_OF(job, struct drop_job, job);
    return store->ops->work_drop(store, dv_sv_c(d->name), &d->n, err);
}

static void drop_done(struct dv_store_job *job)
{
    struct drop_job *d = DV_CONTAINER_OF(job, struct drop_job, job);
    struct dv_async_queue *q = d->q;
    if (job->code)
        dv_log(DV_LOG_ERROR, "asynchronous work of a deleted function not dropped", DV_LS("queue", d->name),
               DV_LE(&job->err));
    else if (d->n)
        dv_log(DV_LOG_INFO, "asynchronous work of a deleted function dropped", DV_LS("queue", d->name),
               DV_LU("items", d->n));
    if (dv_async_job_end(q->owner, q))
        dv_async_queue_kick(q);
    dv_free(d);
}

void dv_async_queue_drop(struct dv_async_queue *q)
{
    struct drop_job *d = dv_zalloc(sizeof(*d));
    if (!d) {
        q->next_due_ms = wall_ms(q->owner) + 1000; /* another look then */
        arm(q, wall_ms(q->owner));
        return;
    }
    q->is_gone = true;
    queue_unready(q);
    dv_timer_cancel(q->owner->cfg.loop, &q->timer);
    d->q = q;
    memcpy(d->name, q->name, sizeof(d->name));
    dv_async_job_start(q, &d->job, drop_run, drop_done);
}

void dv_async_fn_removed(void *async, uint64_t fn_uid)
{
    struct dv_async *a = async;
    struct dv_async_queue *q = dv_async_queue_get(a, false, fn_uid, false);
    if (q && !q->is_gone)
        dv_async_queue_drop(q);
}

/* Functions that went without a word: their queues are dropped, and no series stays behind. */
static void on_sweep(struct dv_timer *t)
{
    struct dv_async *a = DV_CONTAINER_OF(t, struct dv_async, sweep);
    struct dv_async_queue *q;
    struct dv_async_fn fn;
    size_t i = 0;
    while ((q = dv_map_next(&a->queues, &i))) {
        if (q->is_gone || a->cfg.find(a->cfg.find_ctx, q->fn_uid, &fn) == DV_OK)
            continue;
        if (!q->is_callback) {
            dv_async_queue_drop(q);
        } else if (!q->n_items && !q->n_jobs && !q->n_in_flight) {
            queue_free(q); /* shifts what follows */
            i = 0;
        }
    }
    /* Without memory for the timer a deleted function is found when its work is due. */
    (void)dv_timer_set(a->cfg.loop, &a->sweep, dv_loop_now(a->cfg.loop) + a->cfg.sweep_ms * DV_MS);
}

/* ---- claiming ---- */

static void learn_name(struct dv_async_queue *q, const struct dv_async_fn *fn)
{
    if (!q->fn)
        q->fn = dv_asprintf("%s.%s", fn->name, fn->ns); /* NULL: the uid stands in for it */
}

/* One item of the queue.  True: it may have another. */
static bool claim_from(struct dv_async_queue *q)
{
    struct dv_async *a = q->owner;
    struct dv_async_fn fn = {0};
    int rc = a->cfg.find(a->cfg.find_ctx, q->fn_uid, &fn);
    if (rc == DV_OK)
        learn_name(q, &fn);
    if (rc && !q->is_callback) { /* callbacks outlive their function */
        dv_async_queue_drop(q);
        return false;
    }
    uint64_t n_busy = q->n_in_flight + q->n_claims;
    if (!n_waiting(q) || n_busy >= queue_limit(q, q->is_callback ? NULL : &fn))
        return false; /* kicked again when one of its items is settled */
    if (n_busy >= queue_share(q)) {
        q->is_in_ready = true;
        dv_list_push_back(&a->throttled, &q->ready);
        return false;
    }
    if (dv_async_item_claim(q, &fn)) {
        q->next_due_ms = wall_ms(a) + 1000; /* no memory: later */
        arm(q, wall_ms(a));
        return false;
    }
    return true;
}

static void on_pump(struct dv_defer *d)
{
    struct dv_async *a = DV_CONTAINER_OF(d, struct dv_async, pump);
    while (!dv_list_empty(&a->ready) && a->n_in_flight + a->n_claims < a->cfg.in_flight_max &&
           a->n_claims < CLAIMS_MAX && a->held_bytes < a->cfg.held_bytes_max) {
        struct dv_async_queue *q = DV_LIST_ENTRY(dv_list_pop_front(&a->ready), struct dv_async_queue, ready);
        q->is_in_ready = false;
        if (claim_from(q))
            dv_async_queue_kick(q);
    }
}

uint64_t dv_async_backlog(const struct dv_async *a, uint64_t fn_uid)
{
    char name[DV_ASYNC_QUEUE_NAME];
    dv_async_queue_name(name, false, fn_uid);
    const struct dv_async_queue *q = dv_map_find(&a->queues, dv_sv_c(name));
    return q ? q->n_items : 0;
}

void dv_async_depth(void *async, uint64_t fn_uid, uint64_t *items, uint64_t *parallel)
{
    const struct dv_async *a = async;
    char name[DV_ASYNC_QUEUE_NAME];
    dv_async_queue_name(name, false, fn_uid);
    const struct dv_async_queue *q = a ? dv_map_find(&a->queues, dv_sv_c(name)) : NULL;
    struct dv_async_fn fn = {0};
    *items = *parallel = 0;
    if (!q || q->is_gone || !q->n_items || a->cfg.find(a->cfg.find_ctx, fn_uid, &fn))
        return;
    /* What waits for another try later is no work now. */
    uint64_t busy = q->n_in_flight + q->n_claims;
    *items = q->next_due_ms > wall_ms(a) && q->n_items > busy ? busy : q->n_items;
    *parallel = queue_limit(q, &fn);
}

/* ---- start: what the process before left ---- */

struct found { /* in the load job's arena */
    struct found *next;
    struct dv_sv name;
    uint64_t n;
    int64_t due_ms;
};

struct load_job {
    struct dv_store_job job;
    struct dv_async *a;
    struct dv_arena arena;
    struct found *found;
    bool is_out_of_memory;
};

static int note_found(void *ctx, struct dv_sv queue, uint64_t n, int64_t due_ms)
{
    struct load_job *j = ctx;
    struct found *f = dv_arena_alloc(&j->arena, sizeof(*f));
    struct dv_sv name = dv_arena_sv(&j->arena, queue);
    j->is_out_of_memory = !f || !name.p;
    if (j->is_out_of_memory)
        return 1;
    *f = (struct found){.next = j->found, .name = name, .n = n, .due_ms = due_ms};
    j->found = f;
    return 0;
}

static int load_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct load_job *j = DV_CONTAINER_OF(job, struct load_job, job);
    int rc = store->ops->work_release_all(store, err);
    if (!rc)
        rc = store->ops->work_queues(store, note_found, j, err);
    return !rc && j->is_out_of_memory ? dv_err_set(err, DV_E_NOMEM, "list of queues") : rc;
}

static void adopt(struct dv_async *a, const struct found *f)
{
    uint64_t uid;
    bool is_callback = dv_sv_starts(f->name, DV_SV("cb/"));
    struct dv_async_queue *q = NULL;
    if ((is_callback || dv_sv_starts(f->name, DV_SV("fn/"))) &&
        dv_parse_hex64(dv_sv(f->name.p + 3, f->name.n - 3), &uid))
        q = dv_async_queue_get(a, is_callback, uid, true);
    if (!q) {
        dv_log(DV_LOG_ERROR, "asynchronous work left aside", DV_LSV("queue", f->name), DV_LU("items", f->n));
        return;
    }
    q->n_items += f->n;
    q->next_due_ms = f->due_ms < q->next_due_ms ? f->due_ms : q->next_due_ms;
}

static void load_done(struct dv_store_job *job)
{
    struct load_job *j = DV_CONTAINER_OF(job, struct load_job, job);
    struct dv_async *a = j->a;
    bool is_open = dv_async_job_end(a, NULL);
    if (is_open && job->code)
        dv_log(DV_LOG_ERROR, "asynchronous work of before the start not found", DV_LE(&job->err));
    if (is_open) {
        a->is_loaded = true;
        for (const struct found *f = job->code ? NULL : j->found; f; f = f->next)
            adopt(a, f);
        struct dv_async_queue *q;
        for (size_t i = 0; (q = dv_map_next(&a->queues, &i));)
            if (!q->is_gone)
                dv_async_queue_kick(q);
        (void)dv_timer_set(a->cfg.loop, &a->sweep,
                           dv_loop_now(a->cfg.loop) + a->cfg.sweep_ms * DV_MS); /* as in on_sweep */
    }
    dv_arena_deinit(&j->arena);
    dv_free(j);
}

static void take_cfg(struct dv_async *a, const struct dv_async_cfg *cfg)
{
    a->cfg = *cfg;
    struct dv_async_cfg *c = &a->cfg;
    c->per_function_max = c->per_function_max ? c->per_function_max : PER_FUNCTION_MAX;
    c->in_flight_max = c->in_flight_max ? c->in_flight_max : IN_FLIGHT_MAX;
    c->held_bytes_max = c->held_bytes_max ? c->held_bytes_max : held_bytes_default;
    c->backlog_max = c->backlog_max ? c->backlog_max : BACKLOG_MAX;
    c->sweep_ms = c->sweep_ms ? c->sweep_ms : SWEEP_MS;
    c->internal_path = a->internal_path;
}

int dv_async_new(const struct dv_async_cfg *cfg, struct dv_async **out, struct dv_err *err)
{
    struct load_job *j = dv_zalloc(sizeof(*j));
    struct dv_async *a = dv_zalloc(sizeof(*a));
    if (a)
        a->internal_path = dv_strdup(cfg->internal_path);
    int rc = j && a && a->internal_path ? dv_httpc_new(cfg->loop, &a->http, err)
                                        : dv_err_set(err, DV_E_NOMEM, "asynchronous work");
    if (rc) {
        if (a)
            dv_free(a->internal_path);
        dv_free(a);
        dv_free(j);
        return rc;
    }
    take_cfg(a, cfg);
    dv_rng_init(&a->rng, cfg->seed);
    dv_map_init(&a->queues, cfg->seed);
    dv_list_init(&a->ready);
    dv_list_init(&a->throttled);
    dv_list_init(&a->running);
    dv_list_init(&a->accepting);
    a->sweep.fn = on_sweep;
    a->pump.fn = on_pump;
    a->n_jobs = 1;
    j->a = a;
    j->job = (struct dv_store_job){.reply_to = cfg->mailbox, .run = load_run, .done = load_done};
    dv_storer_submit(cfg->storer, &j->job);
    *out = a;
    return DV_OK;
}

void dv_async_free(struct dv_async *a)
{
    if (!a)
        return;
    a->is_closing = true;
    dv_defer_cancel(&a->pump);
    dv_timer_cancel(a->cfg.loop, &a->sweep);
    dv_async_accepts_let_go(a);
    dv_async_items_cut_off(a);
    dv_httpc_free(a->http);
    a->http = NULL;
    struct dv_async_queue *q;
    for (size_t i = 0; (q = dv_map_next(&a->queues, &i));)
        dv_timer_cancel(a->cfg.loop, &q->timer); /* the loop may end before the last job is back */
    if (!a->n_jobs)
        free_rest(a);
}

/* The world: a heap of events, and the way of a request through the real dispatcher.
 *
 * Requests of one function keep the order in which they came (the dispatcher's FIFO).  A request that finds
 * no free slot is the signal to whatever decides (sim_sys_ops.waits); when a replica becomes ready the system
 * publishes it (sim_routes) and waiting requests meet it.  How a request came to its slot is judged when it
 * gets it: had it to wait, and was the replica ready only after the request had come, then it waited for that
 * replica to be made (cold) or opened (primed); otherwise it waited for somebody else to leave (queued). */
#include "tests/sim/sim.h"

#include <math.h>
#include <stdarg.h>
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

void sim_cfg_default(struct sim_cfg *cfg)
{
    *cfg = (struct sim_cfg){
        .seed = 1,
        .until_ns = 3600 * SIM_S,
        .n_nodes = 8,
        .node_mcpu = 1000 * 1000,
        .node_bytes = 1024 * 1024 * SIM_MI,
        .node_replicas = 1000000,
        .cold_ms = 230,
        .net_ms = 100,
        .primed_ms = 3,
        .thaw_ms = 0.2,
        .crowding = 0.28,
        .starts_at_once = 4,
        .nets_per_node = 64,
        .has_pools = true,
        .primed_bytes = 3 * SIM_MI,
        .link_ns = 100 * SIM_US,
        .full_report_ns = 5 * SIM_S,
    };
}

/* ---- events ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void push(struct sim *s, struct sim_event e)
{
    if (s->n_heap == s->cap_heap) {
        s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 1024;
        s->heap = dv_realloc(s->heap, s->cap_heap * sizeof(*s->heap));
        if (!s->heap)
            abort();
    }
    e.at_ns = e.at_ns < s->now ? s->now : e.at_ns;
    e.seq = s->seq++;
    size_t i = s->n_heap++;
    for (size_t up; i > 0 && before(&e, &s->heap[up = (i - 1) / 4]); i = up)
        s->heap[i] = s->heap[up];
    s->heap[i] = e;
}

void sim_at(struct sim *s, uint64_t at_ns, void (*run)(struct sim *s, struct sim_event *e), void *ptr,
            uint64_t a, uint64_t b)
{
    push(s, (struct sim_event){.at_ns = at_ns, .run = run, .ptr = ptr, .a = a, .b = b});
}

void sim_at_own(struct sim *s, uint64_t at_ns, void (*run)(struct sim *s, struct sim_event *e), void *ptr,
                uint64_t a, uint64_t b)
{
    push(s, (struct sim_event){.at_ns = at_ns, .run = run, .ptr = ptr, .a = a, .b = b, .is_owner = true});
}

static struct sim_event pop(struct sim *s)
{
    struct sim_event top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t first = i * 4 + 1, best = first;
        if (first >= s->n_heap)
            break;
        for (size_t k = first + 1; k < first + 4 && k < s->n_heap; k++)
            if (before(&s->heap[k], &s->heap[best]))
                best = k;
        if (!before(&s->heap[best], &last))
            break;
        s->heap[i] = s->heap[best];
        i = best;
    }
    s->heap[i] = last;
    return top;
}

void sim_run(struct sim *s, uint64_t until_ns)
{
    while (s->n_heap && s->heap[0].at_ns <= until_ns) {
        struct sim_event e = pop(s);
        s->now = e.at_ns;
        s->steps++;
        e.run(s, &e);
        if (s->cfg.is_checked)
            sim_check(s);
    }
    s->now = until_ns;
}

/* ---- what happened, for whoever reads a failure ---- */

void sim_trace(struct sim *s, const char *fmt, ...)
{
    if (!s->cfg.is_checked)
        return;
    char *line = s->trace[s->n_trace++ % SIM_TRACE_LINES];
    int n = snprintf(line, sizeof(s->trace[0]), "%12.6f  ", (double)s->now / 1e9);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, sizeof(s->trace[0]) - (size_t)n, fmt, ap);
    va_end(ap);
}

void sim_violation(struct sim *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(s->violation, sizeof(s->violation), fmt, ap);
    va_end(ap);
    s->n_violations++;
    if (s->is_lenient)
        return;
    fprintf(stderr, "violated at %.6f s with seed %llu, system %s: %s\nwhat happened before:\n",
            (double)s->now / 1e9, (unsigned long long)s->cfg.seed, s->sys->name, s->violation);
    size_t n = s->n_trace < SIM_TRACE_LINES ? s->n_trace : SIM_TRACE_LINES;
    for (size_t i = s->n_trace - n; i < s->n_trace; i++)
        fprintf(stderr, "  %s\n", s->trace[i % SIM_TRACE_LINES]);
    abort();
}

/* ---- requests ---- */

uint64_t sim_load_of(const struct sim_fn *f)
{
    return f->queue.n_waiting + dv_live_get(&f->queue.cell->in_flight);
}

static void see_waiting(struct sim *s, struct sim_fn *f)
{
    if (!f->queue.n_waiting)
        dv_list_remove(&f->busy);
    else if (dv_list_empty(&f->busy))
        dv_list_push_back(&s->waiting, &f->busy);
}

static void on_retry(struct sim *s, struct sim_event *e)
{
    struct sim_fn *f = e->ptr;
    if (f->retry_ns == e->at_ns)
        f->retry_ns = 0;
    sim_pump(s, f);
}

static enum sim_how how_of(const struct sim_request *r, uint64_t waited, bool was_frozen)
{
    if (!waited)
        return was_frozen ? SIM_HOW_FROZEN : SIM_HOW_WARM;
    if (r->in->ready_ns <= r->arrived_ns)
        return SIM_HOW_QUEUED;
    return r->in->tier == SIM_PRIMED ? SIM_HOW_PRIMED : SIM_HOW_COLD;
}

static void on_end(struct sim *s, struct sim_event *e)
{
    struct sim_request *r = e->ptr;
    struct sim_fn *f = r->fn;
    if (r->is_over) {
        dv_free(r);
        return;
    }
    struct sim_replica *in = r->in;
    dv_list_remove(&r->of_replica);
    in->in_flight--;
    in->used_ns = s->now;
    dv_live_flight(f->queue.cell, -1, s->now);
    dv_live_set(&f->queue.cell->last_activity_ns, s->now);
    dv_live_add(&f->queue.cell->answered, 1);
    dv_live_add(&f->queue.cell->service_ns, s->now - r->began_ns);
    dv_queue_accepted(r->slots);
    dv_queue_leave(&f->queue, r->slots, s->now);
    dv_free(r);
    sim_pump(s, f);
    if (in->in_flight == 0)
        sim_agent_idle(s, in);
}

/* Its slot's replica does not take it: it was never begun. */
static void turn_back(struct sim *s, struct sim_request *r, struct dv_slots *slots)
{
    struct dv_queue *q = &r->fn->queue;
    dv_queue_refused(q, slots, s->now);
    dv_queue_put_back(q, &r->waiter);
    dv_queue_leave(q, slots, s->now);
}

static void begin(struct sim *s, struct sim_request *r, struct dv_slots *slots)
{
    struct sim_fn *f = r->fn;
    struct sim_replica *in = sim_replica_find(s, slots->live->id);
    if (!in || !dv_life_is_ready(in->state) || in->is_stopping || !in->node->link_up) {
        turn_back(s, r, slots);
        return;
    }
    bool was_frozen = in->state == DV_REPLICA_FROZEN;
    uint64_t thaw = was_frozen ? (uint64_t)(s->cfg.thaw_ms * 1e6) : 0, waited = s->now - r->arrived_ns;
    r->in = in;
    r->slots = slots;
    r->began_ns = s->now;
    in->in_flight++;
    in->used_ns = s->now;
    dv_list_push_back(&in->inside, &r->of_replica);
    dv_live_flight(f->queue.cell, 1, s->now);
    dv_live_add(&f->queue.cell->started, 1);
    s->stats.how[how_of(r, waited, was_frozen)]++;
    sim_hist_add(&s->stats.wait, waited + thaw);
    if (was_frozen)
        sim_agent_used(s, in);
    sim_at_own(s, s->now + thaw + r->service_ns, on_end, r, 0, 0);
}

/* As the gateway does: ask again when a replica that refused may be asked. */
static void arm(struct sim *s, struct sim_fn *f)
{
    uint64_t at = f->queue.retry_at_ns;
    if (f->queue.n_waiting && at && (!f->retry_ns || at < f->retry_ns)) {
        f->retry_ns = at;
        sim_at(s, at, on_retry, f, 0, 0);
    }
}

void sim_pump(struct sim *s, struct sim_fn *f)
{
    struct dv_slots *slots;
    struct dv_waiter *w;
    while ((w = dv_queue_next(&f->queue, s->now, &slots)))
        begin(s, DV_CONTAINER_OF(w, struct sim_request, waiter), slots);
    arm(s, f);
    see_waiting(s, f);
}

static double normal(struct dv_rng *rng)
{
    double u = 1 - dv_rng_unit(rng);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * dv_rng_unit(rng));
}

static uint64_t service_time(struct sim_fn *f)
{
    size_t i = f->arrivals.next_time - 1;
    if (f->arrivals.kind == SIM_LIST && f->arrivals.durations_s && i < f->arrivals.n_times)
        return (uint64_t)((double)f->arrivals.durations_s[i] * 1e9);
    double seconds = f->mean_s;
    if (f->spread > 0)
        seconds *= exp(f->spread * normal(&f->rng) - f->spread * f->spread / 2);
    return (uint64_t)(seconds * 1e9);
}

static void arrive(struct sim *s, struct sim_fn *f)
{
    struct sim_request *r = dv_zalloc(sizeof(*r));
    if (!r)
        abort();
    r->fn = f;
    r->arrived_ns = s->now;
    r->service_ns = service_time(f);
    dv_list_init(&r->of_replica);
    dv_list_init(&r->waiter.node);
    s->stats.arrived++;
    dv_live_add(&f->queue.cell->arrived, 1);
    dv_live_set(&f->queue.cell->last_activity_ns, s->now);
    struct dv_slots *slots;
    int rc = f->is_failing ? DV_NO_CAPACITY : dv_queue_admit(&f->queue, &r->waiter, s->now, &slots);
    if (rc == DV_NO_CAPACITY) {
        s->stats.refused++;
        dv_free(r);
        return;
    }
    if (rc == DV_OK) {
        begin(s, r, slots);
        if (!r->waiter.is_waiting)
            return;
        sim_pump(s, f);
    }
    arm(s, f);
    see_waiting(s, f);
    if (f->queue.n_waiting)
        s->sys->waits(s, f);
}

static void on_arrival(struct sim *s, struct sim_event *e)
{
    struct sim_fn *f = e->ptr;
    f->has_arrival = false;
    if (f->is_removed || !s->load_on)
        return;
    arrive(s, f);
    if (s->cfg.is_checked)
        sim_note_load(s, f);
    uint64_t next = sim_arrivals_next(&f->arrivals, s->now, &f->rng);
    if (next != UINT64_MAX) {
        f->has_arrival = true;
        sim_at(s, next, on_arrival, f, 0, 0);
    }
}

void sim_refuse_waiting(struct sim *s, struct sim_fn *f)
{
    struct dv_waiter *w;
    while ((w = dv_queue_first(&f->queue))) {
        dv_queue_drop(&f->queue, w);
        dv_free(DV_CONTAINER_OF(w, struct sim_request, waiter));
        s->stats.refused++;
    }
    see_waiting(s, f);
}

void sim_lose_requests(struct sim *s, struct sim_replica *r)
{
    struct dv_list *it;
    while ((it = dv_list_pop_front(&r->inside))) {
        struct sim_request *q = DV_LIST_ENTRY(it, struct sim_request, of_replica);
        q->is_over = true;
        s->stats.lost++;
        dv_live_flight(q->fn->queue.cell, -1, s->now);
        dv_live_set(&q->fn->queue.cell->last_activity_ns, s->now);
        dv_live_add(&q->fn->queue.cell->failed, 1);
        dv_queue_leave(&q->fn->queue, q->slots, s->now);
    }
    r->in_flight = 0;
}

/* ---- routes ---- */

static void no_poke(void *ctx, struct dv_live_fn *fn, uint32_t loop)
{
    (void)ctx;
    (void)fn;
    (void)loop;
}

static void slots_added(void *ctx, struct dv_slots *slots)
{
    struct sim_replica *r = sim_replica_find(ctx, slots->live->id);
    slots->is_reachable = r && r->node->link_up;
    if (r)
        r->slots = slots;
}

static void slots_removed(void *ctx, struct dv_slots *slots)
{
    struct sim_replica *r = sim_replica_find(ctx, slots->live->id);
    if (r && r->slots == slots)
        r->slots = NULL;
}

static const struct dv_queue_ops queue_ops = {no_poke, slots_added, slots_removed};

void sim_routes(struct sim *s, struct sim_fn *f, struct sim_replica *const *set, size_t n)
{
    struct dv_live_replica *few[64] = {0}, **live = n <= DV_COUNT(few) ? few : dv_zalloc_n(n, sizeof(*live));
    if (!live)
        abort();
    for (size_t i = 0; i < n; i++)
        live[i] = set[i]->live;
    if (dv_queue_set(&f->queue, live, n))
        abort();
    if (live != few)
        dv_free(live);
    sim_pump(s, f);
}

void sim_link_changed(struct sim *s, struct sim_node *n)
{
    DV_LIST_FOR_EACH_SAFE (it, &n->replicas) {
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_node);
        if (r->slots)
            r->slots->is_reachable = n->link_up;
        if (!n->link_up && r->in_flight) {
            sim_lose_requests(s, r);
            struct sim_fn *f = r->fn;
            sim_agent_idle(s, r);
            sim_pump(s, f);
        }
    }
    for (size_t i = 0; n->link_up && i < s->n_fns; i++)
        if (s->fns[i]->queue.n_waiting)
            sim_pump(s, s->fns[i]);
}

/* ---- life ---- */

struct sim *sim_new(const struct sim_cfg *cfg, const struct sim_sys_ops *sys)
{
    struct sim *s = dv_zalloc(sizeof(*s));
    if (!s)
        abort();
    s->cfg = *cfg;
    s->sys = sys;
    s->now = s->primed_at_ns = SIM_BEGIN;
    s->load_on = true;
    s->next_id = 1;
    dv_rng_init(&s->rng, cfg->seed);
    dv_rng_init(&s->start_rng, cfg->seed ^ 0x5eed);
    dv_map_init(&s->replicas, 1);
    dv_list_init(&s->waiting);
    sim_agents_init(s);
    sys->init(s);
    return s;
}

struct sim_fn *sim_fn_add(struct sim *s, const char *name, const char *image)
{
    if (s->n_fns == s->cap_fns) {
        s->cap_fns = s->cap_fns ? s->cap_fns * 2 : 64;
        s->fns = dv_realloc(s->fns, s->cap_fns * sizeof(*s->fns));
        if (!s->fns)
            abort();
    }
    struct sim_fn *f = dv_zalloc(sizeof(*f));
    if (!f)
        abort();
    s->fns[s->n_fns] = f;
    (void)dv_copy(f->name, sizeof(f->name), name);
    (void)dv_copy(f->image, sizeof(f->image), image);
    f->def = (struct dv_function){
        .uid = 1000 + s->n_fns,
        .generation = 1,
        .desired_override = -1,
        .spec = {.name = f->name,
                 .ns = (char *)"default",
                 .image = f->image,
                 .read_only = true,
                 .requests = {.memory_bytes = 128 * SIM_MI, .cpu_mcpu = 50},
                 .scale = {.max = 1000, .concurrency = 1, .target = 1, .freeze_ms = 1000}}};
    f->mean_s = 0.1;
    dv_rng_init(&f->rng, s->cfg.seed * 1000003 + s->n_fns);
    dv_list_init(&f->replicas);
    dv_list_init(&f->busy);
    if (dv_live_fn_new(f->def.uid, name, "default", 1, s, &f->live))
        abort();
    dv_queue_init(&f->queue, f->live, 0, UINT32_MAX, &queue_ops, s);
    dv_live_fn_unref(f->live); /* the queue holds one */
    s->n_fns++;
    return f;
}

void sim_fn_begin(struct sim *s, struct sim_fn *f)
{
    s->sys->fn_added(s, f);
    uint64_t next = sim_arrivals_next(&f->arrivals, s->now, &f->rng);
    if (next != UINT64_MAX)
        sim_at(s, next, on_arrival, f, 0, 0);
    f->has_arrival = next != UINT64_MAX;
}

static double mean_bytes(const struct sim *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n_fns; i++)
        sum += (double)dv_fn_requests(&s->fns[i]->def.spec).memory_bytes;
    return s->n_fns ? sum / (double)s->n_fns : 1;
}

void sim_settle(struct sim *s)
{
    struct sim_replica *r;
    sim_charge_primed(s);
    for (size_t i = 0; (r = dv_map_next(&s->replicas, &i));) {
        double t = r->bytes ? (double)(s->now - r->made_ns) / 1e9 : 0;
        s->stats.replica_s += t;
        s->stats.replica_gb_s += t * (double)r->bytes / 1e9;
        r->made_ns = s->now;
    }
    s->stats.primed_gb_s = s->stats.primed_s * (double)s->cfg.primed_bytes / 1e9;
    s->stats.primed_replica_s = s->stats.primed_s * (double)s->cfg.primed_bytes / mean_bytes(s);
}

static void free_fn(struct sim *s, struct sim_fn *f)
{
    sim_refuse_waiting(s, f);
    DV_LIST_FOR_EACH_SAFE (it, &f->replicas)
        sim_lose_requests(s, DV_LIST_ENTRY(it, struct sim_replica, of_fn));
    dv_queue_deinit(&f->queue);
    sim_arrivals_deinit(&f->arrivals);
    dv_free(f->sys);
}

void sim_free(struct sim *s)
{
    for (size_t i = 0; i < s->n_fns; i++)
        free_fn(s, s->fns[i]);
    s->sys->deinit(s);
    for (size_t i = 0; i < s->n_heap; i++)
        if (s->heap[i].is_owner)
            dv_free(s->heap[i].ptr);
    struct sim_replica *r;
    for (size_t i = 0; (r = dv_map_next(&s->replicas, &i));) {
        dv_live_replica_unref(r->live);
        dv_free(r);
    }
    for (size_t i = 0; i < s->n_fns; i++)
        dv_free(s->fns[i]);
    dv_map_deinit(&s->replicas);
    dv_free(s->fns);
    dv_free(s->nodes);
    dv_free(s->heap);
    dv_free(s);
}

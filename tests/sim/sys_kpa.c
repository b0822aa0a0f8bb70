/* Baseline: Knative's pod autoscaler, from its published description and defaults.
 *
 * Every 2 s and function: the mean concurrency (in flight and waiting) of the last 60 s and of the last 6 s,
 * in buckets of 1 s, over what was watched since the first bucket; divided by the target, 70 % of a replica's
 * concurrency; clamped to a thousandth part up and a half down of what is ready; panic when the short window
 * asks for twice what is ready, then for a stable window never down; to zero after a stable window without
 * load and a grace period of 30 s more.  A first request at zero is told to the autoscaler at once, as the
 * activator does.
 *
 * In its favour: replicas start as fast as ours without tiers (a pod takes seconds), scraping and the way
 * from the autoscaler to a pod take no time, requests wait in one queue and take whichever slot is free
 * first.  Pods that go are the idle ones where there are any. */
#include "tests/sim/sim.h"

#include <math.h>
#include "proto/base/alloc.h"

enum { STABLE_S = 60, PANIC_S = 6 };
#define TICK_NS     (2 * SIM_S)
#define GRACE_NS    (30 * SIM_S)
#define TARGET      0.70
#define PANIC_RATIO 2.0
#define UP_RATE     1000.0
#define DOWN_RATE   2.0

struct kpa {
    float bucket[STABLE_S]; /* mean concurrency in that second */
    uint64_t second;        /* the newest whole one in there */
    uint64_t first;         /* since when there is data */
    double flight_s;        /* integral of in-flight and waiting when `second` ended */
    double waited_s;        /* integral of waiting */
    uint64_t waited_ns;
    size_t waiting;
    int64_t panic_max, scale;
    uint64_t panic_until_ns, zero_since_ns;
    bool is_ticking;
};

static void routes(struct sim *s, struct sim_fn *f)
{
    struct sim_replica *set[4096];
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        if (dv_life_is_ready(r->state) && !r->is_stopping && n < DV_COUNT(set))
            set[n++] = r;
    }
    sim_routes(s, f, set, n);
}

/* Integral of what was in flight or waiting until now.  Waiting is sampled at each second's end and whenever
 * the queue is told of. */
static double integral(struct sim *s, struct sim_fn *f, struct kpa *k)
{
    struct dv_load l;
    dv_live_load(f->live, s->now, &l);
    k->waited_s += (double)k->waiting * (double)(s->now - k->waited_ns) / 1e9;
    k->waited_ns = s->now;
    k->waiting = f->queue.n_waiting;
    return l.in_flight_time + k->waited_s;
}

static void on_second(struct sim *s, struct sim_fn *f, struct kpa *k)
{
    uint64_t now_s = s->now / SIM_S;
    double sum = integral(s, f, k);
    if (now_s <= k->second)
        return;
    uint64_t seconds = now_s - k->second;
    if (seconds > STABLE_S) {
        k->first = now_s - 1;
        seconds = 1;
        for (size_t i = 0; i < STABLE_S; i++)
            k->bucket[i] = 0;
    }
    for (uint64_t t = now_s - seconds; t < now_s; t++)
        k->bucket[t % STABLE_S] = (float)((sum - k->flight_s) / (double)seconds);
    k->flight_s = sum;
    k->second = now_s;
}

static double mean(const struct kpa *k, uint64_t window)
{
    uint64_t n = k->second - k->first;
    n = n > window ? window : n;
    double sum = 0;
    for (uint64_t i = 1; i <= n; i++)
        sum += (double)k->bucket[(k->second - i) % STABLE_S];
    return n ? sum / (double)n : 0;
}

static int64_t ready_of(const struct sim_fn *f)
{
    int64_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        n += dv_life_is_ready(r->state) && !r->is_stopping;
    }
    return n;
}

static int64_t clamp(double want, double lo, double hi)
{
    return (int64_t)(want < lo ? lo : want > hi ? hi : want);
}

static int64_t decide(struct sim *s, struct sim_fn *f, struct kpa *k)
{
    double target = fmax(0.01, TARGET * (double)f->def.spec.scale.concurrency);
    double ready = fmax(1, (double)ready_of(f)), now = (double)sim_load_of(f);
    bool is_blank = k->second == k->first; /* the first request: nothing but itself to go by */
    double stable = is_blank ? now : mean(k, STABLE_S), panic = is_blank ? now : mean(k, PANIC_S);
    double want_stable = ceil(stable / target), want_panic = ceil(panic / target);
    bool is_over = want_panic / ready >= PANIC_RATIO;
    double lo = floor(ready / DOWN_RATE), hi = ceil(ready * UP_RATE);
    int64_t n_stable = clamp(want_stable, lo, hi), n_panic = clamp(want_panic, lo, hi);
    if (is_over) {
        if (!k->panic_until_ns)
            k->panic_max = 0;
        k->panic_until_ns = s->now + STABLE_S * SIM_S;
    } else if (k->panic_until_ns && s->now >= k->panic_until_ns) {
        k->panic_until_ns = 0;
    }
    if (!k->panic_until_ns)
        return n_stable;
    int64_t n = n_panic > n_stable ? n_panic : n_stable;
    k->panic_max = n > k->panic_max ? n : k->panic_max;
    return k->panic_max;
}

static struct sim_replica *victim_of(struct sim_fn *f)
{
    struct sim_replica *v = NULL;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        if (r->is_stopping)
            continue;
        if (!v || (r->state == DV_REPLICA_STARTING) > (v->state == DV_REPLICA_STARTING) ||
            ((r->state == DV_REPLICA_STARTING) == (v->state == DV_REPLICA_STARTING) &&
             r->in_flight < v->in_flight))
            v = r;
    }
    return v;
}

static void apply(struct sim *s, struct sim_fn *f, int64_t n)
{
    int64_t max = f->def.spec.scale.max, have = 0;
    n = n > max ? max : n;
    DV_LIST_FOR_EACH (it, &f->replicas)
        have += !DV_LIST_ENTRY(it, struct sim_replica, of_fn)->is_stopping;
    for (; have < n && sim_start_somewhere(s, f); have++)
        continue;
    for (struct sim_replica *r; have > n && (r = victim_of(f)); have--)
        sim_agent_stop(s, r);
}

/* To zero only after a stable window of nothing (the mean is then 0) and the grace period. */
static int64_t hold_last(struct sim *s, struct kpa *k, int64_t n)
{
    if (n > 0) {
        k->zero_since_ns = 0;
        return n;
    }
    if (!k->zero_since_ns)
        k->zero_since_ns = s->now;
    return s->now - k->zero_since_ns < GRACE_NS ? 1 : 0;
}

static void on_tick(struct sim *s, struct sim_event *e);

static void decide_now(struct sim *s, struct sim_fn *f, struct kpa *k)
{
    on_second(s, f, k);
    int64_t n = decide(s, f, k);
    bool is_unused = n == 0 && sim_load_of(f) == 0;
    k->scale = is_unused || n == 0 ? hold_last(s, k, 0) : hold_last(s, k, n);
    apply(s, f, k->scale);
}

static void on_tick(struct sim *s, struct sim_event *e)
{
    struct sim_fn *f = e->ptr;
    struct kpa *k = f->sys;
    decide_now(s, f, k);
    k->is_ticking = f->n_replicas > 0 || f->queue.n_waiting > 0;
    if (k->is_ticking)
        sim_at(s, (s->now / TICK_NS + 1) * TICK_NS, on_tick, f, 0, 0);
}

static void waits(struct sim *s, struct sim_fn *f)
{
    struct kpa *k = f->sys;
    (void)integral(s, f, k);
    if (k->scale == 0)
        decide_now(s, f, k);
    if (!k->is_ticking) {
        k->is_ticking = true;
        sim_at(s, (s->now / TICK_NS + 1) * TICK_NS, on_tick, f, 0, 0);
    }
}

static void changed(struct sim *s, struct sim_replica *r, enum dv_reason why)
{
    (void)why;
    struct sim_fn *f = r->fn;
    if (r->state == DV_REPLICA_FAILED) {
        sim_agent_stop(s, r);
    } else if (r->state != DV_REPLICA_STARTING) {
        (void)integral(s, f, f->sys);
        routes(s, f);
        ((struct kpa *)f->sys)->waiting = f->queue.n_waiting;
    }
}

static void fn_added(struct sim *s, struct sim_fn *f)
{
    struct kpa *k = dv_zalloc(sizeof(*k));
    if (!k)
        abort();
    k->waited_ns = s->now;
    k->second = k->first = s->now / SIM_S;
    f->sys = k;
}

static void idle(struct sim *s, struct sim_replica *r)
{
    (void)s;
    (void)r;
}

static void nothing(struct sim *s)
{
    (void)s;
}

static void nothing_node(struct sim *s, struct sim_node *n)
{
    (void)s;
    (void)n;
}

const struct sim_sys_ops sim_kpa = {.name = "knative",
                                    .init = nothing,
                                    .fn_added = fn_added,
                                    .waits = waits,
                                    .idle = idle,
                                    .changed = changed,
                                    .link = nothing_node,
                                    .node = nothing_node,
                                    .deinit = nothing};

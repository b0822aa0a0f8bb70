/* The autoscaler.
 *
 * Load is what asks for a slot: requests in flight plus requests waiting.  It is kept as an integral over
 * time in 60 buckets that span the stable window, so that its average over the window, and over the last
 * tenth of it (the panic window), cost a short loop and a function at rest costs half a kilobyte.  Only
 * watched time counts: a function seen for one second with 200 requests has a load of 200, not of 200/60.
 *
 * Signals, each proposes a number of replicas; the largest counts:
 *   stable   average load over the stable window / target
 *   panic    average load over the panic window / target
 *   drain    what must serve at once so that the queue empties within drain_ns at the measured time of a
 * request: depth 500 at 100 ms and concurrency 1 asks for 100 more at once where an average would take
 * seconds to notice.  Before any request was answered its time is unknown, and each waiting request is taken
 * to need its own slot.
 *   rate     arrivals per second over a quarter minute / rps, for functions that name such a target.  The
 * window is always taken whole: a rate is a habit, bursts are what the others are for. A further signal (cpu,
 * a metric of the user's) is a function in `signals` and a field of the sample.
 *
 * Panic: a proposal of twice what is ready, or anything from zero.  For one stable window from then on the
 * number does not go down, except by idleness. Down: when fewer would have been enough for down_ns, to the
 * most asked for in that time.  Idle for idle_ns with nothing inside: to min, at once. Zero: nothing is
 * ready, nothing starts and nobody waits: min.  A replica that failed is not made again for nobody.
 *
 * A pin (policy.override) holds until it is taken back.  A set number (dv_scale_set) holds for one stable
 * window, and only a queue may ask for more meanwhile.  A beginning (dv_scale_begin) is a number to start
 * with: load may ask for more at once, idleness ends it. */
#include "orchestrator/core/autoscale.h"

#include <math.h>
#include "proto/base/auto.h"
#include "proto/wire/codec.h"

#define SECOND 1000000000ull
#define MS     1000000ull

static uint64_t clamp_u64(uint64_t v, uint64_t lo, uint64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void dv_scale_policy_of(const struct dv_fn_spec *spec, int64_t override, struct dv_scale_policy *out)
{
    const struct dv_scale *sc = &spec->scale;
    *out = (struct dv_scale_policy){
        .min = sc->min,
        .max = sc->max > 0 ? sc->max : 1,
        .concurrency = sc->concurrency > 0 ? sc->concurrency : 1,
        .target = sc->target > 0 ? sc->target : 1,
        .rps = sc->rps > 0 ? sc->rps : 0,
        .override = override,
        .idle_ns = (uint64_t)(sc->idle_ms > 0 ? sc->idle_ms : 0) * MS,
        .drain_ns = 500 * MS,
    };
    out->stable_ns = clamp_u64(out->idle_ns, 10 * SECOND, 60 * SECOND);
    out->down_ns = out->stable_ns / 6;
}

/* ---- what was seen ---- */

static uint64_t bucket_ns(const struct dv_scale_policy *p)
{
    return p->stable_ns / DV_SCALE_BUCKETS;
}

static void roll_to(struct dv_scale_state *s, uint64_t bucket)
{
    uint64_t steps = bucket - s->bucket;
    if (bucket < s->bucket || steps > DV_SCALE_BUCKETS)
        steps = DV_SCALE_BUCKETS;
    for (uint64_t i = 0; i < steps; i++) {
        size_t k = (size_t)((bucket - i) % DV_SCALE_BUCKETS);
        s->load_s[k] = s->seen_s[k] = s->came[k] = 0;
    }
    s->bucket = bucket;
}

static void learn_service_time(struct dv_scale_state *s, const struct dv_scale_sample *now)
{
    if (now->answered <= s->last.answered || now->service_ns < s->last.service_ns)
        return;
    double n = (double)(now->answered - s->last.answered);
    double mean = (double)(now->service_ns - s->last.service_ns) / 1e9 / n;
    double weight = s->service_s > 0 ? n / (n + 10) : 1; /* the last ten or so requests are remembered */
    s->service_s += (mean - s->service_s) * weight;
}

/* Put the time since the last sample into its buckets, evenly. */
static void integrate(struct dv_scale_state *s, const struct dv_scale_policy *p,
                      const struct dv_scale_sample *now, uint64_t now_ns)
{
    double dt = (double)(now_ns - s->sampled_ns) / 1e9;
    double flight = now->in_flight_time - s->last.in_flight_time;
    if (flight < 0)
        flight = (double)now->in_flight * dt; /* the counters began anew */
    /* A queue is known at both ends only.  The lower counts: two requests that waited a moment each would
     * otherwise look like one that waited all the time, and what is really waiting now asks by the drain
     * signal. */
    double waited = fmin((double)s->last.waiting, (double)now->waiting) * dt;
    double rate = (flight + waited) / dt;
    double came = now->arrived > s->last.arrived ? (double)(now->arrived - s->last.arrived) / dt : 0;
    uint64_t width = bucket_ns(p), from = s->sampled_ns;
    while (from < now_ns) {
        uint64_t b = from / width, end = (b + 1) * width;
        if (end > now_ns)
            end = now_ns;
        if (b != s->bucket)
            roll_to(s, b);
        double part = (double)(end - from) / 1e9;
        s->load_s[b % DV_SCALE_BUCKETS] += (float)(rate * part);
        s->seen_s[b % DV_SCALE_BUCKETS] += (float)part;
        s->came[b % DV_SCALE_BUCKETS] += (float)(came * part);
        from = end;
    }
}

void dv_scale_observe(struct dv_scale_state *s, const struct dv_scale_policy *p,
                      const struct dv_scale_sample *now, uint64_t now_ns)
{
    bool is_fresh = s->sampled_ns == 0 || now_ns - s->sampled_ns > p->stable_ns || now_ns < s->sampled_ns;
    if (is_fresh)
        roll_to(s, now_ns / bucket_ns(p));
    else if (now_ns > s->sampled_ns)
        integrate(s, p, now, now_ns);
    learn_service_time(s, now);
    if (now->last_activity_ns > s->active_ns)
        s->active_ns = now->last_activity_ns;
    if (now->waiting + now->in_flight > 0)
        dv_scale_touch(s, now_ns);
    s->last = *now;
    s->sampled_ns = now_ns;
}

void dv_scale_touch(struct dv_scale_state *s, uint64_t now_ns)
{
    if (now_ns > s->active_ns)
        s->active_ns = now_ns;
}

static int64_t clamp(const struct dv_scale_policy *p, int64_t n)
{
    return n > p->max ? p->max : n < p->min ? p->min : n;
}

static void panic(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns)
{
    if (n > s->panic_max)
        s->panic_max = n;
    s->panic_until_ns = now_ns + p->stable_ns;
}

static void calm(struct dv_scale_state *s)
{
    s->panic_until_ns = 0;
    s->panic_max = 0;
    s->below_since_ns = 0;
    s->set_until_ns = 0;
}

void dv_scale_hold(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns)
{
    dv_scale_touch(s, now_ns);
    panic(s, p, n, now_ns);
}

void dv_scale_set(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns)
{
    calm(s);
    dv_scale_touch(s, now_ns);
    s->set_to = n;
    s->set_until_ns = now_ns + p->stable_ns;
    s->is_beginning = false;
}

void dv_scale_begin(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns)
{
    dv_scale_set(s, p, n, now_ns);
    panic(s, p, clamp(p, n), now_ns);
    s->is_beginning = true;
}

/* ---- signals ---- */

static double load_now(const struct dv_scale_state *s)
{
    return (double)s->last.waiting + (double)s->last.in_flight;
}

/* Mean load over the last n buckets; the present load while less than one bucket was watched. */
static double mean_load(const struct dv_scale_state *s, const struct dv_scale_policy *p, uint64_t n)
{
    double load = 0, seen = 0;
    for (uint64_t i = 0; i < n && i <= s->bucket; i++) {
        size_t k = (size_t)((s->bucket - i) % DV_SCALE_BUCKETS);
        load += (double)s->load_s[k];
        seen += (double)s->seen_s[k];
    }
    double width = (double)bucket_ns(p) / 1e9;
    return seen < width * 0.999 ? fmax(load_now(s), seen > 0 ? load / seen : 0) : load / seen;
}

static double stable_signal(const struct dv_scale_state *s, const struct dv_scale_policy *p)
{
    return mean_load(s, p, DV_SCALE_BUCKETS) / (double)p->target;
}

static double panic_signal(const struct dv_scale_state *s, const struct dv_scale_policy *p)
{
    return mean_load(s, p, DV_SCALE_PANIC_BUCKETS) / (double)p->target;
}

static double drain_signal(const struct dv_scale_state *s, const struct dv_scale_policy *p)
{
    double waiting = (double)s->last.waiting;
    if (waiting <= 0)
        return 0;
    double slots = waiting; /* never more than there are requests */
    if (s->service_s > 0)
        slots = fmin(waiting, waiting * s->service_s * 1e9 / (double)p->drain_ns);
    return ((double)s->last.in_flight + slots) / (double)p->concurrency;
}

static double rate_signal(const struct dv_scale_state *s, const struct dv_scale_policy *p)
{
    if (p->rps <= 0)
        return 0;
    double came = 0, width = (double)bucket_ns(p) / 1e9;
    uint64_t n = clamp_u64((15 * SECOND + bucket_ns(p) - 1) / bucket_ns(p), 1, DV_SCALE_BUCKETS);
    for (uint64_t i = 0; i < n && i <= s->bucket; i++)
        came += (double)s->came[(s->bucket - i) % DV_SCALE_BUCKETS];
    return came / ((double)n * width) / (double)p->rps;
}

enum signal_id { STABLE, PANIC, DRAIN, RATE, N_SIGNALS };

static const struct {
    const char *text;
    double (*propose)(const struct dv_scale_state *s, const struct dv_scale_policy *p);
} signals[] = {
    [STABLE] = {"mean load of the long window", stable_signal},
    [PANIC] = {"mean load of the short window", panic_signal},
    [DRAIN] = {"the queue should empty soon", drain_signal},
    [RATE] = {"requests a second", rate_signal},
};
_Static_assert(DV_COUNT(signals) == N_SIGNALS, "every signal has its row");

/* A tenth of a replica is not worth another one: samples are that coarse. */
static int64_t replicas_of(double x)
{
    return x <= 0 ? 0 : x >= 1e9 ? 1000000000 : (int64_t)ceil(x - 0.1);
}

/* ---- decision ---- */

static bool is_idle(const struct dv_scale_state *s, const struct dv_scale_policy *p, uint64_t now_ns)
{
    return load_now(s) <= 0 && now_ns - s->active_ns >= p->idle_ns;
}

static void settle(struct dv_scale_state *s, int64_t wanted, struct dv_scale_decision *out)
{
    s->current = wanted;
    out->wanted = wanted;
}

/* The number does not go down while panicking, nor before fewer was enough for a while. */
static int64_t steady(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, int64_t floor_now,
                      uint64_t now_ns, const char **why)
{
    if (now_ns < s->panic_until_ns && s->panic_max > n) {
        *why = "as many as the last burst took";
        return s->panic_max;
    }
    if (now_ns >= s->panic_until_ns)
        s->panic_max = 0;
    if (n >= floor_now) {
        s->below_since_ns = 0;
        return n;
    }
    if (s->below_since_ns == 0) {
        s->below_since_ns = now_ns;
        s->below_max = n;
    }
    if (n > s->below_max)
        s->below_max = n;
    if (now_ns - s->below_since_ns < p->down_ns) {
        *why = "waits before going down";
        return floor_now;
    }
    n = s->below_max;
    s->below_since_ns = 0;
    *why = "fewer were enough for a while";
    return n;
}

static void decide_by_load(struct dv_scale_state *s, const struct dv_scale_policy *p,
                           const struct dv_scale_seen *seen, uint64_t now_ns, struct dv_scale_decision *out)
{
    int64_t n = 1; /* in use, or used lately: one stays until idle */
    const char *why = "used lately";
    int64_t proposals[N_SIGNALS];
    for (size_t i = 0; i < N_SIGNALS; i++) {
        proposals[i] = replicas_of(signals[i].propose(s, p));
        if (proposals[i] > n || (i == 0 && proposals[i] == n)) {
            n = proposals[i];
            why = signals[i].text;
        }
    }
    int64_t burst = proposals[PANIC] > proposals[DRAIN] ? proposals[PANIC] : proposals[DRAIN];
    if (seen->ready == 0 || burst >= 2 * seen->ready)
        panic(s, p, clamp(p, n), now_ns);
    n = clamp(p, n);
    n = clamp(p, steady(s, p, n, s->current, now_ns, &why));
    settle(s, n, out);
    (void)snprintf(out->reason, sizeof(out->reason),
                   "%s: %llu waiting, %llu in flight, target %lld a replica; %s",
                   n == p->max                        ? "at its maximum"
                   : n > seen->ready + seen->starting ? "more needed"
                                                      : "enough",
                   (unsigned long long)s->last.waiting, (unsigned long long)s->last.in_flight,
                   (long long)p->target, why);
}

/* As it was set, or as a queue asked for since. */
static void decide_as_set(struct dv_scale_state *s, const struct dv_scale_policy *p,
                          struct dv_scale_decision *out)
{
    int64_t queue = replicas_of(drain_signal(s, p));
    bool is_more = queue > s->set_to && s->set_to < p->max;
    if (is_more)
        s->set_to = queue;
    s->set_to = clamp(p, s->set_to);
    settle(s, s->set_to, out);
    (void)snprintf(out->reason, sizeof(out->reason), "%s %lld%s%s",
                   s->is_beginning ? "begins with" : "set to", (long long)s->set_to,
                   s->is_beginning ? "" : " by the scale API", is_more ? ", more for a queue" : "");
}

void dv_scale_decide(struct dv_scale_state *s, const struct dv_scale_policy *p,
                     const struct dv_scale_seen *seen, uint64_t now_ns, struct dv_scale_decision *out)
{
    *out = (struct dv_scale_decision){0};
    struct dv_scale_policy free_policy = *p;
    if (p->override > 0) {
        calm(s);
        settle(s, p->override > p->max ? p->max : p->override, out);
        (void)snprintf(out->reason, sizeof(out->reason), "pinned to %lld by the scale API",
                       (long long)out->wanted);
        return;
    }
    if (p->override == 0) {
        if (s->last.waiting == 0) {
            calm(s);
            settle(s, 0, out);
            (void)snprintf(out->reason, sizeof(out->reason),
                           "put to sleep by the scale API, until the next request");
            return;
        }
        out->override_over = true;
        free_policy.override = -1;
    }
    bool nobody = seen->ready + seen->starting == 0 && s->last.waiting == 0;
    if (now_ns < s->set_until_ns && (nobody || !s->is_beginning) &&
        !(s->is_beginning && is_idle(s, p, now_ns))) {
        decide_as_set(s, p, out);
        return;
    }
    if (nobody || is_idle(s, p, now_ns)) {
        char idle[32];
        calm(s);
        settle(s, p->min, out);
        dv_format_duration((int64_t)(p->idle_ns / MS), idle);
        if (nobody)
            (void)snprintf(out->reason, sizeof(out->reason), "nobody waits, minimum is %lld",
                           (long long)p->min);
        else
            (void)snprintf(out->reason, sizeof(out->reason), "no request for %s, minimum is %lld", idle,
                           (long long)p->min);
        return;
    }
    decide_by_load(s, &free_policy, seen, now_ns, out);
}

void dv_scale_bound(struct dv_scale_decision *d, int64_t have, int64_t room)
{
    if (d->wanted <= have + room)
        return;
    int64_t asked = d->wanted;
    d->wanted = have + room;
    size_t n = strlen(d->reason);
    (void)snprintf(d->reason + n, sizeof(d->reason) - n, "; %lld asked for, %lld fit", (long long)asked,
                   (long long)d->wanted);
}

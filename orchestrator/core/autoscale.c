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
 * window is always taken whole: a rate is a habit, bursts are what the others are for.
 * Signals that are no load of the gateway (use of processors, backlog, metrics of the user's) come with the
 * call as dv_scale_ask; see signals.c.  One that has no data it may believe asks to keep what there is: that
 * never scales down, and takes nothing from the others.
 *
 * Panic: load that asks for twice what is ready (panic_threshold), or from zero.  For one stable window the
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
    out->stable_ns =
        sc->window_ms > 0 ? (uint64_t)sc->window_ms * MS : clamp_u64(out->idle_ns, 10 * SECOND, 60 * SECOND);
    out->down_ns = sc->down_ms > 0 ? (uint64_t)sc->down_ms * MS : out->stable_ns / 6;
    int64_t panic_percent = sc->panic_window > 0 ? sc->panic_window : 10;
    out->panic_buckets =
        (uint16_t)clamp_u64((uint64_t)(panic_percent * DV_SCALE_BUCKETS + 50) / 100, 1, DV_SCALE_BUCKETS);
    out->panic_threshold = (uint16_t)(sc->panic_threshold > 0 ? sc->panic_threshold : 200);
    out->up_rate = (uint16_t)sc->up_rate;
    out->down_rate = (uint16_t)sc->down_rate;
    out->cpu = (uint16_t)sc->cpu;
    out->memory = (uint16_t)sc->memory;
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

double dv_scale_service_s(const struct dv_scale_state *s)
{
    return (double)s->service_s;
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
    return mean_load(s, p, p->panic_buckets) / (double)p->target;
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

static const struct {
    const char *text;
    double (*propose)(const struct dv_scale_state *s, const struct dv_scale_policy *p);
} signals[] = {
    [DV_SIG_STABLE] = {"mean load of the long window", stable_signal},
    [DV_SIG_PANIC] = {"mean load of the short window", panic_signal},
    [DV_SIG_DRAIN] = {"the queue should empty soon", drain_signal},
    [DV_SIG_RATE] = {"requests a second", rate_signal},
};
_Static_assert(DV_COUNT(signals) == DV_SIG_N_OWN, "every signal has its row");

static const char *const signal_names[] = {
    [DV_SIG_STABLE] = "stable", [DV_SIG_PANIC] = "panic",     [DV_SIG_DRAIN] = "queue",
    [DV_SIG_RATE] = "rps",      [DV_SIG_BACKLOG] = "backlog", [DV_SIG_CPU] = "cpu",
    [DV_SIG_MEMORY] = "memory", [DV_SIG_METRIC] = "metric",   [DV_SIG_USED] = "used",
    [DV_SIG_BURST] = "burst",   [DV_SIG_WAITS] = "waits",     [DV_SIG_MINIMUM] = "minimum",
    [DV_SIG_AHEAD] = "ahead",   [DV_SIG_IDLE] = "idle",       [DV_SIG_SET] = "set",
    [DV_SIG_PINNED] = "pinned",
};
_Static_assert(DV_COUNT(signal_names) == DV_SIG_N, "every signal has its name");

const char *dv_scale_signal_name(enum dv_scale_signal s)
{
    return (unsigned)s < DV_SIG_N ? signal_names[s] : "unknown";
}

/* Samples are that coarse. */
int64_t dv_scale_replicas_of(double x)
{
    return x <= 0 ? 0 : x >= 1e9 ? 1000000000 : (int64_t)ceil(x - 0.1);
}

/* ---- decision ---- */

static bool is_idle(const struct dv_scale_state *s, const struct dv_scale_policy *p, uint64_t now_ns)
{
    return load_now(s) <= 0 && now_ns - s->active_ns >= p->idle_ns;
}

static void settle(struct dv_scale_state *s, int64_t wanted, enum dv_scale_signal by,
                   struct dv_scale_decision *out)
{
    s->current = wanted;
    out->wanted = out->needed = wanted;
    out->signal = (uint8_t)by;
}

void dv_scale_own(const struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t out[DV_SIG_N_OWN])
{
    for (size_t i = 0; i < DV_SIG_N_OWN; i++)
        out[i] = dv_scale_replicas_of(signals[i].propose(s, p));
}

struct winner {
    enum dv_scale_signal signal;
    const char *why;
    bool says_all; /* why needs no numbers beside it */
};

/* The number does not go down while panicking, nor before fewer was enough for a while. */
static int64_t steady(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, int64_t floor_now,
                      uint64_t now_ns, struct winner *w)
{
    if (now_ns < s->panic_until_ns && s->panic_max > n) {
        *w = (struct winner){DV_SIG_BURST, "as many as the last burst took", false};
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
        *w = (struct winner){DV_SIG_WAITS, "waits before going down", false};
        return floor_now;
    }
    n = s->below_max;
    s->below_since_ns = 0;
    if (p->down_rate && n < floor_now / p->down_rate)
        n = floor_now / p->down_rate;
    if (w->signal < DV_SIG_N_OWN || w->signal == DV_SIG_USED)
        w->why = "fewer were enough for a while";
    return n;
}

/* At once, no more than up_rate times what is ready; what was asked for already stays. */
static int64_t hold_back(const struct dv_scale_state *s, const struct dv_scale_policy *p,
                         const struct dv_scale_seen *seen, int64_t n)
{
    int64_t cap = (seen->ready > 1 ? seen->ready : 1) * (int64_t)p->up_rate;
    if (p->up_rate == 0 || n <= cap)
        return n;
    int64_t have = n < s->current ? n : s->current;
    return have > cap ? have : cap;
}

static int64_t what_there_is(const struct dv_scale_state *s, const struct dv_scale_seen *seen)
{
    return s->current > 0 ? s->current : seen->ready;
}

static int64_t hear_asks(const struct dv_scale_state *s, const struct dv_scale_seen *seen, int64_t n,
                         struct winner *w)
{
    for (size_t i = 0; i < seen->n_asks; i++) {
        const struct dv_scale_ask *a = &seen->asks[i];
        int64_t asked = a->is_hold ? what_there_is(s, seen) : a->replicas;
        if (asked <= n)
            continue;
        n = asked;
        *w = (struct winner){a->signal, a->text, true};
    }
    return n;
}

static void decide_by_load(struct dv_scale_state *s, const struct dv_scale_policy *p,
                           const struct dv_scale_seen *seen, uint64_t now_ns, struct dv_scale_decision *out)
{
    int64_t n = 1; /* in use, or used lately: one stays until idle */
    struct winner w = {DV_SIG_USED, "used lately", false};
    int64_t own[DV_SIG_N_OWN];
    dv_scale_own(s, p, own);
    for (unsigned i = 0; i < DV_SIG_N_OWN; i++)
        if (own[i] > n || (i == 0 && own[i] == n)) {
            n = own[i];
            w = (struct winner){(enum dv_scale_signal)i, signals[i].text, false};
        }
    int64_t burst = own[DV_SIG_PANIC] > own[DV_SIG_DRAIN] ? own[DV_SIG_PANIC] : own[DV_SIG_DRAIN];
    n = hold_back(s, p, seen, n);
    if (seen->ready == 0 || burst * 100 >= p->panic_threshold * seen->ready)
        panic(s, p, clamp(p, n), now_ns);
    n = hold_back(s, p, seen, hear_asks(s, seen, n, &w));
    if (n < p->min)
        w = (struct winner){DV_SIG_MINIMUM, p->is_scheduled ? "its minimum by schedule" : "its minimum",
                            false};
    int64_t needed = n = clamp(p, n);
    n = clamp(p, steady(s, p, n, s->current, now_ns, &w));
    settle(s, n, w.signal, out);
    out->needed = needed < n ? needed : n;
    const char *verdict = needed == p->max                        ? "at its maximum"
                          : needed > seen->ready + seen->starting ? "more needed"
                                                                  : "enough";
    if (w.says_all)
        (void)snprintf(out->reason, sizeof(out->reason), "%s: %s", verdict, w.why);
    else
        (void)snprintf(out->reason, sizeof(out->reason),
                       "%s: %llu waiting, %llu in flight, target %lld a replica; %s", verdict,
                       (unsigned long long)s->last.waiting, (unsigned long long)s->last.in_flight,
                       (long long)p->target, w.why);
}

/* Is it in use by what the gateway does not see?  Then it is not idle; nor while nobody can say. */
static bool listen_for_use(struct dv_scale_state *s, const struct dv_scale_seen *seen, uint64_t now_ns)
{
    bool is_active = false, is_kept = false;
    for (size_t i = 0; i < seen->n_asks; i++) {
        const struct dv_scale_ask *a = &seen->asks[i];
        is_active |= a->is_active && !a->is_hold;
        is_kept |= a->keeps_awake && seen->ready + seen->starting > 0;
    }
    if (is_active || is_kept)
        dv_scale_touch(s, now_ns);
    return is_active;
}

/* As it was set, or as a queue asked for since. */
static void decide_as_set(struct dv_scale_state *s, const struct dv_scale_policy *p,
                          struct dv_scale_decision *out)
{
    int64_t queue = dv_scale_replicas_of(drain_signal(s, p));
    bool is_more = queue > s->set_to && s->set_to < p->max;
    if (is_more)
        s->set_to = queue;
    s->set_to = clamp(p, s->set_to);
    settle(s, s->set_to, DV_SIG_SET, out);
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
        settle(s, p->override > p->max ? p->max : p->override, DV_SIG_PINNED, out);
        (void)snprintf(out->reason, sizeof(out->reason), "pinned to %lld by the scale API",
                       (long long)out->wanted);
        return;
    }
    if (p->override == 0) {
        if (s->last.waiting == 0) {
            calm(s);
            settle(s, 0, DV_SIG_PINNED, out);
            (void)snprintf(out->reason, sizeof(out->reason),
                           "put to sleep by the scale API, until the next request");
            return;
        }
        out->override_over = true;
        free_policy.override = -1;
    }
    bool is_used = listen_for_use(s, seen, now_ns);
    bool nobody = seen->ready + seen->starting == 0 && s->last.waiting == 0 && !is_used;
    if (now_ns < s->set_until_ns && (nobody || !s->is_beginning) &&
        !(s->is_beginning && is_idle(s, p, now_ns))) {
        decide_as_set(s, p, out);
        return;
    }
    if (nobody || is_idle(s, p, now_ns)) {
        char idle[32];
        calm(s);
        settle(s, p->min, p->min > 0 && p->is_scheduled ? DV_SIG_MINIMUM : DV_SIG_IDLE, out);
        dv_format_duration((int64_t)(p->idle_ns / MS), idle);
        (void)snprintf(out->reason, sizeof(out->reason), "%s%s, minimum is %lld%s",
                       nobody ? "nobody waits" : "no request for ", nobody ? "" : idle, (long long)p->min,
                       p->is_scheduled ? " by schedule" : "");
        return;
    }
    decide_by_load(s, &free_policy, seen, now_ns, out);
}

void dv_scale_keep(struct dv_scale_decision *d, int64_t have)
{
    int64_t kept = have > d->needed ? have : d->needed;
    if (d->wanted > kept)
        d->wanted = kept;
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

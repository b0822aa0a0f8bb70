/* How many replicas a function should have: one decision per function, pure.  Any thread; one owner per
 * state.
 *
 * Feed it what the gateway counts (dv_scale_observe), then ask (dv_scale_decide).  Each signal proposes a
 * number of replicas; the largest proposal counts.  See autoscale.c for the signals and how to add one. */
#ifndef DV_AUTOSCALE_H
#define DV_AUTOSCALE_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/wire/types.h"

enum { DV_SCALE_BUCKETS = 60 };

/* What asks for replicas, or decides without being asked. */
enum dv_scale_signal {
    /* from the load of the gateway */
    DV_SIG_STABLE,
    DV_SIG_PANIC,
    DV_SIG_DRAIN,
    DV_SIG_RATE,
    DV_SIG_N_OWN,
    /* struct dv_scale_ask */
    DV_SIG_BACKLOG = DV_SIG_N_OWN,
    DV_SIG_CPU,
    DV_SIG_MEMORY,
    DV_SIG_METRIC,
    /* what else a decision may rest on */
    DV_SIG_USED,
    DV_SIG_BURST,
    DV_SIG_WAITS,
    DV_SIG_MINIMUM,
    DV_SIG_IDLE,
    DV_SIG_AHEAD, /* of a request that is expected */
    DV_SIG_SET,
    DV_SIG_PINNED,
    DV_SIG_N
};
const char *dv_scale_signal_name(enum dv_scale_signal s); /* "stable" ... "pinned" */

struct dv_scale_policy { /* a function's settings */
    int64_t min, max, concurrency, target;
    int64_t rps;      /* arrivals a second that one replica should get; 0: not looked at */
    int64_t override; /* replicas pinned by the scale API; -1: none; 0: asleep until somebody waits */
    uint64_t idle_ns;
    uint64_t stable_ns;          /* long window */
    uint64_t drain_ns;           /* a queue should be empty within this */
    uint64_t down_ns;            /* fewer must have been enough for this long */
    uint16_t panic_buckets;      /* of DV_SCALE_BUCKETS: the short window */
    uint16_t panic_threshold;    /* percent of what is ready */
    uint16_t up_rate, down_rate; /* 0: no bound */
    uint16_t cpu, memory;        /* percent; 0: not looked at */
    bool is_scheduled;           /* min is what a window of the schedule asks for */
};
/* Of a spec as it works (dv_fn_spec_resolved).  Windows follow `idle`: whoever wants it down soon gets short
 * memories. */
void dv_scale_policy_of(const struct dv_fn_spec *spec, int64_t override, struct dv_scale_policy *out);

struct dv_scale_sample { /* counters since ever, and what is so now */
    uint64_t arrived, answered, service_ns;
    double in_flight_time; /* integral of in-flight over seconds */
    uint64_t waiting, in_flight;
    uint64_t oldest_wait_ns;
    uint64_t last_activity_ns; /* monotonic; 0: never */
};

struct dv_scale_state {             /* zero to begin */
    float load_s[DV_SCALE_BUCKETS]; /* integral of (in flight + waiting) over the bucket's seconds */
    float seen_s[DV_SCALE_BUCKETS]; /* how much of the bucket was watched */
    float came[DV_SCALE_BUCKETS];   /* requests that arrived in it */
    uint64_t bucket;                /* number of the newest bucket since the epoch of the clock */
    uint64_t sampled_ns;            /* 0: not yet */
    struct dv_scale_sample last;
    double service_s;   /* mean time of a request inside a replica; 0: not known yet */
    uint64_t active_ns; /* last sign of use, or the beginning */
    uint64_t panic_until_ns;
    int64_t panic_max;       /* does not go below while panicking */
    uint64_t below_since_ns; /* fewer than current would do since; 0: no */
    int64_t below_max;       /* the most that was asked for since then */
    int64_t current;         /* last decision */
    uint64_t set_until_ns;   /* somebody set the number: it stays until then; 0: nobody did */
    int64_t set_to;
    bool is_beginning; /* set_to is where a new function starts */
};

/* What a signal beside the gateway's load asks for: use of processors, a metric of the user's. */
struct dv_scale_ask {
    enum dv_scale_signal signal;
    uint8_t index;    /* of the metric */
    bool is_active;   /* it is in use, whatever the requests say: wakes it, and it is not idle */
    bool is_hold;     /* nothing is known that may be believed: what there is stays */
    bool keeps_awake; /* nobody can say that it is idle: it does not fall asleep either */
    int64_t replicas;
    const char *text; /* for a person; borrowed for the call */
};

struct dv_scale_seen {
    int64_t ready;    /* take requests now, those of an older generation too */
    int64_t starting; /* will */
    const struct dv_scale_ask *asks;
    size_t n_asks;
};

struct dv_scale_decision {
    int64_t wanted;
    int64_t needed;     /* of these; the rest is kept out of patience, and not made when it is not there */
    bool override_over; /* the function was put to sleep and somebody waits: the override is spent */
    uint8_t signal;     /* enum dv_scale_signal: what it rests on */
    char reason[160];   /* for a person */
};

void dv_scale_observe(struct dv_scale_state *s, const struct dv_scale_policy *p,
                      const struct dv_scale_sample *now, uint64_t now_ns);
/* Somebody uses the function right now, whatever the counters say. */
void dv_scale_touch(struct dv_scale_state *s, uint64_t now_ns);
/* Keep at least n for a stable window: after a restart what runs is taken to be needed until learned
 * otherwise. */
void dv_scale_hold(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns);
/* The number is n from now on, for a stable window: neither averages nor idleness move it, only a queue that
 * needs more. */
void dv_scale_set(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns);
/* A new function starts with n, even when its minimum is lower: for a stable window, or until it was idle.
 * Load may ask for more at once. */
void dv_scale_begin(struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t n, uint64_t now_ns);
void dv_scale_decide(struct dv_scale_state *s, const struct dv_scale_policy *p,
                     const struct dv_scale_seen *seen, uint64_t now_ns, struct dv_scale_decision *out);
/* Mean time of a request inside a replica; 0: not known yet. */
double dv_scale_service_s(const struct dv_scale_state *s);
/* What the gateway's load asks for by itself, before minimum, maximum and patience. */
void dv_scale_own(const struct dv_scale_state *s, const struct dv_scale_policy *p, int64_t out[DV_SIG_N_OWN]);
/* Replicas that a measure of x replicas' worth means: a tenth of one is not worth another. */
int64_t dv_scale_replicas_of(double x);
/* `have` exist or are being made: more than these are wanted only as far as they are needed. */
void dv_scale_keep(struct dv_scale_decision *d, int64_t have);
/* Cut a decision to what can be had: `have` exist or are being made, `room` more fit. */
void dv_scale_bound(struct dv_scale_decision *d, int64_t have, int64_t room);

#endif

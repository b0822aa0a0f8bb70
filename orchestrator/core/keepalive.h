/* How long a function that has gone idle keeps what it has, and when something is made ready ahead of its
 * next request.  Pure; any thread; one owner per history.
 *
 * The hybrid histogram policy of M. Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing
 * the Serverless Workload at a Large Cloud Provider" (USENIX ATC 2020, section 4), with tiers: where a primed
 * sandbox can stand in for a replica, it does for the long part of a wait.  keepalive.c says what differs
 * from the paper and why. */
#ifndef DV_KEEPALIVE_H
#define DV_KEEPALIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DV_KEEP_FINE = 6,     /* bins of 10 s: the first minute */
    DV_KEEP_MINUTES = 59, /* of a minute: the first hour */
    DV_KEEP_COARSE = 36,  /* of five minutes: to four hours */
    DV_KEEP_BINS = DV_KEEP_FINE + DV_KEEP_MINUTES + DV_KEEP_COARSE,
    DV_KEEP_RECENT = 8
};

#define DV_KEEP_IGNORED_NS 10000000000ull      /* gaps below are no gaps: no policy gives up that soon */
#define DV_KEEP_RANGE_NS   (14400000000000ull) /* four hours; longer gaps are beyond the histogram */

/* What was seen of one function's gaps, from the end of the last request to the next one.  Zero to begin. */
struct dv_keep_history {
    uint16_t weight[DV_KEEP_BINS]; /* gaps, in 64ths: halving forgets slowly */
    uint16_t beyond;               /* those past the range, likewise */
    uint16_t total;                /* of all of these */
    uint8_t n_recent;
    uint32_t recent_s[DV_KEEP_RECENT]; /* the last gaps, oldest first */
    uint32_t seen;                     /* gaps since ever, or since the pattern changed */
};
_Static_assert(sizeof(struct dv_keep_history) <= 512, "a hundred thousand functions keep one each");

struct dv_keep_cfg {           /* zero: the default stands behind */
    bool is_fixed;             /* no history is looked at */
    uint64_t floor_ns;         /* 10 s: a replica is kept at least so long */
    uint64_t warm_max_ns;      /* 10 min: and no longer, where a primed sandbox can do the rest */
    uint32_t min_gaps;         /* 4: fewer are too few to know */
    uint64_t own_start_max_ns; /* 250 ms: a function that itself takes longer to start is not helped by a
                                  sandbox; a whole replica is started ahead */
};

struct dv_keep_fn {        /* of the function */
    bool is_pinned;        /* its user gave scale.idle */
    bool has_minimum;      /* its replicas never go below scale.min */
    bool has_place;        /* primed sandboxes can be kept for it */
    uint64_t idle_ns;      /* scale.idle, or what the cluster has in its place */
    uint64_t own_start_ns; /* from its program's start to its first answer; 0: not known */
};

enum dv_keep_basis {
    DV_KEEP_OFF,         /* the orchestrator keeps fixed times */
    DV_KEEP_PINNED,      /* the user gave the time */
    DV_KEEP_MINIMUM,     /* the user keeps replicas anyway */
    DV_KEEP_THIN,        /* fixed: too few gaps were seen */
    DV_KEEP_PATTERNLESS, /* fixed: the gaps seen say nothing */
    DV_KEEP_HISTOGRAM,
    DV_KEEP_FORECAST, /* long regular gaps */
    DV_KEEP_N_BASES
};

enum dv_keep_ahead { DV_KEEP_NOTHING, DV_KEEP_PLACE, DV_KEEP_REPLICA };

/* Times count from the last sign of use. */
struct dv_keep_plan {
    enum dv_keep_basis basis;
    enum dv_keep_ahead ahead;
    bool by_the_clock; /* the next request is expected within a narrow time: others may come with it */
    uint64_t idle_ns;  /* a replica is kept (warm, then frozen) so long */
    uint64_t from_ns;  /* what is made ready ahead, is so from then on */
    uint64_t until_ns; /* until then; later nothing is */
    uint64_t least_ns, most_ns; /* gaps expected: the 5th and 99th percentile, or the forecast */
    uint32_t seen;
};

/* A gap ended: a request came after so long.  Short ones are left out. */
void dv_keep_gap(struct dv_keep_history *h, uint64_t gap_ns);
/* h: NULL when there is none. */
void dv_keep_plan(const struct dv_keep_history *h, const struct dv_keep_cfg *cfg, const struct dv_keep_fn *fn,
                  struct dv_keep_plan *out);
/* "kept 10m, then a primed sandbox until 22m: gaps of 1m to 20m, 43 seen" */
void dv_keep_explain(const struct dv_keep_plan *p, char *out, size_t cap);
const char *dv_keep_basis_name(enum dv_keep_basis b); /* "histogram" ... */
const char *dv_keep_ahead_name(enum dv_keep_ahead a); /* "nothing" "primed" "replica" */

#endif

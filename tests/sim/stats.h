/* What a run cost and how long requests waited. */
#ifndef DV_SIM_STATS_H
#define DV_SIM_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { SIM_HIST_BUCKETS = 64 * 16 };

struct sim_hist { /* nanoseconds; buckets of a sixteenth of an octave: 4 % apart */
    uint64_t n, bucket[SIM_HIST_BUCKETS];
};
void sim_hist_add(struct sim_hist *h, uint64_t ns);
double sim_hist_ms(const struct sim_hist *h,
                   double q); /* the upper edge of the quantile's bucket; 0: no wait */

enum sim_how {                 /* how a request came to its slot */
               SIM_HOW_WARM,   /* at once */
               SIM_HOW_FROZEN, /* at once, thawed first */
               SIM_HOW_QUEUED, /* waited for a replica that was there before it came */
               SIM_HOW_PRIMED, /* waited for a primed sandbox to be opened */
               SIM_HOW_COLD,   /* waited for a container to be made */
               SIM_HOW_N
};

struct sim_stats {
    uint64_t arrived, how[SIM_HOW_N];
    uint64_t lost, refused; /* with its replica; function failing or queue full */
    struct sim_hist wait;
    uint64_t containers;            /* made for a function (cold), */
    uint64_t opened;                /* primed sandboxes opened, */
    uint64_t primed;                /* primed sandboxes made */
    double replica_s, replica_gb_s; /* of replicas: from the start command until nothing of it is left */
    double primed_s;                /* sandboxes x seconds */
    double primed_replica_s, primed_gb_s; /* the same as a share of a replica, and in memory */
    double wall_s;
};

struct sim_figures { /* one line of the table */
    double cold_share, primed_share, queued_share, p50_ms, p99_ms, p999_ms;
    double replica_s, gb_s, containers, opened, requests, lost, refused, wall_s;
    double cold;
};
void sim_figures_of(const struct sim_stats *st, struct sim_figures *out);

#endif

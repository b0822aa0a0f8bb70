/* Figures of several runs: medians over the seeds, with the least and the most. */
#ifndef DV_SIM_REPORT_H
#define DV_SIM_REPORT_H

#include "tests/sim/stats.h"

enum { SIM_SEEDS_MAX = 32 };

struct sim_row { /* one system under one load */
    const char *load, *system;
    struct sim_figures runs[SIM_SEEDS_MAX];
    size_t n;
};

struct sim_spread {
    double median, least, most;
};
/* Of the runs of a row, the value at this offset of struct sim_figures. */
struct sim_spread sim_spread_of(const struct sim_row *row, size_t offset);
/* The same of the ratio of two rows, run by run. */
struct sim_spread sim_ratio_of(const struct sim_row *a, const struct sim_row *b, size_t offset);

void sim_print_table(const struct sim_row *rows, size_t n, FILE *out);
void sim_print_json(const struct sim_row *rows, size_t n, FILE *out);

#endif

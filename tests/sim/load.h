/* What a simulation is loaded with.  Each fills in functions with their streams of requests. */
#ifndef DV_SIM_LOAD_H
#define DV_SIM_LOAD_H

#include "tests/sim/sim.h"

/* ---- azure.c: the distributions published with the Azure Functions 2019 trace ---- */
struct sim_azure {
    size_t n_fns;
    double clip_per_day; /* no function has more requests a day; 0: none is clipped */
    double longest_s;    /* no request takes longer on average */
    int n_images;        /* runtimes that the functions share */
    int64_t concurrency;
};
struct sim_azure_draw {
    double per_day, mean_s, memory_mb, cv;
    bool is_timer;
    double period_s; /* of a timer */
};
void sim_azure_draw(struct dv_rng *rng, struct sim_azure_draw *out);
double sim_azure_rate(double u);      /* requests a day of the quantile u */
double sim_azure_memory_mb(double u); /* likewise */
void sim_azure_load(struct sim *s, const struct sim_azure *p);

/* ---- trace.c: published CSV files ---- */
/* invocations.csv, durations.csv and memory.csv of `dir`, as the Azure Functions 2019 data set has them (any
 * of the last two may be missing).  The number of functions; -1: cannot be read, with the reason on stderr.
 */
int sim_trace_2019(struct sim *s, const char *dir, int n_images);
/* app,func,end_timestamp,duration: the 2021 data set. */
int sim_trace_2021(struct sim *s, const char *file, int n_images);

/* ---- shapes.c ---- */
struct sim_shape {
    const char *name, *what;
    double (*profile)(double t_s); /* share of the peak at that time, 0 to 1 */
};
extern const struct sim_shape sim_shapes[];
extern const size_t sim_n_shapes;
/* Eight functions with times of 50 ms to 1 s and concurrency 1 and 10, at most `peak` requests at once in
 * each. */
void sim_shape_load(struct sim *s, const struct sim_shape *shape, double peak);

/* The image number i of n that functions share. */
void sim_image(struct sim_fn *f, int i);

#endif

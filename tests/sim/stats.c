#include "tests/sim/stats.h"

#include "tests/sim/sim.h"

static size_t bucket_of(uint64_t ns)
{
    if (ns < 16)
        return (size_t)ns;
    int octave = 63 - __builtin_clzll(ns);
    return (size_t)(octave - 3) * 16 + (size_t)((ns >> (octave - 4)) & 15);
}

static uint64_t upper_edge(size_t bucket)
{
    if (bucket < 16)
        return bucket;
    uint64_t octave = bucket / 16 + 3, part = bucket % 16;
    return (16 + part + 1) << (octave - 4);
}

void sim_hist_add(struct sim_hist *h, uint64_t ns)
{
    h->n++;
    h->bucket[bucket_of(ns)]++;
}

double sim_hist_ms(const struct sim_hist *h, double q)
{
    uint64_t seen = 0, want = (uint64_t)(q * (double)h->n);
    for (size_t i = 0; i < SIM_HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > want)
            return i == 0 ? 0 : (double)upper_edge(i) / 1e6;
    }
    return 0;
}

void sim_figures_of(const struct sim_stats *st, struct sim_figures *out)
{
    double served = 0;
    for (int i = 0; i < SIM_HOW_N; i++)
        served += (double)st->how[i];
    double per = served > 0 ? 1 / served : 0;
    *out = (struct sim_figures){
        .cold = (double)st->how[SIM_HOW_COLD],
        .cold_share = (double)st->how[SIM_HOW_COLD] * per,
        .primed_share = (double)st->how[SIM_HOW_PRIMED] * per,
        .queued_share = (double)st->how[SIM_HOW_QUEUED] * per,
        .p50_ms = sim_hist_ms(&st->wait, 0.50),
        .p99_ms = sim_hist_ms(&st->wait, 0.99),
        .p999_ms = sim_hist_ms(&st->wait, 0.999),
        .replica_s = st->replica_s + st->primed_replica_s,
        .gb_s = st->replica_gb_s + st->primed_gb_s,
        .containers = (double)st->containers,
        .opened = (double)st->opened,
        .requests = (double)st->arrived,
        .lost = (double)st->lost,
        .refused = (double)st->refused,
        .wall_s = st->wall_s,
    };
}

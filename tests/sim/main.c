/* davit-sim: see tests/sim/README.md, or --help. */
#include <getopt.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "tests/sim/load.h"
#include "tests/sim/report.h"

struct options {
    struct sim_cfg cfg;
    struct sim_azure azure;
    double days, minutes, peak;
    size_t n_seeds;
    uint64_t first_seed;
    bool is_json, does_azure, does_shapes;
    const char *only_shape, *only_system, *trace_2019, *trace_2021;
};

static const char help[] =
    "davit-sim: Davit's own decisions against two published policies, on a clock that jumps\n"
    "  --azure           a day of functions drawn from the published Azure Functions distributions\n"
    "  --shapes[=NAME]   steps, ramps, spikes, bursts, sawtooth: an hour each\n"
    "  --trace-2019=DIR  invocations.csv, durations.csv, memory.csv of the Azure Functions 2019 data set\n"
    "  --trace-2021=FILE app,func,end_timestamp,duration\n"
    "                    (none of these: --azure --shapes)\n"
    "  --fns=N --days=D --clip=CALLS_A_DAY --images=N --concurrency=N       of --azure\n"
    "  --minutes=M --peak=N                                               of --shapes\n"
    "  --seeds=N --seed=FIRST   medians over N runs (3, from 1)\n"
    "  --system=NAME     one of them only: davit, davit-alone (without primed sandboxes and ready networks), "
    "fixed,\n"
    "                    knative\n"
    "  --nodes=N --own-start=MS --cold=MS --net=MS --primed=MS --tick=MS\n"
    "  --idle=MS --down=MS --ask-primed=N   of Davit: the cluster's idle time, scale.down and scale.primed "
    "of each\n"
    "                    function; its defaults otherwise\n"
    "  --json\n";

struct contender {
    const char *name;
    const struct sim_sys_ops *ops;
    bool has_tiers;
};

static const struct contender contenders[] = {
    {"davit", &sim_davit, true},
    {"davit-alone", &sim_davit, false},
    {"fixed", &sim_fixed, false},
    {"knative", &sim_kpa, false},
};

typedef int load(struct sim *s, const void *what, const struct options *o);

static double wall_s(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run_one(const struct options *o, const struct contender *who, load *fill, const void *what,
                   double length_s, uint64_t seed, struct sim_figures *out)
{
    struct sim_cfg cfg = o->cfg;
    cfg.seed = seed;
    if (!who->has_tiers) {
        cfg.nets_per_node = 0;
        cfg.has_pools = false;
    }
    double began = wall_s();
    struct sim *s = sim_new(&cfg, who->ops);
    int rc = fill(s, what, o);
    if (rc >= 0) {
        sim_run(s, s->now + (uint64_t)(length_s * 1e9));
        sim_settle(s);
        s->stats.wall_s = wall_s() - began;
        sim_figures_of(&s->stats, out);
    }
    sim_free(s);
    return rc;
}

struct table {
    struct sim_row rows[64];
    size_t n;
};

static int run_load(const struct options *o, const char *name, load *fill, const void *what, double length_s,
                    struct table *t)
{
    for (size_t i = 0; i < DV_COUNT(contenders); i++) {
        const struct contender *who = &contenders[i];
        if (o->only_system && strcmp(o->only_system, who->name) != 0)
            continue;
        struct sim_row *row = &t->rows[t->n++];
        *row = (struct sim_row){.load = name, .system = who->name};
        for (size_t k = 0; k < o->n_seeds; k++) {
            if (run_one(o, who, fill, what, length_s, o->first_seed + k, &row->runs[row->n++]) < 0)
                return 1;
            if (!o->is_json && isatty(2))
                fprintf(stderr, "\r%s, %s, seed %llu done   ", name, who->name,
                        (unsigned long long)(o->first_seed + k));
        }
    }
    if (!o->is_json && isatty(2))
        fputs("\r                                                  \r", stderr);
    return 0;
}

static int fill_azure(struct sim *s, const void *what, const struct options *o)
{
    (void)what;
    sim_azure_load(s, &o->azure);
    return 0;
}

static int fill_shape(struct sim *s, const void *what, const struct options *o)
{
    sim_shape_load(s, what, o->peak);
    return 0;
}

static int fill_2019(struct sim *s, const void *what, const struct options *o)
{
    return sim_trace_2019(s, what, o->azure.n_images);
}

static int fill_2021(struct sim *s, const void *what, const struct options *o)
{
    return sim_trace_2021(s, what, o->azure.n_images);
}

static int run_shapes(const struct options *o, struct table *t)
{
    struct options own = *o;
    if (!own.cfg.tick_ns)
        own.cfg.tick_ns = 0; /* as often as the core asks */
    bool is_found = false;
    for (size_t i = 0; i < sim_n_shapes; i++) {
        if (o->only_shape && strcmp(o->only_shape, sim_shapes[i].name) != 0)
            continue;
        is_found = true;
        if (run_load(&own, sim_shapes[i].name, fill_shape, &sim_shapes[i], o->minutes * 60, t))
            return 1;
    }
    if (!is_found)
        fprintf(stderr, "there is no shape \"%s\"\n", o->only_shape);
    return !is_found;
}

/* A day's figures do not need ten decisions a second; to decide less often is to Davit's disadvantage. */
static struct options long_run(const struct options *o)
{
    struct options own = *o;
    if (!own.cfg.tick_ns)
        own.cfg.tick_ns = SIM_S;
    own.cfg.full_report_ns = 60 * SIM_S;
    return own;
}

static int run_all(const struct options *o, struct table *t)
{
    struct options own = long_run(o);
    double day_s = o->days * SIM_DAY_S;
    if (o->trace_2019 && run_load(&own, "trace-2019", fill_2019, o->trace_2019, day_s, t))
        return 1;
    if (o->trace_2021 && run_load(&own, "trace-2021", fill_2021, o->trace_2021, day_s, t))
        return 1;
    if (o->does_azure && run_load(&own, "azure", fill_azure, NULL, day_s, t))
        return 1;
    return o->does_shapes ? run_shapes(o, t) : 0;
}

enum {
    O_AZURE = 256,
    O_SHAPES,
    O_2019,
    O_2021,
    O_FNS,
    O_DAYS,
    O_CLIP,
    O_IMAGES,
    O_CONCURRENCY,
    O_MINUTES,
    O_PEAK,
    O_SEEDS,
    O_SEED,
    O_SYSTEM,
    O_NODES,
    O_OWN,
    O_COLD,
    O_NET,
    O_PRIMED,
    O_TICK,
    O_JSON,
    O_IDLE,
    O_DOWN,
    O_ASK,
    O_HELP
};
static const struct option longs[] = {
    {"azure", no_argument, NULL, O_AZURE},
    {"shapes", optional_argument, NULL, O_SHAPES},
    {"trace-2019", required_argument, NULL, O_2019},
    {"trace-2021", required_argument, NULL, O_2021},
    {"fns", required_argument, NULL, O_FNS},
    {"days", required_argument, NULL, O_DAYS},
    {"clip", required_argument, NULL, O_CLIP},
    {"images", required_argument, NULL, O_IMAGES},
    {"concurrency", required_argument, NULL, O_CONCURRENCY},
    {"minutes", required_argument, NULL, O_MINUTES},
    {"peak", required_argument, NULL, O_PEAK},
    {"seeds", required_argument, NULL, O_SEEDS},
    {"seed", required_argument, NULL, O_SEED},
    {"system", required_argument, NULL, O_SYSTEM},
    {"nodes", required_argument, NULL, O_NODES},
    {"own-start", required_argument, NULL, O_OWN},
    {"cold", required_argument, NULL, O_COLD},
    {"net", required_argument, NULL, O_NET},
    {"primed", required_argument, NULL, O_PRIMED},
    {"tick", required_argument, NULL, O_TICK},
    {"json", no_argument, NULL, O_JSON},
    {"idle", required_argument, NULL, O_IDLE},
    {"down", required_argument, NULL, O_DOWN},
    {"ask-primed", required_argument, NULL, O_ASK},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static double number(const char *text, double least, double most)
{
    double x;
    if (!dv_parse_double(dv_sv_c(text), &x) || x < least || x > most) {
        fprintf(stderr, "\"%s\" is no number from %g to %g\n", text, least, most);
        exit(2);
    }
    return x;
}

static void take(struct options *o, int c)
{
    switch (c) {
    case O_AZURE:
        o->does_azure = true;
        break;
    case O_SHAPES:
        o->does_shapes = true;
        o->only_shape = optarg;
        break;
    case O_2019:
        o->trace_2019 = optarg;
        break;
    case O_2021:
        o->trace_2021 = optarg;
        break;
    case O_FNS:
        o->azure.n_fns = (size_t)number(optarg, 1, 1e6);
        break;
    case O_DAYS:
        o->days = number(optarg, 0.001, 30);
        break;
    case O_CLIP:
        o->azure.clip_per_day = number(optarg, 0, 1e9);
        break;
    case O_IMAGES:
        o->azure.n_images = (int)number(optarg, 1, SIM_IMAGES_MAX);
        break;
    case O_CONCURRENCY:
        o->azure.concurrency = (int64_t)number(optarg, 1, 10000);
        break;
    case O_MINUTES:
        o->minutes = number(optarg, 0.1, 10000);
        break;
    case O_PEAK:
        o->peak = number(optarg, 0.1, 10000);
        break;
    case O_SEEDS:
        o->n_seeds = (size_t)number(optarg, 1, SIM_SEEDS_MAX);
        break;
    case O_SEED:
        o->first_seed = (uint64_t)number(optarg, 0, 1e15);
        break;
    case O_SYSTEM:
        o->only_system = optarg;
        break;
    case O_NODES:
        o->cfg.n_nodes = (size_t)number(optarg, 1, 100000);
        break;
    case O_OWN:
        o->cfg.own_start_ms = number(optarg, 0, 1e6);
        break;
    case O_COLD:
        o->cfg.cold_ms = number(optarg, 0, 1e6);
        break;
    case O_NET:
        o->cfg.net_ms = number(optarg, 0, 1e6);
        break;
    case O_PRIMED:
        o->cfg.primed_ms = number(optarg, 0, 1e6);
        break;
    case O_TICK:
        o->cfg.tick_ns = (uint64_t)(number(optarg, 0, 1e6) * 1e6);
        break;
    case O_IDLE:
        o->cfg.idle_ms = (int64_t)number(optarg, 0, 1e9);
        break;
    case O_DOWN:
        o->cfg.down_ms = (int64_t)number(optarg, 0, 1e9);
        break;
    case O_ASK:
        o->cfg.ask_primed = (int64_t)number(optarg, 0, 1000);
        break;
    case O_JSON:
        o->is_json = true;
        break;
    case O_HELP:
        fputs(help, stdout);
        exit(0);
    default:
        fputs(help, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct options o = {
        .azure = {.n_fns = 2000, .clip_per_day = 1e5, .longest_s = 60, .n_images = 6, .concurrency = 1},
        .days = 1,
        .minutes = 60,
        .peak = 20,
        .n_seeds = 3,
        .first_seed = 1,
    };
    sim_cfg_default(&o.cfg);
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        take(&o, c);
    if (!o.does_azure && !o.does_shapes && !o.trace_2019 && !o.trace_2021)
        o.does_azure = o.does_shapes = true;
    static struct table t;
    int rc = run_all(&o, &t);
    if (rc == 0 && o.is_json)
        sim_print_json(t.rows, t.n, stdout);
    else if (rc == 0)
        sim_print_table(t.rows, t.n, stdout);
    return rc;
}

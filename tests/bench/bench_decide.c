/* What deciding costs: replicas a second on one core, from "somebody waits" to a place, a start command and a
 * route, in a cluster of thousands of made-up nodes and a hundred thousand functions; what a tick costs, and
 * what each node and function costs in memory.  The real core, a clock that stands where it is put, and
 * agents that do at once what they are told.  Only calls of the core are timed, with what taking its actions
 * takes.
 *
 *     bench_decide [--json] [--smoke] [--nodes N] [--functions N] [--replicas N] [--pack] */
#include "orchestrator/core/cluster.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

#include <malloc.h>
#include <time.h>

#define GI (1ll << 30)
#define MI (1ll << 20)
#define S  1000000000ull

enum { IMAGES = 1000, IMAGES_A_NODE = 60, ROUNDS = 3, SLOTS_A_NODE = 500 };

struct options {
    uint64_t nodes, functions, replicas;
    bool is_json, is_smoke, packs;
};

struct held {
    uint64_t id, fn_uid;
};

struct agent {
    uint64_t id;
    struct held *held;
    size_t n, cap, n_warm; /* those before n_warm were reported warm */
};

struct world {
    struct options o;
    struct dv_cluster *c;
    uint64_t now;
    struct agent *agents;
    struct dv_function *fns;
    char (*images)[64];
    char **names; /* of images */
    uint64_t starts, stops, routes, routed, others;
};

struct result {
    const char *name;
    uint64_t replicas;
    double start_us, ready_us, stop_us; /* a replica */
    double tick_us;                     /* with all of them in use; a function */
    double calm_us;                     /* with all of them warm and nobody using them; the whole tick */
    uint64_t functions;
};

/* Of the processor, so that a busy machine changes little. */
static uint64_t clock_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * S + (uint64_t)t.tv_nsec;
}

static size_t heap(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static void give_up(const char *what)
{
    (void)fprintf(stderr, "bench_decide: %s\n", what);
    exit(1);
}

static void must(int rc, const char *what)
{
    if (rc)
        give_up(what);
}

static void *need(void *p)
{
    if (!p)
        give_up("out of memory");
    return p;
}

/* ---- agents ---- */

static void agent_start(struct world *w, const struct dv_action *a)
{
    struct agent *g = &w->agents[a->node->id - 1];
    if (g->n == g->cap) {
        g->cap = g->cap ? g->cap * 2 : 8;
        g->held = need(dv_realloc(g->held, g->cap * sizeof(*g->held)));
    }
    g->held[g->n++] = (struct held){a->replica_id, a->fn_uid};
}

/* What the control does with a route: it lists who may take requests. */
static void take_routes(struct world *w, const struct dv_cluster_fn *f)
{
    DV_LIST_FOR_EACH (it, &f->replicas)
        w->routed += dv_cluster_routable(DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn));
}

static void act(struct world *w)
{
    struct dv_action a;
    while (dv_cluster_next(w->c, &a)) {
        if (a.kind == DV_ACT_START) {
            agent_start(w, &a);
            w->starts++;
        } else if (a.kind == DV_ACT_ROUTES) {
            take_routes(w, a.fn);
            w->routes++;
        } else if (a.kind == DV_ACT_STOP) {
            w->stops++;
        } else {
            w->others++;
        }
    }
}

/* Every agent reports what became warm, in one report each, as they do within a turn of their loop. */
static void all_ready(struct world *w)
{
    static struct dv_replica_report reps[SLOTS_A_NODE];
    uint64_t began = w->now, t = clock_ns();
    for (size_t i = 0; i < w->o.nodes; i++) {
        struct agent *g = &w->agents[i];
        size_t n = 0;
        for (; g->n_warm < g->n && n < DV_COUNT(reps); g->n_warm++)
            reps[n++] = (struct dv_replica_report){.id = g->held[g->n_warm].id,
                                                   .fn_uid = g->held[g->n_warm].fn_uid,
                                                   .generation = 1,
                                                   .state = DV_REPLICA_WARM};
        if (n == 0)
            continue;
        w->now = began + (clock_ns() - t); /* some things are done once in a while only */
        must(dv_cluster_reports(w->c, g->id, reps, n, false, w->now), "a report was refused");
        act(w);
    }
    w->now += S / 10;
    dv_cluster_tick(w->c, w->now);
    act(w);
}

static void all_gone(struct world *w)
{
    for (size_t i = 0; i < w->o.nodes; i++) {
        struct agent *g = &w->agents[i];
        for (size_t k = 0; k < g->n; k++) {
            struct dv_replica_report r = {
                .id = g->held[k].id, .fn_uid = g->held[k].fn_uid, .generation = 1, .state = DV_REPLICA_GONE};
            must(dv_cluster_reports(w->c, g->id, &r, 1, false, w->now), "a report was refused");
        }
        act(w);
        g->n = g->n_warm = 0;
    }
}

/* ---- the world ---- */

static void add_nodes(struct world *w)
{
    char *images[IMAGES_A_NODE];
    for (uint64_t i = 0; i < w->o.nodes; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "node-%llu", (unsigned long long)i);
        struct dv_kv labels[] = {{(char *)"zone", (char *)(i % 3 ? "a" : "b")},
                                 {(char *)"disk", (char *)"ssd"}};
        struct dv_node_record rec = {.node = i + 1, .name = name, .labels = {labels, DV_COUNT(labels)}};
        w->agents[i].id = rec.node;
        must(dv_cluster_node_put(w->c, &rec, w->now), "no node");
        dv_cluster_node_up(w->c, rec.node, w->now);
        for (size_t k = 0; k < IMAGES_A_NODE; k++)
            images[k] = w->names[(i * 7 + k * 13) % IMAGES];
        struct dv_node_report r = {.node = rec.node,
                                   .engine_ok = true,
                                   .cpus = 32,
                                   .memory_bytes = 128 * GI,
                                   .replicas_max = SLOTS_A_NODE,
                                   .arch = (char *)"amd64",
                                   .images = {images, IMAGES_A_NODE}};
        must(dv_cluster_node_report(w->c, rec.node, &r, w->now), "no node");
        must(dv_cluster_reports(w->c, rec.node, NULL, 0, true, w->now), "no node");
        act(w);
    }
}

static void add_functions(struct world *w)
{
    for (uint64_t i = 0; i < w->o.functions; i++) {
        w->fns[i] = (struct dv_function){
            .uid = i + 1,
            .generation = 1,
            .desired_override = -1,
            .spec = {
                .name = (char *)"f",
                .ns = (char *)"default",
                .image = w->names[i % IMAGES],
                .requests = {.memory_bytes = 128 * MI, .cpu_mcpu = 50},
                .scale = {.max = 10000, .concurrency = 1, .target = 1, .idle_ms = 10000, .queue_max = 1000}}};
        must(dv_cluster_fn_put(w->c, &w->fns[i], w->now), "no function");
        act(w);
    }
}

static struct world *world_new(const struct options *o)
{
    struct world *w = need(dv_zalloc(sizeof(*w)));
    w->o = *o;
    w->now = 1000 * S;
    w->agents = need(dv_zalloc_n(o->nodes, sizeof(*w->agents)));
    w->fns = need(dv_zalloc_n(o->functions, sizeof(*w->fns)));
    w->images = need(dv_zalloc_n(IMAGES, sizeof(*w->images)));
    w->names = need(dv_zalloc_n(IMAGES, sizeof(*w->names)));
    for (size_t i = 0; i < IMAGES; i++) {
        (void)snprintf(w->images[i], sizeof(w->images[i]), "registry.example.com/team/image-%zu:v1", i);
        w->names[i] = w->images[i];
    }
    struct dv_cluster_cfg cfg = {.seed = 1, .spread = o->packs ? DV_PACK : DV_SPREAD};
    must(dv_cluster_new(&cfg, w->now, &w->c), "no cluster");
    return w;
}

static void world_free(struct world *w)
{
    dv_cluster_free(w->c);
    for (size_t i = 0; i < w->o.nodes; i++)
        dv_free(w->agents[i].held);
    dv_free(w->agents);
    dv_free(w->fns);
    dv_free(w->images);
    dv_free(w->names);
    dv_free(w);
}

/* ---- what is measured ---- */

/* `functions` of them, spread over all, are asked for `each` replicas at once. */
static uint64_t uid_of(const struct world *w, uint64_t i, uint64_t functions)
{
    return 1 + i * (w->o.functions / functions);
}

static void load_all(struct world *w, uint64_t functions, uint64_t in_flight, uint64_t last_used_ns)
{
    struct dv_scale_sample s = {.in_flight = in_flight, .last_activity_ns = last_used_ns};
    for (uint64_t i = 0; i < functions; i++)
        dv_cluster_load(w->c, uid_of(w, i, functions), &s, w->now);
}

static double since_us(uint64_t start)
{
    return (double)(clock_ns() - start) / 1e3;
}

static struct result burst(struct world *w, const char *name, uint64_t functions, uint64_t each)
{
    struct result r = {.name = name, .functions = functions};
    uint64_t starts = w->starts, t = clock_ns();
    struct dv_scale_sample s = {.waiting = each, .last_activity_ns = w->now};
    for (uint64_t i = 0; i < functions; i++) {
        uint64_t uid = uid_of(w, i, functions);
        dv_cluster_load(w->c, uid, &s, w->now);
        dv_cluster_demand(w->c, uid, w->now);
        act(w);
    }
    r.start_us = since_us(t);
    r.replicas = w->starts - starts;
    w->now += S / 20;
    t = clock_ns();
    all_ready(w);
    r.ready_us = since_us(t);
    w->now += S / 20;
    t = clock_ns();
    load_all(w, functions, each, w->now);
    dv_cluster_tick(w->c, w->now);
    act(w);
    r.tick_us = since_us(t) / (double)functions;
    if (w->starts - starts != r.replicas)
        give_up("a tick started more than the burst");
    uint64_t used_ns = w->now;
    w->now += S;
    load_all(w, functions, 0, used_ns);
    dv_cluster_tick(w->c, w->now);
    act(w);
    w->now += S / 10;
    t = clock_ns();
    dv_cluster_tick(w->c, w->now);
    act(w);
    r.calm_us = since_us(t);
    w->now += 3600 * S; /* nobody for long */
    t = clock_ns();
    load_all(w, functions, 0, used_ns);
    dv_cluster_tick(w->c, w->now);
    act(w);
    all_gone(w);
    r.stop_us = since_us(t) / (double)r.replicas;
    r.start_us /= (double)r.replicas;
    r.ready_us /= (double)r.replicas;
    dv_cluster_tick(w->c, w->now);
    act(w);
    return r;
}

static struct result best_of(struct world *w, const char *name, uint64_t functions, uint64_t each)
{
    struct result best = {0};
    for (int i = 0; i < (w->o.is_smoke ? 1 : ROUNDS); i++) {
        struct result r = burst(w, name, functions, each);
        if (r.replicas != functions * each)
            give_up("not every replica found a place");
        if (i == 0 || r.start_us + r.ready_us < best.start_us + best.ready_us)
            best = r;
    }
    return best;
}

/* Nobody uses anything: what a tick costs then. */
static double idle_tick_us(struct world *w)
{
    enum { TICKS = 100 };
    uint64_t t = clock_ns();
    for (int i = 0; i < TICKS; i++) {
        w->now += S;
        dv_cluster_tick(w->c, w->now);
        act(w);
    }
    return since_us(t) / TICKS;
}

static void set_slots(struct world *w, int64_t slots)
{
    for (uint64_t i = 0; i < w->o.nodes; i++) {
        struct dv_node_report r = {
            .node = i + 1, .engine_ok = true, .arch = (char *)"amd64", .replicas_max = slots};
        must(dv_cluster_node_report(w->c, i + 1, &r, w->now), "no node");
    }
    act(w);
}

static void ask(struct world *w, uint64_t uid, uint64_t waiting)
{
    struct dv_scale_sample s = {.waiting = waiting, .last_activity_ns = w->now};
    dv_cluster_load(w->c, uid, &s, w->now);
    dv_cluster_demand(w->c, uid, w->now);
    act(w);
}

/* A cluster filled to the brim: what it costs to learn that there is no place, and the ticks of those
 * without. */
static void full(struct world *w, double *out_us, double *out_tick_us, double *out_bytes)
{
    enum { SLOTS = 4 };
    uint64_t slots = w->o.nodes * SLOTS, without = w->o.functions / 10, starts = w->starts;
    set_slots(w, SLOTS);
    size_t before = heap();
    for (uint64_t i = 0; i * 10 < slots; i++)
        ask(w, w->o.functions - i, 10);
    if (w->starts - starts != slots)
        give_up("the cluster was not filled");
    *out_bytes = (double)(heap() - before) / (double)slots;
    uint64_t t = clock_ns();
    for (uint64_t i = 0; i < without; i++)
        ask(w, i + 1, 1);
    *out_us = since_us(t) / (double)without;
    if (w->starts - starts != slots)
        give_up("a full cluster took more");
    for (int k = 0; k < 80; k++) { /* until callers are told so */
        w->now += S / 10;
        t = clock_ns();
        dv_cluster_tick(w->c, w->now);
        act(w);
        *out_tick_us = since_us(t) / (double)(without + slots / 10);
    }
}

/* ---- out ---- */

static void show(const struct world *w, const struct result *r, size_t n, const double figures[6])
{
    (void)printf("%llu nodes, %llu functions, one core\n\n", (unsigned long long)w->o.nodes,
                 (unsigned long long)w->o.functions);
    (void)printf("%-34s %9s %9s %9s %12s %9s %12s %12s\n", "burst from zero", "start us", "ready us",
                 "both us", "replicas/s", "stop us", "tick us/fn", "calm tick us");
    for (size_t i = 0; i < n; i++)
        (void)printf("%-34s %9.2f %9.2f %9.2f %12.0f %9.2f %12.2f %12.1f\n", r[i].name, r[i].start_us,
                     r[i].ready_us, r[i].start_us + r[i].ready_us, 1e6 / (r[i].start_us + r[i].ready_us),
                     r[i].stop_us, r[i].tick_us, r[i].calm_us);
    (void)printf("\nfull: %.2f us to learn that there is no place, %.2f us a function in a tick then\n",
                 figures[4], figures[5]);
    (void)printf("a tick while nobody uses anything: %.1f us\n", figures[2]);
    (void)printf("memory of the core: %.0f bytes a node, %.0f bytes a function; %.0f bytes a replica (10 of "
                 "a function)\n",
                 figures[0], figures[1], figures[3]);
}

static void show_json(const struct world *w, const struct result *r, size_t n, const double figures[6])
{
    double worst = 0;
    (void)printf("{\"bench\":\"decide\",\"nodes\":%llu,\"functions\":%llu,\"bursts\":[",
                 (unsigned long long)w->o.nodes, (unsigned long long)w->o.functions);
    for (size_t i = 0; i < n; i++) {
        double both = r[i].start_us + r[i].ready_us;
        worst = both > worst ? both : worst;
        (void)printf(
            "%s{\"name\":\"%s\",\"functions\":%llu,\"replicas\":%llu,\"start_us\":%.3f,\"ready_us\":%.3f,"
            "\"stop_us\":%.3f,\"tick_us_per_function\":%.3f,\"calm_tick_us\":%.3f,\"replicas_per_s\":%.0f}",
            i ? "," : "", r[i].name, (unsigned long long)r[i].functions, (unsigned long long)r[i].replicas,
            r[i].start_us, r[i].ready_us, r[i].stop_us, r[i].tick_us, r[i].calm_us, 1e6 / both);
    }
    (void)printf("],\"us_per_replica\":%.3f,\"replicas_per_s\":%.0f,\"full_us\":%.3f,\"full_tick_us\":%.3f,"
                 "\"idle_tick_us\":%.2f,\"bytes_per_node\":%.0f,\"bytes_per_function\":%.0f,"
                 "\"bytes_per_replica\":%.0f}\n",
                 worst, 1e6 / worst, figures[4], figures[5], figures[2], figures[0], figures[1], figures[3]);
}

static int usage(void)
{
    (void)fprintf(
        stderr,
        "usage: bench_decide [--json] [--smoke] [--nodes N] [--functions N] [--replicas N] [--pack]\n");
    return 2;
}

static int options_read(struct options *o, int argc, char **argv)
{
    *o = (struct options){.nodes = 5000, .functions = 100000, .replicas = 25000};
    for (int i = 1; i < argc; i++) {
        uint64_t *number = strcmp(argv[i], "--nodes") == 0       ? &o->nodes
                           : strcmp(argv[i], "--functions") == 0 ? &o->functions
                           : strcmp(argv[i], "--replicas") == 0  ? &o->replicas
                                                                 : NULL;
        if (number && (++i == argc || !dv_parse_u64(dv_sv_c(argv[i]), number) || *number == 0))
            return usage();
        else if (number)
            continue;
        else if (strcmp(argv[i], "--json") == 0)
            o->is_json = true;
        else if (strcmp(argv[i], "--smoke") == 0)
            o->is_smoke = true;
        else if (strcmp(argv[i], "--pack") == 0)
            o->packs = true;
        else
            return usage();
    }
    if (o->is_smoke) {
        o->nodes = 200;
        o->functions = 4000;
        o->replicas = 2000;
    }
    return o->replicas < 1000 || o->functions < o->replicas ? usage() : 0;
}

int main(int argc, char **argv)
{
    struct options o;
    int rc = options_read(&o, argc, argv);
    if (rc)
        return rc;
    struct world *w = world_new(&o);
    double figures[6];
    size_t before = heap();
    add_nodes(w);
    figures[0] = (double)(heap() - before) / (double)o.nodes;
    before = heap();
    add_functions(w);
    figures[1] = (double)(heap() - before) / (double)o.functions;
    struct result r[] = {
        best_of(w, "functions with 1 replica each", o.replicas, 1),
        best_of(w, "functions with 10 replicas each", o.replicas / 10, 10),
        best_of(w, "functions with 1000 replicas each", o.replicas / 1000, 1000),
    };
    figures[2] = idle_tick_us(w);
    full(w, &figures[4], &figures[5], &figures[3]);
    (o.is_json ? show_json : show)(w, r, DV_COUNT(r), figures);
    world_free(w);
    return 0;
}

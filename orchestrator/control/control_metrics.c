/* What the state loop counts, as Prometheus text.  All names stand in one table. */
#include "orchestrator/control/control_internal.h"
#include "proto/wire/codec.h"

#include <inttypes.h>

enum name {
    M_PHASES,
    M_REPLICAS,
    M_FN_WANTED,
    M_FN_READY,
    M_FN_WAITING,
    M_FN_OLDEST,
    M_FN_IN_FLIGHT,
    M_SERVICE_COUNT,
    M_SERVICE_READY,
    M_FUNCTIONS,
    M_NODES,
    M_NODE_CPU,
    M_NODE_MEMORY,
    M_NODE_PROMISED_CPU,
    M_NODE_PROMISED_MEMORY,
    M_ENGINE_CALLS,
    M_ENGINE_ERRORS,
    M_STARTS,
    M_STOPS,
    M_FAILURES,
    M_MOVES,
    M_REPORTS,
    M_SCRAPES,
    M_SCRAPE_FAILURES,
    M_LINKS_OPENED,
    M_LINKS_CLOSED,
    M_UNSENT,
    M_WRITES,
    M_WRITE_ERRORS,
    M_BACKLOG,
    N_NAMES
};

static const struct {
    const char *name;
    enum dv_metric_kind kind;
    const char *help;
} names[] = {
    [M_PHASES] = {"davit_cold_start_seconds", DV_METRIC_HISTOGRAM, "Time of a cold start by phase"},
    [M_REPLICAS] = {"davit_replicas", DV_METRIC_GAUGE, "Replicas by state"},
    [M_FN_WANTED] = {"davit_function_replicas_wanted", DV_METRIC_GAUGE, "Replicas the autoscaler wants"},
    [M_FN_READY] = {"davit_function_replicas_ready", DV_METRIC_GAUGE, "Replicas that take requests"},
    [M_FN_WAITING] = {"davit_function_queue_depth", DV_METRIC_GAUGE, "Requests that wait for a slot"},
    [M_FN_OLDEST] = {"davit_function_queue_oldest_seconds", DV_METRIC_GAUGE,
                     "Age of the longest waiting request"},
    [M_FN_IN_FLIGHT] = {"davit_function_in_flight", DV_METRIC_GAUGE, "Requests inside of replicas"},
    [M_SERVICE_COUNT] = {"gateway_service_count", DV_METRIC_GAUGE,
                         "Replicas asked for, as OpenFaaS names it"},
    [M_SERVICE_READY] = {"gateway_service_ready_count", DV_METRIC_GAUGE,
                         "Replicas that take requests, as OpenFaaS names it"},
    [M_FUNCTIONS] = {"davit_functions", DV_METRIC_GAUGE, "Functions deployed"},
    [M_NODES] = {"davit_nodes", DV_METRIC_GAUGE, "Nodes by state"},
    [M_NODE_CPU] = {"davit_node_cpu_used_cores", DV_METRIC_GAUGE, "Processor time used on the whole machine"},
    [M_NODE_MEMORY] = {"davit_node_memory_available_bytes", DV_METRIC_GAUGE,
                       "Memory available on the machine"},
    [M_NODE_PROMISED_CPU] = {"davit_node_promised_cores", DV_METRIC_GAUGE, "Cores promised to replicas"},
    [M_NODE_PROMISED_MEMORY] = {"davit_node_promised_memory_bytes", DV_METRIC_GAUGE,
                                "Memory promised to replicas"},
    [M_ENGINE_CALLS] = {"davit_engine_calls_total", DV_METRIC_COUNTER,
                        "Calls to the container engine, by node"},
    [M_ENGINE_ERRORS] = {"davit_engine_errors_total", DV_METRIC_COUNTER, "Engine calls that failed, by node"},
    [M_STARTS] = {"davit_replica_starts_total", DV_METRIC_COUNTER, "Start commands decided"},
    [M_STOPS] = {"davit_replica_stops_total", DV_METRIC_COUNTER, "Stop commands decided"},
    [M_FAILURES] = {"davit_replica_failures_total", DV_METRIC_COUNTER, "Replicas that failed, by reason"},
    [M_MOVES] = {"davit_replica_moves_total", DV_METRIC_COUNTER, "Moves along the life cycle"},
    [M_REPORTS] = {"davit_reports_total", DV_METRIC_COUNTER, "Reports of agents"},
    [M_SCRAPES] = {"davit_scrapes_total", DV_METRIC_COUNTER, "Readings of metrics that functions name"},
    [M_SCRAPE_FAILURES] = {"davit_scrape_failures_total", DV_METRIC_COUNTER,
                           "Readings that gave no value that may be believed"},
    [M_LINKS_OPENED] = {"davit_control_links_opened_total", DV_METRIC_COUNTER,
                        "Control links that were opened"},
    [M_LINKS_CLOSED] = {"davit_control_links_closed_total", DV_METRIC_COUNTER, "Control links that broke"},
    [M_UNSENT] = {"davit_commands_unsent_total", DV_METRIC_COUNTER, "Commands that could not be sent"},
    [M_WRITES] = {"davit_store_commits_total", DV_METRIC_COUNTER, "Commits of wanted state"},
    [M_WRITE_ERRORS] = {"davit_store_errors_total", DV_METRIC_COUNTER, "Commits that failed"},
    [M_BACKLOG] = {"davit_store_backlog", DV_METRIC_GAUGE, "Jobs that wait for the store"},
};
_Static_assert(DV_COUNT(names) == N_NAMES, "every metric has its row");

static const char *const phase_names[] = {"place", "pull", "create", "start", "ready", "total"};
_Static_assert(DV_COUNT(phase_names) == CTL_N_PHASES, "every phase has its name");

/* Writers remember a failure in the buffer, so their results are not looked at one by one. */
static void head(struct dv_buf *out, enum name m)
{
    (void)dv_metric_head(out, names[m].name, names[m].kind, names[m].help);
}

static void put(struct dv_buf *out, enum name m, const char *label, const char *value, double v)
{
    struct dv_label l = {label, dv_sv_c(value)};
    (void)dv_metric_double(out, names[m].name, &l, label ? 1 : 0, v);
}

static void single(struct dv_buf *out, enum name m, uint64_t v)
{
    head(out, m);
    (void)dv_metric_u64(out, names[m].name, NULL, 0, v);
}

static void write_phases(const struct dv_control *c, struct dv_buf *out)
{
    head(out, M_PHASES);
    for (size_t i = 0; i < CTL_N_PHASES; i++) {
        struct dv_label l = {"phase", dv_sv_c(phase_names[i])};
        (void)dv_metric_hist(out, names[M_PHASES].name, &l, 1, &c->n.phases[i], &dv_hist_seconds);
    }
}

static void count_state(void *ctx, const struct dv_cluster_replica *r)
{
    ((uint64_t *)ctx)[r->state]++;
}

static void write_replicas(struct dv_control *c, struct dv_buf *out)
{
    uint64_t n[DV_REPLICA_N_STATES] = {0};
    dv_cluster_each_replica(c->cluster, count_state, n);
    head(out, M_REPLICAS);
    for (int s = 0; s < DV_REPLICA_GONE; s++)
        put(out, M_REPLICAS, "state", dv_replica_state_name((enum dv_replica_state)s), (double)n[s]);
    head(out, M_FAILURES);
    for (int r = 1; r < DV_REASON_N; r++)
        put(out, M_FAILURES, "reason", dv_reason_name((enum dv_reason)r), (double)c->n.failures[r]);
    const struct dv_life_counts *k = dv_cluster_counts(c->cluster);
    head(out, M_MOVES);
    for (int s = 0; s < DV_REPLICA_N_STATES; s++)
        for (int e = 0; e < DV_LIFE_N_EVENTS; e++) {
            if (k->moves[s][e] == 0)
                continue;
            struct dv_label l[] = {{"from", dv_sv_c(dv_replica_state_name((enum dv_replica_state)s))},
                                   {"event", dv_sv_c(dv_life_event_name((enum dv_life_event)e))}};
            (void)dv_metric_u64(out, names[M_MOVES].name, l, 2, k->moves[s][e]);
        }
}

/* Functions with something going on; a sleeping one has nothing to tell. */
struct fn_row {
    char label[2 * DV_NAME_MAX + 2], openfaas[2 * DV_NAME_MAX + 2];
    double asked, wanted, ready, waiting, oldest, in_flight;
};

struct fn_rows {
    struct dv_control *c;
    struct fn_row *rows;
    size_t n, cap;
};

static void collect(void *ctx, const struct dv_cluster_fn *f)
{
    struct fn_rows *t = ctx;
    if (t->n == t->cap)
        return;
    struct fn_row *r = &t->rows[t->n++];
    struct dv_cluster_tally tally;
    struct dv_load load = {0};
    dv_cluster_fn_tally(f, &tally);
    if (t->c->gateway)
        (void)dv_gateway_load(t->c->gateway, f->uid, &load);
    (void)snprintf(r->label, sizeof(r->label), "%s.%s", f->def->spec.name, f->def->spec.ns);
    (void)dv_openfaas_name(dv_sv_c(r->label), r->openfaas);
    r->asked = (double)f->asked;
    r->wanted = (double)dv_cluster_fn_wanted(f);
    r->ready = (double)tally.ready;
    r->waiting = (double)load.waiting;
    r->oldest = (double)load.oldest_wait_ns / 1e9;
    r->in_flight = (double)load.in_flight;
}

static void write_functions(struct dv_control *c, struct dv_buf *out)
{
    single(out, M_FUNCTIONS, c->n_fns);
    struct fn_rows t = {.c = c, .cap = c->n_fns, .rows = dv_zalloc_n(c->n_fns + 1, sizeof(struct fn_row))};
    if (!t.rows)
        return;
    dv_cluster_each_active(c->cluster, collect, &t);
    static const struct {
        enum name m;
        size_t offset;
        bool is_openfaas;
    } columns[] = {{M_FN_WANTED, offsetof(struct fn_row, wanted), false},
                   {M_FN_READY, offsetof(struct fn_row, ready), false},
                   {M_FN_WAITING, offsetof(struct fn_row, waiting), false},
                   {M_FN_OLDEST, offsetof(struct fn_row, oldest), false},
                   {M_FN_IN_FLIGHT, offsetof(struct fn_row, in_flight), false},
                   {M_SERVICE_COUNT, offsetof(struct fn_row, asked), true},
                   {M_SERVICE_READY, offsetof(struct fn_row, ready), true}};
    for (size_t k = 0; k < DV_COUNT(columns); k++) {
        head(out, columns[k].m);
        for (size_t i = 0; i < t.n; i++) {
            double v;
            memcpy(&v, (const char *)&t.rows[i] + columns[k].offset, sizeof(v));
            put(out, columns[k].m, "function_name",
                columns[k].is_openfaas ? t.rows[i].openfaas : t.rows[i].label, v);
        }
    }
    dv_free(t.rows);
}

struct node_column {
    struct dv_buf *out;
    enum name m;
    double (*value)(const struct dv_node_status *s);
};

static double cpu_used(const struct dv_node_status *s)
{
    return s->report ? (double)s->report->cpu_used_mcpu / 1000 : 0;
}
static double memory_left(const struct dv_node_status *s)
{
    return s->report ? (double)s->report->memory_available_bytes : 0;
}
static double promised_cpu(const struct dv_node_status *s)
{
    return (double)s->promised_mcpu / 1000;
}
static double promised_memory(const struct dv_node_status *s)
{
    return (double)s->promised_bytes;
}
static double engine_calls(const struct dv_node_status *s)
{
    return s->report ? (double)s->report->engine_calls : 0;
}
static double engine_errors(const struct dv_node_status *s)
{
    return s->report ? (double)s->report->engine_errors : 0;
}

static int write_node(void *ctx, const struct dv_node_status *s)
{
    const struct node_column *k = ctx;
    put(k->out, k->m, "node", s->record->name, k->value(s));
    return 0;
}

static int count_node(void *ctx, const struct dv_node_status *s)
{
    ((uint64_t *)ctx)[s->state]++;
    return 0;
}

static void write_nodes(struct dv_control *c, struct dv_buf *out)
{
    uint64_t n[DV_NODE_LOST + 1] = {0};
    dv_control_nodes_each(c, count_node, n);
    head(out, M_NODES);
    for (int s = 0; s <= DV_NODE_LOST; s++)
        put(out, M_NODES, "state", dv_node_state_name((enum dv_node_state)s), (double)n[s]);
    struct node_column columns[] = {{out, M_NODE_CPU, cpu_used},
                                    {out, M_NODE_MEMORY, memory_left},
                                    {out, M_NODE_PROMISED_CPU, promised_cpu},
                                    {out, M_NODE_PROMISED_MEMORY, promised_memory},
                                    {out, M_ENGINE_CALLS, engine_calls},
                                    {out, M_ENGINE_ERRORS, engine_errors}};
    for (size_t i = 0; i < DV_COUNT(columns); i++) {
        head(out, columns[i].m);
        dv_control_nodes_each(c, write_node, &columns[i]);
    }
}

void dv_control_metrics(struct dv_control *c, struct dv_buf *out)
{
    write_phases(c, out);
    write_replicas(c, out);
    write_functions(c, out);
    write_nodes(c, out);
    single(out, M_STARTS, c->n.starts);
    single(out, M_STOPS, c->n.stops);
    single(out, M_REPORTS, c->n.reports);
    single(out, M_SCRAPES, c->n.scrapes);
    single(out, M_SCRAPE_FAILURES, c->n.scrape_failures);
    single(out, M_LINKS_OPENED, c->n.link_opened);
    single(out, M_LINKS_CLOSED, c->n.link_closed);
    single(out, M_UNSENT, c->n.unsent);
    single(out, M_WRITES, c->n.writes);
    single(out, M_WRITE_ERRORS, c->n.write_errors);
    single(out, M_BACKLOG, dv_storer_backlog(c->cfg.storer));
}

/* The simulation: real cores, fake clock, fake agents.
 *
 * What is real: the cluster's core (orchestrator/core: autoscaler, scheduler, life cycle, keep-alive, pools)
 * and the dispatcher of requests (orchestrator/gateway/dispatch.h).  What is fake: time, which jumps to the
 * next event; agents and engines, which take as long as sim_cfg says; the link between them, which can break.
 *
 *   sim.c            the world: events, functions, requests, the way of a request
 *   agents.c         nodes: starting, priming, freezing, stopping; what replicas cost
 *   sys_davit.c      the orchestrator's control row, thin: actions to agents, reports to the core
 *   sys_fixed.c      baseline: a replica per concurrent request, kept ten minutes
 *   sys_kpa.c        baseline: Knative's pod autoscaler
 *   arrivals.c       one function's stream of requests
 *   azure.c          functions drawn from the published distributions
 *   trace.c          the published CSV formats
 *   shapes.c         steps, ramps, spikes, sawtooth
 *   faults.c         what goes wrong, by chance
 *   check.c          what must hold after every step
 *   report.c         figures
 *
 * One thread, one owner; everything random comes from the seed, so the same seed gives the same run.  Running
 * out of memory ends the program: it is a tool. */
#ifndef DV_SIM_H
#define DV_SIM_H

#include "orchestrator/core/cluster.h"
#include "orchestrator/gateway/dispatch.h"
#include "tests/sim/stats.h"

#define SIM_US 1000ull
#define SIM_MS 1000000ull
#define SIM_S  1000000000ull
#define SIM_MI (1024 * 1024ll)

#define SIM_BEGIN (1000 * SIM_S) /* no clock begins at nought */
#define SIM_DAY_S 86400.0

enum { SIM_IMAGES_MAX = 64, SIM_TRACE_LINES = 48 };

struct sim;
struct sim_fn;
struct sim_node;
struct sim_replica;

struct sim_cfg {
    uint64_t seed;
    uint64_t until_ns; /* length of the run */
    size_t n_nodes;
    int64_t node_mcpu, node_bytes, node_replicas;
    double cold_ms, net_ms, primed_ms, thaw_ms; /* from the agent's command to the first answer */
    double own_start_ms;                        /* the function's own, in each start but from frozen */
    double crowding;             /* each further start on a node makes one slower by this share of itself */
    int starts_at_once;          /* that an agent asks its engine for */
    int nets_per_node;           /* ready networks; 0: none */
    bool has_pools;              /* primed sandboxes are kept as the core says */
    int64_t idle_ms;             /* the cluster's, for functions that say nothing; 0: its default */
    int64_t down_ms, ask_primed; /* scale.down and scale.primed of every function */
    int64_t primed_bytes;        /* what one holds */
    uint64_t link_ns;            /* a message's way */
    uint64_t tick_ns;            /* no more often; 0: as often as the core asks */
    uint64_t full_report_ns;
    bool is_checked; /* invariants after every step */
};
void sim_cfg_default(struct sim_cfg *cfg);

/* ---- events ---- */

struct sim_event {
    uint64_t at_ns, seq;
    void (*run)(struct sim *s, struct sim_event *e);
    void *ptr;
    uint64_t a, b;
    bool is_owner; /* of ptr, should the run end before */
};
/* As sim_at; ptr is freed with the simulation when the event never runs. */
void sim_at_own(struct sim *s, uint64_t at_ns, void (*run)(struct sim *s, struct sim_event *e), void *ptr,
                uint64_t a, uint64_t b);
void sim_at(struct sim *s, uint64_t at_ns, void (*run)(struct sim *s, struct sim_event *e), void *ptr,
            uint64_t a, uint64_t b);

/* ---- functions and requests ---- */

enum sim_arrival { SIM_STREAM, SIM_PERIODIC, SIM_LIST, SIM_PROFILE };

struct sim_minute { /* of a trace: so many in that minute */
    uint32_t minute, n;
};

struct sim_arrivals {
    enum sim_arrival kind;
    /* STREAM: Poisson while on; on for on_s, off for off_s (0: always on), exponential both */
    double rate_s, on_s, off_s;
    double day_phase;
    bool has_day; /* follows the time of day, from half the peak to the peak */
    uint64_t turn_ns;
    bool is_on;
    /* PERIODIC */
    uint64_t period_ns, phase_ns;
    /* LIST: given times, since the beginning, with durations; or minutes with counts */
    uint64_t *times_ns;
    float *durations_s; /* or NULL */
    size_t n_times, next_time, cap_times;
    struct sim_minute *minutes;
    size_t n_minutes, next_minute, cap_minutes;
    /* PROFILE: peak_s (per second) times a share, 0 to 1, that depends on the time */
    double (*profile)(double t_s);
    double peak_s, shift_s;
};
/* The time of the next request after `after_ns`; UINT64_MAX: no more. */
uint64_t sim_arrivals_next(struct sim_arrivals *a, uint64_t after_ns, struct dv_rng *rng);
void sim_arrivals_deinit(struct sim_arrivals *a);

struct sim_request {
    struct dv_waiter waiter; /* first: the dispatcher hands it back */
    struct sim_fn *fn;
    struct sim_replica *in;
    struct dv_slots *slots;
    struct dv_list of_replica;
    uint64_t arrived_ns, began_ns, service_ns;
    bool is_over; /* lost with its replica; the event of its end is still to come */
};

struct sim_fn {
    struct dv_function def;
    char name[64], image[64];
    int image_no;
    struct sim_arrivals arrivals;
    double mean_s, spread; /* service time: lognormal around the mean */
    struct dv_rng rng;
    struct dv_live_fn *live;
    struct dv_queue queue;
    struct dv_list replicas; /* struct sim_replica, by of_fn */
    size_t n_replicas;
    struct dv_list busy; /* of sim.waiting while requests wait */
    bool is_failing, is_removed, has_arrival;
    uint64_t retry_ns; /* of the event that is pending; 0: none */
    /* davit */
    uint64_t demand_ns;
    bool has_demand;
    uint32_t recent_peak[128]; /* waiting + in flight, the most in each second; for "no start without need" */
    uint64_t recent_s;
    void *sys; /* the system's own */
};

/* ---- nodes and replicas ---- */

enum sim_tier { SIM_COLD, SIM_PRIMED };

struct sim_replica {
    uint64_t id, generation;
    struct sim_fn *fn; /* events hold a replica's id, never its address */
    struct sim_node *node;
    enum dv_replica_state state;
    enum sim_tier tier;
    struct dv_live_replica *live;
    struct dv_slots *slots;
    struct dv_list of_fn, of_node, queued, inside; /* inside: struct sim_request */
    uint32_t in_flight;
    uint64_t made_ns, ready_ns, used_ns;
    int64_t bytes, mcpu;
    bool has_net, is_stopping, is_made, has_freeze_event, has_idle_event; /* is_made: the engine is at it */
};

struct sim_pool {
    int64_t wanted, ready, making;
};

struct sim_node {
    uint64_t id;
    size_t index;
    bool link_up, engine_ok, is_alive, is_draining;
    uint64_t epoch;                  /* of the link; messages of another are lost */
    uint64_t life;                   /* of the machine; what was being made in another is lost */
    struct dv_list replicas, starts; /* starts: waiting for the engine */
    size_t n_replicas;
    int n_starting, n_nets_used;
    int64_t used_bytes, used_mcpu;
    struct sim_pool pools[SIM_IMAGES_MAX];
    uint64_t up_at_ns;
    double slow; /* factor on starts */
};

struct sim_faults { /* per start, or per second of a node; 0: never */
    double start_fails, crashes_s, slow_starts;
    double cut_s, dies_s, engine_s;
    double drains_s, deploys_s, restarts_s; /* of the whole: a node drained, a function deployed or removed */
};

struct sim_sys_ops {
    const char *name;
    void (*init)(struct sim *s);
    void (*fn_added)(struct sim *s, struct sim_fn *f);
    void (*waits)(struct sim *s, struct sim_fn *f);     /* a request found no free slot */
    void (*idle)(struct sim *s, struct sim_replica *r); /* its last request left */
    void (*changed)(struct sim *s, struct sim_replica *r,
                    enum dv_reason why);             /* its state, seen by its agent */
    void (*link)(struct sim *s, struct sim_node *n); /* went up or down */
    void (*node)(struct sim *s,
                 struct sim_node *n); /* what it says of itself changed: its engine, its pools */
    void (*deinit)(struct sim *s);
};
extern const struct sim_sys_ops sim_davit, sim_fixed, sim_kpa;

struct sim {
    struct sim_cfg cfg;
    const struct sim_sys_ops *sys;
    void *sys_state;
    uint64_t now, steps, seq, next_id;
    struct dv_rng rng, start_rng;
    struct sim_event *heap;
    size_t n_heap, cap_heap;
    struct sim_fn **fns;
    size_t n_fns, cap_fns;
    struct sim_node *nodes;
    struct dv_map replicas; /* by id */
    struct dv_list waiting; /* functions with waiting requests */
    int64_t n_primed;       /* sandboxes that exist or are being made, in all */
    uint64_t primed_at_ns;  /* charged until then */
    struct sim_faults faults;
    bool faults_on, load_on;
    struct sim_stats stats;
    char trace[SIM_TRACE_LINES][200];
    size_t n_trace;
    int n_violations; /* tests look; the program aborts */
    bool is_lenient;  /* count violations instead of aborting */
    char violation[240];
};

struct sim *sim_new(const struct sim_cfg *cfg, const struct sim_sys_ops *sys);
void sim_free(struct sim *s);
/* def's strings are copied; the caller fills arrivals and times afterwards and calls sim_fn_begin. */
struct sim_fn *sim_fn_add(struct sim *s, const char *name, const char *image);
void sim_fn_begin(struct sim *s, struct sim_fn *f);
void sim_run(struct sim *s, uint64_t until_ns);
/* The end of the run: charges what exists still. */
void sim_settle(struct sim *s);
__attribute__((format(printf, 2, 3))) void sim_trace(struct sim *s, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void sim_violation(struct sim *s, const char *fmt, ...);

/* The way of a request. */
void sim_routes(struct sim *s, struct sim_fn *f, struct sim_replica *const *set, size_t n);
void sim_pump(struct sim *s, struct sim_fn *f);
void sim_refuse_waiting(struct sim *s, struct sim_fn *f);
void sim_lose_requests(struct sim *s, struct sim_replica *r);
uint64_t sim_load_of(const struct sim_fn *f); /* waiting + in flight */
void sim_link_changed(struct sim *s,
                      struct sim_node *n); /* slots reachable or not; requests inside are lost */

/* agents.c */
void sim_agents_init(struct sim *s);
void sim_agent_start(struct sim *s, struct sim_node *n, struct sim_fn *f, uint64_t id, uint64_t generation);
void sim_agent_stop(struct sim *s, struct sim_replica *r);
void sim_agent_fail(struct sim *s, struct sim_replica *r, enum dv_reason why);
void sim_agent_used(struct sim *s, struct sim_replica *r); /* a request entered: thawed */
void sim_agent_idle(struct sim *s, struct sim_replica *r);
void sim_agent_pools(struct sim *s, struct sim_node *n); /* wanted changed */
void sim_agent_die(struct sim *s, struct sim_node *n);
void sim_agent_gone(struct sim *s, struct sim_replica *r); /* freed */
void sim_charge_primed(struct sim *s);
struct sim_replica *sim_replica_find(struct sim *s, uint64_t id);
/* For systems without a scheduler: the emptiest node with room starts one; false: none has. */
bool sim_start_somewhere(struct sim *s, struct sim_fn *f);

/* faults.c */
void sim_faults_begin(struct sim *s);
void sim_node_cut(struct sim *s, struct sim_node *n);
void sim_node_mend(struct sim *s, struct sim_node *n);

/* check.c */
void sim_check(struct sim *s);
/* With no load and no faults any more: everything at its minimum, nothing left behind. */
void sim_check_settled(struct sim *s);
void sim_note_load(struct sim *s, struct sim_fn *f);
void sim_check_start(struct sim *s, struct sim_fn *f, uint64_t replica);

/* sys_davit.c */
struct dv_cluster *sim_davit_cluster(struct sim *s); /* NULL: another system */
enum { SIM_RESTART_NODES_MAX = 64 };
/* The orchestrator ends and begins anew: what it knew of replicas is gone, requests are lost, agents stay. */
void sim_davit_restart(struct sim *s);
void sim_davit_remove(struct sim *s, struct sim_fn *f);
void sim_davit_cordon(struct sim *s, struct sim_node *n, bool is_draining);

#endif

/* Every type that travels or is kept: functions, nodes, replicas, control messages and reports.
 * The field tables that turn them into JSON and back stand in proto/wire/tables.c; see proto/wire/codec.h.
 * Strings and lists of a decoded value belong to the arena it was decoded into; a value that is built in
 * code borrows.  Units are in the names. */
#ifndef DV_WIRE_TYPES_H
#define DV_WIRE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DV_NS_DEFAULT  "default"
#define DV_NAME_MAX    63
#define DV_METRICS_MAX 8 /* of one function */
/* What OpenFaaS clients call the default namespace. */
#define DV_NS_OPENFAAS "openfaas-fn"

struct dv_strs { /* list of strings */
    char **v;
    size_t n;
};

struct dv_kv {
    char *k, *v;
};

struct dv_kvs { /* string map, sorted by key, keys unique */
    struct dv_kv *v;
    size_t n;
};

/* ---------------------------------------------------------------- functions */

enum dv_protocol { DV_PROTO_HTTP, DV_PROTO_STDIO };   /* "http" "stdio" */
enum dv_pull { DV_PULL_MISSING, DV_PULL_ALWAYS };     /* "missing" "always" */
enum dv_auth_mode { DV_AUTH_OPEN, DV_AUTH_REQUIRED }; /* "open" "required" */
/* When a replica has a processor: while it holds requests (idle ones are frozen), or always. */
enum dv_cpu_mode { DV_CPU_REQUESTS, DV_CPU_ALWAYS }; /* "requests" "always" */

struct dv_health {
    char *path;               /* NULL: a TCP connect is the probe */
    int64_t interval_ms;      /* between probes while starting; default 20 (10-1000) */
    int64_t timeout_ms;       /* of one probe; default 1000 */
    int64_t start_timeout_ms; /* not ready by then: failed; default 60000 */
};

struct dv_limits {
    int64_t memory_bytes; /* 0: no limit.  At least 6 MiB otherwise (the engine's floor) */
    int64_t cpu_mcpu;     /* thousandths of a core; 0: no limit */
    int64_t pids;         /* default 512 */
    int64_t files;        /* open files; default 4096 */
    int64_t tmp_bytes;    /* size of /tmp; default 64 MiB */
};

struct dv_requests {      /* what the scheduler promises on a node */
    int64_t memory_bytes; /* 0: not given; then the limit, or 64 MiB (dv_fn_requests) */
    int64_t cpu_mcpu;     /* 0: not given; then 50, or the limit when that is smaller */
};

struct dv_window { /* of a schedule: from each time of cron on, for so long, at least min replicas */
    char *cron;
    char *timezone; /* NULL: UTC */
    int64_t duration_ms, min;
};

/* Of the series that fit; and how replicas follow: a sum is shared by them (replicas = sum / target), an
 * average or a maximum is a level that each of them sees (replicas = present ones * level / target). */
enum dv_fold { DV_FOLD_SUM, DV_FOLD_AVERAGE, DV_FOLD_MAX }; /* "sum" "average" "max" */

struct dv_metric {
    char *name;           /* of the series, as the endpoint writes it */
    char *url;            /* dv_metric_source_of */
    struct dv_kvs labels; /* that a series must have; others may be there */
    double target;
    double activation; /* above it there is work: wakes from zero; default 0 */
    enum dv_fold aggregate;
    int64_t interval_ms; /* default 10000 */
    int64_t timeout_ms;  /* 0: not given (dv_metric_timeout_ms) */
};

struct dv_scale {
    int64_t min;         /* default 0 */
    int64_t max;         /* default 20; 1..10000 */
    int64_t concurrency; /* requests at once in one replica; default 100 for http, 1 for stdio; 1..10000 */
    int64_t target;      /* wanted in-flight per replica; default 70 % of concurrency, at least 1 */
    int64_t rps;         /* wanted requests per second per replica, beside target; 0: not looked at */
    int64_t cpu;         /* wanted use of a replica's processors, percent of limit or request; 0: no matter */
    int64_t memory;      /* the same of its memory */
    int64_t
        idle_ms; /* without requests before going down to min (and to zero); 0: not given (dv_fn_idle_ms) */
    int64_t primed;           /* sandboxes kept ready for functions of its pool; default 0.  dv_pool_of */
    int64_t freeze_ms;        /* without requests before a replica is frozen; default 1000 */
    int64_t queue_max;        /* waiting requests; default 1000 */
    int64_t queue_timeout_ms; /* longest wait for a slot; default: the function's timeout */
    int64_t window_ms;       /* that load is averaged over; 0: not given, then idle_ms within 10 s to 1 min */
    int64_t panic_window;    /* percent of it that a burst is seen in; default 10 */
    int64_t panic_threshold; /* percent of what is ready that makes a burst; default 200 */
    int64_t down_ms;   /* fewer must have been enough for so long; 0: not given, then a sixth of the window */
    int64_t up_rate;   /* at most so many times what is ready, at once; 0: no bound but max and room */
    int64_t down_rate; /* at most divided by so much in one step; 0: no bound */
    struct dv_metric *metrics;
    size_t n_metrics;
    struct dv_window *schedule;
    size_t n_schedule;
};

struct dv_fn_spec {
    char *name; /* [a-z0-9]([-a-z0-9]*[a-z0-9])?, at most 63 */
    char *ns;   /* JSON "namespace"; default "default" */
    char *image;
    enum dv_pull pull;
    struct dv_strs entrypoint; /* overrides the image's ENTRYPOINT (and drops its CMD) when given */
    struct dv_strs command;    /* overrides the image's CMD when given; the program of a stdio function */
    struct dv_kvs env, labels, annotations;
    struct dv_strs secrets;
    struct dv_strs constraints; /* "label=value" or "label!=value" of the node */
    enum dv_protocol protocol;
    int64_t port; /* default 8080 */
    struct dv_health health;
    struct dv_limits limits;
    struct dv_requests requests;
    struct dv_scale scale;
    int64_t timeout_ms; /* of a whole request, waiting included; default 60000; up to 86400000 */
    int64_t grace_ms;   /* between SIGTERM and SIGKILL, after the last request ended; default 10000 */
    enum dv_auth_mode auth;
    enum dv_cpu_mode cpu;
    bool read_only; /* root file system; default true */
    char *user;     /* NULL: the image's */
    char *face;     /* which API wrote it: "v1" (default) or "openfaas"; decides defaults shown back */
};

/* A function as kept in the store and in memory. */
struct dv_function {
    uint64_t uid;        /* of this function; a function deleted and made again has another */
    uint64_t generation; /* grows with every change of the spec; replicas of an older one are replaced */
    uint64_t revision;   /* store revision: the ETag */
    int64_t created_ms, updated_ms; /* wall time */
    int64_t desired_override;       /* replicas set by the scale API; -1: none */
    struct dv_fn_spec spec;
};

/* ---------------------------------------------------------------- replicas */

/* One life cycle, one table (orchestrator/core/lifecycle.h). */
enum dv_replica_state {
    DV_REPLICA_COLD,     /* wanted, nothing exists yet; placed on a node */
    DV_REPLICA_PRIMED,   /* container exists, gate closed */
    DV_REPLICA_STARTING, /* "initializing": pulling, creating, started, not yet answering its probe */
    DV_REPLICA_WARM,     /* answers; may hold requests ("executing" is warm with in_flight > 0) */
    DV_REPLICA_FROZEN,
    DV_REPLICA_DRAINING, /* takes no new request */
    DV_REPLICA_FAILED,   /* reason says why */
    DV_REPLICA_GONE,
    DV_REPLICA_N_STATES
};

enum dv_reason {
    DV_REASON_NONE,
    DV_REASON_IMAGE_MISSING, /* the engine could not find or pull it */
    DV_REASON_IMAGE_DENIED,  /* the registry refused */
    DV_REASON_WRONG_ARCH,
    DV_REASON_CREATE_FAILED, /* the engine refused to create or start it */
    DV_REASON_EXITED,        /* the process ended by itself: exit_code, last log lines */
    DV_REASON_OOM,
    DV_REASON_NOT_READY, /* start_timeout passed without an answer to the probe */
    DV_REASON_NODE_LOST,
    DV_REASON_ENGINE_DOWN,
    DV_REASON_STOPPED,     /* as wanted */
    DV_REASON_INTERRUPTED, /* an agent that restarted found no container of it, or nothing run in it */
    DV_REASON_REMOVED,     /* somebody else removed its container */
    DV_REASON_N
};

struct dv_start_times { /* microseconds each phase took; 0 = not reached */
    int64_t pull_us, create_us, start_us, ready_us;
};

/* What an agent says about one replica. */
struct dv_replica_report {
    uint64_t id;
    uint64_t fn_uid, generation;
    char *fn; /* "name.namespace", for people */
    enum dv_replica_state state;
    enum dv_reason reason;
    char *message; /* the engine's or the function's own words; NULL when none */
    int64_t exit_code;
    char *log_tail;  /* last lines, for a replica that failed */
    char *container; /* engine id, 64 hex digits; NULL before create */
    char *address;   /* "172.17.0.2:8080" when it has one */
    int64_t restarts;
    struct dv_start_times times;
    int64_t in_flight;
    int64_t requests;     /* served since start */
    int64_t memory_bytes; /* from its cgroup */
    int64_t cpu_us;       /* total since start, from its cgroup */
    int64_t oom_kills;
    int64_t started_ms; /* wall time */
};

/* ---------------------------------------------------------------- nodes */

struct dv_join {          /* agent -> orchestrator, POST /v1/nodes/join */
    char *name;           /* of the node; default its host name */
    uint64_t node;        /* id kept in the agent's state directory; 0 at the first join */
    uint64_t incarnation; /* new at every start of the agent */
    char *address;        /* "host:port" where its link listens */
    char *version;
    struct dv_kvs labels;
};

struct dv_join_reply {
    uint64_t node;
    char *key; /* link key, 64 hex digits */
    char *version;
};

struct dv_node_record { /* kept in the store */
    uint64_t node;
    char *name, *address;
    char *key; /* sealed */
    struct dv_kvs labels;
    bool is_cordoned, is_draining; /* draining: emptied, and takes nothing new */
    int64_t joined_ms;
};

struct dv_image_ref {
    char *name; /* as a function names it: "repo:tag" */
    char *id;
};

/* Primed sandboxes of one kind on one node.  What a sandbox is made with, and cannot be changed when it is
 * opened, is its kind; functions of the same kind share them.  Limits of memory, processor and pids, the
 * environment, secrets, program and port belong to the function and travel when it is opened. */
struct dv_pool {
    char *image;
    char *user; /* NULL: the image's */
    bool read_only;
    int64_t tmp_bytes, files;
    int64_t n; /* ready: wanted so, or seen so */
};

struct dv_node_report {
    uint64_t node, incarnation;
    char *version; /* of the agent */
    bool engine_ok;
    char *engine_message;                                    /* why not */
    char *engine_version, *api_version, *arch, *os, *cgroup; /* "v1" / "v2" */
    int64_t cpus, memory_bytes, memory_available_bytes;
    int64_t cpu_used_mcpu; /* whole machine, over the last report interval */
    int64_t replicas_max;  /* that the agent will hold; default 500 */
    int64_t primed_max;    /* primed sandboxes that it will keep; -1: none; 0: it does not say */
    struct dv_strs images; /* names and tags present */
    struct dv_pool *pools; /* primed sandboxes that are ready */
    size_t n_pools;
    int64_t engine_calls, engine_errors;
};

/* ---------------------------------------------------------------- REST API: bodies that are not a function
 */

struct dv_apply { /* POST /v1/apply */
    struct dv_fn_spec *functions;
    size_t n_functions;
};

struct dv_secret_put { /* POST and PUT /v1/secrets...; one of the two values */
    char *name;
    char *ns; /* JSON "namespace" */
    char *value, *value_base64;
};

struct dv_ns_put { /* POST and PUT /v1/namespaces... */
    char *name;
    struct dv_kvs labels, annotations;
};

struct dv_scale_put { /* POST /v1/functions/{name}/scale; null gives it back to the autoscaler */
    int64_t replicas; /* -1: null */
};

/* ---------------------------------------------------------------- link: control and report
 * One JSON object a frame, tagged by `type`; exactly the member of that name is present.
 * Orchestrator -> agent (CONTROL): start, stop, sync, pools, logs, scrape.
 * Agent -> orchestrator (REPORT): node, replicas, logs, scrapes. */

struct dv_secret_value {
    char *name;
    char *value_base64;
};

struct dv_registry_auth {
    char *username, *password, *server;
};

struct dv_cmd_start { /* safe to repeat: a replica that exists is only reported again */
    uint64_t id;      /* of the replica */
    uint64_t fn_uid, generation;
    struct dv_fn_spec spec;
    struct dv_secret_value *secrets;
    size_t n_secrets;
    struct dv_registry_auth registry; /* username NULL: none */
};

struct dv_cmd_stop {
    uint64_t id;
    int64_t grace_ms; /* -1: the function's own */
    bool now;         /* do not wait for requests inside */
};

struct dv_cmd_sync { /* the whole truth: replicas not listed are stopped; sent at connect and every few
                        seconds */
    uint64_t *ids;
    size_t n_ids;
};

struct dv_cmd_pools { /* the whole truth: what is not listed is not kept; sent at connect and when it changes
                       */
    struct dv_pool *pools;
    size_t n_pools;
};

struct dv_cmd_logs {
    uint64_t request; /* answered under this number */
    uint64_t fn_uid;
    uint64_t replica; /* 0: every replica of the function */
    int64_t tail;     /* last lines; -1: all kept */
    int64_t since_ms; /* wall time; 0: from the start */
    bool follow;
    bool cancel; /* ends the request of this number */
};

/* Read this metric of these replicas, once; each is answered by one dv_scrape_result with the same marks. */
struct dv_cmd_scrape {
    uint64_t fn_uid, epoch; /* epoch: of the list that index counts in */
    int64_t index;
    struct dv_metric metric;
    uint64_t *replicas;
    size_t n_replicas;
};

struct dv_control_msg {
    char *type; /* "start" "stop" "sync" "pools" "logs" "scrape" */
    struct dv_cmd_start *start;
    struct dv_cmd_stop *stop;
    struct dv_cmd_sync *sync;
    struct dv_cmd_pools *pools;
    struct dv_cmd_logs *logs;
    struct dv_cmd_scrape *scrape;
};

struct dv_log_line {
    uint64_t replica;
    int64_t wall_ms;
    bool is_stderr;
    char *text;
};

struct dv_log_chunk {
    uint64_t request;
    struct dv_log_line *lines;
    size_t n_lines;
    bool end; /* nothing follows under this number */
};

struct dv_scrape_result {
    uint64_t fn_uid, epoch, replica;
    int64_t index;
    bool ok;
    double value;  /* when ok: finite, not negative */
    char *message; /* why not, otherwise */
};

struct dv_report {
    char *type; /* "node" "replicas" "logs" "scrapes" */
    struct dv_node_report *node;
    struct dv_replica_report *replicas; /* those that changed; or every one when is_full */
    size_t n_replicas;
    bool is_full;
    struct dv_log_chunk *logs;
    struct dv_scrape_result *scrapes;
    size_t n_scrapes;
};

#endif

/* What the files of the control row share. */
#ifndef DV_CONTROL_INTERNAL_H
#define DV_CONTROL_INTERNAL_H

#include "orchestrator/control/control.h"

#include "orchestrator/core/cluster.h"
#include "proto/base/alloc.h"
#include "proto/base/map.h"
#include "proto/rt/linkio.h"
#include "proto/rt/log.h"
#include "proto/rt/metrics.h"
#include "proto/wire/codec.h"

enum {
    CTL_EVENTS_MAX = 100,
    CTL_SECRET_MAX = 1024 * 1024,
    CTL_RETRIES = 8,
    CTL_LINK_KEY_TEXT = 65,
    CTL_REFUSED_MAX = 64
};

#define CTL_MS 1000000ull
#define CTL_S  1000000000ull

/* ---- writes ---- */

/* A commit on its way.  prepare looks at what is in memory now and lists the writes; when somebody else's
 * commit came first (the store says conflict), it is asked again, so every write is compare-and-swap on what
 * it was decided on. */
struct ctl_write {
    struct dv_store_job job;
    struct dv_list node;  /* of control->writes */
    struct dv_control *c; /* NULL: the control was freed meanwhile */
    struct dv_arena arena;
    struct dv_store_write *writes;
    size_t n_writes;
    uint64_t revision;
    int tries;
    int (*prepare)(struct ctl_write *w,
                   struct dv_err *err);   /* fills writes from `arena`; DV_OK with none: nothing to do */
    void (*apply)(struct ctl_write *w);   /* committed: make it so in memory */
    void (*cleanup)(struct ctl_write *w); /* of what payload holds outside of the arena; or NULL */
    void *payload;                        /* in arena */
    dv_control_done *done;
    void *ctx;
    struct dv_mailbox *mailbox;
    struct dv_msg late; /* answers without a commit */
    int late_code;
    struct dv_err late_err;
};

/* A blank write with its payload zeroed in the arena; NULL when out of memory. */
struct ctl_write *ctl_write_new(struct dv_control *c, size_t payload_bytes, dv_control_done *done, void *ctx);
void ctl_write_free(struct ctl_write *w);
/* Prepares; an error is returned (and w freed, done never called); otherwise done follows. */
int ctl_write_submit(struct ctl_write *w, struct dv_err *err);
/* Answer code to done at a later turn, without a commit. */
void ctl_write_answer(struct ctl_write *w, int code);
/* Add one write; key and value are copied.  DV_OK or DV_E_NOMEM. */
int ctl_write_add(struct ctl_write *w, const char *key, struct dv_sv value, bool is_delete,
                  uint64_t if_revision);

/* ---- functions ---- */

struct ctl_event {
    int64_t wall_ms;
    const char *kind; /* static */
    char *message;
    uint64_t replica, node;
    uint32_t count;
};

struct ctl_schedule; /* control_schedule.c */
struct ctl_scrapes;  /* control_scrape.c */
struct ctl_node;

struct ctl_def { /* one version of a function; the core borrows def */
    struct dv_function def;
    struct dv_arena arena;
};

struct ctl_fn {
    uint64_t uid;
    struct ctl_def *v;
    char *key;                     /* "ns/name" */
    struct ctl_schedule *schedule; /* NULL: none */
    struct ctl_scrapes *scrapes;   /* NULL: it names no metrics */
    struct ctl_event *events;      /* ring */
    size_t n_events, cap_events, first_event;
};

int ctl_fn_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err);
void ctl_fn_free(struct ctl_fn *f);
struct ctl_fn *ctl_fn_find(struct dv_control *c, struct dv_sv ns, struct dv_sv name);
void ctl_fn_tell_gateway(struct dv_control *c, const struct dv_cluster_fn *f, const struct ctl_fn *cf);
void ctl_fn_routes(struct dv_control *c, const struct dv_cluster_fn *f);
void ctl_event(struct dv_control *c, uint64_t fn_uid, const char *kind, const char *message, uint64_t replica,
               uint64_t node);
void ctl_fn_awake(struct dv_control *c, uint64_t fn_uid); /* the override 0 is spent */
size_t ctl_fns_in(const struct dv_control *c, struct dv_sv ns);
int ctl_fn_insert(struct dv_control *c, struct ctl_def *v); /* takes v, whatever comes of it */
void ctl_fn_drop(struct dv_control *c, struct ctl_fn *f);   /* out of memory, core and gateway */
/* The version that follows `have` (NULL: the first one), with a copy of spec.  DV_OK or DV_E_NOMEM. */
int ctl_def_new(struct dv_control *c, const struct dv_fn_spec *spec, const struct ctl_fn *have,
                struct ctl_def **out);
void ctl_def_free(struct ctl_def *v); /* NULL is fine */
/* Add v to what w writes. */
int ctl_def_write(struct ctl_write *w, const struct ctl_def *v, uint64_t if_revision);

/* ---- schedules ---- */

/* Follow the schedule of f's version, from now on.  free: NULL is fine. */
void ctl_schedule_put(struct dv_control *c, struct ctl_fn *f);
void ctl_schedule_free(struct ctl_schedule *s);
/* Are its time zones known here?  DV_OK; DV_INVALID with the field's name; a failure. */
int ctl_schedule_check(struct dv_control *c, const struct dv_fn_spec *spec, char *field, size_t cap,
                       struct dv_err *err);
void ctl_zones_free(struct dv_control *c);

/* ---- metrics that users name ---- */

/* Read those of f's version, from now on.  free: NULL is fine. */
void ctl_scrapes_put(struct dv_control *c, struct ctl_fn *f);
void ctl_scrapes_free(struct ctl_scrapes *s);
void ctl_scrapes_take(struct ctl_node *n, const struct dv_report *rep); /* what an agent read */

/* ---- nodes ---- */

struct ctl_node {
    struct dv_control *c;
    uint64_t id;
    struct dv_node_record rec; /* key: sealed */
    struct dv_arena rec_arena;
    uint64_t revision;
    uint8_t key[DV_LINK_KEY_BYTES];
    struct dv_node_report report;
    struct dv_arena report_arena;
    bool has_report;
    int64_t seen_wall_ms;
    /* session */
    struct dv_linkio *io;
    bool is_open, is_told; /* the link is; the gateway knows the node */
    struct dv_timer retry;
    uint64_t backoff_ns;
    char *trouble; /* why it cannot be reached; NULL: nothing known against it */
};

int ctl_node_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err);
void ctl_node_free(struct ctl_node *n);
struct ctl_node *ctl_node_of(const struct dv_control *c, uint64_t id);
void ctl_node_tell_gateway(struct ctl_node *n);

/* node_session.c */
void ctl_session_start(struct ctl_node *n);   /* connect now; harmless when connected */
void ctl_session_restart(struct ctl_node *n); /* drop what is there and connect to the (new) address */
void ctl_session_stop(struct ctl_node *n);
int ctl_session_send(struct ctl_node *n, const struct dv_control_msg *msg); /* DV_OK; DV_CLOSED; failure */

void ctl_session_dismiss(struct ctl_node *n); /* have it stop all it holds; the link is closed thereafter */

/* An agent whose node was removed while it was connected. */
struct ctl_refused {
    uint64_t node, incarnation;
};

/* What an agent last said about a replica. */
struct ctl_replica {
    uint64_t id;
    struct dv_arena arena;
    struct dv_replica_report report;
};

/* ---- namespaces, secrets, registries ---- */

struct ctl_ns {
    struct dv_arena arena;
    const char *name;
    struct dv_kvs labels, annotations;
    int64_t created_ms;
    uint64_t revision;
};

struct ctl_secret {
    char *key; /* "ns/name" */
    char *sealed;
    int64_t updated_ms;
    uint64_t revision;
};

struct ctl_registry {
    char *server, *username, *sealed;
    uint64_t revision;
};

int ctl_ns_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err);
int ctl_secret_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err);
int ctl_registry_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err);
void ctl_secrets_free(struct dv_control *c);
void ctl_namespaces_free(struct dv_control *c);
bool ctl_secret_exists(const struct dv_control *c, const char *ns, const char *name);
/* Values for a start command, decrypted into arena; a secret that was deleted is left out.  DV_OK, DV_E_NOMEM
 * ... */
int ctl_secrets_for(struct dv_control *c, const struct dv_fn_spec *spec, struct dv_arena *arena,
                    struct dv_secret_value **out, size_t *out_n, struct dv_err *err);
/* Credentials for the image's registry, or username NULL. */
int ctl_registry_for(struct dv_control *c, const char *image, struct dv_arena *arena,
                     struct dv_registry_auth *out, struct dv_err *err);

/* ---- logs ---- */

void ctl_logs_chunk(struct dv_control *c, struct ctl_node *n, const struct dv_log_chunk *chunk);
void ctl_logs_fn_gone(struct dv_control *c, uint64_t fn_uid);
void ctl_logs_node_down(struct dv_control *c, struct ctl_node *n);
void ctl_logs_free_all(struct dv_control *c);

/* ---- metrics ---- */

enum ctl_phase {
    CTL_PHASE_PLACE,
    CTL_PHASE_PULL,
    CTL_PHASE_CREATE,
    CTL_PHASE_START,
    CTL_PHASE_READY,
    CTL_PHASE_TOTAL,
    CTL_N_PHASES
};

struct ctl_counters {
    struct dv_hist phases[CTL_N_PHASES];
    uint64_t starts, stops, failures[DV_REASON_N], reports, link_opened, link_closed, unsent, writes,
        write_errors, scrapes, scrape_failures;
};

/* ---- the whole ---- */

struct dv_control {
    struct dv_control_cfg cfg;
    struct dv_gateway *gateway; /* NULL before dv_control_serve */
    struct dv_cluster *cluster;
    struct dv_rng rng;
    struct dv_map fns_by_uid;
    struct ctl_fn **fns; /* in order of namespace and name */
    size_t n_fns, cap_fns;
    struct dv_map nodes; /* by id */
    const char **images; /* of the node looked at last */
    size_t cap_images;
    struct ctl_refused refused[CTL_REFUSED_MAX]; /* a ring; node 0: free */
    size_t next_refused;
    struct dv_map replicas; /* struct ctl_replica by id */
    struct dv_map namespaces, secrets, registries;
    struct dv_map zones; /* struct ctl_zone by name */
    struct dv_list logs;
    uint64_t last_log;
    struct dv_list writes;
    struct dv_timer tick;
    struct dv_httpc *http; /* made when it is first needed */
    size_t n_scraping;
    uint64_t last_epoch;
    bool is_loaded, is_pumping;
    struct ctl_counters n;
    void (*on_loaded)(void *ctx, int code, const struct dv_err *err);
    void *on_loaded_ctx;
    void (*backlog)(void *ctx, uint64_t fn_uid, uint64_t *items, uint64_t *parallel); /* or NULL */
    void *backlog_ctx;
    void (*on_removed)(void *ctx, uint64_t fn_uid); /* or NULL */
    void *on_removed_ctx;
    struct ctl_load *load;
};

static inline uint64_t ctl_now(const struct dv_control *c)
{
    return dv_clock_now_ns(c->cfg.clock);
}
static inline int64_t ctl_wall(const struct dv_control *c)
{
    return dv_clock_wall_ms(c->cfg.clock);
}
/* Carry out what the core decided, then see to the next tick.  After every input. */
void ctl_pump(struct dv_control *c);
/* The wall time of something the core timed. */
int64_t ctl_wall_of(const struct dv_control *c, uint64_t mono_ns);
/* Sorted copies of map keys, for listings: values of m ordered by name(v); *out is the caller's (dv_free). */
int ctl_sorted(const struct dv_map *m, int (*cmp)(const void *, const void *), void ***out, size_t *out_n);

#endif

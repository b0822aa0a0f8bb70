/* Primed sandboxes: containers made ahead of need, whose first process waits at a gate (agent/init/gate.c).
 *
 *   CREATE -> START -> INSPECT -> HELLO -> READY -> OPENED -> gone with its replica
 *
 * A box belongs to a pool until it is opened for a replica; from then on it is that replica's container, and
 * nobody else's ever.  On the host it has a directory, RUN_DIR/box/ID/:
 *   gate/sock   the socket that its first process comes to; gate/ is mounted into it
 *   secrets/    mounted too, filled when it is opened
 *   replica     whose it has become, in hex; absent: still closed
 * What else must outlive the agent stands in the container's labels. */
#ifndef DV_SANDBOX_BOX_H
#define DV_SANDBOX_BOX_H

#include "agent/engine/engine.h"
#include "proto/base/arena.h"
#include "proto/base/buf.h"
#include "proto/base/list.h"
#include "proto/base/map.h"
#include "proto/rt/gate.h"
#include "proto/rt/loop.h"

struct dv_cgroup;
struct dv_sandbox;
struct sb_replica;

/* ---- gate.c: the agent's side of one gate ---- */

struct sb_gate {
    struct dv_loop *loop;
    struct dv_io listener, conn;
    int listen_fd, fd; /* -1: none */
    int64_t peer_pid;  /* of who is connected; 0: not told (another pid namespace) */
    int64_t only_pid;  /* nobody else is taken; 0: anybody; -1: nobody yet */
    char in[512];
    size_t n_in;
    struct dv_buf out;
    /* A word came.  False: the gate is closed or gone, touch it no more. */
    bool (*on_word)(void *ctx, const struct dv_gate_word *w);
    void (*on_lost)(void *ctx); /* it closed, or spoke nonsense; may free the gate */
    void *ctx;
};
void sb_gate_init(struct sb_gate *g, struct dv_loop *loop,
                  bool (*on_word)(void *, const struct dv_gate_word *), void (*on_lost)(void *), void *ctx);
/* Listen in dir; one connection is taken.  DV_OK; DV_E_IO. */
int sb_gate_listen(struct sb_gate *g, const char *dir, struct dv_err *err);
/* Say this (bytes are moved out of msg).  What does not fit the socket now follows by itself.  DV_OK;
 * DV_CLOSED; DV_E_IO. */
int sb_gate_say(struct sb_gate *g, struct dv_buf *msg);
void sb_gate_close(struct sb_gate *g); /* may be repeated; no callback follows */

/* ---- pool.c: how many of which kind ---- */

struct sb_pool {
    struct dv_sandbox *sb;
    struct dv_list node;
    struct dv_arena arena;
    struct dv_pool kind; /* n: wanted */
    bool is_wanted;      /* listed by the orchestrator; false: goes when its boxes are gone */
    size_t n_making, n_ready;
    /* its image, as last seen */
    enum { POOL_UNKNOWN, POOL_ASKING, POOL_PULLING, POOL_HERE } image;
    struct dv_arena image_arena;
    char image_id[80];
    struct dv_strs entrypoint, command;
    uint64_t checked_ns;
    /* trouble */
    unsigned failures; /* in a row */
    uint64_t retry_ns; /* monotonic: not before */
    char why[240];
};

struct sb_pools {
    struct dv_list all;   /* sb_pool */
    struct dv_list boxes; /* sb_box */
    struct dv_map by_id;  /* sb_box */
    char *dir;            /* RUN_DIR/box */
    bool is_told;         /* the orchestrator has said what it wants */
    bool is_swept;        /* directories of boxes that are no more were removed */
    int n_removing, n_begun;
    bool is_filling;
    uint64_t last_take_ns, need_ns; /* quiet is waited for, but not for ever */
    struct dv_timer timer;
    struct dv_pool *view; /* for the report */
    size_t n_view;
    uint64_t version; /* grows when a box has become ready, or one is lost */
    struct {
        uint64_t made, opened, missed, lost, failures, relimited;
    } counts;
};

void sb_pools_init(struct dv_sandbox *s);
void sb_pools_free(struct dv_sandbox *s); /* boxes keep running */
void sb_pools_tick(struct dv_sandbox *s);
void sb_pools_refill(struct dv_sandbox *s);
/* The engine has told what this name stands for now: boxes of another image are dropped. */
void sb_pools_image(struct dv_sandbox *s, const char *name, const struct dv_engine_image *img);
/* A ready box that fits; NULL: none.  It is the caller's to open (sb_box_open). */
struct sb_box *sb_pools_find(struct dv_sandbox *s, const struct dv_fn_spec *spec);
struct sb_pool *sb_pool_get(struct dv_sandbox *s,
                            const struct dv_pool *kind); /* made when absent; NULL: no memory */
void sb_pool_failed(struct sb_pool *p, const char *why);
void sb_pools_changed(struct dv_sandbox *s, bool is_news); /* numbers of boxes */
void sb_pools_metrics(const struct dv_sandbox *s, struct dv_buf *out);

/* ---- box.c: one of them ---- */

enum sb_box_state { BOX_CREATE, BOX_START, BOX_INSPECT, BOX_HELLO, BOX_READY, BOX_OPENED, BOX_REMOVE };

struct sb_box {
    struct dv_sandbox *sb;
    struct dv_list node;
    uint64_t id; /* label dev.davit.primed */
    enum sb_box_state state;
    struct sb_pool *pool;       /* NULL once opened or given up */
    struct sb_replica *replica; /* opened: whose */
    bool is_refill, has_hello, is_sent, is_calling, is_removing;
    uint64_t since_ns; /* monotonic: in this state */
    char container[72], ip[64], image_id[80];
    int64_t pid;
    struct dv_cgroup *cgroup;
    struct sb_gate gate;
    struct dv_timer timer; /* longest wait for hello */
    struct dv_buf order;   /* while limits are set by the engine */
};

int sb_box_make(struct sb_pool *p); /* DV_OK; DV_E_NOMEM; DV_E_IO */
/* Give this ready box to r and run its program there: no engine call on the way.  DV_OK: r goes on by itself,
 * or has failed.  DV_INVALID, DV_TOO_LARGE, DV_E_NOMEM: nothing has happened, start it cold. */
int sb_box_open(struct sb_box *b, struct sb_replica *r);
struct sb_box *sb_box_new(struct dv_sandbox *s, uint64_t id, struct sb_pool *p, enum sb_box_state state);
void sb_box_inspect(struct sb_box *b); /* one that runs: on to READY, or given up */
/* Take the process that comes to its gate: this one, anybody (0), nobody yet (-1).  DV_OK; DV_E_IO. */
int sb_box_listen(struct sb_box *b, int64_t only_pid, struct dv_err *err);
void sb_box_drop_dir(struct dv_sandbox *s, uint64_t id);
void sb_box_discard(struct sb_box *b); /* not an opened one */
/* Its container is gone, or belongs to nobody any more. */
void sb_box_over(struct sb_box *b);
void sb_box_free(struct sb_box *b); /* the agent ends; its container stays */
struct sb_box *sb_box_by_container(struct dv_sandbox *s, const char *container);
/* Limits that somebody else has set anew (systemd, when it reloads) are set right. */
void sb_box_check_limits(struct sb_replica *r);
/* Its directory, or what stands below ("/secrets").  DV_OK or DV_TOO_LARGE. */
int sb_box_path(const struct sb_box *b, const char *below, char *out, size_t cap);
bool sb_box_event(struct dv_sandbox *s, const struct dv_engine_event *ev); /* true: of a closed box */

/* ---- adopt.c: boxes in the engine's listing ---- */

/* Before replicas are compared: boxes from an earlier life are known again. */
void sb_boxes_listed(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n);
/* Is it a box's container?  False: no.  True: *out_is_closed: leave it alone; else *out_replica owns it, 0:
 * nobody. */
bool sb_boxes_owner(struct dv_sandbox *s, const struct dv_engine_container *c, bool *out_is_closed,
                    uint64_t *out_replica);

#endif

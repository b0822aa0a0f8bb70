/* Inside of the carry: what the state loop's side (carry.c), the loops (carry_loop.c) and their streams
 * (stream.c, hold.c, upconn.c, inquiry.c) share. */
#ifndef DV_CARRY_INTERNAL_H
#define DV_CARRY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include "agent/carry/carry.h"
#include "proto/base/buf.h"
#include "proto/base/list.h"
#include "proto/base/map.h"
#include "proto/rt/addr.h"
#include "proto/rt/h1up.h"
#include "proto/rt/loop.h"

enum {
    CARRY_KEPT_BYTES = 16 * 1024, /* of a request's body kept for a second try on a fresh connection */
    CARRY_IDLE_MS = 1500,         /* a kept-alive connection unused for longer is closed: below the shortest
                                     time-out that common servers have (2 s), so that ours is the one that closes */
    CARRY_CONNECT_MS = 3000,      /* a container that does not even take the connection */
    CARRY_KNOCK_MS = 10, /* after which a connection that broke off is asked whether anybody still listens */
    CARRY_WHY_MS = 250,  /* how long the end of a process is awaited that has closed its connection */
    CARRY_SPARE_STREAMS = 256, /* kept for reuse, per loop */
    CARRY_SPARE_BYTES = 4096   /* memory that a spare stream's buffers may keep */
};

enum carry_outcome { /* counted; the label of davit_agent_requests_total */
                     CARRY_OK,
                     CARRY_CANCEL,
                     CARRY_NOT_HERE,
                     CARRY_REFUSED,
                     CARRY_CONNECT,
                     CARRY_BROKEN,
                     CARRY_BAD_ANSWER,
                     CARRY_TIMEOUT,
                     CARRY_EXITED,
                     CARRY_SHUTDOWN,
                     CARRY_N_OUTCOMES
};

/* In carry_live.in_flight, beside the count: the replica sleeps (hold.c). */
#define CARRY_ASLEEP (1ull << 63)

struct carry_loop;

/* A replica's place in one loop's mail: made with the replica, so that telling a loop can never fail. */
struct carry_news {
    struct dv_msg put, remove;
    struct dv_msg ask; /* loop -> state loop and back again: requests are held here */
    uint64_t held_ns;  /* of the first of them; the loop's until it has posted `ask` */
    bool is_asked;     /* `ask` is with the state loop; its field */
    struct carry_loop *loop;
    struct carry_live *live;
};

/* What all loops share of a replica.  Lives until the state loop and every loop have let go. */
struct carry_live {
    _Atomic int refs;
    struct dv_carry *carry;
    uint64_t id;
    char address_text[64];
    struct dv_addr address;
    _Atomic uint32_t concurrency;
    _Atomic uint64_t in_flight;       /* count of requests inside, and CARRY_ASLEEP */
    _Atomic uint64_t served, left_ns; /* left_ns: when the last request left, or the replica was put */
    _Atomic bool is_draining, is_drain_told, is_trouble_pending;
    _Atomic int trouble;         /* enum dv_link_reset */
    enum dv_link_reset why_gone; /* set before the removal is posted */
    char why_text[DV_LINK_MAX_REASON];
    _Atomic int n_holding; /* loops that may still have connections to it */
    bool is_close_told;    /* set before the removal is posted: somebody waits for the last of them */
    struct dv_msg drained_msg, trouble_msg, closed_msg;
    struct carry_news news[]; /* one per loop */
};

/* A replica as one loop sees it. */
struct carry_slot {
    struct carry_live *live;
    struct dv_list streams; /* inside now */
    struct dv_list idle;    /* connections, most recently used first */
    bool is_asking;         /* its `ask` is under way */
};

/* A connection to a container. */
struct carry_up {
    struct dv_list in_slot, in_loop; /* while idle */
    struct carry_loop *loop;
    struct carry_slot *slot;
    struct dv_h1up *up;
    struct carry_stream *stream; /* NULL while idle */
    uint64_t idle_since_ns;
    bool was_used; /* has carried a whole request before */
};

/* A data link from a gateway. */
struct carry_link {
    struct dv_list node;
    struct carry_loop *loop;
    struct dv_linkio *io;
};

struct carry_stream {
    struct dv_list node; /* in its slot, or among the spare ones */
    struct carry_loop *loop;
    struct carry_link *link;
    uint32_t id;
    struct carry_slot *slot;
    struct carry_up *up;
    struct dv_timer timer;
    uint64_t arrived_ns, begun_ns, deadline_ns; /* deadline 0: none */
    /* request */
    struct dv_buf head; /* method, target, fields */
    size_t n_method, n_target;
    enum dv_h1_body body;
    uint64_t content_length;
    struct dv_buf pending; /* came over the link, not yet taken by the connection: at most a window */
    struct dv_buf kept;    /* has been taken; for a second try */
    size_t owed;           /* of credit: taken while the function cannot have seen any of it */
    struct dv_buf trailers, answer_trailers;
    bool is_kept_whole;  /* kept holds all that was taken */
    bool is_request_end; /* the link has no more */
    bool is_finished;    /* the connection was told so */
    /* answer */
    bool has_head, is_upgraded, is_answer_end, was_retried;
    bool is_seen; /* the function may have had it: no failure may look as if it had not */
    bool is_held; /* its replica sleeps; nothing has been sent */
    /* its connection broke off: see inquiry.c */
    enum { CARRY_NO_INQUIRY, CARRY_WAITS_TO_KNOCK, CARRY_HAS_KNOCKED } inquiry;
    int knock_fd; /* -1: not knocking */
    struct dv_io knock;
};

struct carry_loop {
    struct dv_carry *carry;
    int index;
    pthread_t thread;
    bool has_thread;
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_msg stop_msg;
    struct dv_map slots; /* id -> carry_slot */
    struct dv_list links, idle, spare;
    size_t n_spare;
    struct dv_timer idle_timer;
    struct dv_buf lines; /* scratch: fields of an answer */
    bool is_stopping, is_leaving;
    /* counters: written here, read by the state loop */
    _Atomic uint64_t outcomes[CARRY_N_OUTCOMES];
    _Atomic uint64_t connects, reuses, retries, held, bytes_in, bytes_out, n_streams;
};

struct dv_carry {
    _Atomic int
        refs; /* the owner's and one per live replica: messages to the state loop may outlast dv_carry_free */
    bool is_closed; /* state loop */
    _Atomic int n_links;
    _Atomic bool is_leaving, is_left_pending;
    struct dv_msg left_msg;
    struct dv_carry_cfg cfg;
    struct dv_map lives; /* id -> carry_live, state loop */
    int n_loops, next_loop;
    struct carry_loop *loops;
};

static inline void carry_count(_Atomic uint64_t *c, uint64_t n)
{
    /* one writer: a plain add is enough, and cheaper than a locked one */
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t carry_inside(const struct carry_live *live)
{
    return atomic_load(&live->in_flight) & ~CARRY_ASLEEP;
}

/* carry.c */
void carry_live_ref(struct carry_live *live);
void carry_live_unref(struct carry_live *live);
void carry_tell_drained(struct carry_live *live); /* once; any thread */
void carry_tell_closed(struct carry_live *live);  /* by each loop when it has closed its connections */
void carry_tell_trouble(struct carry_live *live, enum dv_link_reset what);
void carry_link_gone(struct dv_carry *c);    /* one less; any thread */
void carry_tell_if_left(struct dv_carry *c); /* any thread */

/* carry_loop.c */
int carry_loop_init(struct carry_loop *l, struct dv_carry *c, int index, struct dv_err *err);
void carry_loop_join(struct carry_loop *l);
void carry_loop_deinit(struct carry_loop *l);
void carry_loop_put(struct dv_msg *m);
void carry_loop_remove(struct dv_msg *m);
void carry_loop_adopt(struct carry_loop *l, struct dv_linkio *io);
void carry_loop_goaway(void *loop);

/* upconn.c */
/* A connection for s: an idle one unless fresh is asked for, which then takes an idle one's place.  DV_OK, or
 * why none can be had. */
int carry_up_take(struct carry_stream *s, bool fresh);
void carry_up_give(struct carry_up *u); /* to the idle ones */
void carry_up_drop(struct carry_up *u); /* closes; no callback follows */
void carry_up_drop_idle(struct carry_slot *slot);
void carry_up_expire(struct dv_timer *t);

/* hold.c */
void carry_hold(struct carry_stream *s);     /* until its replica is awake: carry_stream_go */
void carry_unasked(struct carry_live *live); /* state loop: nobody will be answered, the replica is gone */

/* inquiry.c */
/* The connection is gone, no answer has begun: ends the stream within CARRY_KNOCK_MS + CARRY_WHY_MS, with the
 * best reason. */
void carry_inquiry_begin(struct carry_stream *s);
void carry_inquiry_on_timer(struct carry_stream *s);
void carry_inquiry_end(struct carry_stream *s); /* stops knocking */

/* stream.c */
void carry_stream_open(struct carry_link *link, const struct dv_link_event *ev);
void carry_stream_event(struct carry_stream *s, const struct dv_link_event *ev);
void carry_stream_go(struct carry_stream *s); /* it was held: send it */
/* End it out of turn; the gateway is told why unless the link is gone. */
void carry_stream_abort(struct carry_stream *s, enum dv_link_reset why);
/* The same when its replica, or all of us, go away: one that was held may be tried elsewhere. */
void carry_stream_cut(struct carry_stream *s, enum dv_link_reset why);
void carry_stream_vanish(struct carry_stream *s);  /* its link is gone */
void carry_stream_destroy(struct carry_stream *s); /* memory only */
/* What its connection says. */
void carry_stream_on_head(struct carry_stream *s, const struct dv_h1_head *head);
size_t carry_stream_on_data(struct carry_stream *s, struct dv_sv bytes);
void carry_stream_on_trailers(struct carry_stream *s, struct dv_sv fields);
void carry_stream_on_end(struct carry_stream *s, bool is_reusable);
void carry_stream_on_writable(struct carry_stream *s);
void carry_stream_on_error(struct carry_stream *s, enum dv_h1up_fail why);

#endif

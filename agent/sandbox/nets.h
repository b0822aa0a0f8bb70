/* Ready networks, and turns at the engine.
 *
 * A holder is a tiny container that only waits, with an address of its own on the agent's bridge.  Whoever
 * joins its network (NetworkMode container:ID) is spared the larger half of a container's start.  One user at
 * a time: replicas (replica.c) and primed sandboxes alike take one, and give it back when their container is
 * gone.  It is lent again only when every connection that the carry had to its last user is closed, too: an
 * address never reaches another function while the old one is still being talked to. */
#ifndef DV_SANDBOX_NETS_H
#define DV_SANDBOX_NETS_H

#include <stdbool.h>
#include <stdint.h>
#include "agent/engine/engine.h"
#include "proto/base/list.h"

struct dv_sandbox;

enum sb_holder_state {
    HO_CREATE,
    HO_START,
    HO_INSPECT, /* which address did it get? */
    HO_FOUND,   /* of an earlier life of this agent: is somebody inside? */
    HO_READY,
    HO_TAKEN,
    HO_CLOSING, /* given back, but the carry still has connections to its last user */
    HO_REMOVE,
    HO_N
};

struct sb_holder {
    struct dv_sandbox *sb;
    struct dv_list node; /* of sb_nets.all; those that are ready in the order in which they became so */
    uint64_t id;         /* label dev.davit.holder */
    enum sb_holder_state state;
    uint64_t since_ns; /* monotonic: in this state */
    bool is_refill;    /* counted as one */
    bool is_claimed;   /* while a listing is compared: a container has joined it */
    bool is_closing;   /* the carry has connections to `replica` */
    uint64_t replica;
    char container[72], address[64]; /* address without port */
    void (*on_lost)(void *ctx);
    void *ctx;
};

struct sb_nets {
    struct dv_list all;
    size_t n[HO_N];
    int n_refills;      /* creates and starts under way that no request waits for, networks' and sandboxes' */
    uint64_t refill_ns; /* monotonic: when the last of them began */
    bool is_importing, is_bad; /* bad: the last try to make one failed */
    uint64_t retry_ns;         /* monotonic: not before */
    struct {
        uint64_t made, lost, removed, joined, missed, failures;
    } counts;
};

/* Lend a ready network to one user; NULL: none is ready, or they are turned off (make a network of your own).
 * on_lost: the holder is gone while lent (the engine's doing, or a person's), whoever is inside can be
 * reached no more; the holder must not be touched afterwards, nor given back.  Never from inside take. */
struct sb_holder *sb_holder_take(struct dv_sandbox *s, void (*on_lost)(void *ctx), void *ctx);
/* Its user changes: a primed sandbox becomes a replica. */
void sb_holder_pass(struct sb_holder *h, void (*on_lost)(void *ctx), void *ctx);
/* The user's container is gone, or (is_gone false) may still be there: then the network is not lent again but
 * removed.  h may be NULL. */
void sb_holder_give_back(struct sb_holder *h, bool is_gone);
/* dv_carry_replica_remove has answered DV_OK for this replica, which uses h: connections to it may be open
 * until sb_nets_closed.  Before h is given back. */
void sb_holder_closing(struct sb_holder *h, uint64_t replica);
/* From the listing after a restart: the holder whose network a running container has joined is lent to its
 * user again. NULL: it is not known, or somebody else's. */
struct sb_holder *sb_holder_claim(struct dv_sandbox *s, const char *joins, void (*on_lost)(void *ctx),
                                  void *ctx);

/* ---- turns: what no request waits for goes after everything that one waits for ---- */
/* How many creates and starts the engine is asked for at once; what is more waits here, in order. */
int sb_starts_max(const struct dv_sandbox *s);
/* May a create begin that only fills a pool? */
bool sb_refill_may(const struct dv_sandbox *s);
/* Around that create and its start. */
void sb_refill_begin(struct dv_sandbox *s);
void sb_refill_end(struct dv_sandbox *s);

/* ---- for sandbox.c ---- */
void sb_nets_init(struct dv_sandbox *s);
void sb_nets_free(struct dv_sandbox *s); /* holders keep running */
void sb_nets_refill(struct dv_sandbox *s);
void sb_nets_tick(struct dv_sandbox *s); /* every second */
bool sb_nets_is_holder(const struct dv_engine_container *c);
/* Compare with a complete listing.  Begin: what is known of the holders in it; then their users claim; end:
 * holders that nobody is inside of are ready again. */
void sb_nets_listed(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n);
void sb_nets_settled(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n);
bool sb_nets_event(struct dv_sandbox *s, const struct dv_engine_event *ev); /* true: it was a holder's */
void sb_nets_closed(struct dv_sandbox *s, uint64_t replica);
bool sb_nets_is_running(const struct dv_engine_container *c);

#endif

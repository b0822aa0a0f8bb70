/* Why a function has the number of replicas that it has: its last changes, each with what every signal asked
 * for.  Bounded three ways: so many of one function, so many of all, none older than a day; a function that
 * never changed holds nothing.  Pure; one owner. */
#ifndef DV_DECISIONS_H
#define DV_DECISIONS_H

#include "orchestrator/core/autoscale.h"
#include "proto/base/list.h"

enum { DV_DECISIONS_OF_FN = 50, DV_DECISIONS_OF_ALL = 20000 };

struct dv_decided_ask {
    uint8_t signal; /* enum dv_scale_signal */
    bool is_hold;
    int64_t replicas;
    const char *name; /* of the metric; NULL for the others */
};

struct dv_decided {
    uint64_t at_ns;
    int64_t from, to;
    uint8_t signal; /* that it rests on */
    const char *reason;
    size_t n_asks;
    struct dv_decided_ask *asks;
    /* internal */
    struct dv_list of_fn, of_all;
    struct dv_decisions *fn;
};

struct dv_decisions {    /* of a function; zero to begin */
    struct dv_list list; /* struct dv_decided by of_fn, oldest first; unlinked while n is 0 */
    size_t n;
};

struct dv_decision_log {
    struct dv_list all; /* by of_all, oldest first */
    size_t n;
};
void dv_decisions_init(struct dv_decision_log *l);
void dv_decisions_deinit(struct dv_decision_log *l); /* while the functions are still there */
/* d's times, numbers, reason and asks are copied, with all they borrow.  Without memory it is not kept. */
void dv_decisions_add(struct dv_decision_log *l, struct dv_decisions *of, const struct dv_decided *d);
void dv_decisions_expire(struct dv_decision_log *l, uint64_t now_ns);
void dv_decisions_forget(struct dv_decision_log *l, struct dv_decisions *of);

#endif

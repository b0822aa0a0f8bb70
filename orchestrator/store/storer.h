/* The store's own thread: jobs go in from any loop, run in order, many to one transaction (group commit), and
 * come back to the loop that sent them once their transaction is durable. */
#ifndef DV_STORER_H
#define DV_STORER_H

#include "orchestrator/store/store.h"
#include "proto/rt/mailbox.h"

struct dv_storer;

/* Embed it; the sender owns it again when done runs. */
struct dv_store_job {
    struct dv_msg msg;           /* internal */
    struct dv_list node;         /* internal */
    struct dv_mailbox *reply_to; /* the sender's; set before submit */
    /* On the store thread, inside a transaction.  Must not touch what the sender's loop owns.  Whatever it
     * wrote is undone when it returns anything but DV_OK; the jobs beside it are not touched by that. */
    int (*run)(struct dv_store_job *job, struct dv_store *store, struct dv_err *err);
    /* On the sender's loop, exactly once, after the transaction is durable (or failed): job->code, job->err.
     */
    void (*done)(struct dv_store_job *job);
    int code;
    struct dv_err err;
};

/* Takes store (on DV_OK only).  DV_OK; DV_E_NOMEM; DV_E_IO (no thread). */
int dv_storer_start(struct dv_store *store, struct dv_storer **out, struct dv_err *err);
void dv_storer_submit(struct dv_storer *s,
                      struct dv_store_job *job); /* any thread; never blocks on the disk */
/* Jobs already submitted run first; joins the thread, closes the store.  Replies are posted, not waited for.
 */
void dv_storer_stop(struct dv_storer *s);
uint64_t dv_storer_backlog(const struct dv_storer *s); /* any thread */

#endif

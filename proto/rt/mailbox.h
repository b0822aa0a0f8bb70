/* The one way loops talk: messages that change owner.
 * A message is embedded in the sender's heap object; posting it moves ownership to the receiving loop, whose
 * thread runs msg->fn(msg) once, in order of posting.  fn frees it, or posts it back as its reply.
 * Any thread may post; it never blocks for more than a short mutex. */
#ifndef DV_MAILBOX_H
#define DV_MAILBOX_H

#include "proto/base/list.h"

struct dv_loop;
struct dv_mailbox;
struct dv_err;

struct dv_msg {
    struct dv_list node;
    void (*fn)(struct dv_msg *m); /* on the receiving loop's thread */
};

int dv_mailbox_new(struct dv_loop *l, struct dv_mailbox **out, struct dv_err *err);
/* On the loop's thread (or after it ended).  Messages still inside are run first, so that none leaks. */
void dv_mailbox_free(struct dv_mailbox *mb);
void dv_mailbox_post(struct dv_mailbox *mb, struct dv_msg *m);

/* A plain function as message: runs fn(arg) on the loop.  DV_E_NOMEM when it could not be posted. */
int dv_mailbox_call(struct dv_mailbox *mb, void (*fn)(void *arg), void *arg);

#endif

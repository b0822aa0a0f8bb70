/* What the files of a request share: request.c begins and ends it, request_run.c is its time with an
 * upstream, request_body.c the client's body on its way through. */
#ifndef DV_REQUEST_INTERNAL_H
#define DV_REQUEST_INTERNAL_H

#include "orchestrator/gateway/gw_internal.h"

/* Without a byte of a body that the API or an async request waits for. */
#define GW_BODY_STALL_NS (60 * DV_S)

static inline uint64_t dv_gw_req_now(const struct dv_gw_req *r)
{
    return dv_loop_now(r->conn->loop->loop);
}

static inline struct dv_live_cell *dv_gw_req_cell(const struct dv_gw_req *r)
{
    return r->fn->queue.cell;
}

static inline size_t dv_gw_req_unsent(const struct dv_gw_req *r)
{
    return dv_buf_len(&r->body) - r->body_sent;
}

/* ---- request.c ---- */
/* Harmless without one; the caller pumps the function afterwards. */
void dv_gw_req_leave_slot(struct dv_gw_req *r);
void dv_gw_req_end(struct dv_gw_req *r);      /* counted, logged, back in the pool; the connection goes on */
void dv_gw_req_answered(struct dv_gw_req *r); /* the answer is complete: ends it as soon as its body allows */
void dv_gw_req_abort(struct dv_gw_req *r);    /* closes the connection */
void dv_gw_req_answer(struct dv_gw_req *r, int status, const char *code, const char *hop, const char *detail);
void dv_gw_req_arm_queue(struct dv_gw_req *r);

/* ---- request_body.c ---- */
void dv_gw_req_unkeep(
    struct dv_gw_req *r); /* what was sent is not needed again: no second try from here on */

/* ---- request_run.c ---- */
void dv_gw_req_push(struct dv_gw_req *r); /* send what stands in body, then the end if there is one */
int dv_gw_req_send(struct dv_gw_req *r, struct dv_sv bytes, bool end, size_t *taken);
void dv_gw_req_send_end(struct dv_gw_req *r);

#endif

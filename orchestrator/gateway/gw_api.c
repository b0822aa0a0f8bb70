/* The API as an upstream: HTTP/1.1 over its unix socket, a few idle connections kept per loop.  A request
 * that may be repeated uses an idle one; any other gets a connection of its own, since an idle one may be
 * closed by its other end in the very moment it is used. */
#include "orchestrator/gateway/gw_internal.h"

static const struct dv_h1up_ops busy_ops;
static const struct dv_h1up_ops idle_ops;

static bool may_repeat(const struct dv_gw_req *r)
{
    struct dv_sv m = dv_gw_req_method(r);
    return r->body_done && (dv_sv_eq(m, DV_SV("GET")) || dv_sv_eq(m, DV_SV("HEAD")));
}

/* ---- idle connections ---- */

static void idle_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    struct dv_gw_api_idle *i = ctx;
    (void)why;
    (void)err;
    dv_h1up_free(i->up);
    i->up = NULL;
}

static void keep_idle(struct dv_gw_loop *l, struct dv_h1up *up)
{
    for (size_t i = 0; i < GW_API_IDLE_MAX; i++)
        if (!l->api_idle[i].up) {
            l->api_idle[i] = (struct dv_gw_api_idle){up, l};
            dv_h1up_set_owner(up, &idle_ops, &l->api_idle[i]);
            return;
        }
    dv_h1up_free(up);
}

static struct dv_h1up *take_idle(struct dv_gw_loop *l)
{
    for (size_t i = 0; i < GW_API_IDLE_MAX; i++)
        if (l->api_idle[i].up) {
            struct dv_h1up *up = l->api_idle[i].up;
            l->api_idle[i].up = NULL;
            return up;
        }
    return NULL;
}

void dv_gw_api_free(struct dv_gw_loop *l)
{
    struct dv_h1up *up;
    while ((up = take_idle(l)))
        dv_h1up_free(up);
}

/* ---- a request ---- */

static int begin(struct dv_gw_req *r, bool fresh)
{
    struct dv_gw_loop *l = r->conn->loop;
    struct dv_h1up *up = fresh ? NULL : take_idle(l);
    int rc = up ? DV_OK : dv_h1up_connect(l->loop, &l->g->api_addr, &busy_ops, r, &up, NULL);
    if (rc)
        return rc;
    dv_h1up_set_owner(up, &busy_ops, r);
    struct dv_h1up_request req = {.method = dv_gw_req_method(r),
                                  .target = dv_gw_req_target(r),
                                  .fields = dv_gw_req_fields(r),
                                  .body = r->upgrade[0] ? DV_H1_UPGRADED : r->body_kind,
                                  .content_length = r->content_length};
    rc = dv_h1up_begin(up, &req);
    if (rc) {
        dv_h1up_free(up);
        return rc;
    }
    r->api = up;
    r->end_sent = r->body_done;
    r->attempts++;
    return DV_OK;
}

int dv_gw_api_open(struct dv_gw_req *r)
{
    if (!r->conn->loop->g->api_path)
        return DV_CLOSED;
    bool fresh = !may_repeat(r);
    int rc = begin(r, fresh);
    return rc && !fresh ? begin(r, true) : rc;
}

int dv_gw_api_send(struct dv_gw_req *r, struct dv_sv bytes, size_t *out_taken)
{
    return r->api ? dv_h1up_send(r->api, bytes.p, bytes.n, out_taken) : DV_CLOSED;
}

void dv_gw_api_finish(struct dv_gw_req *r, struct dv_sv trailers)
{
    if (r->api)
        (void)dv_h1up_finish(r->api, trailers); /* what goes wrong comes through on_error */
}

void dv_gw_api_drop(struct dv_gw_req *r)
{
    dv_h1up_free(r->api);
    r->api = NULL;
}

void dv_gw_api_resume(struct dv_gw_req *r)
{
    if (!r->api_paused)
        return;
    r->api_paused = false;
    dv_h1up_resume(r->api);
}

/* ---- what it answers ---- */

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    struct dv_gw_req *r = ctx;
    DV_AUTO_BUF struct dv_buf fields = DV_BUF_INIT; /* off the hot path: the API's answers alone */
    for (size_t i = 0; i < head->n_fields; i++) {
        const struct dv_h1_field *f = &head->fields[i];
        if (dv_h1_is_hop_field(head, f->name) &&
            !(head->status == 101 && dv_sv_eq_nocase(f->name, DV_SV("upgrade"))))
            continue;
        (void)dv_buf_add_sv(&fields, f->name);
        (void)dv_buf_add(&fields, ": ", 2);
        (void)dv_buf_add_sv(&fields, f->value);
        (void)dv_buf_add(&fields, "\r\n", 2);
    }
    if (fields.failed)
        dv_gw_up_failed(r, 503, "out_of_memory", "out of memory");
    else
        dv_gw_up_head(r, head->status, head->body, head->content_length, dv_buf_sv(&fields));
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    struct dv_gw_req *r = ctx;
    if (dv_buf_len(&r->conn->out) >= GW_OUT_BYTES) {
        r->api_paused = true; /* a slow client: until its buffer has emptied */
        return 0;
    }
    dv_gw_up_data(r, bytes);
    return bytes.n;
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    dv_gw_up_trailers(ctx, fields);
}

static void on_end(void *ctx, bool is_reusable)
{
    struct dv_gw_req *r = ctx;
    struct dv_h1up *up = r->api;
    r->api = NULL;
    if (is_reusable)
        keep_idle(r->conn->loop, up);
    else
        dv_h1up_free(up);
    dv_gw_up_end(r);
}

static void on_writable(void *ctx)
{
    dv_gw_up_writable(ctx);
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    struct dv_gw_req *r = ctx;
    (void)err;
    dv_gw_api_drop(r);
    bool again = (why == DV_H1UP_STALE && may_repeat(r)) || why == DV_H1UP_UNSENT;
    if (again && r->attempts < 2 && r->state == GW_REQ_RUNNING && r->body_kept && !dv_buf_len(&r->body) &&
        !begin(r, true))
        return;
    if (why == DV_H1UP_REFUSED)
        dv_gw_up_failed(r, 503, "api_unavailable",
                        "the API does not answer; is the orchestrator still starting?");
    else
        dv_gw_up_failed(r, 502, "api_broken", "the API closed the connection without a whole answer");
}

static const struct dv_h1up_ops busy_ops = {on_head, on_data, on_trailers, on_end, on_writable, on_error};
static const struct dv_h1up_ops idle_ops = {.on_error = idle_error};

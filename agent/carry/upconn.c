/* Connections to containers: made, lent to a request, kept alive between requests, closed when unused. */
#include "agent/carry/carry_internal.h"
#include "proto/base/alloc.h"

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    struct carry_up *u = ctx;
    carry_stream_on_head(u->stream, head);
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    struct carry_up *u = ctx;
    return carry_stream_on_data(u->stream, bytes);
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    struct carry_up *u = ctx;
    carry_stream_on_trailers(u->stream, fields);
}

static void on_end(void *ctx, bool is_reusable)
{
    struct carry_up *u = ctx;
    carry_stream_on_end(u->stream, is_reusable);
}

static void on_writable(void *ctx)
{
    struct carry_up *u = ctx;
    if (u->stream)
        carry_stream_on_writable(u->stream);
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    struct carry_up *u = ctx;
    (void)err;
    if (u->stream)
        carry_stream_on_error(u->stream, why);
    else
        carry_up_drop(u); /* idle, and its server has closed it */
}

static const struct dv_h1up_ops ops = {.on_head = on_head,
                                       .on_data = on_data,
                                       .on_trailers = on_trailers,
                                       .on_end = on_end,
                                       .on_writable = on_writable,
                                       .on_error = on_error};

static void lend(struct carry_up *u, struct carry_stream *s)
{
    u->stream = s;
    s->up = u;
}

int carry_up_take(struct carry_stream *s, bool fresh)
{
    struct dv_list *first = s->slot->idle.next;
    if (!fresh && first != &s->slot->idle) {
        struct carry_up *u = DV_LIST_ENTRY(first, struct carry_up, in_slot);
        dv_list_remove(&u->in_slot);
        dv_list_remove(&u->in_loop);
        carry_count(&s->loop->reuses, 1);
        lend(u, s);
        return DV_OK;
    }
    if (first != &s->slot->idle) /* so that there are never more than requests were inside at once */
        carry_up_drop(DV_LIST_ENTRY(s->slot->idle.prev, struct carry_up, in_slot));
    struct carry_up *u = dv_zalloc(sizeof(*u));
    if (!u)
        return DV_E_NOMEM;
    dv_list_init(&u->in_slot);
    dv_list_init(&u->in_loop);
    u->loop = s->loop;
    u->slot = s->slot;
    int rc = dv_h1up_connect(s->loop->loop, &s->slot->live->address, &ops, u, &u->up, NULL);
    if (rc) {
        dv_free(u);
        return rc;
    }
    carry_count(&s->loop->connects, 1);
    lend(u, s);
    return DV_OK;
}

void carry_up_give(struct carry_up *u)
{
    struct carry_loop *l = u->loop;
    u->stream = NULL;
    u->was_used = true;
    u->idle_since_ns = dv_loop_now(l->loop);
    dv_list_push_front(&u->slot->idle, &u->in_slot);
    dv_list_push_back(&l->idle, &u->in_loop); /* oldest first */
    if (!l->idle_timer.pos && dv_timer_set(l->loop, &l->idle_timer, u->idle_since_ns + CARRY_IDLE_MS * DV_MS))
        carry_up_drop(u); /* no memory to watch over it */
}

void carry_up_drop(struct carry_up *u)
{
    if (u->stream)
        u->stream->up = NULL;
    dv_list_remove(&u->in_slot);
    dv_list_remove(&u->in_loop);
    dv_h1up_free(u->up);
    dv_free(u);
}

void carry_up_drop_idle(struct carry_slot *slot)
{
    DV_LIST_FOR_EACH_SAFE (n, &slot->idle)
        carry_up_drop(DV_LIST_ENTRY(n, struct carry_up, in_slot));
}

void carry_up_expire(struct dv_timer *t)
{
    struct carry_loop *l = DV_CONTAINER_OF(t, struct carry_loop, idle_timer);
    uint64_t now = dv_loop_now(l->loop);
    DV_LIST_FOR_EACH_SAFE (n, &l->idle) {
        struct carry_up *u = DV_LIST_ENTRY(n, struct carry_up, in_loop);
        uint64_t at = u->idle_since_ns + CARRY_IDLE_MS * DV_MS;
        if (at > now) {
            (void)dv_timer_set(l->loop, t, at); /* its place in the heap is still there */
            return;
        }
        carry_up_drop(u);
    }
}

/* One loop of the carry: its thread, its links, its view of the replicas. */
#include "agent/carry/carry_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"

#include <signal.h>

/* ---- replicas ---- */

static void slot_free(struct carry_loop *l, struct carry_slot *slot, enum dv_link_reset why)
{
    (void)dv_idmap_remove(&l->slots, slot->live->id);
    DV_LIST_FOR_EACH_SAFE (n, &slot->streams)
        carry_stream_cut(DV_LIST_ENTRY(n, struct carry_stream, node), why);
    carry_up_drop_idle(slot);
    carry_live_unref(slot->live);
    dv_free(slot);
}

void carry_loop_put(struct dv_msg *m)
{
    struct carry_news *news = DV_CONTAINER_OF(m, struct carry_news, put);
    struct carry_loop *l = news->loop;
    struct carry_slot *slot = dv_zalloc(sizeof(*slot));
    if (slot) {
        slot->live = news->live; /* the message's reference becomes the slot's */
        dv_list_init(&slot->streams);
        dv_list_init(&slot->idle);
    }
    if (!slot || dv_idmap_put(&l->slots, news->live->id, slot)) {
        /* Requests are told NOT_HERE and go to the replica through another loop, or elsewhere. */
        dv_log(DV_LOG_ERROR, "no memory for a replica in a carry loop", DV_LID("replica", news->live->id));
        carry_live_unref(news->live);
        dv_free(slot);
    }
}

void carry_loop_remove(struct dv_msg *m)
{
    struct carry_news *news = DV_CONTAINER_OF(m, struct carry_news, remove);
    struct carry_live *live = news->live;
    struct carry_slot *slot = dv_idmap_find(&news->loop->slots, live->id);
    if (slot && slot->live == live)
        slot_free(news->loop, slot, live->why_gone);
    carry_tell_closed(live);
    carry_live_unref(live);
}

/* ---- links ---- */

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct carry_link *link = ctx;
    if (ev->kind == DV_LINK_EV_REQUEST)
        carry_stream_open(link, ev);
    else if (ev->user)
        carry_stream_event(ev->user, ev);
    else if (ev->kind == DV_LINK_EV_DATA) /* the rest of a body whose answer is complete */
        dv_link_consumed(dv_linkio_link(link->io), ev->stream, ev->bytes.n);
    dv_linkio_kick(link->io);
}

static void vanish(void *ctx, uint32_t stream, void *user)
{
    (void)ctx;
    (void)stream;
    if (user)
        carry_stream_vanish(user);
}

static void link_free(struct carry_link *link)
{
    dv_link_each_stream(dv_linkio_link(link->io), vanish, NULL);
    dv_list_remove(&link->node);
    dv_linkio_free(link->io);
    carry_link_gone(link->loop->carry);
    dv_free(link);
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)code;
    dv_log(DV_LOG_DEBUG, "data link closed", DV_LS("why", err ? dv_err_msg(err, code) : dv_err_text(code)));
    link_free(ctx);
}

struct adoption {
    struct dv_msg msg;
    struct carry_loop *loop;
    struct dv_linkio *io;
};

static void adopt(struct dv_msg *m)
{
    struct adoption *a = DV_CONTAINER_OF(m, struct adoption, msg);
    struct carry_link *link = a->loop->is_stopping ? NULL : dv_zalloc(sizeof(*link));
    struct dv_err err = DV_ERR_INIT;
    if (!link) {
        dv_linkio_free(a->io);
        carry_link_gone(a->loop->carry);
    } else {
        *link = (struct carry_link){.loop = a->loop, .io = a->io};
        dv_list_push_back(&a->loop->links, &link->node);
        struct dv_linkio_cfg cfg = {.link = {.on_event = on_event, .ctx = link}, .on_closed = on_closed};
        if (dv_linkio_attach(a->io, a->loop->loop, &cfg, &err)) {
            dv_log(DV_LOG_WARN, "data link not taken", DV_LE(&err));
            link_free(link);
        } else if (a->loop->is_leaving) {
            dv_linkio_goaway(a->io); /* its gateway may have sent requests before it knew */
        }
    }
    dv_free(a);
}

void carry_loop_adopt(struct carry_loop *l, struct dv_linkio *io)
{
    struct adoption *a = dv_zalloc(sizeof(*a));
    if (!a) {
        dv_linkio_free(io);
        carry_link_gone(l->carry);
        return;
    }
    *a = (struct adoption){.msg.fn = adopt, .loop = l, .io = io};
    dv_mailbox_post(l->mailbox, &a->msg);
}

void carry_loop_goaway(void *arg)
{
    struct carry_loop *l = arg;
    l->is_leaving = true;
    DV_LIST_FOR_EACH (n, &l->links)
        dv_linkio_goaway(DV_LIST_ENTRY(n, struct carry_link, node)->io);
}

/* ---- the thread ---- */

/* Streams end with SHUTDOWN; what that produced leaves at the end of this turn, which is the last. */
static void on_stop(struct dv_msg *m)
{
    struct carry_loop *l = DV_CONTAINER_OF(m, struct carry_loop, stop_msg);
    l->is_stopping = true;
    size_t i = 0;
    for (struct carry_slot *slot; (slot = dv_map_next(&l->slots, &i));)
        DV_LIST_FOR_EACH_SAFE (n, &slot->streams)
            carry_stream_cut(DV_LIST_ENTRY(n, struct carry_stream, node), DV_RESET_SHUTDOWN);
    dv_loop_stop(l->loop);
}

/* On the loop's own thread, so that every object dies where it lived. */
static void clear(struct carry_loop *l)
{
    DV_LIST_FOR_EACH_SAFE (n, &l->links)
        link_free(DV_LIST_ENTRY(n, struct carry_link, node));
    while (l->slots.n) {
        size_t i = 0;
        slot_free(l, dv_map_next(&l->slots, &i), DV_RESET_SHUTDOWN);
    }
    for (struct dv_list *n; (n = dv_list_pop_front(&l->spare));)
        carry_stream_destroy(DV_LIST_ENTRY(n, struct carry_stream, node));
    dv_timer_cancel(l->loop, &l->idle_timer);
}

static void *run(void *arg)
{
    struct carry_loop *l = arg;
    sigset_t all;
    char name[16];
    (void)snprintf(name, sizeof(name), "carry/%d", l->index);
    (void)pthread_setname_np(pthread_self(), name); /* for top, perf, and whoever pins it */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL); /* signals are the state loop's */
    if (dv_loop_run(l->loop))
        dv_log(DV_LOG_ERROR, "carry loop failed", DV_LI("loop", l->index));
    clear(l);
    return NULL;
}

int carry_loop_init(struct carry_loop *l, struct dv_carry *c, int index, struct dv_err *err)
{
    l->carry = c;
    l->index = index;
    l->stop_msg.fn = on_stop;
    l->idle_timer.fn = carry_up_expire;
    dv_map_init(&l->slots, (uint64_t)index);
    dv_list_init(&l->links);
    dv_list_init(&l->idle);
    dv_list_init(&l->spare);
    int rc = dv_loop_new(c->cfg.clock, &l->loop, err);
    if (!rc) {
        dv_loop_busy_poll(l->loop, c->cfg.busy_poll_ns);
        rc = dv_mailbox_new(l->loop, &l->mailbox, err);
    }
    if (rc)
        return rc;
    int e = pthread_create(&l->thread, NULL, run, l);
    if (e)
        return dv_err_sys(err, DV_E_IO, e, "starting a carry thread");
    l->has_thread = true;
    return DV_OK;
}

void carry_loop_join(struct carry_loop *l)
{
    if (!l->has_thread)
        return;
    dv_mailbox_post(l->mailbox, &l->stop_msg);
    (void)pthread_join(l->thread, NULL);
    l->has_thread = false;
    l->is_stopping = true;
}

void carry_loop_deinit(struct carry_loop *l)
{
    if (l->mailbox)
        dv_mailbox_free(l->mailbox); /* runs what was posted too late */
    while (l->slots.n) {
        size_t i = 0;
        slot_free(l, dv_map_next(&l->slots, &i), DV_RESET_SHUTDOWN);
    }
    dv_map_deinit(&l->slots);
    dv_buf_deinit(&l->lines);
    dv_loop_free(l->loop);
}

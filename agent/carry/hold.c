/* Requests at a replica that sleeps.
 *
 * An idle replica is frozen by the state loop; a request for it arrives on a carry loop.  The two meet in one
 * word, carry_live.in_flight, which holds the number of requests inside and, in its top bit, CARRY_ASLEEP:
 *
 *   the state loop   changes 0 to CARRY_ASLEEP in one exchange, and freezes after that;
 *                    thaws, and clears the bit after that;
 *   a request        adds one in an exchange that tells it the bit as it was in that instant.
 *
 * So a replica falls asleep only while nobody is inside, whoever enters later knows, and it cannot fall
 * asleep again before he has left.  A warm request pays nothing for it: the exchange is the one that takes
 * its slot.
 *
 * Who finds the bit set waits in his slot (with the deadline he has, and his body in `pending`, bounded by
 * the link's window), and the loop asks the state loop: `ask` of its news goes there, and comes back when the
 * replica runs.  One message per loop and replica, made with the replica: asking cannot fail, and however
 * many requests wait, the state loop hears of them once.
 *
 * A message that comes back may be late: its requests left (their client did), the replica fell asleep again,
 * and others wait now.  So the bit is read again; while it is set the message goes round once more. */
#include "agent/carry/carry_internal.h"

static void on_ask(struct dv_msg *m);

/* ---- on a carry loop ---- */

static struct carry_news *news_of(const struct carry_slot *slot, const struct carry_loop *l)
{
    return &slot->live->news[l->index];
}

static void ask(struct carry_loop *l, struct carry_slot *slot, uint64_t held_ns)
{
    struct carry_news *news = news_of(slot, l);
    slot->is_asking = true;
    news->held_ns = held_ns;
    news->ask.fn = on_ask;
    carry_live_ref(slot->live);
    dv_mailbox_post(l->carry->cfg.state, &news->ask);
}

void carry_hold(struct carry_stream *s)
{
    struct carry_loop *l = s->loop;
    if (s->deadline_ns && dv_timer_set(l->loop, &s->timer, s->deadline_ns)) {
        carry_stream_abort(s, DV_RESET_REFUSED);
        return;
    }
    s->is_held = true;
    carry_count(&l->held, 1);
    if (!s->slot->is_asking)
        ask(l, s->slot, s->arrived_ns);
}

static struct carry_stream *first_held(const struct carry_slot *slot)
{
    DV_LIST_FOR_EACH (n, &slot->streams)
        if (DV_LIST_ENTRY(n, struct carry_stream, node)->is_held)
            return DV_LIST_ENTRY(n, struct carry_stream, node);
    return NULL;
}

static void on_answer(struct dv_msg *m)
{
    struct carry_news *news = DV_CONTAINER_OF(m, struct carry_news, ask);
    struct carry_live *live = news->live;
    struct carry_slot *slot = dv_idmap_find(&news->loop->slots, live->id);
    struct carry_stream *first = slot && slot->live == live ? first_held(slot) : NULL;
    if (slot && slot->live == live)
        slot->is_asking = false;
    if (first && atomic_load(&live->in_flight) & CARRY_ASLEEP) {
        ask(news->loop, slot, first->arrived_ns);
    } else if (first) {
        DV_LIST_FOR_EACH_SAFE (n, &slot->streams)
            if (DV_LIST_ENTRY(n, struct carry_stream, node)->is_held)
                carry_stream_go(DV_LIST_ENTRY(n, struct carry_stream, node));
    }
    carry_live_unref(live);
}

/* ---- on the state loop ---- */

static void on_ask(struct dv_msg *m)
{
    struct carry_news *news = DV_CONTAINER_OF(m, struct carry_news, ask);
    struct carry_live *live = news->live;
    struct dv_carry *c = live->carry;
    if (c->is_closed || dv_idmap_find(&c->lives, live->id) != live) {
        carry_live_unref(live); /* its removal, under way, ends those who wait */
        return;
    }
    news->is_asked = true;
    if (c->cfg.on_wake)
        c->cfg.on_wake(c->cfg.ctx, live->id, news->held_ns);
    else
        dv_carry_replica_wake(c, live->id);
}

/* Answers to the loops that have asked; the reference of the question travels with them. */
static void answer(struct carry_live *live)
{
    struct dv_carry *c = live->carry;
    for (int i = 0; i < c->n_loops; i++) {
        struct carry_news *news = &live->news[i];
        if (!news->is_asked)
            continue;
        news->is_asked = false;
        news->ask.fn = on_answer;
        dv_mailbox_post(c->loops[i].mailbox, &news->ask);
    }
}

void carry_unasked(struct carry_live *live)
{
    for (int i = 0; i < live->carry->n_loops; i++)
        if (live->news[i].is_asked) {
            live->news[i].is_asked = false;
            carry_live_unref(live);
        }
}

int dv_carry_replica_sleep(struct dv_carry *c, uint64_t id)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    uint64_t nobody = 0;
    if (!live)
        return DV_NOT_FOUND;
    if (!atomic_compare_exchange_strong(&live->in_flight, &nobody, CARRY_ASLEEP) && nobody != CARRY_ASLEEP)
        return DV_NO_CAPACITY;
    return DV_OK;
}

void dv_carry_replica_wake(struct dv_carry *c, uint64_t id)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    if (!live)
        return;
    atomic_fetch_and(&live->in_flight, ~CARRY_ASLEEP);
    answer(live);
}

int dv_carry_idle_since(struct dv_carry *c, uint64_t id, uint64_t *out_since_ns)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    if (!live)
        return DV_NOT_FOUND;
    bool is_busy = carry_inside(live) != 0; /* read first: see slot_leave */
    *out_since_ns = is_busy ? 0 : atomic_load_explicit(&live->left_ns, memory_order_relaxed);
    return DV_OK;
}

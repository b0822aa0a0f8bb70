/* Streams live in slots that their id names directly: the low 14 bits are the slot, the rest counts its uses,
 * so that a late frame of a former stream never meets its successor.  Slots come in chunks that stay where
 * they are; the client takes the one freed last, which keeps both ends' slabs as small as the largest load so
 * far. */
#include "proto/rt/link_internal.h"
#include "proto/base/alloc.h"

#include <assert.h>

enum {
    SLOT_MASK = (1 << DV_LINK_SLOT_BITS) - 1,
    MAX_GEN = (1 << (32 - DV_LINK_SLOT_BITS)) - 1,
    N_CHUNKS = DV_LINK_MAX_STREAMS / DV_LINK_CHUNK
};
static_assert(DV_LINK_MAX_STREAMS == 1 << DV_LINK_SLOT_BITS, "every slot has an id");

static struct dv_link_stream *slot_at(const struct dv_link *l, uint32_t slot)
{
    struct dv_link_stream *chunk = l->chunks ? l->chunks[slot / DV_LINK_CHUNK] : NULL;
    return chunk ? &chunk[slot % DV_LINK_CHUNK] : NULL;
}

static struct dv_link_stream *slot_make(struct dv_link *l, uint32_t slot)
{
    if (!l->chunks && !(l->chunks = dv_zalloc_n(N_CHUNKS, sizeof(*l->chunks))))
        return NULL;
    struct dv_link_stream **chunk = &l->chunks[slot / DV_LINK_CHUNK];
    if (!*chunk)
        *chunk = dv_zalloc_n(DV_LINK_CHUNK, sizeof(struct dv_link_stream));
    return slot_at(l, slot);
}

static void open_stream(struct dv_link *l, struct dv_link_stream *s, uint32_t id)
{
    *s = (struct dv_link_stream){
        .id = id, .gen = s->gen, .send_credit = DV_LINK_WINDOW, .recv_credit = DV_LINK_WINDOW};
    dv_list_init(&s->blocked);
    l->n_streams++;
    l->is_at_rest = false;
}

struct dv_link_stream *dv_link_find(const struct dv_link *l, uint32_t id)
{
    struct dv_link_stream *s = slot_at(l, id & SLOT_MASK);
    return s && id && s->id == id ? s : NULL;
}

int dv_link_slot_take(struct dv_link *l, struct dv_link_stream **out)
{
    uint32_t slot = l->free_slot ? l->free_slot - 1 : l->n_slots;
    if (slot == DV_LINK_MAX_STREAMS)
        return DV_NO_CAPACITY;
    struct dv_link_stream *s = slot_make(l, slot);
    if (!s)
        return DV_E_NOMEM;
    if (l->free_slot)
        l->free_slot = s->next_free;
    else
        l->n_slots++;
    s->gen = s->gen == MAX_GEN ? 1 : s->gen + 1; /* never 0: stream 0 is the connection */
    open_stream(l, s, s->gen << DV_LINK_SLOT_BITS | slot);
    *out = s;
    return DV_OK;
}

int dv_link_slot_claim(struct dv_link *l, uint32_t id, struct dv_link_stream **out)
{
    if (id >> DV_LINK_SLOT_BITS == 0)
        return DV_E_PROTO;
    struct dv_link_stream *s = slot_make(l, id & SLOT_MASK);
    if (!s)
        return DV_E_NOMEM;
    if (s->id)
        return DV_E_PROTO;
    open_stream(l, s, id);
    *out = s;
    return DV_OK;
}

void dv_link_slot_give(struct dv_link *l, struct dv_link_stream *s)
{
    dv_list_remove(&s->blocked);
    if (dv_link_is_client(l)) {
        s->next_free = l->free_slot;
        l->free_slot = (s->id & SLOT_MASK) + 1;
    }
    s->id = 0;
    s->user = NULL;
    l->n_streams--;
}

void dv_link_slots_free(struct dv_link *l)
{
    for (size_t i = 0; l->chunks && i < N_CHUNKS; i++)
        dv_free(l->chunks[i]);
    dv_free(l->chunks);
}

void dv_link_each_stream(struct dv_link *l, void (*fn)(void *ctx, uint32_t stream, void *user), void *ctx)
{
    for (size_t i = 0; l->chunks && i < N_CHUNKS; i++)
        for (size_t k = 0; l->chunks[i] && k < DV_LINK_CHUNK; k++)
            if (l->chunks[i][k].id)
                fn(ctx, l->chunks[i][k].id, l->chunks[i][k].user);
}

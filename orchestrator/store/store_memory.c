/* The store in memory: for development, tests and the simulation.
 *
 * Keys stand in one sorted array of pointers; work items in another, in order of id.  Lookups are binary
 * searches; claims walk the items.  That is enough for thousands of functions and keeps the whole backend
 * readable.
 *
 * All-or-nothing comes from a journal: every change first reserves a record of its own inverse, so undoing
 * never needs memory (arrays do not shrink, so putting an entry back always has room).  The journal is cut at
 * the end of a call, or, between save and keep, at keep. */
#include "orchestrator/store/store.h"
#include "orchestrator/store/store_check.h"
#include "proto/base/alloc.h"

#include <assert.h>

struct entry {
    struct dv_sv key, value; /* bytes follow the struct */
    uint64_t revision;
};

struct item_state { /* what changes about an item */
    int64_t not_before_ms, due_ms;
    uint32_t attempts;
    bool is_claimed;
};

struct item {
    uint64_t id;
    int64_t created_ms;
    struct dv_sv queue, payload; /* bytes follow the struct */
    struct item_state now;
};

struct ptrs { /* sorted array of pointers */
    void **v;
    size_t n, cap;
};

enum change_kind { ENTRY_CHANGED, ITEM_ADDED, ITEM_REMOVED, ITEM_CHANGED };

struct change {
    enum change_kind kind;
    struct entry *was, *is; /* ENTRY_CHANGED: NULL = absent */
    struct item *item;
    struct item_state before; /* ITEM_CHANGED */
};

struct memory_store {
    struct dv_store base;
    struct ptrs entries, items;
    uint64_t revision, last_id;
    struct change *journal;
    size_t n_journal, cap_journal;
    bool is_saved;
    uint64_t saved_revision; /* at save */
};

static struct memory_store *self(struct dv_store *s)
{
    return DV_CONTAINER_OF(s, struct memory_store, base);
}

/* ---- sorted arrays ---- */

static int ptrs_reserve(struct ptrs *a)
{
    if (a->n < a->cap)
        return DV_OK;
    size_t cap = a->cap ? a->cap * 2 : 64;
    void **v = dv_realloc(a->v, cap * sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    a->v = v;
    a->cap = cap;
    return DV_OK;
}

static void ptrs_insert(struct ptrs *a, size_t at, void *p)
{
    assert(a->n < a->cap);
    memmove(a->v + at + 1, a->v + at, (a->n - at) * sizeof(*a->v));
    a->v[at] = p;
    a->n++;
}

static void ptrs_remove(struct ptrs *a, size_t at)
{
    memmove(a->v + at, a->v + at + 1, (a->n - at - 1) * sizeof(*a->v));
    a->n--;
}

static int compare(struct dv_sv a, struct dv_sv b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

/* Index of the first entry whose key is not below key. */
static size_t lower_bound(const struct memory_store *m, struct dv_sv key)
{
    size_t lo = 0, hi = m->entries.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare(((struct entry *)m->entries.v[mid])->key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct entry *entry_at(const struct memory_store *m, size_t at, struct dv_sv key)
{
    struct entry *e = at < m->entries.n ? m->entries.v[at] : NULL;
    return e && dv_sv_eq(e->key, key) ? e : NULL;
}

static size_t item_bound(const struct memory_store *m, uint64_t id)
{
    size_t lo = 0, hi = m->items.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (((struct item *)m->items.v[mid])->id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct item *item_find(const struct memory_store *m, uint64_t id)
{
    size_t at = item_bound(m, id);
    struct item *it = at < m->items.n ? m->items.v[at] : NULL;
    return it && it->id == id ? it : NULL;
}

/* ---- journal ---- */

/* Room for one more record; NULL when out of memory.  It counts (n_journal++) once the change was made. */
static struct change *note(struct memory_store *m)
{
    if (m->n_journal == m->cap_journal) {
        size_t cap = m->cap_journal ? m->cap_journal * 2 : 16;
        struct change *j = dv_realloc(m->journal, cap * sizeof(*j));
        if (!j)
            return NULL;
        m->journal = j;
        m->cap_journal = cap;
    }
    return &m->journal[m->n_journal];
}

static void entry_swap(struct memory_store *m, struct entry *was, struct entry *is)
{
    size_t at = lower_bound(m, was ? was->key : is->key);
    if (was && is)
        m->entries.v[at] = is;
    else if (is)
        ptrs_insert(&m->entries, at, is);
    else
        ptrs_remove(&m->entries, at);
}

static void take_back(struct memory_store *m, const struct change *c)
{
    switch (c->kind) {
    case ENTRY_CHANGED:
        entry_swap(m, c->is, c->was);
        dv_free(c->is);
        break;
    case ITEM_ADDED:
        ptrs_remove(&m->items, item_bound(m, c->item->id));
        dv_free(c->item);
        break;
    case ITEM_REMOVED:
        ptrs_insert(&m->items, item_bound(m, c->item->id), c->item);
        break;
    case ITEM_CHANGED:
        c->item->now = c->before;
        break;
    }
}

static void journal_undo(struct memory_store *m, size_t mark)
{
    while (m->n_journal > mark)
        take_back(m, &m->journal[--m->n_journal]);
}

static void journal_forget(struct memory_store *m)
{
    for (size_t i = 0; i < m->n_journal; i++) {
        if (m->journal[i].kind == ENTRY_CHANGED)
            dv_free(m->journal[i].was);
        else if (m->journal[i].kind == ITEM_REMOVED)
            dv_free(m->journal[i].item);
    }
    m->n_journal = 0;
}

/* End of a call: what it did stands, or not at all. */
static int finish(struct memory_store *m, size_t mark, int rc, struct dv_err *err)
{
    if (rc)
        journal_undo(m, mark);
    else if (!m->is_saved)
        journal_forget(m);
    if (rc == DV_E_NOMEM)
        (void)dv_err_set(err, rc, "store in memory");
    return rc;
}

/* ---- key-value space ---- */

static int copy_entry(const struct entry *e, struct dv_arena *arena, struct dv_store_entry *out)
{
    struct dv_sv key = dv_arena_sv(arena, e->key), value = dv_arena_sv(arena, e->value);
    if (!key.p || !value.p)
        return DV_E_NOMEM;
    *out = (struct dv_store_entry){key, value, e->revision};
    return DV_OK;
}

static int memory_get(struct dv_store *s, struct dv_sv key, struct dv_arena *arena,
                      struct dv_store_entry *out, struct dv_err *err)
{
    struct memory_store *m = self(s);
    struct entry *e = entry_at(m, lower_bound(m, key), key);
    if (!e)
        return DV_NOT_FOUND;
    return copy_entry(e, arena, out) ? dv_err_set(err, DV_E_NOMEM, "store in memory") : DV_OK;
}

static int memory_list(struct dv_store *s, struct dv_sv prefix, struct dv_sv after, size_t limit,
                       int (*each)(void *ctx, const struct dv_store_entry *e), void *ctx, struct dv_err *err)
{
    (void)err; /* cannot fail */
    struct memory_store *m = self(s);
    bool is_behind = after.n && compare(after, prefix) >= 0;
    size_t at = lower_bound(m, is_behind ? after : prefix);
    if (is_behind && entry_at(m, at, after))
        at++;
    for (size_t n = 0; at < m->entries.n && (!limit || n < limit); at++, n++) {
        const struct entry *e = m->entries.v[at];
        if (!dv_sv_starts(e->key, prefix))
            break;
        struct dv_store_entry view = {e->key, e->value, e->revision};
        if (each(ctx, &view))
            break;
    }
    return DV_OK;
}

static int write_one(struct memory_store *m, const struct dv_store_write *w, uint64_t revision)
{
    struct entry *was = entry_at(m, lower_bound(m, w->key), w->key), *is = NULL;
    if (w->is_delete && !was)
        return DV_OK;
    struct change *c = note(m);
    if (!c || ptrs_reserve(&m->entries))
        return DV_E_NOMEM;
    if (!w->is_delete) {
        is = dv_alloc(sizeof(*is) + w->key.n + w->value.n);
        if (!is)
            return DV_E_NOMEM;
        char *bytes = (char *)(is + 1);
        memcpy(bytes, w->key.p, w->key.n);
        if (w->value.n)
            memcpy(bytes + w->key.n, w->value.p, w->value.n);
        *is = (struct entry){dv_sv(bytes, w->key.n), dv_sv(bytes + w->key.n, w->value.n), revision};
    }
    entry_swap(m, was, is);
    *c = (struct change){.kind = ENTRY_CHANGED, .was = was, .is = is};
    m->n_journal++;
    return DV_OK;
}

static int memory_commit(struct dv_store *s, const struct dv_store_write *writes, size_t n,
                         uint64_t *out_revision, struct dv_err *err)
{
    struct memory_store *m = self(s);
    for (size_t i = 0; i < n; i++) {
        int rc = dv_store_check_write(&writes[i], err);
        if (rc)
            return rc;
        struct entry *e = entry_at(m, lower_bound(m, writes[i].key), writes[i].key);
        rc = dv_store_check_revision(&writes[i], e ? e->revision : DV_REV_ABSENT, err);
        if (rc)
            return rc;
    }
    size_t mark = m->n_journal;
    int rc = DV_OK;
    for (size_t i = 0; i < n && !rc; i++)
        rc = write_one(m, &writes[i], m->revision + 1);
    bool has_changed = m->n_journal > mark;
    rc = finish(m, mark, rc, err);
    if (rc)
        return rc;
    m->revision += has_changed;
    if (out_revision)
        *out_revision = m->revision;
    return DV_OK;
}

static uint64_t memory_revision(struct dv_store *s)
{
    return self(s)->revision;
}

/* ---- work queue ---- */

static int memory_work_append(struct dv_store *s, struct dv_sv queue, struct dv_sv payload,
                              int64_t not_before_ms, int64_t now_ms, uint64_t *out_id, struct dv_err *err)
{
    struct memory_store *m = self(s);
    int rc = dv_store_check_key(queue, err);
    if (!rc)
        rc = dv_store_check_size(payload, DV_STORE_PAYLOAD_MAX, err);
    if (rc)
        return rc;
    struct change *c = note(m);
    struct item *it = c && !ptrs_reserve(&m->items) ? dv_alloc(sizeof(*it) + queue.n + payload.n) : NULL;
    if (!it)
        return finish(m, m->n_journal, DV_E_NOMEM, err);
    char *bytes = (char *)(it + 1);
    memcpy(bytes, queue.p, queue.n);
    if (payload.n)
        memcpy(bytes + queue.n, payload.p, payload.n);
    int64_t due_ms = not_before_ms > now_ms ? not_before_ms : now_ms;
    *it = (struct item){.id = ++m->last_id,
                        .created_ms = now_ms,
                        .queue = dv_sv(bytes, queue.n),
                        .payload = dv_sv(bytes + queue.n, payload.n),
                        .now = {.not_before_ms = due_ms, .due_ms = due_ms}};
    ptrs_insert(&m->items, m->items.n, it);
    *c = (struct change){.kind = ITEM_ADDED, .item = it};
    m->n_journal++;
    if (out_id)
        *out_id = it->id;
    return finish(m, 0, DV_OK, err);
}

static int item_change(struct memory_store *m, struct item *it, struct item_state now)
{
    struct change *c = note(m);
    if (!c)
        return DV_E_NOMEM;
    *c = (struct change){.kind = ITEM_CHANGED, .item = it, .before = it->now};
    m->n_journal++;
    it->now = now;
    return DV_OK;
}

static struct item *oldest_due(const struct memory_store *m, struct dv_sv queue, int64_t now_ms)
{
    struct item *best = NULL;
    for (size_t i = 0; i < m->items.n; i++) {
        struct item *it = m->items.v[i];
        if (it->now.due_ms <= now_ms && (!best || it->now.due_ms < best->now.due_ms) &&
            dv_sv_eq(it->queue, queue))
            best = it;
    }
    return best;
}

static int memory_work_claim(struct dv_store *s, struct dv_sv queue, int64_t now_ms, int64_t lease_until_ms,
                             struct dv_arena *arena, struct dv_work *out, struct dv_err *err)
{
    struct memory_store *m = self(s);
    struct item *it = oldest_due(m, queue, now_ms);
    if (!it)
        return DV_NOT_FOUND;
    size_t mark = m->n_journal;
    struct dv_sv name = dv_arena_sv(arena, it->queue), payload = dv_arena_sv(arena, it->payload);
    struct item_state now = it->now;
    now.due_ms = lease_until_ms;
    now.attempts++;
    now.is_claimed = true;
    int rc = !name.p || !payload.p ? DV_E_NOMEM : item_change(m, it, now);
    if (!rc)
        *out = (struct dv_work){it->id, name, payload, now.not_before_ms, it->created_ms, now.attempts};
    return finish(m, mark, rc, err);
}

static int item_remove(struct memory_store *m, size_t at)
{
    struct change *c = note(m);
    if (!c)
        return DV_E_NOMEM;
    *c = (struct change){.kind = ITEM_REMOVED, .item = m->items.v[at]};
    m->n_journal++;
    ptrs_remove(&m->items, at);
    return DV_OK;
}

static int memory_work_ack(struct dv_store *s, uint64_t id, struct dv_err *err)
{
    struct memory_store *m = self(s);
    if (!item_find(m, id))
        return DV_NOT_FOUND;
    size_t mark = m->n_journal;
    return finish(m, mark, item_remove(m, item_bound(m, id)), err);
}

static int memory_work_retry(struct dv_store *s, uint64_t id, int64_t not_before_ms, struct dv_err *err)
{
    struct memory_store *m = self(s);
    struct item *it = item_find(m, id);
    if (!it)
        return DV_NOT_FOUND;
    struct item_state now = it->now;
    now.not_before_ms = now.due_ms = not_before_ms;
    now.is_claimed = false;
    size_t mark = m->n_journal;
    return finish(m, mark, item_change(m, it, now), err);
}

static int memory_work_release_all(struct dv_store *s, struct dv_err *err)
{
    struct memory_store *m = self(s);
    size_t mark = m->n_journal;
    int rc = DV_OK;
    for (size_t i = 0; i < m->items.n && !rc; i++) {
        struct item *it = m->items.v[i];
        struct item_state now = it->now;
        if (!now.is_claimed)
            continue;
        now.due_ms = now.not_before_ms;
        now.is_claimed = false;
        rc = item_change(m, it, now);
    }
    return finish(m, mark, rc, err);
}

/* The queue name that follows `after` in byte order; .p NULL when there is none. */
static struct dv_sv next_queue(const struct memory_store *m, struct dv_sv after)
{
    struct dv_sv best = {0};
    for (size_t i = 0; i < m->items.n; i++) {
        struct dv_sv q = ((struct item *)m->items.v[i])->queue;
        if (compare(q, after) > 0 && (!best.p || compare(q, best) < 0))
            best = q;
    }
    return best;
}

static int memory_work_queues(struct dv_store *s,
                              int (*each)(void *ctx, struct dv_sv queue, uint64_t n, int64_t due_ms),
                              void *ctx, struct dv_err *err)
{
    (void)err; /* cannot fail */
    struct memory_store *m = self(s);
    for (struct dv_sv q = next_queue(m, DV_SV("")); q.p; q = next_queue(m, q)) {
        uint64_t n = 0;
        int64_t due_ms = INT64_MAX;
        for (size_t i = 0; i < m->items.n; i++) {
            const struct item *it = m->items.v[i];
            if (!dv_sv_eq(it->queue, q))
                continue;
            n++;
            due_ms = it->now.due_ms < due_ms ? it->now.due_ms : due_ms;
        }
        if (each(ctx, q, n, due_ms))
            break;
    }
    return DV_OK;
}

static int memory_work_next_due(struct dv_store *s, struct dv_sv queue, int64_t *out_due_ms,
                                struct dv_err *err)
{
    (void)err; /* cannot fail */
    struct memory_store *m = self(s);
    const struct item *best = oldest_due(m, queue, INT64_MAX);
    if (!best)
        return DV_NOT_FOUND;
    *out_due_ms = best->now.due_ms;
    return DV_OK;
}

static int memory_work_drop(struct dv_store *s, struct dv_sv queue, uint64_t *out_n, struct dv_err *err)
{
    struct memory_store *m = self(s);
    size_t mark = m->n_journal;
    uint64_t n = 0;
    int rc = DV_OK;
    for (size_t i = m->items.n; i-- > 0 && !rc;) {
        if (!dv_sv_eq(((struct item *)m->items.v[i])->queue, queue))
            continue;
        rc = item_remove(m, i);
        n++;
    }
    rc = finish(m, mark, rc, err);
    if (!rc && out_n)
        *out_n = n;
    return rc;
}

/* ---- transactions: there is no disk to wait for, so only save and undo do anything ---- */

static int memory_begin(struct dv_store *s, struct dv_err *err)
{
    (void)s, (void)err;
    return DV_OK;
}

static int memory_save(struct dv_store *s, struct dv_err *err)
{
    (void)err;
    struct memory_store *m = self(s);
    assert(!m->is_saved);
    m->is_saved = true;
    m->saved_revision = m->revision;
    return DV_OK;
}

static int memory_keep(struct dv_store *s, struct dv_err *err)
{
    (void)err;
    self(s)->is_saved = false;
    journal_forget(self(s));
    return DV_OK;
}

static int memory_undo(struct dv_store *s, struct dv_err *err)
{
    (void)err;
    struct memory_store *m = self(s);
    assert(m->is_saved);
    m->is_saved = false;
    journal_undo(m, 0);
    m->revision = m->saved_revision;
    return DV_OK;
}

static void memory_close(struct dv_store *s)
{
    if (!s)
        return;
    struct memory_store *m = self(s);
    journal_forget(m);
    for (size_t i = 0; i < m->entries.n; i++)
        dv_free(m->entries.v[i]);
    for (size_t i = 0; i < m->items.n; i++)
        dv_free(m->items.v[i]);
    dv_free(m->entries.v);
    dv_free(m->items.v);
    dv_free(m->journal);
    dv_free(m);
}

static const struct dv_store_ops memory_ops = {
    .get = memory_get,
    .list = memory_list,
    .commit = memory_commit,
    .revision = memory_revision,
    .work_append = memory_work_append,
    .work_claim = memory_work_claim,
    .work_ack = memory_work_ack,
    .work_retry = memory_work_retry,
    .work_release_all = memory_work_release_all,
    .work_queues = memory_work_queues,
    .work_next_due = memory_work_next_due,
    .work_drop = memory_work_drop,
    .begin = memory_begin,
    .end = memory_begin,
    .save = memory_save,
    .keep = memory_keep,
    .undo = memory_undo,
    .close = memory_close,
};

int dv_store_memory_open(struct dv_store **out, struct dv_err *err)
{
    struct memory_store *m = dv_zalloc(sizeof(*m));
    if (!m)
        return dv_err_set(err, DV_E_NOMEM, "store in memory");
    m->base.ops = &memory_ops;
    *out = &m->base;
    return DV_OK;
}

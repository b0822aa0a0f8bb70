/* Primed sandboxes in the engine's listing: those that an earlier agent made are taken over, the rest is
 * nobody's and goes the way of every container without an owner. */
#include "agent/sandbox/box.h"
#include "agent/sandbox/sandbox_internal.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <dirent.h>
#include <unistd.h>

static const char *label(const struct dv_engine_container *c, const char *key)
{
    for (size_t i = 0; i < c->labels.n; i++)
        if (!strcmp(c->labels.v[i].k, key))
            return c->labels.v[i].v;
    return NULL;
}

/* 0: not a box. */
static uint64_t box_id(const struct dv_engine_container *c)
{
    const char *text = label(c, "dev.davit.primed");
    uint64_t id = 0;
    if (text && (!dv_parse_hex64(dv_sv_c(text), &id) || !id))
        id = UINT64_MAX; /* unreadable: of nobody */
    return id;
}

/* Whose the box became; 0: nobody's, it is closed; false: there is no such box any more. */
static bool signed_over(struct dv_sandbox *s, uint64_t id, uint64_t *out_replica)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    const struct sb_box named = {.sb = s, .id = id};
    char path[4096];
    *out_replica = 0;
    if (sb_box_path(&named, "/gate", path, sizeof(path)) || access(path, F_OK) < 0 ||
        sb_box_path(&named, "/replica", path, sizeof(path)))
        return false;
    int rc = dv_file_read(path, 64, &text, NULL);
    if (rc == DV_NOT_FOUND)
        return true;
    return !rc && dv_parse_hex64(dv_buf_sv(&text), out_replica) && *out_replica;
}

static void adopt_opened(struct dv_sandbox *s, uint64_t id, uint64_t replica)
{
    struct dv_err err = DV_ERR_INIT;
    struct sb_replica *r = sb_find(s, replica);
    struct sb_box *b = r && !r->box && r->phase == PH_LOST ? sb_box_new(s, id, NULL, BOX_OPENED) : NULL;
    if (!b)
        return;
    b->replica = r;
    b->is_sent = true;
    r->box = b;
    if (sb_box_listen(b, -1, &err)) /* its end is told by the engine then */
        dv_log(DV_LOG_WARN, "a gate is deaf", DV_LE(&err));
}

static void adopt_closed(struct dv_sandbox *s, uint64_t id, const struct dv_engine_container *c)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    const char *text = label(c, "dev.davit.pool"), *image = label(c, "dev.davit.image");
    struct dv_pool kind;
    if (!text || !image || strcmp(c->state, "running") != 0 ||
        (int64_t)s->pools.by_id.n >= s->cfg.primed_max ||
        dv_wire_decode(&dv_type_pool, dv_sv_c(text), 8192, DV_WIRE_IGNORE_UNKNOWN, &arena, &kind, NULL))
        return;
    struct sb_pool *p = sb_pool_get(s, &kind);
    struct sb_box *b = p ? sb_box_new(s, id, p, BOX_INSPECT) : NULL;
    if (!b)
        return;
    (void)dv_copy(b->container, sizeof(b->container), c->id);
    (void)dv_copy(b->image_id, sizeof(b->image_id), image);
    if (sb_box_listen(b, 0, NULL)) {
        sb_box_discard(b);
        return;
    }
    s->counts.adopted++;
    sb_box_inspect(b);
}

static void adopt(struct dv_sandbox *s, uint64_t id, const struct dv_engine_container *c)
{
    uint64_t replica;
    if (!signed_over(s, id, &replica))
        return;
    if (replica)
        adopt_opened(s, id, replica);
    else
        adopt_closed(s, id, c);
}

/* What is left of boxes whose containers are gone. */
static void sweep(struct dv_sandbox *s)
{
    DIR *d = opendir(s->pools.dir);
    s->pools.is_swept = true;
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t id;
        if (dv_parse_hex64(dv_sv_c(e->d_name), &id) && !dv_idmap_find(&s->pools.by_id, id))
            sb_box_drop_dir(s, id);
    }
    (void)closedir(d);
}

void sb_boxes_listed(struct dv_sandbox *s, const struct dv_engine_container *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t id = box_id(&c[i]);
        struct sb_box *b = id ? dv_idmap_find(&s->pools.by_id, id) : NULL;
        bool is_judged =
            b && b->state >= BOX_HELLO && b->state < BOX_OPENED && b->since_ns < s->list_began_ns;
        if (id && !b)
            adopt(s, id, &c[i]);
        else if (is_judged && !sb_nets_is_running(&c[i]))
            sb_box_discard(b);
    }
    if (!s->pools.is_swept)
        sweep(s);
    sb_pools_changed(s, false);
}

bool sb_boxes_owner(struct dv_sandbox *s, const struct dv_engine_container *c, bool *out_is_closed,
                    uint64_t *out_replica)
{
    uint64_t id = box_id(c);
    struct sb_box *b = id ? dv_idmap_find(&s->pools.by_id, id) : NULL;
    *out_is_closed = b && b->state != BOX_OPENED;
    *out_replica = b && b->replica ? b->replica->id : 0;
    return id != 0;
}

/* Images: which are here, and one pull at a time for each, however many replicas wait for it.
 *
 * What an inspect told is kept until a create contradicts it or the engine's list names another id, so that a
 * start asks the engine nothing about its image.  `always` pulls once for all that ask within the same few
 * seconds. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"

enum { FRESH_MS = 5000 };

struct sb_image {
    struct dv_sandbox *sb;
    char *name;
    enum { IMG_UNKNOWN, IMG_ASKING, IMG_PULLING, IMG_HERE } state;
    char arch[24];
    struct dv_list waiting; /* sb_replica.in_image */
    struct dv_arena auth_arena;
    struct dv_registry_auth auth; /* of the replica that began the pull */
    bool want_fresh, was_pulled;
    uint64_t pulled_ns, pull_began_ns;
    char progress[96];
};

static struct sb_image *image_get(struct dv_sandbox *s, const char *name)
{
    struct sb_image *img = dv_map_find(&s->images.by_name, dv_sv_c(name));
    if (img)
        return img;
    img = dv_zalloc(sizeof(*img));
    char *copy = img ? dv_strdup(name) : NULL;
    if (!copy || dv_map_put(&s->images.by_name, dv_sv_c(copy), img)) {
        dv_free(copy);
        dv_free(img);
        return NULL;
    }
    img->sb = s;
    img->name = copy;
    dv_list_init(&img->waiting);
    return img;
}

static void image_free(struct sb_image *img)
{
    dv_arena_deinit(&img->auth_arena);
    dv_free(img->name);
    dv_free(img);
}

void sb_image_leave(struct sb_replica *r)
{
    dv_list_remove(&r->in_image);
    r->image = NULL;
}

/* Everybody who waited, one by one: each may end or go on, and none may be touched afterwards. */
static void release(struct sb_image *img, enum dv_reason reason, int code, const struct dv_err *err)
{
    struct dv_list *n;
    struct dv_list batch;
    dv_list_init(&batch);
    while ((n = dv_list_pop_front(&img->waiting)))
        dv_list_push_back(&batch, n);
    while ((n = dv_list_pop_front(&batch))) {
        struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, in_image);
        r->image = NULL;
        if (img->was_pulled)
            r->times.pull_us = (int64_t)((sb_now(img->sb) - r->phase_ns) / 1000);
        if (reason)
            sb_replica_fail_engine(r, reason, code, err);
        else
            sb_replica_image_ready(r);
    }
}

static void refuse(struct sb_image *img, int code, const struct dv_err *err)
{
    img->state = IMG_UNKNOWN;
    release(img, code == DV_DENIED ? DV_REASON_IMAGE_DENIED : DV_REASON_IMAGE_MISSING, code, err);
}

static void ask(struct sb_image *img);

static void on_progress(void *ctx, int percent, const char *status)
{
    struct sb_image *img = ctx;
    if (percent >= 0)
        (void)snprintf(img->progress, sizeof(img->progress), "pulling the image: %d %%", percent);
    else
        (void)snprintf(img->progress, sizeof(img->progress), "pulling the image: %s", status ? status : "");
    DV_LIST_FOR_EACH (n, &img->waiting) {
        struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, in_image);
        if (strcmp(r->message, img->progress) != 0) {
            (void)dv_copy(r->message, sizeof(r->message), img->progress);
            r->is_dirty = true;
        }
    }
    sb_changed(img->sb);
}

static void on_pulled(void *ctx, int code, const struct dv_err *err)
{
    struct sb_image *img = ctx;
    struct dv_sandbox *s = img->sb;
    dv_hist_add_ns(&s->counts.pull, sb_now(s) - img->pull_began_ns);
    s->counts.pulls++;
    DV_LIST_FOR_EACH (n, &img->waiting)
        DV_LIST_ENTRY(n, struct sb_replica, in_image)->message[0] = '\0';
    if (code) {
        s->counts.pull_failures++;
        dv_log(DV_LOG_WARN, "image not pulled", DV_LS("image", img->name),
               DV_LS("error", dv_err_msg(err, code)));
        refuse(img, code, err);
        return;
    }
    dv_log(DV_LOG_INFO, "image pulled", DV_LS("image", img->name),
           DV_LU("ms", (sb_now(s) - img->pull_began_ns) / DV_MS));
    img->was_pulled = true;
    img->pulled_ns = sb_now(s);
    img->want_fresh = false;
    sb_images_list(s);
    ask(img);
}

static void pull(struct sb_image *img)
{
    img->state = IMG_PULLING;
    img->pull_began_ns = sb_now(img->sb);
    sb_ops(img->sb)->image_pull(img->sb->cfg.engine, img->name, img->auth.username ? &img->auth : NULL,
                                on_progress, on_pulled, img);
}

static void on_inspected(void *ctx, int code, const struct dv_engine_image *got, const struct dv_err *err)
{
    struct sb_image *img = ctx;
    struct dv_err why = DV_ERR_INIT;
    const char *node_arch = img->sb->info.arch;
    if (code == DV_NOT_FOUND && !img->was_pulled) {
        pull(img);
        return;
    }
    if (code) {
        refuse(img, code, err);
        return;
    }
    (void)dv_copy(img->arch, sizeof(img->arch), got->arch);
    if (img->arch[0] && node_arch[0] && strcmp(img->arch, node_arch) != 0) {
        img->state = IMG_UNKNOWN;
        code = dv_err_set(&why, DV_INVALID, "image %s is built for %s, this node is %s", img->name, img->arch,
                          node_arch);
        release(img, DV_REASON_WRONG_ARCH, code, &why);
        return;
    }
    img->state = IMG_HERE;
    sb_pools_image(img->sb, img->name, got);
    release(img, DV_REASON_NONE, DV_OK, NULL);
}

static void ask(struct sb_image *img)
{
    img->state = IMG_ASKING;
    sb_ops(img->sb)->image_inspect(img->sb->cfg.engine, img->name, on_inspected, img);
}

static void keep_auth(struct sb_image *img, const struct dv_registry_auth *auth)
{
    dv_arena_reset(&img->auth_arena);
    img->auth = (struct dv_registry_auth){.username = dv_arena_strdup(&img->auth_arena, auth->username),
                                          .password = dv_arena_strdup(&img->auth_arena, auth->password),
                                          .server = dv_arena_strdup(&img->auth_arena, auth->server)};
}

void sb_image_want(struct sb_replica *r, bool refresh)
{
    struct dv_sandbox *s = r->sb;
    struct sb_image *img = image_get(s, r->cmd.spec.image);
    if (!img) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, "the agent is out of memory");
        return;
    }
    bool is_fresh = img->pulled_ns && sb_now(s) - img->pulled_ns < FRESH_MS * DV_MS;
    if (img->state == IMG_HERE && (!refresh || is_fresh)) {
        sb_replica_image_ready(r);
        return;
    }
    r->image = img;
    dv_list_push_back(&img->waiting, &r->in_image);
    if (img->state == IMG_ASKING || img->state == IMG_PULLING)
        return;
    img->was_pulled = false;
    keep_auth(img, &r->cmd.registry);
    if (refresh)
        pull(img);
    else
        ask(img);
}

void sb_image_forget(struct dv_sandbox *s, const char *name)
{
    struct sb_image *img = dv_map_find(&s->images.by_name, dv_sv_c(name));
    if (img && img->state == IMG_HERE)
        img->state = IMG_UNKNOWN;
}

/* ---- the engine's list ---- */

static bool same_names(const struct dv_strs *a, const struct dv_image_ref *b, size_t n)
{
    if (a->n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(a->v[i], b[i].name) != 0)
            return false;
    return true;
}

static void names_free(struct dv_strs *names)
{
    for (size_t i = 0; i < names->n; i++)
        dv_free(names->v[i]);
    dv_free(names->v);
    *names = (struct dv_strs){0};
}

static void on_listed(void *ctx, int code, const struct dv_image_ref *images, size_t n,
                      const struct dv_err *err)
{
    struct dv_sandbox *s = ctx;
    (void)err;
    s->images.is_listing = false;
    s->images.listed_ns = sb_now(s);
    if (code || same_names(&s->images.names, images, n))
        return;
    struct dv_strs names = {.v = dv_zalloc_n(n ? n : 1, sizeof(char *))};
    for (; names.v && names.n < n; names.n++)
        if (!(names.v[names.n] = dv_strdup(images[names.n].name)))
            break;
    if (!names.v || names.n < n) {
        names_free(&names);
        return; /* the next round tries again */
    }
    names_free(&s->images.names);
    s->images.names = names;
    s->images.version++;
    /* Whatever changed, ask again before the next start that needs it: cheap and always right. */
    size_t i = 0;
    for (struct sb_image *img; (img = dv_map_next(&s->images.by_name, &i));)
        if (img->state == IMG_HERE)
            img->state = IMG_UNKNOWN;
    sb_changed(s);
}

void sb_images_list(struct dv_sandbox *s)
{
    if (s->images.is_listing)
        return;
    s->images.is_listing = true;
    sb_ops(s)->image_list(s->cfg.engine, on_listed, s);
}

void sb_images_free(struct dv_sandbox *s)
{
    size_t i = 0;
    for (struct sb_image *img; (img = dv_map_next(&s->images.by_name, &i));)
        image_free(img);
    dv_map_deinit(&s->images.by_name);
    names_free(&s->images.names);
}

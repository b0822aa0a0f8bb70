/* The engine in memory: its making and its knobs.  Operations stand in fake_ops.c, containers in
 * fake_process.c. */
#include "agent/engine/fake_internal.h"

#include "proto/base/alloc.h"

int dv_engine_fake_open(struct dv_loop *loop, struct dv_engine_fake **out)
{
    struct dv_engine_fake *f = dv_zalloc(sizeof(*f));
    if (!f)
        return DV_E_NOMEM;
    f->base.ops = &dv_fake_ops;
    f->loop = loop;
    dv_list_init(&f->images);
    dv_list_init(&f->containers);
    dv_list_init(&f->tasks);
    *out = f;
    return DV_OK;
}

struct dv_engine *dv_engine_fake_engine(struct dv_engine_fake *f)
{
    return &f->base;
}

void dv_engine_fake_add_image(struct dv_engine_fake *f, const char *name, const struct dv_engine_image *img,
                              bool is_present)
{
    struct image *i = dv_fake_find_image(f, name);
    const char *slash = strrchr(name, '/');
    if (!i) {
        i = dv_zalloc(sizeof(*i));
        if (!i)
            return;
        dv_list_push_back(&f->images, &i->node);
        (void)snprintf(i->name, sizeof(i->name), "%s%s", name,
                       strchr(slash ? slash : name, ':') ? "" : ":latest");
    }
    i->img = img ? *img : (struct dv_engine_image){.arch = "amd64", .os = "linux", .size_bytes = 1 << 20};
    if (!i->img.id[0])
        (void)snprintf(i->img.id, sizeof(i->img.id), "sha256:%064llx", (unsigned long long)++f->next_id);
    i->is_present = is_present;
}

void dv_engine_fake_fail(struct dv_engine_fake *f, enum dv_engine_fake_op op, int code, const char *words,
                         int times)
{
    f->fail[op].code = code;
    f->fail[op].times = times;
    (void)dv_copy(f->fail[op].words, sizeof(f->fail[op].words), words ? words : dv_err_text(code));
}

void dv_engine_fake_delay(struct dv_engine_fake *f, enum dv_engine_fake_op op, uint64_t ms)
{
    f->delay_ms[op] = ms;
}

void dv_engine_fake_down(struct dv_engine_fake *f, bool is_down)
{
    f->is_down = is_down;
    DV_LIST_FOR_EACH (it, &f->tasks) {
        struct task *t = DV_LIST_ENTRY(it, struct task, node);
        if (!is_down || !t->is_stream)
            continue;
        t->is_stream = false; /* breaks in the next turn, since calls fail now */
        (void)dv_timer_set(f->loop, &t->timer, dv_loop_now(f->loop));
    }
}

void dv_engine_fake_on_start(struct dv_engine_fake *f,
                             void (*fn)(void *ctx, struct dv_engine_fake_started *s), void *ctx)
{
    f->on_start = fn;
    f->on_start_ctx = ctx;
}

void dv_engine_fake_exit(struct dv_engine_fake *f, const char *id, int64_t exit_code, bool is_oom)
{
    struct container *c = dv_fake_find(f, id);
    if (c)
        dv_fake_end_process(c, exit_code, is_oom);
}

void dv_engine_fake_end_all(struct dv_engine_fake *f)
{
    DV_LIST_FOR_EACH (it, &f->containers)
        dv_fake_end_process(DV_LIST_ENTRY(it, struct container, node), 255, false);
}

void dv_engine_fake_log(struct dv_engine_fake *f, const char *id, bool is_stderr, const char *text)
{
    struct container *c = dv_fake_find(f, id);
    if (c)
        dv_fake_add_log(c, is_stderr, text);
}

size_t dv_engine_fake_count(const struct dv_engine_fake *f, const char *state)
{
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->containers)
        n += !state || strcmp(DV_LIST_ENTRY(it, struct container, node)->seen.state, state) == 0;
    return n;
}

size_t dv_engine_fake_labelled(const struct dv_engine_fake *f, const char *label)
{
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->containers)
        n += dv_fake_has_label(DV_LIST_ENTRY(it, struct container, node), label);
    return n;
}

const struct dv_engine_create *dv_engine_fake_spec(const struct dv_engine_fake *f, const char *id)
{
    const struct container *c = dv_fake_find(f, id);
    return c ? &c->spec : NULL;
}

uint64_t dv_engine_fake_calls(const struct dv_engine_fake *f, enum dv_engine_fake_op op)
{
    return f->calls[op];
}

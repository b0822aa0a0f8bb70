/* Containers of the engine in memory, and the toy programs that run in them. */
#include "agent/engine/fake_internal.h"

#include "proto/base/alloc.h"

/* ---- containers ---- */

struct container *dv_fake_find(const struct dv_engine_fake *f, const char *id)
{
    DV_LIST_FOR_EACH (it, &f->containers) {
        struct container *c = DV_LIST_ENTRY(it, struct container, node);
        if (strcmp(c->seen.id, id) == 0 || strcmp(c->seen.name, id) == 0)
            return c;
    }
    return NULL;
}

bool dv_fake_is_running(const struct container *c)
{
    return strcmp(c->seen.state, "running") == 0;
}

void dv_fake_container_free(struct container *c)
{
    if (!c)
        return;
    struct dv_list *it;
    while ((it = dv_list_pop_front(&c->logs))) {
        struct log *l = DV_LIST_ENTRY(it, struct log, node);
        dv_free(l->text);
        dv_free(l);
    }
    dv_timer_cancel(c->f->loop, &c->timer);
    dv_list_remove(&c->node);
    dv_arena_deinit(&c->arena);
    dv_free(c);
}

/* "key" or "key=value" */
bool dv_fake_has_label(const struct container *c, const char *label)
{
    struct dv_sv key, value;
    bool has_value = dv_sv_cut(dv_sv_c(label), '=', &key, &value);
    for (size_t i = 0; i < c->spec.labels.n; i++)
        if (dv_sv_eq(dv_sv_c(c->spec.labels.v[i].k), key))
            return !has_value || dv_sv_eq(dv_sv_c(c->spec.labels.v[i].v), value);
    return false;
}

const char *dv_fake_joins(const struct container *c)
{
    static const char joined[] = "container:";
    const char *network = c->spec.network;
    return network && strncmp(network, joined, sizeof(joined) - 1) == 0 ? network + sizeof(joined) - 1 : NULL;
}

static bool copy_str(struct dv_arena *a, const char **s)
{
    *s = dv_arena_strdup(a, *s ? *s : "");
    return *s != NULL;
}

static bool copy_list(struct dv_arena *a, struct dv_strs *list)
{
    char **v = dv_arena_alloc(a, (list->n + 1) * sizeof(*v));
    for (size_t i = 0; v && i < list->n; i++)
        if (!(v[i] = dv_arena_strdup(a, list->v[i])))
            return false;
    list->v = v;
    return v != NULL;
}

bool dv_fake_copy_spec(struct container *c, const struct dv_engine_create *from)
{
    struct dv_arena *a = &c->arena;
    struct dv_engine_create *s = &c->spec;
    *s = *from;
    struct dv_kv *labels = dv_arena_alloc(a, (s->labels.n + 1) * sizeof(*labels));
    struct dv_engine_mount *mounts = dv_arena_alloc(a, (s->n_mounts + 1) * sizeof(*mounts));
    bool ok = labels && mounts && copy_str(a, &s->name) && copy_str(a, &s->image) && copy_str(a, &s->user) &&
              copy_str(a, &s->workdir) && copy_str(a, &s->network) && copy_str(a, &s->hostname) &&
              copy_list(a, &s->entrypoint) && copy_list(a, &s->command) && copy_list(a, &s->env);
    for (size_t i = 0; ok && i < s->labels.n; i++) {
        labels[i] =
            (struct dv_kv){dv_arena_strdup(a, s->labels.v[i].k), dv_arena_strdup(a, s->labels.v[i].v)};
        ok = labels[i].k && labels[i].v;
    }
    for (size_t i = 0; ok && i < s->n_mounts; i++) {
        mounts[i] = s->mounts[i];
        ok = copy_str(a, &mounts[i].source) && copy_str(a, &mounts[i].target);
    }
    s->labels.v = labels;
    s->mounts = mounts;
    return ok;
}

/* ---- streams ---- */

void dv_fake_tell_event(struct dv_engine_fake *f, const struct container *c, const char *action)
{
    const struct dv_engine_event ev = {.action = action,
                                       .container = c->seen.id,
                                       .exit_code = c->seen.exit_code,
                                       .time_ns = dv_clock_wall_ms(dv_loop_clock(f->loop)) * 1000000};
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks) {
        struct task *t = DV_LIST_ENTRY(it, struct task, node);
        if (t->is_stream && t->op == DV_FAKE_EVENTS && dv_fake_has_label(c, t->id))
            ((void (*)(void *, const struct dv_engine_event *))t->each)(t->ctx, &ev);
    }
}

void dv_fake_tell_line(struct task *t, const struct log *l)
{
    const struct dv_engine_log line = {
        .is_stderr = l->is_stderr, .wall_ms = l->wall_ms, .text = dv_sv_c(l->text)};
    ((void (*)(void *, const struct dv_engine_log *))t->each)(t->ctx, &line);
}

void dv_fake_add_log(struct container *c, bool is_stderr, const char *text)
{
    struct dv_engine_fake *f = c->f;
    struct log *l = dv_zalloc(sizeof(*l));
    if (!l || !(l->text = dv_strdup(text))) {
        dv_free(l);
        return;
    }
    l->is_stderr = is_stderr;
    l->wall_ms = dv_clock_wall_ms(dv_loop_clock(f->loop));
    dv_list_push_back(&c->logs, &l->node);
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks) {
        struct task *t = DV_LIST_ENTRY(it, struct task, node);
        if (t->is_stream && t->op == DV_FAKE_LOGS && strcmp(t->id, c->seen.id) == 0)
            dv_fake_tell_line(t, l);
    }
}

static void end_log_streams(struct dv_engine_fake *f, const struct container *c)
{
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks) {
        struct task *t = DV_LIST_ENTRY(it, struct task, node);
        if (t->is_stream && t->op == DV_FAKE_LOGS && strcmp(t->id, c->seen.id) == 0) {
            t->is_stream = false; /* its end comes in a turn of its own */
            (void)dv_timer_set(f->loop, &t->timer, dv_loop_now(f->loop));
        }
    }
}

void dv_fake_end_process(struct container *c, int64_t code, bool is_oom)
{
    if (!dv_fake_is_running(c))
        return;
    dv_timer_cancel(c->f->loop, &c->timer);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "exited");
    c->seen.exit_code = code;
    c->seen.oom_killed = is_oom;
    c->seen.pid = 0;
    c->seen.address[0] = '\0';
    if (is_oom)
        dv_fake_tell_event(c->f, c, "oom");
    dv_fake_tell_event(c->f, c, "die");
    end_log_streams(c->f, c);
}

/* ---- the toy program ---- */

static void echo(struct container *c, struct dv_sv text)
{
    bool is_stderr = dv_sv_ends(text, DV_SV(">&2"));
    if (is_stderr)
        text = dv_sv_trim(dv_sv(text.p, text.n - 3));
    DV_AUTO_STR char *line = dv_strndup(text.p, text.n);
    if (line)
        dv_fake_add_log(c, is_stderr, line);
}

static void run_program(struct container *c)
{
    while (c->next && dv_fake_is_running(c)) {
        struct dv_sv one, rest, verb, args;
        bool more = dv_sv_cut(dv_sv_c(c->next), ';', &one, &rest);
        uint64_t n = 0;
        double seconds = 0;
        c->next = more ? rest.p : "exit 0";
        (void)dv_sv_cut(dv_sv_trim(one), ' ', &verb, &args);
        if (dv_sv_eq(verb, DV_SV("echo"))) {
            echo(c, args);
        } else if (dv_sv_eq(verb, DV_SV("exit"))) {
            (void)dv_parse_u64(args, &n);
            dv_fake_end_process(c, (int64_t)n, false);
        } else if (dv_sv_eq(verb, DV_SV("sleep"))) {
            (void)dv_parse_double(args, &seconds);
            (void)dv_timer_set(c->f->loop, &c->timer, dv_loop_now(c->f->loop) + (uint64_t)(seconds * 1e9));
            return;
        }
    }
}

void dv_fake_on_program(struct dv_timer *t)
{
    run_program(DV_CONTAINER_OF(t, struct container, timer));
}

const char *dv_fake_script_of(const struct dv_engine_create *spec)
{
    const struct dv_strs *both[] = {&spec->entrypoint, &spec->command};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i + 1 < both[k]->n; i++)
            if (strcmp(both[k]->v[i], "-c") == 0)
                return both[k]->v[i + 1];
    return NULL;
}

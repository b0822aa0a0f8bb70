/* Operations of the engine in memory.  Every one becomes a task with a timer, so that nothing answers before
 * its call returned and delays cost nothing to have.  A task acts when its timer fires, on the state of that
 * moment, as the real engine does. */
#include "agent/engine/fake_internal.h"

#include "proto/base/alloc.h"

enum { FAKE_PID_BASE = 1 << 23 /* past the kernel's largest pid */, MEMORY_MIN = 6 * 1024 * 1024 };

static void task_free(struct task *t)
{
    dv_timer_cancel(t->f->loop, &t->timer);
    dv_list_remove(&t->node);
    dv_fake_container_free(t->made);
    dv_free(t);
}

static void finish(struct task *t, int code, const struct dv_err *err)
{
    dv_list_remove(&t->node);
    dv_timer_cancel(t->f->loop, &t->timer);
    dv_fake_container_free(t->made);
    if (code < 0)
        t->f->errors++;
    t->finish(t, code, code ? err : NULL); /* may close the engine */
    dv_free(t);
}

static void plain_finish(struct task *t, int code, const struct dv_err *err)
{
    ((dv_engine_done *)t->done)(t->ctx, code, err);
}

/* ---- starting a task ---- */

static int check_fail(struct task *t, struct dv_err *err)
{
    struct dv_engine_fake *f = t->f;
    if (f->is_down)
        return dv_err_set(err, DV_E_ENGINE, "no container engine: nobody listens there; start dockerd");
    if (!f->fail[t->op].times)
        return DV_OK;
    if (f->fail[t->op].times > 0)
        f->fail[t->op].times--;
    return dv_err_set(err, f->fail[t->op].code, "%s", f->fail[t->op].words);
}

static void on_task(struct dv_timer *timer)
{
    struct task *t = DV_CONTAINER_OF(timer, struct task, timer);
    struct dv_err err = DV_ERR_INIT;
    int code = t->is_cancelled ? DV_OK : check_fail(t, &err);
    if (code == DV_OK) {
        t->is_busy = true;
        code = t->act ? t->act(t, &err) : DV_OK;
        t->is_busy = false;
    }
    if (t->is_cancelled)
        task_free(t);
    else if (!t->is_stream)
        finish(t, code, &err);
}

static struct task *begin(struct dv_engine *e, enum dv_engine_fake_op op, const char *id, any_fn done,
                          void *ctx)
{
    struct dv_engine_fake *f = dv_fake_of(e);
    struct task *t = dv_zalloc(sizeof(*t));
    f->calls[op]++;
    if (!t)
        return NULL;
    *t = (struct task){
        .timer = {.fn = on_task}, .f = f, .op = op, .finish = plain_finish, .done = done, .ctx = ctx};
    (void)dv_copy(t->id, sizeof(t->id), id ? id : "");
    dv_list_push_back(&f->tasks, &t->node);
    if (dv_timer_set(f->loop, &t->timer, dv_loop_now(f->loop) + f->delay_ms[op] * DV_MS)) {
        task_free(t);
        return NULL;
    }
    return t;
}

static const struct dv_err *no_memory(void)
{
    static const struct dv_err err = {.code = DV_E_NOMEM, .msg = "out of memory"};
    return &err;
}

static void begin_plain(struct dv_engine *e, enum dv_engine_fake_op op, const char *id,
                        int (*act)(struct task *, struct dv_err *), int64_t a, bool flag,
                        dv_engine_done *done, void *ctx)
{
    struct task *t = begin(e, op, id, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, no_memory());
        return;
    }
    t->act = act;
    t->a = a;
    t->flag = flag;
}

/* ---- connect and network ---- */

typedef void connect_done(void *, int, const struct dv_engine_info *, const struct dv_err *);

static void connect_finish(struct task *t, int code, const struct dv_err *err)
{
    const struct dv_engine_info info = {.version = "20.10.0-fake",
                                        .api = "1.41",
                                        .arch = "amd64",
                                        .os = "linux",
                                        .cgroup = "v1",
                                        .name = "docker",
                                        .cpus = 4,
                                        .memory_bytes = 8ll << 30,
                                        .has_memory_limit = true,
                                        .has_pids_limit = true,
                                        .has_cpu_quota = true};
    ((connect_done *)t->done)(t->ctx, code, code ? NULL : &info, err);
}

static void fake_connect(struct dv_engine *e, connect_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_CONNECT, NULL, (any_fn)done, ctx);
    if (t)
        t->finish = connect_finish;
    else
        done(ctx, DV_E_NOMEM, NULL, no_memory());
}

static void fake_network_ensure(struct dv_engine *e, const char *name, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_NETWORK, name, NULL, 0, false, done, ctx);
}

/* ---- images ---- */

typedef void image_done(void *, int, const struct dv_engine_image *, const struct dv_err *);
typedef void images_done(void *, int, const struct dv_image_ref *, size_t, const struct dv_err *);
typedef void progress_fn(void *, int, const char *);

/* A name without a tag means "latest"; an id is a name too. */
struct image *dv_fake_find_image(const struct dv_engine_fake *f, const char *name)
{
    char full[192];
    const char *slash = strrchr(name, '/');
    bool has_tag = strchr(slash ? slash : name, ':') != NULL;
    (void)snprintf(full, sizeof(full), "%s%s", name, has_tag ? "" : ":latest");
    DV_LIST_FOR_EACH (it, &f->images) {
        struct image *i = DV_LIST_ENTRY(it, struct image, node);
        if (strcmp(i->name, full) == 0 || strcmp(i->img.id, name) == 0)
            return i;
    }
    return NULL;
}

static void image_finish(struct task *t, int code, const struct dv_err *err)
{
    struct image *i = dv_fake_find_image(t->f, t->id);
    struct dv_err none = DV_ERR_INIT;
    if (code == DV_OK && (!i || !i->is_present)) {
        code = dv_err_set(&none, DV_NOT_FOUND, "looking for image %s: No such image: %s", t->id, t->id);
        err = &none;
    }
    ((image_done *)t->done)(t->ctx, code, code ? NULL : &i->img, err);
}

static void fake_image_inspect(struct dv_engine *e, const char *image, image_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_IMAGE_INSPECT, image, (any_fn)done, ctx);
    if (t)
        t->finish = image_finish;
    else
        done(ctx, DV_E_NOMEM, NULL, no_memory());
}

static int act_pull(struct task *t, struct dv_err *err)
{
    struct image *i = dv_fake_find_image(t->f, t->id);
    if (!i)
        return dv_err_set(err, DV_NOT_FOUND, "pulling %s: manifest for %s not found: manifest unknown", t->id,
                          t->id);
    progress_fn *progress = (progress_fn *)t->each;
    for (int percent = 0; progress && percent <= 100; percent += 50)
        progress(t->ctx, percent, percent < 100 ? "Downloading" : "Pull complete");
    i->is_present = true;
    return DV_OK;
}

static void fake_image_pull(struct dv_engine *e, const char *image, const struct dv_registry_auth *auth,
                            progress_fn *progress, dv_engine_done *done, void *ctx)
{
    (void)auth;
    struct task *t = begin(e, DV_FAKE_IMAGE_PULL, image, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, no_memory());
        return;
    }
    t->act = act_pull;
    t->each = (any_fn)progress;
}

static int act_import(struct task *t, struct dv_err *err)
{
    (void)err;
    dv_engine_fake_add_image(t->f, t->id, NULL, true);
    return DV_OK;
}

static void fake_image_import(struct dv_engine *e, const char *image, struct dv_sv tar, dv_engine_done *done,
                              void *ctx)
{
    (void)tar;
    begin_plain(e, DV_FAKE_IMAGE_IMPORT, image, act_import, 0, false, done, ctx);
}

static void images_finish(struct task *t, int code, const struct dv_err *err)
{
    struct dv_image_ref refs[64];
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &t->f->images) {
        struct image *i = DV_LIST_ENTRY(it, struct image, node);
        if (i->is_present && n < DV_COUNT(refs))
            refs[n++] = (struct dv_image_ref){i->name, i->img.id};
    }
    ((images_done *)t->done)(t->ctx, code, code ? NULL : refs, code ? 0 : n, err);
}

static void fake_image_list(struct dv_engine *e, images_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_IMAGE_LIST, NULL, (any_fn)done, ctx);
    if (t)
        t->finish = images_finish;
    else
        done(ctx, DV_E_NOMEM, NULL, 0, no_memory());
}

/* ---- create ---- */

typedef void create_done(void *, int, const char *, const struct dv_err *);

static int act_create(struct task *t, struct dv_err *err)
{
    struct container *c = t->made;
    const struct image *i = dv_fake_find_image(t->f, c->spec.image);
    if (!i || !i->is_present)
        return dv_err_set(err, DV_NOT_FOUND, "creating container %s: No such image: %s", c->spec.name,
                          c->spec.image);
    if (dv_fake_find(t->f, c->spec.name))
        return dv_err_set(err, DV_CONFLICT, "creating container %s: the container name is already in use",
                          c->spec.name);
    if (c->spec.memory_bytes > 0 && c->spec.memory_bytes < MEMORY_MIN)
        return dv_err_set(err, DV_INVALID, "creating container %s: Minimum memory limit allowed is 6MB",
                          c->spec.name);
    (void)snprintf(c->seen.id, sizeof(c->seen.id), "%064llx", (unsigned long long)++t->f->next_id);
    (void)dv_copy(c->seen.name, sizeof(c->seen.name), c->spec.name);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "created");
    c->seen.labels = c->spec.labels;
    c->seen.is_network_told = true;
    if (dv_fake_joins(c))
        (void)dv_copy(c->seen.joins, sizeof(c->seen.joins), dv_fake_joins(c));
    dv_list_push_back(&t->f->containers, &c->node);
    t->made = NULL;
    (void)dv_copy(t->id, sizeof(t->id), c->seen.id);
    return DV_OK;
}

static void create_finish(struct task *t, int code, const struct dv_err *err)
{
    ((create_done *)t->done)(t->ctx, code, code ? NULL : t->id, err);
}

static void fake_create(struct dv_engine *e, const struct dv_engine_create *spec, create_done *done,
                        void *ctx)
{
    struct task *t = begin(e, DV_FAKE_CREATE, NULL, (any_fn)done, ctx);
    struct container *c = t ? dv_zalloc(sizeof(*c)) : NULL;
    if (c) {
        t->made = c;
        c->f = t->f;
        c->timer.fn = dv_fake_on_program;
        dv_list_init(&c->node);
        dv_list_init(&c->logs);
    }
    if (!c || !dv_fake_copy_spec(c, spec)) {
        if (t)
            task_free(t);
        done(ctx, DV_E_NOMEM, NULL, no_memory());
        return;
    }
    t->act = act_create;
    t->finish = create_finish;
}

/* ---- orders ---- */

static int absent(const struct task *t, struct dv_err *err)
{
    return dv_err_set(err, DV_NOT_FOUND, "No such container: %s", t->id);
}

static int act_start(struct task *t, struct dv_err *err)
{
    struct dv_engine_fake *f = t->f;
    struct container *c = dv_fake_find(f, t->id);
    if (!c)
        return absent(t, err);
    if (dv_fake_is_running(c))
        return DV_OK;
    const struct container *host = dv_fake_joins(c) ? dv_fake_find(f, dv_fake_joins(c)) : c;
    if (!host)
        return dv_err_set(err, DV_NOT_FOUND, "No such container: %s", dv_fake_joins(c));
    if (host != c && !dv_fake_is_running(host))
        return dv_err_set(err, DV_CONFLICT, "cannot join network of a non running container: %s",
                          host->seen.id);
    uint64_t n = ++f->next_id;
    struct dv_engine_fake_started s = {.id = c->seen.id, .spec = &c->spec, .pid = FAKE_PID_BASE + (int64_t)n};
    (void)snprintf(s.address, sizeof(s.address), "192.0.2.%u", (unsigned)(n % 250 + 1));
    if (f->on_start)
        f->on_start(f->on_start_ctx, &s);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "running");
    (void)dv_copy(c->seen.address, sizeof(c->seen.address), host == c ? s.address : "");
    c->seen.pid = s.pid;
    c->seen.exit_code = 0;
    c->seen.started_ms = dv_clock_wall_ms(dv_loop_clock(f->loop));
    dv_fake_tell_event(f, c, "start");
    c->next = dv_fake_script_of(&c->spec);
    if (c->next) /* begins in a turn of its own */
        (void)dv_timer_set(f->loop, &c->timer, dv_loop_now(f->loop));
    return DV_OK;
}

static void fake_start(struct dv_engine *e, const char *id, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_START, id, act_start, 0, false, done, ctx);
}

static int act_stop(struct task *t, struct dv_err *err)
{
    struct container *c = dv_fake_find(t->f, t->id);
    (void)err;
    if (c && dv_fake_is_running(c))
        dv_fake_tell_event(t->f, c, "kill");
    if (c)
        dv_fake_end_process(c, 137,
                            false); /* its first process has no handler: the signal that ends it is KILL */
    return DV_OK;
}

static void fake_stop(struct dv_engine *e, const char *id, int64_t grace_ms, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_STOP, id, act_stop, grace_ms, false, done, ctx);
}

static int act_kill(struct task *t, struct dv_err *err)
{
    struct container *c = dv_fake_find(t->f, t->id);
    if (!c)
        return absent(t, err);
    if (!dv_fake_is_running(c))
        return dv_err_set(err, DV_CONFLICT, "Cannot kill container: %.12s: it is not running", t->id);
    dv_fake_tell_event(t->f, c, "kill");
    if (t->a)
        dv_fake_end_process(c, t->a, false);
    return DV_OK;
}

static void fake_kill(struct dv_engine *e, const char *id, const char *signal, dv_engine_done *done,
                      void *ctx)
{
    bool is_kill = strcmp(signal, "KILL") == 0 || strcmp(signal, "SIGKILL") == 0;
    begin_plain(e, DV_FAKE_KILL, id, act_kill, is_kill ? 137 : 0, false, done, ctx);
}

static int act_remove(struct task *t, struct dv_err *err)
{
    struct container *c = dv_fake_find(t->f, t->id);
    if (!c)
        return DV_OK;
    if (dv_fake_is_running(c) && !t->flag)
        return dv_err_set(err, DV_CONFLICT, "You cannot remove a running container %s", t->id);
    dv_fake_end_process(c, 137, false);
    dv_fake_tell_event(t->f, c, "destroy");
    dv_fake_container_free(c);
    return DV_OK;
}

static void fake_remove(struct dv_engine *e, const char *id, bool force, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_REMOVE, id, act_remove, 0, force, done, ctx);
}

static int act_update(struct task *t, struct dv_err *err)
{
    struct container *c = dv_fake_find(t->f, t->id);
    if (!c)
        return absent(t, err);
    if (t->a && t->a < MEMORY_MIN)
        return dv_err_set(err, DV_INVALID, "Minimum memory limit allowed is 6MB");
    c->spec.memory_bytes = t->a ? t->a : c->spec.memory_bytes;
    c->spec.cpu_mcpu = t->b ? t->b : c->spec.cpu_mcpu;
    c->spec.pids = t->c ? t->c : c->spec.pids;
    return DV_OK;
}

static void fake_update(struct dv_engine *e, const char *id, const struct dv_engine_limits *limits,
                        dv_engine_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_UPDATE, id, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, no_memory());
        return;
    }
    t->act = act_update;
    t->a = limits->memory_bytes;
    t->b = limits->cpu_mcpu;
    t->c = limits->pids;
}

/* ---- inspect and list ---- */

typedef void inspect_done(void *, int, const struct dv_engine_container *, const struct dv_err *);
typedef void list_done(void *, int, const struct dv_engine_container *, size_t, const struct dv_err *);

static int act_inspect(struct task *t, struct dv_err *err)
{
    return dv_fake_find(t->f, t->id) ? DV_OK : absent(t, err);
}

static void inspect_finish(struct task *t, int code, const struct dv_err *err)
{
    const struct container *c = code ? NULL : dv_fake_find(t->f, t->id);
    ((inspect_done *)t->done)(t->ctx, code, c ? &c->seen : NULL, err);
}

static void fake_inspect(struct dv_engine *e, const char *id, inspect_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_INSPECT, id, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, NULL, no_memory());
        return;
    }
    t->act = act_inspect;
    t->finish = inspect_finish;
}

static void list_finish(struct task *t, int code, const struct dv_err *err)
{
    size_t n = 0;
    struct dv_engine_container *list = dv_zalloc_n(dv_engine_fake_count(t->f, NULL) + 1, sizeof(*list));
    if (!list && code == DV_OK) {
        code = DV_E_NOMEM;
        err = no_memory();
    }
    DV_LIST_FOR_EACH (it, &t->f->containers) {
        const struct container *c = DV_LIST_ENTRY(it, struct container, node);
        if (list && dv_fake_has_label(c, t->id))
            list[n++] = c->seen;
    }
    ((list_done *)t->done)(t->ctx, code, code ? NULL : list, code ? 0 : n, err);
    dv_free(list);
}

static void fake_list(struct dv_engine *e, const char *label, list_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_LIST, label, (any_fn)done, ctx);
    if (t)
        t->finish = list_finish;
    else
        done(ctx, DV_E_NOMEM, NULL, 0, no_memory());
}

/* ---- logs and events ---- */

static int act_logs(struct task *t, struct dv_err *err)
{
    struct container *c = dv_fake_find(t->f, t->id);
    int64_t n = 0, skip;
    if (!c)
        return absent(t, err);
    (void)dv_copy(t->id, sizeof(t->id), c->seen.id);
    DV_LIST_FOR_EACH (it, &c->logs)
        n++;
    skip = t->a < 0 || t->a > n ? 0 : n - t->a;
    DV_LIST_FOR_EACH (it, &c->logs) {
        const struct log *l = DV_LIST_ENTRY(it, struct log, node);
        if (skip-- <= 0 && l->wall_ms >= t->b && !t->is_cancelled)
            dv_fake_tell_line(t, l);
    }
    t->is_stream = t->flag && dv_fake_is_running(c);
    t->act = NULL; /* at the end of the stream there is nothing more to do */
    return DV_OK;
}

static void *fake_logs(struct dv_engine *e, const char *id, int64_t tail, int64_t since_ms, bool follow,
                       void (*line)(void *, const struct dv_engine_log *), dv_engine_done *done, void *ctx)
{
    struct task *t = begin(e, DV_FAKE_LOGS, id, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, no_memory());
        return NULL;
    }
    t->act = act_logs;
    t->each = (any_fn)line;
    t->a = tail;
    t->b = since_ms;
    t->flag = follow;
    return t;
}

static void fake_logs_cancel(struct dv_engine *e, void *handle)
{
    struct task *t = handle;
    (void)e;
    if (!t || t->is_cancelled)
        return;
    t->is_cancelled = true;
    t->is_stream = false;
    if (!t->is_busy) { /* may be inside its own line: freed in a turn of its own */
        t->act = NULL;
        (void)dv_timer_set(t->f->loop, &t->timer, dv_loop_now(t->f->loop));
    }
}

static int act_events(struct task *t, struct dv_err *err)
{
    (void)err;
    t->is_stream = true;
    return DV_OK;
}

static void fake_events(struct dv_engine *e, const char *label,
                        void (*event)(void *, const struct dv_engine_event *), dv_engine_done *done,
                        void *ctx)
{
    struct task *t = begin(e, DV_FAKE_EVENTS, label, (any_fn)done, ctx);
    if (!t) {
        done(ctx, DV_E_NOMEM, no_memory());
        return;
    }
    t->act = act_events;
    t->each = (any_fn)event;
}

/* ---- the table ---- */

static void fake_stats(const struct dv_engine *e, uint64_t *calls, uint64_t *errors)
{
    const struct dv_engine_fake *f = (const struct dv_engine_fake *)e;
    *calls = 0;
    for (size_t i = 0; i < DV_FAKE_N_OPS; i++)
        *calls += f->calls[i];
    *errors = f->errors;
}

static void fake_close(struct dv_engine *e)
{
    struct dv_engine_fake *f = dv_fake_of(e);
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks)
        task_free(DV_LIST_ENTRY(it, struct task, node));
    DV_LIST_FOR_EACH_SAFE (it, &f->containers)
        dv_fake_container_free(DV_LIST_ENTRY(it, struct container, node));
    DV_LIST_FOR_EACH_SAFE (it, &f->images)
        dv_free(DV_LIST_ENTRY(it, struct image, node));
    dv_free(f);
}

const struct dv_engine_ops dv_fake_ops = {
    .connect = fake_connect,
    .image_inspect = fake_image_inspect,
    .image_pull = fake_image_pull,
    .image_import = fake_image_import,
    .image_list = fake_image_list,
    .create = fake_create,
    .start = fake_start,
    .stop = fake_stop,
    .kill = fake_kill,
    .remove = fake_remove,
    .update = fake_update,
    .inspect = fake_inspect,
    .list = fake_list,
    .logs = fake_logs,
    .logs_cancel = fake_logs_cancel,
    .events = fake_events,
    .network_ensure = fake_network_ensure,
    .stats = fake_stats,
    .close = fake_close,
};

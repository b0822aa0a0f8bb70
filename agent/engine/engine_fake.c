/* Every operation becomes a task with a timer, so that nothing answers before its call returned and delays
 * cost nothing to have.  A task acts when its timer fires, on the state of that moment, as the real engine
 * does. */
#include "agent/engine/engine_fake.h"

#include "proto/base/alloc.h"
#include "proto/base/list.h"
#include "proto/rt/loop.h"

enum { FAKE_PID_BASE = 1 << 23 /* past the kernel's largest pid */, MEMORY_MIN = 6 * 1024 * 1024 };

struct image {
    struct dv_list node;
    char name[128];
    struct dv_engine_image img;
    bool is_present;
};

struct log {
    struct dv_list node;
    bool is_stderr;
    int64_t wall_ms;
    char *text;
};

struct container {
    struct dv_list node;
    struct dv_engine_fake *f;
    struct dv_arena arena;
    struct dv_engine_create spec;
    struct dv_engine_container seen;
    struct dv_list logs; /* oldest first */
    const char *next;    /* of its toy program; NULL: runs until stopped */
    struct dv_timer timer;
};

typedef void (*any_fn)(void);

struct task {
    struct dv_list node;
    struct dv_timer timer;
    struct dv_engine_fake *f;
    enum dv_engine_fake_op op;
    int (*act)(struct task *t, struct dv_err *err); /* DV_OK: it has told its user; otherwise finish() does */
    void (*finish)(struct task *t, int code, const struct dv_err *err);
    any_fn done, each; /* of the user; cast back by the operation that set them */
    void *ctx;
    char id[160]; /* container, image, label or network */
    int64_t a, b;
    bool flag, is_stream, is_cancelled, is_busy;
    struct container *made; /* create: not yet among the containers */
};

struct dv_engine_fake {
    struct dv_engine base;
    struct dv_loop *loop;
    struct dv_list images, containers, tasks;
    uint64_t next_id, calls[DV_FAKE_N_OPS], errors;
    struct {
        int code, times;
        char words[160];
    } fail[DV_FAKE_N_OPS];
    uint64_t delay_ms[DV_FAKE_N_OPS];
    bool is_down;
    void (*on_start)(void *ctx, struct dv_engine_fake_started *s);
    void *on_start_ctx;
    void (*on_exit)(void *ctx, const char *id);
    void *on_exit_ctx;
};

static struct dv_engine_fake *of(struct dv_engine *e)
{
    return DV_CONTAINER_OF(e, struct dv_engine_fake, base);
}

/* ---- containers ---- */

static struct container *find(const struct dv_engine_fake *f, const char *id)
{
    DV_LIST_FOR_EACH (it, &f->containers) {
        struct container *c = DV_LIST_ENTRY(it, struct container, node);
        if (strcmp(c->seen.id, id) == 0 || strcmp(c->seen.name, id) == 0)
            return c;
    }
    return NULL;
}

static bool is_running(const struct container *c)
{
    return strcmp(c->seen.state, "running") == 0;
}

static void container_free(struct container *c)
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
static bool has_label(const struct container *c, const char *label)
{
    struct dv_sv key, value;
    bool has_value = dv_sv_cut(dv_sv_c(label), '=', &key, &value);
    for (size_t i = 0; i < c->spec.labels.n; i++)
        if (dv_sv_eq(dv_sv_c(c->spec.labels.v[i].k), key))
            return !has_value || dv_sv_eq(dv_sv_c(c->spec.labels.v[i].v), value);
    return false;
}

static void task_free(struct task *t)
{
    dv_timer_cancel(t->f->loop, &t->timer);
    dv_list_remove(&t->node);
    container_free(t->made);
    dv_free(t);
}

static void finish(struct task *t, int code, const struct dv_err *err)
{
    dv_list_remove(&t->node);
    if (code < 0)
        t->f->errors++;
    t->finish(t, code, code ? err : NULL);
    task_free(t);
}

static void plain_finish(struct task *t, int code, const struct dv_err *err)
{
    ((dv_engine_done *)t->done)(t->ctx, code, err);
}

/* ---- streams ---- */

static void tell_event(struct dv_engine_fake *f, const struct container *c, const char *action)
{
    const struct dv_engine_event ev = {.action = action,
                                       .container = c->seen.id,
                                       .exit_code = c->seen.exit_code,
                                       .time_ns = dv_clock_wall_ms(dv_loop_clock(f->loop)) * 1000000};
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks) {
        struct task *t = DV_LIST_ENTRY(it, struct task, node);
        if (t->is_stream && t->op == DV_FAKE_EVENTS && has_label(c, t->id))
            ((void (*)(void *, const struct dv_engine_event *))t->each)(t->ctx, &ev);
    }
}

static void tell_line(struct task *t, const struct log *l)
{
    const struct dv_engine_log line = {
        .is_stderr = l->is_stderr, .wall_ms = l->wall_ms, .text = dv_sv_c(l->text)};
    ((void (*)(void *, const struct dv_engine_log *))t->each)(t->ctx, &line);
}

static void add_log(struct container *c, bool is_stderr, const char *text)
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
            tell_line(t, l);
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

static void end_process(struct container *c, int64_t code, bool is_oom)
{
    if (!is_running(c))
        return;
    dv_timer_cancel(c->f->loop, &c->timer);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "exited");
    c->seen.exit_code = code;
    c->seen.oom_killed = is_oom;
    c->seen.pid = 0;
    c->seen.address[0] = '\0';
    if (c->f->on_exit)
        c->f->on_exit(c->f->on_exit_ctx, c->seen.id);
    if (is_oom)
        tell_event(c->f, c, "oom");
    tell_event(c->f, c, "die");
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
        add_log(c, is_stderr, line);
}

static void run_program(struct container *c)
{
    while (c->next && is_running(c)) {
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
            end_process(c, (int64_t)n, false);
        } else if (dv_sv_eq(verb, DV_SV("sleep"))) {
            (void)dv_parse_double(args, &seconds);
            (void)dv_timer_set(c->f->loop, &c->timer, dv_loop_now(c->f->loop) + (uint64_t)(seconds * 1e9));
            return;
        }
    }
}

static void on_program(struct dv_timer *t)
{
    run_program(DV_CONTAINER_OF(t, struct container, timer));
}

static const char *script_of(const struct dv_engine_create *spec)
{
    const struct dv_strs *both[] = {&spec->entrypoint, &spec->command};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i + 1 < both[k]->n; i++)
            if (strcmp(both[k]->v[i], "-c") == 0)
                return both[k]->v[i + 1];
    return NULL;
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
    struct dv_engine_fake *f = of(e);
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

/* A name without a tag means "latest". */
static struct image *find_image(const struct dv_engine_fake *f, const char *name)
{
    char full[192];
    const char *slash = strrchr(name, '/');
    bool has_tag = strchr(slash ? slash : name, ':') != NULL;
    (void)snprintf(full, sizeof(full), "%s%s", name, has_tag ? "" : ":latest");
    DV_LIST_FOR_EACH (it, &f->images) {
        struct image *i = DV_LIST_ENTRY(it, struct image, node);
        if (strcmp(i->name, full) == 0)
            return i;
    }
    return NULL;
}

static void image_finish(struct task *t, int code, const struct dv_err *err)
{
    struct image *i = find_image(t->f, t->id);
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
    struct image *i = find_image(t->f, t->id);
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

static bool copy_spec(struct container *c, const struct dv_engine_create *from)
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

static int act_create(struct task *t, struct dv_err *err)
{
    struct container *c = t->made;
    const struct image *i = find_image(t->f, c->spec.image);
    if (!i || !i->is_present)
        return dv_err_set(err, DV_NOT_FOUND, "creating container %s: No such image: %s", c->spec.name,
                          c->spec.image);
    if (find(t->f, c->spec.name))
        return dv_err_set(err, DV_CONFLICT, "creating container %s: the container name is already in use",
                          c->spec.name);
    if (c->spec.memory_bytes > 0 && c->spec.memory_bytes < MEMORY_MIN)
        return dv_err_set(err, DV_INVALID, "creating container %s: Minimum memory limit allowed is 6MB",
                          c->spec.name);
    (void)snprintf(c->seen.id, sizeof(c->seen.id), "%064llx", (unsigned long long)++t->f->next_id);
    (void)dv_copy(c->seen.name, sizeof(c->seen.name), c->spec.name);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "created");
    c->seen.labels = c->spec.labels;
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
        c->timer.fn = on_program;
        dv_list_init(&c->node);
        dv_list_init(&c->logs);
    }
    if (!c || !copy_spec(c, spec)) {
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
    struct container *c = find(f, t->id);
    if (!c)
        return absent(t, err);
    if (is_running(c))
        return DV_OK;
    uint64_t n = ++f->next_id;
    struct dv_engine_fake_started s = {.id = c->seen.id, .spec = &c->spec, .pid = FAKE_PID_BASE + (int64_t)n};
    (void)snprintf(s.address, sizeof(s.address), "192.0.2.%u", (unsigned)(n % 250 + 1));
    if (f->on_start)
        f->on_start(f->on_start_ctx, &s);
    (void)dv_copy(c->seen.state, sizeof(c->seen.state), "running");
    (void)dv_copy(c->seen.address, sizeof(c->seen.address), s.address);
    c->seen.pid = s.pid;
    c->seen.exit_code = 0;
    c->seen.started_ms = dv_clock_wall_ms(dv_loop_clock(f->loop));
    tell_event(f, c, "start");
    c->next = script_of(&c->spec);
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
    struct container *c = find(t->f, t->id);
    (void)err;
    if (c)
        end_process(c, 137, false); /* its first process has no handler: the signal that ends it is KILL */
    return DV_OK;
}

static void fake_stop(struct dv_engine *e, const char *id, int64_t grace_ms, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_STOP, id, act_stop, grace_ms, false, done, ctx);
}

static int act_kill(struct task *t, struct dv_err *err)
{
    struct container *c = find(t->f, t->id);
    if (!c)
        return absent(t, err);
    if (!is_running(c))
        return dv_err_set(err, DV_CONFLICT, "Cannot kill container: %.12s: it is not running", t->id);
    if (t->a)
        end_process(c, t->a, false);
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
    struct container *c = find(t->f, t->id);
    if (!c)
        return DV_OK;
    if (is_running(c) && !t->flag)
        return dv_err_set(err, DV_CONFLICT, "You cannot remove a running container %s", t->id);
    end_process(c, 137, false);
    tell_event(t->f, c, "destroy");
    container_free(c);
    return DV_OK;
}

static void fake_remove(struct dv_engine *e, const char *id, bool force, dv_engine_done *done, void *ctx)
{
    begin_plain(e, DV_FAKE_REMOVE, id, act_remove, 0, force, done, ctx);
}

/* ---- inspect and list ---- */

typedef void inspect_done(void *, int, const struct dv_engine_container *, const struct dv_err *);
typedef void list_done(void *, int, const struct dv_engine_container *, size_t, const struct dv_err *);

static int act_inspect(struct task *t, struct dv_err *err)
{
    return find(t->f, t->id) ? DV_OK : absent(t, err);
}

static void inspect_finish(struct task *t, int code, const struct dv_err *err)
{
    const struct container *c = code ? NULL : find(t->f, t->id);
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
        if (list && has_label(c, t->id))
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
    struct container *c = find(t->f, t->id);
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
            tell_line(t, l);
    }
    t->is_stream = t->flag && is_running(c);
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

/* ---- the engine and its knobs ---- */

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
    struct dv_engine_fake *f = of(e);
    DV_LIST_FOR_EACH_SAFE (it, &f->tasks)
        task_free(DV_LIST_ENTRY(it, struct task, node));
    DV_LIST_FOR_EACH_SAFE (it, &f->containers)
        container_free(DV_LIST_ENTRY(it, struct container, node));
    DV_LIST_FOR_EACH_SAFE (it, &f->images)
        dv_free(DV_LIST_ENTRY(it, struct image, node));
    dv_free(f);
}

static const struct dv_engine_ops fake_ops = {
    .connect = fake_connect,
    .image_inspect = fake_image_inspect,
    .image_pull = fake_image_pull,
    .image_list = fake_image_list,
    .create = fake_create,
    .start = fake_start,
    .stop = fake_stop,
    .kill = fake_kill,
    .remove = fake_remove,
    .inspect = fake_inspect,
    .list = fake_list,
    .logs = fake_logs,
    .logs_cancel = fake_logs_cancel,
    .events = fake_events,
    .network_ensure = fake_network_ensure,
    .stats = fake_stats,
    .close = fake_close,
};

int dv_engine_fake_open(struct dv_loop *loop, struct dv_engine_fake **out)
{
    struct dv_engine_fake *f = dv_zalloc(sizeof(*f));
    if (!f)
        return DV_E_NOMEM;
    f->base.ops = &fake_ops;
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
    struct image *i = find_image(f, name);
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

void dv_engine_fake_on_exit(struct dv_engine_fake *f, void (*fn)(void *ctx, const char *id), void *ctx)
{
    f->on_exit = fn;
    f->on_exit_ctx = ctx;
}

void dv_engine_fake_exit(struct dv_engine_fake *f, const char *id, int64_t exit_code, bool is_oom)
{
    struct container *c = find(f, id);
    if (c)
        end_process(c, exit_code, is_oom);
}

void dv_engine_fake_log(struct dv_engine_fake *f, const char *id, bool is_stderr, const char *text)
{
    struct container *c = find(f, id);
    if (c)
        add_log(c, is_stderr, text);
}

size_t dv_engine_fake_count(const struct dv_engine_fake *f, const char *state)
{
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->containers)
        n += !state || strcmp(DV_LIST_ENTRY(it, struct container, node)->seen.state, state) == 0;
    return n;
}

const struct dv_engine_create *dv_engine_fake_spec(const struct dv_engine_fake *f, const char *id)
{
    const struct container *c = find(f, id);
    return c ? &c->spec : NULL;
}

uint64_t dv_engine_fake_calls(const struct dv_engine_fake *f, enum dv_engine_fake_op op)
{
    return f->calls[op];
}

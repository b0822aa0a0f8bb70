/* One primed sandbox, from its making to its end; see box.h.
 *
 * Opening is the path of a request that found nothing running, so it holds only what must come before the
 * program: a file that says whose the box is now (an agent that comes back after kill -9 must not take it for
 * a closed one), secrets, limits, the order itself.  Limits go straight to the control group; where the agent
 * may not write there the engine is asked, which costs some milliseconds. */
#include "agent/sandbox/box.h"
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HELLO_MS = 5000, SHIM_PIDS = 1 /* the process at the gate counts, too */, PAGE_SLACK = 64 * 1024 };

/* ---- directories ---- */

int sb_box_path(const struct sb_box *b, const char *below, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s/%016llx%s", b->sb->pools.dir, (unsigned long long)b->id, below);
    return n > 0 && (size_t)n < cap ? DV_OK : DV_TOO_LARGE;
}

static int make_dir(const struct sb_box *b, const char *below, unsigned mode, struct dv_err *err)
{
    char path[4096];
    int rc = sb_box_path(b, below, path, sizeof(path));
    return rc ? dv_err_set(err, rc, "the path of a sandbox") : dv_mkdirs(path, mode, err);
}

/* Those above only let through; whoever the container runs as reads the two that are mounted. */
static int make_dirs(struct sb_box *b, struct dv_err *err)
{
    int rc = dv_mkdirs(b->sb->pools.dir, 0711, err);
    if (!rc)
        rc = make_dir(b, "", 0711, err);
    if (!rc)
        rc = make_dir(b, "/gate", 0755, err);
    return rc ? rc : make_dir(b, "/secrets", 0755, err);
}

static int listen_at_gate(struct sb_box *b, struct dv_err *err)
{
    char path[4096];
    int rc = sb_box_path(b, "/gate", path, sizeof(path));
    return rc ? dv_err_set(err, rc, "the path of a gate") : sb_gate_listen(&b->gate, path, err);
}

static void empty_dir(const char *dir)
{
    char path[4400];
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            (void)unlink(path); /* what stays keeps the directory, which is told below */
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

void sb_box_drop_dir(struct dv_sandbox *s, uint64_t id)
{
    static const char *const below[] = {"/gate", "/secrets", ""};
    const struct sb_box named = {.sb = s, .id = id};
    char path[4096];
    for (size_t i = 0; i < DV_COUNT(below); i++)
        if (!sb_box_path(&named, below[i], path, sizeof(path)))
            empty_dir(path);
    if (access(path, F_OK) == 0)
        dv_log(DV_LOG_WARN, "cannot remove a sandbox's directory", DV_LS("path", path),
               DV_LI("errno", errno));
}

/* ---- life ---- */

static bool is_making(enum sb_box_state state)
{
    return state <= BOX_HELLO;
}

static void count(struct sb_box *b, int by)
{
    if (b->pool && is_making(b->state))
        b->pool->n_making += (size_t)by;
    else if (b->pool && b->state == BOX_READY)
        b->pool->n_ready += (size_t)by;
}

static void move(struct sb_box *b, enum sb_box_state to)
{
    count(b, -1);
    b->state = to;
    b->since_ns = sb_now(b->sb);
    if (to >= BOX_OPENED)
        b->pool = NULL;
    count(b, 1);
}

static void end_refill(struct sb_box *b)
{
    if (b->is_refill)
        sb_refill_end(b->sb);
    b->is_refill = false;
}

void sb_box_free(struct sb_box *b)
{
    struct dv_sandbox *s = b->sb;
    end_refill(b);
    count(b, -1);
    if (b->replica)
        b->replica->box = NULL;
    sb_gate_close(&b->gate);
    dv_timer_cancel(s->cfg.loop, &b->timer);
    dv_cgroup_free(b->cgroup);
    dv_buf_deinit(&b->order);
    dv_list_remove(&b->node);
    (void)dv_idmap_remove(&s->pools.by_id, b->id);
    dv_free(b);
}

void sb_box_over(struct sb_box *b)
{
    struct dv_sandbox *s = b->sb;
    uint64_t id = b->id;
    if (b->is_removing)
        s->pools.n_removing--;
    sb_box_free(b);
    sb_box_drop_dir(s, id);
    sb_pools_changed(s, false);
}

struct sb_box *sb_box_by_container(struct dv_sandbox *s, const char *container)
{
    DV_LIST_FOR_EACH (n, &s->pools.boxes) {
        struct sb_box *b = DV_LIST_ENTRY(n, struct sb_box, node);
        if (b->container[0] && !strcmp(b->container, container))
            return b;
    }
    return NULL;
}

static void on_removed(void *ctx, int code, const struct dv_err *err)
{
    struct sb_box *b = ctx;
    if (code) /* the next listing finds it without an owner */
        dv_log(DV_LOG_WARN, "a primed sandbox could not be removed", DV_LS("container", b->container),
               DV_LS("error", dv_err_msg(err, code)));
    sb_box_over(b);
}

static void remove_it(struct sb_box *b)
{
    if (!b->container[0]) {
        sb_box_over(b);
        return;
    }
    b->is_removing = true;
    b->sb->pools.n_removing++;
    sb_ops(b->sb)->remove(b->sb->cfg.engine, b->container, true, on_removed, b);
}

void sb_box_discard(struct sb_box *b)
{
    if (b->state == BOX_REMOVE || b->state == BOX_OPENED)
        return;
    end_refill(b);
    sb_gate_close(&b->gate);
    dv_timer_cancel(b->sb->cfg.loop, &b->timer);
    move(b, BOX_REMOVE);
    if (!b->is_calling)
        remove_it(b);
}

/* An engine call came back.  False: the box was given up meanwhile. */
static bool back(struct sb_box *b)
{
    b->is_calling = false;
    if (b->state != BOX_REMOVE)
        return true;
    remove_it(b);
    return false;
}

/* ---- making ---- */

static void fail_box(struct sb_box *b, int code, const struct dv_err *err)
{
    struct dv_sandbox *s = b->sb;
    struct sb_pool *p = b->pool;
    sb_box_discard(b);
    if (p)
        sb_pool_failed(p, dv_err_msg(err, code));
    if (code == DV_E_ENGINE)
        sb_engine_suspect(s);
    sb_queue_run(s);
}

static void fail_text(struct sb_box *b, const char *text)
{
    struct dv_err err = {.code = DV_INVALID};
    (void)dv_copy(err.msg, sizeof(err.msg), text);
    fail_box(b, DV_INVALID, &err);
}

/* False: it was given up. */
static bool ready_if_both(struct sb_box *b)
{
    struct dv_sandbox *s = b->sb;
    struct dv_err err = DV_ERR_INIT;
    if (b->state != BOX_HELLO || !b->has_hello)
        return true;
    if (b->gate.peer_pid && b->gate.peer_pid != b->pid) {
        fail_text(b, "another process than its first came to its gate");
        return false;
    }
    dv_timer_cancel(s->cfg.loop, &b->timer);
    if (!b->cgroup && dv_cgroup_of_pid(b->pid, &b->cgroup, &err))
        dv_log(DV_LOG_DEBUG, "limits will go through the engine", DV_LE(&err));
    end_refill(b);
    b->pool->failures = 0;
    b->pool->why[0] = '\0';
    move(b, BOX_READY);
    s->pools.counts.made++;
    sb_pools_changed(s, true);
    sb_queue_run(s);
    return true;
}

static void on_hello_timer(struct dv_timer *t)
{
    fail_text(DV_CONTAINER_OF(t, struct sb_box, timer), "its first process has not come to its gate");
}

static void on_inspected(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err)
{
    struct sb_box *b = ctx;
    char text[160];
    if (!back(b))
        return;
    bool is_running = !code && !strcmp(c->state, "running");
    if (!code && !is_running)
        (void)snprintf(text, sizeof(text), "its first process ended with exit code %lld",
                       (long long)c->exit_code);
    if (code) {
        fail_box(b, code, err);
    } else if (!is_running || !c->address[0]) {
        fail_text(b, is_running ? "the engine gave its container no address" : text);
    } else {
        b->pid = c->pid;
        (void)dv_copy(b->ip, sizeof(b->ip), c->address);
        move(b, BOX_HELLO);
        if (dv_timer_set(b->sb->cfg.loop, &b->timer, sb_now(b->sb) + HELLO_MS * DV_MS))
            fail_text(b, dv_err_text(DV_E_NOMEM));
        else
            (void)ready_if_both(b); /* nothing follows here */
    }
}

void sb_box_inspect(struct sb_box *b)
{
    move(b, BOX_INSPECT);
    b->is_calling = true;
    sb_ops(b->sb)->inspect(b->sb->cfg.engine, b->container, on_inspected, b);
}

static void on_started(void *ctx, int code, const struct dv_err *err)
{
    struct sb_box *b = ctx;
    if (!back(b))
        return;
    if (code)
        fail_box(b, code, err);
    else
        sb_box_inspect(b);
}

static void on_created(void *ctx, int code, const char *id, const struct dv_err *err)
{
    struct sb_box *b = ctx;
    if (!code)
        (void)dv_copy(b->container, sizeof(b->container), id);
    if (!back(b))
        return;
    if (code) {
        if (code == DV_NOT_FOUND)
            b->pool->checked_ns = 0; /* its image went away */
        fail_box(b, code, err);
        return;
    }
    move(b, BOX_START);
    b->is_calling = true;
    sb_ops(b->sb)->start(b->sb->cfg.engine, b->container, on_started, b);
}

static bool on_word(void *ctx, const struct dv_gate_word *w);
static void on_lost(void *ctx);

struct sb_box *sb_box_new(struct dv_sandbox *s, uint64_t id, struct sb_pool *p, enum sb_box_state state)
{
    struct sb_box *b = dv_zalloc(sizeof(*b));
    if (!b || dv_idmap_put(&s->pools.by_id, id, b)) {
        dv_free(b);
        return NULL;
    }
    *b = (struct sb_box){.sb = s, .id = id, .state = state, .pool = p, .since_ns = sb_now(s)};
    b->timer.fn = on_hello_timer;
    sb_gate_init(&b->gate, s->cfg.loop, on_word, on_lost, b);
    dv_list_push_back(&s->pools.boxes, &b->node);
    count(b, 1);
    return b;
}

/* What the engine keeps for us: whose it is, and everything by which it is chosen. */
static int fill_labels(const struct sb_box *b, struct dv_arena *a, struct dv_kvs *out)
{
    enum { N = 4 };
    DV_AUTO_BUF struct dv_buf kind = DV_BUF_INIT;
    struct dv_kv *v = dv_arena_alloc(a, N * sizeof(*v));
    char node[DV_ID_TEXT], id[DV_ID_TEXT];
    dv_id_text(b->sb->cfg.node, node);
    dv_id_text(b->id, id);
    if (!v || dv_wire_encode(&dv_type_pool, &b->pool->kind, &kind))
        return DV_E_NOMEM;
    v[0] = (struct dv_kv){"dev.davit.image", (char *)(uintptr_t)b->image_id};
    v[1] = (struct dv_kv){"dev.davit.node", dv_arena_strdup(a, node)};
    v[2] = (struct dv_kv){"dev.davit.pool", dv_arena_strndup(a, dv_buf_ptr(&kind), dv_buf_len(&kind))};
    v[3] = (struct dv_kv){"dev.davit.primed", dv_arena_strdup(a, id)};
    *out = (struct dv_kvs){v, N};
    return v[1].v && v[2].v && v[3].v ? DV_OK : DV_E_NOMEM;
}

static int create(struct sb_box *b, struct dv_err *err)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    char name[48], gate[4096], secrets[4096];
    char *words[] = {(char *)(uintptr_t)SB_INIT_TARGET, (char *)(uintptr_t) "gate"};
    const struct dv_pool *k = &b->pool->kind;
    if (sb_box_path(b, "/gate", gate, sizeof(gate)) || sb_box_path(b, "/secrets", secrets, sizeof(secrets)))
        return dv_err_set(err, DV_TOO_LARGE, "the path of a sandbox");
    (void)snprintf(name, sizeof(name), "davit-primed-%016llx", (unsigned long long)b->id);
    const struct dv_engine_mount mounts[] = {{b->sb->cfg.init_path, SB_INIT_TARGET, true},
                                             {gate, DV_GATE_DIR, true},
                                             {secrets, SB_SECRETS_TARGET, true}};
    struct dv_engine_create spec = {.name = name,
                                    .image = b->image_id,
                                    .entrypoint = {words, 1},
                                    .command = {words + 1, 1},
                                    .user = k->user,
                                    .network = b->sb->cfg.network,
                                    .mounts = mounts,
                                    .n_mounts = DV_COUNT(mounts),
                                    .files = k->files,
                                    .tmp_bytes = k->tmp_bytes,
                                    .read_only = k->read_only};
    if (fill_labels(b, &arena, &spec.labels))
        return dv_err_set(err, DV_E_NOMEM, "a primed sandbox");
    b->is_refill = true;
    sb_refill_begin(b->sb);
    b->is_calling = true;
    sb_ops(b->sb)->create(b->sb->cfg.engine, &spec, on_created, b);
    return DV_OK;
}

int sb_box_make(struct sb_pool *p)
{
    struct dv_err err = DV_ERR_INIT;
    uint64_t id;
    int rc = dv_random(&id, sizeof(id), &err);
    struct sb_box *b = rc ? NULL : sb_box_new(p->sb, id, p, BOX_CREATE);
    if (!b)
        return rc ? rc : DV_E_NOMEM;
    (void)dv_copy(b->image_id, sizeof(b->image_id), p->image_id);
    rc = make_dirs(b, &err);
    if (!rc)
        rc = listen_at_gate(b, &err);
    if (!rc)
        rc = create(b, &err);
    if (rc) {
        sb_box_discard(b);
        sb_pool_failed(p, dv_err_msg(&err, rc));
    }
    return rc;
}

/* ---- opening ---- */

static void let_go(struct sb_box *b)
{
    struct dv_sandbox *s = b->sb;
    struct sb_replica *r = b->replica;
    int rc = sb_gate_say(&b->gate, &b->order);
    if (rc) {
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, "the process at its gate is gone");
        return;
    }
    uint64_t now = dv_clock_now_ns(dv_loop_clock(s->cfg.loop));
    b->is_sent = true;
    r->start_ns = now;
    r->times.start_us = (int64_t)((now - r->asked_ns) / 1000);
    r->times.start_us += !r->times.start_us; /* 0 would mean that it was not reached */
    dv_hist_add_ns(&s->counts.open, now - r->asked_ns);
    s->pools.counts.opened++;
    sb_logs_replica_up(r);
    sb_replica_probe(r);
}

static void on_limited(void *ctx, int code, const struct dv_err *err)
{
    struct sb_replica *r = ctx;
    struct dv_sandbox *s = r->sb;
    if (sb_replica_back(r)) {
        if (code)
            sb_replica_fail_engine(r, DV_REASON_CREATE_FAILED, code, err);
        else
            let_go(r->box);
    }
    sb_queue_run(s);
}

static int set_limits(struct sb_replica *r, struct dv_err *err)
{
    const struct dv_limits *l = &r->cmd.spec.limits;
    return dv_cgroup_set_limits(r->cgroup, l->memory_bytes, l->cpu_mcpu, l->pids ? l->pids + SHIM_PIDS : 0,
                                err);
}

static void limit(struct sb_box *b)
{
    struct sb_replica *r = b->replica;
    const struct dv_limits *l = &r->cmd.spec.limits;
    struct dv_err err = DV_ERR_INIT;
    if (!l->memory_bytes && !l->cpu_mcpu && !l->pids) {
        let_go(b);
        return;
    }
    if (r->cgroup && set_limits(r, &err) == DV_OK) {
        let_go(b);
        return;
    }
    dv_log(DV_LOG_DEBUG, "limits go through the engine", DV_LID("replica", r->id), DV_LE(&err));
    const struct dv_engine_limits limits = {l->memory_bytes, l->cpu_mcpu, l->pids ? l->pids + SHIM_PIDS : 0};
    sb_replica_move(r, PH_START);
    r->calls++;
    sb_ops(r->sb)->update(r->sb->cfg.engine, r->container, &limits, on_limited, r);
}

static int sign_over(struct sb_box *b, struct sb_replica *r, struct dv_err *err)
{
    char path[4096], id[DV_ID_TEXT];
    dv_id_text(r->id, id);
    int rc = sb_file_save(r, err);
    if (!rc)
        rc = sb_box_path(b, "/replica", path, sizeof(path));
    if (!rc)
        rc = sb_file_replace(path, dv_sv_c(id), err);
    return rc ? rc : sb_secrets_write(r, err);
}

int sb_box_open(struct sb_box *b, struct sb_replica *r)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_err err = DV_ERR_INIT;
    struct dv_gate_run run;
    int rc = sb_container_run(r, b->pool, &arena, &run);
    if (!rc)
        rc = dv_gate_run_write(&b->order, &run);
    if (rc) {
        dv_buf_deinit(&b->order);
        return rc;
    }
    b->sb->counts.started++;
    b->replica = r;
    r->box = b;
    b->gate.only_pid = b->pid;
    r->pid = b->pid;
    r->cgroup = dv_steal(&b->cgroup);
    (void)dv_copy(r->container, sizeof(r->container), b->container);
    sb_replica_set_address(r, b->ip);
    move(b, BOX_OPENED);
    sb_pools_changed(b->sb, false);
    rc = sign_over(b, r, &err);
    if (rc)
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, dv_err_msg(&err, rc));
    else
        limit(b);
    return DV_OK;
}

void sb_box_check_limits(struct sb_replica *r)
{
    int64_t wanted = r->cmd.spec.limits.memory_bytes, is = r->usage.memory_limit_bytes;
    int64_t off = is > wanted ? is - wanted : wanted - is;
    if (!r->box || !wanted || !r->cgroup || r->phase != PH_WARM || off < PAGE_SLACK)
        return;
    r->sb->pools.counts.relimited++;
    if (set_limits(r, NULL) == DV_OK)
        dv_log(DV_LOG_WARN, "somebody else had changed a replica's limits", DV_LID("replica", r->id),
               DV_LI("memory_bytes", is));
}

/* ---- words ---- */

/* The control group still exists while the process at the gate waits for our goodbye. */
static bool was_oom(struct sb_replica *r, const struct dv_gate_word *w)
{
    struct dv_cgroup_usage now = r->usage;
    int64_t before = r->usage.oom_kills;
    if (r->cgroup && dv_cgroup_usage(r->cgroup, &now, NULL) == DV_OK)
        r->usage = now;
    int64_t cpu_us = (int64_t)(w->user_us + w->sys_us);
    r->usage.cpu_us = r->usage.cpu_us > cpu_us ? r->usage.cpu_us : cpu_us;
    return now.oom_kills > before || (now.oom_kills > 0 && w->code == 137);
}

static void ended(struct sb_box *b, const struct dv_gate_word *w)
{
    struct sb_replica *r = b->replica;
    bool oom = was_oom(r, w);
    sb_gate_close(&b->gate);
    r->is_end_told = true;
    dv_log(DV_LOG_DEBUG, "program ended", DV_LID("replica", r->id), DV_LU("code", w->code),
           DV_LU("user_us", w->user_us), DV_LU("sys_us", w->sys_us),
           DV_LU("max_rss_bytes", w->max_rss_bytes));
    sb_replica_exited(r, w->code, oom);
}

static bool word_of_opened(struct sb_box *b, const struct dv_gate_word *w)
{
    struct sb_replica *r = b->replica;
    switch (w->type) {
    case DV_GATE_HELLO:
        if (w->pid)
            return true;
        sb_gate_close(&b->gate);
        sb_replica_fail(r, DV_REASON_INTERRUPTED, "its program had not been started yet");
        return false;
    case DV_GATE_REFUSED:
        sb_gate_close(&b->gate);
        r->exit_code = w->code;
        r->is_end_told = true;
        sb_replica_fail(r, DV_REASON_CREATE_FAILED, w->text);
        return false;
    case DV_GATE_EXITED:
        ended(b, w);
        return false;
    default:
        return true;
    }
}

static bool on_word(void *ctx, const struct dv_gate_word *w)
{
    struct sb_box *b = ctx;
    if (b->state == BOX_OPENED)
        return word_of_opened(b, w);
    if (w->type != DV_GATE_HELLO || w->pid || b->has_hello) {
        fail_text(b, "something runs in it that nobody asked for");
        return false;
    }
    b->has_hello = true;
    return ready_if_both(b);
}

static void on_lost(void *ctx)
{
    struct sb_box *b = ctx;
    struct dv_sandbox *s = b->sb;
    struct dv_err err = DV_ERR_INIT;
    if (b->state >= BOX_HELLO && b->state < BOX_OPENED) {
        s->pools.counts.lost++;
        sb_box_discard(b);
        sb_pools_changed(s, true);
        return;
    }
    b->has_hello = false;
    bool is_over = b->state == BOX_OPENED && b->replica->phase >= PH_WORDS;
    if (!is_over && b->state != BOX_REMOVE && listen_at_gate(b, &err)) /* it comes again, should it live */
        dv_log(DV_LOG_WARN, "a gate is deaf", DV_LE(&err));
}

int sb_box_listen(struct sb_box *b, int64_t only_pid, struct dv_err *err)
{
    b->gate.only_pid = only_pid;
    return listen_at_gate(b, err);
}

bool sb_box_event(struct dv_sandbox *s, const struct dv_engine_event *ev)
{
    struct sb_box *b = sb_box_by_container(s, ev->container);
    bool is_end = !strcmp(ev->action, "die") || !strcmp(ev->action, "destroy");
    if (!b || b->state == BOX_OPENED)
        return false;
    if (is_end && b->state >= BOX_HELLO && b->state != BOX_REMOVE)
        on_lost(b);
    return true;
}

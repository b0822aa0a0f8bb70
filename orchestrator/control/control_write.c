/* Writes: from a decision in memory to a commit and back. */
#include "orchestrator/control/control_internal.h"

struct ctl_write *ctl_write_new(struct dv_control *c, size_t payload_bytes, dv_control_done *done, void *ctx)
{
    struct ctl_write *w = dv_zalloc(sizeof(*w));
    if (!w)
        return NULL;
    w->payload = payload_bytes ? dv_arena_zalloc(&w->arena, payload_bytes) : NULL;
    if (payload_bytes && !w->payload) {
        dv_free(w);
        return NULL;
    }
    w->c = c;
    w->done = done;
    w->ctx = ctx;
    w->mailbox = c->cfg.mailbox;
    dv_list_push_back(&c->writes, &w->node);
    return w;
}

void ctl_write_free(struct ctl_write *w)
{
    dv_list_remove(&w->node);
    if (w->cleanup)
        w->cleanup(w);
    dv_arena_deinit(&w->arena);
    dv_free(w);
}

int ctl_write_add(struct ctl_write *w, const char *key, struct dv_sv value, bool is_delete,
                  uint64_t if_revision)
{
    struct dv_store_write *more = dv_arena_alloc(&w->arena, (w->n_writes + 1) * sizeof(*more));
    char *k = dv_arena_strdup(&w->arena, key);
    struct dv_sv v = dv_sv("", 0);
    if (value.n > 0)
        v = dv_arena_sv(&w->arena, value);
    if (!more || !k || !v.p)
        return DV_E_NOMEM;
    if (w->n_writes)
        memcpy(more, w->writes, w->n_writes * sizeof(*more));
    more[w->n_writes++] = (struct dv_store_write){dv_sv_c(k), v, is_delete, if_revision};
    w->writes = more;
    return DV_OK;
}

static void finish(struct ctl_write *w, int code, const struct dv_err *err)
{
    if (w->done && w->c)
        w->done(w->ctx, code, err, code == DV_OK ? w->revision : 0);
    ctl_write_free(w);
}

static void answer_late(struct dv_msg *m)
{
    struct ctl_write *w = DV_CONTAINER_OF(m, struct ctl_write, late);
    finish(w, w->late_code, &w->late_err);
}

void ctl_write_answer(struct ctl_write *w, int code)
{
    w->late_code = code;
    w->late.fn = answer_late;
    dv_mailbox_post(w->mailbox, &w->late);
}

static int run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct ctl_write *w = DV_CONTAINER_OF(job, struct ctl_write, job);
    return store->ops->commit(store, w->writes, w->n_writes, &w->revision, err);
}

static void submit(struct ctl_write *w);

static void on_done(struct dv_store_job *job)
{
    struct ctl_write *w = DV_CONTAINER_OF(job, struct ctl_write, job);
    struct dv_control *c = w->c;
    if (!c) {
        ctl_write_free(w);
        return;
    }
    struct dv_err err = job->err;
    int code = job->code;
    if (code == DV_CONFLICT && ++w->tries < CTL_RETRIES) {
        w->n_writes = 0;
        err = (struct dv_err)DV_ERR_INIT;
        code = w->prepare(w, &err);
        if (code == DV_OK && w->n_writes > 0) {
            submit(w);
            return;
        }
    } else if (code == DV_OK) {
        c->n.writes++;
        w->apply(w);
        ctl_pump(c);
    }
    if (code < 0) {
        c->n.write_errors++;
        dv_log(DV_LOG_ERROR, "store write failed", DV_LE(&err));
    }
    finish(w, code, &err);
}

static void submit(struct ctl_write *w)
{
    w->job = (struct dv_store_job){.reply_to = w->mailbox, .run = run, .done = on_done};
    dv_storer_submit(w->c->cfg.storer, &w->job);
}

int ctl_write_submit(struct ctl_write *w, struct dv_err *err)
{
    int rc = w->prepare(w, err);
    if (rc) {
        ctl_write_free(w);
        return rc;
    }
    if (w->n_writes == 0)
        ctl_write_answer(w, DV_OK);
    else
        submit(w);
    return DV_OK;
}

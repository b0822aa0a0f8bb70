/* The store's thread: one mutex, one list, one transaction per round.
 *
 * Whoever comes while a round waits for the disk is gathered and becomes the next round, so the number of
 * fsyncs follows the disk and not the number of jobs.  Inside a round every job has its own savepoint. Nobody
 * is answered before the round's end has returned; when the end fails, every job of the round fails with it.
 */
#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { ROUND_MAX = 1024 }; /* jobs in one transaction: bounds how long the first of them waits for the last */

struct dv_storer {
    struct dv_store *store; /* the thread's own */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct dv_list queue; /* guarded by lock */
    bool is_stopping;     /* guarded by lock */
    _Atomic uint64_t backlog;
};

static void reply(struct dv_msg *m)
{
    struct dv_store_job *job = DV_CONTAINER_OF(m, struct dv_store_job, msg);
    job->done(job);
}

/* Up to ROUND_MAX jobs into *round, in order; waits for the first.  False: stopping, and nothing is left. */
static bool gather(struct dv_storer *s, struct dv_list *round)
{
    pthread_mutex_lock(&s->lock);
    while (dv_list_empty(&s->queue) && !s->is_stopping)
        pthread_cond_wait(&s->wake, &s->lock);
    for (int n = 0; n < ROUND_MAX && !dv_list_empty(&s->queue); n++)
        dv_list_push_back(round, dv_list_pop_front(&s->queue));
    pthread_mutex_unlock(&s->lock);
    return !dv_list_empty(round);
}

static void run_job(struct dv_storer *s, struct dv_store_job *job)
{
    const struct dv_store_ops *ops = s->store->ops;
    job->code = ops->save(s->store, &job->err);
    if (job->code)
        return;
    job->code = job->run(job, s->store, &job->err);
    if (job->code)
        (void)ops->undo(s->store,
                        NULL); /* fails only when the whole transaction is lost, which end will say */
    else
        job->code = ops->keep(s->store, &job->err);
}

static void fail_all(struct dv_list *round, int code, const struct dv_err *err)
{
    DV_LIST_FOR_EACH (n, round) {
        struct dv_store_job *job = DV_LIST_ENTRY(n, struct dv_store_job, node);
        job->code = code;
        job->err = *err;
    }
}

static void run_round(struct dv_storer *s, struct dv_list *round)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = s->store->ops->begin(s->store, &err);
    if (!rc) {
        DV_LIST_FOR_EACH (n, round)
            run_job(s, DV_LIST_ENTRY(n, struct dv_store_job, node));
        rc = s->store->ops->end(s->store, &err);
    }
    if (rc)
        fail_all(round, rc, &err);
    struct dv_list *n;
    while ((n = dv_list_pop_front(round))) {
        struct dv_store_job *job = DV_LIST_ENTRY(n, struct dv_store_job, node);
        atomic_fetch_sub_explicit(&s->backlog, 1, memory_order_relaxed);
        dv_mailbox_post(job->reply_to, &job->msg); /* the sender owns it from here */
    }
}

static void *thread_main(void *arg)
{
    struct dv_storer *s = arg;
    struct dv_list round;
    dv_list_init(&round);
    while (gather(s, &round))
        run_round(s, &round);
    return NULL;
}

/* Signals belong to the loops; the store's thread takes none. */
static int start_thread(struct dv_storer *s)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* fails only on a wrong argument */
    int rc = pthread_create(&s->thread, NULL, thread_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int dv_storer_start(struct dv_store *store, struct dv_storer **out, struct dv_err *err)
{
    struct dv_storer *s = dv_zalloc(sizeof(*s));
    if (!s)
        return dv_err_set(err, DV_E_NOMEM, "store thread");
    s->store = store;
    dv_list_init(&s->queue);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    int rc = start_thread(s);
    if (rc) {
        pthread_cond_destroy(&s->wake);
        pthread_mutex_destroy(&s->lock);
        dv_free(s);
        return dv_err_sys(err, DV_E_IO, rc, "store thread");
    }
    *out = s;
    return DV_OK;
}

void dv_storer_submit(struct dv_storer *s, struct dv_store_job *job)
{
    job->msg.fn = reply;
    job->code = DV_OK;
    job->err = (struct dv_err)DV_ERR_INIT;
    atomic_fetch_add_explicit(&s->backlog, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->lock);
    bool was_empty = dv_list_empty(&s->queue);
    dv_list_push_back(&s->queue, &job->node);
    if (was_empty)
        pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void dv_storer_stop(struct dv_storer *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->store->ops->close(s->store);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    dv_free(s);
}

uint64_t dv_storer_backlog(const struct dv_storer *s)
{
    return atomic_load_explicit(&s->backlog, memory_order_relaxed);
}

#include "proto/rt/mailbox.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/rt/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct dv_mailbox {
    struct dv_loop *loop;
    struct dv_io io;
    pthread_mutex_t lock;
    struct dv_list queue; /* guarded by lock */
};

static void drain(struct dv_mailbox *mb)
{
    struct dv_list batch;
    pthread_mutex_lock(&mb->lock);
    batch = mb->queue;
    if (dv_list_empty(&mb->queue)) {
        dv_list_init(&batch);
    } else {
        batch.next->prev = &batch;
        batch.prev->next = &batch;
        dv_list_init(&mb->queue);
    }
    pthread_mutex_unlock(&mb->lock);
    struct dv_list *n;
    while ((n = dv_list_pop_front(&batch))) {
        struct dv_msg *m = DV_LIST_ENTRY(n, struct dv_msg, node);
        m->fn(m);
    }
}

static void on_event(struct dv_io *io, uint32_t events)
{
    (void)events;
    uint64_t n;
    ssize_t rc = read(io->fd, &n, sizeof(n));
    (void)rc; /* only the waking matters */
    drain(DV_CONTAINER_OF(io, struct dv_mailbox, io));
}

int dv_mailbox_new(struct dv_loop *l, struct dv_mailbox **out, struct dv_err *err)
{
    struct dv_mailbox *mb = dv_zalloc(sizeof(*mb));
    if (!mb)
        return dv_err_set(err, DV_E_NOMEM, "mailbox");
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    mb->loop = l;
    mb->io.fn = on_event;
    if (fd < 0 || dv_io_add(l, &mb->io, fd, EPOLLIN, err)) {
        int rc = dv_err_sys(err, DV_E_IO, errno, "mailbox");
        if (fd >= 0)
            (void)close(fd);
        dv_free(mb);
        return rc;
    }
    pthread_mutex_init(&mb->lock, NULL);
    dv_list_init(&mb->queue);
    *out = mb;
    return DV_OK;
}

void dv_mailbox_free(struct dv_mailbox *mb)
{
    if (!mb)
        return;
    drain(mb);
    int fd = mb->io.fd;
    dv_io_del(mb->loop, &mb->io);
    (void)close(fd);
    pthread_mutex_destroy(&mb->lock);
    dv_free(mb);
}

void dv_mailbox_post(struct dv_mailbox *mb, struct dv_msg *m)
{
    pthread_mutex_lock(&mb->lock);
    bool was_empty = dv_list_empty(&mb->queue);
    dv_list_push_back(&mb->queue, &m->node);
    pthread_mutex_unlock(&mb->lock);
    if (!was_empty)
        return; /* whoever made it non-empty has woken the loop */
    uint64_t one = 1;
    ssize_t rc = write(mb->io.fd, &one, sizeof(one));
    (void)rc; /* EAGAIN: a wake-up is pending already */
}

struct call {
    struct dv_msg msg;
    void (*fn)(void *arg);
    void *arg;
};

static void run_call(struct dv_msg *m)
{
    struct call *c = DV_CONTAINER_OF(m, struct call, msg);
    void (*fn)(void *) = c->fn;
    void *arg = c->arg;
    dv_free(c);
    fn(arg);
}

int dv_mailbox_call(struct dv_mailbox *mb, void (*fn)(void *arg), void *arg)
{
    struct call *c = dv_alloc(sizeof(*c));
    if (!c)
        return DV_E_NOMEM;
    *c = (struct call){.msg.fn = run_call, .fn = fn, .arg = arg};
    dv_mailbox_post(mb, &c->msg);
    return DV_OK;
}

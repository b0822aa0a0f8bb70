/* The loop.  Timers sit in a binary heap ordered by deadline; each timer knows its place, so that moving one
 * is O(log n) without a search.  A watcher removed while its event waits in the collected batch is struck out
 * of the batch, so no callback ever sees a dead object. */
#include "proto/rt/loop.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/rt/busy_poll.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BATCH = 256 };

struct dv_loop {
    const struct dv_clock *clock;
    uint64_t now_ns;
    int epfd;
    struct dv_io wake;
    _Atomic bool is_stopping;
    pthread_t thread;
    bool is_owned; /* thread is set */
    struct epoll_event batch[BATCH];
    int n_batch, i_batch;
    struct dv_timer **heap; /* heap[1..n_heap] */
    size_t n_heap, cap_heap;
    struct dv_list deferred;
    struct dv_busy_poll poll;
};

static void on_wake(struct dv_io *io, uint32_t events)
{
    (void)events;
    uint64_t n;
    ssize_t rc = read(io->fd, &n, sizeof(n));
    (void)rc; /* only the waking matters */
}

int dv_loop_new(const struct dv_clock *clock, struct dv_loop **out, struct dv_err *err)
{
    struct dv_loop *l = dv_zalloc(sizeof(*l));
    if (!l)
        return dv_err_set(err, DV_E_NOMEM, "event loop");
    l->clock = clock;
    l->now_ns = dv_clock_now_ns(clock);
    dv_list_init(&l->deferred);
    l->wake = (struct dv_io){.fd = -1, .fn = on_wake};
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    int wake_fd = l->epfd < 0 ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0 || dv_io_add(l, &l->wake, wake_fd, EPOLLIN, err)) {
        int rc = dv_err_sys(err, DV_E_IO, errno, "event loop");
        if (wake_fd >= 0)
            (void)close(wake_fd);
        l->wake.fd = -1;
        dv_loop_free(l);
        return rc;
    }
    *out = l;
    return DV_OK;
}

void dv_loop_free(struct dv_loop *l)
{
    if (!l)
        return;
    if (l->wake.fd >= 0)
        (void)close(l->wake.fd);
    if (l->epfd >= 0)
        (void)close(l->epfd);
    dv_free(l->heap);
    dv_free(l);
}

uint64_t dv_loop_now(const struct dv_loop *l)
{
    return l->now_ns;
}

const struct dv_clock *dv_loop_clock(const struct dv_loop *l)
{
    return l->clock;
}

void dv_loop_assert_here(const struct dv_loop *l)
{
    assert(!l->is_owned || pthread_equal(l->thread, pthread_self()));
    (void)l;
}

void dv_loop_stop(struct dv_loop *l)
{
    atomic_store(&l->is_stopping, true);
    uint64_t one = 1;
    ssize_t rc = write(l->wake.fd, &one, sizeof(one));
    (void)rc; /* EAGAIN: it is awake anyway */
}

/* ---- descriptors ---- */

int dv_io_add(struct dv_loop *l, struct dv_io *io, int fd, uint32_t events, struct dv_err *err)
{
    struct epoll_event e = {.events = events, .data.ptr = io};
    if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &e) < 0)
        return dv_err_sys(err, DV_E_IO, errno, "watching a descriptor");
    io->fd = fd;
    io->events = events;
    return DV_OK;
}

int dv_io_mod(struct dv_loop *l, struct dv_io *io, uint32_t events)
{
    if (io->events == events)
        return DV_OK;
    struct epoll_event e = {.events = events, .data.ptr = io};
    if (epoll_ctl(l->epfd, EPOLL_CTL_MOD, io->fd, &e) < 0)
        return DV_E_IO;
    io->events = events;
    return DV_OK;
}

void dv_io_del(struct dv_loop *l, struct dv_io *io)
{
    if (io->fd < 0)
        return;
    (void)epoll_ctl(l->epfd, EPOLL_CTL_DEL, io->fd, NULL); /* fails only when already gone */
    io->fd = -1;
    io->events = 0;
    for (int i = l->i_batch; i < l->n_batch; i++)
        if (l->batch[i].data.ptr == io)
            l->batch[i].data.ptr = NULL;
}

/* ---- timers ---- */

static void heap_put(struct dv_loop *l, size_t pos, struct dv_timer *t)
{
    l->heap[pos] = t;
    t->pos = pos;
}

static void sift_up(struct dv_loop *l, size_t pos, struct dv_timer *t)
{
    for (; pos > 1 && l->heap[pos / 2]->at_ns > t->at_ns; pos /= 2)
        heap_put(l, pos, l->heap[pos / 2]);
    heap_put(l, pos, t);
}

static void sift_down(struct dv_loop *l, size_t pos, struct dv_timer *t)
{
    for (size_t child; (child = pos * 2) <= l->n_heap; pos = child) {
        if (child < l->n_heap && l->heap[child + 1]->at_ns < l->heap[child]->at_ns)
            child++;
        if (l->heap[child]->at_ns >= t->at_ns)
            break;
        heap_put(l, pos, l->heap[child]);
    }
    heap_put(l, pos, t);
}

int dv_timer_set(struct dv_loop *l, struct dv_timer *t, uint64_t at_ns)
{
    if (t->pos) {
        uint64_t was = t->at_ns;
        t->at_ns = at_ns;
        if (at_ns < was)
            sift_up(l, t->pos, t);
        else
            sift_down(l, t->pos, t);
        return DV_OK;
    }
    if (l->n_heap + 2 > l->cap_heap) {
        size_t cap = l->cap_heap ? l->cap_heap * 2 : 64;
        struct dv_timer **heap = dv_realloc(l->heap, cap * sizeof(struct dv_timer *));
        if (!heap)
            return DV_E_NOMEM;
        l->heap = heap;
        l->cap_heap = cap;
    }
    t->at_ns = at_ns;
    sift_up(l, ++l->n_heap, t);
    return DV_OK;
}

void dv_timer_cancel(struct dv_loop *l, struct dv_timer *t)
{
    if (!t->pos)
        return;
    size_t pos = t->pos;
    t->pos = 0;
    struct dv_timer *last = l->heap[l->n_heap--];
    if (last == t)
        return;
    if (last->at_ns < t->at_ns)
        sift_up(l, pos, last);
    else
        sift_down(l, pos, last);
}

static void run_timers(struct dv_loop *l)
{
    while (l->n_heap && l->heap[1]->at_ns <= l->now_ns) {
        struct dv_timer *t = l->heap[1];
        dv_timer_cancel(l, t);
        t->fn(t);
    }
}

/* ---- end of turn ---- */

void dv_loop_defer(struct dv_loop *l, struct dv_defer *d)
{
    if (d->is_queued)
        return;
    d->is_queued = true;
    dv_list_push_back(&l->deferred, &d->node);
}

void dv_defer_cancel(struct dv_defer *d)
{
    if (!d->is_queued)
        return;
    d->is_queued = false;
    dv_list_remove(&d->node);
}

static void run_deferred(struct dv_loop *l)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&l->deferred))) {
        struct dv_defer *d = DV_LIST_ENTRY(n, struct dv_defer, node);
        d->is_queued = false;
        d->fn(d);
    }
}

/* ---- turns ---- */

static int wait_ms(const struct dv_loop *l, int max_wait_ms)
{
    if (!dv_list_empty(&l->deferred))
        return 0;
    if (!l->n_heap)
        return max_wait_ms;
    uint64_t now = dv_clock_now_ns(l->clock), at = l->heap[1]->at_ns;
    uint64_t ms = at <= now ? 0 : (at - now + DV_MS - 1) / DV_MS;
    return max_wait_ms >= 0 && (uint64_t)max_wait_ms < ms ? max_wait_ms : ms > 3600000 ? 3600000 : (int)ms;
}

void dv_loop_busy_poll(struct dv_loop *l, uint64_t window_ns)
{
    l->poll = (struct dv_busy_poll){.window_ns = window_ns};
}

/* Look again, giving way in between, until something has happened or the window is over. */
static int look(struct dv_loop *l)
{
    uint64_t begin = dv_clock_now_ns(l->clock), last = begin;
    int n;
    do {
        (void)sched_yield();
        n = epoll_wait(l->epfd, l->batch, BATCH, 0);
        uint64_t now = dv_clock_now_ns(l->clock), away = now - last;
        last = now;
        if (away > l->poll.window_ns) {
            dv_busy_poll_crowded(&l->poll);
            return n;
        }
    } while (!n && last - begin <= l->poll.window_ns);
    dv_busy_poll_looked(&l->poll, !n);
    return n;
}

static int collect(struct dv_loop *l, int ms)
{
    if (!l->poll.window_ns || !ms)
        return epoll_wait(l->epfd, l->batch, BATCH, ms);
    if (dv_busy_poll_pays(&l->poll)) {
        int n = epoll_wait(l->epfd, l->batch, BATCH, 0); /* under load the only call, as ever */
        n = n ? n : look(l);
        if (n)
            return n;
    }
    uint64_t begin = dv_clock_now_ns(l->clock);
    int n = epoll_wait(l->epfd, l->batch, BATCH, ms);
    dv_busy_poll_slept(&l->poll, dv_clock_now_ns(l->clock) - begin);
    return n;
}

/* The next timer is a precise one, due before the wait would end otherwise. */
static bool is_short(const struct dv_loop *l, int ms, struct timespec *out)
{
    if (ms == 0 || !l->n_heap || !l->heap[1]->is_precise)
        return false;
    uint64_t now = dv_clock_now_ns(l->clock), at = l->heap[1]->at_ns;
    uint64_t left = at <= now ? 0 : at - now;
    if (left >= DV_S || (ms > 0 && left > (unsigned)ms * DV_MS))
        return false;
    *out = (struct timespec){.tv_nsec = (long)left};
    return true;
}

static int wait_events(struct dv_loop *l, int max_wait_ms)
{
    struct timespec ts;
    int ms = wait_ms(l, max_wait_ms);
    if (is_short(l, ms, &ts)) {
        int n = epoll_pwait2(l->epfd, l->batch, BATCH, &ts, NULL);
        if (n >= 0 || errno != ENOSYS) /* kernels before 5.11 */
            return n;
    }
    return collect(l, ms);
}

int dv_loop_turn(struct dv_loop *l, int max_wait_ms)
{
    if (!l->is_owned) {
        l->thread = pthread_self();
        l->is_owned = true;
    }
    int n = wait_events(l, max_wait_ms);
    if (n < 0 && errno != EINTR)
        return DV_E_IO;
    l->now_ns = dv_clock_now_ns(l->clock);
    l->n_batch = n < 0 ? 0 : n;
    for (l->i_batch = 0; l->i_batch < l->n_batch;) {
        struct epoll_event e = l->batch[l->i_batch++];
        struct dv_io *io = e.data.ptr;
        if (io)
            io->fn(io, e.events);
    }
    l->n_batch = l->i_batch = 0;
    run_timers(l);
    run_deferred(l);
    return DV_OK;
}

int dv_loop_run(struct dv_loop *l)
{
    l->thread = pthread_self();
    l->is_owned = true;
    while (!atomic_load_explicit(&l->is_stopping, memory_order_relaxed)) {
        int rc = dv_loop_turn(l, -1);
        if (rc)
            return rc;
    }
    return DV_OK;
}

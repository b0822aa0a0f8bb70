/* A ring holds records of varying size: a header, then the texts behind one another.  head is written by the
 * loop, tail by the thread; both only grow, the place is their value modulo the size.  The thread sleeps in
 * read(eventfd) when every ring is empty; who adds to a ring then wakes it, at most once per nap, so that a
 * busy loop pays no system call per request and an idle one none at all. */
#include "orchestrator/gateway/accesslog.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RING_BYTES = 256 * 1024, TEXT_MAX = 256, NAP_MS = 50, BATCH_BYTES = 64 * 1024 };

struct record {
    uint32_t size; /* of header and texts, rounded up to 8 */
    int32_t status;
    uint64_t wall_ns, bytes_in, bytes_out, total_us, queue_us, start_us, run_us;
    uint32_t attempts;
    uint16_t method_n, target_n, fn_n, peer_n, call_id_n;
};

struct dv_accesslog_ring {
    struct dv_accesslog *log;
    _Atomic uint64_t head __attribute__((aligned(64)));
    _Atomic uint64_t dropped;
    _Atomic uint64_t tail __attribute__((aligned(64)));
    char data[RING_BYTES];
};

struct dv_accesslog {
    int fd, wake_fd;
    pthread_t thread;
    _Atomic bool is_asleep, is_stopping;
    uint32_t n_rings;
    struct dv_accesslog_ring **rings;
};

/* ---- the loop's side ---- */

static void copy_in(struct dv_accesslog_ring *r, uint64_t at, const void *p, size_t n)
{
    size_t place = at % RING_BYTES, first = n < RING_BYTES - place ? n : RING_BYTES - place;
    memcpy(r->data + place, p, first);
    memcpy(r->data, (const char *)p + first, n - first);
}

static uint16_t cut(struct dv_sv s)
{
    return (uint16_t)(s.n < TEXT_MAX ? s.n : TEXT_MAX);
}

void dv_accesslog_add(struct dv_accesslog_ring *r, const struct dv_access *a)
{
    struct record h = {.status = a->status,
                       .wall_ns = a->wall_ns,
                       .bytes_in = a->bytes_in,
                       .bytes_out = a->bytes_out,
                       .total_us = a->total_us,
                       .queue_us = a->queue_us,
                       .start_us = a->start_us,
                       .run_us = a->run_us,
                       .attempts = a->attempts,
                       .method_n = cut(a->method),
                       .target_n = cut(a->target),
                       .fn_n = cut(a->fn),
                       .peer_n = cut(a->peer),
                       .call_id_n = cut(a->call_id)};
    size_t n = sizeof(h) + h.method_n + h.target_n + h.fn_n + h.peer_n + h.call_id_n;
    h.size = (uint32_t)((n + 7) & ~(size_t)7);
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (head + h.size - atomic_load_explicit(&r->tail, memory_order_acquire) > RING_BYTES) {
        atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
        return;
    }
    uint64_t at = head;
    copy_in(r, at, &h, sizeof(h));
    at += sizeof(h);
    const struct dv_sv texts[] = {a->method, a->target, a->fn, a->peer, a->call_id};
    const uint16_t sizes[] = {h.method_n, h.target_n, h.fn_n, h.peer_n, h.call_id_n};
    for (size_t i = 0; i < DV_COUNT(texts); i++) {
        copy_in(r, at, texts[i].n ? texts[i].p : "", sizes[i]);
        at += sizes[i];
    }
    atomic_store(&r->head, head + h.size);
    if (atomic_load(&r->log->is_asleep) && atomic_exchange(&r->log->is_asleep, false)) {
        uint64_t one = 1;
        ssize_t rc = write(r->log->wake_fd, &one, sizeof(one));
        (void)rc; /* EAGAIN: it is awake anyway */
    }
}

/* ---- the thread's side ---- */

static void copy_out(const struct dv_accesslog_ring *r, uint64_t at, void *p, size_t n)
{
    size_t place = at % RING_BYTES, first = n < RING_BYTES - place ? n : RING_BYTES - place;
    memcpy(p, r->data + place, first);
    memcpy((char *)p + first, r->data, n - first);
}

static uint64_t add_text(struct dv_buf *b, const struct dv_accesslog_ring *r, uint64_t at, const char *key,
                         size_t n)
{
    char text[TEXT_MAX];
    copy_out(r, at, text, n);
    for (size_t i = 0; i < n; i++) /* what a client sent must not end a line or a quoted value */
        if ((unsigned char)text[i] <= ' ' || text[i] == '"' || text[i] == '\\' ||
            (unsigned char)text[i] >= 0x7f)
            text[i] = '?';
    (void)dv_buf_addf(b, " %s=", key);
    (void)dv_buf_add(b, n ? text : "-", n ? n : 1);
    return at + n;
}

static void add_line(struct dv_buf *b, const struct dv_accesslog_ring *r, uint64_t at, const struct record *h)
{
    char when[DV_RFC3339_TEXT];
    dv_rfc3339((int64_t)(h->wall_ns / DV_MS), when);
    (void)dv_buf_addf(b, "time=%s status=%d", when, h->status);
    at = add_text(b, r, at + sizeof(*h), "method", h->method_n);
    at = add_text(b, r, at, "target", h->target_n);
    at = add_text(b, r, at, "function", h->fn_n);
    at = add_text(b, r, at, "client", h->peer_n);
    (void)add_text(b, r, at, "call_id", h->call_id_n);
    (void)dv_buf_addf(b, " in=%llu out=%llu us=%llu queue_us=%llu start_us=%llu run_us=%llu attempts=%u\n",
                      (unsigned long long)h->bytes_in, (unsigned long long)h->bytes_out,
                      (unsigned long long)h->total_us, (unsigned long long)h->queue_us,
                      (unsigned long long)h->start_us, (unsigned long long)h->run_us, h->attempts);
}

static void write_out(int fd, struct dv_buf *b)
{
    while (dv_buf_len(b)) {
        ssize_t n = write(fd, dv_buf_ptr(b), dv_buf_len(b));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* a log that cannot be written is not worth a stop */
        dv_buf_consume(b, (size_t)n);
    }
    dv_buf_clear(b);
}

static bool drain(struct dv_accesslog *a, struct dv_buf *b)
{
    bool any = false;
    for (uint32_t i = 0; i < a->n_rings; i++) {
        struct dv_accesslog_ring *r = a->rings[i];
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        while (tail != atomic_load(&r->head)) {
            struct record h;
            copy_out(r, tail, &h, sizeof(h));
            add_line(b, r, tail, &h);
            tail += h.size;
            atomic_store_explicit(&r->tail, tail, memory_order_release);
            any = true;
            if (dv_buf_len(b) >= BATCH_BYTES)
                write_out(a->fd, b);
        }
    }
    write_out(a->fd, b);
    return any;
}

static void forget_wake(struct dv_accesslog *a)
{
    uint64_t n;
    ssize_t rc = read(a->wake_fd, &n, sizeof(n));
    (void)rc; /* only the waking matters */
}

static void *thread_main(void *arg)
{
    struct dv_accesslog *a = arg;
    struct dv_buf b = DV_BUF_INIT;
    while (!atomic_load(&a->is_stopping)) {
        if (drain(a, &b)) {
            struct pollfd nap = {.fd = a->wake_fd, .events = POLLIN};
            if (poll(&nap, 1, NAP_MS) > 0) /* gather: not one line a wake-up; only a stop cuts it short */
                forget_wake(a);
            continue;
        }
        atomic_store(&a->is_asleep, true);
        if (drain(a, &b) || atomic_load(&a->is_stopping)) { /* came in between */
            atomic_store(&a->is_asleep, false);
            continue;
        }
        forget_wake(a); /* sleeps here */
    }
    (void)drain(a, &b);
    dv_buf_deinit(&b);
    return NULL;
}

/* ---- */

static void log_free(struct dv_accesslog *a)
{
    for (uint32_t i = 0; a->rings && i < a->n_rings; i++)
        free(a->rings[i]);
    dv_free(a->rings);
    if (a->wake_fd >= 0)
        (void)close(a->wake_fd);
    dv_free(a);
}

int dv_accesslog_start(int fd, uint32_t n_rings, struct dv_accesslog **out, struct dv_err *err)
{
    struct dv_accesslog *a = dv_zalloc(sizeof(*a));
    if (!a)
        return dv_err_set(err, DV_E_NOMEM, "access log");
    a->fd = fd;
    a->n_rings = n_rings;
    a->wake_fd = eventfd(0, EFD_CLOEXEC);
    a->rings = dv_zalloc_n(n_rings, sizeof(struct dv_accesslog_ring *));
    for (uint32_t i = 0; a->rings && i < n_rings; i++) {
        struct dv_accesslog_ring *r = aligned_alloc(64, sizeof(struct dv_accesslog_ring));
        if (!r)
            break;
        memset(r, 0, sizeof(*r));
        r->log = a;
        a->rings[i] = r;
    }
    if (!a->rings || a->wake_fd < 0 || !a->rings[n_rings - 1] ||
        pthread_create(&a->thread, NULL, thread_main, a)) {
        log_free(a);
        return dv_err_set(err, DV_E_NOMEM, "starting the access log");
    }
    *out = a;
    return DV_OK;
}

void dv_accesslog_stop(struct dv_accesslog *a)
{
    if (!a)
        return;
    atomic_store(&a->is_stopping, true);
    uint64_t one = 1;
    ssize_t rc = write(a->wake_fd, &one, sizeof(one));
    (void)rc; /* cannot fail on a fresh eventfd; a nap ends by itself */
    (void)pthread_join(a->thread, NULL);
    log_free(a);
}

struct dv_accesslog_ring *dv_accesslog_ring(struct dv_accesslog *a, uint32_t i)
{
    return a->rings[i];
}

uint64_t dv_accesslog_dropped(const struct dv_accesslog *a)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_rings; i++)
        n += atomic_load_explicit(&a->rings[i]->dropped, memory_order_relaxed);
    return n;
}

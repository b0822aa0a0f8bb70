/* Why a connection broke off under a request.
 *
 * A process that ends closes its connections some 50 ms before the engine tells of its end, and its caller
 * should hear the better reason.  So the carry knocks: where somebody still listens the function lives and
 * has broken off by itself, which is told at once; where nobody does, the replica's removal is awaited for a
 * moment (it ends the stream with its own reason).  It knocks a little later, since a process that ends
 * closes its sockets in no order.  The stream keeps its slot meanwhile; no request can be tried again then.
 */
#include "agent/carry/carry_internal.h"

#include <sys/socket.h>
#include <unistd.h>

void carry_inquiry_end(struct carry_stream *s)
{
    if (s->knock_fd < 0)
        return;
    dv_io_del(s->loop->loop, &s->knock);
    (void)close(s->knock_fd);
    s->knock_fd = -1;
}

static void on_knock(struct dv_io *io, uint32_t events)
{
    struct carry_stream *s = DV_CONTAINER_OF(io, struct carry_stream, knock);
    int e = 0;
    socklen_t n = sizeof(e);
    (void)events;
    bool is_heard = getsockopt(s->knock_fd, SOL_SOCKET, SO_ERROR, &e, &n) == 0 && e == 0;
    carry_inquiry_end(s);
    if (is_heard)
        carry_stream_abort(s, DV_RESET_BROKEN);
}

/* DV_OK: on_timer after that time, or at the deadline. */
static int wait_for(struct carry_stream *s, uint64_t ms)
{
    uint64_t until = dv_loop_now(s->loop->loop) + ms * DV_MS;
    return dv_timer_set(s->loop->loop, &s->timer,
                        s->deadline_ns && s->deadline_ns < until ? s->deadline_ns : until);
}

void carry_inquiry_begin(struct carry_stream *s)
{
    s->inquiry = CARRY_WAITS_TO_KNOCK;
    if (s->up)
        carry_up_drop(s->up);
    dv_buf_clear(&s->pending);
    if (wait_for(s, CARRY_KNOCK_MS))
        carry_stream_abort(s, DV_RESET_BROKEN);
}

void carry_inquiry_on_timer(struct carry_stream *s)
{
    if (s->inquiry == CARRY_HAS_KNOCKED || wait_for(s, CARRY_WHY_MS)) {
        carry_stream_abort(s, DV_RESET_BROKEN); /* nobody could say why */
        return;
    }
    s->inquiry = CARRY_HAS_KNOCKED;
    if (dv_addr_connect(&s->slot->live->address, &s->knock_fd, NULL)) {
        s->knock_fd = -1; /* refused at once */
        return;
    }
    s->knock = (struct dv_io){.fd = -1, .fn = on_knock};
    if (dv_io_add(s->loop->loop, &s->knock, s->knock_fd, EPOLLOUT, NULL)) {
        (void)close(s->knock_fd); /* not watched: the timer decides */
        s->knock_fd = -1;
    }
}

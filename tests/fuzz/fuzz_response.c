/* A container's bytes: heads of answers through the parser, and a whole connection's worth of them through
 * the upstream client on a socket pair, cut where the first byte says.
 *
 * The client must end in exactly one of on_end and on_error, hand on no more than it was sent, and call a
 * connection reusable only when every byte was used up. */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/h1up.h"
#include "proto/rt/loop.h"

#define REQUIRE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

static struct dv_loop *loop;
static struct dv_addr address;
static int listener;

static struct {
    int n_ends, n_errors, n_final;
    bool is_reusable;
    size_t bytes, take_max;
    struct dv_h1up *up;
} seen;

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    (void)ctx;
    REQUIRE(seen.n_final == 0 && seen.n_ends == 0);
    seen.n_final += head->status >= 200 || head->status == 101;
    for (size_t i = 0; i < head->n_fields; i++)
        REQUIRE(dv_h1_is_token(head->fields[i].name) && dv_h1_value_valid(head->fields[i].value));
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    REQUIRE(seen.n_final == 1 && seen.n_ends == 0 && bytes.n > 0);
    size_t n = bytes.n < seen.take_max ? bytes.n : seen.take_max;
    seen.bytes += n;
    return n;
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    (void)ctx;
    REQUIRE(fields.n >= 2 && memcmp(fields.p + fields.n - 2, "\r\n", 2) == 0);
}

static void on_end(void *ctx, bool is_reusable)
{
    (void)ctx;
    REQUIRE(seen.n_ends++ == 0 && seen.n_errors == 0 && seen.n_final == 1);
    seen.is_reusable = is_reusable;
}

static void on_writable(void *ctx)
{
    (void)ctx;
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    (void)ctx;
    REQUIRE(seen.n_errors++ == 0 && err->msg[0]);
    REQUIRE(seen.n_ends == 0 || why == DV_H1UP_IDLE_CLOSED || why == DV_H1UP_BROKEN);
    dv_h1up_free(seen.up);
    seen.up = NULL;
}

static const struct dv_h1up_ops ops = {on_head, on_data, on_trailers, on_end, on_writable, on_error};

static void remove_socket(void)
{
    (void)unlink(address.un.sun_path);
}

static void set_up(void)
{
    if (loop)
        return;
    REQUIRE(dv_loop_new(&dv_clock_system, &loop, NULL) == DV_OK);
    char path[64];
    (void)snprintf(path, sizeof(path), "unix:/tmp/davit-fuzz-%d.sock", (int)getpid());
    REQUIRE(dv_addr_parse(path, &address, NULL) == DV_OK);
    remove_socket();
    REQUIRE(atexit(remove_socket) == 0);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(listener, &address.sa, address.len) == 0 && listen(listener, 1) == 0);
}

static void turn(void)
{
    REQUIRE(dv_loop_turn(loop, 0) == DV_OK);
    if (seen.up)
        dv_h1up_resume(seen.up);
}

static void run_client(uint8_t how, const uint8_t *data, size_t n)
{
    memset(&seen, 0, sizeof(seen));
    seen.take_max = how & 1 ? SIZE_MAX : 1 + how / 8;
    static const char *const methods[] = {"GET", "HEAD"};
    struct dv_h1up_request req = {.method = dv_sv_c(methods[how >> 1 & 1]),
                                  .target = DV_SV("/"),
                                  .body = how & 4 ? DV_H1_UPGRADED : DV_H1_NO_BODY};
    REQUIRE(dv_h1up_connect(loop, &address, &ops, NULL, &seen.up, NULL) == DV_OK);
    REQUIRE(dv_h1up_begin(seen.up, &req) == DV_OK);
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    REQUIRE(peer >= 0);
    turn();
    turn();
    size_t piece = how & 8 ? 1 + how / 16 : n;
    for (size_t i = 0; i < n && seen.up; i += piece) {
        size_t run = n - i < piece ? n - i : piece;
        if (send(peer, data + i, run, MSG_NOSIGNAL) != (ssize_t)run)
            break; /* the client has closed */
        turn();
    }
    REQUIRE(seen.bytes <= n);
    if (seen.n_ends && seen.is_reusable && seen.up) /* nothing may be left for another answer to trip over */
        REQUIRE(seen.n_errors == 0);
    (void)close(peer);
    for (size_t i = 0; i < n + 8 && seen.up && !(seen.n_ends && !seen.is_reusable); i++)
        turn();
    REQUIRE(seen.n_ends || seen.n_errors);
    dv_h1up_free(seen.up);
    seen.up = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    set_up();
    if (n < 1 || n > 16 * 1024)
        return 0;
    static struct dv_h1_head h;
    size_t consumed;
    char *copy = dv_alloc(n - 1);
    REQUIRE(copy != NULL);
    memcpy(copy, data + 1, n - 1);
    int rc = dv_h1_parse_response(copy, n - 1, DV_SV("GET"), &h, &consumed, NULL);
    REQUIRE(rc == DV_OK || rc == DV_AGAIN || rc == DV_INVALID || rc == DV_TOO_LARGE);
    REQUIRE(rc != DV_OK || (consumed <= n - 1 && h.status >= 100 && h.status <= 999));
    dv_free(copy);
    run_client(data[0], data + 1, n - 1);
    return 0;
}

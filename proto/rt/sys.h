/* Small doors to the operating system: files, random bytes, addresses, listening sockets, signals on a loop.
 * Messages name the thing at fault and the cure, since they reach a person as they stand.  Any thread unless
 * said otherwise; the file calls block on the disk and belong to start-up, shutdown and workers. */
#ifndef DV_SYS_H
#define DV_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

struct dv_loop;

/* ---- files ---- */

/* Make a directory and its missing parents; new ones get `mode` exactly, whatever the umask.  Present
 * already: DV_OK. DV_OK; DV_DENIED; DV_INVALID (something else stands there, path too long); DV_E_IO. */
int dv_mkdirs(const char *path, unsigned mode, struct dv_err *err);
/* Append the whole file to out.  DV_OK; DV_NOT_FOUND; DV_DENIED; DV_TOO_LARGE (past max_bytes); DV_E_IO;
 * DV_E_NOMEM. out is untouched unless DV_OK. */
int dv_file_read(const char *path, size_t max_bytes, struct dv_buf *out, struct dv_err *err);
/* Replace the file in one step: either the old or the new content is there after a crash, never a part.
 * DV_OK; DV_DENIED; DV_NOT_FOUND (no such directory); DV_E_IO. */
int dv_file_write(const char *path, struct dv_sv bytes, unsigned mode, struct dv_err *err);
/* Kernel randomness, good for secrets.  DV_OK; DV_E_IO. */
int dv_random(void *out, size_t n, struct dv_err *err);

/* ---- addresses and listeners ---- */

struct dv_hostport {
    char host[256]; /* without brackets; "" = every address */
    uint16_t port;
};
/* "host:port", "[v6]:port", ":port"; "host" alone too when default_port is given (negative: it is not).
 * DV_OK; DV_INVALID. */
int dv_hostport_parse(const char *address, int default_port, struct dv_hostport *out, struct dv_err *err);
/* "localhost", 127.0.0.0/8 and ::1. */
bool dv_hostport_is_loopback(const struct dv_hostport *hp);

enum dv_listen_flags { DV_LISTEN_REUSEPORT = 1 };
/* A non-blocking listening socket.  Names are resolved (this blocks: start-up only).
 * option: the option that sets this address, for the message ("--listen"); may be NULL.
 * DV_OK; DV_INVALID (address); DV_EXISTS (already in use); DV_DENIED (port below 1024); DV_E_IO. */
int dv_listen_tcp(const char *address, unsigned flags, const char *option, int *out_fd, struct dv_err *err);
/* The same on a unix socket of this mode.  A socket file that nobody listens on is replaced.
 * DV_OK; DV_INVALID (path too long, or not a socket); DV_EXISTS (another program listens there); DV_DENIED;
 * DV_E_IO. */
int dv_listen_unix(const char *path, unsigned mode, int *out_fd, struct dv_err *err);
/* The same where dv_addr_near leads.  DV_OK; DV_EXISTS (another program listens there); DV_TOO_LARGE;
 * DV_E_IO. */
int dv_listen_near(const char *address, int *out_fd, struct dv_err *err);
int dv_socket_port(int fd); /* as bound; 0 when it has none */

/* ---- signals ---- */

struct dv_signals;
/* Run fn on the loop for each of these signals, which stop acting in any other way: they are blocked in the
 * calling thread, so call this before other threads start (they inherit it).  Loop's thread. DV_OK; DV_E_IO;
 * DV_E_NOMEM. */
int dv_signals_start(struct dv_loop *loop, const int *signals, size_t n, void (*fn)(void *ctx, int signo),
                     void *ctx, struct dv_signals **out, struct dv_err *err);
void dv_signals_stop(struct dv_signals *s); /* NULL accepted; the signals stay blocked */

#endif

/* Socket addresses as text: "host:port", "[v6]:port", ":port" (any address), "unix:/path".  Numeric hosts and
 * "localhost" only: names block, whoever has one resolves it on a worker first.  Pure, any thread. */
#ifndef DV_ADDR_H
#define DV_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

struct dv_err;

struct dv_addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* DV_OK, or DV_INVALID (err says what is wrong with it). */
int dv_addr_parse(const char *text, struct dv_addr *out, struct dv_err *err);
/* Always terminated, cut when cap is too small.  An abstract unix socket: "unix:@name". */
void dv_addr_text(const struct dv_addr *a, char *out, size_t cap);
/* Where whoever listens at `address` ("host:port", to the letter) may be reached besides: an abstract unix
 * socket, which only programs of the same machine and network namespace see, for less than loopback costs.
 * It proves nothing about who listens there.  DV_OK; DV_TOO_LARGE. */
int dv_addr_near(const char *address, struct dv_addr *out);
/* Only this machine reaches it: 127.0.0.0/8, ::1, unix. */
bool dv_addr_is_loopback(const struct dv_addr *a);

/* A non-blocking, close-on-exec socket connected, or being connected, to `a`; TCP_NODELAY on TCP.
 * DV_OK; DV_E_NET when it failed at once (err->sys_errno says why). */
int dv_addr_connect(const struct dv_addr *a, int *out_fd, struct dv_err *err);

#endif

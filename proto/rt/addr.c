#include "proto/rt/addr.h"
#include "proto/base/auto.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>

static int parse_unix(const char *path, struct dv_addr *out, struct dv_err *err)
{
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(out->un.sun_path))
        return dv_err_set(err, DV_INVALID, "path of a unix socket has %zu bytes, allowed are 1 to %zu", n,
                          sizeof(out->un.sun_path) - 1);
    struct dv_addr a = {.len = sizeof(a.un)};
    a.un.sun_family = AF_UNIX;
    memcpy(a.un.sun_path, path, n);
    *out = a;
    return DV_OK;
}

int dv_addr_near(const char *address, struct dv_addr *out)
{
    struct dv_addr a = {.len = 0};
    size_t cap = sizeof(a.un.sun_path) - 1; /* the first byte stays zero: no file */
    int n = snprintf(a.un.sun_path + 1, cap, "davit-link/%s", address);
    if (n < 0 || (size_t)n >= cap)
        return DV_TOO_LARGE;
    a.un.sun_family = AF_UNIX;
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    *out = a;
    return DV_OK;
}

static bool parse_host(const char *host, uint16_t port, struct dv_addr *out)
{
    struct dv_addr a = {.len = sizeof(a.in)};
    if (!host[0])
        host = "0.0.0.0";
    else if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(port);
    } else if (inet_pton(AF_INET6, host, &a.in6.sin6_addr) == 1) {
        a.len = sizeof(a.in6);
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(port);
    } else {
        return false;
    }
    *out = a;
    return true;
}

int dv_addr_parse(const char *text, struct dv_addr *out, struct dv_err *err)
{
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(strncmp(text, "unix://", 7) == 0 ? text + 7 : text + 5, out, err);
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || !dv_parse_u64(dv_sv_c(colon + 1), &port) || port > 65535)
        return dv_err_set(err, DV_INVALID, "address \"%s\" does not end in a port (\"127.0.0.1:8080\")",
                          text);
    struct dv_sv host = dv_sv(text, (size_t)(colon - text));
    bool is_v6 = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (is_v6)
        host = dv_sv(host.p + 1, host.n - 2);
    char name[INET6_ADDRSTRLEN];
    bool is_ok = host.n < sizeof(name) && is_v6 == (memchr(host.p, ':', host.n) != NULL);
    if (is_ok) {
        memcpy(name, host.p, host.n);
        name[host.n] = '\0';
        is_ok = parse_host(name, (uint16_t)port, out);
    }
    return is_ok ? DV_OK : dv_err_set(err, DV_INVALID, "host of address \"%s\" is not numeric", text);
}

void dv_addr_text(const struct dv_addr *a, char *out, size_t cap)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->sa.sa_family == AF_UNIX) {
        bool is_abstract = !a->un.sun_path[0];
        (void)snprintf(out, cap, is_abstract ? "unix:@%s" : "unix:%s", a->un.sun_path + is_abstract);
    } else if (a->sa.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
        (void)snprintf(out, cap, "[%s]:%u", host, ntohs(a->in6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
        (void)snprintf(out, cap, "%s:%u", host, ntohs(a->in.sin_port));
    }
}

bool dv_addr_is_loopback(const struct dv_addr *a)
{
    switch (a->sa.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(a->in.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
    default:
        return false;
    }
}

int dv_addr_connect(const struct dv_addr *a, int *out_fd, struct dv_err *err)
{
    DV_AUTO_FD int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return dv_err_sys(err, DV_E_NET, errno, "socket");
    if (a->sa.sa_family != AF_UNIX) {
        int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* slower without, not wrong */
    }
    int rc;
    do
        rc = connect(fd, &a->sa, a->len);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno != EINPROGRESS) {
        int e = errno;
        char text[160];
        dv_addr_text(a, text, sizeof(text));
        return dv_err_sys(err, DV_E_NET, e, "connecting to %s", text);
    }
    *out_fd = dv_steal_fd(&fd);
    return DV_OK;
}

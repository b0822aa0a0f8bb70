/* Files, random bytes, addresses, listeners.  Signals stand in signals.c. */
#include "proto/rt/sys.h"
#include "proto/rt/addr.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATH_CAP = 4096 };

static int file_code(int sys_errno)
{
    switch (sys_errno) {
    case ENOENT:
        return DV_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return DV_DENIED;
    case ENOTDIR:
    case ENAMETOOLONG:
        return DV_INVALID;
    default:
        return DV_E_IO;
    }
}

/* ---- files ---- */

static int make_dir(const char *path, unsigned mode, struct dv_err *err)
{
    if (mkdir(path, mode & 07777u) == 0) {
        /* mkdir's mode went through the umask; what was asked for may be wider. */
        if (chmod(path, mode & 07777u) < 0)
            return dv_err_sys(err, file_code(errno), errno, "setting the mode of %s", path);
        return DV_OK;
    }
    int why = errno;
    struct stat st;
    if (why == EEXIST && stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? DV_OK : dv_err_set(err, DV_INVALID, "%s is not a directory", path);
    return dv_err_sys(err, file_code(why), why, "making directory %s", path);
}

int dv_mkdirs(const char *path, unsigned mode, struct dv_err *err)
{
    char part[PATH_CAP];
    if (!path[0] || !dv_copy(part, sizeof(part), path))
        return dv_err_set(err, DV_INVALID, "directory name is empty or too long");
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return DV_OK; /* parents may be unreadable to us */
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int rc = stat(part, &st) == 0 && S_ISDIR(st.st_mode) ? DV_OK : make_dir(part, mode, err);
        if (rc)
            return rc;
        *slash = '/';
    }
    size_t n = strlen(part);
    return part[n - 1] == '/' ? DV_OK : make_dir(part, mode, err);
}

int dv_file_read(const char *path, size_t max_bytes, struct dv_buf *out, struct dv_err *err)
{
    DV_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return dv_err_sys(err, file_code(errno), errno, "opening %s", path);
    size_t had = dv_buf_len(out);
    for (;;) {
        int rc = dv_buf_reserve(out, 16384);
        if (rc) {
            dv_buf_truncate(out, had);
            return dv_err_set(err, rc, "reading %s: %s", path, dv_err_text(rc));
        }
        ssize_t n = read(fd, dv_buf_end(out), dv_buf_room(out));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int why = errno;
            dv_buf_truncate(out, had);
            return dv_err_sys(err, why == EISDIR ? DV_INVALID : DV_E_IO, why, "reading %s", path);
        }
        if (n == 0)
            return DV_OK;
        dv_buf_commit(out, (size_t)n);
        if (dv_buf_len(out) - had > max_bytes) {
            dv_buf_truncate(out, had);
            return dv_err_set(err, DV_TOO_LARGE, "%s is larger than %zu bytes", path, max_bytes);
        }
    }
}

static int write_all(int fd, struct dv_sv bytes)
{
    while (bytes.n) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        bytes = dv_sv(bytes.p + n, bytes.n - (size_t)n);
    }
    return 0;
}

/* A rename survives a crash only once the directory itself is on disk. */
static int sync_dir_of(const char *path)
{
    char dir[PATH_CAP];
    if (!dv_copy(dir, sizeof(dir), path))
        return ENAMETOOLONG;
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    DV_AUTO_FD int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? errno : 0;
}

int dv_file_write(const char *path, struct dv_sv bytes, unsigned mode, struct dv_err *err)
{
    char temp[PATH_CAP];
    int len = snprintf(temp, sizeof(temp), "%s.new.XXXXXX", path);
    if (len < 0 || (size_t)len >= sizeof(temp))
        return dv_err_set(err, DV_INVALID, "file name too long");
    DV_AUTO_FD int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return dv_err_sys(err, file_code(errno), errno, "writing %s", path);
    int why = write_all(fd, bytes);
    if (!why && (fchmod(fd, mode & 07777u) < 0 || fsync(fd) < 0 || rename(temp, path) < 0))
        why = errno;
    if (why) {
        (void)unlink(temp);
        return dv_err_sys(err, file_code(why), why, "writing %s", path);
    }
    why = sync_dir_of(path);
    return why ? dv_err_sys(err, DV_E_IO, why, "writing %s", path) : DV_OK;
}

int dv_random(void *out, size_t n, struct dv_err *err)
{
    char *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return dv_err_sys(err, DV_E_IO, errno, "kernel random numbers");
        p += got;
        n -= (size_t)got;
    }
    return DV_OK;
}

/* ---- addresses ---- */

/* Cut "[v6]:port", "v4-or-name:port" or a host alone into its halves; port.p NULL when there is none. */
static bool cut_hostport(struct dv_sv s, struct dv_sv *host, struct dv_sv *port)
{
    *port = dv_sv(NULL, 0);
    if (s.n && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (!close)
            return false;
        *host = dv_sv(s.p + 1, (size_t)(close - s.p) - 1);
        struct dv_sv rest = dv_sv(close + 1, s.n - (size_t)(close - s.p) - 1);
        if (rest.n && rest.p[0] != ':')
            return false;
        if (rest.n)
            *port = dv_sv(rest.p + 1, rest.n - 1);
        return host->n > 0;
    }
    const char *colon = memchr(s.p, ':', s.n);
    if (!colon) {
        *host = s;
        return s.n > 0;
    }
    *host = dv_sv(s.p, (size_t)(colon - s.p));
    *port = dv_sv(colon + 1, s.n - host->n - 1);
    return memchr(port->p, ':', port->n) == NULL; /* an IPv6 address without its brackets */
}

int dv_hostport_parse(const char *address, int default_port, struct dv_hostport *out, struct dv_err *err)
{
    struct dv_sv host, port;
    uint64_t number = 0;
    if (!address || !cut_hostport(dv_sv_c(address), &host, &port))
        return dv_err_set(err, DV_INVALID, "\"%s\" is not HOST:PORT", address ? address : "");
    if (!port.p && default_port < 0)
        return dv_err_set(err, DV_INVALID, "\"%s\" has no port: write HOST:PORT", address);
    if (!port.p)
        number = (uint64_t)default_port;
    else if (!dv_parse_u64(port, &number) || number > 65535)
        return dv_err_set(err, DV_INVALID, "\"%s\": the port is not a number from 0 to 65535", address);
    if (host.n >= sizeof(out->host))
        return dv_err_set(err, DV_INVALID, "\"%.60s...\": host name too long", address);
    for (size_t i = 0; i < host.n; i++)
        if ((unsigned char)host.p[i] <= ' ' || strchr("/@?#[]", host.p[i]))
            return dv_err_set(err, DV_INVALID, "\"%s\" is not HOST:PORT", address);
    if (host.n == 1 && host.p[0] == '*')
        host.n = 0;
    if (host.n)
        memcpy(out->host, host.p, host.n);
    out->host[host.n] = '\0';
    out->port = (uint16_t)number;
    return DV_OK;
}

bool dv_hostport_is_loopback(const struct dv_hostport *hp)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, hp->host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    if (inet_pton(AF_INET6, hp->host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return dv_sv_eq_nocase(dv_sv_c(hp->host), DV_SV("localhost"));
}

/* ---- listeners ---- */

static int refuse_listen(struct dv_err *err, int why, const char *address, const char *option)
{
    char hint[96] = "";
    if (option)
        (void)snprintf(hint, sizeof(hint), "; choose another with %s", option);
    if (why == EADDRINUSE)
        return dv_err_set(err, DV_EXISTS, "address %s already in use: another program listens there%s",
                          address, hint);
    if (why == EACCES)
        return dv_err_set(err, DV_DENIED, "address %s: permission denied (ports below 1024 need root)%s",
                          address, hint);
    if (why == EADDRNOTAVAIL)
        return dv_err_set(err, DV_INVALID, "address %s does not belong to this machine%s", address, hint);
    return dv_err_sys(err, DV_E_IO, why, "listening on %s", address);
}

static int bind_one(const struct addrinfo *ai, unsigned flags, int *out_fd)
{
    DV_AUTO_FD int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1, zero = 0;
    if (fd < 0)
        return errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
        return errno;
    if ((flags & DV_LISTEN_REUSEPORT) && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
        return errno;
    /* "every address" is one dual-stack socket */
    if (ai->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 4096) < 0)
        return errno;
    *out_fd = dv_steal_fd(&fd);
    return 0;
}

int dv_listen_tcp(const char *address, unsigned flags, const char *option, int *out_fd, struct dv_err *err)
{
    struct dv_hostport hp;
    int rc = dv_hostport_parse(address, -1, &hp, err);
    if (rc)
        return rc;
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", hp.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    int gai = getaddrinfo(hp.host[0] ? hp.host : NULL, port, &hints, &list);
    if (gai)
        return dv_err_set(err, DV_INVALID, "address %s: %s", address, gai_strerror(gai));
    int why = EADDRNOTAVAIL;
    /* Without a host prefer the IPv6 wildcard, which takes IPv4 too; machines without IPv6 fall to the next.
     */
    for (int pass = 0; pass < 2 && why; pass++)
        for (const struct addrinfo *ai = list; ai && why; ai = ai->ai_next)
            if (hp.host[0] ? pass == 0 : (ai->ai_family == AF_INET6) == (pass == 0))
                why = bind_one(ai, flags, out_fd);
    freeaddrinfo(list);
    return why ? refuse_listen(err, why, address, option) : DV_OK;
}

/* A socket file left by a program that died refuses connections: only then it may go. */
static int clear_stale(const struct sockaddr_un *sun, struct dv_err *err)
{
    struct stat st;
    if (lstat(sun->sun_path, &st) < 0)
        return errno == ENOENT ? DV_OK : dv_err_sys(err, file_code(errno), errno, "socket %s", sun->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return dv_err_set(err, DV_INVALID, "%s is there already and is not a socket", sun->sun_path);
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "socket %s", sun->sun_path);
    if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 || errno == EAGAIN)
        return dv_err_set(err, DV_EXISTS, "socket %s already in use: another program listens there",
                          sun->sun_path);
    if (errno != ECONNREFUSED)
        return dv_err_sys(err, file_code(errno), errno, "socket %s", sun->sun_path);
    if (unlink(sun->sun_path) < 0)
        return dv_err_sys(err, file_code(errno), errno, "removing stale socket %s", sun->sun_path);
    return DV_OK;
}

int dv_listen_unix(const char *path, unsigned mode, int *out_fd, struct dv_err *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (!path[0] || !dv_copy(sun.sun_path, sizeof(sun.sun_path), path))
        return dv_err_set(err, DV_INVALID, "socket path is empty or longer than %zu bytes: %s",
                          sizeof(sun.sun_path) - 1, path);
    int rc = clear_stale(&sun, err);
    if (rc)
        return rc;
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "socket %s", path);
    /* On Linux the file gets the socket's own mode less the umask: nobody else can connect in between. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
        return dv_err_sys(err, file_code(errno), errno, "socket %s", path);
    if (chmod(path, mode & 07777u) < 0 || listen(fd, 4096) < 0) {
        int why = errno;
        (void)unlink(path);
        return dv_err_sys(err, file_code(why), why, "socket %s", path);
    }
    *out_fd = dv_steal_fd(&fd);
    return DV_OK;
}

int dv_listen_near(const char *address, int *out_fd, struct dv_err *err)
{
    struct dv_addr a;
    int rc = dv_addr_near(address, &a);
    if (rc)
        return dv_err_set(err, rc, "the name of a socket for %s", address);
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, &a.sa, a.len) < 0 || listen(fd, 4096) < 0)
        return dv_err_sys(err, errno == EADDRINUSE ? DV_EXISTS : DV_E_IO, errno, "socket near %s", address);
    *out_fd = dv_steal_fd(&fd);
    return DV_OK;
}

int dv_socket_port(int fd)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &n) < 0)
        return 0;
    if (ss.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&ss)->sin_port);
    if (ss.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
    return 0;
}

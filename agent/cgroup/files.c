/* Control files: short texts, read and written in one call. */
#include "agent/cgroup/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int open_at(const char *dir, const char *file, int flags)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, file);
    if (n < 0 || (size_t)n >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(path, flags | O_CLOEXEC);
}

int dv_cg_read(const char *dir, const char *file, char *out, size_t cap)
{
    DV_AUTO_FD int fd = open_at(dir, file, O_RDONLY);
    if (fd < 0)
        return errno == ENOENT || errno == ENODEV ? DV_NOT_FOUND : DV_E_IO;
    size_t len = 0;
    while (len + 1 < cap) {
        ssize_t n = read(fd, out + len, cap - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == ENODEV ? DV_NOT_FOUND : DV_E_IO; /* ENODEV: the group went away meanwhile */
        if (!n)
            break;
        len += (size_t)n;
    }
    while (len && (out[len - 1] == '\n' || out[len - 1] == ' '))
        len--;
    out[len] = '\0';
    return DV_OK;
}

static bool number(struct dv_sv s, int64_t *out)
{
    uint64_t u;
    if (dv_sv_eq(s, DV_SV("max"))) {
        *out = INT64_MAX;
        return true;
    }
    if (!dv_parse_u64(s, &u))
        return false;
    *out = u > INT64_MAX ? INT64_MAX : (int64_t)u;
    return true;
}

int dv_cg_read_i64(const char *dir, const char *file, int64_t *out)
{
    char text[128];
    int rc = dv_cg_read(dir, file, text, sizeof(text));
    return rc ? rc : number(dv_sv_c(text), out) ? DV_OK : DV_E_IO;
}

int dv_cg_read_key(const char *dir, const char *file, const char *key, int64_t *out)
{
    char text[8192]; /* memory.stat of a current kernel is about 1.5 KiB */
    int rc = dv_cg_read(dir, file, text, sizeof(text));
    if (rc)
        return rc;
    for (struct dv_sv rest = dv_sv_c(text), line; rest.n;) {
        (void)dv_sv_cut(rest, '\n', &line, &rest);
        struct dv_sv name, value;
        if (dv_sv_cut(line, ' ', &name, &value) && dv_sv_eq(name, dv_sv_c(key)))
            return number(value, out) ? DV_OK : DV_E_IO;
    }
    return DV_NOT_FOUND;
}

int dv_cg_write(const char *dir, const char *file, const char *value, struct dv_err *err)
{
    DV_AUTO_FD int fd = open_at(dir, file, O_WRONLY);
    size_t n = strlen(value);
    if (fd < 0)
        return dv_err_sys(err, errno == ENOENT ? DV_NOT_FOUND : DV_E_IO, errno, "%s/%s", dir, file);
    if (write(fd, value, n) != (ssize_t)n)
        return dv_err_sys(err, DV_E_IO, errno, "%s/%s", dir, file);
    return DV_OK;
}

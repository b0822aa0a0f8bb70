#include "orchestrator/boot.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <time.h>
#include "orchestrator/gateway/gw_tls.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"

enum { CREDENTIAL_BYTES = 24, CREDENTIAL_FILE_MAX = 4096 };

static const char *join(struct dv_arena *arena, const char *a, const char *b)
{
    size_t n = strlen(a) + strlen(b) + 2;
    char *s = dv_arena_alloc(arena, n);
    if (s)
        (void)snprintf(s, n, "%s/%s", a, b);
    return s;
}

const char *dv_boot_state_dir(struct dv_arena *arena)
{
    if (geteuid() == 0)
        return "/var/lib/davit/orchestrator";
    const char *base = getenv("XDG_STATE_HOME");
    if (base && base[0] == '/')
        return join(arena, base, "davit/orchestrator");
    const char *home = getenv("HOME");
    return join(arena, home && home[0] == '/' ? home : "/tmp", ".local/state/davit/orchestrator");
}

static int check_mode(const char *path, struct dv_err *err)
{
    struct stat st;
    if (stat(path, &st) == 0 && (st.st_mode & S_IROTH))
        return dv_err_set(err, DV_INVALID, "%s can be read by everybody on this machine; chmod 600 it", path);
    return DV_OK; /* an absent one is told by who reads it */
}

static int read_credential(const char *path, struct dv_arena *arena, const char **out, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    int rc = check_mode(path, err);
    if (!rc)
        rc = dv_file_read(path, CREDENTIAL_FILE_MAX, &text, err);
    if (rc)
        return rc;
    struct dv_sv s = dv_buf_sv(&text);
    while (s.n > 0 && (s.p[s.n - 1] == '\n' || s.p[s.n - 1] == '\r'))
        s.n--;
    if (s.n == 0 || memchr(s.p, '\n', s.n) || memchr(s.p, '\0', s.n))
        return dv_err_set(err, DV_INVALID, "%s must hold one line; remove it to have one made", path);
    *out = dv_arena_strndup(arena, s.p, s.n);
    explicit_bzero(text.data, text.cap);
    return *out ? DV_OK : dv_err_set(err, DV_E_NOMEM, "reading %s", path);
}

static int make_credential(const char *path, struct dv_err *err)
{
    uint8_t raw[CREDENTIAL_BYTES];
    char hex[2 * CREDENTIAL_BYTES + 2];
    int rc = dv_random(raw, sizeof(raw), err);
    if (rc)
        return rc;
    dv_hex(raw, sizeof(raw), hex);
    hex[2 * CREDENTIAL_BYTES] = '\n';
    rc = dv_file_write(path, dv_sv(hex, 2 * CREDENTIAL_BYTES + 1), 0600, err);
    explicit_bzero(raw, sizeof(raw));
    explicit_bzero(hex, sizeof(hex));
    return rc;
}

int dv_boot_credential(const char *path, const char *dir, const char *name, struct dv_arena *arena,
                       const char **out, struct dv_err *err)
{
    if (path)
        return read_credential(path, arena, out, err);
    path = join(arena, dir, name);
    if (!path)
        return dv_err_set(err, DV_E_NOMEM, "%s", name);
    int rc = read_credential(path, arena, out, err);
    if (rc != DV_NOT_FOUND)
        return rc;
    rc = make_credential(path, err);
    return rc ? rc : read_credential(path, arena, out, err);
}

static void day_text(int64_t at_s, char out[24])
{
    time_t t = (time_t)at_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &tm))
        (void)snprintf(out, 24, "%lld", (long long)at_s);
}

int dv_boot_tls_keys(const char *cert_path, const char *key_path, struct dv_tls_keys **out,
                     struct dv_err *err)
{
    struct stat st;
    char until[24];
    if (!cert_path && !key_path) {
        *out = NULL;
        return DV_OK;
    }
    if (!cert_path || !key_path)
        return dv_err_set(err, DV_INVALID, "--tls-cert and --tls-key belong together; %s is missing",
                          cert_path ? "--tls-key" : "--tls-cert");
    int rc = dv_tls_keys_load(cert_path, key_path, out, err);
    if (rc)
        return rc;
    int64_t now_s = (int64_t)time(NULL), until_s = dv_tls_keys_valid_until_s(*out);
    day_text(until_s, until);
    bool is_good = dv_tls_keys_valid_from_s(*out) <= now_s && now_s < until_s;
    dv_log(is_good ? DV_LOG_INFO : DV_LOG_WARN,
           is_good ? "certificate loaded" : "certificate loaded, but it is not valid now",
           DV_LS("certificate", cert_path), DV_LS("valid_until", until));
    if (stat(key_path, &st) == 0 && (st.st_mode & S_IROTH))
        dv_log(DV_LOG_WARN, "the TLS key can be read by everybody on this machine; chmod 600 it",
               DV_LS("key", key_path));
    return DV_OK;
}

void dv_boot_raise_limits(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
}

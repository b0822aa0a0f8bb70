/* What survives the agent's process: a file per replica with the command that asked for it (without secrets),
 * and the secrets themselves on a file system that a reboot empties.
 *
 * The file is replaced by rename but not synced: it only has to outlive the agent.  When the machine goes
 * down its containers go too. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20 };

int sb_file_put(const char *path, struct dv_sv bytes, mode_t mode, struct dv_err *err)
{
    DV_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s", path);
    for (size_t done = 0; done < bytes.n;) {
        ssize_t n = write(fd, bytes.p + done, bytes.n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dv_err_sys(err, DV_E_IO, errno, "%s", path);
        done += (size_t)n;
    }
    return fchmod(fd, mode) < 0 ? dv_err_sys(err, DV_E_IO, errno, "%s", path) : DV_OK;
}

int sb_file_replace(const char *path, struct dv_sv bytes, struct dv_err *err)
{
    char temp[4096];
    int n = snprintf(temp, sizeof(temp), "%s.new", path);
    int rc = n > 0 && (size_t)n < sizeof(temp) ? DV_OK : DV_TOO_LARGE;
    if (rc)
        return dv_err_set(err, rc, "%s", path);
    rc = sb_file_put(temp, bytes, 0600, err);
    if (!rc && rename(temp, path) < 0)
        rc = dv_err_sys(err, DV_E_IO, errno, "%s", path);
    return rc;
}

/* ---- replicas ---- */

static int replica_path(const struct sb_replica *r, const char *suffix, char *out, size_t cap)
{
    char id[DV_ID_TEXT];
    dv_id_text(r->id, id);
    int n = snprintf(out, cap, "%s/%s%s", r->sb->replicas_dir, id, suffix);
    return n > 0 && (size_t)n < cap ? DV_OK : DV_TOO_LARGE;
}

int sb_file_save(struct sb_replica *r, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    char path[4096];
    struct dv_cmd_start cmd = r->cmd;
    cmd.secrets = NULL;
    cmd.n_secrets = 0;
    cmd.registry = (struct dv_registry_auth){0};
    struct dv_control_msg msg = {.type = "start", .start = &cmd};
    int rc = dv_wire_encode(&dv_type_control, &msg, &text);
    if (!rc)
        rc = replica_path(r, ".json", path, sizeof(path));
    return rc ? dv_err_set(err, rc, "saving the replica") : sb_file_replace(path, dv_buf_sv(&text), err);
}

static void secrets_drop(struct sb_replica *r)
{
    char dir[4096], path[4400];
    if (sb_secrets_path(r, dir, sizeof(dir)))
        return;
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && unlink(path) < 0)
            dv_log(DV_LOG_WARN, "cannot remove a secret's file", DV_LS("path", path), DV_LI("errno", errno));
    }
    (void)closedir(d);
    (void)rmdir(dir); /* not empty only when the line above was logged */
}

void sb_file_stopping(const struct sb_replica *r)
{
    char path[4096];
    if (!replica_path(r, ".stop", path, sizeof(path)) && sb_file_put(path, dv_sv("", 0), 0600, NULL))
        dv_log(DV_LOG_WARN, "cannot note that a replica is being stopped", DV_LS("path", path));
}

bool sb_file_was_stopping(const struct sb_replica *r)
{
    char path[4096];
    return !replica_path(r, ".stop", path, sizeof(path)) && access(path, F_OK) == 0;
}

void sb_file_drop(struct sb_replica *r)
{
    char path[4096];
    if (!replica_path(r, ".stop", path, sizeof(path)))
        (void)unlink(path); /* most have none */
    if (!replica_path(r, ".json", path, sizeof(path)) && unlink(path) < 0 && errno != ENOENT)
        dv_log(DV_LOG_WARN, "cannot remove a replica's file", DV_LS("path", path), DV_LI("errno", errno));
    secrets_drop(r);
    if (r->box)
        sb_box_over(r->box);
}

static int load_one(struct dv_sandbox *s, const char *path,
                    void (*each)(struct dv_sandbox *s, const struct dv_cmd_start *cmd), struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_control_msg msg;
    int rc = dv_file_read(path, FILE_MAX, &text, err);
    if (!rc)
        rc = dv_wire_decode(&dv_type_control, dv_buf_sv(&text), FILE_MAX, DV_WIRE_IGNORE_UNKNOWN, &arena,
                            &msg, err);
    if (!rc && !msg.start)
        rc = dv_err_set(err, DV_INVALID, "no replica inside");
    if (!rc)
        rc = dv_fn_spec_finish(&msg.start->spec, &arena, err);
    if (!rc)
        each(s, msg.start);
    return rc;
}

/* A file that cannot be read is put out of the way: its container then belongs to nobody and is removed. */
int sb_files_load(struct dv_sandbox *s, void (*each)(struct dv_sandbox *s, const struct dv_cmd_start *cmd),
                  struct dv_err *err)
{
    int rc = dv_mkdirs(s->replicas_dir, 0700, err);
    DIR *d = rc ? NULL : opendir(s->replicas_dir);
    if (!d)
        return rc ? rc : dv_err_sys(err, DV_E_IO, errno, "%s", s->replicas_dir);
    for (struct dirent *e; (e = readdir(d));) {
        char path[4400];
        struct dv_err why = DV_ERR_INIT;
        (void)snprintf(path, sizeof(path), "%s/%s", s->replicas_dir, e->d_name);
        if (e->d_name[0] == '.' || dv_sv_ends(dv_sv_c(e->d_name), DV_SV(".stop")))
            continue;
        bool is_whole = dv_sv_ends(dv_sv_c(e->d_name), DV_SV(".json"));
        if (is_whole && load_one(s, path, each, &why) == DV_OK)
            continue;
        if (is_whole)
            dv_log(DV_LOG_WARN, "a replica's file is unreadable and was removed", DV_LS("path", path),
                   DV_LE(&why));
        (void)unlink(path); /* half-written or unreadable: nothing to keep */
    }
    (void)closedir(d);
    return DV_OK;
}

/* ---- secrets ---- */

int sb_secrets_path(const struct sb_replica *r, char *out, size_t cap)
{
    char id[DV_ID_TEXT];
    if (r->box) /* already mounted into it */
        return sb_box_path(r->box, "/secrets", out, cap);
    dv_id_text(r->id, id);
    int n = snprintf(out, cap, "%s/%s", r->sb->secrets_dir, id);
    return n > 0 && (size_t)n < cap ? DV_OK : DV_TOO_LARGE;
}

/* The directory itself is readable by whatever user the container runs as; those above it only let through.
 */
int sb_secrets_write(struct sb_replica *r, struct dv_err *err)
{
    char dir[4096], path[4400];
    if (!r->cmd.n_secrets)
        return DV_OK;
    int rc = sb_secrets_path(r, dir, sizeof(dir));
    if (!rc)
        rc = dv_mkdirs(r->sb->secrets_dir, 0711, err);
    if (!rc)
        rc = dv_mkdirs(dir, 0755, err);
    for (size_t i = 0; i < r->cmd.n_secrets && !rc; i++) {
        const struct dv_secret_value *v = &r->cmd.secrets[i];
        struct dv_sv text = dv_sv_c(v->value_base64);
        DV_AUTO(dv_free) void *bytes = dv_alloc(3 * (text.n / 4) + 1);
        ptrdiff_t n = bytes ? dv_base64_decode(text, bytes) : -1;
        if (!bytes)
            return dv_err_set(err, DV_E_NOMEM, "secrets");
        if (n < 0 || !dv_name_valid(v->name))
            return dv_err_set(err, DV_INVALID, "secret %s is malformed", v->name);
        (void)snprintf(path, sizeof(path), "%s/%s", dir, v->name);
        rc = sb_file_put(path, dv_sv(bytes, (size_t)n), 0444, err);
        explicit_bzero(bytes, (size_t)n);
    }
    return rc;
}

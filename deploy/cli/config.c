/* Where the cluster's state is on this machine, and which password belongs to a gateway.
 * The login file (~/.config/davit/config.json, 0600) holds {"gateways": {"http://...": {"user": ...,
 * "password": ...}}}. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

static const char *home(void)
{
    const char *h = getenv("HOME");
    return h && *h ? h : "/";
}

const char *cli_state_dir(struct cli *c)
{
    const char *env = getenv("DAVIT_HOME"), *xdg = getenv("XDG_STATE_HOME");
    if (!c->state_dir && env && *env)
        c->state_dir = env;
    else if (!c->state_dir && geteuid() == 0)
        c->state_dir = "/var/lib/davit";
    else if (!c->state_dir)
        c->state_dir =
            xdg && *xdg ? cli_format(c, "%s/davit", xdg) : cli_format(c, "%s/.local/state/davit", home());
    return c->state_dir;
}

static const char *config_dir(struct cli *c)
{
    const char *xdg = getenv("XDG_CONFIG_HOME");
    return xdg && *xdg ? cli_format(c, "%s/davit", xdg) : cli_format(c, "%s/.config/davit", home());
}

static cJSON *config_read(const char *path)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    DV_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    while (fd >= 0 && n > 0 && dv_buf_len(&b) < 1024 * 1024) {
        if (dv_buf_reserve(&b, 4096) != DV_OK)
            cli_out_of_memory();
        n = read(fd, dv_buf_end(&b), dv_buf_room(&b));
        if (n > 0)
            dv_buf_commit(&b, (size_t)n);
    }
    return cJSON_ParseWithLength(dv_buf_ptr(&b), dv_buf_len(&b));
}

bool cli_gateway_is_local(const char *gateway)
{
    const char *host = strstr(gateway, "://");
    host = host ? host + 3 : gateway;
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    struct dv_sv h = dv_sv(host, n);
    if (memchr(host, '@', strcspn(host, "/")))
        return false;
    return dv_sv_eq(h, DV_SV("localhost")) || dv_sv_eq(h, DV_SV("[::1]")) || dv_sv_eq(h, DV_SV("127.0.0.1"));
}

/* First line of a file, without its end. */
static const char *first_line(struct cli *c, const char *path)
{
    size_t n;
    const char *s = cli_read_file(c, path, &n);
    return s ? cli_format(c, "%.*s", (int)strcspn(s, "\r\n"), s) : NULL;
}

const char *cli_local_gateway(struct cli *c)
{
    const char *path = cli_format(c, "%s/gateway", cli_state_dir(c));
    return access(path, R_OK) == 0 ? first_line(c, path) : NULL;
}

static bool is_own(struct cli *c)
{
    const char *own = cli_local_gateway(c);
    return cli_gateway_is_local(c->gateway) || (own && strcmp(own, c->gateway) == 0);
}

int cli_login_find(struct cli *c)
{
    const char *env = getenv("DAVIT_PASSWORD");
    if (c->password)
        return CLI_OK;
    if (c->password_file) {
        c->password = first_line(c, c->password_file);
        return c->password ? CLI_OK : CLI_FAILURE;
    }
    if (env && *env) {
        c->password = env;
        return CLI_OK;
    }
    cJSON *config = config_read(cli_format(c, "%s/config.json", config_dir(c)));
    const cJSON *entry =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(config, "gateways"), c->gateway);
    const char *password = cli_json_text(entry, "password", NULL);
    if (password) {
        c->password = cli_format(c, "%s", password);
        c->user = cli_format(c, "%s", cli_json_text(entry, "user", "admin"));
    }
    cJSON_Delete(config);
    /* This machine's password is for this machine: never sent anywhere else. */
    const char *local = cli_format(c, "%s/orchestrator/admin-password", cli_state_dir(c));
    if (!c->password && is_own(c) && access(local, R_OK) == 0)
        c->password = first_line(c, local);
    return CLI_OK;
}

static int write_private(const char *path, const char *text)
{
    char tmp[4096];
    if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
        return ENAMETOOLONG;
    (void)unlink(tmp); /* so that the mode below is the file's mode */
    DV_AUTO_FD int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n = strlen(text);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) != 0 || rename(tmp, path) != 0)
        return errno ? errno : EIO;
    return 0;
}

static cJSON *child_object(cJSON *parent, const char *name)
{
    cJSON *v = cJSON_GetObjectItemCaseSensitive(parent, name);
    if (!cJSON_IsObject(v)) {
        cJSON_DeleteItemFromObjectCaseSensitive(parent, name);
        v = cJSON_AddObjectToObject(parent, name);
    }
    return v;
}

int cli_login_save(struct cli *c, const char *gateway, const char *user, const char *password)
{
    const char *dir = config_dir(c);
    for (char *p = cli_format(c, "%s", dir), *slash = p; (slash = strchr(slash + 1, '/')) != NULL;
         *slash = '/') {
        *slash = 0;
        (void)mkdir(p, 0700); /* one that exists is fine; the last one is checked by writing into it */
    }
    (void)mkdir(dir, 0700);
    const char *path = cli_format(c, "%s/config.json", dir);
    cJSON *config = config_read(path);
    if (!cJSON_IsObject(config)) {
        cJSON_Delete(config);
        config = cJSON_CreateObject();
    }
    cJSON *entry = child_object(child_object(config, "gateways"), gateway);
    cJSON_DeleteItemFromObjectCaseSensitive(entry, "user");
    cJSON_DeleteItemFromObjectCaseSensitive(entry, "password");
    if (!cJSON_AddStringToObject(entry, "user", user) ||
        !cJSON_AddStringToObject(entry, "password", password))
        cli_out_of_memory();
    char *text = cJSON_Print(config);
    cJSON_Delete(config);
    if (!text)
        cli_out_of_memory();
    int err = write_private(path, text);
    cJSON_free(text);
    if (err)
        return cli_fail(CLI_FAILURE, "cannot write %s: %s", path, strerror(err));
    cli_note("credentials for %s saved in %s", gateway, path);
    return CLI_OK;
}

#include "agent/node/settings.h"
#include "agent/engine/engine.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/addr.h"
#include "proto/rt/log.h"
#include "proto/rt/opts.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/file.h>
#include <unistd.h>

#define STR(name_, out_, arg_, help_, preset_)                                                               \
    {                                                                                                        \
        .name = (name_), .kind = DV_OPT_STR, .out = (out_), .arg = (arg_), .help = (help_),                  \
        .preset = (preset_)                                                                                  \
    }

struct raw { /* as given, before it is checked */
    const char *token, *token_file, *advertise, *log_level, *log_format;
    struct dv_strs labels;
};

static char *join2(struct dv_arena *a, const char *one, const char *two)
{
    char text[4096];
    int n = snprintf(text, sizeof(text), "%s%s", one, two);
    return n < 0 || (size_t)n >= sizeof(text) ? NULL : dv_arena_strdup(a, text);
}

/* ---- defaults that depend on the machine ---- */

static const char *default_state_dir(struct dv_arena *a)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (geteuid() == 0)
        return "/var/lib/davit/agent";
    if (state && state[0] == '/')
        return join2(a, state, "/davit/agent");
    return home ? join2(a, home, "/.local/state/davit/agent") : "/tmp/davit/agent";
}

/* Beside this program, as the build and an installation into one folder have it; else where packages put it.
 */
static const char *default_init(struct dv_arena *a)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
    if (slash) {
        *slash = '\0';
        const char *beside = join2(a, self, "/davit-init");
        if (beside && access(beside, X_OK) == 0)
            return beside;
    }
    return "/usr/libexec/davit/davit-init";
}

/* A host name as a node's name: lower case, what may not stand in a name becomes '-'. */
static const char *default_name(struct dv_arena *a)
{
    char host[DV_NAME_MAX + 1] = "";
    if (gethostname(host, sizeof(host) - 1) < 0 || !host[0])
        return "node";
    for (char *p = host; *p; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
        else if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
            *p = '-';
    }
    return dv_name_valid(host) ? dv_arena_strdup(a, host) : "node";
}

/* ---- checks ---- */

static int read_token(struct dv_agent_settings *s, const struct raw *raw, struct dv_arena *a,
                      struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    s->join_token = raw->token && raw->token[0] ? raw->token : NULL;
    if (s->join_token || !raw->token_file)
        return DV_OK;
    int rc = dv_file_read(raw->token_file, 4096, &text, err);
    if (rc)
        return dv_err_wrap(err, "--join-token-file");
    struct dv_sv token = dv_buf_sv(&text);
    while (token.n &&
           (token.p[token.n - 1] == '\n' || token.p[token.n - 1] == '\r' || token.p[token.n - 1] == ' '))
        token.n--;
    s->join_token = dv_arena_strndup(a, token.p, token.n);
    return s->join_token ? DV_OK : dv_err_set(err, DV_E_NOMEM, "join token");
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct dv_kv *)a)->k, ((const struct dv_kv *)b)->k);
}

static int read_labels(struct dv_agent_settings *s, const struct dv_strs *raw, struct dv_arena *a,
                       struct dv_err *err)
{
    s->labels = (struct dv_kvs){.v = dv_arena_alloc(a, (raw->n + 1) * sizeof(struct dv_kv))};
    if (!s->labels.v)
        return dv_err_set(err, DV_E_NOMEM, "labels");
    for (size_t i = 0; i < raw->n; i++) {
        struct dv_sv key, value;
        if (!dv_sv_cut(dv_sv_c(raw->v[i]), '=', &key, &value) || !key.n)
            return dv_err_set(err, DV_INVALID, "--label %s: must be KEY=VALUE", raw->v[i]);
        s->labels.v[i] =
            (struct dv_kv){dv_arena_strndup(a, key.p, key.n), dv_arena_strndup(a, value.p, value.n)};
        if (!s->labels.v[i].k || !s->labels.v[i].v)
            return dv_err_set(err, DV_E_NOMEM, "labels");
    }
    s->labels.n = raw->n;
    qsort(s->labels.v, s->labels.n, sizeof(struct dv_kv), by_key);
    for (size_t i = 1; i < s->labels.n; i++)
        if (!strcmp(s->labels.v[i - 1].k, s->labels.v[i].k))
            return dv_err_set(err, DV_INVALID, "--label %s is given twice", s->labels.v[i].k);
    return DV_OK;
}

static int lock_state_dir(struct dv_agent_settings *s, struct dv_arena *a, struct dv_err *err)
{
    int rc = dv_mkdirs(s->state_dir, 0700, err);
    const char *path = rc ? NULL : join2(a, s->state_dir, "/lock");
    if (!path)
        return rc ? rc : dv_err_set(err, DV_INVALID, "--state-dir: the path is too long");
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "--state-dir: %s", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return dv_err_set(err, DV_EXISTS, "another agent uses %s; give this one its own --state-dir",
                          s->state_dir);
    return DV_OK;
}

static int check(struct dv_agent_settings *s, const struct raw *raw, struct dv_arena *a, struct dv_err *err)
{
    enum dv_log_level level;
    enum dv_log_format log_format;
    if (!dv_log_level_parse(raw->log_level, &level) || !dv_log_format_parse(raw->log_format, &log_format))
        return dv_err_set(err, DV_INVALID, "--log-level or --log-format");
    dv_log_setup(level, log_format, STDERR_FILENO);
    if (!s->state_dir)
        s->state_dir = default_state_dir(a);
    if (!s->init_path)
        s->init_path = default_init(a);
    if (!s->name)
        s->name = default_name(a);
    if (!s->state_dir || !s->init_path || !s->name)
        return dv_err_set(err, DV_E_NOMEM, "settings");
    if (!dv_name_valid(s->name))
        return dv_err_set(err, DV_INVALID, "--name %s: only lower-case letters, digits and '-', at most 63",
                          s->name);
    if (!dv_copy(s->advertise, sizeof(s->advertise), raw->advertise ? raw->advertise : ""))
        return dv_err_set(err, DV_INVALID, "--advertise is too long");
    if (access(s->init_path, X_OK) < 0)
        dv_log(DV_LOG_WARN, "davit-init is missing: functions of protocol stdio will not start",
               DV_LS("path", s->init_path));
    if (s->loops == 0) {
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        s->loops = cpus < 1 ? 1 : cpus > 4 ? 4 : cpus;
    }
    int rc = read_labels(s, &raw->labels, a, err);
    if (!rc)
        rc = read_token(s, raw, a, err);
    return rc ? rc : lock_state_dir(s, a, err);
}

bool dv_agent_settings_read(struct dv_agent_settings *out, int argc, char **argv, struct dv_arena *arena,
                            int *exit_code)
{
    struct dv_agent_settings s = {.lock_fd = -1};
    struct raw raw = {0};
    struct dv_opts_result res;
    struct dv_err err = DV_ERR_INIT;
    const struct dv_opt opts[] = {
        STR("orchestrator", &s.orchestrator, "URL", "The orchestrator's public address.",
            "http://127.0.0.1:8080"),
        STR("join-token", &raw.token, "TOKEN", "Token to join with; better given by file or environment.",
            NULL),
        STR("join-token-file", &raw.token_file, "FILE",
            "File with the token, from the orchestrator's state directory.", NULL),
        STR("listen", &s.listen, "HOST:PORT", "Where the orchestrator's links are taken.", "127.0.0.1:8090"),
        STR("advertise", &raw.advertise, "HOST[:PORT]",
            "Address told to the orchestrator; default: that of --listen.", NULL),
        STR("metrics-listen", &s.metrics_listen, "HOST:PORT", "Metrics and health; empty for none.",
            "127.0.0.1:8083"),
        STR("docker", &s.docker, "ENDPOINT", "The container engine.", "unix:///var/run/docker.sock"),
        STR("network", &s.network, "NAME",
            "Bridge network of the replicas, made when missing; auto: the engine's own where it keeps "
            "containers "
            "apart (dockerd --icc=false: quicker starts), else one named davit.",
            DV_ENGINE_NETWORK_AUTO),
        STR("state-dir", &s.state_dir, "DIR",
            "What survives a restart; default /var/lib/davit/agent, or below XDG_STATE_HOME for others than "
            "root.",
            NULL),
        STR("name", &s.name, "NAME", "Name of this node; default: its host name.", NULL),
        {.name = "label",
         .kind = DV_OPT_STRS,
         .out = &raw.labels,
         .arg = "KEY=VALUE",
         .help = "Label of this node for functions' constraints; may be repeated."},
        STR("init-path", &s.init_path, "FILE", "davit-init; default: beside this program.", NULL),
        {.name = "max-replicas",
         .kind = DV_OPT_INT,
         .out = &s.max_replicas,
         .arg = "N",
         .help = "Replicas this node holds at most.",
         .preset = "500",
         .min = 1,
         .max = 100000},
        {.name = "primed-max",
         .kind = DV_OPT_INT,
         .out = &s.primed_max,
         .arg = "N",
         .help = "Primed sandboxes kept at most, whatever functions ask for: containers that wait to be told "
                 "what to run, about 3 MB each. 0: none.",
         .preset = "100",
         .max = 10000},
        {.name = "ready-networks",
         .kind = DV_OPT_INT,
         .out = &s.ready_networks,
         .arg = "N",
         .help =
             "Networks kept ready beyond those in use: a container that joins one starts in less than half "
             "the time. Each is a tiny container that waits, about 3 MB. 0: none.",
         .preset = "8",
         .max = 1000},
        {.name = "reclaim-below",
         .kind = DV_OPT_INT,
         .out = &s.reclaim_below,
         .arg = "PERCENT",
         .help =
             "While less of the memory is available, frozen replicas give theirs back, the longest frozen "
             "first (cgroup v2 only). 0: never.",
         .preset = "10",
         .max = 90},
        {.name = "loops",
         .kind = DV_OPT_INT,
         .out = &s.loops,
         .arg = "N",
         .help = "Threads that carry requests; 0: one per core, at most 4.",
         .preset = "0",
         .max = 64},
        {.name = "busy-poll-us",
         .kind = DV_OPT_INT,
         .out = &s.busy_poll_us,
         .arg = "N",
         .help =
             "Microseconds that a carrying thread looks for more before it sleeps, while waits are short; "
             "0: never.",
         .preset = "100",
         .max = 1000},
        {.name = "drain-timeout",
         .kind = DV_OPT_MS,
         .out = &s.drain_ms,
         .arg = "TIME",
         .help = "How long requests inside may take to end after SIGTERM; whoever stops this program must "
                 "wait longer before it kills (systemd waits 90 s, docker stop 10 s).",
         .preset = "30s",
         .max = 86400000},
        {.name = "log-level",
         .kind = DV_OPT_STR,
         .out = &raw.log_level,
         .arg = "LEVEL",
         .help = "Least severe lines written.",
         .preset = "info",
         .choices = "debug|info|warn|error"},
        {.name = "log-format",
         .kind = DV_OPT_STR,
         .out = &raw.log_format,
         .arg = "FORMAT",
         .help = "Shape of log lines.",
         .preset = "logfmt",
         .choices = "logfmt|json"},
    };
    const struct dv_opts_spec spec = {
        .program = "davit-agent",
        .about = "Owns one node's replicas: containers of functions on the engine of this machine.",
        .opts = opts,
        .n_opts = DV_COUNT(opts)};
    if (!dv_opts_main(&spec, argc, argv, arena, &res, exit_code))
        return false;
    int rc = check(&s, &raw, arena, &err);
    if (rc) {
        (void)fprintf(stderr, "davit-agent: %s\n", dv_err_msg(&err, rc));
        *exit_code = rc == DV_INVALID ? 2 : 1;
        return false;
    }
    *out = s;
    return true;
}

/* ---- completed at the start ---- */

/* The address of ours that a packet to the orchestrator would bear: nothing is sent. */
static int route_to(const char *orchestrator, char *out, size_t cap)
{
    const char *p = strstr(orchestrator, "://");
    char host[256];
    struct dv_hostport hp;
    (void)dv_copy(host, sizeof(host), p ? p + 3 : orchestrator);
    host[strcspn(host, "/")] = '\0';
    if (dv_hostport_parse(host, 80, &hp, NULL))
        return DV_INVALID;
    struct addrinfo *ai = NULL, hints = {.ai_socktype = SOCK_DGRAM};
    if (getaddrinfo(hp.host, "80", &hints, &ai))
        return DV_NOT_FOUND;
    DV_AUTO_FD int fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage own;
    socklen_t n = sizeof(own);
    int rc = fd < 0 || connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
             getsockname(fd, (struct sockaddr *)&own, &n) < 0 ||
             getnameinfo((struct sockaddr *)&own, n, out, (socklen_t)cap, NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(ai);
    return rc ? DV_NOT_FOUND : DV_OK;
}

int dv_agent_settings_advertise(struct dv_agent_settings *s, int port, struct dv_err *err)
{
    struct dv_hostport hp;
    const char *given = s->advertise[0] ? s->advertise : s->listen;
    int rc = dv_hostport_parse(given, port, &hp, err);
    if (rc)
        return dv_err_wrap(err, s->advertise[0] ? "--advertise" : "--listen");
    if (!s->advertise[0] || !hp.port)
        hp.port = (uint16_t)port;
    bool is_any = !hp.host[0] || !strcmp(hp.host, "0.0.0.0") || !strcmp(hp.host, "::");
    if (is_any && route_to(s->orchestrator, hp.host, sizeof(hp.host)))
        return dv_err_set(err, DV_INVALID, "which address reaches this node? give it as --advertise HOST");
    (void)snprintf(s->advertise, sizeof(s->advertise), strchr(hp.host, ':') ? "[%s]:%u" : "%s:%u", hp.host,
                   (unsigned)hp.port);
    return DV_OK;
}

int dv_agent_settings_run_dir(struct dv_agent_settings *s, uint64_t node, struct dv_err *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char id[DV_ID_TEXT];
    int n = -1;
    dv_id_text(node, id);
    if (geteuid() == 0)
        n = snprintf(s->run_dir, sizeof(s->run_dir), "/run/davit/%s", id);
    else if (runtime && runtime[0] == '/')
        n = snprintf(s->run_dir, sizeof(s->run_dir), "%s/davit/%s", runtime, id);
    if (n > 0 && (size_t)n < sizeof(s->run_dir) && dv_mkdirs(s->run_dir, 0711, NULL) == DV_OK)
        return DV_OK;
    n = snprintf(s->run_dir, sizeof(s->run_dir), "%s/run", s->state_dir);
    if (n < 0 || (size_t)n >= sizeof(s->run_dir))
        return dv_err_set(err, DV_INVALID, "--state-dir: the path is too long");
    return dv_mkdirs(s->run_dir, 0711, err);
}

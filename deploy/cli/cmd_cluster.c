/* davit cluster: the orchestrator and one agent of this machine, in the background, with pid files and logs
 * in the state directory.  `cluster up --join URL` starts an agent only, which makes this machine a node of
 * somebody else's cluster. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <unistd.h>

#include "deploy/cli/cli.h"
#include "deploy/cli/daemon.h"

enum { WAIT_DEFAULT_MS = 30000, STEP_MS = 50 };

struct cluster {
    struct cli_daemon orchestrator, agent;
    const char *orchestrator_dir, *agent_dir;
};

static struct cluster cluster_of(struct cli *c)
{
    const char *dir = cli_state_dir(c);
    struct cluster k = {
        .orchestrator = {"davit-orchestrator", cli_format(c, "%s/orchestrator.pid", dir),
                         cli_format(c, "%s/log/orchestrator.log", dir)},
        .agent = {"davit-agent", cli_format(c, "%s/agent.pid", dir), cli_format(c, "%s/log/agent.log", dir)},
        .orchestrator_dir = cli_format(c, "%s/orchestrator", dir),
        .agent_dir = cli_format(c, "%s/agent", dir),
    };
    return k;
}

struct line { /* a command line or an environment in the making */
    const char *v[24];
    size_t n;
};

static void add_pair(struct line *l, const char *name, const char *value)
{
    if (value && l->n + 3 < DV_COUNT(l->v)) {
        l->v[l->n++] = name;
        l->v[l->n++] = value;
    }
}

static int start_orchestrator(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a)
{
    struct line l = {.v = {k->orchestrator.program}, .n = 1};
    add_pair(&l, "--listen", a->listen);
    add_pair(&l, "--metrics-listen", a->metrics_listen);
    add_pair(&l, "--state-dir", k->orchestrator_dir);
    return cli_daemon_start(c, &k->orchestrator, l.v, NULL);
}

/* The join token travels in the environment: command lines are for everybody to see. */
static int start_agent(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a,
                       const char *token)
{
    struct line l = {.v = {k->agent.program}, .n = 1};
    add_pair(&l, "--orchestrator", a->join ? a->join : c->gateway);
    add_pair(&l, "--docker", a->docker);
    add_pair(&l, "--listen", a->agent_listen);
    add_pair(&l, "--metrics-listen", a->agent_metrics);
    add_pair(&l, "--name", a->name);
    add_pair(&l, "--state-dir", k->agent_dir);
    const char *env[] = {cli_format(c, "DAVIT_JOIN_TOKEN=%s", token), NULL};
    return cli_daemon_start(c, &k->agent, l.v, env);
}

/* ---------------------------------------------------------------- waiting */

/* HTTP status of a public path, 0 when nobody answers. */
static long ask(struct cli *c, const char *path, const char **out_message)
{
    CLI_AUTO_REPLY r = {0};
    struct cli_call call = {.method = "GET", .path = path, .anonymous = true, .timeout_s = 5, .quiet = true};
    if (cli_send(c, &call, &r) != CLI_OK)
        return 0;
    if (out_message) {
        const char *words = cli_json_text(r.json, "detail", cli_json_text(r.json, "message", NULL));
        *out_message = words ? cli_format(c, "%s", words) : NULL;
    }
    return r.status;
}

/* Until path answers 200, the program dies, or the time is up. */
static int wait_for(struct cli *c, const char *path, const struct cli_daemon *d, int64_t wait_ms)
{
    const char *message = NULL;
    for (int64_t waited = 0; waited < wait_ms; waited += STEP_MS) {
        if (ask(c, path, &message) == 200)
            return CLI_OK;
        if (!cli_daemon_pid(d)) {
            cli_daemon_show_log(c, d);
            return cli_fail(CLI_FAILURE, "%s ended by itself", d->program);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000l}, NULL);
    }
    cli_daemon_show_log(c, d);
    return cli_fail(CLI_FAILURE, "%s%s is not ready after %lld s%s%s", c->gateway, path,
                    (long long)wait_ms / 1000, message ? ": " : "", message ? message : "");
}

/* ---------------------------------------------------------------- up */

/* The address that people on this machine reach a listener under. */
static const char *url_of(struct cli *c, const char *listen)
{
    const char *colon = strrchr(listen, ':');
    bool is_any = strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0 || listen == colon;
    return is_any && colon ? cli_format(c, "http://127.0.0.1%s", colon) : cli_format(c, "http://%s", listen);
}

static const char *token_of(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a)
{
    if (a->token)
        return a->token;
    size_t n;
    const char *path = a->token_file ? a->token_file
                       : a->join     ? NULL
                                     : cli_format(c, "%s/join-token", k->orchestrator_dir);
    if (!path) {
        (void)cli_fail(CLI_USAGE,
                       "--join needs --token-file FILE (the orchestrator's join-token), or --token");
        return NULL;
    }
    const char *text = cli_read_file(c, path, &n);
    return text ? cli_format(c, "%.*s", (int)strcspn(text, "\r\n"), text) : NULL;
}

static int up_orchestrator(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a,
                           int64_t wait_ms)
{
    if (a->join)
        return CLI_OK;
    c->gateway = a->listen ? url_of(c, a->listen) : c->gateway;
    if (cli_daemon_pid(&k->orchestrator)) {
        const char *there = cli_local_gateway(c);
        if (there && strcmp(there, c->gateway) != 0)
            return cli_fail(CLI_CONFLICT,
                            "the orchestrator runs already, at %s\n       stop it first: davit cluster down",
                            there);
        cli_note("orchestrator runs already");
        return wait_for(c, "/healthz", &k->orchestrator, wait_ms);
    }
    cli_progress(c, "starting the orchestrator");
    int code = start_orchestrator(c, k, a);
    return code ? code : wait_for(c, "/healthz", &k->orchestrator, wait_ms);
}

static int up_agent(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a, int64_t wait_ms)
{
    if (a->no_agent)
        return CLI_OK;
    if (cli_daemon_pid(&k->agent)) {
        cli_note("agent runs already");
    } else {
        const char *token = token_of(c, k, a);
        if (!token)
            return CLI_FAILURE;
        cli_progress(c, "starting the agent");
        int code = start_agent(c, k, a, token);
        if (code)
            return code;
    }
    if (a->join)
        c->gateway = a->join;
    return wait_for(c, "/readyz", &k->agent, wait_ms);
}

/* Commands on this machine find the cluster, and its password, by this file. */
static int note_gateway(struct cli *c)
{
    const char *path = cli_format(c, "%s/gateway", cli_state_dir(c));
    FILE *f = fopen(path, "we");
    if (!f || fprintf(f, "%s\n", c->gateway) < 0 || fclose(f) != 0)
        return cli_fail(CLI_FAILURE, "cannot write %s: %m", path);
    return CLI_OK;
}

int cli_cmd_cluster_up(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_cluster_args *a = args;
    struct cluster k = cluster_of(c);
    int64_t wait_ms = a->wait == CLI_UNSET ? WAIT_DEFAULT_MS : a->wait;
    (void)words;
    int code = cli_make_dir(c, cli_state_dir(c));
    if (code == CLI_OK)
        code = cli_make_dir(c, cli_format(c, "%s/log", cli_state_dir(c)));
    if (code == CLI_OK)
        code = up_orchestrator(c, &k, a, wait_ms);
    if (code == CLI_OK)
        code = up_agent(c, &k, a, wait_ms);
    cli_progress(c, NULL);
    if (code == CLI_OK && !a->join)
        code = note_gateway(c);
    if (code)
        return code;
    if (a->join) {
        cli_note("this machine is a node of %s", a->join);
        return CLI_OK;
    }
    cli_note("Davit is up at %s\n"
             "  password   %s/admin-password (user admin)\n"
             "  join token %s/join-token\n"
             "  logs       %s/log\n"
             "  stop       davit cluster down",
             c->gateway, k.orchestrator_dir, k.orchestrator_dir, cli_state_dir(c));
    return CLI_OK;
}

/* ---------------------------------------------------------------- down */

static const char *engine_socket(const struct cli_cluster_args *a)
{
    const char *docker = a->docker ? a->docker : "/var/run/docker.sock";
    return strncmp(docker, "unix://", 7) == 0 ? docker + 7 : docker;
}

static int remove_containers(struct cli *c, const char *engine, const cJSON *list)
{
    int n = 0;
    const cJSON *v;
    cJSON_ArrayForEach (v, list) {
        CLI_AUTO_REPLY r = {0};
        struct cli_call call = {.method = "DELETE", .unix_socket = engine, .timeout_s = 60};
        call.path = cli_format(c, "/containers/%s?force=true&v=true", cli_json_text(v, "Id", ""));
        n += cli_send(c, &call, &r) == CLI_OK && r.status < 300;
    }
    return n;
}

/* What the agent left running goes with it: containers that carry this node's label, no others. */
static void clear_node(struct cli *c, const struct cluster *k, const struct cli_cluster_args *a)
{
    size_t n;
    const char *path = cli_format(c, "%s/node.json", k->agent_dir), *engine = engine_socket(a);
    const char *text = access(path, R_OK) == 0 ? cli_read_file(c, path, &n) : NULL;
    cJSON *node = text ? cJSON_Parse(text) : NULL;
    const char *id = cli_json_text(node, "node", NULL);
    if (id && access(engine, R_OK | W_OK) == 0) {
        CLI_AUTO_REPLY r = {0};
        const char *filter = cli_format(c, "{\"label\":[\"dev.davit.node=%s\"]}", id);
        struct cli_call call = {.method = "GET", .unix_socket = engine, .timeout_s = 30, .quiet = true};
        call.path = cli_format(c, "/containers/json?all=true&filters=%s", cli_escape(c, filter));
        int removed =
            cli_send(c, &call, &r) == CLI_OK && r.status == 200 ? remove_containers(c, engine, r.json) : 0;
        if (removed)
            cli_note("%d container%s removed", removed, removed == 1 ? "" : "s");
    }
    cJSON_Delete(node);
}

int cli_cmd_cluster_down(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_cluster_args *a = args;
    struct cluster k = cluster_of(c);
    (void)words;
    cli_progress(c, "stopping");
    bool had_agent = cli_daemon_stop(&k.agent, 35);
    bool had_orchestrator = cli_daemon_stop(&k.orchestrator, 35);
    (void)unlink(cli_format(c, "%s/gateway", cli_state_dir(c)));
    if (!a->keep)
        clear_node(c, &k, a);
    cli_progress(c, NULL);
    cli_note(had_agent || had_orchestrator ? "stopped; state stays in %s"
                                           : "nothing was running; state is in %s",
             cli_state_dir(c));
    return CLI_OK;
}

/* ---------------------------------------------------------------- status */

static void print_daemon(const struct cli_daemon *d)
{
    pid_t pid = cli_daemon_pid(d);
    printf("%-20s ", d->program);
    if (pid)
        printf("runs, pid %d\n", (int)pid);
    else
        puts("does not run");
}

int cli_cmd_cluster_status(struct cli *c, void *args, const struct cli_list *words)
{
    struct cluster k = cluster_of(c);
    const char *message = NULL;
    (void)args;
    if (c->format != CLI_JSON) {
        print_daemon(&k.orchestrator);
        print_daemon(&k.agent);
    }
    long status = ask(c, "/readyz", &message);
    if (c->format != CLI_JSON)
        printf("%-20s %s%s%s\n", c->gateway,
               status == 0     ? "does not answer"
               : status == 200 ? "ready"
                               : "not ready",
               message ? ": " : "", message ? message : "");
    if (status == 0)
        return CLI_UNREACHABLE;
    int code = cli_cmd_nodes(c, NULL, words);
    return code ? code : status == 200 ? CLI_OK : CLI_FAILURE;
}

/* Every command and its options, in the order that help shows them. */
#include "deploy/cli/cli.h"

#define OPT(type, name_, letter_, kind_, member, value_, help_)                                              \
    {                                                                                                        \
        .name = (name_), .letter = (letter_), .kind = (kind_), .offset = offsetof(type, member),             \
        .value = (value_), .help = (help_)                                                                   \
    }
#define END                                                                                                  \
    {                                                                                                        \
        .name = NULL                                                                                         \
    }

const struct cli_opt cli_global_opts[] = {
    OPT(struct cli, "--gateway", 'g', CLI_TEXT, gateway, "URL",
        "the cluster (DAVIT_URL, OPENFAAS_URL; this machine's)"),
    OPT(struct cli, "--namespace", 'n', CLI_TEXT, ns, "NAME", "of functions and secrets (default: default)"),
    OPT(struct cli, "--output", 'o', CLI_TEXT, format_text, "FORMAT", "table, wide or json"),
    OPT(struct cli, "--password-file", 0, CLI_TEXT, password_file, "FILE",
        "or DAVIT_PASSWORD, or davit login"),
    OPT(struct cli, "--state-dir", 0, CLI_TEXT, state_dir, "DIR", "of this machine's cluster (DAVIT_HOME)"),
    END,
};

static const struct cli_opt deploy_opts[] = {
    OPT(struct cli_deploy_args, "--image", 'i', CLI_TEXT, image, "IMAGE", "container image"),
    OPT(struct cli_deploy_args, "--stdio", 0, CLI_FLAG, stdio, NULL,
        "run the command per request: body in, answer out"),
    OPT(struct cli_deploy_args, "--env", 'e', CLI_LIST, env, "K=V", "environment; K alone takes V from here"),
    OPT(struct cli_deploy_args, "--label", 'l', CLI_LIST, labels, "K=V", "label"),
    OPT(struct cli_deploy_args, "--annotation", 0, CLI_LIST, annotations, "K=V", "annotation"),
    OPT(struct cli_deploy_args, "--secret", 0, CLI_LIST, secrets, "NAME", "secret to mount"),
    OPT(struct cli_deploy_args, "--constraint", 0, CLI_LIST, constraints, "K=V",
        "label that a node must have (K!=V: not)"),
    OPT(struct cli_deploy_args, "--entrypoint", 0, CLI_LIST, entrypoint, "WORD", "instead of the image's"),
    OPT(struct cli_deploy_args, "--memory", 'm', CLI_BYTES, memory, "SIZE", "limit, such as 128Mi"),
    OPT(struct cli_deploy_args, "--cpu", 0, CLI_MCPU, cpu, "CORES", "limit, such as 500m or 2"),
    OPT(struct cli_deploy_args, "--min", 0, CLI_INT, min, "N", "fewest replicas (0)"),
    OPT(struct cli_deploy_args, "--max", 0, CLI_INT, max, "N", "most replicas (20)"),
    OPT(struct cli_deploy_args, "--concurrency", 'c', CLI_INT, concurrency, "N",
        "requests at once in one replica"),
    OPT(struct cli_deploy_args, "--target", 0, CLI_INT, target, "N", "requests at once that scaling aims at"),
    OPT(struct cli_deploy_args, "--rps", 0, CLI_INT, rps, "N",
        "requests a second that one replica should get"),
    OPT(struct cli_deploy_args, "--idle", 0, CLI_DURATION, idle, "TIME",
        "without requests before going down (learned from its gaps)"),
    OPT(struct cli_deploy_args, "--primed", 0, CLI_INT, primed, "N",
        "sandboxes kept ready for it and others of its image (0)"),
    OPT(struct cli_deploy_args, "--freeze", 0, CLI_DURATION, freeze, "TIME",
        "without requests before a replica is frozen (1s)"),
    OPT(struct cli_deploy_args, "--cpu-always", 0, CLI_FLAG, cpu_always, NULL,
        "it works between requests too: never frozen"),
    OPT(struct cli_deploy_args, "--queue", 0, CLI_INT, queue, "N", "most requests that wait (1000)"),
    OPT(struct cli_deploy_args, "--timeout", 0, CLI_DURATION, timeout, "TIME",
        "of a request, waiting included (1m)"),
    OPT(struct cli_deploy_args, "--grace", 0, CLI_DURATION, grace, "TIME",
        "between SIGTERM and SIGKILL (10s)"),
    OPT(struct cli_deploy_args, "--port", 'p', CLI_INT, port, "N", "that the function listens on (8080)"),
    OPT(struct cli_deploy_args, "--health", 0, CLI_TEXT, health, "PATH", "ready when this path answers 2xx"),
    OPT(struct cli_deploy_args, "--start-timeout", 0, CLI_DURATION, start_timeout, "TIME",
        "failed when not ready by then (1m)"),
    OPT(struct cli_deploy_args, "--pull", 0, CLI_TEXT, pull, "WHEN", "missing or always"),
    OPT(struct cli_deploy_args, "--user", 'u', CLI_TEXT, user, "USER", "instead of the image's"),
    OPT(struct cli_deploy_args, "--auth", 0, CLI_TEXT, auth, "MODE", "open or required"),
    OPT(struct cli_deploy_args, "--writable", 0, CLI_FLAG, writable, NULL,
        "root file system may be written to"),
    OPT(struct cli_deploy_args, "--create-only", 0, CLI_FLAG, create_only, NULL,
        "refuse when it exists already"),
    OPT(struct cli_deploy_args, "--wait", 'w', CLI_FLAG, wait, NULL,
        "until a replica was ready; shows progress"),
    OPT(struct cli_deploy_args, "--dry-run", 0, CLI_FLAG, dry_run, NULL, "check only"),
    END,
};

static const struct cli_opt apply_opts[] = {
    OPT(struct cli_apply_args, "--file", 'f', CLI_LIST, files, "FILE",
        "davit.yaml or faas-cli's stack.yml; - is stdin"),
    OPT(struct cli_apply_args, "--dry-run", 0, CLI_FLAG, dry_run, NULL, "check only"),
    END,
};

static const struct cli_opt remove_opts[] = {
    OPT(struct cli_remove_args, "--if-exists", 0, CLI_FLAG, if_exists, NULL,
        "no complaint about what is not there"),
    END,
};

static const struct cli_opt node_remove_opts[] = {
    OPT(struct cli_node_remove_args, "--force", 0, CLI_FLAG, force, NULL,
        "although it is connected; stops its replicas at once"),
    END,
};

static const struct cli_opt invoke_opts[] = {
    OPT(struct cli_invoke_args, "--data", 'd', CLI_TEXT, data, "TEXT", "body of the request"),
    OPT(struct cli_invoke_args, "--file", 'f', CLI_TEXT, file, "FILE", "body from a file; - is stdin"),
    OPT(struct cli_invoke_args, "--header", 'H', CLI_LIST, headers, "LINE", "\"Name: value\""),
    OPT(struct cli_invoke_args, "--method", 'X', CLI_TEXT, method, "METHOD", "POST unless given"),
    OPT(struct cli_invoke_args, "--path", 0, CLI_TEXT, path, "PATH",
        "behind the function's name, with its query"),
    OPT(struct cli_invoke_args, "--content-type", 0, CLI_TEXT, content_type, "TYPE",
        "text/plain unless given"),
    OPT(struct cli_invoke_args, "--async", 'a', CLI_FLAG, async, NULL, "queue it; the answer is a call id"),
    OPT(struct cli_invoke_args, "--include", 'I', CLI_FLAG, include, NULL,
        "show the answer's headers on stderr"),
    OPT(struct cli_invoke_args, "--timeout", 0, CLI_DURATION, timeout, "TIME", "give up after"),
    END,
};

static const struct cli_opt logs_opts[] = {
    OPT(struct cli_logs_args, "--follow", 'f', CLI_FLAG, follow, NULL, "go on until interrupted"),
    OPT(struct cli_logs_args, "--since", 0, CLI_TEXT, since, "TIME", "10m, or 2026-01-31T12:00:00Z"),
    OPT(struct cli_logs_args, "--tail", 0, CLI_INT, tail, "N", "last lines of each replica"),
    OPT(struct cli_logs_args, "--replica", 0, CLI_TEXT, replica, "ID", "of one replica"),
    OPT(struct cli_logs_args, "--timestamps", 't', CLI_FLAG, timestamps, NULL,
        "show when each line was written"),
    END,
};

static const struct cli_opt login_opts[] = {
    OPT(struct cli_login_args, "--user", 'u', CLI_TEXT, user, "NAME", "admin unless given"),
    OPT(struct cli_login_args, "--password-stdin", 's', CLI_FLAG, password_stdin, NULL,
        "read it from stdin (the default)"),
    END,
};

static const struct cli_opt up_opts[] = {
    OPT(struct cli_cluster_args, "--listen", 0, CLI_TEXT, listen, "ADDRESS",
        "API and functions (127.0.0.1:8080)"),
    OPT(struct cli_cluster_args, "--metrics-listen", 0, CLI_TEXT, metrics_listen, "ADDRESS",
        "of the orchestrator (127.0.0.1:8082)"),
    OPT(struct cli_cluster_args, "--docker", 0, CLI_TEXT, docker, "ENDPOINT",
        "unix:///var/run/docker.sock unless given"),
    OPT(struct cli_cluster_args, "--agent-listen", 0, CLI_TEXT, agent_listen, "ADDRESS",
        "where orchestrators reach the agent"),
    OPT(struct cli_cluster_args, "--agent-metrics-listen", 0, CLI_TEXT, agent_metrics, "ADDRESS",
        "of the agent (127.0.0.1:8083)"),
    OPT(struct cli_cluster_args, "--name", 0, CLI_TEXT, name, "NAME", "of this node (the host's name)"),
    OPT(struct cli_cluster_args, "--no-agent", 0, CLI_FLAG, no_agent, NULL, "the orchestrator only"),
    OPT(struct cli_cluster_args, "--join", 0, CLI_TEXT, join, "URL",
        "be a node of that cluster: the agent only"),
    OPT(struct cli_cluster_args, "--token-file", 0, CLI_TEXT, token_file, "FILE",
        "that cluster's join token"),
    OPT(struct cli_cluster_args, "--token", 0, CLI_TEXT, token, "TOKEN",
        "the same, visible to other users of this machine"),
    OPT(struct cli_cluster_args, "--wait", 0, CLI_DURATION, wait, "TIME", "for it to be ready (30s)"),
    END,
};

static const struct cli_opt down_opts[] = {
    OPT(struct cli_cluster_args, "--docker", 0, CLI_TEXT, docker, "ENDPOINT", "as given to up"),
    OPT(struct cli_cluster_args, "--keep-replicas", 0, CLI_FLAG, keep, NULL,
        "leave the functions' containers running"),
    END,
};

static const struct cli_opt secret_opts[] = {
    OPT(struct cli_secret_args, "--from-file", 0, CLI_TEXT, from_file, "FILE", "value; stdin unless given"),
    OPT(struct cli_secret_args, "--from-literal", 0, CLI_TEXT, from_literal, "VALUE",
        "value, visible to other users of this machine"),
    OPT(struct cli_secret_args, "--replace", 0, CLI_FLAG, replace, NULL, "update it when it exists"),
    END,
};

#define CMD(name_, synopsis_, summary_, opts_, type, min, max, run_)                                         \
    {                                                                                                        \
        .name = (name_), .synopsis = (synopsis_), .summary = (summary_), .opts = (opts_),                    \
        .args_bytes = sizeof(type), .min_words = (min), .max_words = (max), .run = (run_)                    \
    }

const struct cli_cmd cli_commands[] = {
    CMD("cluster up", "[--join URL]", "Start this machine's orchestrator and agent in the background",
        up_opts, struct cli_cluster_args, 0, 0, cli_cmd_cluster_up),
    CMD("cluster down", "", "Stop them and remove this node's containers", down_opts, struct cli_cluster_args,
        0, 0, cli_cmd_cluster_down),
    CMD("cluster status", "", "What runs here and whether it is ready", NULL, int, 0, 0,
        cli_cmd_cluster_status),
    CMD("login", "", "Remember the password of a gateway", login_opts, struct cli_login_args, 0, 0,
        cli_cmd_login),
    {.name = "deploy",
     .synopsis = "NAME --image IMAGE [--stdio] [-- COMMAND...]",
     .summary = "Create a function, or replace it",
     .opts = deploy_opts,
     .args_bytes = sizeof(struct cli_deploy_args),
     .min_words = 1,
     .max_words = 1,
     .takes_command = true,
     .run = cli_cmd_deploy},
    CMD("apply", "-f FILE", "Create or replace the functions of a file", apply_opts, struct cli_apply_args, 0,
        0, cli_cmd_apply),
    CMD("list", "", "Functions and how they are", NULL, int, 0, 0, cli_cmd_list),
    CMD("describe", "NAME", "Everything about one function: state, replicas, what happened and why", NULL,
        int, 1, 1, cli_cmd_describe),
    CMD("remove", "NAME...", "Remove functions and their replicas", remove_opts, struct cli_remove_args, 1,
        -1, cli_cmd_remove),
    CMD("invoke", "NAME [-d TEXT | -f FILE]", "Call a function; the body is stdin unless given", invoke_opts,
        struct cli_invoke_args, 1, 1, cli_cmd_invoke),
    CMD("logs", "NAME [-f]", "What a function's replicas wrote", logs_opts, struct cli_logs_args, 1, 1,
        cli_cmd_logs),
    CMD("scale", "NAME N|auto", "Want this many replicas now", NULL, int, 2, 2, cli_cmd_scale),
    CMD("nodes", "", "Nodes and what they carry", NULL, int, 0, 0, cli_cmd_nodes),
    CMD("nodes cordon", "NODE", "Place nothing new on a node", NULL, int, 1, 1, cli_cmd_node_cordon),
    CMD("nodes uncordon", "NODE", "Place on it again", NULL, int, 1, 1, cli_cmd_node_uncordon),
    CMD("nodes drain", "NODE", "Move its replicas elsewhere", NULL, int, 1, 1, cli_cmd_node_drain),
    CMD("nodes remove", "NODE", "Forget a node", node_remove_opts, struct cli_node_remove_args, 1, 1,
        cli_cmd_node_remove),
    CMD("secret create", "NAME [--from-file FILE]", "Keep a secret; its value is stdin unless given",
        secret_opts, struct cli_secret_args, 1, 1, cli_cmd_secret_put),
    CMD("secret update", "NAME [--from-file FILE]", "Change its value", secret_opts, struct cli_secret_args,
        1, 1, cli_cmd_secret_update),
    CMD("secret list", "", "Names of secrets", NULL, int, 0, 0, cli_cmd_secret_list),
    CMD("secret remove", "NAME...", "Forget secrets", NULL, int, 1, -1, cli_cmd_secret_remove),
    CMD("registry login", "SERVER --user NAME", "Keep the password of a registry; nodes pull with it",
        login_opts, struct cli_login_args, 1, 1, cli_cmd_registry_login),
    CMD("registry list", "", "Registries with a password", NULL, int, 0, 0, cli_cmd_registry_list),
    CMD("registry remove", "SERVER...", "Forget passwords of registries", NULL, int, 1, -1,
        cli_cmd_registry_remove),
    CMD("namespace create", "NAME", "Make a namespace", NULL, int, 1, 1, cli_cmd_ns_create),
    CMD("namespace list", "", "Namespaces", NULL, int, 0, 0, cli_cmd_ns_list),
    CMD("namespace remove", "NAME...", "Remove empty namespaces", NULL, int, 1, -1, cli_cmd_ns_remove),
    CMD("version", "", "Of this program and of the cluster", NULL, int, 0, 0, cli_cmd_version),
    CMD("completion", "bash|zsh|fish", "Shell completion: source <(davit completion bash)", NULL, int, 1, 1,
        cli_cmd_completion),
    {.name = NULL},
};

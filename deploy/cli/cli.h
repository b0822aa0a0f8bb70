/* What every command of `davit` shares: where the gateway is and who we are, how output is wanted, exit
 * codes. One process, one thread, one command; memory lives in the arena until the process ends. */
#ifndef DV_CLI_H
#define DV_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/arena.h"
#include "proto/base/auto.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

struct cJSON;
struct cli_table;

/* Exit codes; documented in `davit help` and README.md. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILURE = 1, /* the cluster or the function said no, or broke */
    CLI_USAGE = 2,   /* the command line is wrong; nothing was done */
    CLI_NOT_FOUND = 3,
    CLI_DENIED = 4,      /* no or wrong credentials */
    CLI_UNREACHABLE = 5, /* no answer from the gateway */
    CLI_CONFLICT = 6     /* it exists already, or was changed by somebody else */
};

enum cli_format { CLI_TABLE, CLI_WIDE, CLI_JSON };

struct cli {
    struct dv_arena arena;
    const char *gateway; /* "http://127.0.0.1:8080", no slash at its end */
    const char *user;
    const char *password; /* NULL until cli_login_find looked for it */
    const char *password_file;
    const char *state_dir; /* of this machine's cluster */
    const char *ns;        /* NULL: not given */
    const char *format_text;
    enum cli_format format;
    bool color;       /* stdout is a terminal and NO_COLOR is not set */
    bool is_terminal; /* stderr is one: progress may rewrite its line */
};

/* ---- options: a table per command ---- */
enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_LIST, CLI_INT, CLI_DURATION, CLI_BYTES, CLI_MCPU };

#define CLI_UNSET INT64_MIN /* of INT, DURATION (ms), BYTES, MCPU that were not given */

struct cli_list { /* of an option that may be repeated; in order */
    const char **v;
    size_t n;
};

struct cli_opt {
    const char *name; /* "--image" */
    char letter;      /* 'f' for -f, 0: none */
    enum cli_kind kind;
    size_t offset; /* of bool, const char *, struct cli_list, or int64_t in the command's struct */
    const char *value;
    const char *help;
};

struct cli_cmd {
    const char *name;     /* "secret create" */
    const char *synopsis; /* "NAME [--from-file FILE]" */
    const char *summary;
    const struct cli_opt *opts; /* ends with a NULL name; may be NULL */
    size_t args_bytes;          /* of the struct the options are stored in */
    int min_words, max_words;   /* -1: any */
    bool takes_command;         /* words behind "--" belong to the function */
    /* args: the struct, filled; words: what is not an option.  Returns enum cli_exit. */
    int (*run)(struct cli *c, void *args, const struct cli_list *words);
};

extern const struct cli_cmd cli_commands[]; /* ends with a NULL name; in the order that help shows */
extern const struct cli_opt cli_global_opts[];

/* Sort argv[0..n) into args and words.  CLI_OK, or CLI_USAGE after saying why.  *out_help: --help was among
 * them. */
int cli_args_parse(struct cli *c, const struct cli_cmd *cmd, int n, char **argv, void *args,
                   struct cli_list *words, bool *out_help);
void cli_help(const struct cli_cmd *cmd);
int cli_usage(const struct cli_cmd *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_list_add(struct cli *c, struct cli_list *l, const char *s);

/* ---- saying things ---- */
/* "davit: ..." on stderr; returns code, so that it ends a command in one line. */
int cli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* stderr */
/* One line that the next call replaces, on a terminal; a line of its own when the text changed, elsewhere.
 * NULL: done with it. */
void cli_progress(struct cli *c, const char *text);
_Noreturn void cli_out_of_memory(void);
char *cli_format(struct cli *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* in the arena */
/* Whole file ("-": stdin) into the arena; NULL after saying why. */
const char *cli_read_file(struct cli *c, const char *path, size_t *out_len);

/* ---- who and where: config.c ---- */
const char *cli_state_dir(struct cli *c);
/* Look for a password: --password-file, DAVIT_PASSWORD, the login file, this machine's state directory (for a
 * loopback gateway only).  CLI_OK whether or not one was found; CLI_FAILURE when a file that was named cannot
 * be read. */
int cli_login_find(struct cli *c);
/* A line of stdin, not shown while it is typed; NULL at its end. */
const char *cli_ask_password(struct cli *c);
int cli_login_save(struct cli *c, const char *gateway, const char *user, const char *password);
bool cli_gateway_is_local(const char *gateway);
/* Where `cluster up` said this machine's orchestrator is; NULL when there is none. */
const char *cli_local_gateway(struct cli *c);

/* ---- calls: client.c ---- */
struct cli_reply {
    long status;
    struct dv_buf body;
    struct dv_buf headers; /* raw lines of the last answer */
    struct cJSON *json;    /* the body when it is JSON, else NULL */
};

struct cli_call {
    const char *method, *path; /* path with its query, from '/' on */
    struct dv_sv body;
    const char *content_type;       /* NULL: application/json when there is a body */
    const struct cli_list *headers; /* "Name: value"; may be NULL */
    bool anonymous;                 /* send no credentials */
    long timeout_s;                 /* 0: none */
    const char *unix_socket;
    bool quiet; /* say nothing when there is no answer */
    /* Streams: called with the bytes of a 2xx answer as they come; non-zero ends the call. */
    int (*on_data)(void *ctx, struct dv_sv bytes);
    void *ctx;
};

/* One exchange.  CLI_OK: an answer came, whatever its status; CLI_UNREACHABLE after saying why; CLI_FAILURE:
 * broken off. */
int cli_send(struct cli *c, const struct cli_call *call, struct cli_reply *out);
/* The same, and an answer other than 2xx is explained on stderr and turned into an exit code. */
int cli_do(struct cli *c, const struct cli_call *call, struct cli_reply *out);
int cli_get(struct cli *c, const char *path, struct cli_reply *out);
/* GET path and show it: as it came with -o json, otherwise a table of the items below key, a row each. */
int cli_show_list(struct cli *c, const char *path, const char *key, const char *const *columns,
                  size_t n_columns,
                  void (*row)(struct cli *c, struct cli_table *t, const struct cJSON *item));
/* DELETE path(word) for every word, "kind word done" for each that went; all are tried, the first exit code
 * other than CLI_OK is the command's. */
int cli_remove_each(struct cli *c, const struct cli_list *words, const char *kind, const char *done,
                    const char *(*path)(struct cli *c, const char *name));
/* Explain an answer that is not 2xx: detail, field, what to do. */
int cli_explain(struct cli *c, const struct cli_reply *r);
void cli_reply_free(struct cli_reply *r);
static inline void cli_reply_auto_(struct cli_reply *r)
{
    cli_reply_free(r);
}
#define CLI_AUTO_REPLY __attribute__((cleanup(cli_reply_auto_))) struct cli_reply
/* Value of a header of the answer, in the arena; NULL when absent. */
const char *cli_reply_header(struct cli *c, const struct cli_reply *r, const char *name);
/* s with everything but unreserved characters percent-encoded, in the arena. */
const char *cli_escape(struct cli *c, const char *s);
/* "/v1/functions/NAME" + suffix + "?namespace=NS" for NAME or NAME.NS (or --namespace). */
const char *cli_fn_path(struct cli *c, const char *name, const char *suffix);
void cli_fn_split(struct cli *c, const char *word, const char **out_name, const char **out_ns);

/* ---- JSON: json.c ---- */
/* Look along a path of members: "status.phase".  NULL when any is absent. */
const struct cJSON *cli_json_at(const struct cJSON *root, const char *path);
const char *cli_json_text(const struct cJSON *root, const char *path, const char *fallback);
int64_t cli_json_int(const struct cJSON *root, const char *path, int64_t fallback);
/* The list inside an answer: itself, or its member of this name. */
const struct cJSON *cli_json_items(const struct cJSON *root, const char *name);
void cli_json_print(const struct cJSON *root);                   /* indented, to stdout */
char *cli_json_compact(struct cli *c, const struct cJSON *root); /* in the arena */

/* ---- tables: table.c ---- */
struct cli_table *cli_table_new(struct cli *c, const char *const *columns, size_t n);
void cli_table_cell(struct cli_table *t,
                    const char *text); /* next cell of the row; NULL and "" show as "-" */
void cli_table_cell_int(struct cli_table *t, int64_t v);
void cli_table_print(struct cli_table *t);                     /* and free */
const char *cli_state_color(struct cli *c, const char *state); /* escape sequence or "" */
const char *cli_color_end(struct cli *c);
/* "3s", "5m", "2h", "4d" since a wall time in ms or an RFC 3339 text. */
const char *cli_age(struct cli *c, int64_t since_ms);

/* ---- YAML: yaml.c, stack.c ---- */
/* One document as a JSON tree.  as_text: every scalar becomes a string (but null).  Otherwise plain numbers,
 * booleans and nulls are taken as such, except below keys whose values are texts (env, labels, command ...).
 * DV_OK; DV_INVALID (err says line and what); DV_E_NOMEM.  *out is the caller's (cJSON_Delete). */
int cli_yaml_parse(const char *text, size_t n, bool as_text, struct cJSON **out, struct dv_err *err);
/* ${NAME}, ${NAME:-default}, $$ as faas-cli substitutes them before it reads the file; DV_OK or DV_INVALID.
 */
int cli_stack_substitute(const char *text, size_t n, const char *(*get)(const char *name), struct dv_buf *out,
                         struct dv_err *err);
bool cli_stack_is(const struct cJSON *doc); /* a stack.yml: `functions` is a map */
/* One function of a stack.yml as the body of PUT /system/functions.  base_dir: where environment_file is
 * looked for. */
int cli_stack_function(struct cli *c, const struct cJSON *fn, const char *name, const char *base_dir,
                       struct cJSON **out, struct dv_err *err);

/* ---- commands ---- */
int cli_cmd_deploy(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_apply(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_list(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_describe(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_remove(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_scale(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_invoke(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_logs(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_login(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_version(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_completion(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_cluster_up(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_cluster_down(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_cluster_status(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_nodes(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_node_cordon(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_node_uncordon(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_node_drain(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_node_remove(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_secret_put(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_secret_update(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_secret_list(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_secret_remove(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_registry_login(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_registry_list(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_registry_remove(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_ns_create(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_ns_list(struct cli *c, void *args, const struct cli_list *words);
int cli_cmd_ns_remove(struct cli *c, void *args, const struct cli_list *words);

/* Structs of the options, where commands.c has their tables. */
struct cli_deploy_args {
    const char *image, *face, *health, *pull, *user, *auth;
    struct cli_list env, labels, annotations, secrets, constraints, entrypoint;
    int64_t memory, cpu, min, max, concurrency, target, rps, idle, freeze, primed, queue, timeout, grace,
        port, start_timeout;
    bool stdio, wait, dry_run, writable, create_only, cpu_always;
};
struct cli_apply_args {
    struct cli_list files;
    bool dry_run;
};
struct cli_invoke_args {
    const char *data, *file, *method, *path, *content_type;
    struct cli_list headers;
    bool async, include;
    int64_t timeout;
};
struct cli_logs_args {
    bool follow;
    const char *since, *replica;
    int64_t tail;
    bool timestamps;
};
struct cli_login_args {
    const char *user;
    bool password_stdin;
};
struct cli_cluster_args {
    const char *listen, *metrics_listen, *docker, *join, *token, *token_file, *name, *agent_listen,
        *agent_metrics;
    bool keep, no_agent;
    int64_t wait;
};
struct cli_secret_args {
    const char *from_literal, *from_file;
    bool replace;
};
struct cli_node_remove_args {
    bool force;
};
struct cli_remove_args {
    bool if_exists;
};

#endif

/* Inside of orchestrator/api: calls, routes, replies, JSON output. */
#ifndef DV_API_INTERNAL_H
#define DV_API_INTERNAL_H

#include "orchestrator/api/api.h"
#include "proto/base/arena.h"
#include "proto/rt/clock.h"
#include "proto/rt/httpd.h"
#include "proto/wire/codec.h"

struct cJSON;
struct dv_api_op;

struct dv_api {
    struct dv_api_cfg cfg;
    char *basic;        /* "user:password" */
    struct dv_list ops; /* writes and log streams under way */
};

enum dv_api_auth { DV_API_OPEN, DV_API_ADMIN, DV_API_JOIN };
enum dv_api_face { DV_API_V1, DV_API_OPENFAAS };

struct dv_api_call {
    struct dv_api *api;
    struct dv_http_req *req;
    const struct dv_api_route *route;
    struct dv_arena *arena; /* of the request */
    const char *arg;        /* what {..} of the pattern matched, decoded; NULL when it has none */
};

/* DV_OK: answered, or will be.  Anything else: the router answers with err. */
typedef int dv_api_handler(struct dv_api_call *c, struct dv_err *err);

struct dv_api_route {
    const char *method;
    const char
        *pattern; /* "/v1/functions/{name}/logs"; at most one {..}; "{rest}" at the end takes what is left */
    enum dv_api_auth auth;
    dv_api_handler *handler;
    const char *statuses; /* every status that it may answer with */
    const char *params;   /* query parameters, comma-separated; "" for none */
};
extern const struct dv_api_route dv_api_route_table[];
extern const size_t dv_api_n_routes;

enum dv_api_face dv_api_face_of(const struct dv_api_route *route);

/* ---- replies (api_reply.c); each ends the request ---- */
void dv_api_reply_json(struct dv_http_req *req, int status, const struct dv_buf *body);
void dv_api_reply_empty(struct dv_http_req *req, int status);
void dv_api_reply_text(struct dv_http_req *req, int status, const char *text);
/* As the face wants it: problem+json, or plain text. */
void dv_api_reply_error(struct dv_http_req *req, enum dv_api_face face, int status, int code,
                        const struct dv_err *err);
void dv_api_set_etag(struct dv_http_req *req, uint64_t revision);

/* ---- reading a request ---- */
/* The body as a message of type t. */
int dv_api_body(struct dv_api_call *c, const struct dv_wire_type *t, unsigned flags, void *out,
                struct dv_err *err);
/* The same, strictly, with the name from the path under `key` and the namespace ns (NULL: none): the body may
 * leave them out but must not contradict them. */
int dv_api_body_named(struct dv_api_call *c, const struct dv_wire_type *t, const char *key, const char *ns,
                      void *out, struct dv_err *err);
int dv_api_body_tree(struct dv_api_call *c, struct cJSON **out, struct dv_err *err);
int dv_api_fill_in(struct cJSON *tree, const char *key, const char *value, struct dv_err *err);
struct dv_sv dv_api_ns(struct dv_api_call *c); /* ?namespace=, or the default one */
bool dv_api_flag(struct dv_api_call *c, const char *name, struct dv_err *err, int *rc); /* ?name=true */
int dv_api_number(struct dv_api_call *c, const char *name, int64_t min, int64_t max, int64_t preset,
                  int64_t *out, struct dv_err *err);
/* If-Match: DV_REV_ANY when absent or "*". */
int dv_api_if_match(struct dv_api_call *c, uint64_t *out_revision, struct dv_err *err);
/* The function of the path and ?namespace=.  DV_OK or DV_NOT_FOUND. */
int dv_api_find_fn(struct dv_api_call *c, const struct dv_function **out, struct dv_err *err);

/* ---- writes: what must live until the store has committed (api_op.c) ---- */
struct dv_api_op {
    struct dv_list node;
    struct dv_api *api;
    struct dv_http_req *req; /* NULL once the client left */
    const struct dv_api_route *route;
    struct dv_arena arena;
    void (*ok)(struct dv_api_op *op); /* committed: answers op->req */
    int status;
    bool is_dry_run;
    bool has_if_match;
    bool is_list;                   /* the client sent several functions: fields are named "functions[i].x" */
    const char *ns, *name;          /* of the arena */
    const struct dv_fn_spec *specs; /* apply and dry run: copies */
    size_t n_specs;
    uint64_t revision;
    struct dv_logs *logs;                  /* a log stream instead of a write */
    void (*on_gone)(struct dv_api_op *op); /* a log stream: the client left */
};
struct dv_api_op *dv_api_op_new(struct dv_api_call *c,
                                void (*ok)(struct dv_api_op *op)); /* NULL: out of memory */
void dv_api_op_free(struct dv_api_op *op);
/* dv_control_done of every write: ctx is the op. */
void dv_api_op_done(void *op, int code, const struct dv_err *err, uint64_t revision);
/* What a handler returns after calling dv_control: the op stays when rc is DV_OK, and goes otherwise. */
int dv_api_op_sent(struct dv_api_op *op, int rc, struct dv_err *err);
int dv_api_no_memory(struct dv_err *err);
void dv_api_ok_status(struct dv_api_op *op); /* answers op->status without a body */

/* ---- JSON output; writes stick in the buffer's `failed` ---- */
struct dv_jw {
    struct dv_buf *b;
    bool is_after_value; /* a comma is due */
};
/* key NULL: inside an array, or at the top. */
void dv_jw_open(struct dv_jw *w, const char *key, char bracket);
void dv_jw_close(struct dv_jw *w, char bracket);
void dv_jw_str(struct dv_jw *w, const char *key, const char *v); /* NULL v: left out */
void dv_jw_i64(struct dv_jw *w, const char *key, int64_t v);
void dv_jw_u64(struct dv_jw *w, const char *key, uint64_t v); /* past 2^52 a string */
void dv_jw_double(struct dv_jw *w, const char *key, double v);
void dv_jw_bool(struct dv_jw *w, const char *key, bool v);
void dv_jw_id(struct dv_jw *w, const char *key, uint64_t v);
void dv_jw_time(struct dv_jw *w, const char *key, int64_t wall_ms); /* RFC 3339 */
void dv_jw_kvs(struct dv_jw *w, const char *key, const struct dv_kvs *m);
void dv_jw_strs(struct dv_jw *w, const char *key, const struct dv_strs *l);
void dv_jw_wire(struct dv_jw *w, const char *key, const struct dv_wire_type *t, const void *msg);

/* ---- what both faces do with namespaces and secrets ---- */
/* Answers with the namespace `name` as put writes it.  false: there is none, and nothing was answered. */
bool dv_api_ns_reply(struct dv_api *a, struct dv_http_req *req, const char *name, int status,
                     void (*put)(struct dv_jw *w, const struct dv_ns_view *ns));
/* Writes ns under `name`; ns->name is what the client calls it.  ok finds name in op->name. */
int dv_api_ns_write(struct dv_api_call *c, const char *name, const struct dv_ns_put *ns, bool create,
                    int status, void (*ok)(struct dv_api_op *op), struct dv_err *err);
int dv_api_ns_remove(struct dv_api_call *c, const char *name, int status, struct dv_err *err);
/* Decoded into the request's arena.  DV_OK; DV_INVALID: not base64 (err is left to the caller); DV_E_NOMEM.
 */
int dv_api_base64(struct dv_api_call *c, const char *text, struct dv_sv *out, struct dv_err *err);
/* Writes a secret; ok finds its names in op->ns and op->name. */
int dv_api_secret_write(struct dv_api_call *c, const char *ns, const char *name, struct dv_sv value,
                        enum dv_put_mode mode, int status, void (*ok)(struct dv_api_op *op),
                        struct dv_err *err);
int dv_api_secret_remove(struct dv_api_call *c, struct dv_sv ns, const char *name, int status,
                         struct dv_err *err);

/* ---- shared renderings ---- */
void dv_api_put_function(struct dv_jw *w, struct dv_api *a, const struct dv_function *fn, bool with_replicas);
uint64_t dv_api_invocations(struct dv_api *a, uint64_t fn_uid, const struct dv_fn_status *status);

/* ---- OpenFaaS (openfaas_map.c) ---- */
const char *dv_of_ns_in(const char *ns);                         /* "openfaas-fn", "" and NULL -> "default" */
const char *dv_of_ns_out(const char *ns);                        /* "default" -> "openfaas-fn" */
const char *dv_of_text(const struct cJSON *o, const char *name); /* NULL: absent, empty or no text */
/* A FunctionDeployment as a finished spec. */
int dv_of_spec(const struct cJSON *deployment, struct dv_arena *arena, struct dv_fn_spec *out,
               struct dv_err *err);
/* What the deployer should know of how it will be scaled; false: nothing. */
bool dv_of_scale_note(const struct dv_fn_spec *spec, char *out, size_t cap);
/* With how many replicas it begins, even when it may sleep later: `faas-cli ready` waits for one. */
int64_t dv_of_first_replicas(const struct dv_fn_spec *spec);
/* The fields of a FunctionStatus that come from the spec. */
void dv_of_put_spec(struct dv_jw *w, const struct dv_fn_spec *spec);

/* ---- handlers ---- */
dv_api_handler dv_api_functions_list, dv_api_functions_create, dv_api_function_get, dv_api_function_put,
    dv_api_function_patch, dv_api_function_delete, dv_api_function_scale, dv_api_function_events,
    dv_api_function_decisions, dv_api_function_replicas, dv_api_function_logs, dv_api_apply, dv_api_replicas,
    dv_api_nodes, dv_api_node_get, dv_api_node_delete, dv_api_node_cordon, dv_api_node_uncordon,
    dv_api_node_drain, dv_api_node_join, dv_api_secrets_list, dv_api_secret_post, dv_api_secret_put,
    dv_api_secret_delete, dv_api_ns_list, dv_api_ns_create, dv_api_ns_get, dv_api_ns_put, dv_api_ns_delete,
    dv_api_registries_list, dv_api_registry_put, dv_api_registry_delete, dv_api_version, dv_api_health,
    dv_api_ready, dv_api_metrics;
dv_api_handler dv_of_functions_list, dv_of_functions_create, dv_of_functions_update, dv_of_functions_delete,
    dv_of_function_get, dv_of_scale, dv_of_info, dv_of_secrets_list, dv_of_secrets_create,
    dv_of_secrets_update, dv_of_secrets_delete, dv_of_logs, dv_of_namespaces, dv_of_ns_get, dv_of_ns_create,
    dv_of_ns_update, dv_of_ns_delete, dv_of_alert, dv_of_telemetry, dv_of_ui, dv_of_root;

#endif

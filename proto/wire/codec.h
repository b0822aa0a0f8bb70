/* Field tables -> JSON and back.  Strict: what is decoded here has been checked once and for all.
 * Refused: input past the size or depth limit, anything behind the value, duplicate keys, NUL in strings,
 * bad UTF-8, numbers that are not finite, wrong types, values out of range, missing required fields;
 * unknown fields too unless the caller says DV_WIRE_IGNORE_UNKNOWN (agents do, the REST API does not).
 * Errors carry the path of the field ("scale.max") in err->field.  Pure; any thread.
 *
 * How values are written in JSON: durations "30s" "1m30s" "250ms"; bytes "128Mi" "1G", or a bare number of
 * bytes; processors "500m" "0.5" "2", always a string; ids 16 hex digits; other integers a number up to 2^52
 * and a string of digits past it; enums by name.  null means "not given". */
#ifndef DV_WIRE_CODEC_H
#define DV_WIRE_CODEC_H

#include "proto/base/arena.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/wire/types.h"

struct cJSON;
struct dv_wire_type; /* one message's table; defined in codec_internal.h */

extern const struct dv_wire_type dv_type_fn_spec, dv_type_function, dv_type_replica_report, dv_type_join,
    dv_type_join_reply, dv_type_node_record, dv_type_node_report, dv_type_control, dv_type_report,
    dv_type_registry_auth, dv_type_pool, dv_type_metric, dv_type_apply, dv_type_secret_put, dv_type_ns_put,
    dv_type_scale_put;

enum dv_wire_flags {
    DV_WIRE_STRICT = 0,
    DV_WIRE_IGNORE_UNKNOWN = 1, /* skip fields that the table does not name */
    DV_WIRE_PARTIAL = 2,        /* PATCH: fields absent keep the value that *out has already; JSON merge patch
                                 * (RFC 7396): objects and string maps merge, arrays are replaced, null = default */
};

/* out: the message's struct, filled with defaults first (not with PARTIAL).  Untouched unless DV_OK.
 * DV_OK; DV_INVALID; DV_TOO_LARGE (past max_bytes); DV_E_NOMEM. */
int dv_wire_decode(const struct dv_wire_type *t, struct dv_sv json, size_t max_bytes, unsigned flags,
                   struct dv_arena *arena, void *out, struct dv_err *err);
/* The same from a tree that dv_json_parse accepted. */
int dv_wire_from_json(const struct dv_wire_type *t, const struct cJSON *tree, unsigned flags,
                      struct dv_arena *arena, void *out, struct dv_err *err);
/* Append the message as compact JSON, fields in table order; empty optional ones left out.  DV_OK or
 * DV_E_NOMEM. */
int dv_wire_encode(const struct dv_wire_type *t, const void *msg, struct dv_buf *out);
/* Deep copy into arena; an arena that is empty takes one block of just the size needed.  DV_OK or DV_E_NOMEM.
 */
int dv_wire_copy(const struct dv_wire_type *t, const void *from, struct dv_arena *arena, void *to);
bool dv_wire_equal(const struct dv_wire_type *t, const void *a, const void *b);
/* Fill a struct with its table's defaults (zero where none is given). */
void dv_wire_defaults(const struct dv_wire_type *t, void *out);

/* Strict JSON parse: the checks of this page that need no table.  The tree is the caller's (cJSON_Delete).
 * max_depth 32.  DV_OK; DV_INVALID; DV_TOO_LARGE; DV_E_NOMEM. */
int dv_json_parse(struct dv_sv json, size_t max_bytes, struct cJSON **out, struct dv_err *err);

/* Names and quantities, used by tables and by the CLI. */
/* "name.namespace" as OpenFaaS clients know it, a view of out; what has no dot comes back as it is. */
struct dv_sv dv_openfaas_name(struct dv_sv dotted, char out[2 * DV_NAME_MAX + 2]);
bool dv_name_valid(const char *s);                         /* function, namespace, secret, node */
int dv_parse_duration_ms(struct dv_sv s, int64_t *out_ms); /* "1h2m3.5s", "250ms", "0"; DV_OK / DV_INVALID */
int dv_parse_bytes(struct dv_sv s, int64_t *out_bytes);    /* "128Mi" "1G" "512k" "1048576" */
int dv_parse_mcpu(struct dv_sv s, int64_t *out_mcpu);      /* "500m" "0.5" "2" */
void dv_format_duration(int64_t ms, char out[32]);         /* "1m30s" "250ms" */
void dv_format_bytes(int64_t bytes, char out[32]);         /* "128Mi" where exact, else plain */
void dv_format_mcpu(int64_t mcpu, char out[32]);           /* "500m" "2" */

const char *dv_replica_state_name(enum dv_replica_state s); /* "cold" ... "gone" */
const char *dv_reason_name(enum dv_reason r);               /* "image_missing" ... */
const char *dv_reason_text(enum dv_reason r);               /* a sentence for a person */

/* Checks that span fields (min <= max, requests <= limits, stdio needs a command ...), and defaults that
 * depend on other fields (concurrency by protocol, target).  Called after decode, before a spec is used. */
int dv_fn_spec_finish(struct dv_fn_spec *spec, struct dv_arena *arena, struct dv_err *err);
/* Before a finished spec is patched: take derived values out again that nobody chose, so that they follow the
 * change. */
void dv_fn_spec_unfinish(struct dv_fn_spec *spec);
/* What counts where nothing was given: the promise on a node; idle by the cluster's default (0: none is set).
 */
struct dv_requests dv_fn_requests(const struct dv_fn_spec *spec);
int64_t dv_fn_idle_ms(const struct dv_fn_spec *spec, int64_t cluster_default_ms);
/* As it works, to be shown: both of these filled in.  A shallow copy. */
void dv_fn_spec_resolved(const struct dv_fn_spec *spec, int64_t cluster_idle_ms, struct dv_fn_spec *out);

/* The kind of primed sandbox that serves this function; out borrows from spec, out->n is 0. */
void dv_pool_of(const struct dv_fn_spec *spec, struct dv_pool *out);
bool dv_pool_same(const struct dv_pool *a, const struct dv_pool *b); /* n apart */

/* Where a metric stands: in the function's own replicas ("replica:/metrics" at the function's port,
 * "replica:9090/metrics" or ":9090/metrics" at another), or at an http:// or https:// URL. */
struct dv_metric_source {
    bool is_replica;
    int64_t port;     /* of the replica; 0: the function's */
    const char *path; /* inside of the url; NULL: elsewhere */
};
/* DV_OK, or DV_INVALID with *why (static; may be NULL). */
int dv_metric_source_of(const char *url, struct dv_metric_source *out, const char **why);
int64_t dv_metric_timeout_ms(const struct dv_metric *m); /* given, or 5 s within the interval */
int64_t dv_metric_stale_ms(const struct dv_metric *m);   /* older than that it says nothing any more */

const char *dv_kvs_find(const struct dv_kvs *m, const char *key); /* NULL = absent */

#endif

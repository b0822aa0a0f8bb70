/* Control messages and reports: what travels in CONTROL and REPORT frames of a link.  Tagged by `type`; the
 * member that the type names is present, and no other.  A type that this version does not know passes when
 * unknown fields are ignored, so that an older peer can skip it. */
#include "proto/wire/codec_internal.h"

#define QUIET  .flags = DV_F_QUIET
#define NEEDED .flags = DV_F_REQUIRED

/* ---------------------------------------------------------------- orchestrator -> agent */

#define T struct dv_secret_value
static const struct dv_field secret_value[] = {
    FIELD(STR, "name", name, .check = dv_check_name, NEEDED),
    FIELD(STR, "value_base64", value_base64, NEEDED),
};
#undef T
static const struct dv_wire_type type_secret_value = TABLE_INIT_(struct dv_secret_value, secret_value);

#define T struct dv_registry_auth
static const struct dv_field registry_auth[] = {
    FIELD(STR, "username", username),
    FIELD(STR, "password", password),
    FIELD(STR, "server", server),
};
#undef T
const struct dv_wire_type dv_type_registry_auth = TABLE_INIT_(struct dv_registry_auth, registry_auth);

#define T struct dv_cmd_start
static const struct dv_field cmd_start[] = {
    FIELD(ID, "id", id, NEEDED),
    FIELD(ID, "fn_uid", fn_uid, NEEDED),
    FIELD(U64, "generation", generation, NEEDED),
    FIELD_OBJECT("spec", spec, dv_type_fn_spec, struct dv_fn_spec, NEEDED),
    FIELD_LIST("secrets", secrets, n_secrets, type_secret_value, struct dv_secret_value),
    FIELD_OBJECT("registry", registry, dv_type_registry_auth, struct dv_registry_auth),
};
#undef T
static const struct dv_wire_type type_cmd_start = TABLE_INIT_(struct dv_cmd_start, cmd_start);

#define T struct dv_cmd_stop
static const struct dv_field cmd_stop[] = {
    FIELD(ID, "id", id, NEEDED),
    FIELD(INT, "grace_ms", grace_ms, .min = -1, .max = 86400000, .def = -1, QUIET),
    FIELD(BOOL, "now", now, QUIET),
};
#undef T
static const struct dv_wire_type type_cmd_stop = TABLE_INIT_(struct dv_cmd_stop, cmd_stop);

#define T struct dv_cmd_sync
static const struct dv_field cmd_sync[] = {
    FIELD_IDS("ids", ids, n_ids, NEEDED),
};
#undef T
static const struct dv_wire_type type_cmd_sync = TABLE_INIT_(struct dv_cmd_sync, cmd_sync);

#define T struct dv_cmd_pools
static const struct dv_field cmd_pools[] = {
    FIELD_LIST("pools", pools, n_pools, dv_type_pool, struct dv_pool, NEEDED),
};
#undef T
static const struct dv_wire_type type_cmd_pools = TABLE_INIT_(struct dv_cmd_pools, cmd_pools);

#define T struct dv_cmd_logs
static const struct dv_field cmd_logs[] = {
    FIELD(U64, "request", request, NEEDED),
    FIELD(ID, "fn_uid", fn_uid, QUIET),
    FIELD(ID, "replica", replica, QUIET),
    FIELD(INT, "tail", tail, .min = -1, .max = 1000000000, .def = -1, QUIET),
    FIELD(INT, "since_ms", since_ms, QUIET),
    FIELD(BOOL, "follow", follow, QUIET),
    FIELD(BOOL, "cancel", cancel, QUIET),
};
#undef T
static const struct dv_wire_type type_cmd_logs = TABLE_INIT_(struct dv_cmd_logs, cmd_logs);

#define T struct dv_cmd_scrape
static const struct dv_field cmd_scrape[] = {
    FIELD(ID, "fn_uid", fn_uid, NEEDED),
    FIELD(U64, "epoch", epoch, NEEDED),
    FIELD(INT, "index", index, .min = 0, .max = DV_METRICS_MAX - 1, NEEDED),
    FIELD_OBJECT("metric", metric, dv_type_metric, struct dv_metric, NEEDED),
    FIELD_IDS("replicas", replicas, n_replicas, NEEDED),
};
#undef T
static const struct dv_wire_type type_cmd_scrape = TABLE_INIT_(struct dv_cmd_scrape, cmd_scrape);

/* Exactly the member of the type's name.  members: name and whether it is present; required: it must be. */
struct tag {
    const char *type;
    bool present, required;
};

static int check_tag(const char *type, const struct tag *tags, size_t n, unsigned flags, struct dv_err *err)
{
    bool known = false;
    for (size_t i = 0; i < n; i++) {
        bool ours = strcmp(type, tags[i].type) == 0;
        known = known || ours;
        if (ours && tags[i].required && !tags[i].present)
            return dv_err_field(err, DV_INVALID, tags[i].type, "must be given");
        if (!ours && tags[i].present)
            return dv_err_field(err, DV_INVALID, tags[i].type, "does not belong to a message of type \"%s\"",
                                type);
    }
    if (!known && !(flags & DV_WIRE_IGNORE_UNKNOWN))
        return dv_err_field(err, DV_INVALID, "type", "unknown type \"%s\"", type);
    return DV_OK;
}

static int check_control(const void *msg, unsigned flags, struct dv_err *err)
{
    const struct dv_control_msg *c = msg;
    const struct tag tags[] = {
        {"start", c->start, true}, {"stop", c->stop, true}, {"sync", c->sync, true},
        {"pools", c->pools, true}, {"logs", c->logs, true}, {"scrape", c->scrape, true},
    };
    return check_tag(c->type, tags, DV_COUNT(tags), flags, err);
}

#define T struct dv_control_msg
static const struct dv_field control[] = {
    FIELD(STR, "type", type, .max = 32, NEEDED),
    FIELD_POINTER("start", start, type_cmd_start, struct dv_cmd_start),
    FIELD_POINTER("stop", stop, type_cmd_stop, struct dv_cmd_stop),
    FIELD_POINTER("sync", sync, type_cmd_sync, struct dv_cmd_sync),
    FIELD_POINTER("pools", pools, type_cmd_pools, struct dv_cmd_pools),
    FIELD_POINTER("logs", logs, type_cmd_logs, struct dv_cmd_logs),
    FIELD_POINTER("scrape", scrape, type_cmd_scrape, struct dv_cmd_scrape),
};
#undef T
const struct dv_wire_type dv_type_control =
    TABLE_INIT_(struct dv_control_msg, control, .check = check_control);

/* ---------------------------------------------------------------- agent -> orchestrator */

#define T struct dv_log_line
static const struct dv_field log_line[] = {
    FIELD(ID, "replica", replica, NEEDED),
    FIELD(INT, "wall_ms", wall_ms, QUIET),
    FIELD(BOOL, "is_stderr", is_stderr, QUIET),
    FIELD(STR, "text", text, NEEDED),
};
#undef T
static const struct dv_wire_type type_log_line = TABLE_INIT_(struct dv_log_line, log_line);

#define T struct dv_log_chunk
static const struct dv_field log_chunk[] = {
    FIELD(U64, "request", request, NEEDED),
    FIELD_LIST("lines", lines, n_lines, type_log_line, struct dv_log_line),
    FIELD(BOOL, "end", end, QUIET),
};
#undef T
static const struct dv_wire_type type_log_chunk = TABLE_INIT_(struct dv_log_chunk, log_chunk);

#define T struct dv_scrape_result
static const struct dv_field scrape_result[] = {
    FIELD(ID, "fn_uid", fn_uid, NEEDED),
    FIELD(U64, "epoch", epoch, NEEDED),
    FIELD(INT, "index", index, .min = 0, .max = DV_METRICS_MAX - 1, NEEDED),
    FIELD(ID, "replica", replica, NEEDED),
    FIELD(BOOL, "ok", ok, QUIET),
    FIELD(NUM, "value", value, QUIET),
    FIELD(STR, "message", message, .max = 400),
};
#undef T
static const struct dv_wire_type type_scrape_result = TABLE_INIT_(struct dv_scrape_result, scrape_result);

static int check_report(const void *msg, unsigned flags, struct dv_err *err)
{
    const struct dv_report *r = msg;
    const struct tag tags[] = {
        {"node", r->node, true},
        {"replicas", r->n_replicas > 0, false}, /* none to tell is a message too */
        {"logs", r->logs, true},
        {"scrapes", r->n_scrapes > 0, false},
    };
    return check_tag(r->type, tags, DV_COUNT(tags), flags, err);
}

#define T struct dv_report
static const struct dv_field report[] = {
    FIELD(STR, "type", type, .max = 32, NEEDED),
    FIELD_POINTER("node", node, dv_type_node_report, struct dv_node_report),
    FIELD_LIST("replicas", replicas, n_replicas, dv_type_replica_report, struct dv_replica_report),
    FIELD(BOOL, "is_full", is_full, QUIET),
    FIELD_POINTER("logs", logs, type_log_chunk, struct dv_log_chunk),
    FIELD_LIST("scrapes", scrapes, n_scrapes, type_scrape_result, struct dv_scrape_result),
};
#undef T
const struct dv_wire_type dv_type_report = TABLE_INIT_(struct dv_report, report, .check = check_report);

/* Replicas and nodes on the wire: what agents say, and what is kept of them. */
#include "proto/wire/codec_internal.h"

#define QUIET  .flags = DV_F_QUIET
#define NEEDED .flags = DV_F_REQUIRED

/* ---------------------------------------------------------------- replicas */

#define T struct dv_start_times
static const struct dv_field start_times[] = {
    FIELD(INT, "pull_us", pull_us, QUIET),
    FIELD(INT, "create_us", create_us, QUIET),
    FIELD(INT, "start_us", start_us, QUIET),
    FIELD(INT, "ready_us", ready_us, QUIET),
};
#undef T
static const struct dv_wire_type type_start_times = TABLE_INIT_(struct dv_start_times, start_times);

#define T struct dv_replica_report
static const struct dv_field replica_report[] = {
    FIELD(ID, "id", id, NEEDED),
    FIELD(ID, "fn_uid", fn_uid, QUIET),
    FIELD(U64, "generation", generation, QUIET),
    FIELD(STR, "fn", fn),
    FIELD_ENUM("state", state, dv_names_replica_state, NEEDED),
    FIELD_ENUM("reason", reason, dv_names_reason, QUIET),
    FIELD(STR, "message", message),
    FIELD(INT, "exit_code", exit_code, QUIET),
    FIELD(STR, "log_tail", log_tail),
    FIELD(STR, "container", container),
    FIELD(STR, "address", address),
    FIELD(INT, "restarts", restarts, QUIET),
    FIELD_OBJECT("times", times, type_start_times, struct dv_start_times),
    FIELD(INT, "in_flight", in_flight, QUIET),
    FIELD(INT, "requests", requests, QUIET),
    FIELD(INT, "memory_bytes", memory_bytes, QUIET),
    FIELD(INT, "cpu_us", cpu_us, QUIET),
    FIELD(INT, "oom_kills", oom_kills, QUIET),
    FIELD(INT, "started_ms", started_ms, QUIET),
};
#undef T
const struct dv_wire_type dv_type_replica_report = TABLE_INIT_(struct dv_replica_report, replica_report);

/* ---------------------------------------------------------------- nodes */

static const char *check_key(const char *s)
{
    uint8_t raw[32];
    return dv_unhex(dv_sv_c(s), raw, sizeof(raw)) ? NULL : "must be 64 hex digits";
}

static const char *check_address(const char *s)
{
    const char *colon = strrchr(s, ':');
    uint64_t port;
    bool ok = colon && colon > s && dv_parse_u64(dv_sv_c(colon + 1), &port) && port > 0 && port < 65536;
    return ok ? NULL : "must be \"host:port\"";
}

#define T struct dv_join
static const struct dv_field join[] = {
    FIELD(STR, "name", name, .check = dv_check_node_name, NEEDED),
    FIELD(ID, "node", node, QUIET),
    FIELD(ID, "incarnation", incarnation, NEEDED),
    FIELD(STR, "address", address, .check = check_address, .max = 300, NEEDED),
    FIELD(STR, "version", version, .max = 64),
    FIELD(KVS, "labels", labels, .max = 1024),
};
#undef T
const struct dv_wire_type dv_type_join = TABLE_INIT_(struct dv_join, join);

#define T struct dv_join_reply
static const struct dv_field join_reply[] = {
    FIELD(ID, "node", node, NEEDED),
    FIELD(STR, "key", key, .check = check_key, NEEDED),
    FIELD(STR, "version", version),
};
#undef T
const struct dv_wire_type dv_type_join_reply = TABLE_INIT_(struct dv_join_reply, join_reply);

#define T struct dv_node_record
static const struct dv_field node_record[] = {
    FIELD(ID, "node", node, NEEDED),
    FIELD(STR, "name", name, NEEDED),
    FIELD(STR, "address", address),
    FIELD(STR, "key", key),
    FIELD(KVS, "labels", labels),
    FIELD(BOOL, "is_cordoned", is_cordoned, QUIET),
    FIELD(BOOL, "is_draining", is_draining, QUIET),
    FIELD(INT, "joined_ms", joined_ms, QUIET),
};
#undef T
const struct dv_wire_type dv_type_node_record = TABLE_INIT_(struct dv_node_record, node_record);

#define T struct dv_pool
static const struct dv_field pool[] = {
    FIELD(STR, "image", image, NEEDED),
    FIELD(STR, "user", user),
    FIELD(BOOL, "read_only", read_only, .def = true, QUIET),
    FIELD(BYTES, "tmp", tmp_bytes, QUIET),
    FIELD(INT, "files", files, QUIET),
    FIELD(INT, "n", n, .min = 0, .max = 1000000, NEEDED),
};
#undef T
const struct dv_wire_type dv_type_pool = TABLE_INIT_(struct dv_pool, pool);

#define T struct dv_node_report
static const struct dv_field node_report[] = {
    FIELD(ID, "node", node, NEEDED),
    FIELD(ID, "incarnation", incarnation, NEEDED),
    FIELD(STR, "version", version),
    FIELD(BOOL, "engine_ok", engine_ok),
    FIELD(STR, "engine_message", engine_message),
    FIELD(STR, "engine_version", engine_version),
    FIELD(STR, "api_version", api_version),
    FIELD(STR, "arch", arch),
    FIELD(STR, "os", os),
    FIELD(STR, "cgroup", cgroup),
    FIELD(INT, "cpus", cpus, QUIET),
    FIELD(INT, "memory_bytes", memory_bytes, QUIET),
    FIELD(INT, "memory_available_bytes", memory_available_bytes, QUIET),
    FIELD(INT, "cpu_used_mcpu", cpu_used_mcpu, QUIET),
    FIELD(INT, "replicas_max", replicas_max, .min = 0, .max = 1000000, .def = 500),
    FIELD(INT, "primed_max", primed_max, QUIET, .min = -1, .max = 1000000),
    FIELD(STRS, "images", images),
    FIELD_LIST("pools", pools, n_pools, dv_type_pool, struct dv_pool),
    FIELD(INT, "engine_calls", engine_calls, QUIET),
    FIELD(INT, "engine_errors", engine_errors, QUIET),
};
#undef T
const struct dv_wire_type dv_type_node_report = TABLE_INIT_(struct dv_node_report, node_report);

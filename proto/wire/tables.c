/* Functions on the wire.  One line a field: JSON name, member, range, default. */
#include "proto/base/cron.h"
#include "proto/wire/codec_internal.h"

static const char *const protocol_names[] = {"http", "stdio", NULL};
static const char *const pull_names[] = {"missing", "always", NULL};
static const char *const auth_names[] = {"open", "required", NULL};
static const char *const fold_names[] = {"sum", "average", "max", NULL};
static const char *const cpu_names[] = {"requests", "always", NULL};

#define SECOND     1000ll
#define MINUTE     (60 * SECOND)
#define HOUR       (60 * MINUTE)
#define DAY        (24 * HOUR)
#define KI         1024ll
#define MI         (1024 * KI)
#define MEMORY_MAX (1ll << 50)
#define MCPU_MAX   4096000ll
#define STRING_MAX (128 * KI - 1) /* what Linux takes as one argument or variable */
#define MANY       1024           /* entries of a list or a map */

/* ---------------------------------------------------------------- checks of single strings */

static const char *check_image(const char *s)
{
    for (const char *c = s; *c; c++) {
        bool ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                  (c > s && strchr("._-/:@+", *c));
        if (!ok)
            return "must be an image reference, as \"registry.example.com/team/name:tag\"";
    }
    return NULL;
}

static const char *check_env_key(const char *s)
{
    return *s && !strchr(s, '=') && strlen(s) <= 1024 ? NULL : "must not be empty or contain '='";
}

static const char *check_label_key(const char *s)
{
    for (const char *c = s; *c; c++)
        if ((unsigned char)*c <= ' ')
            return "must not contain blanks";
    return *s && strlen(s) <= 317 ? NULL : "must have 1 to 317 bytes";
}

static const char *check_path(const char *s)
{
    for (const char *c = s; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '#')
            return "must not contain blanks, control characters or '#'";
    return *s == '/' ? NULL : "must begin with '/'";
}

static const char *check_constraint(const char *s)
{
    const char *eq = strchr(s, '=');
    bool has_key = eq && eq > s && !(eq == s + 1 && *s == '!');
    return has_key ? NULL : "must be \"label=value\" or \"label!=value\"";
}

static const char *check_user(const char *s)
{
    for (const char *c = s; *c; c++)
        if ((unsigned char)*c <= ' ')
            return "must be a user, as \"1000\", \"1000:1000\" or \"app\"";
    return NULL;
}

static const char *check_cron(const char *s)
{
    struct dv_cron c;
    const char *why = NULL;
    return dv_cron_parse(dv_sv_c(s), &c, &why) ? why : NULL;
}

/* Whether there is such a zone is for the machine to say. */
static const char *check_timezone(const char *s)
{
    for (const char *c = s; *c; c++) {
        bool ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                  (c > s && strchr("/_+-", *c));
        if (!ok)
            return "must be the name of a time zone, as \"Europe/Berlin\"";
    }
    return NULL;
}

static bool is_word(const char *s, const char *more)
{
    bool ok = *s != '\0' && !(*s >= '0' && *s <= '9');
    for (; *s && ok; s++)
        ok = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
             strchr(more, *s);
    return ok;
}

static const char *check_series(const char *s)
{
    return is_word(s, "_:") ? NULL : "must be a metric's name: letters, digits, '_' and ':'";
}

static const char *check_series_label(const char *s)
{
    return is_word(s, "_") ? NULL : "must be a label's name: letters, digits and '_'";
}

static const char *check_metric_url(const char *s)
{
    const char *why = NULL;
    struct dv_metric_source source;
    return dv_metric_source_of(s, &source, &why) ? why : NULL;
}

static const char *check_face(const char *s)
{
    return strcmp(s, "v1") == 0 || strcmp(s, "openfaas") == 0 ? NULL : "must be \"v1\" or \"openfaas\"";
}

/* ---------------------------------------------------------------- parts of a function */

#define T struct dv_health
static const struct dv_field health[] = {
    FIELD(STR, "path", path, .check = check_path, .min = 1, .max = 1024),
    FIELD(DURATION, "interval", interval_ms, .min = 10, .max = 1000, .def = 20),
    FIELD(DURATION, "timeout", timeout_ms, .min = 1, .max = 10 * MINUTE, .def = SECOND),
    FIELD(DURATION, "start_timeout", start_timeout_ms, .min = 10, .max = HOUR, .def = MINUTE),
};
#undef T
const struct dv_wire_type dv_type_health = TABLE_INIT_(struct dv_health, health);

#define T struct dv_limits
static const struct dv_field limits[] = {
    FIELD(BYTES, "memory", memory_bytes, .min = 6 * MI, .max = MEMORY_MAX,
          .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(MCPU, "cpu", cpu_mcpu, .min = 10, .max = MCPU_MAX, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(INT, "pids", pids, .min = 1, .max = 4194304, .def = 512),
    FIELD(INT, "files", files, .min = 16, .max = 1048576, .def = 4096),
    FIELD(BYTES, "tmp", tmp_bytes, .min = 4 * KI, .max = MEMORY_MAX, .def = 64 * MI),
};
#undef T
const struct dv_wire_type dv_type_limits = TABLE_INIT_(struct dv_limits, limits);

#define T struct dv_requests
static const struct dv_field requests[] = {
    FIELD(BYTES, "memory", memory_bytes, .min = 1, .max = MEMORY_MAX, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(MCPU, "cpu", cpu_mcpu, .min = 1, .max = MCPU_MAX, .flags = DV_F_QUIET | DV_F_ZERO_OK),
};
#undef T
const struct dv_wire_type dv_type_requests = TABLE_INIT_(struct dv_requests, requests);

#define T struct dv_metric
static const struct dv_field metric[] = {
    FIELD(STR, "name", name, .check = check_series, .max = 256, .flags = DV_F_REQUIRED),
    FIELD(STR, "url", url, .check = check_metric_url, .max = 2048, .flags = DV_F_REQUIRED),
    FIELD(KVS, "labels", labels, .check = check_series_label, .max = 32),
    FIELD(NUM, "target", target, .min = 0, .max = 1ll << 52, .flags = DV_F_REQUIRED),
    FIELD(NUM, "activation", activation, .min = 0, .max = 1ll << 52, .flags = DV_F_QUIET),
    FIELD_ENUM("aggregate", aggregate, fold_names),
    FIELD(DURATION, "interval", interval_ms, .min = SECOND, .max = HOUR, .def = 10 * SECOND),
    FIELD(DURATION, "timeout", timeout_ms, .min = 10, .max = MINUTE, .flags = DV_F_QUIET),
};
#undef T
const struct dv_wire_type dv_type_metric = TABLE_INIT_(struct dv_metric, metric);

#define T struct dv_window
static const struct dv_field window[] = {
    FIELD(STR, "cron", cron, .check = check_cron, .max = 200, .flags = DV_F_REQUIRED),
    FIELD(STR, "timezone", timezone, .check = check_timezone, .min = 1, .max = 64),
    FIELD(DURATION, "duration", duration_ms, .min = MINUTE, .max = 31 * DAY, .flags = DV_F_REQUIRED),
    FIELD(INT, "min", min, .min = 1, .max = 10000, .flags = DV_F_REQUIRED),
};
#undef T
static const struct dv_wire_type type_window = TABLE_INIT_(struct dv_window, window);

/* concurrency, target and queue_timeout default to 0 here, "not given"; dv_fn_spec_finish fills them in. idle
 * (and requests above) stay 0 until they are used: whose default counts is not known here, or whether it was
 * given has to be told later. */
#define T struct dv_scale
static const struct dv_field scale[] = {
    FIELD(INT, "min", min, .min = 0, .max = 10000),
    FIELD(INT, "max", max, .min = 1, .max = 10000, .def = 20),
    FIELD(INT, "concurrency", concurrency, .min = 1, .max = 10000, .flags = DV_F_QUIET),
    FIELD(INT, "target", target, .min = 1, .max = 10000, .flags = DV_F_QUIET),
    FIELD(INT, "rps", rps, .min = 1, .max = 1000000, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(INT, "cpu", cpu, .min = 1, .max = 1000, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(INT, "memory", memory, .min = 1, .max = 100, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(DURATION, "idle", idle_ms, .min = 100, .max = 30 * DAY, .flags = DV_F_QUIET),
    FIELD(INT, "primed", primed, .min = 0, .max = 1000, .flags = DV_F_QUIET),
    FIELD(DURATION, "freeze", freeze_ms, .min = 10, .max = 30 * DAY, .def = SECOND, .flags = DV_F_QUIET),
    FIELD(INT, "queue_max", queue_max, .min = 1, .max = 1000000, .def = 1000),
    FIELD(DURATION, "queue_timeout", queue_timeout_ms, .min = 1, .max = DAY, .flags = DV_F_QUIET),
    FIELD(DURATION, "window", window_ms, .min = 6 * SECOND, .max = HOUR, .flags = DV_F_QUIET),
    FIELD(INT, "panic_window", panic_window, .min = 1, .max = 100, .def = 10, .flags = DV_F_QUIET),
    FIELD(INT, "panic_threshold", panic_threshold, .min = 110, .max = 1000, .def = 200, .flags = DV_F_QUIET),
    FIELD(DURATION, "down", down_ms, .min = 1, .max = HOUR, .flags = DV_F_QUIET),
    FIELD(INT, "up_rate", up_rate, .min = 2, .max = 1000, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD(INT, "down_rate", down_rate, .min = 2, .max = 1000, .flags = DV_F_QUIET | DV_F_ZERO_OK),
    FIELD_LIST("metrics", metrics, n_metrics, dv_type_metric, struct dv_metric, .max = DV_METRICS_MAX),
    FIELD_LIST("schedule", schedule, n_schedule, type_window, struct dv_window, .max = 16),
};
#undef T
const struct dv_wire_type dv_type_scale = TABLE_INIT_(struct dv_scale, scale);

/* ---------------------------------------------------------------- functions */

#define T struct dv_fn_spec
static const struct dv_field fn_spec[] = {
    FIELD(STR, "name", name, .check = dv_check_name, .flags = DV_F_REQUIRED),
    FIELD(STR, "namespace", ns, .check = dv_check_name, .def_str = DV_NS_DEFAULT),
    FIELD(STR, "image", image, .check = check_image, .min = 1, .max = 512, .flags = DV_F_REQUIRED),
    FIELD_ENUM("pull", pull, pull_names, .flags = DV_F_QUIET),
    FIELD_ENUM("protocol", protocol, protocol_names),
    FIELD(INT, "port", port, .min = 1, .max = 65535, .def = 8080),
    FIELD(STRS, "entrypoint", entrypoint, .max = MANY),
    FIELD(STRS, "command", command, .max = MANY),
    FIELD(KVS, "env", env, .check = check_env_key, .max = MANY),
    FIELD(KVS, "labels", labels, .check = check_label_key, .max = MANY),
    FIELD(KVS, "annotations", annotations, .check = check_label_key, .max = MANY),
    FIELD(STRS, "secrets", secrets, .check = dv_check_name, .max = MANY),
    FIELD(STRS, "constraints", constraints, .check = check_constraint, .max = MANY),
    FIELD_OBJECT("health", health, dv_type_health, struct dv_health),
    FIELD_OBJECT("limits", limits, dv_type_limits, struct dv_limits),
    FIELD_OBJECT("requests", requests, dv_type_requests, struct dv_requests),
    FIELD_OBJECT("scale", scale, dv_type_scale, struct dv_scale),
    FIELD(DURATION, "timeout", timeout_ms, .min = 1, .max = DAY, .def = MINUTE),
    FIELD(DURATION, "grace", grace_ms, .min = 0, .max = DAY, .def = 10 * SECOND),
    FIELD_ENUM("auth", auth, auth_names),
    FIELD_ENUM("cpu", cpu, cpu_names, .flags = DV_F_QUIET),
    FIELD(BOOL, "read_only", read_only, .def = true),
    FIELD(STR, "user", user, .check = check_user, .min = 1, .max = 128),
    FIELD(STR, "face", face, .check = check_face, .def_str = "v1", .flags = DV_F_QUIET),
};
#undef T
const struct dv_wire_type dv_type_fn_spec = TABLE_INIT_(struct dv_fn_spec, fn_spec);

#define T struct dv_function
static const struct dv_field function[] = {
    FIELD(ID, "uid", uid, .flags = DV_F_REQUIRED),
    FIELD(U64, "generation", generation, .flags = DV_F_REQUIRED),
    FIELD(U64, "revision", revision, .flags = DV_F_QUIET),
    FIELD(INT, "created_ms", created_ms, .flags = DV_F_QUIET),
    FIELD(INT, "updated_ms", updated_ms, .flags = DV_F_QUIET),
    FIELD(INT, "desired_override", desired_override, .min = -1, .max = 10000, .def = -1, .flags = DV_F_QUIET),
    FIELD_OBJECT("spec", spec, dv_type_fn_spec, struct dv_fn_spec, .flags = DV_F_REQUIRED),
};
#undef T
const struct dv_wire_type dv_type_function = TABLE_INIT_(struct dv_function, function);

/* OpenFaaS's FunctionDeployment <-> our spec.
 *
 * A deployment becomes a native spec as a JSON tree first and goes through the same field table as every
 * other spec, so that this face checks what ours does; errors are told in the deployer's own words (envVars,
 * service). What was sent must come back on GET: labels and annotations are kept as they are, envProcess
 * lives in the environment as `fprocess` (where the watchdog looks for it) and is taken out again for the
 * answer.
 *
 * Labels that steer: com.openfaas.scale.min (default 1), .max (20), .zero (off: an idle function keeps its
 * minimum), .zero-duration (15m), .type (rps, capacity) with .target and .target-proportion.  Other types are
 * kept and said to be steered by requests in flight (dv_of_scale_note).  Annotations:
 * com.openfaas.{ready,health}.http.path and .timeoutSeconds.  Environment: max_inflight bounds what one
 * replica gets at once, exec_timeout the whole call. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>

#define LABEL_SCALE "com.openfaas.scale."

enum {
    TIMEOUT_MS = 60000,
    CONCURRENCY_HTTP = 100,
    CONCURRENCY_MAX = 10000,
    RPS_MAX = 1000000,
    RPS_UNSAID = 5,
};

const char *dv_of_ns_in(const char *ns)
{
    return !ns || !*ns || strcmp(ns, DV_NS_OPENFAAS) == 0 ? DV_NS_DEFAULT : ns;
}

const char *dv_of_ns_out(const char *ns)
{
    return strcmp(ns, DV_NS_DEFAULT) == 0 ? DV_NS_OPENFAAS : ns;
}

/* ---------------------------------------------------------------- deployment -> tree of a native spec */

struct map {
    const cJSON *in;
    cJSON *out;
    struct dv_err *err;
    bool no_memory;
};

static const cJSON *member(const cJSON *o, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

const char *dv_of_text(const cJSON *o, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsString(v) && *v->valuestring ? v->valuestring : NULL;
}

static void put(struct map *m, cJSON *to, const char *name, cJSON *value)
{
    if (!value || !to || !cJSON_AddItemToObject(to, name, value)) {
        cJSON_Delete(value);
        m->no_memory = true;
    }
}

static cJSON *sub(struct map *m, const char *name)
{
    cJSON *o = cJSON_GetObjectItemCaseSensitive(m->out, name);
    if (!o) {
        o = cJSON_AddObjectToObject(m->out, name);
        m->no_memory |= !o;
    }
    return o;
}

static void copy_member(struct map *m, const char *from, const char *to)
{
    const cJSON *v = member(m->in, from);
    if (v)
        put(m, m->out, to, cJSON_Duplicate(v, true));
}

static void map_env(struct map *m)
{
    copy_member(m, "envVars", "env");
    const char *process = dv_of_text(m->in, "envProcess");
    if (!process)
        return;
    cJSON *env = sub(m, "env");
    if (cJSON_IsObject(env)) {
        cJSON_DeleteItemFromObjectCaseSensitive(env, "fprocess");
        put(m, env, "fprocess", cJSON_CreateString(process));
    }
}

/* limits and requests: memory and cpu; what else may stand there (GPUs) is not ours. */
static void map_resources(struct map *m, const char *name)
{
    const cJSON *from = member(m->in, name);
    const char *memory = dv_of_text(from, "memory"), *cpu = dv_of_text(from, "cpu");
    if (memory)
        put(m, sub(m, name), "memory", cJSON_CreateString(memory));
    if (cpu)
        put(m, sub(m, name), "cpu", cJSON_CreateString(cpu));
}

static int label_number(struct map *m, const char *label, int64_t preset, int64_t *out)
{
    const char *v = dv_of_text(member(m->in, "labels"), label);
    *out = preset;
    if (v && (!dv_parse_i64(dv_sv_c(v), out) || *out < 0))
        return dv_err_field(m->err, DV_INVALID, label, "label %s must be a number, not \"%.64s\"", label, v);
    return DV_OK;
}

static int map_idle(struct map *m, cJSON *scale, bool to_zero)
{
    const char *label = "com.openfaas.scale.zero-duration", *v = dv_of_text(member(m->in, "labels"), label);
    int64_t ms = 0;
    if (!to_zero)
        return DV_OK; /* as the cluster says */
    if (dv_parse_duration_ms(dv_sv_c(v ? v : "15m"), &ms) || ms <= 0)
        return dv_err_field(m->err, DV_INVALID, label,
                            "label %s must be a duration, as \"15m\", not \"%.64s\"", label, v);
    char text[32];
    dv_format_duration(ms, text);
    put(m, scale, "idle", cJSON_CreateString(text));
    return DV_OK;
}

/* max_inflight of the watchdog: what one replica takes at once; 0: not said. */
static int64_t max_inflight(struct map *m)
{
    const char *text = dv_of_text(member(m->in, "envVars"), "max_inflight");
    int64_t n = 0;
    return text && dv_parse_i64(dv_sv_c(text), &n) && n > 0 && n <= CONCURRENCY_MAX ? n : 0;
}

static int read_proportion(struct map *m, double *out)
{
    const char *label = LABEL_SCALE "target-proportion", *v = dv_of_text(member(m->in, "labels"), label);
    *out = 0.9;
    if (v && (!dv_parse_double(dv_sv_c(v), out) || *out <= 0 || *out > 1))
        return dv_err_field(m->err, DV_INVALID, label, "label %s must be above 0 and at most 1", label);
    return DV_OK;
}

/* `wanted` requests inside of one replica. */
static void put_capacity(struct map *m, cJSON *scale, double wanted, int64_t concurrency)
{
    wanted = fmin(wanted, CONCURRENCY_MAX);
    if (concurrency)
        wanted = fmin(wanted, (double)concurrency);
    else if (wanted > CONCURRENCY_HTTP)
        put(m, scale, "concurrency", cJSON_CreateNumber(wanted));
    put(m, scale, "target", cJSON_CreateNumber(wanted));
}

/* What one replica should carry.  Without a word on it: in-flight as everywhere, and 5 requests a second,
 * about where the community edition's alert fires. */
static int map_target(struct map *m, cJSON *scale)
{
    const cJSON *labels = member(m->in, "labels");
    const char *type = dv_of_text(labels, LABEL_SCALE "type");
    bool has_target = dv_of_text(labels, LABEL_SCALE "target") != NULL;
    int64_t target, concurrency = max_inflight(m);
    double proportion;
    int rc = label_number(m, LABEL_SCALE "target", 50, &target);
    if (!rc)
        rc = read_proportion(m, &proportion);
    if (rc)
        return rc;
    if (concurrency)
        put(m, scale, "concurrency", cJSON_CreateNumber((double)concurrency));
    double wanted = fmax(1, floor((double)target * proportion + 1e-9));
    if (type && strcmp(type, "capacity") == 0)
        put_capacity(m, scale, wanted, concurrency);
    else if (!type && !has_target)
        put(m, scale, "rps", cJSON_CreateNumber(RPS_UNSAID));
    else if (!type || strcmp(type, "rps") == 0)
        put(m, scale, "rps", cJSON_CreateNumber(fmin(wanted, RPS_MAX)));
    return DV_OK;
}

bool dv_of_scale_note(const struct dv_fn_spec *spec, char *out, size_t cap)
{
    const char *type = dv_kvs_find(&spec->labels, LABEL_SCALE "type");
    if (!type || !*type || strcmp(type, "rps") == 0 || strcmp(type, "capacity") == 0)
        return false;
    (void)snprintf(out, cap,
                   "scaling type \"%.32s\" is steered by requests in flight: no metrics of that kind are "
                   "collected",
                   type);
    return true;
}

int64_t dv_of_first_replicas(const struct dv_fn_spec *spec)
{
    const char *label = dv_kvs_find(&spec->labels, LABEL_SCALE "min");
    int64_t n;
    if (!label || !dv_parse_i64(dv_sv_c(label), &n) || n < 1)
        return 1;
    return n > spec->scale.max ? spec->scale.max : n;
}

static int map_scale(struct map *m)
{
    const char *zero = dv_of_text(member(m->in, "labels"), "com.openfaas.scale.zero");
    bool to_zero = zero && (strcmp(zero, "true") == 0 || strcmp(zero, "1") == 0);
    cJSON *scale = sub(m, "scale");
    int64_t min, max;
    int rc = label_number(m, "com.openfaas.scale.min", 1, &min);
    if (!rc)
        rc = label_number(m, "com.openfaas.scale.max", 20, &max);
    if (rc)
        return rc;
    max = max < 1 ? 1 : max;
    min = min < 1 ? 1 : min;
    if (min > max && !dv_of_text(member(m->in, "labels"), "com.openfaas.scale.max"))
        max = min;
    put(m, scale, "min", cJSON_CreateNumber(to_zero ? 0 : (double)min));
    put(m, scale, "max", cJSON_CreateNumber((double)max));
    rc = map_idle(m, scale, to_zero);
    return rc ? rc : map_target(m, scale);
}

/* Seconds or a Go duration. */
static bool read_time(const char *s, int64_t *out_ms)
{
    uint64_t seconds;
    if (s && dv_parse_u64(dv_sv_c(s), &seconds) && seconds <= 86400) {
        *out_ms = (int64_t)seconds * 1000;
        return true;
    }
    return s && dv_parse_duration_ms(dv_sv_c(s), out_ms) == DV_OK;
}

static void put_duration(struct map *m, cJSON *to, const char *name, int64_t ms)
{
    char text[32];
    dv_format_duration(ms, text);
    put(m, to, name, cJSON_CreateString(text));
}

static void map_times(struct map *m)
{
    const cJSON *notes = member(m->in, "annotations");
    int64_t ms;
    if (read_time(dv_of_text(member(m->in, "envVars"), "exec_timeout"), &ms) && ms > TIMEOUT_MS &&
        ms <= 86400000)
        put_duration(m, m->out, "timeout", ms);
    const char *path = dv_of_text(notes, "com.openfaas.ready.http.path");
    path = path ? path : dv_of_text(notes, "com.openfaas.health.http.path");
    if (path)
        put(m, sub(m, "health"), "path", cJSON_CreateString(path));
    const char *timeout = dv_of_text(notes, "com.openfaas.ready.http.timeoutSeconds");
    timeout = timeout ? timeout : dv_of_text(notes, "com.openfaas.health.http.timeoutSeconds");
    if (read_time(timeout, &ms) && ms > 0 && ms <= 600000)
        put_duration(m, sub(m, "health"), "timeout", ms);
}

static int map_all(struct map *m)
{
    const cJSON *ns = member(m->in, "namespace");
    copy_member(m, "service", "name");
    copy_member(m, "image", "image");
    put(m, m->out, "namespace",
        cJSON_IsString(ns) || !ns ? cJSON_CreateString(dv_of_ns_in(ns ? ns->valuestring : NULL))
                                  : cJSON_Duplicate(ns, true));
    map_env(m);
    copy_member(m, "constraints", "constraints");
    copy_member(m, "secrets", "secrets");
    copy_member(m, "labels", "labels");
    copy_member(m, "annotations", "annotations");
    map_resources(m, "limits");
    map_resources(m, "requests");
    const cJSON *read_only = member(m->in, "readOnlyRootFilesystem");
    put(m, m->out, "read_only", read_only ? cJSON_Duplicate(read_only, true) : cJSON_CreateFalse());
    put(m, m->out, "face", cJSON_CreateString("openfaas"));
    map_times(m);
    int rc = map_scale(m);
    return rc ? rc : m->no_memory ? dv_api_no_memory(m->err) : DV_OK;
}

/* Native field names in a message become the deployer's. */
static void rename_field(struct dv_err *err)
{
    static const char *const names[][2] = {
        {"name", "service"}, {"env", "envVars"}, {"read_only", "readOnlyRootFilesystem"}};
    if (!err)
        return;
    for (size_t i = 0; i < DV_COUNT(names); i++) {
        size_t n = strlen(names[i][0]);
        char end = err->field[n < sizeof(err->field) ? n : 0];
        if (strncmp(err->field, names[i][0], n) != 0 || (end && end != '.' && end != '['))
            continue;
        struct dv_err old = *err;
        bool named = strncmp(old.msg, names[i][0], n) == 0;
        dv_err_field(err, old.code, names[i][1], "%s%.200s", named ? names[i][1] : "",
                     old.msg + (named ? n : 0));
        return;
    }
}

int dv_of_spec(const struct cJSON *deployment, struct dv_arena *arena, struct dv_fn_spec *out,
               struct dv_err *err)
{
    struct dv_fn_spec spec;
    struct map m = {.in = deployment, .out = cJSON_CreateObject(), .err = err};
    if (!m.out)
        return dv_api_no_memory(err);
    int rc = map_all(&m);
    if (!rc)
        rc = dv_wire_from_json(&dv_type_fn_spec, m.out, DV_WIRE_STRICT, arena, &spec, err);
    if (!rc)
        rc = dv_fn_spec_finish(&spec, arena, err);
    cJSON_Delete(m.out);
    if (rc)
        rename_field(err);
    else
        *out = spec;
    return rc;
}

/* ---------------------------------------------------------------- spec -> FunctionStatus */

static void put_env(struct dv_jw *w, const struct dv_kvs *env)
{
    const char *process = dv_kvs_find(env, "fprocess");
    dv_jw_str(w, "envProcess", process);
    if (env->n == (process ? 1u : 0u))
        return;
    dv_jw_open(w, "envVars", '{');
    for (size_t i = 0; i < env->n; i++)
        if (strcmp(env->v[i].k, "fprocess") != 0)
            dv_jw_str(w, env->v[i].k, env->v[i].v);
    dv_jw_close(w, '}');
}

/* Decimal or binary units, whichever is shorter: "2G" comes out as "2G" and not as "1953125Ki". */
static void format_memory(int64_t bytes, char out[32])
{
    static const char *const suffix[] = {"", "k", "M", "G", "T"};
    char decimal[32];
    size_t i = 0;
    dv_format_bytes(bytes, out);
    for (; bytes && bytes % 1000 == 0 && i + 1 < DV_COUNT(suffix); i++)
        bytes /= 1000;
    (void)snprintf(decimal, sizeof(decimal), "%" PRId64 "%s", bytes, suffix[i]);
    if (strlen(decimal) < strlen(out))
        memcpy(out, decimal, sizeof(decimal));
}

static void put_resources(struct dv_jw *w, const char *name, int64_t memory_bytes, int64_t cpu_mcpu)
{
    char text[32];
    if (!memory_bytes && !cpu_mcpu)
        return;
    dv_jw_open(w, name, '{');
    if (memory_bytes) {
        format_memory(memory_bytes, text);
        dv_jw_str(w, "memory", text);
    }
    if (cpu_mcpu) {
        dv_format_mcpu(cpu_mcpu, text);
        dv_jw_str(w, "cpu", text);
    }
    dv_jw_close(w, '}');
}

void dv_of_put_spec(struct dv_jw *w, const struct dv_fn_spec *spec)
{
    dv_jw_str(w, "name", spec->name);
    dv_jw_str(w, "image", spec->image);
    dv_jw_str(w, "namespace", dv_of_ns_out(spec->ns));
    put_env(w, &spec->env);
    if (spec->constraints.n)
        dv_jw_strs(w, "constraints", &spec->constraints);
    if (spec->secrets.n)
        dv_jw_strs(w, "secrets", &spec->secrets);
    dv_jw_kvs(w, "labels", &spec->labels);
    dv_jw_kvs(w, "annotations", &spec->annotations);
    put_resources(w, "limits", spec->limits.memory_bytes, spec->limits.cpu_mcpu);
    put_resources(w, "requests", spec->requests.memory_bytes, spec->requests.cpu_mcpu);
    if (spec->read_only)
        dv_jw_bool(w, "readOnlyRootFilesystem", true);
}

/* JSON -> struct.  The walker goes through the object's members, finds each in the table, and checks and
 * stores it; then it looks for required fields that did not come.  The result is built aside and moved to the
 * caller's struct whole, so that a refused message changes nothing.
 *
 * null means "not given": the field takes its default.  Under DV_WIRE_PARTIAL this is JSON merge patch (RFC
 * 7396): objects and string maps are merged member by member, null takes a member away, arrays are replaced.
 */
#include "proto/wire/codec_internal.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>

struct ctx {
    unsigned flags;
    struct dv_arena *arena;
    struct dv_err *err;
};

static int no_memory(const struct ctx *c)
{
    return dv_err_set(c->err, DV_E_NOMEM, "out of memory while decoding");
}

static const char *type_of(const cJSON *v)
{
    return cJSON_IsString(v)   ? "a string"
           : cJSON_IsNumber(v) ? "a number"
           : cJSON_IsBool(v)   ? "a boolean"
           : cJSON_IsObject(v) ? "an object"
           : cJSON_IsArray(v)  ? "an array"
                               : "null";
}

static int wrong_type(const struct ctx *c, const struct dv_path *at, const cJSON *v, const char *wanted)
{
    return dv_path_err(at, c->err, "must be %s, not %s", wanted, type_of(v));
}

/* ---------------------------------------------------------------- strings */

static int check_length(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, size_t n)
{
    if (n < (size_t)f->min)
        return dv_path_err(at, c->err, f->min == 1 ? "must not be empty" : "is too short");
    if (f->max && n > (size_t)f->max)
        return dv_path_err(at, c->err, "is too long: at most %" PRId64 " bytes", f->max);
    return DV_OK;
}

static int check_count(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, size_t n)
{
    if (f->max && n > (size_t)f->max)
        return dv_path_err(at, c->err, "has too many entries: at most %" PRId64, f->max);
    return DV_OK;
}

static int dup_string(const struct ctx *c, const cJSON *v, char **out)
{
    *out = dv_arena_strdup(c->arena, v->valuestring);
    return *out ? DV_OK : no_memory(c);
}

static int get_str(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                   char **out)
{
    if (!cJSON_IsString(v))
        return wrong_type(c, at, v, "a string");
    int rc = check_length(c, f, at, strlen(v->valuestring));
    if (rc)
        return rc;
    const char *wrong = f->check ? f->check(v->valuestring) : NULL;
    if (wrong)
        return dv_path_err(at, c->err, "%s", wrong);
    return dup_string(c, v, out);
}

static int get_strs(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                    struct dv_strs *out)
{
    if (!cJSON_IsArray(v))
        return wrong_type(c, at, v, "an array of strings");
    struct dv_strs l = {.n = (size_t)cJSON_GetArraySize(v)};
    int rc = check_count(c, f, at, l.n);
    if (rc)
        return rc;
    if (l.n && !(l.v = dv_arena_zalloc(c->arena, l.n * sizeof(*l.v))))
        return no_memory(c);
    size_t i = 0;
    const cJSON *e;
    cJSON_ArrayForEach (e, v) {
        struct dv_path here = {at, NULL, i};
        if (!cJSON_IsString(e))
            return wrong_type(c, &here, e, "a string");
        const char *wrong = f->check ? f->check(e->valuestring) : NULL;
        if (wrong)
            return dv_path_err(&here, c->err, "%s", wrong);
        rc = dup_string(c, e, &l.v[i++]);
        if (rc)
            return rc;
    }
    *out = l;
    return DV_OK;
}

static size_t kvs_place(const struct dv_kvs *m, const char *key)
{
    size_t i = 0;
    while (i < m->n && strcmp(m->v[i].k, key) != 0)
        i++;
    return i;
}

static int get_kv(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *e,
                  struct dv_kv *out)
{
    const char *wrong = f->check ? f->check(e->string) : NULL;
    if (wrong)
        return dv_path_err(at, c->err, "the key %s", wrong);
    if (!cJSON_IsString(e))
        return dv_path_err(at, c->err, "must be a string, not %s: put the value in quotes", type_of(e));
    out->k = dv_arena_strdup(c->arena, e->string);
    if (!out->k)
        return no_memory(c);
    return dup_string(c, e, &out->v);
}

/* out holds the map so far: empty, or under PARTIAL what is to be merged with. */
static int get_kvs(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                   struct dv_kvs *out)
{
    if (!cJSON_IsObject(v))
        return wrong_type(c, at, v, "an object of strings");
    bool merges = (c->flags & DV_WIRE_PARTIAL) && out->n;
    struct dv_kvs m = {0};
    size_t cap = (merges ? out->n : 0) + (size_t)cJSON_GetArraySize(v);
    if (cap && !(m.v = dv_arena_zalloc(c->arena, cap * sizeof(*m.v))))
        return no_memory(c);
    if (merges) {
        memcpy(m.v, out->v, out->n * sizeof(*m.v));
        m.n = out->n;
    }
    const cJSON *e;
    cJSON_ArrayForEach (e, v) {
        size_t i = merges ? kvs_place(&m, e->string) : m.n; /* keys of one object differ */
        if (cJSON_IsNull(e)) {
            if (i < m.n)
                m.v[i] = m.v[--m.n];
            continue;
        }
        struct dv_path here = {at, e->string, 0};
        int rc = get_kv(c, f, &here, e, &m.v[i]);
        if (rc)
            return rc;
        m.n += i == m.n;
    }
    int rc = check_count(c, f, at, m.n);
    if (rc)
        return rc;
    dv_kvs_sort(&m);
    *out = m;
    return DV_OK;
}

/* ---------------------------------------------------------------- numbers */

static int check_range(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, int64_t v,
                       void (*format)(int64_t v, char out[32]))
{
    if ((f->min == 0 && f->max == 0) || (v == 0 && (f->flags & DV_F_ZERO_OK)) || (v >= f->min && v <= f->max))
        return DV_OK;
    char lo[32], hi[32];
    format(f->min, lo);
    format(f->max, hi);
    return dv_path_err(at, c->err, "must be %s to %s", lo, hi);
}

static void format_plain(int64_t v, char out[32])
{
    (void)snprintf(out, 32, "%" PRId64, v); /* 20 digits always fit */
}

/* A whole number that a double holds exactly. */
static bool whole(const cJSON *v, int64_t *out)
{
    double d = v->valuedouble;
    if (!cJSON_IsNumber(v) || d != floor(d) || fabs(d) > (double)DV_WIRE_INT_MAX)
        return false;
    *out = (int64_t)d;
    return true;
}

static int get_int(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                   int64_t *out)
{
    int64_t n;
    if (cJSON_IsString(v) && dv_parse_i64(dv_sv_c(v->valuestring), &n)) {
        if (n <= DV_WIRE_INT_MAX && n >= -DV_WIRE_INT_MAX)
            return wrong_type(c, at, v, "a number");
    } else if (!cJSON_IsNumber(v)) {
        return wrong_type(c, at, v, "a number");
    } else if (!whole(v, &n)) {
        return dv_path_err(at, c->err, "must be a whole number; past 2^52 a string of digits");
    }
    int rc = check_range(c, f, at, n, format_plain);
    if (!rc)
        *out = n;
    return rc;
}

static int get_u64(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                   uint64_t *out)
{
    uint64_t big;
    int64_t n;
    if (cJSON_IsString(v) && dv_parse_u64(dv_sv_c(v->valuestring), &big) && big > (uint64_t)DV_WIRE_INT_MAX) {
        *out = big;
        return DV_OK;
    }
    if (!cJSON_IsNumber(v))
        return wrong_type(c, at, v, "a number");
    if (!whole(v, &n) || n < 0)
        return dv_path_err(at, c->err, "must be a whole number from 0; past 2^52 a string of digits");
    int rc = check_range(c, f, at, n, format_plain);
    if (!rc)
        *out = (uint64_t)n;
    return rc;
}

static int get_num(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                   double *out)
{
    if (!cJSON_IsNumber(v))
        return wrong_type(c, at, v, "a number");
    double d = v->valuedouble;
    bool is_bounded = f->min != 0 || f->max != 0;
    if (is_bounded && (d < (double)f->min || d > (double)f->max))
        return dv_path_err(at, c->err, "must be %" PRId64 " to %" PRId64, f->min, f->max);
    *out = d;
    return DV_OK;
}

static int get_id(const struct ctx *c, const struct dv_path *at, const cJSON *v, uint64_t *out)
{
    if (!cJSON_IsString(v) || strlen(v->valuestring) != 16 || !dv_parse_hex64(dv_sv_c(v->valuestring), out))
        return dv_path_err(at, c->err, "must be an id: a string of 16 hex digits");
    return DV_OK;
}

struct quantity {
    int (*parse)(struct dv_sv s, int64_t *out);
    void (*format)(int64_t v, char out[32]);
    const char *wanted;
    bool number_ok; /* a bare number has one meaning only */
};
static const struct quantity duration = {dv_parse_duration_ms, dv_format_duration,
                                         "a duration with its unit, as \"30s\" or \"1m30s\"", false};
static const struct quantity bytes = {dv_parse_bytes, dv_format_bytes,
                                      "an amount of bytes, as \"128Mi\" or \"1G\"", true};
static const struct quantity mcpu = {dv_parse_mcpu, dv_format_mcpu,
                                     "an amount of processors, as \"500m\", \"0.5\" or \"2\"", false};

static int get_quantity(const struct ctx *c, const struct dv_field *f, const struct dv_path *at,
                        const cJSON *v, const struct quantity *q, int64_t *out)
{
    int64_t n;
    bool ok = cJSON_IsString(v)   ? q->parse(dv_sv_c(v->valuestring), &n) == DV_OK
              : cJSON_IsNumber(v) ? q->number_ok && whole(v, &n) && n >= 0
                                  : false;
    if (!ok)
        return dv_path_err(at, c->err, "must be %s", q->wanted);
    int rc = check_range(c, f, at, n, q->format);
    if (!rc)
        *out = n;
    return rc;
}

static int get_enum(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                    int *out)
{
    char known[160] = "";
    for (int i = 0; f->names[i]; i++) {
        if (cJSON_IsString(v) && strcmp(v->valuestring, f->names[i]) == 0) {
            *out = i;
            return DV_OK;
        }
        size_t n = strlen(known);
        (void)snprintf(known + n, sizeof(known) - n, "%s\"%s\"", i ? ", " : "",
                       f->names[i]); /* for a person */
    }
    return dv_path_err(at, c->err, "must be one of %s", known);
}

/* ---------------------------------------------------------------- messages */

static int get_message(const struct ctx *c, const struct dv_wire_type *t, const struct dv_path *at,
                       const cJSON *v, void *msg);

static int get_pointer(const struct ctx *c, const struct dv_field *f, const struct dv_path *at,
                       const cJSON *v, void **out)
{
    void *p = dv_arena_alloc(c->arena, f->type->size);
    if (!p)
        return no_memory(c);
    struct ctx inner = *c;
    if ((c->flags & DV_WIRE_PARTIAL) && *out)
        memcpy(p, *out, f->type->size);
    else
        inner.flags &= ~(unsigned)DV_WIRE_PARTIAL; /* nothing there to keep */
    if (!(inner.flags & DV_WIRE_PARTIAL))
        dv_wire_defaults(f->type, p);
    int rc = get_message(&inner, f->type, at, v, p);
    if (!rc)
        *out = p;
    return rc;
}

/* IDS and LIST. */
static int get_array(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                     void *msg)
{
    if (!cJSON_IsArray(v))
        return wrong_type(c, at, v, "an array");
    size_t n = (size_t)cJSON_GetArraySize(v), size = f->type ? f->type->size : sizeof(uint64_t);
    int rc = check_count(c, f, at, n);
    if (rc)
        return rc;
    char *all = n ? dv_arena_zalloc(c->arena, n * size) : NULL;
    if (n && !all)
        return no_memory(c);
    struct ctx inner = *c;
    inner.flags &= ~(unsigned)DV_WIRE_PARTIAL; /* arrays are replaced whole */
    size_t i = 0;
    const cJSON *e;
    cJSON_ArrayForEach (e, v) {
        struct dv_path here = {at, NULL, i};
        void *one = all + i++ * size;
        if (f->type)
            dv_wire_defaults(f->type, one);
        rc = f->type ? get_message(&inner, f->type, &here, e, one) : get_id(c, &here, e, one);
        if (rc)
            return rc;
    }
    *(void **)dv_at(msg, f->offset) = all;
    *(size_t *)dv_at(msg, f->n_offset) = n;
    return DV_OK;
}

static int get_field(const struct ctx *c, const struct dv_field *f, const struct dv_path *at, const cJSON *v,
                     void *msg)
{
    void *to = dv_at(msg, f->offset);
    if (cJSON_IsNull(v)) {
        if (f->flags & DV_F_REQUIRED)
            return dv_path_err(at, c->err, "must be given");
        dv_field_default(f, msg);
        return DV_OK;
    }
    switch (f->kind) {
    case DV_K_STR:
        return get_str(c, f, at, v, to);
    case DV_K_BOOL:
        if (!cJSON_IsBool(v))
            return wrong_type(c, at, v, "true or false");
        *(bool *)to = cJSON_IsTrue(v);
        return DV_OK;
    case DV_K_INT:
        return get_int(c, f, at, v, to);
    case DV_K_U64:
        return get_u64(c, f, at, v, to);
    case DV_K_ID:
        return get_id(c, at, v, to);
    case DV_K_DURATION:
        return get_quantity(c, f, at, v, &duration, to);
    case DV_K_BYTES:
        return get_quantity(c, f, at, v, &bytes, to);
    case DV_K_MCPU:
        return get_quantity(c, f, at, v, &mcpu, to);
    case DV_K_NUM:
        return get_num(c, f, at, v, to);
    case DV_K_ENUM:
        return get_enum(c, f, at, v, to);
    case DV_K_STRS:
        return get_strs(c, f, at, v, to);
    case DV_K_KVS:
        return get_kvs(c, f, at, v, to);
    case DV_K_OBJECT:
        return get_message(c, f->type, at, v, to);
    case DV_K_POINTER:
        return get_pointer(c, f, at, v, to);
    case DV_K_IDS:
    case DV_K_LIST:
        return get_array(c, f, at, v, msg);
    case DV_K_COUNT:
        break;
    }
    return dv_err_set(c->err, DV_E_BUG, "table %s: field %s has no kind", f->name, f->name);
}

static size_t find_field(const struct dv_wire_type *t, const char *name)
{
    size_t i = 0;
    while (i < t->n_fields && strcmp(t->fields[i].name, name) != 0)
        i++;
    return i;
}

/* Rules across fields of a message: the check names the field from the message's own point of view. */
static int check_message(const struct ctx *c, const struct dv_wire_type *t, const struct dv_path *at,
                         const void *msg)
{
    struct dv_err found = DV_ERR_INIT;
    int rc = t->check ? t->check(msg, c->flags, &found) : DV_OK;
    if (!rc)
        return DV_OK;
    struct dv_path here = {at, found.field, 0};
    return dv_path_err(found.field[0] ? &here : at, c->err, "%s", found.msg);
}

/* msg holds defaults, or under PARTIAL what it was before. */
static int get_message(const struct ctx *c, const struct dv_wire_type *t, const struct dv_path *at,
                       const cJSON *v, void *msg)
{
    if (!cJSON_IsObject(v))
        return wrong_type(c, at, v, "an object");
    uint64_t seen = 0;
    const cJSON *e;
    cJSON_ArrayForEach (e, v) {
        size_t i = find_field(t, e->string);
        struct dv_path here = {at, e->string, 0};
        if (i == t->n_fields) {
            if (c->flags & DV_WIRE_IGNORE_UNKNOWN)
                continue;
            return dv_path_err(&here, c->err, "unknown field");
        }
        seen |= 1ull << i;
        int rc = get_field(c, &t->fields[i], &here, e, msg);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        bool missing = (t->fields[i].flags & DV_F_REQUIRED) && !(seen & 1ull << i);
        struct dv_path here = {at, t->fields[i].name, 0};
        if (missing && !(c->flags & DV_WIRE_PARTIAL))
            return dv_path_err(&here, c->err, "must be given");
    }
    return check_message(c, t, at, msg);
}

int dv_wire_from_json(const struct dv_wire_type *t, const struct cJSON *tree, unsigned flags,
                      struct dv_arena *arena, void *out, struct dv_err *err)
{
    struct ctx c = {flags, arena, err};
    void *msg = dv_arena_alloc(arena, t->size);
    if (!msg)
        return no_memory(&c);
    if (flags & DV_WIRE_PARTIAL)
        memcpy(msg, out, t->size);
    else
        dv_wire_defaults(t, msg);
    int rc = get_message(&c, t, NULL, tree, msg);
    if (!rc)
        memcpy(out, msg, t->size);
    return rc;
}

int dv_wire_decode(const struct dv_wire_type *t, struct dv_sv json, size_t max_bytes, unsigned flags,
                   struct dv_arena *arena, void *out, struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_json_parse(json, max_bytes, &tree, err);
    if (rc)
        return rc;
    rc = dv_wire_from_json(t, tree, flags, arena, out, err);
    cJSON_Delete(tree);
    return rc;
}

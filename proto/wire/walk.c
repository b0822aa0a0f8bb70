/* The walkers that need no JSON: defaults, deep copy, comparison; and the path of an error. */
#include "proto/wire/codec_internal.h"

#include "proto/base/alloc.h"

/* ---------------------------------------------------------------- path */

void dv_path_text(const struct dv_path *p, char *out, size_t cap)
{
    if (!p) {
        out[0] = '\0';
        return;
    }
    dv_path_text(p->up, out, cap);
    size_t n = strlen(out);
    if (p->name)
        (void)snprintf(out + n, cap - n, "%s%s", n ? "." : "", p->name); /* cut short is fine: for a person */
    else
        (void)snprintf(out + n, cap - n, "[%zu]", p->index);
}

int dv_path_err(const struct dv_path *p, struct dv_err *err, const char *fmt, ...)
{
    char msg[sizeof(err->msg)], field[sizeof(err->field)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, ap); /* cut short is fine: for a person */
    va_end(ap);
    dv_path_text(p, field, sizeof(field));
    if (!field[0])
        return dv_err_set(err, DV_INVALID, "%s", msg);
    return dv_err_field(err, DV_INVALID, field, "%s: %s", field, msg);
}

/* ---------------------------------------------------------------- defaults */

void dv_field_default(const struct dv_field *f, void *msg)
{
    void *at = dv_at(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        *(char **)at = (char *)f->def_str;
        break;
    case DV_K_BOOL:
        *(bool *)at = f->def != 0;
        break;
    case DV_K_ENUM:
        *(int *)at = (int)f->def;
        break;
    case DV_K_INT:
    case DV_K_U64:
    case DV_K_ID:
    case DV_K_DURATION:
    case DV_K_BYTES:
    case DV_K_MCPU:
        *(int64_t *)at = f->def;
        break;
    case DV_K_NUM:
        *(double *)at = (double)f->def;
        break;
    case DV_K_STRS:
        *(struct dv_strs *)at = (struct dv_strs){0};
        break;
    case DV_K_KVS:
        *(struct dv_kvs *)at = (struct dv_kvs){0};
        break;
    case DV_K_OBJECT:
        dv_wire_defaults(f->type, at);
        break;
    case DV_K_IDS:
    case DV_K_LIST:
        *(size_t *)dv_at(msg, f->n_offset) = 0;
        *(void **)at = NULL;
        break;
    case DV_K_POINTER:
        *(void **)at = NULL;
        break;
    case DV_K_COUNT:
        break;
    }
}

bool dv_field_is_default(const struct dv_field *f, const void *msg)
{
    const void *at = dv_at_c(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR: {
        const char *s = *(char *const *)at;
        return !s || !f->def_str ? s == f->def_str : strcmp(s, f->def_str) == 0;
    }
    case DV_K_BOOL:
        return *(const bool *)at == (f->def != 0);
    case DV_K_ENUM:
        return *(const int *)at == (int)f->def;
    case DV_K_INT:
    case DV_K_U64:
    case DV_K_ID:
    case DV_K_DURATION:
    case DV_K_BYTES:
    case DV_K_MCPU:
        return *(const int64_t *)at == f->def;
    case DV_K_NUM:
        return *(const double *)at == (double)f->def;
    case DV_K_STRS:
        return ((const struct dv_strs *)at)->n == 0;
    case DV_K_KVS:
        return ((const struct dv_kvs *)at)->n == 0;
    case DV_K_IDS:
    case DV_K_LIST:
        return dv_count_at(msg, f) == 0;
    case DV_K_POINTER:
        return *(void *const *)at == NULL;
    case DV_K_OBJECT:
        for (size_t i = 0; i < f->type->n_fields; i++)
            if (!dv_field_is_default(&f->type->fields[i], at))
                return false;
        return true;
    case DV_K_COUNT:
        break;
    }
    return false;
}

void dv_wire_defaults(const struct dv_wire_type *t, void *out)
{
    memset(out, 0, t->size);
    for (size_t i = 0; i < t->n_fields; i++)
        dv_field_default(&t->fields[i], out);
}

/* ---------------------------------------------------------------- size of a copy */

/* Counts what the copy below takes of an arena, in the same order: objects aligned to 16, strings not. */
static void count(size_t *used, size_t n, size_t align)
{
    *used = ((*used + align - 1) & ~(align - 1)) + n;
}

static void count_str(size_t *used, const char *s)
{
    if (s)
        count(used, strlen(s) + 1, 1);
}

static void count_inside(const struct dv_wire_type *t, size_t *used, const void *msg);

static void count_array(const struct dv_wire_type *t, size_t *used, const void *p, size_t n, size_t size)
{
    if (!n || !p)
        return;
    count(used, n * size, 16);
    for (size_t i = 0; t && i < n; i++)
        count_inside(t, used, (const char *)p + i * size);
}

static void count_field(const struct dv_field *f, size_t *used, const void *msg)
{
    const void *at = dv_at_c(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        count_str(used, *(char *const *)at);
        break;
    case DV_K_STRS: {
        const struct dv_strs *l = at;
        count_array(NULL, used, l->v, l->n, sizeof(*l->v));
        for (size_t i = 0; i < l->n; i++)
            count_str(used, l->v[i]);
        break;
    }
    case DV_K_KVS: {
        const struct dv_kvs *m = at;
        count_array(NULL, used, m->v, m->n, sizeof(*m->v));
        for (size_t i = 0; i < m->n; i++) {
            count_str(used, m->v[i].k);
            count_str(used, m->v[i].v);
        }
        break;
    }
    case DV_K_OBJECT:
        count_inside(f->type, used, at);
        break;
    case DV_K_POINTER:
        count_array(f->type, used, *(void *const *)at, 1, f->type->size);
        break;
    case DV_K_LIST:
        count_array(f->type, used, *(void *const *)at, dv_count_at(msg, f), f->type->size);
        break;
    case DV_K_IDS:
        count_array(NULL, used, *(void *const *)at, dv_count_at(msg, f), sizeof(uint64_t));
        break;
    default:
        break;
    }
}

static void count_inside(const struct dv_wire_type *t, size_t *used, const void *msg)
{
    for (size_t i = 0; i < t->n_fields; i++)
        count_field(&t->fields[i], used, msg);
}

/* ---------------------------------------------------------------- copy */

static int copy_str(struct dv_arena *a, char **s)
{
    if (!*s)
        return DV_OK;
    *s = dv_arena_strdup(a, *s);
    return *s ? DV_OK : DV_E_NOMEM;
}

static int copy_strs(struct dv_arena *a, struct dv_strs *l)
{
    if (!l->n)
        return DV_OK;
    char **v = dv_arena_alloc(a, l->n * sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    memcpy(v, l->v, l->n * sizeof(*v));
    l->v = v;
    for (size_t i = 0; i < l->n; i++)
        if (copy_str(a, &v[i]))
            return DV_E_NOMEM;
    return DV_OK;
}

static int copy_kvs(struct dv_arena *a, struct dv_kvs *m)
{
    if (!m->n)
        return DV_OK;
    struct dv_kv *v = dv_arena_alloc(a, m->n * sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    memcpy(v, m->v, m->n * sizeof(*v));
    m->v = v;
    for (size_t i = 0; i < m->n; i++)
        if (copy_str(a, &v[i].k) || copy_str(a, &v[i].v))
            return DV_E_NOMEM;
    return DV_OK;
}

static int copy_inside(const struct dv_wire_type *t, struct dv_arena *a, void *msg);

/* n elements behind *p, each of `size` bytes and, unless t is NULL, with insides of its own. */
static int copy_array(const struct dv_wire_type *t, struct dv_arena *a, void **p, size_t n, size_t size)
{
    if (!n || !*p)
        return DV_OK;
    char *v = dv_arena_alloc(a, n * size);
    if (!v)
        return DV_E_NOMEM;
    memcpy(v, *p, n * size);
    *p = v;
    for (size_t i = 0; t && i < n; i++)
        if (copy_inside(t, a, v + i * size))
            return DV_E_NOMEM;
    return DV_OK;
}

static int copy_field(const struct dv_field *f, struct dv_arena *a, void *msg)
{
    void *at = dv_at(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        return copy_str(a, at);
    case DV_K_STRS:
        return copy_strs(a, at);
    case DV_K_KVS:
        return copy_kvs(a, at);
    case DV_K_OBJECT:
        return copy_inside(f->type, a, at);
    case DV_K_POINTER:
        return copy_array(f->type, a, at, 1, f->type->size);
    case DV_K_LIST:
        return copy_array(f->type, a, at, dv_count_at(msg, f), f->type->size);
    case DV_K_IDS:
        return copy_array(NULL, a, at, dv_count_at(msg, f), sizeof(uint64_t));
    default:
        return DV_OK; /* plain values came with the struct */
    }
}

/* msg is a shallow copy already: replace what it borrows by copies. */
static int copy_inside(const struct dv_wire_type *t, struct dv_arena *a, void *msg)
{
    for (size_t i = 0; i < t->n_fields; i++)
        if (copy_field(&t->fields[i], a, msg))
            return DV_E_NOMEM;
    return DV_OK;
}

int dv_wire_copy(const struct dv_wire_type *t, const void *from, struct dv_arena *arena, void *to)
{
    void *copy = dv_alloc(t->size); /* to stays as it is until all went well */
    if (!copy)
        return DV_E_NOMEM;
    memcpy(copy, from, t->size);
    size_t bytes = 0;
    if (!arena->blocks)
        count_inside(t, &bytes, from);
    int rc = dv_arena_reserve(arena, bytes);
    if (!rc)
        rc = copy_inside(t, arena, copy);
    if (!rc)
        memcpy(to, copy, t->size);
    dv_free(copy);
    return rc;
}

/* ---------------------------------------------------------------- compare */

static bool same_str(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_strs(const struct dv_strs *a, const struct dv_strs *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!same_str(a->v[i], b->v[i]))
            return false;
    return true;
}

static bool same_kvs(const struct dv_kvs *a, const struct dv_kvs *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!same_str(a->v[i].k, b->v[i].k) || !same_str(a->v[i].v, b->v[i].v))
            return false;
    return true;
}

static bool same_field(const struct dv_field *f, const void *a, const void *b)
{
    const void *x = dv_at_c(a, f->offset), *y = dv_at_c(b, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        return same_str(*(char *const *)x, *(char *const *)y);
    case DV_K_BOOL:
        return *(const bool *)x == *(const bool *)y;
    case DV_K_ENUM:
        return *(const int *)x == *(const int *)y;
    case DV_K_NUM:
        return *(const double *)x == *(const double *)y;
    case DV_K_STRS:
        return same_strs(x, y);
    case DV_K_KVS:
        return same_kvs(x, y);
    case DV_K_OBJECT:
        return dv_wire_equal(f->type, x, y);
    case DV_K_POINTER: {
        const void *p = *(void *const *)x, *q = *(void *const *)y;
        return p && q ? dv_wire_equal(f->type, p, q) : p == q;
    }
    case DV_K_IDS:
    case DV_K_LIST: {
        size_t n = dv_count_at(a, f);
        if (n != dv_count_at(b, f))
            return false;
        const char *p = *(char *const *)x, *q = *(char *const *)y;
        if (f->kind == DV_K_IDS)
            return n == 0 || memcmp(p, q, n * sizeof(uint64_t)) == 0;
        for (size_t i = 0; i < n; i++)
            if (!dv_wire_equal(f->type, p + i * f->type->size, q + i * f->type->size))
                return false;
        return true;
    }
    default:
        return *(const int64_t *)x == *(const int64_t *)y;
    }
}

bool dv_wire_equal(const struct dv_wire_type *t, const void *a, const void *b)
{
    for (size_t i = 0; i < t->n_fields; i++)
        if (!same_field(&t->fields[i], a, b))
            return false;
    return true;
}

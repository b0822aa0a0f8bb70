/* Struct -> JSON: fields in table order, compact.  Failures of the buffer stick in it and are read once at
 * the end. */
#include "proto/wire/codec_internal.h"

#include <inttypes.h>

static void put_str(struct dv_buf *out, const char *s)
{
    (void)dv_buf_add_json(out, dv_sv_c(s ? s : "")); /* sticks in out->failed, as every write here */
}

static void put_i64(struct dv_buf *out, int64_t v)
{
    bool as_text = v > DV_WIRE_INT_MAX || v < -DV_WIRE_INT_MAX;
    (void)dv_buf_addf(out, as_text ? "\"%" PRId64 "\"" : "%" PRId64, v);
}

static void put_u64(struct dv_buf *out, uint64_t v)
{
    (void)dv_buf_addf(out, v > (uint64_t)DV_WIRE_INT_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, v);
}

/* With as few digits as read back as the same. */
static void put_num(struct dv_buf *out, double v)
{
    char text[40];
    double back = 0;
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v); /* 24 characters at most */
        if (dv_parse_double(dv_sv_c(text), &back) && back == v)
            break;
    }
    (void)dv_buf_add_c(out, text);
}

static void put_id(struct dv_buf *out, uint64_t id)
{
    char text[DV_ID_TEXT];
    dv_id_text(id, text);
    put_str(out, text);
}

static void put_quantity(struct dv_buf *out, int64_t v, void (*format)(int64_t v, char out[32]))
{
    char text[32];
    format(v, text);
    put_str(out, text);
}

static void put_strs(struct dv_buf *out, const struct dv_strs *l)
{
    (void)dv_buf_add_char(out, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            (void)dv_buf_add_char(out, ',');
        put_str(out, l->v[i]);
    }
    (void)dv_buf_add_char(out, ']');
}

static void put_kvs(struct dv_buf *out, const struct dv_kvs *m)
{
    (void)dv_buf_add_char(out, '{');
    for (size_t i = 0; i < m->n; i++) {
        if (i)
            (void)dv_buf_add_char(out, ',');
        put_str(out, m->v[i].k);
        (void)dv_buf_add_char(out, ':');
        put_str(out, m->v[i].v);
    }
    (void)dv_buf_add_char(out, '}');
}

static void put_message(const struct dv_wire_type *t, const void *msg, struct dv_buf *out);

static void put_array(const struct dv_field *f, const void *msg, struct dv_buf *out)
{
    const char *v = *(char *const *)dv_at_c(msg, f->offset);
    size_t n = dv_count_at(msg, f);
    (void)dv_buf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            (void)dv_buf_add_char(out, ',');
        if (f->kind == DV_K_IDS)
            put_id(out, ((const uint64_t *)(const void *)v)[i]);
        else
            put_message(f->type, v + i * f->type->size, out);
    }
    (void)dv_buf_add_char(out, ']');
}

static void put_field(const struct dv_field *f, const void *msg, struct dv_buf *out)
{
    const void *at = dv_at_c(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        put_str(out, *(char *const *)at);
        break;
    case DV_K_BOOL:
        (void)dv_buf_add_c(out, *(const bool *)at ? "true" : "false");
        break;
    case DV_K_INT:
        put_i64(out, *(const int64_t *)at);
        break;
    case DV_K_U64:
        put_u64(out, *(const uint64_t *)at);
        break;
    case DV_K_ID:
        put_id(out, *(const uint64_t *)at);
        break;
    case DV_K_DURATION:
        put_quantity(out, *(const int64_t *)at, dv_format_duration);
        break;
    case DV_K_BYTES:
        put_quantity(out, *(const int64_t *)at, dv_format_bytes);
        break;
    case DV_K_MCPU:
        put_quantity(out, *(const int64_t *)at, dv_format_mcpu);
        break;
    case DV_K_NUM:
        put_num(out, *(const double *)at);
        break;
    case DV_K_ENUM:
        put_str(out, f->names[*(const int *)at]);
        break;
    case DV_K_STRS:
        put_strs(out, at);
        break;
    case DV_K_KVS:
        put_kvs(out, at);
        break;
    case DV_K_OBJECT:
        put_message(f->type, at, out);
        break;
    case DV_K_POINTER:
        put_message(f->type, *(void *const *)at, out);
        break;
    case DV_K_IDS:
    case DV_K_LIST:
        put_array(f, msg, out);
        break;
    case DV_K_COUNT:
        break;
    }
}

/* What reads back as the same when it is absent may be left out: things that can be empty always, numbers and
 * the like when their table says so, an object when nothing of it would be written. */
static bool left_out(const struct dv_field *f, const void *msg)
{
    if (f->flags & DV_F_REQUIRED)
        return false;
    const void *at = dv_at_c(msg, f->offset);
    switch (f->kind) {
    case DV_K_STR:
        return !*(char *const *)at || ((f->flags & DV_F_QUIET) && dv_field_is_default(f, msg));
    case DV_K_STRS:
    case DV_K_KVS:
    case DV_K_IDS:
    case DV_K_LIST:
    case DV_K_POINTER:
        return dv_field_is_default(f, msg);
    case DV_K_OBJECT:
        for (size_t i = 0; i < f->type->n_fields; i++)
            if (!left_out(&f->type->fields[i], at))
                return false;
        return true;
    default:
        return (f->flags & DV_F_QUIET) && dv_field_is_default(f, msg);
    }
}

static void put_message(const struct dv_wire_type *t, const void *msg, struct dv_buf *out)
{
    bool first = true;
    (void)dv_buf_add_char(out, '{');
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct dv_field *f = &t->fields[i];
        if (left_out(f, msg))
            continue;
        if (!first)
            (void)dv_buf_add_char(out, ',');
        first = false;
        put_str(out, f->name);
        (void)dv_buf_add_char(out, ':');
        put_field(f, msg, out);
    }
    (void)dv_buf_add_char(out, '}');
}

int dv_wire_encode(const struct dv_wire_type *t, const void *msg, struct dv_buf *out)
{
    put_message(t, msg, out);
    return out->failed;
}

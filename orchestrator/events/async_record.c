#include "orchestrator/events/async_record.h"

#include <stddef.h>

enum kind { TEXT, LINES, BYTES };

struct field {
    uint8_t tag;
    enum kind kind;
    bool is_required;
    size_t at; /* of its dv_sv in the record */
    const char *name;
};

static const struct field fields[] = {
#define ROW(tag, member, kind, required)                                                                     \
    {(tag), kind, (required), offsetof(struct dv_async_record, member), #member},
    DV_ASYNC_RECORD_FIELDS(ROW)
#undef ROW
};

static const char mark[] = {'D', 'A', DV_ASYNC_RECORD_VERSION};

static const struct field *field_by_tag(uint8_t tag)
{
    for (size_t i = 0; i < DV_COUNT(fields); i++)
        if (fields[i].tag == tag)
            return &fields[i];
    return NULL;
}

/* Whole lines that end in CRLF, each with a name, a colon and no other control character than HTAB. */
static bool lines_valid(struct dv_sv s)
{
    while (s.n) {
        struct dv_sv line, name, value;
        if (!dv_sv_cut(s, '\n', &line, &s) || !line.n || line.p[line.n - 1] != '\r')
            return false;
        line.n--;
        if (!dv_sv_cut(line, ':', &name, &value) || !name.n)
            return false;
        for (size_t i = 0; i < line.n; i++)
            if (((unsigned char)line.p[i] < ' ' && line.p[i] != '\t') || line.p[i] == 127)
                return false;
    }
    return true;
}

static bool text_valid(struct dv_sv s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 127)
            return false;
    return true;
}

static int check(const struct field *f, struct dv_sv v, struct dv_err *err)
{
    bool is_valid = f->kind == TEXT ? text_valid(v) : f->kind == LINES ? lines_valid(v) : true;
    if (!is_valid)
        return dv_err_set(err, DV_INVALID, "%s has characters that do not belong there", f->name);
    if (f->is_required && !v.n)
        return dv_err_set(err, DV_INVALID, "%s is missing", f->name);
    return DV_OK;
}

static void add_field(struct dv_buf *out, uint8_t tag, struct dv_sv v)
{
    uint8_t head[5] = {tag};
    for (int i = 0; i < 4; i++)
        head[1 + i] = (uint8_t)(v.n >> (8 * i));
    (void)dv_buf_add(out, head, sizeof(head)); /* a run of writes is checked at its end */
    (void)dv_buf_add_sv(out, v);
}

int dv_async_record_encode(const struct dv_async_record *r, struct dv_buf *out, struct dv_err *err)
{
    (void)dv_buf_add(out, mark, sizeof(mark));
    for (size_t i = 0; i < DV_COUNT(fields); i++) {
        struct dv_sv v = *(const struct dv_sv *)(const void *)((const char *)r + fields[i].at);
        int rc = check(&fields[i], v, err);
        if (rc)
            return rc;
        if (v.n > UINT32_MAX)
            return dv_err_set(err, DV_TOO_LARGE, "%s is too large", fields[i].name);
        if (v.n)
            add_field(out, fields[i].tag, v);
    }
    return out->failed ? dv_err_set(err, out->failed, "asynchronous request") : DV_OK;
}

/* Cut one field off *rest.  False: cut short. */
static bool next_field(struct dv_sv *rest, uint8_t *tag, struct dv_sv *value)
{
    if (rest->n < 5)
        return false;
    const uint8_t *p = (const uint8_t *)rest->p;
    size_t n = (size_t)p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16 | (size_t)p[4] << 24;
    if (rest->n - 5 < n)
        return false;
    *tag = p[0];
    *value = dv_sv(rest->p + 5, n);
    *rest = dv_sv(rest->p + 5 + n, rest->n - 5 - n);
    return true;
}

int dv_async_record_decode(struct dv_sv bytes, struct dv_async_record *out, struct dv_err *err)
{
    if (bytes.n < sizeof(mark) || memcmp(bytes.p, mark, 2))
        return dv_err_set(err, DV_INVALID, "not a record of an asynchronous request");
    if (bytes.p[2] != DV_ASYNC_RECORD_VERSION)
        return dv_err_set(err, DV_UNSUPPORTED, "record version %d, this program knows %d", bytes.p[2],
                          DV_ASYNC_RECORD_VERSION);
    struct dv_async_record r = {0};
    struct dv_sv rest = dv_sv(bytes.p + sizeof(mark), bytes.n - sizeof(mark)), value;
    while (rest.n) {
        uint8_t tag;
        if (!next_field(&rest, &tag, &value))
            return dv_err_set(err, DV_INVALID, "record cut short");
        const struct field *f = field_by_tag(tag);
        if (!f)
            continue;
        struct dv_sv *to = (struct dv_sv *)(void *)((char *)&r + f->at);
        if (to->p)
            return dv_err_set(err, DV_INVALID, "%s stands twice", f->name);
        *to = value;
    }
    for (size_t i = 0; i < DV_COUNT(fields); i++) {
        int rc = check(&fields[i], *(struct dv_sv *)(void *)((char *)&r + fields[i].at), err);
        if (rc)
            return rc;
    }
    *out = r;
    return DV_OK;
}

#include "proto/base/promtext.h"

#include <inttypes.h>
#include <math.h>

/* ---- tokens ---- */

struct cursor {
    const char *p, *end;
};

static bool at_end(const struct cursor *c)
{
    return c->p == c->end;
}

static void skip_blanks(struct cursor *c)
{
    while (!at_end(c) && (*c->p == ' ' || *c->p == '\t'))
        c->p++;
}

static bool take(struct cursor *c, char ch)
{
    if (at_end(c) || *c->p != ch)
        return false;
    c->p++;
    return true;
}

static bool is_name_start(char ch, bool colon_ok)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || (colon_ok && ch == ':');
}

static struct dv_sv take_name(struct cursor *c, bool colon_ok)
{
    const char *from = c->p;
    while (!at_end(c) && (is_name_start(*c->p, colon_ok) || (c->p > from && *c->p >= '0' && *c->p <= '9')))
        c->p++;
    return dv_sv(from, (size_t)(c->p - from));
}

static struct dv_sv take_word(struct cursor *c)
{
    const char *from = c->p;
    while (!at_end(c) && *c->p != ' ' && *c->p != '\t')
        c->p++;
    return dv_sv(from, (size_t)(c->p - from));
}

/* From behind the opening quote to behind the closing one. */
static bool take_quoted(struct cursor *c, struct dv_sv *out)
{
    const char *from = c->p;
    while (!at_end(c) && *c->p != '"') {
        if (*c->p == '\\' && (++c->p == c->end || !strchr("\\\"n", *c->p) || !*c->p))
            return false;
        c->p++;
    }
    *out = dv_sv(from, (size_t)(c->p - from));
    return take(c, '"');
}

/* ---- values ---- */

static bool read_value(struct dv_sv s, double *out)
{
    struct dv_sv bare = s;
    bool is_minus = s.n > 0 && s.p[0] == '-';
    if (s.n > 0 && (s.p[0] == '+' || s.p[0] == '-'))
        bare = dv_sv(s.p + 1, s.n - 1);
    if (dv_sv_eq_nocase(s, DV_SV("nan"))) {
        *out = (double)NAN;
        return true;
    }
    if (dv_sv_eq_nocase(bare, DV_SV("inf")) || dv_sv_eq_nocase(bare, DV_SV("infinity"))) {
        *out = is_minus ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    return dv_parse_double(s, out);
}

/* ---- lines ---- */

static int wrong(const char **why, const char *text)
{
    *why = text;
    return DV_INVALID;
}

/* Behind '{'.  out NULL: only gone through. */
static const char *take_labels(struct cursor *c, struct dv_prom_sample *out)
{
    size_t n = 0;
    struct dv_prom_label l;
    for (;;) {
        skip_blanks(c);
        if (take(c, '}'))
            break;
        l.name = take_name(c, false);
        skip_blanks(c);
        bool ok = l.name.n > 0 && take(c, '=');
        skip_blanks(c);
        if (!ok || !take(c, '"') || !take_quoted(c, &l.escaped))
            return "a label is not name=\"value\"";
        for (size_t i = 0; out && i < n; i++)
            if (dv_sv_eq(out->labels[i].name, l.name))
                return "a label stands there twice";
        if (n == DV_PROM_LABELS_MAX)
            return "too many labels";
        if (out)
            out->labels[n] = l;
        n++;
        skip_blanks(c);
        if (take(c, ','))
            continue;
        if (!take(c, '}'))
            return "labels do not end with '}'";
        break;
    }
    if (out)
        out->n_labels = n;
    return NULL;
}

/* " [timestamp]" and, of OpenMetrics, " # {labels} value [timestamp]". */
static const char *take_tail(struct cursor *c)
{
    double ignored;
    skip_blanks(c);
    if (!at_end(c) && *c->p != '#' && !dv_parse_double(take_word(c), &ignored))
        return "the timestamp is no number";
    skip_blanks(c);
    if (at_end(c))
        return NULL;
    if (!take(c, '#'))
        return "there is more on the line than a sample";
    skip_blanks(c);
    const char *why = take(c, '{') ? take_labels(c, NULL) : "an exemplar has no labels";
    if (why)
        return why;
    skip_blanks(c);
    if (!read_value(take_word(c), &ignored))
        return "an exemplar's value is no number";
    skip_blanks(c);
    if (!at_end(c) && !dv_parse_double(take_word(c), &ignored))
        return "an exemplar's timestamp is no number";
    skip_blanks(c);
    return at_end(c) ? NULL : "there is more on the line than a sample";
}

static bool is_text(struct dv_sv line)
{
    for (size_t i = 0; i < line.n; i++)
        if ((unsigned char)line.p[i] < ' ' && line.p[i] != '\t')
            return false;
    return dv_utf8_valid(line);
}

int dv_prom_line(struct dv_sv line, struct dv_prom_sample *out, const char **why)
{
    struct cursor c = {line.p, line.p + line.n};
    if (line.n > DV_PROM_LINE_MAX)
        return wrong(why, "the line is too long");
    if (!is_text(line))
        return wrong(why, "the line is no text");
    skip_blanks(&c);
    if (at_end(&c))
        return DV_NOT_FOUND;
    if (*c.p == '#')
        return dv_sv_eq(line, DV_SV("# EOF")) ? DV_CLOSED : DV_NOT_FOUND;
    out->n_labels = 0;
    out->name = take_name(&c, true);
    if (out->name.n == 0)
        return wrong(why, "the line does not begin with a metric's name");
    const char *from = c.p;
    skip_blanks(&c);
    bool is_apart = c.p > from;
    if (take(&c, '{')) {
        const char *bad = take_labels(&c, out);
        if (bad)
            return wrong(why, bad);
        is_apart = true;
        skip_blanks(&c);
    }
    if (!is_apart || !read_value(take_word(&c), &out->value))
        return wrong(why, "the value is no number");
    const char *bad = take_tail(&c);
    return bad ? wrong(why, bad) : DV_OK;
}

bool dv_prom_label_is(const struct dv_prom_label *l, const char *value)
{
    const char *p = l->escaped.p, *end = p + l->escaped.n;
    for (; p < end && *value; p++, value++) {
        char ch = *p;
        if (ch == '\\' && p + 1 < end)
            ch = *++p == 'n' ? '\n' : *p;
        if (ch != *value)
            return false;
    }
    return p == end && !*value;
}

/* ---- a whole answer ---- */

void dv_prom_reader_init(struct dv_prom_reader *r, const struct dv_prom_query *q, size_t max_bytes)
{
    *r = (struct dv_prom_reader){.query = q, .left = max_bytes};
    dv_buf_init(&r->rest, DV_PROM_LINE_MAX + 1);
}

void dv_prom_reader_deinit(struct dv_prom_reader *r)
{
    dv_buf_deinit(&r->rest);
}

static bool fits(const struct dv_prom_query *q, const struct dv_prom_sample *s)
{
    if (!dv_sv_eq(s->name, dv_sv_c(q->name)))
        return false;
    for (size_t i = 0; i < q->n_matches; i++) {
        size_t k = 0;
        while (k < s->n_labels && !dv_sv_eq(s->labels[k].name, dv_sv_c(q->matches[i].label)))
            k++;
        if (k == s->n_labels || !dv_prom_label_is(&s->labels[k], q->matches[i].value))
            return false;
    }
    return true;
}

static int count(struct dv_prom_reader *r, const struct dv_prom_sample *s, struct dv_err *err)
{
    if (!isfinite(s->value))
        return dv_err_set(err, DV_INVALID, "its value is %s", isnan(s->value) ? "NaN" : "infinite");
    if (s->value < 0)
        return dv_err_set(err, DV_INVALID, "its value is negative (%g)", s->value);
    r->sum += s->value;
    r->max = r->n_series == 0 || s->value > r->max ? s->value : r->max;
    r->n_series++;
    return DV_OK;
}

static int read_line(struct dv_prom_reader *r, struct dv_sv line, struct dv_err *err)
{
    struct dv_prom_sample s;
    const char *why = NULL;
    r->n_lines++;
    if (r->is_over)
        return dv_err_set(err, DV_INVALID, "line %" PRIu64 ": something follows \"# EOF\"", r->n_lines);
    int rc = dv_prom_line(line, &s, &why);
    if (rc == DV_INVALID)
        return dv_err_set(err, DV_INVALID, "line %" PRIu64 ": %s", r->n_lines, why);
    if (rc == DV_CLOSED)
        r->is_over = true;
    return rc == DV_OK && fits(r->query, &s) ? count(r, &s, err) : DV_OK;
}

/* The end of the line that stands in rest. */
static int complete_rest(struct dv_prom_reader *r, struct dv_sv end, struct dv_err *err)
{
    int rc = dv_buf_add_sv(&r->rest, end);
    if (rc == DV_TOO_LARGE)
        return dv_err_set(err, DV_INVALID, "line %" PRIu64 ": the line is too long", r->n_lines + 1);
    if (rc)
        return dv_err_set(err, rc, "metrics");
    rc = read_line(r, dv_buf_sv(&r->rest), err);
    dv_buf_clear(&r->rest);
    return rc;
}

static int feed(struct dv_prom_reader *r, struct dv_sv bytes, struct dv_err *err)
{
    if (bytes.n > r->left)
        return dv_err_set(err, DV_TOO_LARGE, "the answer is larger than allowed");
    r->left -= bytes.n;
    int rc = DV_OK;
    const char *nl;
    while (!rc && bytes.n && (nl = memchr(bytes.p, '\n', bytes.n))) {
        struct dv_sv line = dv_sv(bytes.p, (size_t)(nl - bytes.p));
        bytes = dv_sv(nl + 1, bytes.n - line.n - 1);
        rc = dv_buf_len(&r->rest) ? complete_rest(r, line, err) : read_line(r, line, err);
    }
    if (rc || !bytes.n)
        return rc;
    rc = dv_buf_add_sv(&r->rest, bytes);
    if (rc == DV_TOO_LARGE)
        return dv_err_set(err, DV_INVALID, "line %" PRIu64 ": the line is too long", r->n_lines + 1);
    return rc ? dv_err_set(err, rc, "metrics") : DV_OK;
}

int dv_prom_feed(struct dv_prom_reader *r, struct dv_sv bytes, struct dv_err *err)
{
    if (r->failed)
        return dv_err_set(err, r->failed, "the answer was refused");
    r->failed = feed(r, bytes, err);
    return r->failed;
}

int dv_prom_finish(struct dv_prom_reader *r, double *out, struct dv_err *err)
{
    if (r->failed)
        return dv_err_set(err, r->failed, "the answer was refused");
    if (dv_buf_len(&r->rest))
        return dv_err_set(err, DV_INVALID, "the answer ends inside a line");
    if (r->n_series == 0)
        return dv_err_set(err, DV_NOT_FOUND, "no series of that name and labels in the answer");
    double v = r->query->fold == DV_PROM_MAX   ? r->max
               : r->query->fold == DV_PROM_SUM ? r->sum
                                               : r->sum / (double)r->n_series;
    if (!isfinite(v))
        return dv_err_set(err, DV_INVALID, "its series sum up to no number");
    *out = v;
    return DV_OK;
}

/* Heads of HTTP/1.1 messages (RFC 9112), one pass, no allocation.
 *
 * Requests come from anybody and are judged without mercy: whatever two implementations could read
 * differently (how long the body is, which host is meant, where a line ends) is refused instead of repaired.
 * Responses come from the user's own container: as strict about framing, since a wrong guess would mix two
 * callers' answers, but with the liberties that real servers take (HTTP/1.0, no reason phrase, the same
 * length said twice). */
#include "proto/rt/http1_internal.h"

enum { MAX_METHOD = 32 };

/* What the framing fields said, gathered while the lines go by. */
struct framing {
    unsigned n_host, n_length, n_coding;
    size_t host_at; /* index of the Host field */
    bool is_chunked, is_bad_coding, is_bad_length, lengths_differ;
    bool close, keep_alive, upgrade;
    struct dv_sv upgrade_to;
};

/* ---- field values ---- */

/* Next element of a comma-separated list; false at its end.  Empty elements are skipped. */
static bool next_element(struct dv_sv *rest, struct dv_sv *out)
{
    while (rest->n) {
        struct dv_sv head, tail;
        (void)dv_sv_cut(*rest, ',', &head, &tail); /* no comma: the last element */
        *rest = tail;
        *out = dv_sv_trim(head);
        if (out->n)
            return true;
    }
    return false;
}

static void note_connection(struct framing *f, struct dv_h1_head *out, struct dv_sv value)
{
    struct dv_sv e;
    while (next_element(&value, &e)) {
        if (dv_sv_eq_nocase(e, DV_SV("close")))
            f->close = true;
        else if (dv_sv_eq_nocase(e, DV_SV("keep-alive")))
            f->keep_alive = true;
        else if (dv_sv_eq_nocase(e, DV_SV("upgrade")))
            f->upgrade = true;
        else
            out->names_hop_fields = true;
    }
}

/* Chunked has to be the whole of it: other codings are not understood, and chunked anywhere but last would
 * leave the length of the message open. */
static void note_coding(struct framing *f, struct dv_sv value)
{
    f->n_coding++;
    f->is_chunked = dv_sv_eq_nocase(value, DV_SV("chunked"));
    struct dv_sv e;
    bool seen = false;
    while (next_element(&value, &e)) {
        f->is_bad_coding |= seen; /* something behind chunked */
        seen |= dv_sv_eq_nocase(e, DV_SV("chunked"));
    }
}

static void note_length(struct framing *f, struct dv_h1_head *out, struct dv_sv value)
{
    uint64_t n = 0;
    if (!dv_parse_u64(value, &n) || n > INT64_MAX)
        f->is_bad_length = true;
    else if (f->n_length && n != out->content_length)
        f->lengths_differ = true;
    f->n_length++;
    out->content_length = n;
    out->has_length = true;
}

static void note_field(struct framing *f, struct dv_h1_head *out, const struct dv_h1_field *field)
{
    struct dv_sv name = field->name;
    switch (name.n) {
    case 4:
        if (dv_sv_eq_nocase(name, DV_SV("host"))) {
            f->n_host++;
            f->host_at = out->n_fields;
            out->host = field->value;
        }
        break;
    case 6:
        if (dv_sv_eq_nocase(name, DV_SV("expect")))
            out->expect_continue = dv_sv_eq_nocase(field->value, DV_SV("100-continue"));
        break;
    case 7:
        if (dv_sv_eq_nocase(name, DV_SV("upgrade")))
            f->upgrade_to = field->value;
        break;
    case 10:
        if (dv_sv_eq_nocase(name, DV_SV("connection")))
            note_connection(f, out, field->value);
        break;
    case 14:
        if (dv_sv_eq_nocase(name, DV_SV("content-length")))
            note_length(f, out, field->value);
        break;
    case 17:
        if (dv_sv_eq_nocase(name, DV_SV("transfer-encoding")))
            note_coding(f, field->value);
        break;
    default:
        break;
    }
}

static int scan_fields(struct dv_h1_scan *s, struct framing *f, struct dv_h1_head *out)
{
    for (;;) {
        if (s->p == s->end)
            return dv_h1_starved(s);
        if (*s->p == '\r')
            return dv_h1_scan_eol(s);
        if (out->n_fields == DV_H1_MAX_FIELDS)
            return dv_err_set(s->err, DV_TOO_LARGE, "more than %d header fields", DV_H1_MAX_FIELDS);
        struct dv_h1_field *field = &out->fields[out->n_fields];
        int rc = dv_h1_scan_field(s, field);
        if (rc)
            return rc;
        note_field(f, out, field);
        out->n_fields++;
    }
}

static void judge_connection(const struct framing *f, struct dv_h1_head *out)
{
    out->keep_alive = !f->close && (out->minor >= 1 || f->keep_alive);
    if (f->upgrade && out->minor >= 1)
        out->upgrade = f->upgrade_to;
}

/* The fixed members; the field array is left as it is, it is large. */
static void clear_head(struct dv_h1_head *h)
{
    h->method = h->target = h->reason = h->host = h->upgrade = dv_sv(NULL, 0);
    h->status = 0;
    h->minor = 1;
    h->n_fields = 0;
    h->body = DV_H1_NO_BODY;
    h->content_length = 0;
    h->has_length = h->keep_alive = h->expect_continue = h->names_hop_fields = false;
}

static struct dv_h1_scan scan_init(const char *p, size_t n, struct dv_err *err)
{
    bool is_full = n > DV_H1_MAX_HEAD;
    return (struct dv_h1_scan){p, p + (is_full ? DV_H1_MAX_HEAD : n), is_full, err};
}

/* ---- hosts and targets ---- */

/* host [":" port], host a name, an IPv4 address or a bracketed literal. */
static bool host_valid(struct dv_sv h)
{
    size_t i = 0;
    if (h.n && h.p[0] == '[') {
        for (i = 1; i < h.n && h.p[i] != ']'; i++)
            if (!dv_h1_is(h.p[i], DV_H1_C_HOST) || h.p[i] == '[')
                return false;
        if (i == h.n || i == 1)
            return false;
        i++;
    } else {
        for (; i < h.n && h.p[i] != ':'; i++)
            if (!dv_h1_is(h.p[i], DV_H1_C_HOST) || h.p[i] == '[' || h.p[i] == ']')
                return false;
    }
    if (i == 0)
        return false;
    if (i == h.n)
        return true;
    if (h.p[i] != ':' || h.n - i > 6)
        return false;
    for (i++; i < h.n; i++)
        if (h.p[i] < '0' || h.p[i] > '9')
            return false;
    return true;
}

static size_t scheme_bytes(struct dv_sv t)
{
    if (t.n >= 7 && dv_sv_eq_nocase(dv_sv(t.p, 7), DV_SV("http://")))
        return 7;
    if (t.n >= 8 && dv_sv_eq_nocase(dv_sv(t.p, 8), DV_SV("https://")))
        return 8;
    return 0;
}

static int take_absolute_form(struct dv_h1_head *out, const struct framing *f, size_t scheme,
                              struct dv_err *err)
{
    struct dv_sv t = out->target;
    size_t i = scheme;
    while (i < t.n && t.p[i] != '/' && t.p[i] != '?')
        i++;
    struct dv_sv authority = dv_sv(t.p + scheme, i - scheme);
    if (!host_valid(authority))
        return dv_err_field(err, DV_INVALID, "target", "invalid authority in the target");
    if (i < t.n && t.p[i] == '?') /* legal, but its path would have to be made up */
        return dv_err_field(err, DV_INVALID, "target", "absolute target without a path");
    out->target = i == t.n ? DV_SV("/") : dv_sv(t.p + i, t.n - i);
    out->host = authority;
    if (f->n_host)
        out->fields[f->host_at].value = authority;
    return DV_OK;
}

static int judge_target(struct dv_h1_head *out, const struct framing *f, struct dv_err *err)
{
    struct dv_sv t = out->target;
    bool is_connect = dv_sv_eq(out->method, DV_SV("CONNECT"));
    if (is_connect)
        return host_valid(t) ? DV_OK : dv_err_field(err, DV_INVALID, "target", "CONNECT wants host:port");
    if (t.p[0] == '/')
        return DV_OK;
    if (t.n == 1 && t.p[0] == '*' && dv_sv_eq(out->method, DV_SV("OPTIONS")))
        return DV_OK;
    size_t scheme = scheme_bytes(t);
    if (scheme)
        return take_absolute_form(out, f, scheme, err);
    return dv_err_field(err, DV_INVALID, "target", "target is neither a path nor an http URL");
}

/* ---- requests ---- */

static int scan_method(struct dv_h1_scan *s, struct dv_h1_head *out)
{
    const char *from = s->p;
    while (s->p < s->end && dv_h1_is(*s->p, DV_H1_C_TOKEN))
        s->p++;
    out->method = dv_sv(from, (size_t)(s->p - from));
    if (out->method.n > MAX_METHOD)
        return dv_err_set(s->err, DV_INVALID, "method is too long");
    if (s->p == s->end)
        return dv_h1_starved(s);
    if (*s->p != ' ' || !out->method.n)
        return dv_err_set(s->err, DV_INVALID, "request line does not start with a method and one space");
    s->p++;
    return DV_OK;
}

static int scan_target(struct dv_h1_scan *s, struct dv_h1_head *out)
{
    const char *from = s->p;
    while (s->p < s->end && dv_h1_is(*s->p, DV_H1_C_TARGET))
        s->p++;
    out->target = dv_sv(from, (size_t)(s->p - from));
    if (out->target.n > DV_H1_MAX_TARGET)
        return dv_err_field(s->err, DV_TOO_LARGE, "target", "target is longer than %d bytes",
                            DV_H1_MAX_TARGET);
    if (s->p == s->end)
        return dv_h1_starved(s);
    if (*s->p != ' ' || !out->target.n)
        return dv_err_field(s->err, DV_INVALID, "target", "invalid character in the target");
    s->p++;
    return DV_OK;
}

/* "HTTP/1.x", leaving the scanner behind it. */
static int scan_version(struct dv_h1_scan *s, struct dv_h1_head *out)
{
    static const char want[] = "HTTP/";
    for (size_t i = 0; i < 8; i++) {
        if (s->p + i == s->end)
            return dv_h1_starved(s);
        char c = s->p[i];
        bool is_ok = i < 5 ? c == want[i] : i == 6 ? c == '.' : c >= '0' && c <= '9';
        if (!is_ok)
            return dv_err_set(s->err, DV_INVALID, "no HTTP version where one belongs");
    }
    if (s->p[5] != '1')
        return dv_err_set(s->err, DV_UNSUPPORTED, "HTTP version %c.%c", s->p[5], s->p[7]);
    out->minor = s->p[7] - '0';
    s->p += 8;
    return DV_OK;
}

static int scan_request_line(struct dv_h1_scan *s, struct dv_h1_head *out)
{
    if (s->p < s->end && *s->p == '\r') { /* one empty line before it (RFC 9112, 2.2) */
        int rc = dv_h1_scan_eol(s);
        if (rc)
            return rc;
    }
    int rc = scan_method(s, out);
    if (!rc)
        rc = scan_target(s, out);
    if (!rc)
        rc = scan_version(s, out);
    return rc ? rc : dv_h1_scan_eol(s);
}

static int judge_request_body(const struct framing *f, struct dv_h1_head *out, struct dv_err *err)
{
    if (f->n_length > 1)
        return dv_err_set(err, DV_INVALID, "Content-Length more than once");
    if (f->is_bad_length)
        return dv_err_set(err, DV_INVALID, "Content-Length is not a number");
    if (!f->n_coding) {
        out->body = f->n_length ? DV_H1_LENGTH : DV_H1_NO_BODY;
        return DV_OK;
    }
    if (f->n_length)
        return dv_err_set(err, DV_INVALID, "both Content-Length and Transfer-Encoding");
    if (out->minor == 0)
        return dv_err_set(err, DV_INVALID, "Transfer-Encoding in HTTP/1.0");
    if (f->n_coding > 1 || f->is_bad_coding)
        return dv_err_set(err, DV_INVALID, "chunked is not the last and only transfer coding");
    if (!f->is_chunked)
        return dv_err_field(err, DV_UNSUPPORTED, "transfer-encoding", "transfer coding other than chunked");
    out->body = DV_H1_CHUNKED;
    return DV_OK;
}

static int judge_host(const struct framing *f, const struct dv_h1_head *out, struct dv_err *err)
{
    if (f->n_host > 1)
        return dv_err_set(err, DV_INVALID, "Host more than once");
    if (!f->n_host)
        return out->minor == 0 ? DV_OK : dv_err_set(err, DV_INVALID, "no Host");
    return host_valid(out->host) ? DV_OK : dv_err_set(err, DV_INVALID, "invalid Host");
}

int dv_h1_parse_request(const char *p, size_t n, struct dv_h1_head *out, size_t *out_consumed,
                        struct dv_err *err)
{
    struct dv_h1_scan s = scan_init(p, n, err);
    struct framing f = {0};
    clear_head(out);
    int rc = scan_request_line(&s, out);
    if (!rc)
        rc = scan_fields(&s, &f, out);
    if (!rc)
        rc = judge_request_body(&f, out, err);
    if (!rc)
        rc = judge_host(&f, out, err);
    if (!rc)
        rc = judge_target(out, &f, err);
    if (rc)
        return rc;
    judge_connection(&f, out);
    if (out->minor == 0)
        out->expect_continue = false;
    *out_consumed = (size_t)(s.p - p);
    return DV_OK;
}

/* ---- responses ---- */

static int scan_status_line(struct dv_h1_scan *s, struct dv_h1_head *out)
{
    int rc = scan_version(s, out);
    if (rc)
        return rc == DV_UNSUPPORTED ? dv_err_set(s->err, DV_INVALID, "answer is not HTTP/1") : rc;
    for (size_t i = 0; i < 4; i++) {
        if (s->p + i == s->end)
            return dv_h1_starved(s);
        char c = s->p[i];
        if (i == 0 ? c != ' ' : c < '0' || c > '9')
            return dv_err_set(s->err, DV_INVALID, "status line without a status");
        if (i)
            out->status = out->status * 10 + (c - '0');
    }
    if (out->status < 100)
        return dv_err_set(s->err, DV_INVALID, "status below 100");
    s->p += 4;
    if (s->p < s->end && *s->p == ' ')
        s->p++;
    else if (s->p < s->end && *s->p != '\r')
        return dv_err_set(s->err, DV_INVALID, "status is not three digits");
    const char *from = s->p;
    while (s->p < s->end && dv_h1_is(*s->p, DV_H1_C_VALUE))
        s->p++;
    out->reason = dv_sv(from, (size_t)(s->p - from));
    return dv_h1_scan_eol(s);
}

static int judge_response_body(const struct framing *f, struct dv_sv to_method, struct dv_h1_head *out,
                               struct dv_err *err)
{
    if (f->is_bad_length || f->lengths_differ)
        return dv_err_set(err, DV_INVALID, "answer with a bad or a second Content-Length");
    if (f->n_coding && f->n_length)
        return dv_err_set(err, DV_INVALID, "answer with both Content-Length and Transfer-Encoding");
    if (f->n_coding && (f->n_coding > 1 || !f->is_chunked || out->minor == 0))
        return dv_err_set(err, DV_INVALID, "answer with a transfer coding other than chunked");
    if (out->status == 101)
        out->body = DV_H1_UPGRADED;
    else if (out->status < 200 || out->status == 204 || out->status == 304 ||
             dv_sv_eq(to_method, DV_SV("HEAD")))
        out->body = DV_H1_NO_BODY;
    else if (f->n_coding)
        out->body = DV_H1_CHUNKED;
    else
        out->body = f->n_length ? DV_H1_LENGTH : DV_H1_UNTIL_CLOSE;
    return DV_OK;
}

int dv_h1_parse_response(const char *p, size_t n, struct dv_sv to_method, struct dv_h1_head *out,
                         size_t *out_consumed, struct dv_err *err)
{
    struct dv_h1_scan s = scan_init(p, n, err);
    struct framing f = {0};
    clear_head(out);
    int rc = scan_status_line(&s, out);
    if (!rc)
        rc = scan_fields(&s, &f, out);
    if (!rc)
        rc = judge_response_body(&f, to_method, out, err);
    if (rc)
        return rc;
    judge_connection(&f, out);
    out->expect_continue = false;
    if (out->body == DV_H1_UNTIL_CLOSE || out->body == DV_H1_UPGRADED)
        out->keep_alive = false;
    *out_consumed = (size_t)(s.p - p);
    return DV_OK;
}

/* ---- questions about a head ---- */

struct dv_sv dv_h1_find(const struct dv_h1_head *h, const char *name)
{
    struct dv_sv want = dv_sv_c(name);
    for (size_t i = 0; i < h->n_fields; i++)
        if (h->fields[i].name.n == want.n && dv_sv_eq_nocase(h->fields[i].name, want))
            return h->fields[i].value;
    return dv_sv(NULL, 0);
}

static bool is_hop_name(struct dv_sv name)
{
    switch (name.n) {
    case 2:
        return dv_sv_eq_nocase(name, DV_SV("te"));
    case 7:
        return dv_sv_eq_nocase(name, DV_SV("trailer")) || dv_sv_eq_nocase(name, DV_SV("upgrade"));
    case 10:
        return dv_sv_eq_nocase(name, DV_SV("connection")) || dv_sv_eq_nocase(name, DV_SV("keep-alive"));
    case 14:
        if (dv_sv_eq_nocase(name, DV_SV("content-length")))
            return true;
        break;
    case 17:
        if (dv_sv_eq_nocase(name, DV_SV("transfer-encoding")))
            return true;
        break;
    default:
        break;
    }
    return name.n > 6 && dv_sv_eq_nocase(dv_sv(name.p, 6), DV_SV("proxy-"));
}

/* Named by a Connection field.  Host is exempt: without it the message forwarded would be invalid. */
static bool is_named_hop(const struct dv_h1_head *h, struct dv_sv name)
{
    if (!h->names_hop_fields || dv_sv_eq_nocase(name, DV_SV("host")))
        return false;
    for (size_t i = 0; i < h->n_fields; i++) {
        struct dv_sv value = h->fields[i].value, e;
        if (h->fields[i].name.n != 10 || !dv_sv_eq_nocase(h->fields[i].name, DV_SV("connection")))
            continue;
        while (next_element(&value, &e))
            if (dv_sv_eq_nocase(e, name))
                return true;
    }
    return false;
}

bool dv_h1_is_hop_field(const struct dv_h1_head *h, struct dv_sv name)
{
    return is_hop_name(name) || is_named_hop(h, name);
}

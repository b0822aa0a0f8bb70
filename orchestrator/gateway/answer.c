/* What the client is sent.  Everything is appended to the connection's out buffer and leaves at the end of
 * the turn. */
#include "orchestrator/gateway/gw_internal.h"

static void add_status_line(struct dv_buf *b, int status)
{
    (void)dv_buf_add(b, "HTTP/1.1 ", 9); /* failures stay noted in b; the flush then closes the connection */
    (void)dv_buf_add_u64(b, (uint64_t)status);
    (void)dv_buf_add_char(b, ' ');
    (void)dv_buf_add_c(b, dv_h1_reason(status));
    (void)dv_buf_add(b, "\r\n", 2);
}

static void add_ms(struct dv_buf *b, const char *name, uint64_t us)
{
    char frac[5] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10), 0};
    (void)dv_buf_add_c(b, name);
    (void)dv_buf_add_u64(b, us / 1000);
    (void)dv_buf_add(b, frac, 4);
}

static void add_ids(struct dv_gw_req *r, struct dv_buf *b)
{
    uint64_t queue_us, start_us;
    dv_gw_req_waits(r, dv_loop_now(r->conn->loop->loop), &queue_us, &start_us);
    (void)dv_buf_add_c(b, "X-Call-Id: ");
    (void)dv_buf_add_c(b, r->call_id);
    (void)dv_buf_add_c(b, "\r\nX-Start-Time: ");
    (void)dv_buf_add_u64(b, r->start_wall_ns);
    (void)dv_buf_add_c(b, "\r\ntraceparent: ");
    (void)dv_buf_add_c(b, r->traceparent);
    add_ms(b, "\r\nServer-Timing: queue;dur=", queue_us);
    add_ms(b, ", start;dur=", start_us);
    add_ms(b, ", run;dur=", r->run_us);
    (void)dv_buf_add(b, "\r\n", 2);
}

static void add_connection(struct dv_gw_req *r, struct dv_buf *b)
{
    if (!r->conn->keep_alive)
        (void)dv_buf_add_c(b, "Connection: close\r\n");
    else if (r->minor_0)
        (void)dv_buf_add_c(b, "Connection: keep-alive\r\n");
}

/* The function's fields, line by line, without those that are ours to say.  *has_date: a Date is among them.
 */
static void add_fields(struct dv_gw_req *r, struct dv_buf *b, struct dv_sv fields, bool *has_date,
                       bool *has_upgrade)
{
    while (fields.n) {
        const char *nl = memchr(fields.p, '\n', fields.n);
        size_t n = nl ? (size_t)(nl - fields.p) + 1 : fields.n;
        struct dv_sv line = dv_sv(fields.p, n);
        fields = dv_sv(fields.p + n, fields.n - n);
        char first = (char)(line.p[0] | 0x20);
        if (r->fn && first == 'x' && n > 10 && dv_sv_eq_nocase(dv_sv(line.p, 10), DV_SV("x-call-id:")))
            continue;
        if (r->fn && first == 'x' && n > 13 && dv_sv_eq_nocase(dv_sv(line.p, 13), DV_SV("x-start-time:")))
            continue;
        if (r->fn && first == 't' && n > 12 && dv_sv_eq_nocase(dv_sv(line.p, 12), DV_SV("traceparent:")))
            continue;
        if (first == 'd' && n > 5 && dv_sv_eq_nocase(dv_sv(line.p, 5), DV_SV("date:")))
            *has_date = true;
        if (first == 'u' && n > 8 && dv_sv_eq_nocase(dv_sv(line.p, 8), DV_SV("upgrade:")))
            *has_upgrade = true;
        (void)dv_buf_add_sv(b, line);
    }
}

static void add_length(struct dv_buf *b, uint64_t n)
{
    (void)dv_buf_add_c(b, "Content-Length: ");
    (void)dv_buf_add_u64(b, n);
    (void)dv_buf_add(b, "\r\n", 2);
}

/* How the body is framed towards the client, whatever framed it on its way here. */
static void add_framing(struct dv_gw_req *r, struct dv_buf *b, enum dv_h1_body body, uint64_t length)
{
    r->answer_kind = body == DV_H1_UNTIL_CLOSE ? DV_H1_CHUNKED : body;
    r->answer_left = length;
    bool no_body = r->is_head || r->status == 204 || r->status == 304;
    if (no_body) {
        /* What a GET would have had: said where the upstream said it. */
        if (r->status != 204 && (body == DV_H1_LENGTH || (body == DV_H1_NO_BODY && length)))
            add_length(b, length);
        else if (r->is_head && r->answer_kind == DV_H1_CHUNKED && !r->minor_0)
            (void)dv_buf_add_c(b, "Transfer-Encoding: chunked\r\n");
        r->answer_kind = DV_H1_NO_BODY;
    } else if (body == DV_H1_NO_BODY) {
        add_length(b, 0);
    } else if (body == DV_H1_LENGTH) {
        add_length(b, length);
    } else if (r->minor_0) {
        r->raw_until_close = true;
        r->conn->keep_alive = false;
    } else {
        (void)dv_buf_add_c(b, "Transfer-Encoding: chunked\r\n");
    }
}

void dv_gw_answer_head(struct dv_gw_req *r, int status, enum dv_h1_body body, uint64_t length,
                       struct dv_sv fields)
{
    struct dv_buf *b = dv_gw_conn_out(r->conn);
    bool has_date = false, has_upgrade = false;
    r->status = status;
    add_status_line(b, status);
    add_fields(r, b, fields, &has_date, &has_upgrade);
    if (!has_date)
        (void)dv_buf_add_sv(b, dv_gw_date(r->conn->loop));
    if (r->kind != DV_ROUTE_API)
        add_ids(r, b);
    if (status == 101) {
        r->answer_kind = DV_H1_UPGRADED;
        (void)dv_buf_add_c(b, "Connection: Upgrade\r\n");
        if (!has_upgrade) {
            (void)dv_buf_add_c(b, "Upgrade: ");
            (void)dv_buf_add_c(b, r->upgrade);
            (void)dv_buf_add(b, "\r\n", 2);
        }
    } else {
        add_framing(r, b, body, length);
        add_connection(r, b);
    }
    (void)dv_buf_add(b, "\r\n", 2);
    dv_gw_conn_dirty(r->conn);
}

void dv_gw_answer_info(struct dv_gw_req *r, int status, struct dv_sv fields)
{
    if (r->minor_0)
        return; /* HTTP/1.0 knows none */
    struct dv_buf *b = dv_gw_conn_out(r->conn);
    add_status_line(b, status);
    (void)dv_buf_add_sv(b, fields);
    (void)dv_buf_add(b, "\r\n", 2);
    dv_gw_conn_dirty(r->conn);
}

static void add_chunk_size(struct dv_buf *b, size_t n)
{
    char text[20];
    size_t i = sizeof(text);
    text[--i] = '\n';
    text[--i] = '\r';
    do
        text[--i] = "0123456789abcdef"[n & 15];
    while (n >>= 4);
    (void)dv_buf_add(b, text + i, sizeof(text) - i);
}

void dv_gw_answer_data(struct dv_gw_req *r, struct dv_sv bytes)
{
    struct dv_buf *b = dv_gw_conn_out(r->conn);
    bool chunked = r->answer_kind == DV_H1_CHUNKED && !r->raw_until_close;
    if (chunked)
        add_chunk_size(b, bytes.n);
    (void)dv_buf_add_sv(b, bytes);
    if (chunked)
        (void)dv_buf_add(b, "\r\n", 2);
    r->bytes_out += bytes.n;
    dv_gw_conn_dirty(r->conn);
}

void dv_gw_answer_end(struct dv_gw_req *r, struct dv_sv trailers)
{
    if (r->answer_kind == DV_H1_CHUNKED && !r->raw_until_close) {
        struct dv_buf *b = dv_gw_conn_out(r->conn);
        (void)dv_buf_add(b, "0\r\n", 3);
        (void)dv_buf_add_sv(b, trailers);
        (void)dv_buf_add(b, "\r\n", 2);
    }
    dv_gw_conn_dirty(r->conn);
}

/* ---- our own answers ---- */

void dv_gw_answer_text(struct dv_gw_req *r, int status, struct dv_sv content_type, struct dv_sv body)
{
    char field[96];
    int n = snprintf(field, sizeof(field), "Content-Type: %.*s\r\n", (int)content_type.n, content_type.p);
    dv_gw_answer_head(r, status, DV_H1_LENGTH, body.n,
                      content_type.n ? dv_sv(field, (size_t)n) : dv_sv("", 0));
    if (!r->is_head && body.n)
        dv_gw_answer_data(r, body);
}

static void add_problem(struct dv_buf *b, int status, const char *code, const char *hop, const char *detail)
{
    (void)dv_buf_add_c(b, "{\"type\":\"about:blank\",\"title\":");
    (void)dv_buf_add_json(b, dv_sv_c(dv_h1_reason(status)));
    (void)dv_buf_addf(b, ",\"status\":%d,\"code\":\"%s\",\"hop\":\"%s\",\"detail\":", status, code, hop);
    (void)dv_buf_add_json(b, dv_utf8_valid(dv_sv_c(detail)) ? dv_sv_c(detail) : DV_SV("(not text)"));
}

void dv_gw_answer_error(struct dv_gw_req *r, const struct dv_gw_error *e)
{
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf fields = DV_BUF_INIT;
    add_problem(&body, e->status, e->code, e->hop ? e->hop : "gateway", e->detail);
    (void)dv_buf_addf(&body, ",\"call_id\":\"%s\"", r->call_id);
    if (r->fn)
        (void)dv_buf_addf(&body, ",\"function\":\"%s\"", r->fn->key);
    (void)dv_buf_add(&body, "}\n", 2);
    (void)dv_buf_add_c(&fields, "Content-Type: application/problem+json\r\nX-OpenFaaS-Internal: proxy\r\n");
    if (e->allow)
        (void)dv_buf_addf(&fields, "Allow: %s\r\n", e->allow);
    if (e->retry_after_s)
        (void)dv_buf_addf(&fields, "Retry-After: %u\r\n", e->retry_after_s);
    if (e->status == 401)
        (void)dv_buf_add_c(&fields, "WWW-Authenticate: Basic realm=\"davit\"\r\n");
    r->made_here = true;
    dv_gw_answer_head(r, e->status, DV_H1_LENGTH, dv_buf_len(&body), dv_buf_sv(&fields));
    if (!r->is_head)
        dv_gw_answer_data(r, dv_buf_sv(&body));
}

void dv_gw_answer_bad_head(struct dv_gw_conn *c, int status, const char *detail)
{
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    struct dv_buf *b = dv_gw_conn_out(c);
    add_problem(&body, status, "bad_request", "gateway", detail);
    (void)dv_buf_add(&body, "}\n", 2);
    add_status_line(b, status);
    (void)dv_buf_add_sv(b, dv_gw_date(c->loop));
    (void)dv_buf_add_c(b, "Content-Type: application/problem+json\r\nX-OpenFaaS-Internal: proxy\r\n");
    add_length(b, dv_buf_len(&body));
    (void)dv_buf_add_c(b, "Connection: close\r\n\r\n");
    (void)dv_buf_add_sv(b, dv_buf_sv(&body));
    c->close_after_out = c->needs_linger = true;
    dv_gw_conn_arm(c, dv_loop_now(c->loop->loop) + GW_STALL_NS);
    dv_gw_conn_dirty(c);
}

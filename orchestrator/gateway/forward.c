/* What the function is sent: the client's own fields without those of one hop, and ours. */
#include "orchestrator/gateway/gw_internal.h"

#include <ctype.h>

struct dv_sv dv_gw_req_method(const struct dv_gw_req *r)
{
    return dv_sv(dv_buf_ptr(&r->head), r->method_n);
}

struct dv_sv dv_gw_req_target(const struct dv_gw_req *r)
{
    return dv_sv(dv_buf_ptr(&r->head) + r->method_n, r->target_n);
}

struct dv_sv dv_gw_req_fields(const struct dv_gw_req *r)
{
    size_t skip = r->method_n + r->target_n;
    return dv_sv(dv_buf_ptr(&r->head) + skip, dv_buf_len(&r->head) - skip);
}

/* ---- credentials ---- */

bool dv_gw_auth_ok(const struct dv_gateway *g, const struct dv_h1_head *h)
{
    struct dv_sv scheme, token, value = dv_h1_find(h, "authorization");
    if (!value.p || !g->password || !dv_sv_cut(value, ' ', &scheme, &token))
        return false;
    token = dv_sv_trim(token);
    if (dv_sv_eq_nocase(scheme, DV_SV("bearer")))
        return dv_secret_eq(token, dv_sv_c(g->password));
    return g->basic && dv_sv_eq_nocase(scheme, DV_SV("basic")) && dv_secret_eq(token, dv_sv_c(g->basic));
}

/* ---- ids ---- */

static bool call_id_valid(struct dv_sv s)
{
    if (!s.n || s.n >= GW_CALL_ID_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.' &&
            s.p[i] != ':')
            return false;
    return true;
}

static void set_call_id(struct dv_gw_req *r, struct dv_sv given)
{
    if (call_id_valid(given)) {
        memcpy(r->call_id, given.p, given.n);
        r->call_id[given.n] = 0;
        return;
    }
    uint64_t v[2] = {dv_rng_u64(&r->conn->loop->rng), dv_rng_u64(&r->conn->loop->rng)};
    unsigned char b[16];
    memcpy(b, v, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* a version 4 UUID (RFC 9562) */
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    char hex[33];
    dv_hex(b, sizeof(b), hex);
    static const struct {
        uint8_t at, from, n;
    } part[] = {{0, 0, 8}, {9, 8, 4}, {14, 12, 4}, {19, 16, 4}, {24, 20, 12}};
    memset(r->call_id, '-', 36);
    for (size_t i = 0; i < DV_COUNT(part); i++)
        memcpy(r->call_id + part[i].at, hex + part[i].from, part[i].n);
    r->call_id[36] = 0;
}

static bool is_hex_run(const char *p, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
        any = any || p[i] != '0';
    }
    return any; /* all zero means invalid in the trace-context specification */
}

/* W3C trace context: the caller's trace goes on with a span of ours as parent; without one a trace begins
 * here. */
static void set_traceparent(struct dv_gw_req *r, struct dv_sv given)
{
    struct dv_rng *rng = &r->conn->loop->rng;
    char *t = r->traceparent;
    bool goes_on = given.n >= 55 && given.p[0] != 'f' && given.p[2] == '-' && given.p[35] == '-' &&
                   given.p[52] == '-' && (given.n == 55 || given.p[55] == '-') &&
                   is_hex_run(given.p + 3, 32) && is_hex_run(given.p + 36, 16);
    uint64_t id[3] = {dv_rng_u64(rng), dv_rng_u64(rng), dv_rng_u64(rng)};
    memcpy(t, "00-", 3);
    if (goes_on)
        memcpy(t + 3, given.p + 3, 32);
    else
        dv_hex(id, 16, t + 3);
    t[35] = '-';
    dv_hex(&id[2], 8, t + 36);
    t[52] = '-';
    bool flags_ok = goes_on && isxdigit((unsigned char)given.p[53]) && isxdigit((unsigned char)given.p[54]);
    memcpy(t + 53, flags_ok ? given.p + 53 : "00", 2);
    t[55] = 0;
}

/* ---- fields ---- */

enum own { OWN_NOT, OWN_DROP, OWN_XFF, OWN_FORWARDED, OWN_HOST, OWN_XFH, OWN_XFP, OWN_AUTH, OWN_CALLBACK };

static enum own own_field(struct dv_sv name)
{
    static const struct {
        struct dv_sv name;
        enum own own;
    } table[] = {
        {{"host", 4}, OWN_HOST},
        {{"expect", 6}, OWN_DROP},
        {{"x-call-id", 9}, OWN_DROP},
        {{"forwarded", 9}, OWN_FORWARDED},
        {{"traceparent", 11}, OWN_DROP},
        {{"x-start-time", 12}, OWN_DROP},
        {{"authorization", 13}, OWN_AUTH},
        {{"x-callback-url", 14}, OWN_CALLBACK},
        {{"x-forwarded-for", 15}, OWN_XFF},
        {{"x-forwarded-host", 16}, OWN_XFH},
        {{"x-forwarded-proto", 17}, OWN_XFP},
    };
    if (name.n < 4 || name.n > 17)
        return OWN_NOT;
    for (size_t i = 0; i < DV_COUNT(table) && table[i].name.n <= name.n; i++)
        if (table[i].name.n == name.n && dv_sv_eq_nocase(table[i].name, name))
            return table[i].own;
    return OWN_NOT;
}

static void add_field(struct dv_buf *b, struct dv_sv name, struct dv_sv value)
{
    (void)dv_buf_add_sv(b, name); /* a failed write stays noted in b and is checked once */
    (void)dv_buf_add(b, ": ", 2);
    (void)dv_buf_add_sv(b, value);
    (void)dv_buf_add(b, "\r\n", 2);
}

static bool quotable(struct dv_sv s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '"' || s.p[i] == '\\')
            return false;
    return s.n > 0;
}

static void add_list_start(struct dv_buf *b, const char *name, struct dv_sv so_far)
{
    (void)dv_buf_add_c(b, name);
    (void)dv_buf_add(b, ": ", 2);
    if (so_far.n) {
        (void)dv_buf_add_sv(b, so_far);
        (void)dv_buf_add(b, ", ", 2);
    }
}

struct seen {
    struct dv_sv xff, forwarded, xfh, xfp;
    bool host;
};

static void add_forwarded(struct dv_gw_req *r, struct dv_buf *b, const struct seen *s, struct dv_sv host)
{
    struct dv_sv peer = dv_sv_c(r->conn->peer);
    bool is_v6 = memchr(peer.p, ':', peer.n) != NULL;
    const char *proto = r->conn->tls ? "https" : "http";
    add_list_start(b, "X-Forwarded-For", s->xff);
    (void)dv_buf_add_sv(b, peer);
    add_list_start(b, "\r\nForwarded", s->forwarded);
    (void)dv_buf_add_c(b, is_v6 ? "for=\"[" : "for=");
    (void)dv_buf_add_sv(b, peer);
    (void)dv_buf_add_c(b, is_v6 ? "]\"" : "");
    if (quotable(host)) {
        (void)dv_buf_add_c(b, ";host=\"");
        (void)dv_buf_add_sv(b, host);
        (void)dv_buf_add_char(b, '"');
    }
    (void)dv_buf_add_c(b, ";proto=");
    (void)dv_buf_add_c(b, proto);
    (void)dv_buf_add(b, "\r\n", 2);
    if (!s->xfh.p && host.n)
        add_field(b, DV_SV("X-Forwarded-Host"), host);
    if (!s->xfp.p)
        add_field(b, DV_SV("X-Forwarded-Proto"), dv_sv_c(proto));
}

/* Fields as the client sent them; what we write ourselves is only remembered. */
static void copy_fields(struct dv_gw_req *r, const struct dv_h1_head *h, bool drop_auth, struct seen *s)
{
    struct dv_buf *b = &r->head;
    bool trusted = r->conn->is_internal;
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct dv_h1_field *f = &h->fields[i];
        enum own own = own_field(f->name);
        struct dv_sv *merged = own == OWN_XFF && !s->xff.p               ? &s->xff
                               : own == OWN_FORWARDED && !s->forwarded.p ? &s->forwarded
                                                                         : NULL;
        if (own == OWN_DROP || (own == OWN_AUTH && drop_auth) ||
            (own == OWN_CALLBACK && r->kind == DV_ROUTE_ASYNC))
            continue;
        if (own == OWN_HOST)
            s->host = true;
        else if (own == OWN_XFH)
            s->xfh = f->value;
        else if (own == OWN_XFP)
            s->xfp = f->value;
        else if (merged && !trusted) {
            *merged = f->value;
            continue; /* written with ours behind it; a second field of that name stays a field of its own */
        }
        if (own == OWN_NOT && dv_h1_is_hop_field(h, f->name))
            continue;
        add_field(b, f->name, f->value);
    }
}

int dv_gw_forward_build(struct dv_gw_req *r, const struct dv_h1_head *h, const struct dv_route *route)
{
    struct dv_buf *b = &r->head;
    struct seen s = {0};
    bool is_fn = r->kind != DV_ROUTE_API;
    set_call_id(r, dv_h1_find(h, "x-call-id"));
    set_traceparent(r, dv_h1_find(h, "traceparent"));
    r->start_wall_ns = dv_gw_wall_ns(r->conn->loop);
    dv_buf_clear(b);
    (void)dv_buf_add_sv(b, h->method);
    r->method_n = h->method.n;
    if (is_fn && route->add_slash)
        (void)dv_buf_add_char(b, '/');
    (void)dv_buf_add_sv(b, is_fn ? route->rest : route->path);
    r->target_n = (is_fn ? route->rest.n + route->add_slash : route->path.n);
    bool checked_by_us = is_fn && (r->kind == DV_ROUTE_INVOKE || (r->fn && r->fn->auth_required));
    copy_fields(r, h, checked_by_us && !r->conn->is_internal,
                &s); /* our password is not the function's business */
    if (!s.host)
        add_field(b, DV_SV("Host"), DV_SV("davit")); /* HTTP/1.0 clients may leave it out */
    if (!r->conn->is_internal)
        add_forwarded(r, b, &s, h->host);
    add_field(b, DV_SV("traceparent"), dv_sv_c(r->traceparent));
    if (r->kind != DV_ROUTE_ASYNC) { /* an async one gets them when it runs */
        add_field(b, DV_SV("X-Call-Id"), dv_sv_c(r->call_id));
        (void)dv_buf_add_c(b, "X-Start-Time: ");
        (void)dv_buf_add_u64(b, r->start_wall_ns);
        (void)dv_buf_add(b, "\r\n", 2);
    }
    if (r->upgrade[0])
        add_field(b, DV_SV("Upgrade"), dv_sv_c(r->upgrade));
    return b->failed;
}

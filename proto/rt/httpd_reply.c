/* What a handler sees of a request, and how it answers: at once, later, or piece by piece. */
#include "proto/rt/httpd_internal.h"

#include <assert.h>

enum { STREAM_HIGH_BYTES = 1024 * 1024, READ_BLOCK = 16 * 1024 };

struct dv_sv dv_http_method(const struct dv_http_req *r)
{
    return dv_sv_c(r->method);
}

struct dv_sv dv_http_path(const struct dv_http_req *r)
{
    return dv_sv_c(r->path);
}

struct dv_sv dv_http_query(const struct dv_http_req *r)
{
    return dv_sv_c(r->query);
}

struct dv_sv dv_http_header(const struct dv_http_req *r, const char *name)
{
    return r->conn ? dv_sv_c(MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name)) : dv_sv(NULL, 0);
}

struct dv_sv dv_http_body(const struct dv_http_req *r)
{
    return dv_buf_sv(&r->body);
}

struct dv_arena *dv_http_arena(struct dv_http_req *r)
{
    return &r->arena;
}

void dv_http_set_user(struct dv_http_req *r, void *user, void (*on_gone)(void *user))
{
    r->user = user;
    r->on_gone = on_gone;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode in place; what is not a proper escape, and %00, stays as it was sent. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        int hi = s[0] == '%' && s[1] ? hex_digit(s[1]) : -1, lo = hi >= 0 ? hex_digit(s[2]) : -1;
        if (lo >= 0 && (hi | lo)) {
            *to++ = (char)(hi * 16 + lo);
            s += 2;
        } else {
            *to++ = *s == '+' ? ' ' : *s;
        }
    }
    *to = '\0';
}

bool dv_httpd_parse_params(struct dv_http_req *r)
{
    size_t n = 1;
    for (const char *p = r->query; *p; p++)
        n += *p == '&';
    struct param *list = dv_arena_alloc(&r->arena, n * sizeof(*list));
    struct dv_sv rest = dv_sv_c(r->query), pair, name, value;
    if (!list)
        return false;
    for (size_t i = 0; i < n; i++) {
        (void)dv_sv_cut(rest, '&', &pair, &rest);
        (void)dv_sv_cut(pair, '=', &name, &value);
        if (!pair.n)
            continue;
        char *k = dv_arena_strndup(&r->arena, name.p, name.n);
        char *v = dv_arena_strndup(&r->arena, value.p ? value.p : "", value.n);
        if (!k || !v)
            return false;
        unescape(k);
        unescape(v);
        list[r->n_params++] = (struct param){k, v};
    }
    r->params = list;
    return true;
}

bool dv_http_param_at(struct dv_http_req *r, size_t i, const char **name, const char **value)
{
    if (i >= r->n_params)
        return false;
    *name = r->params[i].name;
    *value = r->params[i].value;
    return true;
}

const char *dv_http_param(struct dv_http_req *r, const char *name)
{
    const char *k, *v;
    for (size_t i = 0; dv_http_param_at(r, i, &k, &v); i++)
        if (strcmp(k, name) == 0)
            return v;
    return NULL;
}

void dv_http_set_header(struct dv_http_req *r, const char *name, const char *value)
{
    if (r->n_headers == r->cap_headers) {
        size_t cap = r->cap_headers ? r->cap_headers * 2 : 8;
        struct param *grown = dv_arena_alloc(&r->arena, cap * sizeof(*grown));
        if (!grown) {
            r->is_short_of_memory = true;
            return;
        }
        if (r->n_headers)
            memcpy(grown, r->headers, r->n_headers * sizeof(*grown));
        r->headers = grown;
        r->cap_headers = cap;
    }
    struct param h = {dv_arena_strdup(&r->arena, name), dv_arena_strdup(&r->arena, value)};
    if (h.name && h.value)
        r->headers[r->n_headers++] = h;
    else
        r->is_short_of_memory = true;
}

/* A response that could not be made leaves the client with a closed connection. */
static void give(struct dv_http_req *r, int status, const char *content_type, struct MHD_Response *response)
{
    if (response && r->is_short_of_memory) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->status = status;
    r->response = response;
    if (!response)
        r->is_gone = true;
    if (response && content_type)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    for (size_t i = 0; response && i < r->n_headers; i++)
        (void)MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
    dv_httpd_resume(r);
}

static void user_done(struct dv_http_req *r)
{
    r->phase = ENDED;
    r->is_user_done = true;
    r->on_gone = NULL;
    if (!r->is_in_handler)
        dv_httpd_unref(r);
}

void dv_http_reply(struct dv_http_req *r, int status, const char *content_type, struct dv_sv body)
{
    dv_loop_assert_here(r->d->loop);
    assert(r->phase == WAITING || r->is_gone);
    if (r->conn && !r->is_gone) {
        /* MHD's own copy; its prototype is not const, it does not write there. */
        struct MHD_Response *response = MHD_create_response_from_buffer(
            body.n, (void *)(uintptr_t)(body.n ? body.p : ""), MHD_RESPMEM_MUST_COPY);
        r->phase = ANSWERED;
        give(r, status, content_type, response);
    }
    user_done(r);
}

/* MHD asks for bytes of a stream. */
static ssize_t on_read(void *cls, uint64_t pos, char *to, size_t max)
{
    struct dv_http_req *r = cls;
    (void)pos;
    size_t n = dv_buf_len(&r->out);
    if (r->is_gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n) {
        n = n < max ? n : max;
        memcpy(to, dv_buf_ptr(&r->out), n);
        dv_buf_consume(&r->out, n);
        return (ssize_t)n;
    }
    if (r->phase == ENDED)
        return MHD_CONTENT_READER_END_OF_STREAM;
    dv_httpd_suspend(r);
    return 0;
}

void dv_http_stream(struct dv_http_req *r, int status, const char *content_type)
{
    dv_loop_assert_here(r->d->loop);
    assert(r->phase == WAITING || r->is_gone);
    r->phase = STREAMING;
    if (r->conn && !r->is_gone)
        give(r, status, content_type,
             MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, READ_BLOCK, on_read, r, NULL));
}

int dv_http_stream_write(struct dv_http_req *r, struct dv_sv bytes)
{
    dv_loop_assert_here(r->d->loop);
    if (!r->conn || r->is_gone)
        return DV_OK;
    if (dv_buf_add_sv(&r->out, bytes)) {
        r->out.failed = 0;
        return DV_AGAIN; /* no memory: this piece is lost, the caller slows down */
    }
    dv_httpd_resume(r);
    return dv_buf_len(&r->out) > STREAM_HIGH_BYTES ? DV_AGAIN : DV_OK;
}

void dv_http_stream_end(struct dv_http_req *r)
{
    dv_loop_assert_here(r->d->loop);
    if (r->conn)
        dv_httpd_resume(r);
    user_done(r);
}

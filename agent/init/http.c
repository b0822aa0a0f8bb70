/* The request as a program sees it (the environment that OpenFaaS' classic watchdog made customary), and the
 * head of the answer. */
#include "agent/init/init.h"
#include "proto/base/alloc.h"

#include <ctype.h>
#include <unistd.h>

static void add_var(struct dv_buf *b, const char *name, struct dv_sv value)
{
    (void)dv_buf_add_c(b, name); /* failures stay in b->failed */
    (void)dv_buf_add_char(b, '=');
    (void)dv_buf_add_sv(b, value);
    (void)dv_buf_add_char(b, '\0');
}

/* "x-call-id" -> "Http_X_Call_Id" */
static void header_var(struct dv_sv name, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "Http_");
    bool up = true;
    for (size_t i = 0; i < name.n && n + 1 < cap; i++) {
        unsigned char ch = (unsigned char)name.p[i];
        out[n++] = (char)(ch == '-' ? '_' : up ? toupper(ch) : tolower(ch));
        up = ch == '-';
    }
    out[n] = '\0';
}

static bool seen_before(const struct dv_h1_head *h, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (dv_sv_eq_nocase(h->fields[k].name, h->fields[i].name))
            return true;
    return false;
}

static bool is_plain_name(struct dv_sv name)
{
    for (size_t i = 0; i < name.n; i++)
        if (!isalnum((unsigned char)name.p[i]) && name.p[i] != '-')
            return false;
    return name.n < 200;
}

static size_t add_request(struct dv_buf *b, const struct dv_h1_head *h)
{
    struct dv_sv path, query;
    (void)dv_sv_cut(h->target, '?', &path, &query);
    add_var(b, "Http_Method", h->method);
    add_var(b, "Http_Path", path);
    add_var(b, "Http_Query", query);
    size_t n = 3;
    for (size_t i = 0; i < h->n_fields; i++) {
        /* The first of several counts, as in the watchdog; names a shell could not read are left out. */
        if (!is_plain_name(h->fields[i].name) || seen_before(h, i))
            continue;
        char name[256];
        header_var(h->fields[i].name, name, sizeof(name));
        if (!strcmp(name, "Http_Method") || !strcmp(name, "Http_Path") || !strcmp(name, "Http_Query"))
            continue;
        add_var(b, name, h->fields[i].value);
        n++;
    }
    return n;
}

int init_env_build(struct init_env *e, const struct dv_h1_head *h)
{
    *e = (struct init_env){.text = DV_BUF_INIT};
    size_t n_own = 0, n_req = add_request(&e->text, h), k = 0;
    while (environ[n_own])
        n_own++;
    e->v = e->text.failed ? NULL : dv_zalloc_n(n_own + n_req + 1, sizeof(*e->v));
    if (!e->v) {
        init_env_deinit(e);
        return DV_E_NOMEM;
    }
    for (char *p = dv_buf_ptr(&e->text); k < n_req; p += strlen(p) + 1)
        e->v[k++] = p;
    for (size_t i = 0; i < n_own; i++)
        e->v[k++] = environ[i];
    return DV_OK;
}

void init_env_deinit(struct init_env *e)
{
    dv_buf_deinit(&e->text);
    dv_free(e->v);
    e->v = NULL;
}

int init_answer_head(struct dv_buf *out, const struct init_answer *a)
{
    (void)dv_buf_addf(out, "HTTP/1.1 %d %s\r\n", a->status,
                      dv_h1_reason(a->status)); /* failures stay in out->failed */
    if (a->content_type.n)
        (void)dv_buf_addf(out, "Content-Type: %.*s\r\n", (int)a->content_type.n, a->content_type.p);
    if (a->fate)
        (void)dv_buf_addf(out, "X-Davit-Program: %s\r\n", a->fate);
    if (a->length >= 0)
        (void)dv_buf_addf(out, "Content-Length: %lld\r\n", (long long)a->length);
    else if (a->minor >= 1)
        (void)dv_buf_add_c(out, "Transfer-Encoding: chunked\r\n");
    if (!a->keep_alive)
        (void)dv_buf_add_c(out, "Connection: close\r\n");
    (void)dv_buf_add_c(out, "\r\n");
    return out->failed;
}

/* libcurl's multi interface on our loop: curl says which sockets and which timeout it wants, the loop calls
 * back.
 *
 * curl forbids adding and removing calls from inside its own callbacks, and on_data runs there.  So a send or
 * a cancel made while curl is on the stack (is_in_curl) is only noted, and done as soon as curl returned.
 * on_done never runs inside curl: finished calls are collected afterwards. */
#include "proto/rt/httpc.h"
#include "proto/base/alloc.h"
#include "proto/base/list.h"
#include "proto/rt/loop.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>

enum { BODY_MAX = 8 * 1024 * 1024, HEADERS_MAX = 64 * 1024, CONNECT_TIMEOUT_MS = 2000, CONNS_KEPT = 32 };

struct dv_httpc {
    struct dv_loop *loop;
    CURLM *multi;
    struct dv_timer timer;
    struct dv_defer tidy; /* adds and removals noted while curl was on the stack */
    struct dv_list calls;
    bool is_in_curl, is_finishing, is_dead;
    bool is_timer_lost; /* no memory to arm it */
};

struct watch {
    struct dv_io io;
    struct dv_httpc *c;
};

enum call_state { CALL_NEW, CALL_RUNNING, CALL_FAILED /* no memory to watch its socket */, CALL_CANCELLED };

struct dv_httpc_call {
    struct dv_list node;
    struct dv_httpc *c;
    CURL *easy;
    struct curl_slist *headers;
    enum call_state state;
    struct dv_buf body, fields;
    char error[CURL_ERROR_SIZE];
    long status;
    bool is_too_large, is_stopped_by_user;
    int (*on_data)(void *ctx, struct dv_sv bytes);
    void (*on_done)(void *ctx, const struct dv_httpc_result *res);
    void *ctx;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void init_curl(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- calls ---- */

static void call_free(struct dv_httpc_call *call)
{
    dv_list_remove(&call->node);
    if (call->easy)
        curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    dv_buf_deinit(&call->body);
    dv_buf_deinit(&call->fields);
    dv_free(call);
}

static int failure_of(const struct dv_httpc_call *call, CURLcode why, struct dv_err *err)
{
    long os_errno = 0;
    (void)curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os_errno);
    const char *text = call->error[0] ? call->error : curl_easy_strerror(why);
    int code = DV_E_NET;
    if (call->is_too_large)
        return dv_err_set(err, DV_TOO_LARGE, "the answer is larger than allowed");
    if (call->is_stopped_by_user)
        return dv_err_set(err, DV_CLOSED, "ended by the reader");
    if (why == CURLE_OPERATION_TIMEDOUT)
        code = DV_DEADLINE;
    else if (why == CURLE_OUT_OF_MEMORY)
        code = DV_E_NOMEM;
    else if (why == CURLE_WEIRD_SERVER_REPLY || why == CURLE_UNSUPPORTED_PROTOCOL || why == CURLE_HTTP2)
        code = DV_E_PROTO;
    (void)dv_err_set(err, code, "%s", text);
    err->sys_errno = (int)os_errno;
    return code;
}

/* Tell the user and let go.  The call is off the multi handle. */
static void finish(struct dv_httpc_call *call, int code, const struct dv_err *err)
{
    struct dv_httpc_result res = {.code = code,
                                  .status = call->status,
                                  .body = dv_buf_sv(&call->body),
                                  .headers = dv_buf_sv(&call->fields),
                                  .err = code ? err : NULL};
    dv_list_remove(&call->node); /* a cancel from inside on_done finds nothing to cancel */
    call->state = CALL_CANCELLED;
    if (call->on_done)
        call->on_done(call->ctx, &res);
    call_free(call);
}

static void finish_ready(struct dv_httpc *c)
{
    CURLMsg *m;
    int left;
    while (!c->is_dead && (m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct dv_httpc_call *call = NULL;
        CURLcode why = m->data.result; /* m dies with the removal */
        struct dv_err err = DV_ERR_INIT;
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
        int code = why == CURLE_OK ? DV_OK : failure_of(call, why, &err);
        (void)curl_multi_remove_handle(c->multi, call->easy);
        if (call->state == CALL_CANCELLED)
            call_free(call);
        else
            finish(call, code, &err);
    }
}

/* What was noted while curl was on the stack. */
static void tidy(struct dv_httpc *c)
{
    DV_LIST_FOR_EACH_SAFE (it, &c->calls) {
        struct dv_httpc_call *call = DV_LIST_ENTRY(it, struct dv_httpc_call, node);
        if (call->state == CALL_CANCELLED) {
            (void)curl_multi_remove_handle(c->multi, call->easy);
            call_free(call);
        } else if (call->state == CALL_NEW) {
            call->state = CALL_RUNNING;
            (void)curl_multi_add_handle(c->multi, call->easy); /* refused only for handles added twice */
        }
    }
    if (!c->is_timer_lost)
        return;
    c->is_timer_lost = dv_timer_set(c->loop, &c->timer, dv_loop_now(c->loop)) != DV_OK;
    DV_LIST_FOR_EACH (it, &c->calls)
        if (c->is_timer_lost) /* nothing would drive them any more */
            DV_LIST_ENTRY(it, struct dv_httpc_call, node)->state = CALL_FAILED;
}

/* One at a time from the front: on_done may cancel any other. */
static bool fail_one(struct dv_httpc *c)
{
    DV_LIST_FOR_EACH (it, &c->calls) {
        struct dv_httpc_call *call = DV_LIST_ENTRY(it, struct dv_httpc_call, node);
        struct dv_err err = {.code = DV_E_NOMEM, .msg = "out of memory"};
        if (call->state != CALL_FAILED)
            continue;
        (void)curl_multi_remove_handle(c->multi, call->easy);
        finish(call, DV_E_NOMEM, &err);
        return !c->is_dead;
    }
    return false;
}

static void destroy(struct dv_httpc *c);

static void settle(struct dv_httpc *c)
{
    c->is_finishing = true;
    tidy(c);
    finish_ready(c);
    while (!c->is_dead && fail_one(c))
        ;
    c->is_finishing = false;
    if (c->is_dead)
        destroy(c);
}

static void pump(struct dv_httpc *c, curl_socket_t fd, int mask)
{
    int running;
    c->is_in_curl = true;
    (void)curl_multi_socket_action(c->multi, fd, mask, &running);
    c->is_in_curl = false;
    settle(c);
}

/* ---- curl's callbacks ---- */

static void on_socket_ready(struct dv_io *io, uint32_t events)
{
    struct watch *w = DV_CONTAINER_OF(io, struct watch, io);
    int mask = (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP) ? CURL_CSELECT_IN : 0) |
               (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) | (events & EPOLLERR ? CURL_CSELECT_ERR : 0);
    pump(w->c, io->fd, mask); /* w may be gone now */
}

/* To fail here would make curl give up every call, not only this one: so the call is marked and ended
 * afterwards. */
static int cannot_watch(struct dv_httpc *c, CURL *easy)
{
    struct dv_httpc_call *call = NULL;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
    if (call && call->state == CALL_RUNNING) {
        call->state = CALL_FAILED;
        dv_loop_defer(c->loop, &c->tidy);
    }
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *cls, void *sock_cls)
{
    struct dv_httpc *c = cls;
    struct watch *w = sock_cls;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            dv_io_del(c->loop, &w->io);
        dv_free(w);
        return 0;
    }
    uint32_t events =
        (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0u) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0u);
    if (w)
        return dv_io_mod(c->loop, &w->io, events) ? cannot_watch(c, easy) : 0;
    w = dv_zalloc(sizeof(*w));
    if (!w)
        return cannot_watch(c, easy);
    *w = (struct watch){.io = {.fd = -1, .fn = on_socket_ready}, .c = c};
    if (dv_io_add(c->loop, &w->io, fd, events, NULL)) {
        dv_free(w);
        return cannot_watch(c, easy);
    }
    (void)curl_multi_assign(c->multi, fd, w);
    return 0;
}

static void on_timer(struct dv_timer *t)
{
    pump(DV_CONTAINER_OF(t, struct dv_httpc, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_change(CURLM *multi, long ms, void *cls)
{
    struct dv_httpc *c = cls;
    (void)multi;
    if (ms < 0) {
        dv_timer_cancel(c->loop, &c->timer);
        return 0;
    }
    uint64_t now = ms ? dv_clock_now_ns(dv_loop_clock(c->loop)) : dv_loop_now(c->loop);
    if (dv_timer_set(c->loop, &c->timer, now + (uint64_t)ms * DV_MS)) {
        c->is_timer_lost = true;
        dv_loop_defer(c->loop, &c->tidy);
    }
    return 0;
}

static void on_tidy(struct dv_defer *f)
{
    settle(DV_CONTAINER_OF(f, struct dv_httpc, tidy));
}

static size_t on_body(char *p, size_t size, size_t n, void *cls)
{
    struct dv_httpc_call *call = cls;
    (void)size;
    if (call->state == CALL_CANCELLED)
        return 0;
    long status = 0;
    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (call->on_data && status >= 200 && status < 300) {
        call->is_stopped_by_user = call->on_data(call->ctx, dv_sv(p, n)) != 0;
        return call->is_stopped_by_user ? 0 : n;
    }
    int rc = dv_buf_add(&call->body, p, n);
    call->is_too_large = rc == DV_TOO_LARGE;
    return rc ? 0 : n;
}

static size_t on_field(char *p, size_t size, size_t n, void *cls)
{
    struct dv_httpc_call *call = cls;
    (void)size;
    struct dv_sv line = dv_sv(p, n);
    if (dv_sv_starts(line, DV_SV("HTTP/"))) {
        dv_buf_clear(&call->fields); /* an interim answer's fields are not the final one's */
        return n;
    }
    if (dv_sv_eq(line, DV_SV("\r\n")))
        return n;
    int rc = dv_buf_add_sv(&call->fields, line);
    call->is_too_large = rc == DV_TOO_LARGE;
    return rc ? 0 : n;
}

/* ---- making a call ---- */

static bool has_ctl(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 127)
            return true;
    return false;
}

static int check(const struct dv_httpc_request *req, struct dv_err *err)
{
    if (!req->url || has_ctl(req->url) || (req->method && has_ctl(req->method)))
        return dv_err_set(err, DV_INVALID, "request line with control characters");
    for (const char *const *h = req->headers; h && *h; h++)
        if (has_ctl(*h) || !strchr(*h, ':'))
            return dv_err_set(err, DV_INVALID, "malformed request header");
    if ((req->bearer && has_ctl(req->bearer)) || (req->content_type && has_ctl(req->content_type)))
        return dv_err_set(err, DV_INVALID, "request header with control characters");
    return DV_OK;
}

static bool add_header(struct dv_httpc_call *call, const char *line)
{
    struct curl_slist *grown = line ? curl_slist_append(call->headers, line) : NULL;
    if (grown)
        call->headers = grown;
    return grown != NULL;
}

static bool add_headers(struct dv_httpc_call *call, const struct dv_httpc_request *req)
{
    /* Without this curl waits a second for "100 Continue" before a large body. */
    bool ok = add_header(call, "Expect:");
    for (const char *const *h = req->headers; h && *h; h++)
        ok = ok && add_header(call, *h);
    DV_AUTO_STR char *type =
        req->body.n
            ? dv_asprintf("Content-Type: %s", req->content_type ? req->content_type : "application/json")
            : dv_strdup("Content-Type:");
    ok = ok && add_header(call, type);
    if (req->bearer) {
        DV_AUTO_STR char *auth = dv_asprintf("Authorization: Bearer %s", req->bearer);
        ok = ok && add_header(call, auth);
    }
    return ok;
}

static bool set_method(CURL *easy, const struct dv_httpc_request *req)
{
    const char *method = req->method ? req->method : "GET";
    bool has_body =
        req->body.n > 0 || !strcmp(method, "POST") || !strcmp(method, "PUT") || !strcmp(method, "PATCH");
    if (!strcmp(method, "HEAD"))
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
    if (has_body && (curl_easy_setopt(easy, CURLOPT_POST, 1L) ||
                     curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n) ||
                     curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, req->body.n ? req->body.p : "")))
        return false;
    return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK;
}

static bool set_target(CURL *easy, const struct dv_httpc_request *req)
{
    bool ok = !curl_easy_setopt(easy, CURLOPT_URL, req->url) &&
              !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
              !curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L) && /* "/a/../b" is not for us to read as "/b" */
              !curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (req->unix_socket)
        return ok && !curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, req->unix_socket) &&
               !curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (req->no_proxy)
        ok = ok && !curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (req->no_tls_verify)
        ok = ok && !curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L) &&
             !curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    return ok;
}

static bool set_up(struct dv_httpc_call *call, const struct dv_httpc_request *req)
{
    CURL *e = call->easy;
    uint64_t connect_ms = req->connect_timeout_ms ? req->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    bool ok = set_target(e, req) && set_method(e, req) && add_headers(call, req) &&
              !curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers) &&
              !curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) && !curl_easy_setopt(e, CURLOPT_PRIVATE, call) &&
              !curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->error) &&
              !curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) &&
              !curl_easy_setopt(e, CURLOPT_WRITEDATA, call) &&
              !curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_field) &&
              !curl_easy_setopt(e, CURLOPT_HEADERDATA, call) &&
              !curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms) &&
              !curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    if (ok && req->userpwd)
        ok = !curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BASIC) &&
             !curl_easy_setopt(e, CURLOPT_USERPWD, req->userpwd);
    return ok;
}

int dv_httpc_send(struct dv_httpc *c, const struct dv_httpc_request *req, struct dv_httpc_call **out,
                  struct dv_err *err)
{
    dv_loop_assert_here(c->loop);
    int rc = c->is_dead ? dv_err_set(err, DV_INVALID, "HTTP client is closed") : check(req, err);
    if (rc)
        return rc;
    struct dv_httpc_call *call = dv_zalloc(sizeof(*call));
    if (!call)
        return dv_err_set(err, DV_E_NOMEM, "HTTP call");
    call->c = c;
    call->on_data = req->on_data;
    call->on_done = req->on_done;
    call->ctx = req->ctx;
    dv_buf_init(&call->body, req->body_max ? req->body_max : BODY_MAX);
    dv_buf_init(&call->fields, HEADERS_MAX);
    dv_list_push_back(&c->calls, &call->node);
    call->easy = curl_easy_init();
    if (!call->easy || !set_up(call, req)) {
        call_free(call);
        return dv_err_set(err, DV_E_NOMEM, "HTTP call");
    }
    /* The start itself waits for the end of the turn, so that no callback can run before this returns. */
    dv_loop_defer(c->loop, &c->tidy);
    if (out)
        *out = call;
    return DV_OK;
}

void dv_httpc_cancel(struct dv_httpc_call *call)
{
    if (!call || call->state == CALL_CANCELLED)
        return;
    bool was_new = call->state == CALL_NEW;
    call->state = CALL_CANCELLED;
    if (call->c->is_in_curl) {
        dv_loop_defer(call->c->loop, &call->c->tidy);
        return;
    }
    if (!was_new)
        (void)curl_multi_remove_handle(call->c->multi, call->easy);
    call_free(call);
}

/* ---- the client ---- */

int dv_httpc_new(struct dv_loop *loop, struct dv_httpc **out, struct dv_err *err)
{
    (void)pthread_once(&curl_once, init_curl);
    struct dv_httpc *c = curl_ready == CURLE_OK ? dv_zalloc(sizeof(*c)) : NULL;
    if (!c)
        return dv_err_set(err, DV_E_NOMEM, "HTTP client");
    *c = (struct dv_httpc){.loop = loop, .timer = {.fn = on_timer}, .tidy = {.fn = on_tidy}};
    dv_list_init(&c->calls);
    c->multi = curl_multi_init();
    if (!c->multi || curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket) ||
        curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) ||
        curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timeout_change) ||
        curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) ||
        curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)CONNS_KEPT)) {
        destroy(c);
        return dv_err_set(err, DV_E_NOMEM, "HTTP client");
    }
    *out = c;
    return DV_OK;
}

static void destroy(struct dv_httpc *c)
{
    if (c->multi)
        (void)curl_multi_cleanup(c->multi); /* closes kept connections, through on_socket */
    dv_timer_cancel(c->loop, &c->timer);
    dv_defer_cancel(&c->tidy);
    dv_free(c);
}

void dv_httpc_free(struct dv_httpc *c)
{
    if (!c || c->is_dead)
        return;
    c->is_dead = true;
    struct dv_err err = DV_ERR_INIT;
    (void)dv_err_set(&err, DV_CLOSED, "HTTP client is closed");
    struct dv_list *it;
    while ((it = dv_list_pop_front(&c->calls))) {
        struct dv_httpc_call *call = DV_LIST_ENTRY(it, struct dv_httpc_call, node);
        if (call->state == CALL_RUNNING || call->state == CALL_FAILED)
            (void)curl_multi_remove_handle(c->multi, call->easy);
        if (call->state == CALL_CANCELLED)
            call_free(call);
        else
            finish(call, DV_CLOSED, &err);
    }
    if (!c->is_finishing)
        destroy(c);
}

struct dv_sv dv_httpc_header(const struct dv_httpc_result *res, const char *name)
{
    struct dv_sv rest = res->headers, line, key, value;
    while (rest.n) {
        (void)dv_sv_cut(rest, '\n', &line, &rest);
        if (dv_sv_cut(line, ':', &key, &value) && dv_sv_eq_nocase(key, dv_sv_c(name))) {
            if (value.n && value.p[value.n - 1] == '\r')
                value.n--;
            return dv_sv_trim(value);
        }
    }
    return dv_sv(NULL, 0);
}

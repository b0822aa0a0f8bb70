#include "agent/node/scraper.h"

#include <stdio.h>
#include "agent/sandbox/sandbox.h"
#include "proto/base/alloc.h"
#include "proto/base/list.h"
#include "proto/rt/httpc.h"
#include "proto/rt/scrape.h"
#include "proto/wire/codec.h"

enum { UNDER_WAY_MAX = 256, WAITING_MAX = 4096, MESSAGE_MAX = 200 };

struct reading { /* under way, or done and not told yet */
    struct dv_list node;
    struct dv_scraper *s;
    struct dv_scrape *call;
    struct dv_scrape_result result; /* message: below */
    char message[MESSAGE_MAX];
};

struct dv_scraper {
    struct dv_loop *loop;
    struct dv_httpc *http; /* made when it is first needed */
    struct dv_list under_way, done;
    size_t n_under_way, n_done;
    void (*on_result)(void *ctx);
    void *ctx;
};

int dv_scraper_new(struct dv_loop *loop, void (*on_result)(void *ctx), void *ctx, struct dv_scraper **out,
                   struct dv_err *err)
{
    struct dv_scraper *s = dv_zalloc(sizeof(*s));
    if (!s)
        return dv_err_set(err, DV_E_NOMEM, "scraper");
    s->loop = loop;
    s->on_result = on_result;
    s->ctx = ctx;
    dv_list_init(&s->under_way);
    dv_list_init(&s->done);
    *out = s;
    return DV_OK;
}

void dv_scraper_drop(struct dv_scraper *s)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&s->under_way))) {
        struct reading *r = DV_LIST_ENTRY(n, struct reading, node);
        dv_scrape_cancel(r->call);
        dv_free(r);
    }
    while ((n = dv_list_pop_front(&s->done)))
        dv_free(DV_LIST_ENTRY(n, struct reading, node));
    s->n_under_way = s->n_done = 0;
}

void dv_scraper_free(struct dv_scraper *s)
{
    if (!s)
        return;
    dv_scraper_drop(s);
    if (s->http)
        dv_httpc_free(s->http);
    dv_free(s);
}

/* r is on neither list. */
static void finished(struct reading *r, int code, double value, const struct dv_err *err)
{
    struct dv_scraper *s = r->s;
    if (s->n_done >= WAITING_MAX) { /* nobody takes them */
        dv_free(r);
        return;
    }
    r->result.ok = code == DV_OK;
    r->result.value = r->result.ok ? value : 0;
    if (code)
        (void)dv_copy(r->message, sizeof(r->message), dv_err_msg(err, code));
    r->call = NULL;
    dv_list_push_back(&s->done, &r->node);
    s->n_done++;
    s->on_result(s->ctx);
}

static void on_read(void *ctx, int code, double value, const struct dv_err *err)
{
    struct reading *r = ctx;
    dv_list_remove(&r->node);
    r->s->n_under_way--;
    finished(r, code, value, err);
}

/* "172.17.0.2:8080" at the metric's own port and path. */
static int url_of(const char *address, const struct dv_metric *m, char *out, size_t cap, struct dv_err *err)
{
    struct dv_metric_source source;
    const char *why = "", *colon = strrchr(address, ':');
    if (dv_metric_source_of(m->url, &source, &why) || !source.is_replica || !colon)
        return dv_err_set(err, DV_INVALID, "not an endpoint of a replica");
    int n = source.port ? snprintf(out, cap, "http://%.*s:%lld%s", (int)(colon - address), address,
                                   (long long)source.port, source.path)
                        : snprintf(out, cap, "http://%s%s", address, source.path);
    return n > 0 && (size_t)n < cap ? DV_OK : dv_err_set(err, DV_TOO_LARGE, "its URL is too long");
}

static int begin(struct dv_scraper *s, const struct dv_sandbox *sandbox, const struct dv_cmd_scrape *cmd,
                 struct reading *r, struct dv_err *err)
{
    char address[80], url[2200];
    if (!dv_sandbox_address(sandbox, r->result.replica, address, sizeof(address)))
        return dv_err_set(err, DV_NOT_FOUND, "the replica does not run");
    if (s->n_under_way >= UNDER_WAY_MAX)
        return dv_err_set(err, DV_NO_CAPACITY, "its node reads too many metrics at once");
    int rc = url_of(address, &cmd->metric, url, sizeof(url), err);
    if (!rc && !s->http)
        rc = dv_httpc_new(s->loop, &s->http, err);
    return rc ? rc : dv_scrape_start(s->http, url, &cmd->metric, true, on_read, r, &r->call, err);
}

void dv_scraper_obey(struct dv_scraper *s, const struct dv_sandbox *sandbox, const struct dv_cmd_scrape *cmd)
{
    for (size_t i = 0; i < cmd->n_replicas; i++) {
        struct dv_err err = DV_ERR_INIT;
        struct reading *r = dv_zalloc(sizeof(*r));
        if (!r)
            return; /* what is not answered counts as not told */
        r->s = s;
        r->result = (struct dv_scrape_result){
            .fn_uid = cmd->fn_uid, .epoch = cmd->epoch, .index = cmd->index, .replica = cmd->replicas[i]};
        int rc = begin(s, sandbox, cmd, r, &err);
        if (rc) {
            finished(r, rc, 0, &err);
            continue;
        }
        dv_list_push_back(&s->under_way, &r->node);
        s->n_under_way++;
    }
}

int dv_scraper_take(struct dv_scraper *s, struct dv_arena *arena, struct dv_scrape_result **out,
                    size_t *out_n)
{
    struct dv_scrape_result *v = dv_arena_alloc(arena, (s->n_done + 1) * sizeof(*v));
    size_t n = 0;
    if (!v)
        return DV_E_NOMEM;
    DV_LIST_FOR_EACH (it, &s->done) {
        struct reading *r = DV_LIST_ENTRY(it, struct reading, node);
        v[n] = r->result;
        v[n].message = r->message[0] ? dv_arena_strdup(arena, r->message) : NULL;
        n++;
    }
    struct dv_list *it;
    while ((it = dv_list_pop_front(&s->done)))
        dv_free(DV_LIST_ENTRY(it, struct reading, node));
    s->n_done = 0;
    *out = v;
    *out_n = n;
    return DV_OK;
}

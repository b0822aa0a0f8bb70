#include "orchestrator/gateway/route.h"
#include "proto/wire/types.h"

/* "http://host/path" -> "/path"; anything else as it is. */
static struct dv_sv origin_form(struct dv_sv t)
{
    if (t.n && t.p[0] == '/')
        return t;
    size_t scheme = t.n >= 7 && dv_sv_eq_nocase(dv_sv(t.p, 7), DV_SV("http://"))    ? 7
                    : t.n >= 8 && dv_sv_eq_nocase(dv_sv(t.p, 8), DV_SV("https://")) ? 8
                                                                                    : 0;
    if (!scheme)
        return t;
    for (size_t i = scheme; i < t.n; i++)
        if (t.p[i] == '/' || t.p[i] == '?')
            return dv_sv(t.p + i, t.n - i);
    return DV_SV("/");
}

static struct dv_sv skip(struct dv_sv s, size_t n)
{
    return dv_sv(s.p + n, s.n - n);
}

/* The first path segment of s; *rest is what follows it, from its '/' or '?'. */
static struct dv_sv segment(struct dv_sv s, struct dv_sv *rest)
{
    size_t i = 0;
    while (i < s.n && s.p[i] != '/' && s.p[i] != '?')
        i++;
    *rest = skip(s, i);
    return dv_sv(s.p, i);
}

static struct dv_sv namespace_of(struct dv_sv ns)
{
    return ns.n == 0 || dv_sv_eq(ns, DV_SV("openfaas-fn")) ? DV_SV(DV_NS_DEFAULT) : ns;
}

static struct dv_sv namespace_in_query(struct dv_sv target)
{
    struct dv_sv path, query, pair, key, value;
    dv_sv_cut(target, '?', &path, &query);
    while (query.n) {
        dv_sv_cut(query, '&', &pair, &query);
        dv_sv_cut(pair, '=', &key, &value);
        if (dv_sv_eq(key, DV_SV("namespace")))
            return value;
    }
    return dv_sv("", 0);
}

static void named(struct dv_route *r, enum dv_route_kind kind, struct dv_sv after_prefix)
{
    struct dv_sv name = segment(after_prefix, &r->rest);
    if (!name.n)
        return;
    r->kind = kind;
    r->add_slash = !r->rest.n || r->rest.p[0] != '/';
    struct dv_sv ns;
    dv_sv_cut(name, '.', &r->name, &ns);
    r->ns = name.n == r->name.n ? namespace_of(ns)
            : ns.n              ? namespace_of(ns)
                                : dv_sv("?", 1); /* "name.": no such */
}

static void invoke(struct dv_route *r, struct dv_sv after_prefix)
{
    struct dv_sv rest, name = segment(after_prefix, &rest);
    if (!name.n || !rest.n || rest.p[0] != '/')
        return;
    struct dv_sv verb = segment(skip(rest, 1), &rest);
    if (!dv_sv_eq(verb, DV_SV("invoke")))
        return;
    r->kind = DV_ROUTE_INVOKE;
    r->name = name;
    r->ns = namespace_of(namespace_in_query(r->path));
    r->rest = rest;
    r->add_slash = !rest.n || rest.p[0] != '/';
}

void dv_route_parse(struct dv_sv target, struct dv_route *out)
{
    const struct dv_sv sync = DV_SV("/function/"), async = DV_SV("/async-function/"),
                       v1 = DV_SV("/v1/functions/"), health = DV_SV("/healthz");
    *out = (struct dv_route){.kind = DV_ROUTE_API, .path = origin_form(target)};
    struct dv_sv p = out->path;
    if (dv_sv_starts(p, sync))
        named(out, DV_ROUTE_SYNC, skip(p, sync.n));
    else if (dv_sv_starts(p, async))
        named(out, DV_ROUTE_ASYNC, skip(p, async.n));
    else if (dv_sv_starts(p, v1))
        invoke(out, skip(p, v1.n));
    else if (dv_sv_starts(p, health) && (p.n == health.n || p.p[health.n] == '?'))
        out->kind = DV_ROUTE_HEALTH;
}

size_t dv_route_key(struct dv_sv name, struct dv_sv ns, char out[DV_ROUTE_KEY_MAX])
{
    if (!name.n || name.n > DV_NAME_MAX || !ns.n || ns.n > DV_NAME_MAX)
        return 0;
    memcpy(out, name.p, name.n);
    out[name.n] = '.';
    memcpy(out + name.n + 1, ns.p, ns.n);
    return name.n + 1 + ns.n;
}

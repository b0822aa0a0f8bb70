/* From the target of a request to what it means.  Pure; views into the target, nothing is decoded:
 * percent-encoding, dot segments and the query reach the function as the client wrote them. */
#ifndef DV_ROUTE_H
#define DV_ROUTE_H

#include <stdbool.h>
#include "proto/base/str.h"

enum dv_route_kind {
    DV_ROUTE_API,    /* everything that is not below */
    DV_ROUTE_HEALTH, /* /healthz */
    DV_ROUTE_SYNC,   /* /function/{name}[.ns][/rest] */
    DV_ROUTE_ASYNC,  /* /async-function/{name}[.ns][/rest] */
    DV_ROUTE_INVOKE  /* /v1/functions/{name}/invoke[/rest]?namespace= */
};

struct dv_route {
    enum dv_route_kind kind;
    struct dv_sv name, ns; /* ns: as the store knows it ("openfaas-fn" is "default") */
    struct dv_sv path;     /* the whole target in origin form */
    struct dv_sv rest;     /* below the function, with the query; begins with '/' unless add_slash */
    bool add_slash;        /* rest lacks its '/': "/function/a?x=1" is "/?x=1" to the function */
};

void dv_route_parse(struct dv_sv target, struct dv_route *out);

/* The name under which a function is found: "name.ns", in the caller's storage.  0: cannot be a function's
 * name. */
enum { DV_ROUTE_KEY_MAX = 2 * 63 + 1 };
size_t dv_route_key(struct dv_sv name, struct dv_sv ns, char out[DV_ROUTE_KEY_MAX]);

#endif

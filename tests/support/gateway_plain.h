/* What the suites of the gateway begin with: requests in a line, and a gateway with one warm replica. */
#ifndef GATEWAY_PLAIN_H
#define GATEWAY_PLAIN_H

#include "tests/support/gateway_rig.h"

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define HEAD(path) "HEAD " path " HTTP/1.1\r\nHost: h\r\n\r\n"

static inline struct rig *plain_rig(void)
{
    struct rig *g = rig_start(&(struct rig_options){0});
    rig_replicas(g, 1, 10);
    return g;
}

#endif

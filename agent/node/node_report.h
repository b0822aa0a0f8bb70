/* What is told of the node itself: its engine, its machine, its images. */
#ifndef DV_NODE_REPORT_H
#define DV_NODE_REPORT_H

#include "agent/node/identity.h"
#include "agent/sandbox/sandbox.h"
#include "proto/wire/types.h"

struct dv_node_meter { /* between two reports; zero it at first */
    uint64_t at_ns;
    int64_t cpu_used_us, cpu_used_mcpu;
    bool was_ok, was_told;
    uint64_t images_version, pools_version;
};

/* Fill out for a report; strings are borrowed from the sandbox and static memory. */
void dv_node_report_fill(struct dv_node_meter *m, const struct dv_sandbox *sb, const struct dv_identity *id,
                         int64_t replicas_max, uint64_t now_ns, struct dv_node_report *out);
/* Something worth telling before the next regular report: the engine came or went, images changed. */
bool dv_node_report_is_news(const struct dv_node_meter *m, const struct dv_sandbox *sb);

#endif

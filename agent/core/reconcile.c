/* Quadratic on purpose: a node holds a few hundred replicas, and this runs every few seconds at most. */
#include "agent/core/reconcile.h"

#include <string.h>

static const struct dv_rc_replica *find(const struct dv_rc_replica *r, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (r[i].id == id)
            return &r[i];
    return NULL;
}

/* The container that is the replica's own among all that carry its label. */
static const struct dv_rc_container *chosen(const struct dv_rc_replica *r, const struct dv_rc_container *c,
                                            size_t n)
{
    const struct dv_rc_container *first = NULL, *running = NULL;
    for (size_t i = 0; i < n; i++) {
        if (c[i].replica != r->id)
            continue;
        if (r->container && !strcmp(c[i].id, r->container))
            return &c[i];
        if (!first)
            first = &c[i];
        if (!running && c[i].is_running)
            running = &c[i];
    }
    if (r->container)
        return NULL; /* it has another one, which is not in the list */
    return running ? running : first;
}

size_t dv_rc_containers(const struct dv_rc_replica *replicas, size_t n_replicas,
                        const struct dv_rc_container *containers, size_t n_containers,
                        struct dv_rc_action *out)
{
    size_t n = 0;
    for (size_t i = 0; i < n_containers; i++) {
        const struct dv_rc_container *c = &containers[i];
        const struct dv_rc_replica *r = c->replica ? find(replicas, n_replicas, c->replica) : NULL;
        if (r && r->is_busy)
            continue;
        if (!r || r->is_ended || chosen(r, containers, n_containers) != c)
            out[n++] = (struct dv_rc_action){DV_RC_REMOVE, 0, c->id};
        else if (!c->is_running)
            out[n++] = (struct dv_rc_action){DV_RC_EXITED, r->id, c->id};
        else if (!r->is_attached)
            out[n++] = (struct dv_rc_action){DV_RC_ADOPT, r->id, c->id};
    }
    for (size_t i = 0; i < n_replicas; i++) {
        const struct dv_rc_replica *r = &replicas[i];
        if (!r->is_busy && !r->is_ended && !chosen(r, containers, n_containers))
            out[n++] = (struct dv_rc_action){DV_RC_LOST, r->id, NULL};
    }
    return n;
}

size_t dv_rc_sync(const struct dv_rc_replica *replicas, size_t n_replicas, const uint64_t *wanted,
                  size_t n_wanted, uint64_t now_ms, struct dv_rc_action *out)
{
    size_t n = 0;
    for (size_t i = 0; i < n_replicas; i++) {
        const struct dv_rc_replica *r = &replicas[i];
        bool is_wanted = r->is_stopping || now_ms < r->started_ms + DV_RC_SYNC_GRACE_MS;
        for (size_t k = 0; k < n_wanted && !is_wanted; k++)
            is_wanted = wanted[k] == r->id;
        if (!is_wanted)
            out[n++] = (struct dv_rc_action){DV_RC_STOP, r->id, NULL};
    }
    return n;
}

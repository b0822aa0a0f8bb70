/* What the orchestrator and Prometheus are told of the replicas. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

static struct dv_replica_report report_of(const struct sb_replica *r)
{
    enum dv_replica_state state = sb_replica_state(r);
    bool is_over = state == DV_REPLICA_FAILED || state == DV_REPLICA_GONE;
    return (struct dv_replica_report){.id = r->id,
                                      .fn_uid = r->cmd.fn_uid,
                                      .generation = r->cmd.generation,
                                      .fn = (char *)(uintptr_t)r->fn_name,
                                      .state = state,
                                      .reason = is_over ? r->reason : DV_REASON_NONE,
                                      .message = r->message[0] && r->phase < PH_DRAIN
                                                     ? (char *)(uintptr_t)r->message
                                                 : r->message[0] && is_over ? (char *)(uintptr_t)r->message
                                                                            : NULL,
                                      .exit_code = r->exit_code,
                                      .log_tail = state == DV_REPLICA_FAILED ? r->tail_text : NULL,
                                      .container = r->container[0] ? (char *)(uintptr_t)r->container : NULL,
                                      .address = r->address[0] ? (char *)(uintptr_t)r->address : NULL,
                                      .times = r->times,
                                      .in_flight = (int64_t)r->in_flight,
                                      .requests = (int64_t)r->served,
                                      .memory_bytes = r->usage.memory_bytes,
                                      .cpu_us = r->usage.cpu_us,
                                      .oom_kills = r->usage.oom_kills,
                                      .started_ms = r->started_ms};
}

bool dv_sandbox_address(const struct dv_sandbox *s, uint64_t replica, char *out, size_t cap)
{
    const struct sb_replica *r = dv_idmap_find(&s->by_id, replica);
    return r && !r->is_dead && sb_replica_state(r) == DV_REPLICA_WARM && r->address[0] &&
           dv_copy(out, cap, r->address);
}

bool dv_sandbox_has_changes(const struct dv_sandbox *s)
{
    DV_LIST_FOR_EACH (n, &s->replicas)
        if (DV_LIST_ENTRY(n, struct sb_replica, node)->is_dirty)
            return true;
    return false;
}

/* Gone and told: whatever call of it is still under way frees it. */
static void bury(struct sb_replica *r)
{
    (void)dv_idmap_remove(&r->sb->by_id, r->id);
    if (r->calls)
        r->is_dead = true;
    else
        sb_replica_free(r);
}

int dv_sandbox_report(struct dv_sandbox *s, bool full, struct dv_arena *arena, struct dv_replica_report **out,
                      size_t *out_n)
{
    struct dv_replica_report *v = dv_arena_alloc(arena, (s->by_id.n + 1) * sizeof(*v));
    size_t n = 0;
    if (!v)
        return DV_E_NOMEM;
    DV_LIST_FOR_EACH (it, &s->replicas) {
        struct sb_replica *r = DV_LIST_ENTRY(it, struct sb_replica, node);
        if (r->is_dead || (!full && !r->is_dirty))
            continue;
        v[n] = report_of(r);
        if (r->phase == PH_GONE) { /* freed below, before the caller reads */
            v[n].fn = dv_arena_strdup(arena, v[n].fn);
            v[n].message = dv_arena_strdup(arena, v[n].message);
            v[n].container = dv_arena_strdup(arena, v[n].container);
            v[n].address = dv_arena_strdup(arena, v[n].address);
            if (!v[n].fn)
                return DV_E_NOMEM;
        }
        n++;
    }
    DV_LIST_FOR_EACH_SAFE (it, &s->replicas) {
        struct sb_replica *r = DV_LIST_ENTRY(it, struct sb_replica, node);
        r->is_dirty = false;
        if (r->phase == PH_GONE && !r->is_dead)
            bury(r);
    }
    *out = v;
    *out_n = n;
    return DV_OK;
}

/* ---- Prometheus ---- */

static void counter(struct dv_buf *out, const char *name, const char *help, uint64_t value)
{
    (void)dv_metric_head(out, name, DV_METRIC_COUNTER, help); /* failures stay in out->failed */
    (void)dv_metric_u64(out, name, NULL, 0, value);
}

static void write_states(const struct dv_sandbox *s, struct dv_buf *out)
{
    uint64_t n_by_state[DV_REPLICA_N_STATES] = {0};
    DV_LIST_FOR_EACH (n, &s->replicas)
        n_by_state[sb_replica_state(DV_LIST_ENTRY(n, struct sb_replica, node))]++;
    (void)dv_metric_head(out, "davit_agent_replicas", DV_METRIC_GAUGE, "Replicas on this node by state.");
    for (int i = 0; i < DV_REPLICA_GONE; i++) {
        struct dv_label state = {"state", dv_sv_c(dv_replica_state_name((enum dv_replica_state)i))};
        (void)dv_metric_u64(out, "davit_agent_replicas", &state, 1, n_by_state[i]);
    }
    (void)dv_metric_head(out, "davit_agent_replica_failures_total", DV_METRIC_COUNTER,
                         "Replicas that failed, by reason.");
    for (int i = DV_REASON_NONE + 1; i < DV_REASON_STOPPED; i++) {
        struct dv_label reason = {"reason", dv_sv_c(dv_reason_name((enum dv_reason)i))};
        (void)dv_metric_u64(out, "davit_agent_replica_failures_total", &reason, 1, s->counts.failed[i]);
    }
}

static void write_usage(const struct dv_sandbox *s, struct dv_buf *out)
{
    static const char *const names[] = {"davit_agent_replica_memory_bytes",
                                        "davit_agent_replica_cpu_seconds_total"};
    static const char *const help[] = {"Memory of a replica, without reclaimable page cache.",
                                       "CPU time of a replica."};
    for (int k = 0; k < 2; k++) {
        (void)dv_metric_head(out, names[k], k ? DV_METRIC_COUNTER : DV_METRIC_GAUGE, help[k]);
        DV_LIST_FOR_EACH (n, &s->replicas) {
            const struct sb_replica *r = DV_LIST_ENTRY(n, struct sb_replica, node);
            char id[DV_ID_TEXT];
            dv_id_text(r->id, id);
            struct dv_label labels[] = {{"function", dv_sv_c(r->fn_name)}, {"replica", dv_sv_c(id)}};
            if (r->cgroup)
                (void)dv_metric_double(out, names[k], labels, 2,
                                       k ? (double)r->usage.cpu_us / 1e6 : (double)r->usage.memory_bytes);
        }
    }
}

static void write_phases(const struct dv_sandbox *s, struct dv_buf *out)
{
    static const char name[] = "davit_agent_start_seconds";
    const struct dv_hist *phases[] = {&s->counts.pull, &s->counts.create,     &s->counts.start,
                                      &s->counts.open, &s->counts.ready_time, &s->counts.total};
    static const char *const labels[] = {"pull", "create", "start", "open", "ready", "total"};
    (void)dv_metric_head(out, name, DV_METRIC_HISTOGRAM, "Time of a replica's start by phase.");
    for (size_t i = 0; i < DV_COUNT(phases); i++) {
        struct dv_label phase = {"phase", dv_sv_c(labels[i])};
        (void)dv_metric_hist(out, name, &phase, 1, phases[i], &dv_hist_seconds);
    }
}

static void write_networks(const struct dv_sandbox *s, struct dv_buf *out)
{
    static const char *const names[HO_N] = {"making", "making", "making",  "found",
                                            "ready",  "in_use", "closing", "removing"};
    const struct sb_nets *nets = &s->nets;
    (void)dv_metric_head(out, "davit_agent_networks", DV_METRIC_GAUGE, "Ready networks by state.");
    for (int i = HO_INSPECT; i < HO_N; i++) {
        struct dv_label state = {"state", dv_sv_c(names[i])};
        size_t n = nets->n[i] + (i == HO_INSPECT ? nets->n[HO_CREATE] + nets->n[HO_START] : 0);
        (void)dv_metric_u64(out, "davit_agent_networks", &state, 1, n);
    }
    counter(out, "davit_agent_networks_made_total", "Ready networks made.", nets->counts.made);
    counter(out, "davit_agent_networks_lost_total", "Ready networks that went away by themselves.",
            nets->counts.lost);
    counter(out, "davit_agent_networks_joined_total", "Containers that joined a ready network.",
            nets->counts.joined);
    counter(out, "davit_agent_networks_missed_total", "Containers for which none was ready.",
            nets->counts.missed);
}

void dv_sandbox_engine_stats(const struct dv_sandbox *s, uint64_t *out_calls, uint64_t *out_errors)
{
    *out_calls = *out_errors = 0;
    sb_ops(s)->stats(s->cfg.engine, out_calls, out_errors);
}

void dv_sandbox_metrics(struct dv_sandbox *s, struct dv_buf *out)
{
    uint64_t calls, errors;
    dv_sandbox_engine_stats(s, &calls, &errors);
    write_states(s, out);
    write_phases(s, out);
    write_usage(s, out);
    sb_pools_metrics(s, out);
    write_networks(s, out);
    sb_sleep_metrics(s, out);
    counter(out, "davit_agent_replicas_started_total", "Replicas asked for.", s->counts.started);
    counter(out, "davit_agent_replicas_adopted_total", "Containers taken over after a restart.",
            s->counts.adopted);
    counter(out, "davit_agent_orphans_removed_total", "Containers removed because nobody wanted them.",
            s->counts.orphans);
    counter(out, "davit_agent_image_pulls_total", "Images pulled.", s->counts.pulls);
    counter(out, "davit_agent_image_pull_failures_total", "Pulls that failed.", s->counts.pull_failures);
    counter(out, "davit_agent_engine_calls_total", "Calls to the container engine.", calls);
    counter(out, "davit_agent_engine_errors_total", "Calls to the container engine that failed.", errors);
    counter(out, "davit_agent_engine_losses_total", "Times the container engine stopped answering.",
            s->counts.engine_losses);
    (void)dv_metric_head(out, "davit_agent_engine_up", DV_METRIC_GAUGE,
                         "1 while the container engine answers.");
    (void)dv_metric_u64(out, "davit_agent_engine_up", NULL, 0, s->is_ok);
}

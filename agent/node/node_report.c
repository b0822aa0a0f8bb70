#include "agent/node/node_report.h"
#include "agent/cgroup/cgroup.h"
#include "agent/engine/engine.h"

#include <sys/utsname.h>
#include <unistd.h>

/* The machine's name for its architecture, as images say it; for the time before the engine has told. */
static const char *machine_arch(void)
{
    static struct utsname u;
    static const char *const names[][2] = {
        {"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"i686", "386"}};
    if (!u.machine[0] && uname(&u) < 0)
        return "";
    for (size_t i = 0; i < DV_COUNT(names); i++)
        if (!strcmp(u.machine, names[i][0]))
            return names[i][1];
    return u.machine;
}

static void measure(struct dv_node_meter *m, uint64_t now_ns, int64_t *out_available)
{
    int64_t used_us;
    if (dv_machine_usage(&used_us, out_available, NULL))
        return; /* the figures of last time stand */
    if (m->at_ns && now_ns > m->at_ns + 100 * DV_MS) {
        m->cpu_used_mcpu = (used_us - m->cpu_used_us) * 1000 / (int64_t)((now_ns - m->at_ns) / 1000);
        m->at_ns = now_ns;
        m->cpu_used_us = used_us;
    } else if (!m->at_ns) {
        m->at_ns = now_ns;
        m->cpu_used_us = used_us;
    }
}

void dv_node_report_fill(struct dv_node_meter *m, const struct dv_sandbox *sb, const struct dv_identity *id,
                         int64_t replicas_max, uint64_t now_ns, struct dv_node_report *out)
{
    struct dv_sandbox_engine_state e;
    int64_t available = 0;
    uint64_t calls, errors;
    dv_sandbox_engine(sb, &e);
    dv_sandbox_engine_stats(sb, &calls, &errors);
    measure(m, now_ns, &available);
    *out = (struct dv_node_report){
        .node = id->node,
        .incarnation = id->incarnation,
        .version = (char *)(uintptr_t)DAVIT_VERSION,
        .engine_ok = e.is_ok,
        .engine_message = (char *)(uintptr_t)e.message,
        .engine_version = (char *)(uintptr_t)e.info->version,
        .api_version = (char *)(uintptr_t)e.info->api,
        .arch = (char *)(uintptr_t)(e.info->arch[0] ? e.info->arch : machine_arch()),
        .os = (char *)(uintptr_t)(e.info->os[0] ? e.info->os : "linux"),
        .cgroup = (char *)(uintptr_t)(dv_cgroup_version() == DV_CGROUP_V1 ? "v1" : "v2"),
        .cpus = e.info->cpus ? e.info->cpus : sysconf(_SC_NPROCESSORS_ONLN),
        .memory_bytes =
            e.info->memory_bytes ? e.info->memory_bytes : sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE),
        .memory_available_bytes = available,
        .cpu_used_mcpu = m->cpu_used_mcpu,
        .replicas_max = replicas_max,
        .primed_max = e.primed_max > 0 ? e.primed_max : -1,
        .images = *e.images,
        .pools = (struct dv_pool *)(uintptr_t)e.pools,
        .n_pools = e.n_pools,
        .engine_calls = (int64_t)calls,
        .engine_errors = (int64_t)errors};
    m->was_told = true;
    m->was_ok = e.is_ok;
    m->images_version = e.images_version;
    m->pools_version = e.pools_version;
}

bool dv_node_report_is_news(const struct dv_node_meter *m, const struct dv_sandbox *sb)
{
    struct dv_sandbox_engine_state e;
    dv_sandbox_engine(sb, &e);
    return !m->was_told || m->was_ok != e.is_ok || m->images_version != e.images_version ||
           m->pools_version != e.pools_version;
}

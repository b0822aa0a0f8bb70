/* Names: what may be one, and how enums are called on the wire and to people. */
#include "proto/wire/codec_internal.h"

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

struct dv_sv dv_openfaas_name(struct dv_sv dotted, char out[2 * DV_NAME_MAX + 2])
{
    struct dv_sv name, ns;
    if (!dv_sv_cut(dotted, '.', &name, &ns))
        return dotted;
    if (dv_sv_eq(ns, DV_SV(DV_NS_DEFAULT)))
        ns = DV_SV(DV_NS_OPENFAAS);
    (void)snprintf(out, 2 * DV_NAME_MAX + 2, "%.*s.%.*s", (int)name.n, name.p, (int)ns.n, ns.p);
    return dv_sv_c(out);
}

bool dv_name_valid(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || n > DV_NAME_MAX || !is_lower_or_digit(s[0]) || !is_lower_or_digit(s[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_lower_or_digit(s[i]) && s[i] != '-')
            return false;
    return true;
}

const char *dv_check_name(const char *s)
{
    return dv_name_valid(s)
               ? NULL
               : "must be a name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
}

/* Host names come with dots and capitals. */
const char *dv_check_node_name(const char *s)
{
    size_t n = strlen(s);
    bool ok = n > 0 && n <= 253;
    for (size_t i = 0; ok && i < n; i++)
        ok = is_lower_or_digit(s[i]) || (s[i] >= 'A' && s[i] <= 'Z') || (i > 0 && strchr("-._", s[i]));
    return ok ? NULL : "must be a host name: letters, digits, '-', '.' and '_'";
}

const char *const dv_names_replica_state[] = {
    [DV_REPLICA_COLD] = "cold",     [DV_REPLICA_PRIMED] = "primed", [DV_REPLICA_STARTING] = "starting",
    [DV_REPLICA_WARM] = "warm",     [DV_REPLICA_FROZEN] = "frozen", [DV_REPLICA_DRAINING] = "draining",
    [DV_REPLICA_FAILED] = "failed", [DV_REPLICA_GONE] = "gone",     [DV_REPLICA_N_STATES] = NULL,
};
_Static_assert(DV_COUNT(dv_names_replica_state) == DV_REPLICA_N_STATES + 1, "a name for every state");

const char *const dv_names_reason[] = {
    [DV_REASON_NONE] = "none",
    [DV_REASON_IMAGE_MISSING] = "image_missing",
    [DV_REASON_IMAGE_DENIED] = "image_denied",
    [DV_REASON_WRONG_ARCH] = "wrong_arch",
    [DV_REASON_CREATE_FAILED] = "create_failed",
    [DV_REASON_EXITED] = "exited",
    [DV_REASON_OOM] = "oom",
    [DV_REASON_NOT_READY] = "not_ready",
    [DV_REASON_NODE_LOST] = "node_lost",
    [DV_REASON_ENGINE_DOWN] = "engine_down",
    [DV_REASON_STOPPED] = "stopped",
    [DV_REASON_INTERRUPTED] = "interrupted",
    [DV_REASON_REMOVED] = "removed",
    [DV_REASON_N] = NULL,
};
_Static_assert(DV_COUNT(dv_names_reason) == DV_REASON_N + 1, "a name for every reason");

static const char *const reason_texts[] = {
    [DV_REASON_NONE] = "no reason given",
    [DV_REASON_IMAGE_MISSING] = "the image was not found on the node and could not be pulled",
    [DV_REASON_IMAGE_DENIED] = "the registry refused to hand out the image",
    [DV_REASON_WRONG_ARCH] = "the image was built for another processor architecture",
    [DV_REASON_CREATE_FAILED] = "the engine refused to create or start the container",
    [DV_REASON_EXITED] = "the function's process ended by itself",
    [DV_REASON_OOM] = "the function needed more memory than its limit",
    [DV_REASON_NOT_READY] = "the function did not answer its probe in time",
    [DV_REASON_NODE_LOST] = "the node is not reachable any more",
    [DV_REASON_ENGINE_DOWN] = "the node's container engine does not answer",
    [DV_REASON_STOPPED] = "stopped as wanted",
    [DV_REASON_INTERRUPTED] = "it did not outlive a restart of the agent",
    [DV_REASON_REMOVED] = "its container was removed by somebody else",
};
_Static_assert(DV_COUNT(reason_texts) == DV_REASON_N, "a text for every reason");

const char *dv_replica_state_name(enum dv_replica_state s)
{
    return (unsigned)s < DV_REPLICA_N_STATES ? dv_names_replica_state[s] : "unknown";
}

const char *dv_reason_name(enum dv_reason r)
{
    return (unsigned)r < DV_REASON_N ? dv_names_reason[r] : "unknown";
}

const char *dv_reason_text(enum dv_reason r)
{
    return (unsigned)r < DV_REASON_N ? reason_texts[r] : "unknown reason";
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct dv_kv *)a)->k, ((const struct dv_kv *)b)->k);
}

void dv_kvs_sort(struct dv_kvs *m)
{
    if (m->n > 1)
        qsort(m->v, m->n, sizeof(*m->v), by_key);
}

/* Linear: maps are short, and those built in code need not be sorted to be searched. */
const char *dv_kvs_find(const struct dv_kvs *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->v[i].k, key) == 0)
            return m->v[i].v;
    return NULL;
}

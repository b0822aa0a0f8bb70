/* Placement of one replica: filter, then score, in one pass over the nodes.
 *
 * The order of the nodes never matters: every comparison ends at the node's id.  Scores are compared field by
 * field instead of being summed into one number, so that what weighs more can be read off the code, and
 * adding a consideration is adding a line. */
#include "orchestrator/core/sched_internal.h"

#include "proto/base/err.h"
#include "proto/base/str.h"
#include "proto/wire/codec.h"

/* What every node says of itself, under the names that stack files carry from other schedulers. */
static const char *own_property(const struct dv_node_view *node, struct dv_sv key)
{
    static const struct {
        const char *name;
        enum { ARCH, OS, HOST } what;
    } names[] = {{"kubernetes.io/arch", ARCH},     {"beta.kubernetes.io/arch", ARCH},
                 {"node.platform.arch", ARCH},     {"kubernetes.io/os", OS},
                 {"beta.kubernetes.io/os", OS},    {"node.platform.os", OS},
                 {"kubernetes.io/hostname", HOST}, {"node.hostname", HOST}};
    for (size_t i = 0; i < DV_COUNT(names); i++)
        if (dv_sv_eq(key, dv_sv_c(names[i].name)))
            return names[i].what == ARCH ? node->arch : names[i].what == OS ? "linux" : node->name;
    return NULL;
}

/* Labels win over what a node says of itself: the operator may know better. */
static const char *property(const struct dv_node_view *node, struct dv_sv key)
{
    static const struct dv_sv prefix = {"node.labels.", 12};
    if (dv_sv_starts(key, prefix))
        key = dv_sv(key.p + prefix.n, key.n - prefix.n);
    for (size_t i = 0; node->labels && i < node->labels->n; i++)
        if (dv_sv_eq(key, dv_sv_c(node->labels->v[i].k)))
            return node->labels->v[i].v;
    return own_property(node, key);
}

static bool constraint_holds(const char *text, const struct dv_node_view *node)
{
    const char *eq = strchr(text, '=');
    if (!eq)
        return false;
    if (eq[1] == '=') /* "label==value", as other schedulers write it */
        eq++;
    bool negated = eq > text && eq[-1] == '!';
    struct dv_sv value = dv_sv_trim(dv_sv_c(eq + 1));
    struct dv_sv key = dv_sv_trim(dv_sv(text, strcspn(text, "!=")));
    const char *have = property(node, key);
    bool equal = have && dv_sv_eq(value, dv_sv_c(have));
    return negated ? !equal : equal;
}

bool dv_sched_constraints_hold(const struct dv_strs *constraints, const struct dv_node_view *node)
{
    for (size_t i = 0; constraints && i < constraints->n; i++)
        if (!constraint_holds(constraints->v[i], node))
            return false;
    return true;
}

uint64_t dv_sched_constraints_hash(const struct dv_strs *constraints)
{
    uint64_t h = constraints ? constraints->n : 0;
    for (size_t i = 0; constraints && i < constraints->n; i++)
        h = dv_hash_bytes(constraints->v[i], strlen(constraints->v[i]), h);
    return h;
}

enum dv_misfit dv_sched_fit(const struct dv_need *need, const struct dv_node_view *node)
{
    if (!node->is_ready)
        return DV_MISFIT_NOT_READY;
    if (node->n_replicas >= node->max_replicas)
        return DV_MISFIT_REPLICAS;
    if (need->memory_bytes > node->memory_bytes - node->promised_bytes)
        return DV_MISFIT_MEMORY;
    if (need->cpu_mcpu > node->cpu_mcpu - node->promised_mcpu)
        return DV_MISFIT_CPU;
    if (!dv_sched_constraints_hold(need->constraints, node))
        return DV_MISFIT_CONSTRAINT;
    return DV_FITS;
}

int64_t dv_sched_permille(const struct dv_node_view *n)
{
    int64_t cpu = n->cpu_mcpu > 0 ? n->promised_mcpu * 1000 / n->cpu_mcpu : 1000;
    int64_t mem = n->memory_bytes > 0 ? n->promised_bytes / (n->memory_bytes / 1000 + 1) : 1000;
    return cpu > mem ? cpu : mem;
}

static bool better(const struct dv_node_view *a, const struct dv_node_view *b, enum dv_spread how)
{
    if ((a->n_primed > 0) != (b->n_primed > 0))
        return a->n_primed > 0;
    if (a->has_image != b->has_image)
        return a->has_image;
    if (how == DV_SPREAD && a->n_of_function != b->n_of_function)
        return a->n_of_function < b->n_of_function;
    int64_t pa = dv_sched_permille(a), pb = dv_sched_permille(b);
    if (pa != pb)
        return how == DV_PACK ? pa > pb : pa < pb;
    return a->id < b->id;
}

int dv_sched_place(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, enum dv_spread how,
                   size_t *out_index)
{
    const struct dv_node_view *best = NULL;
    for (size_t i = 0; i < n; i++)
        if (dv_sched_fit(need, &nodes[i]) == DV_FITS && (!best || better(&nodes[i], best, how)))
            best = &nodes[i];
    if (!best)
        return DV_NO_CAPACITY;
    *out_index = (size_t)(best - nodes);
    return DV_OK;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t dv_sched_room_on(const struct dv_need *need, const struct dv_node_view *v)
{
    int64_t k = v->max_replicas - v->n_replicas;
    if (need->memory_bytes > 0)
        k = min64(k, (v->memory_bytes - v->promised_bytes) / need->memory_bytes);
    if (need->cpu_mcpu > 0)
        k = min64(k, (v->cpu_mcpu - v->promised_mcpu) / need->cpu_mcpu);
    return k;
}

int64_t dv_sched_room(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, int64_t limit)
{
    int64_t room = 0;
    for (size_t i = 0; i < n && room < limit; i++)
        if (dv_sched_fit(need, &nodes[i]) == DV_FITS)
            room += dv_sched_room_on(need, &nodes[i]);
    return min64(room, limit);
}

struct tally {
    size_t n[DV_MISFIT_N];
    int64_t free_bytes, free_mcpu; /* most on a node that lacked only that */
};

static void say(char *out, size_t cap, size_t *len, const char *text)
{
    size_t n = strlen(text);
    if (*len + n + 1 > cap)
        n = cap > *len + 1 ? cap - *len - 1 : 0;
    memcpy(out + *len, text, n);
    *len += n;
    out[*len] = '\0';
}

static void say_group(char *out, size_t cap, size_t *len, size_t n, const char *text)
{
    if (n == 0)
        return;
    char group[160];
    (void)snprintf(group, sizeof(group), "%s%zu %s", *len && out[*len - 1] != ' ' ? ", " : "", n, text);
    say(out, cap, len, group);
}

void dv_sched_explain(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, char *out,
                      size_t cap)
{
    struct tally t = {0};
    for (size_t i = 0; i < n; i++) {
        enum dv_misfit m = dv_sched_fit(need, &nodes[i]);
        t.n[m]++;
        int64_t bytes = nodes[i].memory_bytes - nodes[i].promised_bytes;
        int64_t mcpu = nodes[i].cpu_mcpu - nodes[i].promised_mcpu;
        if (m == DV_MISFIT_MEMORY && bytes > t.free_bytes)
            t.free_bytes = bytes;
        if (m == DV_MISFIT_CPU && mcpu > t.free_mcpu)
            t.free_mcpu = mcpu;
    }
    if (cap == 0)
        return;
    size_t len = 0;
    out[0] = '\0';
    if (n == 0) {
        say(out, cap, &len, "no node has joined");
        return;
    }
    if (t.n[DV_FITS] > 0) {
        say_group(out, cap, &len, t.n[DV_FITS], t.n[DV_FITS] == 1 ? "node fits" : "nodes fit");
        return;
    }
    char want[32], most[32], text[128];
    say(out, cap, &len, "no node fits: ");
    say_group(out, cap, &len, t.n[DV_MISFIT_NOT_READY], "not ready");
    say_group(out, cap, &len, t.n[DV_MISFIT_CONSTRAINT], "against its constraints");
    dv_format_bytes(need->memory_bytes, want);
    dv_format_bytes(t.free_bytes, most);
    (void)snprintf(text, sizeof(text), "without memory (needs %s, most free %s)", want, most);
    say_group(out, cap, &len, t.n[DV_MISFIT_MEMORY], text);
    dv_format_mcpu(need->cpu_mcpu, want);
    dv_format_mcpu(t.free_mcpu, most);
    (void)snprintf(text, sizeof(text), "without cpu (needs %s, most free %s)", want, most);
    say_group(out, cap, &len, t.n[DV_MISFIT_CPU], text);
    say_group(out, cap, &len, t.n[DV_MISFIT_REPLICAS], "at their number of replicas");
}

/* The published CSV formats of traces.
 *
 * Azure Functions 2019 (Azure/AzurePublicDataset, CC-BY), one day each:
 *   invocations.csv  HashOwner,HashApp,HashFunction,Trigger,1,2,...,1440
 *   durations.csv    HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_...
 * (milliseconds) memory.csv       HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct...
 * Azure Functions 2021: app,func,end_timestamp,duration (seconds), a row per invocation.
 *
 * A line that cannot be read ends the reading with its number; a function without a duration takes 0.68 s, an
 * app without memory 140 MB: the published medians. */
#include "tests/sim/load.h"

#include "proto/base/alloc.h"
#include "proto/base/buf.h"

enum { DEFAULT_MS = 680, DEFAULT_MB = 140, COLUMNS = 1500 };

struct reader {
    FILE *file;
    const char *path;
    char *line;
    size_t cap, number;
    struct dv_sv col[COLUMNS];
    size_t n_cols;
};

static int reader_open(struct reader *r, const char *dir, const char *name)
{
    static char path[4096];
    (void)snprintf(path, sizeof(path), name ? "%s/%s" : "%s", dir, name);
    *r = (struct reader){.path = path, .file = fopen(path, "re")};
    return r->file ? DV_OK : DV_NOT_FOUND;
}

static void reader_close(struct reader *r)
{
    if (r->file)
        (void)fclose(r->file);
    free(r->line); /* getline's own */
}

static bool reader_next(struct reader *r)
{
    ssize_t n = getline(&r->line, &r->cap, r->file);
    if (n < 0)
        return false;
    r->number++;
    while (n > 0 && (r->line[n - 1] == '\n' || r->line[n - 1] == '\r'))
        n--;
    struct dv_sv rest = dv_sv(r->line, (size_t)n), head;
    r->n_cols = 0;
    bool more = true;
    while (more && r->n_cols < COLUMNS) {
        more = dv_sv_cut(rest, ',', &head, &rest);
        r->col[r->n_cols++] = dv_sv_trim(head);
    }
    return true;
}

static int bad_line(const struct reader *r, const char *what)
{
    fprintf(stderr, "%s:%zu: %s\n", r->path, r->number, what);
    return -1;
}

/* ---- by name ---- */

struct names { /* of functions, or of apps: to a number */
    struct dv_map map;
};

struct entry {
    char *key;
    double value;
    struct sim_fn *fn;
};

static void names_deinit(struct names *t)
{
    struct entry *e;
    for (size_t i = 0; (e = dv_map_next(&t->map, &i));) {
        dv_free(e->key);
        dv_free(e);
    }
    dv_map_deinit(&t->map);
}

static char *key_of(const struct reader *r, size_t first, size_t n)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        (void)dv_buf_add_sv(&b, r->col[first + i]);
        (void)dv_buf_add_char(&b, '/');
    }
    char *key = dv_buf_steal(&b, NULL);
    if (!key)
        abort();
    return key;
}

static struct entry *entry_of(struct names *t, char *key, bool is_made)
{
    struct entry *e = dv_map_find(&t->map, dv_sv_c(key));
    if (e || !is_made) {
        dv_free(key);
        return e;
    }
    e = dv_zalloc(sizeof(*e));
    if (!e)
        abort();
    e->key = key;
    if (dv_map_put(&t->map, dv_sv_c(e->key), e))
        abort();
    return e;
}

/* A column of numbers by the names before it. */
static int read_numbers(const char *dir, const char *name, size_t n_names, size_t column, struct names *out)
{
    struct reader r;
    int rc = 0;
    if (reader_open(&r, dir, name))
        return 0; /* medians do */
    (void)reader_next(&r);
    while (!rc && reader_next(&r)) {
        double value;
        if (r.n_cols <= column || !dv_parse_double(r.col[column], &value))
            rc = bad_line(&r, "a number is missing");
        else
            entry_of(out, key_of(&r, 0, n_names), true)->value = value;
    }
    reader_close(&r);
    return rc;
}

/* ---- 2019 ---- */

static void add_minute(struct sim_arrivals *a, uint32_t minute, uint32_t n)
{
    if (a->n_minutes == a->cap_minutes) {
        a->cap_minutes = a->cap_minutes ? a->cap_minutes * 2 : 16;
        a->minutes = dv_realloc(a->minutes, a->cap_minutes * sizeof(*a->minutes));
        if (!a->minutes)
            abort();
    }
    a->minutes[a->n_minutes++] = (struct sim_minute){minute, n};
}

static int take_function(struct sim *s, const struct reader *r, struct names *durations, struct names *memory,
                         int n_images)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%.*s", (int)(r->col[2].n < 60 ? r->col[2].n : 60), r->col[2].p);
    struct sim_fn *f = sim_fn_add(s, name, "");
    const struct entry *d = entry_of(durations, key_of(r, 0, 3), false),
                       *m = entry_of(memory, key_of(r, 0, 2), false);
    sim_image(f, (int)(dv_hash_bytes(r->col[1].p, r->col[1].n, 1) % (uint64_t)n_images));
    f->mean_s = (d && d->value > 0 ? d->value : DEFAULT_MS) / 1e3;
    f->spread = 0.3;
    f->def.spec.requests.memory_bytes = (int64_t)((m && m->value > 0 ? m->value : DEFAULT_MB) * 1e6);
    f->arrivals.kind = SIM_LIST;
    for (size_t i = 4; i < r->n_cols; i++) {
        uint64_t n;
        if (!dv_parse_u64(r->col[i], &n) || n > UINT32_MAX)
            return bad_line(r, "a minute's count is no number");
        if (n)
            add_minute(&f->arrivals, (uint32_t)(i - 4), (uint32_t)n);
    }
    sim_fn_begin(s, f);
    return 0;
}

int sim_trace_2019(struct sim *s, const char *dir, int n_images)
{
    struct names durations = {0}, memory = {0};
    struct reader r;
    int rc = 0, n = 0;
    dv_map_init(&durations.map, 1);
    dv_map_init(&memory.map, 1);
    if (read_numbers(dir, "durations.csv", 3, 3, &durations) ||
        read_numbers(dir, "memory.csv", 2, 3, &memory))
        rc = -1;
    if (!rc && reader_open(&r, dir, "invocations.csv")) {
        fprintf(stderr, "%s/invocations.csv cannot be opened\n", dir);
        rc = -1;
    } else if (!rc) {
        (void)reader_next(&r);
        while (!rc && reader_next(&r)) {
            rc = r.n_cols < 5 ? bad_line(&r, "too few columns")
                              : take_function(s, &r, &durations, &memory, n_images);
            n++;
        }
        reader_close(&r);
    }
    names_deinit(&durations);
    names_deinit(&memory);
    return rc ? rc : n;
}

/* ---- 2021 ---- */

struct call {
    uint64_t at_ns;
    float duration_s;
    struct sim_fn *fn;
};

static int by_start(const void *x, const void *y)
{
    const struct call *a = x, *b = y;
    return a->at_ns < b->at_ns ? -1 : a->at_ns > b->at_ns;
}

static struct sim_fn *function_2021(struct sim *s, const struct reader *r, struct names *fns, int n_images)
{
    struct entry *e = entry_of(fns, key_of(r, 0, 2), true);
    if (!e->fn) {
        char name[64];
        (void)snprintf(name, sizeof(name), "%.*s", (int)(r->col[1].n < 60 ? r->col[1].n : 60), r->col[1].p);
        e->fn = sim_fn_add(s, name, "");
        sim_image(e->fn, (int)(dv_hash_bytes(r->col[0].p, r->col[0].n, 1) % (uint64_t)n_images));
        e->fn->arrivals.kind = SIM_LIST;
    }
    return e->fn;
}

static void add_call(struct sim_arrivals *a, uint64_t at_ns, float duration_s)
{
    if (a->n_times == a->cap_times) {
        a->cap_times = a->cap_times ? a->cap_times * 2 : 16;
        a->times_ns = dv_realloc(a->times_ns, a->cap_times * sizeof(*a->times_ns));
        a->durations_s = dv_realloc(a->durations_s, a->cap_times * sizeof(*a->durations_s));
        if (!a->times_ns || !a->durations_s)
            abort();
    }
    a->times_ns[a->n_times] = at_ns;
    a->durations_s[a->n_times++] = duration_s;
}

static int read_calls(struct sim *s, struct reader *r, struct names *fns, int n_images, struct call **out,
                      size_t *n)
{
    size_t cap = 0;
    (void)reader_next(r);
    while (reader_next(r)) {
        double end_s, duration_s;
        if (r->n_cols < 4 || !dv_parse_double(r->col[2], &end_s) || !dv_parse_double(r->col[3], &duration_s))
            return bad_line(r, "end_timestamp and duration must be numbers");
        if (*n == cap) {
            cap = cap ? cap * 2 : 256;
            *out = dv_realloc(*out, cap * sizeof(**out));
            if (!*out)
                abort();
        }
        double start_s = end_s > duration_s ? end_s - duration_s : 0;
        (*out)[(*n)++] =
            (struct call){(uint64_t)(start_s * 1e9), (float)duration_s, function_2021(s, r, fns, n_images)};
    }
    return 0;
}

int sim_trace_2021(struct sim *s, const char *file, int n_images)
{
    struct names fns = {0};
    struct call *calls = NULL;
    struct reader r;
    size_t n = 0;
    dv_map_init(&fns.map, 1);
    if (reader_open(&r, file, NULL)) {
        fprintf(stderr, "%s cannot be opened\n", file);
        return -1;
    }
    int rc = read_calls(s, &r, &fns, n_images, &calls, &n);
    reader_close(&r);
    if (!rc && n) {
        qsort(calls, n, sizeof(*calls), by_start);
        for (size_t i = 0; i < n; i++)
            add_call(&calls[i].fn->arrivals, calls[i].at_ns - calls[0].at_ns, calls[i].duration_s);
        for (size_t i = 0; i < s->n_fns; i++)
            sim_fn_begin(s, s->fns[i]);
        rc = (int)s->n_fns;
    }
    dv_free(calls);
    names_deinit(&fns);
    return rc;
}

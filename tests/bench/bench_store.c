/* Durable appends a second: through the store's thread with group commit, and beside it SQLite alone with one
 * commit each; and what one fsync of this disk takes, since everything else is a multiple of that.
 *
 *     bench_store [DIRECTORY [SECONDS]]        default: /var/tmp, 2 seconds each */
#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"

#include <fcntl.h>
#include <unistd.h>

enum { WINDOW_MAX = 1024, SAMPLES_MAX = 1 << 20 };

static struct run {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_storer *storer;
    uint64_t until_ns, n_done, n_under_way;
    int n_failed;
} run;

struct job {
    struct dv_store_job base;
    uint64_t sent_ns;
};

static uint64_t *samples;
static size_t n_samples;
static char payload[512];

static uint64_t now_ns(void)
{
    return dv_clock_now_ns(&dv_clock_system);
}

static void sample(uint64_t ns)
{
    if (n_samples < SAMPLES_MAX)
        samples[n_samples++] = ns;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *what, uint64_t n, double seconds)
{
    qsort(samples, n_samples, sizeof(*samples), by_size);
    double p50 = n_samples ? (double)samples[n_samples / 2] / 1e6 : 0;
    double p99 = n_samples ? (double)samples[n_samples * 99 / 100] / 1e6 : 0;
    (void)printf("%-44s %9.0f a second   p50 %7.3f ms   p99 %7.3f ms\n", what, (double)n / seconds, p50, p99);
    n_samples = 0;
}

/* ---- what the disk does ---- */

static int bench_fsync(const char *dir, uint64_t duration_ns)
{
    DV_AUTO_STR char *path = dv_asprintf("%s/davit-bench-fsync", dir);
    DV_AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t n = 0, start = now_ns();
    if (fd < 0)
        return DV_E_IO;
    for (uint64_t t = start; t - start < duration_ns; n++) {
        if (write(fd, payload, sizeof(payload)) != sizeof(payload) || fsync(fd))
            return DV_E_IO;
        uint64_t after = now_ns();
        sample(after - t);
        t = after;
    }
    report("append 512 bytes to a file, fsync", n, (double)(now_ns() - start) / 1e9);
    (void)unlink(path);
    return DV_OK;
}

/* ---- SQLite, a commit each ---- */

static int append(struct dv_store *s, struct dv_err *err)
{
    return s->ops->work_append(s, DV_SV("fn/bench"), dv_sv(payload, sizeof(payload)), 0, 0, NULL, err);
}

static int bench_single(struct dv_store *s, uint64_t duration_ns, struct dv_err *err)
{
    uint64_t n = 0, start = now_ns();
    for (uint64_t t = start; t - start < duration_ns; n++) {
        int rc = append(s, err);
        if (rc)
            return rc;
        uint64_t after = now_ns();
        sample(after - t);
        t = after;
    }
    report("SQLite alone, one commit each", n, (double)(now_ns() - start) / 1e9);
    return DV_OK;
}

/* ---- the store's thread ---- */

static int job_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    (void)job;
    return append(store, err);
}

static void job_send(struct job *j)
{
    j->sent_ns = now_ns();
    run.n_under_way++;
    dv_storer_submit(run.storer, &j->base);
}

static void job_done(struct dv_store_job *base)
{
    struct job *j = DV_CONTAINER_OF(base, struct job, base);
    uint64_t now = now_ns();
    run.n_under_way--;
    run.n_done++;
    run.n_failed += base->code != DV_OK;
    sample(now - j->sent_ns);
    if (now < run.until_ns)
        job_send(j);
}

static int bench_group(size_t window, uint64_t duration_ns)
{
    struct job *jobs = dv_zalloc_n(window, sizeof(*jobs));
    if (!jobs)
        return DV_E_NOMEM;
    uint64_t start = now_ns();
    run.until_ns = start + duration_ns;
    run.n_done = 0;
    for (size_t i = 0; i < window; i++) {
        jobs[i].base = (struct dv_store_job){.reply_to = run.mailbox, .run = job_run, .done = job_done};
        job_send(&jobs[i]);
    }
    while (run.n_under_way)
        if (dv_loop_turn(run.loop, -1))
            return DV_E_IO;
    char what[64];
    (void)snprintf(what, sizeof(what), "group commit, %zu waiting at once", window);
    report(what, run.n_done, (double)(now_ns() - start) / 1e9);
    dv_free(jobs);
    return run.n_failed ? DV_E_STORE : DV_OK;
}

static int bench_all(const char *dir, uint64_t duration_ns, struct dv_err *err)
{
    DV_AUTO_STR char *path = dv_asprintf("%s/davit-bench-store-%d.db", dir, (int)getpid());
    struct dv_store *store;
    int rc = bench_fsync(dir, duration_ns);
    if (rc)
        return dv_err_set(err, rc, "%s: cannot write there", dir);
    rc = dv_store_sqlite_open(path, &store, err);
    if (rc)
        return rc;
    rc = bench_single(store, duration_ns, err);
    if (!rc)
        rc = dv_loop_new(&dv_clock_system, &run.loop, err);
    if (!rc)
        rc = dv_mailbox_new(run.loop, &run.mailbox, err);
    if (!rc)
        rc = dv_storer_start(store, &run.storer, err);
    for (size_t window = 1; !rc && window <= WINDOW_MAX; window *= 4)
        rc = bench_group(window, duration_ns);
    dv_storer_stop(run.storer);
    dv_mailbox_free(run.mailbox);
    dv_loop_free(run.loop);
    (void)unlink(path);
    return rc;
}

int main(int argc, char **argv)
{
    uint64_t seconds = 2;
    struct dv_err err = DV_ERR_INIT;
    memset(payload, 'p', sizeof(payload));
    samples = dv_zalloc_n(SAMPLES_MAX, sizeof(*samples));
    if (argc > 2 && !dv_parse_u64(dv_sv_c(argv[2]), &seconds))
        return 2;
    int rc = samples ? bench_all(argc > 1 ? argv[1] : "/var/tmp", seconds * DV_S, &err) : DV_E_NOMEM;
    if (rc)
        (void)fprintf(stderr, "bench_store: %s\n", dv_err_msg(&err, rc));
    dv_free(samples);
    return rc ? 1 : 0;
}

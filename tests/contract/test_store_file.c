/* What only a store in a file can promise: it is there again, it is owned once, and it knows damage. */
#include "tests/support/store_place.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void everything_is_there_after_a_reopen(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    uint64_t rev = put(p, "b", "2");
    uint64_t id = append(p, "q", "x", 0, 5);
    assert_string_equal(claimed(p, "q", 5, 1000), "x");
    reopen(p);
    assert_int_equal(ops(p)->revision(p->s), rev);
    assert_string_equal(list(p, "", "", 0), "a=1@1 b=2@2 ");
    assert_string_equal(claimed(p, "q", 5, 1000), ""); /* the lease stands, until somebody releases it */
    assert_int_equal(ops(p)->work_release_all(p->s, NULL), DV_OK);
    struct dv_work w;
    assert_true(claim(p, "q", 5, 1000, &w));
    assert_int_equal(w.id, id);
    assert_int_equal(w.attempts, 2);
}

static void a_transaction_left_open_is_not_there_after_a_reopen(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    assert_int_equal(ops(p)->begin(p->s, NULL), DV_OK);
    (void)put(p, "b", "2");
    (void)append(p, "q", "x", 0, 0);
    reopen(p);
    assert_string_equal(list(p, "", "", 0), "a=1@1 ");
    assert_string_equal(queues(p), "");
}

static void the_file_is_readable_by_its_owner_only(void **state)
{
    struct place *p = *state;
    struct stat st;
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)put(p, "a", "1");
    char wal[128];
    (void)snprintf(wal, sizeof(wal), "%s-wal", p->path);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_owner_is_refused(void **state)
{
    struct place *p = *state;
    pid_t pid = fork(); /* file locks are per process */
    if (pid == 0) {
        struct dv_store *s;
        struct dv_err err = DV_ERR_INIT;
        int rc = dv_store_sqlite_open(p->path, &s, &err);
        _exit(rc == DV_E_IO && strstr(err.msg, "in use by another process") && strstr(err.msg, p->path) ? 0
                                                                                                        : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)put(p, "still", "works");
}

static void close_place(struct place *p)
{
    ops(p)->close(p->s);
    p->s = NULL;
    (void)unlink(p->path);
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *msg = NULL;
    int rc = sqlite3_exec(db, text, NULL, NULL, &msg);
    if (rc)
        print_error("%s\n", msg);
    assert_int_equal(rc, SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int open_code(struct place *p, struct dv_err *err)
{
    return dv_store_sqlite_open(p->path, &p->s, err);
}

static void a_file_of_the_first_layout_is_migrated_with_its_content(void **state)
{
    struct place *p = *state;
    close_place(p);
    sql(p->path, "CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT);"
                 "INSERT INTO kv VALUES('fn/default/a', '{}'), ('fn/default/b', '{\"x\":1}')");
    place_open(p);
    assert_string_equal(list(p, "", "", 0), "fn/default/a={}@1 fn/default/b={\"x\":1}@1 ");
    assert_int_equal(ops(p)->revision(p->s), 1);
    assert_int_equal(put_if(p, "fn/default/a", "new", 1, NULL), DV_OK);
    (void)append(p, "q", "x", 0, 0);
    reopen(p);
    assert_string_equal(get(p, "fn/default/a", NULL), "new");
    assert_string_equal(queues(p), "q:1@0 ");
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    char *bytes = dv_alloc((size_t)st.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, f), st.st_size);
    assert_int_equal(fclose(f), 0);
    *n = (size_t)st.st_size;
    return bytes;
}

static void a_newer_schema_is_refused_and_the_file_left_as_it_was(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    ops(p)->close(p->s);
    p->s = NULL;
    sql(p->path, "PRAGMA user_version = 7");
    assert_int_equal(chmod(p->path, 0640), 0);
    size_t n, m;
    struct stat st;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_STR char *before = slurp(p->path, &n);
    assert_int_equal(open_code(p, &err), DV_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "version 7"));
    assert_non_null(strstr(err.msg, "up to 1"));
    assert_non_null(strstr(err.msg, p->path));
    DV_AUTO_STR char *after = slurp(p->path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void spit(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void files_that_are_no_store_are_refused_by_path_and_reason(void **state)
{
    struct place *p = *state;
    struct dv_err err = DV_ERR_INIT;
    close_place(p);
    spit(p->path, "this is not a database, but it is long enough to be mistaken for one by size alone.....",
         87);
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_non_null(strstr(err.msg, "not a database"));
    (void)unlink(p->path);
    sql(p->path, "CREATE TABLE somebody_elses(x)");
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, "not a store of davit"));
    (void)unlink(p->path);
    assert_int_equal(mkdir(p->path, 0700), 0);
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_int_equal(rmdir(p->path), 0);
    struct dv_store *s = NULL;
    assert_int_equal(dv_store_sqlite_open("/nonexistent/dir/store.db", &s, &err), DV_E_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_null(s);
}

static void a_damaged_file_gives_an_error_and_not_an_empty_store(void **state)
{
    struct place *p = *state;
    for (int i = 0; i < 200; i++)
        (void)put(p, (char[]){'k', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), 0},
                  "value");
    ops(p)->close(p->s);
    p->s = NULL;
    size_t n;
    DV_AUTO_STR char *bytes = slurp(p->path, &n);
    for (size_t i = 100; i < n; i++)
        bytes[i] = (char)(bytes[i] ^ 0x5a);
    spit(p->path, bytes, n);
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_non_null(strstr(err.msg, "malformed"));
}

/* A file size limit in a child stands for a full disk.  Exit status: 0 as it should be. */
static int fill_up(const char *path)
{
    static char big[400 * 1024];
    struct dv_store *s;
    struct dv_err err = DV_ERR_INIT;
    struct rlimit limit = {.rlim_cur = 300 * 1024, .rlim_max = 300 * 1024};
    (void)signal(SIGXFSZ, SIG_IGN);
    if (dv_store_sqlite_open(path, &s, NULL) || setrlimit(RLIMIT_FSIZE, &limit))
        return 1;
    if (s->ops->begin(s, NULL) || s->ops->work_append(s, DV_SV("q"), DV_SV("small"), 0, 0, NULL, NULL))
        return 2;
    struct dv_store_write w = {
        .key = DV_SV("big"), .value = dv_sv(big, sizeof(big)), .if_revision = DV_REV_ANY};
    int rc = s->ops->commit(s, &w, 1, NULL, &err), end_rc = s->ops->end(s, &err);
    if (rc >= 0 && end_rc >= 0)
        return 3;
    if (end_rc != DV_E_STORE || !err.msg[0])
        return 4;
    w.value = DV_SV("fits"); /* and once there is room again, it goes on */
    return s->ops->commit(s, &w, 1, NULL, NULL) ? 5 : 0;
}

static void a_full_disk_fails_the_transaction_and_leaves_what_was_committed(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    ops(p)->close(p->s);
    p->s = NULL;
    pid_t pid = fork();
    if (pid == 0)
        _exit(fill_up(p->path));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    place_open(p);
    assert_string_equal(list(p, "", "", 0), "a=1@1 big=fits@2 ");
    assert_string_equal(queues(p), "");
}

/* The child appends and tells each id once its transaction has ended; it is killed while doing so. */
static void append_until_killed(const char *path, int out)
{
    struct dv_store *s;
    if (dv_store_sqlite_open(path, &s, NULL))
        _exit(1);
    for (;;) {
        uint64_t ids[4];
        if (s->ops->begin(s, NULL))
            _exit(2);
        for (size_t i = 0; i < DV_COUNT(ids); i++)
            if (s->ops->work_append(s, DV_SV("q"), DV_SV("payload"), 0, 0, &ids[i], NULL))
                _exit(3);
        if (s->ops->end(s, NULL) || write(out, ids, sizeof(ids)) != sizeof(ids))
            _exit(4);
    }
}

static int count_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t next_due_ms)
{
    (void)queue, (void)next_due_ms;
    *(uint64_t *)ctx = n;
    return 0;
}

static void whatever_was_acknowledged_survives_kill_9(void **state)
{
    struct place *p = *state;
    ops(p)->close(p->s);
    p->s = NULL;
    uint64_t told = 0, last = 0;
    for (int round = 1; round <= 3; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(fds[0]);
            append_until_killed(p->path, fds[1]);
        }
        (void)close(fds[1]);
        uint64_t id;
        int n = 0;
        while (n < 120 * round && read(fds[0], &id, sizeof(id)) == sizeof(id))
            n++, told++, last = id;
        assert_int_equal(n, 120 * round);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        while (read(fds[0], &id, sizeof(id)) == sizeof(id))
            told++, last = id;
        (void)close(fds[0]);
    }
    place_open(p);
    uint64_t kept = 0;
    assert_int_equal(ops(p)->work_queues(p->s, count_queue, &kept, NULL), DV_OK);
    assert_true(kept >= told);
    assert_int_equal(kept % 4, 0); /* whole transactions only */
    assert_int_equal(ops(p)->work_ack(p->s, last, NULL), DV_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SQLITE_ONLY(everything_is_there_after_a_reopen),
        SQLITE_ONLY(a_transaction_left_open_is_not_there_after_a_reopen),
        SQLITE_ONLY(the_file_is_readable_by_its_owner_only),
        SQLITE_ONLY(a_second_owner_is_refused),
        SQLITE_ONLY(a_file_of_the_first_layout_is_migrated_with_its_content),
        SQLITE_ONLY(a_newer_schema_is_refused_and_the_file_left_as_it_was),
        SQLITE_ONLY(files_that_are_no_store_are_refused_by_path_and_reason),
        SQLITE_ONLY(a_damaged_file_gives_an_error_and_not_an_empty_store),
        SQLITE_ONLY(a_full_disk_fails_the_transaction_and_leaves_what_was_committed),
        SQLITE_ONLY(whatever_was_acknowledged_survives_kill_9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

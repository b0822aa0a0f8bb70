/* The store in one SQLite file: nothing to install, survives kill -9 and power cuts.
 *
 * - WAL with synchronous=FULL: a commit is one fsync of the log, and is on the disk when `end` returned
 * DV_OK.
 * - One owner: the file is held in exclusive locking mode, so a second orchestrator on the same state
 * directory is told so at its start instead of quietly interleaving revisions (and the log's index needs no
 * shared memory file).
 * - Statements are prepared once, at their first use, and kept.
 * - `commit` brackets itself with a savepoint: inside a transaction a failing one undoes only itself, outside
 * one the savepoint is the transaction.
 * - The failures of the disk (full, I/O) make SQLite undo the whole transaction by itself; `end` notices and
 * says so, so nobody is told that something is durable which is not. */
#include "orchestrator/store/store.h"
#include "orchestrator/store/store_check.h"
#include "orchestrator/store/store_schema.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUSY_MS = 2000 }; /* an orchestrator that is just ending gets this long to let go of the file */

#define STATEMENTS(X)                                                                                        \
    X(GET, "SELECT value, revision FROM kv WHERE key = ?1")                                                  \
    X(LIST_FROM, "SELECT key, value, revision FROM kv WHERE key >= ?1 ORDER BY key")                         \
    X(LIST_AFTER, "SELECT key, value, revision FROM kv WHERE key > ?1 ORDER BY key")                         \
    X(KEY_REVISION, "SELECT revision FROM kv WHERE key = ?1")                                                \
    X(PUT, "INSERT INTO kv(key, value, revision) VALUES(?1, ?2, ?3)"                                         \
           " ON CONFLICT(key) DO UPDATE SET value = excluded.value, revision = excluded.revision")           \
    X(DELETE, "DELETE FROM kv WHERE key = ?1")                                                               \
    X(REVISION, "SELECT value FROM meta WHERE name = 'revision'")                                            \
    X(SET_REVISION, "UPDATE meta SET value = ?1 WHERE name = 'revision'")                                    \
    X(APPEND,                                                                                                \
      "INSERT INTO work(queue, due_ms, not_before_ms, created_ms, payload) VALUES(?1, ?2, ?2, ?3, ?4)")      \
    X(OLDEST, "SELECT id, queue, payload, not_before_ms, created_ms, attempts FROM work"                     \
              " WHERE queue = ?1 AND due_ms <= ?2 ORDER BY due_ms, id LIMIT 1")                              \
    X(CLAIM, "UPDATE work SET due_ms = ?2, attempts = attempts + 1, is_claimed = 1 WHERE id = ?1")           \
    X(ACK, "DELETE FROM work WHERE id = ?1")                                                                 \
    X(RETRY, "UPDATE work SET due_ms = ?2, not_before_ms = ?2, is_claimed = 0 WHERE id = ?1")                \
    X(RELEASE_ALL, "UPDATE work SET due_ms = not_before_ms, is_claimed = 0 WHERE is_claimed")                \
    X(QUEUES, "SELECT queue, count(*), min(due_ms) FROM work GROUP BY queue ORDER BY queue")                 \
    X(NEXT_DUE, "SELECT due_ms FROM work WHERE queue = ?1 ORDER BY due_ms LIMIT 1")                          \
    X(DROP, "DELETE FROM work WHERE queue = ?1")                                                             \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                              \
    X(END, "COMMIT")                                                                                         \
    X(ROLLBACK, "ROLLBACK")                                                                                  \
    X(MARK, "SAVEPOINT one")                                                                                 \
    X(MARK_KEEP, "RELEASE one")                                                                              \
    X(MARK_UNDO, "ROLLBACK TO one")                                                                          \
    X(SAVE, "SAVEPOINT job")                                                                                 \
    X(SAVE_KEEP, "RELEASE job")                                                                              \
    X(SAVE_UNDO, "ROLLBACK TO job")

enum statement {
#define STATEMENT_ENUM(name, sql) ST_##name,
    STATEMENTS(STATEMENT_ENUM)
#undef STATEMENT_ENUM
        N_STATEMENTS
};

static const char *const statement_sql[N_STATEMENTS] = {
#define STATEMENT_SQL(name, sql) [ST_##name] = (sql),
    STATEMENTS(STATEMENT_SQL)
#undef STATEMENT_SQL
};

struct sqlite_store {
    struct dv_store base;
    sqlite3 *db;
    sqlite3_stmt *st[N_STATEMENTS];
};

static struct sqlite_store *self(struct dv_store *s)
{
    return DV_CONTAINER_OF(s, struct sqlite_store, base);
}

/* ---- statements ---- */

static int fail(struct sqlite_store *q, struct dv_err *err)
{
    bool no_memory = sqlite3_errcode(q->db) == SQLITE_NOMEM;
    return dv_err_set(err, no_memory ? DV_E_NOMEM : DV_E_STORE, "store: %s", sqlite3_errmsg(q->db));
}

/* NULL, with err filled, when it could not be prepared. */
static sqlite3_stmt *use(struct sqlite_store *q, enum statement which, int *out_rc, struct dv_err *err)
{
    sqlite3_stmt **st = &q->st[which];
    if (!*st &&
        sqlite3_prepare_v3(q->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL) != SQLITE_OK)
        *out_rc = fail(q, err);
    return *st;
}

static void bind_sv(sqlite3_stmt *st, int i, struct dv_sv s)
{
    if (s.n) /* a failing bind leaves NULL: the columns refuse it, and no key is NULL */
        (void)sqlite3_bind_blob64(st, i, s.p, s.n, SQLITE_STATIC);
    else
        (void)sqlite3_bind_zeroblob(st, i, 0);
}

static void bind_i64(sqlite3_stmt *st, int i, int64_t v)
{
    (void)sqlite3_bind_int64(st, i, v); /* only a wrong index can fail */
}

static void done_with(sqlite3_stmt *st)
{
    (void)sqlite3_reset(st); /* repeats the failure of the last step */
    (void)sqlite3_clear_bindings(st);
}

/* DV_OK with a row at hand; DV_NOT_FOUND when there is none; failure.  done_with follows in every case. */
static int step_row(struct sqlite_store *q, sqlite3_stmt *st, struct dv_err *err)
{
    int rc = sqlite3_step(st);
    return rc == SQLITE_ROW ? DV_OK : rc == SQLITE_DONE ? DV_NOT_FOUND : fail(q, err);
}

/* Runs a statement that gives no rows, and is done with it. */
static int run(struct sqlite_store *q, sqlite3_stmt *st, struct dv_err *err)
{
    int rc = step_row(q, st, err);
    done_with(st);
    return rc == DV_NOT_FOUND ? DV_OK : rc;
}

static int run_plain(struct sqlite_store *q, enum statement which, struct dv_err *err)
{
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, which, &rc, err);
    return st ? run(q, st, err) : rc;
}

static struct dv_sv column_sv(sqlite3_stmt *st, int i)
{
    const char *p = sqlite3_column_blob(st, i);
    return dv_sv(p ? p : "", p ? (size_t)sqlite3_column_bytes(st, i) : 0);
}

/* ---- key-value space ---- */

static int sqlite_get(struct dv_store *s, struct dv_sv key, struct dv_arena *arena,
                      struct dv_store_entry *out, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_GET, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, key);
    rc = step_row(q, st, err);
    if (!rc) {
        struct dv_store_entry e = {dv_arena_sv(arena, key), dv_arena_sv(arena, column_sv(st, 0)),
                                   (uint64_t)sqlite3_column_int64(st, 1)};
        if (e.key.p && e.value.p)
            *out = e;
        else
            rc = dv_err_set(err, DV_E_NOMEM, "store");
    }
    done_with(st);
    return rc;
}

static int compare(struct dv_sv a, struct dv_sv b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

static int sqlite_list(struct dv_store *s, struct dv_sv prefix, struct dv_sv after, size_t limit,
                       int (*each)(void *ctx, const struct dv_store_entry *e), void *ctx, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    bool is_behind = after.n && compare(after, prefix) >= 0;
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, is_behind ? ST_LIST_AFTER : ST_LIST_FROM, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, is_behind ? after : prefix);
    for (size_t n = 0; !limit || n < limit; n++) {
        rc = step_row(q, st, err);
        if (rc)
            break;
        struct dv_store_entry e = {column_sv(st, 0), column_sv(st, 1), (uint64_t)sqlite3_column_int64(st, 2)};
        if (!dv_sv_starts(e.key, prefix) || each(ctx, &e))
            break;
    }
    done_with(st);
    return rc == DV_NOT_FOUND ? DV_OK : rc;
}

/* One number by statement `which`; key may be empty.  DV_OK, DV_NOT_FOUND, failure. */
static int read_u64(struct sqlite_store *q, enum statement which, struct dv_sv key, uint64_t *out,
                    struct dv_err *err)
{
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, which, &rc, err);
    if (!st)
        return rc;
    if (key.n)
        bind_sv(st, 1, key);
    rc = step_row(q, st, err);
    if (!rc)
        *out = (uint64_t)sqlite3_column_int64(st, 0);
    done_with(st);
    return rc;
}

static int write_one(struct sqlite_store *q, const struct dv_store_write *w, uint64_t revision,
                     bool *has_changed, struct dv_err *err)
{
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, w->is_delete ? ST_DELETE : ST_PUT, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, w->key);
    if (!w->is_delete) {
        bind_sv(st, 2, w->value);
        bind_i64(st, 3, (int64_t)revision);
    }
    rc = run(q, st, err);
    *has_changed |= !rc && sqlite3_changes(q->db) > 0;
    return rc;
}

static int check_all(struct sqlite_store *q, const struct dv_store_write *writes, size_t n,
                     struct dv_err *err)
{
    for (size_t i = 0; i < n; i++) {
        int rc = dv_store_check_write(&writes[i], err);
        if (rc)
            return rc;
        if (writes[i].if_revision == DV_REV_ANY)
            continue;
        uint64_t current = DV_REV_ABSENT;
        rc = read_u64(q, ST_KEY_REVISION, writes[i].key, &current, err);
        if (rc && rc != DV_NOT_FOUND)
            return rc;
        rc = dv_store_check_revision(&writes[i], current, err);
        if (rc)
            return rc;
    }
    return DV_OK;
}

/* Between the marks.  *io_revision: the one before, then the one after. */
static int write_all(struct sqlite_store *q, const struct dv_store_write *writes, size_t n,
                     uint64_t *io_revision, struct dv_err *err)
{
    bool has_changed = false;
    int rc = read_u64(q, ST_REVISION, DV_SV(""), io_revision, err);
    if (rc == DV_NOT_FOUND)
        return dv_err_set(err, DV_E_STORE, "store: its revision counter is gone");
    for (size_t i = 0; i < n && !rc; i++)
        rc = write_one(q, &writes[i], *io_revision + 1, &has_changed, err);
    if (rc || !has_changed)
        return rc;
    ++*io_revision;
    sqlite3_stmt *st = use(q, ST_SET_REVISION, &rc, err);
    if (!st)
        return rc;
    bind_i64(st, 1, (int64_t)*io_revision);
    return run(q, st, err);
}

static int sqlite_commit(struct dv_store *s, const struct dv_store_write *writes, size_t n,
                         uint64_t *out_revision, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    uint64_t revision = 0;
    int rc = check_all(q, writes, n, err);
    if (!rc)
        rc = run_plain(q, ST_MARK, err);
    if (rc)
        return rc;
    rc = write_all(q, writes, n, &revision, err);
    if (!rc)
        rc = run_plain(q, ST_MARK_KEEP, err);
    if (rc) {
        (void)run_plain(q, ST_MARK_UNDO,
                        NULL); /* SQLite may have undone it already; the first failure is told */
        (void)run_plain(q, ST_MARK_KEEP, NULL);
        return rc;
    }
    if (out_revision)
        *out_revision = revision;
    return DV_OK;
}

static uint64_t sqlite_revision(struct dv_store *s)
{
    uint64_t revision = 0;
    (void)read_u64(self(s), ST_REVISION, DV_SV(""), &revision,
                   NULL); /* a store that cannot be read fails elsewhere */
    return revision;
}

/* ---- work queue ---- */

static int sqlite_work_append(struct dv_store *s, struct dv_sv queue, struct dv_sv payload,
                              int64_t not_before_ms, int64_t now_ms, uint64_t *out_id, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = dv_store_check_key(queue, err);
    if (!rc)
        rc = dv_store_check_size(payload, DV_STORE_PAYLOAD_MAX, err);
    sqlite3_stmt *st = rc ? NULL : use(q, ST_APPEND, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, queue);
    bind_i64(st, 2, not_before_ms > now_ms ? not_before_ms : now_ms);
    bind_i64(st, 3, now_ms);
    bind_sv(st, 4, payload);
    rc = run(q, st, err);
    if (!rc && out_id)
        *out_id = (uint64_t)sqlite3_last_insert_rowid(q->db);
    return rc;
}

/* A statement about one item, or queue, that changed it: DV_OK; DV_NOT_FOUND when it changed nothing. */
static int run_on_item(struct sqlite_store *q, sqlite3_stmt *st, struct dv_err *err)
{
    int rc = run(q, st, err);
    return !rc && sqlite3_changes(q->db) == 0 ? DV_NOT_FOUND : rc;
}

static int read_work(sqlite3_stmt *st, struct dv_arena *arena, struct dv_work *out, struct dv_err *err)
{
    struct dv_work w = {.id = (uint64_t)sqlite3_column_int64(st, 0),
                        .queue = dv_arena_sv(arena, column_sv(st, 1)),
                        .payload = dv_arena_sv(arena, column_sv(st, 2)),
                        .not_before_ms = sqlite3_column_int64(st, 3),
                        .created_ms = sqlite3_column_int64(st, 4),
                        .attempts = (uint32_t)sqlite3_column_int64(st, 5) + 1};
    if (!w.queue.p || !w.payload.p)
        return dv_err_set(err, DV_E_NOMEM, "store");
    *out = w;
    return DV_OK;
}

static int sqlite_work_claim(struct dv_store *s, struct dv_sv queue, int64_t now_ms, int64_t lease_until_ms,
                             struct dv_arena *arena, struct dv_work *out, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    struct dv_work w;
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_OLDEST, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, queue);
    bind_i64(st, 2, now_ms);
    rc = step_row(q, st, err);
    if (!rc)
        rc = read_work(st, arena, &w, err);
    done_with(st);
    st = rc ? NULL : use(q, ST_CLAIM, &rc, err);
    if (!st)
        return rc;
    bind_i64(st, 1, (int64_t)w.id);
    bind_i64(st, 2, lease_until_ms);
    rc = run_on_item(q, st, err);
    if (!rc)
        *out = w;
    return rc;
}

static int sqlite_work_ack(struct dv_store *s, uint64_t id, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_ACK, &rc, err);
    if (!st)
        return rc;
    bind_i64(st, 1, (int64_t)id);
    return run_on_item(q, st, err);
}

static int sqlite_work_retry(struct dv_store *s, uint64_t id, int64_t not_before_ms, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_RETRY, &rc, err);
    if (!st)
        return rc;
    bind_i64(st, 1, (int64_t)id);
    bind_i64(st, 2, not_before_ms);
    return run_on_item(q, st, err);
}

static int sqlite_work_release_all(struct dv_store *s, struct dv_err *err)
{
    return run_plain(self(s), ST_RELEASE_ALL, err);
}

static int sqlite_work_queues(struct dv_store *s,
                              int (*each)(void *ctx, struct dv_sv queue, uint64_t n, int64_t due_ms),
                              void *ctx, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_QUEUES, &rc, err);
    if (!st)
        return rc;
    while ((rc = step_row(q, st, err)) == DV_OK)
        if (each(ctx, column_sv(st, 0), (uint64_t)sqlite3_column_int64(st, 1), sqlite3_column_int64(st, 2)))
            break;
    done_with(st);
    return rc == DV_NOT_FOUND ? DV_OK : rc;
}

static int sqlite_work_next_due(struct dv_store *s, struct dv_sv queue, int64_t *out_due_ms,
                                struct dv_err *err)
{
    uint64_t due = 0;
    int rc = read_u64(self(s), ST_NEXT_DUE, queue, &due, err);
    if (!rc)
        *out_due_ms = (int64_t)due;
    return rc;
}

static int sqlite_work_drop(struct dv_store *s, struct dv_sv queue, uint64_t *out_n, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    int rc = DV_OK;
    sqlite3_stmt *st = use(q, ST_DROP, &rc, err);
    if (!st)
        return rc;
    bind_sv(st, 1, queue);
    rc = run(q, st, err);
    if (!rc && out_n)
        *out_n = (uint64_t)sqlite3_changes64(q->db);
    return rc;
}

/* ---- transactions ---- */

static int sqlite_begin(struct dv_store *s, struct dv_err *err)
{
    return run_plain(self(s), ST_BEGIN, err);
}

static int sqlite_end(struct dv_store *s, struct dv_err *err)
{
    struct sqlite_store *q = self(s);
    if (sqlite3_get_autocommit(q->db))
        return dv_err_set(err, DV_E_STORE, "store: a failure undid the whole transaction");
    int rc = run_plain(q, ST_END, err);
    if (rc && !sqlite3_get_autocommit(q->db))
        (void)run_plain(q, ST_ROLLBACK, NULL); /* the first failure is told */
    return rc;
}

static int sqlite_save(struct dv_store *s, struct dv_err *err)
{
    return run_plain(self(s), ST_SAVE, err);
}

static int sqlite_keep(struct dv_store *s, struct dv_err *err)
{
    return run_plain(self(s), ST_SAVE_KEEP, err);
}

static int sqlite_undo(struct dv_store *s, struct dv_err *err)
{
    int rc = run_plain(self(s), ST_SAVE_UNDO, err);
    return rc ? rc : run_plain(self(s), ST_SAVE_KEEP, err);
}

static void sqlite_close(struct dv_store *s)
{
    if (!s)
        return;
    struct sqlite_store *q = self(s);
    for (size_t i = 0; i < N_STATEMENTS; i++)
        (void)sqlite3_finalize(q->st[i]); /* repeats the failure of its last step */
    (void)sqlite3_close(q->db);           /* an open transaction is rolled back */
    dv_free(q);
}

static const struct dv_store_ops sqlite_ops = {
    .get = sqlite_get,
    .list = sqlite_list,
    .commit = sqlite_commit,
    .revision = sqlite_revision,
    .work_append = sqlite_work_append,
    .work_claim = sqlite_work_claim,
    .work_ack = sqlite_work_ack,
    .work_retry = sqlite_work_retry,
    .work_release_all = sqlite_work_release_all,
    .work_queues = sqlite_work_queues,
    .work_next_due = sqlite_work_next_due,
    .work_drop = sqlite_work_drop,
    .begin = sqlite_begin,
    .end = sqlite_end,
    .save = sqlite_save,
    .keep = sqlite_keep,
    .undo = sqlite_undo,
    .close = sqlite_close,
};

/* ---- opening ---- */

static int open_fail(sqlite3 *db, const char *path, struct dv_err *err)
{
    int code = sqlite3_errcode(db) & 0xff;
    if (code == SQLITE_BUSY)
        return dv_err_set(err, DV_E_IO, "%s: in use by another process", path);
    return dv_err_sys(err, DV_E_IO, sqlite3_system_errno(db), "%s: %s", path, sqlite3_errmsg(db));
}

/* Makes the file when it is absent, so that it is never readable by others, not even for a moment. */
static int ensure_file(const char *path, struct dv_err *err)
{
    DV_AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return dv_err_set(err, DV_E_IO, "%s: not a regular file", path);
    return DV_OK;
}

/* A look at the file through a connection that cannot write, so that a newer store stays as it is, to the
 * byte. */
static int look_first(const char *path, struct dv_err *err)
{
    sqlite3 *db = NULL;
    int rc = DV_OK;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        rc = open_fail(db, path, err);
    if (!rc) {
        (void)sqlite3_busy_timeout(db, BUSY_MS);
        rc = dv_store_schema_check(db, err);
        if (rc && (sqlite3_errcode(db) & 0xff) == SQLITE_BUSY)
            rc = open_fail(db, path, err);
        else if (rc)
            (void)dv_err_wrap(err, "%s", path);
    }
    (void)sqlite3_close(db);
    return rc;
}

/* The look through a second connection left a shared memory file; under our lock nobody can be using it. */
static int tidy(const char *path, struct dv_err *err)
{
    DV_AUTO_STR char *shm = dv_asprintf("%s-shm", path);
    if (!shm)
        return dv_err_set(err, DV_E_NOMEM, "store");
    (void)unlink(shm); /* usually there, harmless when it stays */
    if (chmod(path, 0600) < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s: chmod 600", path);
    return DV_OK;
}

static int set_up(struct sqlite_store *q, const char *path, struct dv_err *err)
{
    static const char pragmas[] =
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF;"
        "BEGIN IMMEDIATE; COMMIT"; /* takes the lock for good */
    if (sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return open_fail(q->db, path, err);
    (void)sqlite3_extended_result_codes(q->db, 0);
    (void)sqlite3_busy_timeout(q->db, BUSY_MS);
    if (sqlite3_exec(q->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
        return open_fail(q->db, path, err);
    int rc = dv_store_schema_migrate(q->db, err);
    if (rc) {
        (void)dv_err_wrap(err, "%s", path);
        return rc;
    }
    return tidy(path, err);
}

int dv_store_sqlite_open(const char *path, struct dv_store **out, struct dv_err *err)
{
    int rc = ensure_file(path, err);
    if (!rc)
        rc = look_first(path, err);
    if (rc)
        return rc;
    struct sqlite_store *q = dv_zalloc(sizeof(*q));
    if (!q)
        return dv_err_set(err, DV_E_NOMEM, "store");
    q->base.ops = &sqlite_ops;
    rc = set_up(q, path, err);
    if (rc) {
        sqlite_close(&q->base);
        return rc;
    }
    *out = &q->base;
    return DV_OK;
}

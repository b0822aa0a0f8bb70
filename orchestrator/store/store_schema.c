/* Schema versions of the SQLite store (PRAGMA user_version).
 *
 *   0  a new, empty file; or the first layout: one table kv(key, value), no revisions, no queue
 *   1  meta, kv with revisions, work
 *
 * A later version is one more row in `steps` with the statements that lead there from the version before; a
 * new file walks all of them, so every step is run by every test.  Steps are never edited once released. */
#include "orchestrator/store/store_schema.h"
#include "orchestrator/store/store.h"
#include "proto/base/auto.h"

#include <assert.h>
#include <sqlite3.h>

struct step {
    int to;
    const char *sql;
};

/* due_ms is when an item may be claimed next: not_before_ms, or the end of the lease while it is claimed. The
 * index gives the oldest due item of a queue without looking at the others. */
static const struct step steps[] = {
    {1,
     "CREATE TABLE IF NOT EXISTS kv(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
     "ALTER TABLE kv RENAME TO kv_0;"
     "CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL);"
     "INSERT INTO kv SELECT CAST(key AS BLOB), CAST(value AS BLOB), 1 FROM kv_0;"
     "DROP TABLE kv_0;"
     "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
     "INSERT INTO meta SELECT 'revision', count(*) > 0 FROM kv;"
     "CREATE TABLE work(id INTEGER PRIMARY KEY AUTOINCREMENT, queue BLOB NOT NULL, due_ms INTEGER NOT NULL,"
     " not_before_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
     " is_claimed INTEGER NOT NULL DEFAULT 0, payload BLOB NOT NULL);"
     "CREATE INDEX work_due ON work(queue, due_ms, id);"
     "CREATE INDEX work_claimed ON work(id) WHERE is_claimed;"},
};
static_assert(DV_STORE_SCHEMA == 1, "a new schema version needs its row in steps");

static int fail(sqlite3 *db, struct dv_err *err)
{
    return dv_err_set(err, DV_E_IO, "%s", sqlite3_errmsg(db));
}

static int read_int(sqlite3 *db, const char *sql, int64_t *out, struct dv_err *err)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    bool has_row = rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW;
    if (has_row)
        *out = sqlite3_column_int64(st, 0);
    int code = has_row ? DV_OK : fail(db, err);
    (void)sqlite3_finalize(st); /* repeats the failure of step */
    return code;
}

int dv_store_schema_check(struct sqlite3 *db, struct dv_err *err)
{
    int64_t app = 0, version = 0, n_tables = 0, n_kv = 0;
    int rc = read_int(db, "PRAGMA application_id", &app, err);
    if (!rc)
        rc = read_int(db, "PRAGMA user_version", &version, err);
    if (!rc)
        rc = read_int(db, "SELECT count(*) FROM sqlite_master WHERE type = 'table'", &n_tables, err);
    if (!rc)
        rc = read_int(db, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'kv'", &n_kv,
                      err);
    if (rc)
        return rc;
    bool is_ours =
        app == DV_STORE_APPLICATION_ID || (app == 0 && version == 0 && (n_tables == 0 || n_kv == 1));
    if (!is_ours)
        return dv_err_set(err, DV_E_IO, "a database, but not a store of davit");
    if (version > DV_STORE_SCHEMA)
        return dv_err_set(
            err, DV_UNSUPPORTED,
            "its schema is version %lld, this program knows versions up to %d: run the newer program",
            (long long)version, DV_STORE_SCHEMA);
    return DV_OK;
}

static int run_steps(sqlite3 *db, int64_t version, struct dv_err *err)
{
    for (size_t i = 0; i < DV_COUNT(steps); i++) {
        if (steps[i].to <= version)
            continue;
        if (sqlite3_exec(db, steps[i].sql, NULL, NULL, NULL) != SQLITE_OK)
            return fail(db, err);
    }
    char sql[128];
    (void)snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d",
                   DV_STORE_APPLICATION_ID, DV_STORE_SCHEMA);
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? DV_OK : fail(db, err);
}

int dv_store_schema_migrate(struct sqlite3 *db, struct dv_err *err)
{
    int64_t version = 0;
    int rc = read_int(db, "PRAGMA user_version", &version, err);
    if (rc || version == DV_STORE_SCHEMA)
        return rc;
    if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return fail(db, err);
    rc = run_steps(db, version, err);
    if (!rc && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        rc = fail(db, err);
    if (rc) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* the first failure is the one to tell */
        return dv_err_wrap(err, "migrating its schema from version %lld to %d", (long long)version,
                           DV_STORE_SCHEMA);
    }
    return DV_OK;
}

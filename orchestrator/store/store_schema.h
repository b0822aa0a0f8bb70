/* The layout of the SQLite file, and the way from older layouts to it. */
#ifndef DV_STORE_SCHEMA_H
#define DV_STORE_SCHEMA_H

#include "proto/base/err.h"

struct sqlite3;

enum { DV_STORE_APPLICATION_ID = 0x44565453 }; /* "DVTS" in the file's header: it is a store of ours */

/* Is the file behind db one that this program may write?  Only reads.
 * DV_OK; DV_UNSUPPORTED (newer schema; both numbers in the message); DV_E_IO (not ours, damaged, not
 * readable). */
int dv_store_schema_check(struct sqlite3 *db, struct dv_err *err);
/* Brings it to DV_STORE_SCHEMA, every step in one transaction.  DV_OK; DV_E_IO. */
int dv_store_schema_migrate(struct sqlite3 *db, struct dv_err *err);

#endif

/* Time zones of this machine, by name. */
#ifndef DV_TZFILE_H
#define DV_TZFILE_H

#include "proto/base/tz.h"

/* "Europe/Berlin" from the zone database (TZDIR, or /usr/share/zoneinfo): one small file is read.  "UTC"
 * needs no file and gives NULL.  DV_OK; DV_NOT_FOUND (no such zone, or no database); DV_INVALID; DV_E_IO;
 * DV_E_NOMEM.
 */
int dv_tz_load(const char *name, struct dv_tz **out, struct dv_err *err);

#endif

#include "proto/rt/tzfile.h"

#include <stdio.h>
#include <stdlib.h>
#include "proto/base/buf.h"
#include "proto/rt/sys.h"

enum { ZONE_FILE_MAX = 256 * 1024 };

/* A name never leaves the database's directory. */
static bool is_name(const char *s)
{
    for (const char *c = s; *c; c++) {
        bool ok = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                  (c > s && strchr("/_+-", *c));
        if (!ok)
            return false;
    }
    return *s && strlen(s) <= 64;
}

int dv_tz_load(const char *name, struct dv_tz **out, struct dv_err *err)
{
    const char *dir = getenv("TZDIR");
    char path[512];
    DV_AUTO_BUF struct dv_buf bytes = DV_BUF_INIT;
    if (strcmp(name, "UTC") == 0) {
        *out = NULL;
        return DV_OK;
    }
    if (!is_name(name))
        return dv_err_set(err, DV_INVALID, "not the name of a time zone");
    (void)snprintf(path, sizeof(path), "%s/%s", dir && dir[0] == '/' ? dir : "/usr/share/zoneinfo", name);
    int rc = dv_file_read(path, ZONE_FILE_MAX, &bytes, err);
    if (rc == DV_NOT_FOUND)
        return dv_err_set(err, rc, "time zone \"%s\" is not known to the orchestrator's machine", name);
    return rc ? rc : dv_tz_parse(dv_buf_sv(&bytes), out, err);
}

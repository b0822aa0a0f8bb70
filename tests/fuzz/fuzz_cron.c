/* A cron expression is refused, or comes when it says: next and prev agree, in UTC and in a zone whose file
 * is the rest of the input. */
#include <stdlib.h>

#include "proto/base/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct dv_cron *c, const struct dv_tz *tz, int64_t from)
{
    int64_t at = dv_cron_next(c, tz, from);
    if (at == INT64_MAX)
        return;
    int64_t back = dv_cron_prev(c, tz, at + 1);
    if (at <= from || back != at || dv_cron_next(c, tz, at - 1) != at)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dv_sv all = dv_sv((const char *)data, size), text, file;
    struct dv_cron c;
    struct dv_tz *tz = NULL;
    (void)dv_sv_cut(all, '\n', &text, &file);
    const char *why = NULL;
    if (dv_cron_parse(text, &c, &why)) {
        if (!why)
            abort();
        return 0;
    }
    check(&c, NULL, 1767225600);
    if (dv_tz_parse(file, &tz, NULL) == DV_OK)
        check(&c, tz, 1767225600);
    dv_tz_free(tz);
    return 0;
}

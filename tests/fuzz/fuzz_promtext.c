/* An answer of a metrics endpoint, cut in two ways: the first byte is the length of the pieces.  However it
 * is cut the same comes out of it, and what comes out is an amount. */
#include <math.h>

#include "proto/base/promtext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static int read_in(struct dv_sv bytes, size_t step, enum dv_prom_fold fold, double *out)
{
    static const struct dv_prom_match match = {"q", "a\"b\\c\nd"};
    struct dv_prom_query q = {"depth", &match, fold == DV_PROM_SUM ? 1 : 0, fold};
    struct dv_prom_reader r;
    int rc = DV_OK;
    dv_prom_reader_init(&r, &q, 1 << 20);
    while (!rc && bytes.n) {
        size_t k = step < bytes.n ? step : bytes.n;
        rc = dv_prom_feed(&r, dv_sv(bytes.p, k), NULL);
        bytes = dv_sv(bytes.p + k, bytes.n - k);
    }
    if (!rc)
        rc = dv_prom_finish(&r, out, NULL);
    dv_prom_reader_deinit(&r);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    struct dv_sv bytes = dv_sv((const char *)data + 1, n - 1);
    double last = -1;
    for (int fold = DV_PROM_SUM; fold <= DV_PROM_MAX; fold++) {
        double a = -1, b = -1;
        int x = read_in(bytes, (size_t)data[0] + 1, (enum dv_prom_fold)fold, &a),
            y = read_in(bytes, n, (enum dv_prom_fold)fold, &b);
        must(x == y);
        if (x)
            continue;
        must(a == b && isfinite(a) && a >= 0);
        must(fold != DV_PROM_MAX || last < 0 ||
             a >= last * (1 - 1e-9)); /* a maximum is no less than the mean */
        last = fold == DV_PROM_AVERAGE ? a : -1;
    }
    return 0;
}

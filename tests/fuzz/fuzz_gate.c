/* Bytes at the gate, read as either side would: an order that is accepted is written again byte for byte,
 * a word too. */
#include "proto/base/err.h"
#include "proto/rt/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static void as_order(struct dv_sv bytes)
{
    DV_AUTO_BUF struct dv_buf again = DV_BUF_INIT;
    struct dv_gate_head head;
    struct dv_gate_run run;
    if (bytes.n < DV_GATE_HEAD || dv_gate_head_read(bytes.p, &head) || head.type != DV_GATE_RUN ||
        head.n > bytes.n - DV_GATE_HEAD)
        return;
    int rc = dv_gate_run_read(dv_sv(bytes.p + DV_GATE_HEAD, head.n), &run);
    must(rc == DV_OK || rc == DV_E_PROTO);
    if (rc)
        return;
    must(run.argv.n > 0 && !run.argv.v[run.argv.n] && !run.env.v[run.env.n]);
    must(dv_gate_run_write(&again, &run) == DV_OK);
    must(dv_buf_len(&again) == DV_GATE_HEAD + head.n &&
         !memcmp(dv_buf_ptr(&again), bytes.p, dv_buf_len(&again)));
    dv_gate_run_deinit(&run);
}

static void as_words(struct dv_sv bytes)
{
    struct dv_gate_word w;
    char again[DV_GATE_WORD_MAX];
    for (size_t used; dv_gate_word_read(bytes, &w, &used) == DV_OK;) {
        must(used <= bytes.n && dv_utf8_valid(dv_sv_c(w.text)));
        must(dv_gate_word_write(&w, again) == used && !memcmp(again, bytes.p, used));
        bytes = dv_sv(bytes.p + used, bytes.n - used);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    as_order(dv_sv((const char *)data, n));
    as_words(dv_sv((const char *)data, n));
    return 0;
}

/* Bytes from outside -> every message type.  The first byte picks the type and the flags.  What is taken must
 * encode, decode to the same again, and encode to the same bytes. */
#include "proto/wire/codec_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct dv_wire_type *const types[] = {
    &dv_type_fn_spec,     &dv_type_function,    &dv_type_replica_report, &dv_type_join,   &dv_type_join_reply,
    &dv_type_node_record, &dv_type_node_report, &dv_type_control,        &dv_type_report,
};

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    const struct dv_wire_type *t = types[data[0] % DV_COUNT(types)];
    unsigned flags = data[0] / 16 % 2 ? DV_WIRE_IGNORE_UNKNOWN : DV_WIRE_STRICT;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf first = DV_BUF_INIT, second = DV_BUF_INIT;
    void *msg = dv_arena_alloc(&a, t->size), *back = dv_arena_alloc(&a, t->size);
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_wire_decode(t, dv_sv((const char *)data + 1, n - 1), 1 << 20, flags, &a, msg, &err);
    must(rc == DV_OK || rc == DV_INVALID || rc == DV_TOO_LARGE);
    if (rc) {
        must(err.msg[0] != '\0');
        return 0;
    }
    must(dv_wire_encode(t, msg, &first) == DV_OK);
    must(dv_wire_decode(t, dv_buf_sv(&first), 8 << 20, flags, &a, back, &err) == DV_OK);
    must(dv_wire_equal(t, msg, back));
    must(dv_wire_encode(t, back, &second) == DV_OK);
    must(dv_sv_eq(dv_buf_sv(&first), dv_buf_sv(&second)));
    if (t == &dv_type_fn_spec && dv_fn_spec_finish(msg, &a, &err) == DV_OK) {
        struct dv_fn_spec again;
        memcpy(&again, msg, sizeof(again));
        dv_fn_spec_unfinish(&again);
        must(dv_fn_spec_finish(&again, &a, &err) == DV_OK);
        must(dv_wire_equal(t, &again, msg));
    }
    return 0;
}

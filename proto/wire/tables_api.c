/* Bodies of the REST API that are not a function. */
#include "proto/wire/codec_internal.h"

#define T struct dv_apply
static const struct dv_field apply[] = {
    FIELD_LIST("functions", functions, n_functions, dv_type_fn_spec, struct dv_fn_spec, .max = 10000,
               .flags = DV_F_REQUIRED),
};
#undef T
const struct dv_wire_type dv_type_apply = TABLE_INIT_(struct dv_apply, apply);

static int check_secret_put(const void *msg, unsigned flags, struct dv_err *err)
{
    const struct dv_secret_put *s = msg;
    (void)flags;
    if (!s->value == !s->value_base64)
        return dv_err_field(err, DV_INVALID, "value",
                            "give one of value (text) and value_base64 (any bytes)");
    return DV_OK;
}

#define T struct dv_secret_put
static const struct dv_field secret_put[] = {
    FIELD(STR, "name", name, .check = dv_check_name, .flags = DV_F_REQUIRED),
    FIELD(STR, "namespace", ns, .check = dv_check_name, .def_str = DV_NS_DEFAULT),
    FIELD(STR, "value", value, .max = 1 << 20),
    FIELD(STR, "value_base64", value_base64, .max = 2 << 20),
};
#undef T
const struct dv_wire_type dv_type_secret_put =
    TABLE_INIT_(struct dv_secret_put, secret_put, .check = check_secret_put);

#define T struct dv_ns_put
static const struct dv_field ns_put[] = {
    FIELD(STR, "name", name, .check = dv_check_name, .flags = DV_F_REQUIRED),
    FIELD(KVS, "labels", labels, .max = 1024),
    FIELD(KVS, "annotations", annotations, .max = 1024),
};
#undef T
const struct dv_wire_type dv_type_ns_put = TABLE_INIT_(struct dv_ns_put, ns_put);

#define T struct dv_scale_put
static const struct dv_field scale_put[] = {
    FIELD(INT, "replicas", replicas, .min = 0, .max = 10000, .def = -1),
};
#undef T
const struct dv_wire_type dv_type_scale_put = TABLE_INIT_(struct dv_scale_put, scale_put);

/* Messages as they were written once must be read for ever, and be written the same way again.
 * Beside them: random messages made from the tables themselves, which must survive encode, decode, copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/rng.h"
#include "proto/base/alloc.h"
#include "proto/wire/codec_internal.h"

static const struct {
    const char *file;
    const struct dv_wire_type *type;
} goldens[] = {
    {"fn_spec_full", &dv_type_fn_spec},        {"fn_spec_scale", &dv_type_fn_spec},
    {"function", &dv_type_function},           {"join", &dv_type_join},
    {"join_reply", &dv_type_join_reply},       {"node_record", &dv_type_node_record},
    {"control_start", &dv_type_control},       {"control_stop", &dv_type_control},
    {"control_sync", &dv_type_control},        {"control_sync_none", &dv_type_control},
    {"control_logs", &dv_type_control},        {"control_scrape", &dv_type_control},
    {"report_node", &dv_type_report},          {"report_replicas", &dv_type_report},
    {"report_replicas_none", &dv_type_report}, {"report_logs", &dv_type_report},
    {"report_scrapes", &dv_type_report},
};

static void read_golden(const char *name, struct dv_buf *out)
{
    char path[300], chunk[4096];
    (void)snprintf(path, sizeof(path), DAVIT_SOURCE_DIR "/tests/unit/golden/%s.json", name);
    FILE *f = fopen(path, "re");
    if (!f)
        fail_msg("cannot open %s", path);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
        dv_buf_add(out, chunk, n);
    (void)fclose(f);
    dv_buf_truncate(out, dv_buf_len(out) - 1); /* its newline */
}

static void golden_files_are_read_and_written_back_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < DV_COUNT(goldens); i++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
        DV_AUTO_BUF struct dv_buf in = DV_BUF_INIT, out = DV_BUF_INIT;
        struct dv_err e = DV_ERR_INIT;
        read_golden(goldens[i].file, &in);
        void *msg = dv_arena_alloc(&a, goldens[i].type->size);
        if (dv_wire_decode(goldens[i].type, dv_buf_sv(&in), 65536, 0, &a, msg, &e))
            fail_msg("%s: %s", goldens[i].file, e.msg);
        assert_int_equal(dv_wire_encode(goldens[i].type, msg, &out), DV_OK);
        assert_string_equal(dv_buf_cstr(&out), dv_buf_cstr(&in));
    }
}

static void a_golden_file_without_optional_fields_is_still_read(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf in = DV_BUF_INIT;
    struct dv_fn_spec s;
    read_golden("fn_spec_min", &in);
    assert_int_equal(dv_wire_decode(&dv_type_fn_spec, dv_buf_sv(&in), 65536, 0, &a, &s, NULL), DV_OK);
    assert_string_equal(s.name, "hello");
}

/* ---------------------------------------------------------------- random messages */

struct gen {
    struct dv_rng rng;
    struct dv_arena *arena;
};

static bool coin(struct gen *g)
{
    return dv_rng_below(&g->rng, 2) == 0;
}

static char *random_string(struct gen *g, const struct dv_field *f)
{
    static const char *const wild[] = {
        "",  "x", "a b", "\"quoted\\\"", "line\nline\t", "\x01\x1f", "gr\xc3\xbc\xc3\x9f", "\xf0\x9f\x9a\xa2",
        "{}"};
    static const char *const tame[] = {
        "a",           "web-1",         "/p",
        "h:1",         "zone=a",        "v1",
        "openfaas",    "stop",          "1000",
        "0 8 * * 1-5", ":9090/metrics", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"};
    for (;;) { /* until the field's own rules are met */
        const char *s = f->check || coin(g) ? tame[dv_rng_below(&g->rng, DV_COUNT(tame))]
                                            : wild[dv_rng_below(&g->rng, DV_COUNT(wild))];
        size_t n = strlen(s);
        bool length_ok = f->kind != DV_K_STR || (n >= (size_t)f->min && (!f->max || n <= (size_t)f->max));
        if (length_ok && (!f->check || !f->check(s)))
            return dv_arena_strdup(g->arena, s);
    }
}

static int64_t random_number(struct gen *g, const struct dv_field *f)
{
    if (f->min == 0 && f->max == 0) {
        int64_t v = (int64_t)(dv_rng_u64(&g->rng) >> dv_rng_below(&g->rng, 64));
        return f->kind == DV_K_INT ? v : v & INT64_MAX;
    }
    if (coin(g) && !(f->flags & DV_F_REQUIRED)) /* what must be given may have no default in its range */
        return f->def;
    return f->min + (int64_t)dv_rng_below(&g->rng, (uint64_t)(f->max - f->min) + 1);
}

static void fill(struct gen *g, const struct dv_wire_type *t, void *msg);

static void fill_field(struct gen *g, const struct dv_field *f, void *msg)
{
    void *at = dv_at(msg, f->offset);
    size_t n = dv_rng_below(&g->rng, 4);
    switch (f->kind) {
    case DV_K_STR:
        *(char **)at = random_string(g, f);
        break;
    case DV_K_BOOL:
        *(bool *)at = coin(g);
        break;
    case DV_K_ENUM: {
        int count = 0;
        while (f->names[count])
            count++;
        *(int *)at = (int)dv_rng_below(&g->rng, (uint64_t)count);
        break;
    }
    case DV_K_INT:
    case DV_K_U64:
    case DV_K_ID:
    case DV_K_DURATION:
    case DV_K_BYTES:
    case DV_K_MCPU:
        *(int64_t *)at = random_number(g, f);
        break;
    case DV_K_NUM:
        *(double *)at = (double)dv_rng_below(&g->rng, 1000000) / (double)(1 + dv_rng_below(&g->rng, 1000));
        break;
    case DV_K_STRS: {
        struct dv_strs *l = at;
        l->v = dv_arena_zalloc(g->arena, n * sizeof(char *));
        for (l->n = 0; l->n < n; l->n++)
            l->v[l->n] = random_string(g, f);
        break;
    }
    case DV_K_KVS: {
        struct dv_kvs *m = at;
        static const char *const wild_keys[] = {"A", "B", "c.d/e", "\xc3\xa9"}, *const tame_keys[] = {
                                                                                    "A", "B", "c_d", "e"};
        const char *const *keys = f->check && f->check("c.d/e") ? tame_keys : wild_keys;
        m->v = dv_arena_zalloc(g->arena, n * sizeof(struct dv_kv));
        for (m->n = 0; m->n < n; m->n++)
            m->v[m->n] = (struct dv_kv){(char *)keys[m->n], (char *)(coin(g) ? "" : "va\"lue")};
        break;
    }
    case DV_K_OBJECT:
        fill(g, f->type, at);
        break;
    case DV_K_IDS: {
        uint64_t *ids = dv_arena_zalloc(g->arena, n * sizeof(*ids));
        for (size_t i = 0; i < n; i++)
            ids[i] = dv_rng_u64(&g->rng);
        *(uint64_t **)at = ids;
        *(size_t *)dv_at(msg, f->n_offset) = n;
        break;
    }
    case DV_K_LIST: {
        char *v = dv_arena_zalloc(g->arena, n * f->type->size);
        for (size_t i = 0; i < n; i++)
            fill(g, f->type, v + i * f->type->size);
        *(void **)at = v;
        *(size_t *)dv_at(msg, f->n_offset) = n;
        break;
    }
    case DV_K_POINTER:
        *(void **)at = dv_arena_zalloc(g->arena, f->type->size);
        fill(g, f->type, *(void **)at);
        break;
    case DV_K_COUNT:
        break;
    }
}

static void fill(struct gen *g, const struct dv_wire_type *t, void *msg)
{
    dv_wire_defaults(t, msg);
    for (size_t i = 0; i < t->n_fields; i++)
        if ((t->fields[i].flags & DV_F_REQUIRED) || coin(g))
            fill_field(g, &t->fields[i], msg);
}

/* A tagged message keeps the one member that its type names. */
static void settle_tag(struct gen *g, const struct dv_wire_type *t, void *msg)
{
    size_t pick = 1 + dv_rng_below(&g->rng, t->n_fields - 1);
    if (t->fields[pick].kind == DV_K_BOOL)
        pick = 1;
    for (size_t i = 1; i < t->n_fields; i++)
        if (i != pick)
            dv_field_default(&t->fields[i], msg);
        else
            fill_field(g, &t->fields[i], msg);
    *(char **)msg = (char *)t->fields[pick].name;
}

static void random_messages_survive_encode_decode_and_copy(void **state)
{
    (void)state;
    static const struct dv_wire_type *const types[] = {
        &dv_type_fn_spec,     &dv_type_function,   &dv_type_replica_report,
        &dv_type_join,        &dv_type_join_reply, &dv_type_node_record,
        &dv_type_node_report, &dv_type_control,    &dv_type_report,
    };
    for (uint64_t seed = 0; seed < 2000; seed++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
        DV_AUTO_BUF struct dv_buf first = DV_BUF_INIT, second = DV_BUF_INIT;
        struct gen g = {.arena = &a};
        struct dv_err e = DV_ERR_INIT;
        const struct dv_wire_type *t = types[seed % DV_COUNT(types)];
        dv_rng_init(&g.rng, seed);
        void *msg = dv_arena_alloc(&a, t->size), *back = dv_arena_alloc(&a, t->size),
             *copy = dv_arena_alloc(&a, t->size);
        fill(&g, t, msg);
        if (t->check)
            settle_tag(&g, t, msg);
        assert_int_equal(dv_wire_encode(t, msg, &first), DV_OK);
        if (dv_wire_decode(t, dv_buf_sv(&first), 1 << 20, 0, &a, back, &e))
            fail_msg("seed %d: %s\n%s", (int)seed, e.msg, dv_buf_cstr(&first));
        if (!dv_wire_equal(t, msg, back))
            fail_msg("seed %d: not the same: %s", (int)seed, dv_buf_cstr(&first));
        assert_int_equal(dv_wire_copy(t, back, &a, copy), DV_OK);
        assert_true(dv_wire_equal(t, copy, back));
        assert_int_equal(dv_wire_encode(t, copy, &second), DV_OK);
        assert_string_equal(dv_buf_cstr(&first), dv_buf_cstr(&second));
    }
}

/* What is kept (functions, nodes, reports: many of them) must not take a block of ordinary size each. */
static void a_copy_into_an_empty_arena_takes_one_block_of_just_its_size(void **state)
{
    (void)state;
    static const struct dv_wire_type *const types[] = {&dv_type_function,    &dv_type_replica_report,
                                                       &dv_type_node_record, &dv_type_node_report,
                                                       &dv_type_control,     &dv_type_report};
    for (uint64_t seed = 0; seed < 600; seed++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT, kept = DV_ARENA_INIT;
        struct gen g = {.arena = &a};
        const struct dv_wire_type *t = types[seed % DV_COUNT(types)];
        dv_rng_init(&g.rng, seed);
        void *msg = dv_arena_alloc(&a, t->size), *copy = dv_arena_alloc(&a, t->size);
        fill(&g, t, msg);
        dv_alloc_fail_at(UINT64_MAX); /* counts */
        assert_int_equal(dv_wire_copy(t, msg, &kept, copy), DV_OK);
        uint64_t n = dv_alloc_count();
        bool is_flat = kept.used_bytes == 0;
        assert_int_equal(n, is_flat ? 1 : 2); /* the struct on its way, and the block */
        assert_non_null(dv_arena_strndup(&kept, "", 0));
        assert_int_equal(dv_alloc_count(), n + 1); /* there was no room left in it */
        dv_alloc_fail_at(0);
        assert_true(dv_wire_equal(t, msg, copy));
    }
}

static void a_copy_shares_nothing_with_its_original(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena ours = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf in = DV_BUF_INIT, out = DV_BUF_INIT;
    struct dv_control_msg copy;
    read_golden("control_start", &in);
    {
        DV_AUTO_ARENA struct dv_arena theirs = DV_ARENA_INIT;
        struct dv_control_msg c;
        assert_int_equal(dv_wire_decode(&dv_type_control, dv_buf_sv(&in), 65536, 0, &theirs, &c, NULL),
                         DV_OK);
        assert_int_equal(dv_wire_copy(&dv_type_control, &c, &ours, &copy), DV_OK);
        c.start->spec.command.v[0][0] = 'X';
        c.start->secrets[0].name[0] = 'X';
    }
    assert_int_equal(dv_wire_encode(&dv_type_control, &copy, &out), DV_OK);
    assert_string_equal(dv_buf_cstr(&out), dv_buf_cstr(&in));
}

static void a_difference_anywhere_is_seen(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf in = DV_BUF_INIT;
    struct dv_control_msg c, d;
    read_golden("control_start", &in);
    assert_int_equal(dv_wire_decode(&dv_type_control, dv_buf_sv(&in), 65536, 0, &a, &c, NULL), DV_OK);
    assert_int_equal(dv_wire_copy(&dv_type_control, &c, &a, &d), DV_OK);
    assert_true(dv_wire_equal(&dv_type_control, &c, &d));
    d.start->spec.command.v[1][0] = 'X';
    assert_false(dv_wire_equal(&dv_type_control, &c, &d));
    assert_int_equal(dv_wire_copy(&dv_type_control, &c, &a, &d), DV_OK);
    d.start->secrets[0].value_base64[0] = 'X';
    assert_false(dv_wire_equal(&dv_type_control, &c, &d));
    assert_int_equal(dv_wire_copy(&dv_type_control, &c, &a, &d), DV_OK);
    d.start->n_secrets = 0;
    assert_false(dv_wire_equal(&dv_type_control, &c, &d));
    d.start = NULL;
    assert_false(dv_wire_equal(&dv_type_control, &c, &d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files_are_read_and_written_back_byte_by_byte),
        cmocka_unit_test(a_golden_file_without_optional_fields_is_still_read),
        cmocka_unit_test(random_messages_survive_encode_decode_and_copy),
        cmocka_unit_test(a_copy_into_an_empty_arena_takes_one_block_of_just_its_size),
        cmocka_unit_test(a_copy_shares_nothing_with_its_original),
        cmocka_unit_test(a_difference_anywhere_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

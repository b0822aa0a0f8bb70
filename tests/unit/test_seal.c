#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/store/seal.h"
#include "proto/base/alloc.h"

#include <sys/stat.h>
#include <unistd.h>

struct rig {
    char dir[64], key[96];
    struct dv_seal *seal;
};

static int set_up(void **state)
{
    struct rig *r = dv_zalloc(sizeof(*r));
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/davit-test-seal-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    (void)snprintf(r->key, sizeof(r->key), "%s/seal.key", r->dir);
    assert_int_equal(dv_seal_open(r->key, &r->seal, NULL), DV_OK);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    dv_seal_free(r->seal);
    (void)unlink(r->key);
    assert_int_equal(rmdir(r->dir), 0); /* nothing else was left behind */
    dv_free(r);
    return 0;
}

static int unwrap(struct rig *r, const char *name, struct dv_sv sealed, const char *expect)
{
    DV_AUTO_BUF struct dv_buf out = DV_BUF_INIT;
    int rc = dv_seal_unwrap(r->seal, dv_sv_c(name), sealed, &out, NULL);
    if (!rc)
        assert_string_equal(dv_buf_cstr(&out), expect);
    else
        assert_int_equal(dv_buf_len(&out), 0);
    return rc;
}

static void the_key_is_made_at_the_first_start_for_its_owner_only_and_kept(void **state)
{
    struct rig *r = *state;
    struct stat st;
    assert_int_equal(stat(r->key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 32);
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("ns/a"), DV_SV("s3cret"), &sealed, NULL), DV_OK);
    dv_seal_free(r->seal);
    assert_int_equal(dv_seal_open(r->key, &r->seal, NULL), DV_OK);
    assert_int_equal(unwrap(r, "ns/a", dv_buf_sv(&sealed), "s3cret"), DV_OK);
}

static void values_of_any_length_open_again(void **state)
{
    struct rig *r = *state;
    static char big[70000];
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 7);
    const size_t lengths[] = {0, 1, 15, 16, 17, 31, 32, 33, 1000, 65536, sizeof(big)};
    for (size_t i = 0; i < DV_COUNT(lengths); i++) {
        DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
        DV_AUTO_BUF struct dv_buf plain = DV_BUF_INIT;
        struct dv_sv value = dv_sv(big, lengths[i]);
        assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), value, &sealed, NULL), DV_OK);
        assert_true(dv_sv_starts(dv_buf_sv(&sealed), DV_SV("v1:")));
        assert_int_equal(dv_seal_unwrap(r->seal, DV_SV("n"), dv_buf_sv(&sealed), &plain, NULL), DV_OK);
        assert_true(dv_sv_eq(dv_buf_sv(&plain), value));
    }
}

static void the_same_value_is_sealed_differently_each_time(void **state)
{
    struct rig *r = *state;
    DV_AUTO_BUF struct dv_buf a = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), DV_SV("value"), &a, NULL), DV_OK);
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), DV_SV("value"), &b, NULL), DV_OK);
    assert_false(dv_sv_eq(dv_buf_sv(&a), dv_buf_sv(&b)));
}

static void any_changed_character_keeps_the_value_shut(void **state)
{
    struct rig *r = *state;
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), DV_SV("0123456789ab"), &sealed, NULL), DV_OK);
    char *p = dv_buf_ptr(&sealed);
    size_t n = dv_buf_len(&sealed);
    for (size_t i = 0; i < n * 64; i++) {
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char was = p[i / 64];
        p[i / 64] = letters[i % 64];
        bool is_same = was == letters[i % 64];
        assert_int_equal(unwrap(r, "n", dv_buf_sv(&sealed), "0123456789ab"), is_same ? DV_OK : DV_INVALID);
        p[i / 64] = was;
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(unwrap(r, "n", dv_sv(p, cut), NULL), DV_INVALID);
    assert_int_equal(unwrap(r, "n", dv_buf_sv(&sealed), "0123456789ab"), DV_OK);
}

static void a_sealed_value_cannot_be_moved_to_another_name(void **state)
{
    struct rig *r = *state;
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("prod/password"), DV_SV("x"), &sealed, NULL), DV_OK);
    assert_int_equal(unwrap(r, "test/password", dv_buf_sv(&sealed), NULL), DV_INVALID);
    assert_int_equal(unwrap(r, "", dv_buf_sv(&sealed), NULL), DV_INVALID);
}

static void another_key_does_not_open_it(void **state)
{
    struct rig *r = *state;
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), DV_SV("x"), &sealed, NULL), DV_OK);
    dv_seal_free(r->seal);
    assert_int_equal(unlink(r->key), 0);
    assert_int_equal(dv_seal_open(r->key, &r->seal, NULL), DV_OK);
    assert_int_equal(unwrap(r, "n", dv_buf_sv(&sealed), NULL), DV_INVALID);
}

static void a_key_file_that_others_may_read_or_of_wrong_size_is_refused_with_the_cure(void **state)
{
    struct rig *r = *state;
    struct dv_seal *s = NULL;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(chmod(r->key, 0640), 0);
    assert_int_equal(dv_seal_open(r->key, &s, &err), DV_INVALID);
    assert_non_null(strstr(err.msg, "chmod 600"));
    assert_non_null(strstr(err.msg, r->key));
    assert_int_equal(chmod(r->key, 0600), 0);
    assert_int_equal(truncate(r->key, 31), 0);
    assert_int_equal(dv_seal_open(r->key, &s, &err), DV_INVALID);
    assert_non_null(strstr(err.msg, "31"));
    assert_null(s);
    assert_int_equal(dv_seal_open("/nonexistent/dir/seal.key", &s, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, "/nonexistent/dir/seal.key"));
}

static void a_full_buffer_is_left_as_it_was(void **state)
{
    struct rig *r = *state;
    DV_AUTO_BUF struct dv_buf out;
    dv_buf_init(&out, 10);
    assert_int_equal(dv_buf_add_c(&out, "before"), DV_OK);
    assert_int_equal(dv_seal_wrap(r->seal, DV_SV("n"), DV_SV("x"), &out, NULL), DV_TOO_LARGE);
    assert_true(dv_sv_eq(dv_buf_sv(&out), DV_SV("before")));
}

static void random_bytes_are_random(void **state)
{
    (void)state;
    uint8_t a[32] = {0}, b[32] = {0};
    assert_int_equal(dv_random_bytes(a, sizeof(a)), DV_OK);
    assert_int_equal(dv_random_bytes(b, sizeof(b)), DV_OK);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(dv_random_bytes(a, 0), DV_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_key_is_made_at_the_first_start_for_its_owner_only_and_kept),
        TEST(values_of_any_length_open_again),
        TEST(the_same_value_is_sealed_differently_each_time),
        TEST(any_changed_character_keeps_the_value_shut),
        TEST(a_sealed_value_cannot_be_moved_to_another_name),
        TEST(another_key_does_not_open_it),
        TEST(a_key_file_that_others_may_read_or_of_wrong_size_is_refused_with_the_cure),
        TEST(a_full_buffer_is_left_as_it_was),
        TEST(random_bytes_are_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "proto/base/alloc.h"
#include "proto/base/promtext.h"

static struct dv_prom_sample line(const char *s)
{
    struct dv_prom_sample out;
    const char *why = "";
    int rc = dv_prom_line(dv_sv_c(s), &out, &why);
    if (rc != DV_OK)
        fail_msg("%s: %d, %s", s, rc, why);
    return out;
}

static void samples_are_read(void **state)
{
    (void)state;
    struct dv_prom_sample s = line("up 1");
    assert_true(dv_sv_eq(s.name, DV_SV("up")));
    assert_int_equal(s.n_labels, 0);
    assert_true(s.value == 1);
    s = line("http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000");
    assert_int_equal(s.n_labels, 2);
    assert_true(dv_prom_label_is(&s.labels[0], "post"));
    assert_true(dv_prom_label_is(&s.labels[1], "200"));
    assert_false(dv_prom_label_is(&s.labels[1], "20"));
    assert_false(dv_prom_label_is(&s.labels[1], "2000"));
    assert_true(s.value == 1027);
    s = line("\t a:b_c9 \t{ x = \"1\" , y=\"\" , }\t-1.5e-3 \t -7 ");
    assert_int_equal(s.n_labels, 2);
    assert_true(dv_prom_label_is(&s.labels[1], ""));
    assert_true(s.value == -1.5e-3);
    s = line("m{} 3");
    assert_int_equal(s.n_labels, 0);
    assert_true(isnan(line("m NaN").value));
    assert_true(isinf(line("m +Inf").value) && line("m inf").value > 0);
    assert_true(line("m -Inf").value < 0);
}

static void escapes_of_labels_are_undone(void **state)
{
    (void)state;
    struct dv_prom_sample s =
        line("m{path=\"C:\\\\DIR\\\\F.TXT\",error=\"Cannot find:\\n\\\"x\\\"\",u=\"gr\xc3\xbc\xc3\x9f\"} 1");
    assert_true(dv_prom_label_is(&s.labels[0], "C:\\DIR\\F.TXT"));
    assert_true(dv_prom_label_is(&s.labels[1], "Cannot find:\n\"x\""));
    assert_true(dv_prom_label_is(&s.labels[2], "gr\xc3\xbc\xc3\x9f"));
    assert_false(dv_prom_label_is(&s.labels[0], "C:\\\\DIR\\\\F.TXT"));
}

static void what_openmetrics_adds_is_understood(void **state)
{
    (void)state;
    assert_true(line("foo_bucket{le=\"10\"} 17 # {trace_id=\"oHg5SJYRHA0\"} 9.8 1520879607.789").value == 17);
    assert_true(line("foo_bucket{le=\"10\"} 17 1520879607.789 # {} 9.8").value == 17);
    struct dv_prom_sample s;
    const char *why;
    assert_int_equal(dv_prom_line(DV_SV("# EOF"), &s, &why), DV_CLOSED);
    assert_int_equal(dv_prom_line(DV_SV("# UNIT foo seconds"), &s, &why), DV_NOT_FOUND);
    assert_int_equal(dv_prom_line(DV_SV("#anything { at } all"), &s, &why), DV_NOT_FOUND);
    assert_int_equal(dv_prom_line(DV_SV(" \t"), &s, &why), DV_NOT_FOUND);
    assert_int_equal(dv_prom_line(DV_SV(""), &s, &why), DV_NOT_FOUND);
}

static void lines_that_are_none_of_the_format_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct dv_sv line;
        const char *why;
    } rows[] = {
        {DV_SV("<html>"), "metric's name"},
        {DV_SV("9m 1"), "metric's name"},
        {DV_SV("{\"m\"} 1"), "metric's name"},
        {DV_SV("m"), "value"},
        {DV_SV("m "), "value"},
        {DV_SV("m\"1\""), "value"},
        {DV_SV("m one"), "value"},
        {DV_SV("m 0x10"), "value"},
        {DV_SV("m 1e999"), "value"},
        {DV_SV("m{} "), "value"},
        {DV_SV("m 1 noon"), "timestamp"},
        {DV_SV("m 1 2 3"), "more on the line"},
        {DV_SV("m 1 # x"), "exemplar"},
        {DV_SV("m 1 # {a=\"b\"} x"), "exemplar"},
        {DV_SV("m 1 # {a=\"b\"} 1 2 3"), "more on the line"},
        {DV_SV("m{a} 1"), "name=\"value\""},
        {DV_SV("m{a=b} 1"), "name=\"value\""},
        {DV_SV("m{a=\"b} 1"), "name=\"value\""},
        {DV_SV("m{a=\"\\x\"} 1"), "name=\"value\""},
        {DV_SV("m{a=\"b\\"), "name=\"value\""},
        {DV_SV("m{,} 1"), "name=\"value\""},
        {DV_SV("m{a:b=\"c\"} 1"), "name=\"value\""},
        {DV_SV("m{a=\"b\" c=\"d\"} 1"), "end with '}'"},
        {DV_SV("m{a=\"b\",a=\"b\"} 1"), "twice"},
        {DV_SV("m 1\r"), "no text"},
        {DV_SV("m\0 1"), "no text"},
        {DV_SV("m{a=\"\xff\"} 1"), "no text"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        struct dv_prom_sample s;
        const char *why = "";
        int rc = dv_prom_line(rows[i].line, &s, &why);
        if (rc != DV_INVALID || !strstr(why, rows[i].why))
            fail_msg("%.*s: %d, %s", (int)rows[i].line.n, rows[i].line.p, rc, why);
    }
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_prom_sample s;
    const char *why = "";
    dv_buf_add_c(&b, "m{");
    for (int i = 0; i <= DV_PROM_LABELS_MAX; i++)
        dv_buf_addf(&b, "l%d=\"\",", i);
    dv_buf_add_c(&b, "} 1");
    assert_int_equal(dv_prom_line(dv_buf_sv(&b), &s, &why), DV_INVALID);
    assert_string_equal(why, "too many labels");
}

/* ---------------------------------------------------------------- whole answers */

static const char answer[] = "# HELP depth of the queue\n# TYPE depth gauge\n"
                             "depth{queue=\"mail\",shard=\"a\"} 3\n"
                             "depth{queue=\"mail\",shard=\"b\"} 9\n"
                             "depth{queue=\"sms\",shard=\"a\"} 100\n"
                             "depth_max 7000\n\nother 5\n";

/* In pieces of `step` bytes. */
static int read_out(struct dv_sv text, const struct dv_prom_query *q, size_t step, size_t max, double *out,
                    struct dv_err *err)
{
    struct dv_prom_reader r;
    int rc = DV_OK;
    dv_prom_reader_init(&r, q, max);
    for (size_t i = 0; !rc && i < text.n; i += step)
        rc = dv_prom_feed(&r, dv_sv(text.p + i, text.n - i < step ? text.n - i : step), err);
    if (!rc)
        rc = dv_prom_finish(&r, out, err);
    dv_prom_reader_deinit(&r);
    return rc;
}

static void series_are_folded_whatever_the_pieces(void **state)
{
    (void)state;
    struct dv_prom_match mail = {"queue", "mail"};
    static const double folded[] = {[DV_PROM_SUM] = 12, [DV_PROM_AVERAGE] = 6, [DV_PROM_MAX] = 9};
    for (size_t step = 1; step < sizeof(answer); step += 3)
        for (int fold = DV_PROM_SUM; fold <= DV_PROM_MAX; fold++) {
            struct dv_prom_query q = {"depth", &mail, 1, (enum dv_prom_fold)fold};
            double v = -1;
            assert_int_equal(read_out(dv_sv_c(answer), &q, step, 4096, &v, NULL), DV_OK);
            assert_true(v == folded[fold]);
        }
    struct dv_prom_query all = {"depth", NULL, 0, DV_PROM_SUM};
    double v;
    assert_int_equal(read_out(dv_sv_c(answer), &all, 7, 4096, &v, NULL), DV_OK);
    assert_true(v == 112);
}

static void what_is_not_there_is_not_zero(void **state)
{
    (void)state;
    struct dv_prom_match fax = {"queue", "fax"}, color = {"color", "red"};
    struct dv_prom_query q = {"depth", &fax, 1, DV_PROM_SUM};
    struct dv_err err = DV_ERR_INIT;
    double v = 77;
    assert_int_equal(read_out(dv_sv_c(answer), &q, 4096, 4096, &v, &err), DV_NOT_FOUND);
    q.matches = &color;
    assert_int_equal(read_out(dv_sv_c(answer), &q, 4096, 4096, &v, &err), DV_NOT_FOUND);
    q = (struct dv_prom_query){"dep", NULL, 0, DV_PROM_SUM};
    assert_int_equal(read_out(dv_sv_c(answer), &q, 4096, 4096, &v, &err), DV_NOT_FOUND);
    assert_int_equal(read_out(DV_SV(""), &q, 4096, 4096, &v, &err), DV_NOT_FOUND);
    assert_true(v == 77);
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        const char *why;
    } rows[] = {
        {"depth NaN\n", DV_INVALID, "NaN"},
        {"depth -1\n", DV_INVALID, "negative"},
        {"depth +Inf\n", DV_INVALID, "infinite"},
        {"depth 1e308\ndepth 1e308\n", DV_INVALID, "no number"},
        {"depth 5\ngarbage\n", DV_INVALID, "line 2: the value"},
        {"depth 5\n\x01\x02\n", DV_INVALID, "line 2: the line is no text"},
        {"depth 5\ndepth 12", DV_INVALID, "ends inside a line"}, /* of 1234, perhaps */
        {"# EOF\ndepth 5\n", DV_INVALID, "follows \"# EOF\""},
        {"other NaN\ndepth 5\n", DV_OK, ""}, /* somebody else's */
    };
    struct dv_prom_query q = {"depth", NULL, 0, DV_PROM_SUM};
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        for (size_t step = 1; step < 40; step += 19) {
            struct dv_err err = DV_ERR_INIT;
            double v = 77;
            int rc = read_out(dv_sv_c(rows[i].text), &q, step, 4096, &v, &err);
            if (rc != rows[i].rc || !strstr(err.msg, rows[i].why))
                fail_msg("%s: %d, %s", rows[i].text, rc, err.msg);
            assert_true(rc == DV_OK ? v == 5 : v == 77);
        }
}

static void answers_and_lines_are_bounded(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_prom_query q = {"depth", NULL, 0, DV_PROM_SUM};
    struct dv_err err = DV_ERR_INIT;
    double v;
    for (int i = 0; i < 1000; i++)
        dv_buf_addf(&b, "other{n=\"%d\"} %d\n", i, i);
    dv_buf_add_c(&b, "depth 5\n");
    assert_int_equal(read_out(dv_buf_sv(&b), &q, 100, dv_buf_len(&b), &v, &err), DV_OK);
    assert_int_equal(read_out(dv_buf_sv(&b), &q, 100, dv_buf_len(&b) - 1, &v, &err), DV_TOO_LARGE);
    dv_buf_clear(&b);
    dv_buf_add_c(&b, "# ");
    for (int i = 0; i < DV_PROM_LINE_MAX; i++)
        dv_buf_add_c(&b, "x");
    dv_buf_add_c(&b, "\n");
    for (size_t step = 1000; step < 40000; step += 38000) {
        assert_int_equal(read_out(dv_buf_sv(&b), &q, step, 1 << 20, &v, &err), DV_INVALID);
        assert_non_null(strstr(err.msg, "line 1: the line is too long"));
    }
    struct dv_prom_reader r; /* what was refused stays refused */
    dv_prom_reader_init(&r, &q, 4096);
    assert_int_equal(dv_prom_feed(&r, DV_SV("?\n"), &err), DV_INVALID);
    assert_int_equal(dv_prom_feed(&r, DV_SV("depth 5\n"), &err), DV_INVALID);
    assert_int_equal(dv_prom_finish(&r, &v, &err), DV_INVALID);
    dv_prom_reader_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_read),
        cmocka_unit_test(escapes_of_labels_are_undone),
        cmocka_unit_test(what_openmetrics_adds_is_understood),
        cmocka_unit_test(lines_that_are_none_of_the_format_are_refused),
        cmocka_unit_test(series_are_folded_whatever_the_pieces),
        cmocka_unit_test(what_is_not_there_is_not_zero),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(answers_and_lines_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

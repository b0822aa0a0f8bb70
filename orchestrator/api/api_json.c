/* JSON output piece by piece.  A failing buffer stays failed and is looked at once, before the answer leaves.
 */
#include "orchestrator/api/api_internal.h"

#include <inttypes.h>

static void begin(struct dv_jw *w, const char *key)
{
    if (w->is_after_value)
        (void)dv_buf_add_char(w->b, ',');
    w->is_after_value = true;
    if (!key)
        return;
    (void)dv_buf_add_json(w->b, dv_sv_c(key));
    (void)dv_buf_add_char(w->b, ':');
}

void dv_jw_open(struct dv_jw *w, const char *key, char bracket)
{
    begin(w, key);
    (void)dv_buf_add_char(w->b, bracket);
    w->is_after_value = false;
}

void dv_jw_close(struct dv_jw *w, char bracket)
{
    (void)dv_buf_add_char(w->b, bracket);
    w->is_after_value = true;
}

void dv_jw_str(struct dv_jw *w, const char *key, const char *v)
{
    if (!v)
        return;
    begin(w, key);
    /* Names of the outside world (hosts, engines) may hold anything; JSON may not. */
    bool ok = dv_utf8_valid(dv_sv_c(v));
    (void)dv_buf_add_json(w->b, ok ? dv_sv_c(v) : DV_SV("\xef\xbf\xbd"));
}

void dv_jw_i64(struct dv_jw *w, const char *key, int64_t v)
{
    begin(w, key);
    (void)dv_buf_addf(w->b, "%" PRId64, v);
}

void dv_jw_u64(struct dv_jw *w, const char *key, uint64_t v)
{
    begin(w, key);
    (void)dv_buf_addf(w->b, v > 1ull << 52 ? "\"%" PRIu64 "\"" : "%" PRIu64, v);
}

void dv_jw_double(struct dv_jw *w, const char *key, double v)
{
    begin(w, key);
    (void)dv_buf_addf(w->b, "%.3f", v);
}

void dv_jw_bool(struct dv_jw *w, const char *key, bool v)
{
    begin(w, key);
    (void)dv_buf_add_c(w->b, v ? "true" : "false");
}

void dv_jw_id(struct dv_jw *w, const char *key, uint64_t v)
{
    char text[DV_ID_TEXT];
    dv_id_text(v, text);
    dv_jw_str(w, key, text);
}

void dv_jw_time(struct dv_jw *w, const char *key, int64_t wall_ms)
{
    char text[DV_RFC3339_TEXT];
    dv_rfc3339(wall_ms, text);
    dv_jw_str(w, key, text);
}

void dv_jw_kvs(struct dv_jw *w, const char *key, const struct dv_kvs *m)
{
    dv_jw_open(w, key, '{');
    for (size_t i = 0; m && i < m->n; i++)
        dv_jw_str(w, m->v[i].k, m->v[i].v);
    dv_jw_close(w, '}');
}

void dv_jw_strs(struct dv_jw *w, const char *key, const struct dv_strs *l)
{
    dv_jw_open(w, key, '[');
    for (size_t i = 0; i < l->n; i++)
        dv_jw_str(w, NULL, l->v[i]);
    dv_jw_close(w, ']');
}

void dv_jw_wire(struct dv_jw *w, const char *key, const struct dv_wire_type *t, const void *msg)
{
    begin(w, key);
    (void)dv_wire_encode(t, msg, w->b);
}

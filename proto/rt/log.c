#include "proto/rt/log.h"
#include "proto/base/buf.h"
#include "proto/rt/clock.h"

#include <unistd.h>

static enum dv_log_level min_level = DV_LOG_INFO;
static enum dv_log_format format = DV_LOG_LOGFMT;
static int out_fd = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void dv_log_setup(enum dv_log_level level, enum dv_log_format fmt, int fd)
{
    min_level = level;
    format = fmt;
    out_fd = fd;
}

bool dv_log_level_parse(const char *s, enum dv_log_level *out)
{
    for (size_t i = 0; i < DV_COUNT(level_names); i++)
        if (strcmp(s, level_names[i]) == 0) {
            *out = (enum dv_log_level)i;
            return true;
        }
    return false;
}

bool dv_log_format_parse(const char *s, enum dv_log_format *out)
{
    if (strcmp(s, "logfmt") != 0 && strcmp(s, "json") != 0)
        return false;
    *out = s[0] == 'j' ? DV_LOG_JSON : DV_LOG_LOGFMT;
    return true;
}

bool dv_log_on(enum dv_log_level level)
{
    return level >= min_level;
}

static bool bare(struct dv_sv s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] == '"' || s.p[i] == '=' || s.p[i] == '\\' || s.p[i] == 0x7f)
            return false;
    return s.n > 0;
}

static void add_string(struct dv_buf *b, struct dv_sv s)
{
    if (!dv_utf8_valid(s))
        s = DV_SV("(not UTF-8)");
    if (format == DV_LOG_LOGFMT && bare(s))
        (void)dv_buf_add_sv(b, s);
    else
        (void)dv_buf_add_json(b, s);
}

static void add_field(struct dv_buf *b, const struct dv_log_field *f)
{
    char id[DV_ID_TEXT];
    (void)dv_buf_addf(b, format == DV_LOG_JSON ? ",\"%s\":" : " %s=", f->key);
    switch (f->kind) {
    case DV_LOGF_STR:
        add_string(b, f->s);
        break;
    case DV_LOGF_INT:
        (void)dv_buf_addf(b, "%lld", (long long)f->i);
        break;
    case DV_LOGF_UINT:
        (void)dv_buf_add_u64(b, f->u);
        break;
    case DV_LOGF_ID:
        dv_id_text(f->u, id);
        add_string(b, dv_sv_c(id));
        break;
    }
}

void dv_log_write(enum dv_log_level level, const char *msg, const struct dv_log_field *fields, size_t n)
{
    DV_AUTO_BUF struct dv_buf b;
    dv_buf_init(&b, 64 * 1024);
    char ts[DV_RFC3339_TEXT];
    dv_rfc3339(dv_clock_wall_ms(&dv_clock_system), ts);
    if (format == DV_LOG_JSON)
        (void)dv_buf_addf(&b, "{\"ts\":\"%s\",\"level\":\"%s\",\"msg\":", ts, level_names[level]);
    else
        (void)dv_buf_addf(&b, "ts=%s level=%s msg=", ts, level_names[level]);
    add_string(&b, dv_sv_c(msg));
    for (size_t i = 0; i < n; i++)
        add_field(&b, &fields[i]);
    (void)dv_buf_add_c(&b, format == DV_LOG_JSON ? "}\n" : "\n");
    ssize_t rc = write(out_fd, dv_buf_ptr(&b), dv_buf_len(&b));
    (void)rc; /* a log that cannot be written has nowhere to say so */
}

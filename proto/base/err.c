#include "proto/base/err.h"
#include "proto/base/banned.h"

#include <errno.h>

struct row {
    int code;
    const char *name;
    int http;
    bool retry;
    const char *text;
};

static const struct row table[] = {
#define ROW(code, name, http, retry, text) {(code), #name, (http), (retry), (text)},
    DV_ERR_TABLE(ROW)
#undef ROW
};

static const struct row *find(int code)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].code == code)
            return &table[i];
    return NULL;
}

__attribute__((format(printf, 5, 0))) static int fill(struct dv_err *err, int code, int sys_errno,
                                                      const char *field, const char *fmt, va_list ap)
{
    if (!err)
        return code;
    char msg[sizeof(err->msg)];
    (void)vsnprintf(msg, sizeof(msg), fmt, ap); /* truncation is fine: the text is for a person */
    err->code = code;
    err->sys_errno = sys_errno;
    memcpy(err->msg, msg, sizeof(msg));
    if (field)
        (void)snprintf(err->field, sizeof(err->field), "%s", field);
    else
        err->field[0] = '\0';
    return code;
}

int dv_err_set(struct dv_err *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, 0, NULL, fmt, ap);
    va_end(ap);
    return code;
}

int dv_err_field(struct dv_err *err, int code, const char *field, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, 0, field, fmt, ap);
    va_end(ap);
    return code;
}

int dv_err_sys(struct dv_err *err, int code, int sys_errno, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, sys_errno, NULL, fmt, ap);
    va_end(ap);
    if (err) {
        char text[96];
        const char *s = strerror_r(sys_errno, text, sizeof(text));
        size_t n = strlen(err->msg);
        (void)snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", s);
    }
    return code;
}

int dv_err_wrap(struct dv_err *err, const char *fmt, ...)
{
    if (!err)
        return 0;
    char ctx[sizeof(err->msg)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(ctx, sizeof(ctx), fmt, ap);
    va_end(ap);
    char old[sizeof(err->msg)];
    memcpy(old, err->msg, sizeof(old));
    const char *tail = old[0] ? old : dv_err_text(err->code);
    size_t n = strlen(ctx), room = sizeof(err->msg) - n;
    memcpy(err->msg, ctx, n + 1);
    if (room > 3)
        (void)snprintf(err->msg + n, room, ": %.*s", (int)room - 3, tail);
    return err->code;
}

const char *dv_err_name(int code)
{
    const struct row *r = find(code);
    return r ? r->name : "DV_UNKNOWN";
}

const char *dv_err_text(int code)
{
    const struct row *r = find(code);
    return r ? r->text : "unknown error";
}

int dv_err_http(int code)
{
    const struct row *r = find(code);
    return r ? r->http : 500;
}

bool dv_err_retryable(int code)
{
    const struct row *r = find(code);
    return r && r->retry;
}

const char *dv_err_msg(const struct dv_err *err, int code)
{
    return err && err->msg[0] ? err->msg : dv_err_text(code);
}

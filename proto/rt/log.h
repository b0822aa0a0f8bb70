/* Structured logs: one line per event, logfmt or JSON, to a file descriptor.  Any thread; each line leaves in
 * one write.  Libraries return errors; only edges call this, one line per failure, at the place that gives
 * up.
 *
 *     dv_log(DV_LOG_WARN, "node lost", DV_LS("node", name), DV_LU("silent_ms", ms));
 */
#ifndef DV_LOG_H
#define DV_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/err.h"
#include "proto/base/str.h"

enum dv_log_level { DV_LOG_DEBUG, DV_LOG_INFO, DV_LOG_WARN, DV_LOG_ERROR };
enum dv_log_format { DV_LOG_LOGFMT, DV_LOG_JSON };

struct dv_log_field {
    const char *key;
    enum { DV_LOGF_STR, DV_LOGF_INT, DV_LOGF_UINT, DV_LOGF_ID } kind;
    struct dv_sv s;
    int64_t i;
    uint64_t u;
};

#define DV_LS(k, v)  ((struct dv_log_field){.key = (k), .kind = DV_LOGF_STR, .s = dv_sv_c(v)})
#define DV_LSV(k, v) ((struct dv_log_field){.key = (k), .kind = DV_LOGF_STR, .s = (v)})
#define DV_LI(k, v)  ((struct dv_log_field){.key = (k), .kind = DV_LOGF_INT, .i = (int64_t)(v)})
#define DV_LU(k, v)  ((struct dv_log_field){.key = (k), .kind = DV_LOGF_UINT, .u = (uint64_t)(v)})
#define DV_LID(k, v) ((struct dv_log_field){.key = (k), .kind = DV_LOGF_ID, .u = (v)})
#define DV_LE(err)   DV_LS("error", (err)->msg[0] ? (err)->msg : dv_err_text((err)->code))

/* Before any thread starts.  fd is borrowed. */
void dv_log_setup(enum dv_log_level level, enum dv_log_format format, int fd);
bool dv_log_level_parse(const char *s, enum dv_log_level *out);   /* debug info warn error */
bool dv_log_format_parse(const char *s, enum dv_log_format *out); /* logfmt json */
bool dv_log_on(enum dv_log_level level);
void dv_log_write(enum dv_log_level level, const char *msg, const struct dv_log_field *fields, size_t n);

#define dv_log(level, msg, ...)                                                                              \
    do {                                                                                                     \
        if (dv_log_on(level)) {                                                                              \
            const struct dv_log_field dv_log_f_[] = {__VA_ARGS__};                                           \
            dv_log_write(level, msg, dv_log_f_, sizeof(dv_log_f_) / sizeof(struct dv_log_field));            \
        }                                                                                                    \
    } while (0)

#endif

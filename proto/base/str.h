/* String views and small parsers over them.  Pure, any thread; nothing here allocates. */
#ifndef DV_STR_H
#define DV_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "proto/base/banned.h"

struct dv_sv {
    const char *p; /* borrowed, not NUL-terminated */
    size_t n;
};

#define DV_SV(lit) ((struct dv_sv){"" lit, sizeof(lit) - 1})

static inline struct dv_sv dv_sv(const char *p, size_t n)
{
    return (struct dv_sv){p, n};
}

static inline struct dv_sv dv_sv_c(const char *s)
{
    return (struct dv_sv){s, s ? strlen(s) : 0};
}

bool dv_sv_eq(struct dv_sv a, struct dv_sv b);
bool dv_sv_eq_nocase(struct dv_sv a, struct dv_sv b); /* ASCII */
bool dv_sv_starts(struct dv_sv s, struct dv_sv prefix);
bool dv_sv_ends(struct dv_sv s, struct dv_sv suffix);
struct dv_sv dv_sv_trim(struct dv_sv s); /* space and tab at both ends */
/* Cut s at the first c: *head gets what stands before it, the rest follows it.  False when c is absent
 * (*head is then all of s, *rest empty). */
bool dv_sv_cut(struct dv_sv s, char c, struct dv_sv *head, struct dv_sv *rest);

/* Whole of s as a number; no sign, no blanks, no overflow.  False otherwise, *out untouched. */
bool dv_parse_u64(struct dv_sv s, uint64_t *out);
bool dv_parse_i64(struct dv_sv s, int64_t *out);    /* with an optional '-' */
bool dv_parse_hex64(struct dv_sv s, uint64_t *out); /* 1-16 hex digits */
bool dv_parse_double(struct dv_sv s, double *out);  /* finite decimal numbers only */

/* Compare secrets in time that depends on the lengths alone. */
bool dv_secret_eq(struct dv_sv a, struct dv_sv b);

/* out needs 2n + 1 bytes; NUL-terminated lower-case hex. */
void dv_hex(const void *bytes, size_t n, char *out);
bool dv_unhex(struct dv_sv hex, void *out, size_t out_n); /* hex.n must be 2 * out_n */

/* Base64 (RFC 4648, padded).  encode: out needs dv_base64_len(n) + 1 bytes.
 * decode: out needs 3 * (in.n / 4) bytes; returns decoded length, -1 when malformed. */
size_t dv_base64_len(size_t n);
void dv_base64(const void *in, size_t n, char *out);
ptrdiff_t dv_base64_decode(struct dv_sv in, void *out);

bool dv_utf8_valid(struct dv_sv s);

/* 64-bit ids travel as 16 hex digits. */
#define DV_ID_TEXT 17
void dv_id_text(uint64_t id, char out[DV_ID_TEXT]);

/* FNV-1a over bytes, mixed; seed it per process where the keys come from outside. */
uint64_t dv_hash_bytes(const void *p, size_t n, uint64_t seed);

/* Copy at most cap - 1 bytes and terminate.  Returns false when s did not fit. */
bool dv_copy(char *dst, size_t cap, const char *s);

#endif

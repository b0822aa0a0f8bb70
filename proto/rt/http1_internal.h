/* What heads and trailer sections share: the character classes and the scanner of field lines. */
#ifndef DV_HTTP1_INTERNAL_H
#define DV_HTTP1_INTERNAL_H

#include "proto/rt/http1.h"

enum { DV_H1_C_TOKEN = 1, DV_H1_C_VALUE = 2, DV_H1_C_TARGET = 4, DV_H1_C_HOST = 8 };
extern const uint8_t dv_h1_class[256];

static inline bool dv_h1_is(char c, int cls)
{
    return (dv_h1_class[(unsigned char)c] & cls) != 0;
}

/* A place in the bytes at hand.  is_full: the bound was reached, so more bytes would not help. */
struct dv_h1_scan {
    const char *p, *end;
    bool is_full;
    struct dv_err *err;
};

/* The bytes ran out: DV_AGAIN, or DV_TOO_LARGE at the bound. */
int dv_h1_starved(const struct dv_h1_scan *s);
/* Over one CRLF: DV_OK, DV_INVALID (bare CR or LF, or another byte), or as dv_h1_starved. */
int dv_h1_scan_eol(struct dv_h1_scan *s);
/* Over one field line with its CRLF: DV_OK with *out, DV_INVALID, or as dv_h1_starved. */
int dv_h1_scan_field(struct dv_h1_scan *s, struct dv_h1_field *out);

#endif

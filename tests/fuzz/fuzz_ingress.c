/* A client's bytes: a request's head, and the chunked body behind it.
 *
 * Beside memory safety it holds what smuggling would break: a head is the same head however its bytes arrive
 * (every proper prefix asks for more or is refused, and never with another answer later), what is accepted
 * contains nothing that two parsers read differently, and a chunked body cut anywhere gives the same bytes,
 * trailers and end. */
#include "proto/base/alloc.h"
#include "proto/rt/http1.h"

#define REQUIRE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

static bool is_inside(struct dv_sv v, const char *p, size_t n)
{
    return v.n == 0 || (v.p >= p && v.p + v.n <= p + n);
}

static void check_head(const struct dv_h1_head *h, const char *p, size_t consumed)
{
    size_t n_host = 0, n_length = 0, n_coding = 0;
    REQUIRE(dv_h1_is_token(h->method) && is_inside(h->method, p, consumed));
    REQUIRE(h->target.n > 0 && h->target.n <= DV_H1_MAX_TARGET);
    REQUIRE(consumed >= 4 && memcmp(p + consumed - 4, "\r\n\r\n", 4) == 0);
    for (size_t i = 0; i < h->n_fields; i++) {
        struct dv_sv name = h->fields[i].name, value = h->fields[i].value;
        REQUIRE(dv_h1_is_token(name) && dv_h1_value_valid(value));
        REQUIRE(is_inside(name, p, consumed) && is_inside(value, p, consumed));
        n_host += dv_sv_eq_nocase(name, DV_SV("host"));
        n_length += dv_sv_eq_nocase(name, DV_SV("content-length"));
        n_coding += dv_sv_eq_nocase(name, DV_SV("transfer-encoding"));
        (void)dv_h1_is_hop_field(h, name);
    }
    REQUIRE(n_host <= 1 && (n_host == 1 || h->minor == 0));
    REQUIRE(n_length + n_coding <= 1);
    REQUIRE(!n_coding || (h->minor >= 1 && h->body == DV_H1_CHUNKED));
    REQUIRE(h->body == (n_coding ? DV_H1_CHUNKED : n_length ? DV_H1_LENGTH : DV_H1_NO_BODY));
}

/* A copy of exactly n bytes, so that a sanitizer sees one byte too many. */
static int parse_copy(const uint8_t *data, size_t n, struct dv_h1_head *h, size_t *consumed)
{
    char *copy = dv_alloc(n);
    if (!copy)
        abort();
    if (n)
        memcpy(copy, data, n);
    int rc = dv_h1_parse_request(copy, n, h, consumed, NULL);
    if (rc == DV_OK)
        check_head(h, copy, *consumed);
    dv_free(copy);
    return rc;
}

/* Cut somewhere, the head must not be understood earlier, nor refused where the whole is not. */
static void check_prefixes(const uint8_t *data, size_t n, int rc, size_t consumed)
{
    static struct dv_h1_head h;
    size_t last = rc == DV_OK ? consumed : n, step = last < 200 ? 1 : 1 + last / 61, used;
    for (size_t cut = 0; cut < last; cut += step) {
        int early = parse_copy(data, cut, &h, &used);
        if (rc == DV_OK || rc == DV_AGAIN)
            REQUIRE(early == DV_AGAIN);
        else
            REQUIRE(early == DV_AGAIN || early == rc);
    }
}

struct decoded {
    int rc; /* DV_OK: done; DV_AGAIN: bytes ran out; DV_INVALID */
    uint64_t body_hash, body_bytes;
    uint64_t trailer_hash;
    size_t rest;
};

static struct decoded decode(const uint8_t *data, size_t n, size_t piece)
{
    struct decoded d = {.rc = DV_AGAIN, .body_hash = 5381};
    struct dv_h1_chunked c;
    dv_h1_chunked_init(&c);
    size_t from = 0, to = 0;
    for (;;) {
        char *copy = dv_alloc(to - from);
        if (!copy)
            abort();
        if (to > from)
            memcpy(copy, data + from, to - from);
        enum dv_h1_chunk_event ev;
        struct dv_sv out;
        size_t used;
        d.rc = dv_h1_chunked_next(&c, copy, to - from, &ev, &out, &used, NULL);
        if (d.rc == DV_OK) {
            REQUIRE(used <= to - from && is_inside(out, copy, to - from));
            from += used;
        }
        if (d.rc == DV_OK && ev == DV_H1_CHUNK_DATA) {
            REQUIRE(out.n > 0);
            for (size_t i = 0; i < out.n; i++)
                d.body_hash = d.body_hash * 33 + (uint8_t)out.p[i];
            d.body_bytes += out.n;
        }
        if (d.rc == DV_OK && ev == DV_H1_CHUNK_TRAILERS)
            d.trailer_hash = dv_hash_bytes(out.p, out.n, 1);
        dv_free(copy);
        if (d.rc != DV_OK)
            return d;
        if (ev == DV_H1_CHUNK_DONE) {
            d.rest = n - from;
            return d;
        }
        if (ev != DV_H1_CHUNK_MORE)
            continue;
        if (to == n) {
            d.rc = DV_AGAIN;
            return d;
        }
        to = n - to < piece ? n : to + piece;
    }
}

static void check_chunked(const uint8_t *data, size_t n)
{
    struct decoded whole = decode(data, n, n + 1);
    static const size_t pieces[] = {1, 2, 3, 7, 64};
    for (size_t i = n > 4096 ? 4 : 0; i < DV_COUNT(pieces); i++) {
        struct decoded d = decode(data, n, pieces[i]);
        REQUIRE(d.rc == whole.rc);
        if (d.rc == DV_INVALID)
            continue;
        REQUIRE(d.body_bytes == whole.body_bytes && d.body_hash == whole.body_hash);
        REQUIRE(d.trailer_hash == whole.trailer_hash && d.rest == whole.rest);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct dv_h1_head h;
    size_t consumed = 0;
    int rc = parse_copy(data, n, &h, &consumed);
    REQUIRE(rc == DV_OK || rc == DV_AGAIN || rc == DV_INVALID || rc == DV_TOO_LARGE || rc == DV_UNSUPPORTED);
    check_prefixes(data, n, rc, consumed);
    if (rc == DV_OK)
        check_chunked(data + consumed, n - consumed);
    else
        check_chunked(data, n);
    return 0;
}

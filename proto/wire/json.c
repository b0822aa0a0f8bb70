/* Strict JSON.  cJSON is a lenient parser: it takes control characters and NUL in strings, keeps duplicate
 * keys, stops early without saying so, and turns 1e999 into infinity.  So the text is first walked by the
 * recogniser below, which accepts RFC 8259 and nothing more; cJSON then only builds the tree, and a second
 * walk over that tree looks for what escapes hide: equal keys and numbers without a finite value.
 *
 * The recogniser recurses at most DV_JSON_DEPTH deep. */
#include "proto/wire/codec_internal.h"

#include <cjson/cJSON.h>
#include <math.h>
#include "proto/base/alloc.h"

enum { DV_JSON_DEPTH = 32, DV_JSON_NUMBER_MAX = 48, DUPLICATES_BY_HAND = 12 };

/* Every tree in the program comes from the one door to the heap, so that fault tests reach it. */
__attribute__((constructor)) static void use_our_heap(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = dv_alloc, .free_fn = dv_free});
}

struct scan {
    const char *start, *p, *end;
    struct dv_err *err;
};

/* ---------------------------------------------------------------- recogniser */

static int scan_fail(const struct scan *s, const char *what)
{
    int line = 1;
    const char *line_start = s->start;
    for (const char *c = s->start; c < s->p; c++)
        if (*c == '\n') {
            line++;
            line_start = c + 1;
        }
    return dv_err_set(s->err, DV_INVALID, "not valid JSON: line %d, column %d: %s", line,
                      (int)(s->p - line_start) + 1, what);
}

static void scan_blank(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static bool scan_char(struct scan *s, char c)
{
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

/* Four hex digits behind \u; -1 when they are not. */
static int scan_hex4(struct scan *s)
{
    uint64_t v;
    if (s->end - s->p < 4 || !dv_parse_hex64(dv_sv(s->p, 4), &v))
        return -1;
    s->p += 4;
    return (int)v;
}

static int scan_unicode_escape(struct scan *s)
{
    int v = scan_hex4(s);
    if (v < 0)
        return scan_fail(s, "four hex digits must follow \\u");
    if (v == 0)
        return scan_fail(s, "strings must not contain NUL");
    if (v >= 0xdc00 && v <= 0xdfff)
        return scan_fail(s, "half a surrogate pair");
    if (v < 0xd800 || v > 0xdbff)
        return DV_OK;
    if (!scan_char(s, '\\') || !scan_char(s, 'u'))
        return scan_fail(s, "half a surrogate pair");
    v = scan_hex4(s);
    return v >= 0xdc00 && v <= 0xdfff ? DV_OK : scan_fail(s, "half a surrogate pair");
}

static int scan_string(struct scan *s)
{
    const char *first = ++s->p;
    for (;;) {
        if (s->p == s->end)
            return scan_fail(s, "a string without its closing quote");
        unsigned char c = (unsigned char)*s->p;
        if (c == '"')
            break;
        if (c < 0x20)
            return scan_fail(s, c ? "control characters in strings must be escaped"
                                  : "strings must not contain NUL");
        s->p++;
        if (c != '\\')
            continue;
        if (s->p == s->end || !*s->p || !strchr("\"\\/bfnrtu", *s->p))
            return scan_fail(s, "unknown escape in a string");
        if (*s->p++ == 'u') {
            int rc = scan_unicode_escape(s);
            if (rc)
                return rc;
        }
    }
    if (!dv_utf8_valid(dv_sv(first, (size_t)(s->p - first))))
        return scan_fail(s, "a string that is not valid UTF-8");
    s->p++;
    return DV_OK;
}

static bool scan_digits(struct scan *s)
{
    const char *first = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > first;
}

static int scan_number(struct scan *s)
{
    const char *first = s->p;
    (void)scan_char(s, '-');
    if (!scan_char(s, '0') && !scan_digits(s))
        return scan_fail(s, "a value is expected here");
    if (scan_char(s, '.') && !scan_digits(s))
        return scan_fail(s, "digits must follow the decimal point");
    if (scan_char(s, 'e') || scan_char(s, 'E')) {
        if (!scan_char(s, '+'))
            (void)scan_char(s, '-');
        if (!scan_digits(s))
            return scan_fail(s, "digits must follow the exponent");
    }
    return s->p - first > DV_JSON_NUMBER_MAX ? scan_fail(s, "a number with too many digits") : DV_OK;
}

static int scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return scan_fail(s, "a value is expected here");
    s->p += n;
    return DV_OK;
}

static int scan_value(struct scan *s, int depth);

static int scan_members(struct scan *s, int depth, char close)
{
    s->p++;
    scan_blank(s);
    if (scan_char(s, close))
        return DV_OK;
    for (;;) {
        scan_blank(s);
        if (close == '}') {
            if (s->p == s->end || *s->p != '"')
                return scan_fail(s, "a key in quotes is expected here");
            int rc = scan_string(s);
            if (rc)
                return rc;
            scan_blank(s);
            if (!scan_char(s, ':'))
                return scan_fail(s, "':' is expected here");
        }
        int rc = scan_value(s, depth + 1);
        if (rc)
            return rc;
        scan_blank(s);
        if (scan_char(s, close))
            return DV_OK;
        if (!scan_char(s, ','))
            return scan_fail(s, close == '}' ? "',' or '}' is expected here" : "',' or ']' is expected here");
    }
}

static int scan_value(struct scan *s, int depth)
{
    scan_blank(s);
    if (s->p == s->end)
        return scan_fail(s, "the text ends where a value is expected");
    switch (*s->p) {
    case '{':
    case '[':
        if (depth >= DV_JSON_DEPTH)
            return scan_fail(s, "nested more than 32 deep");
        return scan_members(s, depth, *s->p == '{' ? '}' : ']');
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

/* ---------------------------------------------------------------- checks on the tree */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that stands twice in the object: *out, or NULL.  DV_OK or DV_E_NOMEM. */
static int find_duplicate(const cJSON *object, const char **out)
{
    size_t n = 0;
    const cJSON *item;
    *out = NULL;
    cJSON_ArrayForEach (item, object)
        n++;
    if (n <= DUPLICATES_BY_HAND) {
        for (const cJSON *a = object->child; a; a = a->next)
            for (const cJSON *b = a->next; b; b = b->next)
                if (strcmp(a->string, b->string) == 0)
                    *out = a->string;
        return DV_OK;
    }
    const char **keys = dv_zalloc_n(n, sizeof(*keys));
    if (!keys)
        return DV_E_NOMEM;
    size_t i = 0;
    cJSON_ArrayForEach (item, object)
        keys[i++] = item->string;
    qsort(keys, n, sizeof(*keys), by_text);
    for (i = 1; i < n; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            *out = keys[i];
    dv_free(keys);
    return DV_OK;
}

static int check_tree(const cJSON *tree, const struct dv_path *path, struct dv_err *err)
{
    if (cJSON_IsNumber(tree) && !isfinite(tree->valuedouble))
        return dv_path_err(path, err, "the number is too large");
    if (cJSON_IsObject(tree)) {
        const char *twice;
        int rc = find_duplicate(tree, &twice);
        if (rc)
            return dv_err_set(err, rc, "out of memory while reading JSON");
        struct dv_path at = {path, twice, 0};
        if (twice)
            return dv_path_err(&at, err, "the key stands there twice");
    }
    size_t i = 0;
    const cJSON *item;
    cJSON_ArrayForEach (item, tree) {
        struct dv_path at = {path, item->string, i++};
        int rc = check_tree(item, &at, err);
        if (rc)
            return rc;
    }
    return DV_OK;
}

int dv_json_parse(struct dv_sv json, size_t max_bytes, struct cJSON **out, struct dv_err *err)
{
    if (json.n > max_bytes)
        return dv_err_set(err, DV_TOO_LARGE, "%zu bytes of JSON; at most %zu are taken", json.n, max_bytes);
    struct scan s = {json.p, json.p, json.p + json.n, err};
    scan_blank(&s);
    if (s.p == s.end)
        return dv_err_set(err, DV_INVALID, "no JSON given");
    int rc = scan_value(&s, 0);
    if (rc)
        return rc;
    scan_blank(&s);
    if (s.p < s.end)
        return scan_fail(&s, "something follows the end of the value");
    cJSON *tree = cJSON_ParseWithLength(json.p, json.n);
    if (!tree)
        return dv_err_set(err, DV_E_NOMEM, "out of memory while reading JSON");
    rc = check_tree(tree, NULL, err);
    if (rc) {
        cJSON_Delete(tree);
        return rc;
    }
    *out = tree;
    return DV_OK;
}

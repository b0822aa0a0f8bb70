/* Inside of the codec: what a field table is made of.  Only proto/wire's own files include this.
 *
 * A message is a struct and a table of its fields.  One walker per verb (decode.c, encode.c, walk.c) goes
 * through the table; adding a field is one line in tables*.c.  The macros at the end check at compile time
 * that a member has the C type its kind works on. */
#ifndef DV_WIRE_CODEC_INTERNAL_H
#define DV_WIRE_CODEC_INTERNAL_H

#include "proto/wire/codec.h"

enum dv_kind {                /* C type of the member, JSON form */
               DV_K_STR,      /* char *: string */
               DV_K_BOOL,     /* bool: true, false */
               DV_K_INT,      /* int64_t: number; decimal string past 2^52 */
               DV_K_U64,      /* uint64_t: number; decimal string past 2^52 */
               DV_K_ID,       /* uint64_t: string of 16 hex digits */
               DV_K_DURATION, /* int64_t milliseconds: "30s" */
               DV_K_BYTES,    /* int64_t: "128Mi", or a number of bytes */
               DV_K_MCPU,     /* int64_t: "500m", "2" */
               DV_K_NUM,      /* double: number, finite */
               DV_K_ENUM,     /* 4-byte enum: its name */
               DV_K_STRS,     /* struct dv_strs: array of strings */
               DV_K_KVS,      /* struct dv_kvs: object of strings */
               DV_K_IDS,      /* uint64_t * and size_t: array of ids */
               DV_K_OBJECT,   /* struct: object */
               DV_K_POINTER,  /* struct *: object; NULL when absent */
               DV_K_LIST,     /* struct * and size_t: array of objects */
               DV_K_COUNT
};

enum dv_field_flags {
    DV_F_REQUIRED = 1, /* must be given; always written */
    DV_F_QUIET = 2,    /* not written while it has its default */
    DV_F_ZERO_OK = 4,  /* 0 is allowed outside the range: "none" */
};

struct dv_field {
    const char *name; /* in JSON */
    enum dv_kind kind;
    unsigned flags;
    size_t offset;
    size_t n_offset;     /* IDS, LIST: of the count */
    int64_t min, max;    /* numbers: value; strings: bytes; STRS, KVS, LIST: entries.  Both 0: no bound */
    int64_t def;         /* numbers, enums, bool */
    const char *def_str; /* STR */
    const char *const *names;        /* ENUM; NULL-terminated, in order of value */
    const struct dv_wire_type *type; /* OBJECT, POINTER, LIST */
    /* STR, each of STRS, keys of KVS: NULL, or what is wrong ("must be ..."). */
    const char *(*check)(const char *s);
};

struct dv_wire_type {
    const char *name; /* for messages */
    size_t size;
    const struct dv_field *fields;
    size_t n_fields; /* at most 64 */
    /* Rules across fields; may be NULL.  DV_OK, or DV_INVALID with the field's name relative to this message.
     */
    int (*check)(const void *msg, unsigned flags, struct dv_err *err);
};

/* Where the walker is, for err->field.  On the stack, innermost first. */
struct dv_path {
    const struct dv_path *up;
    const char *name; /* NULL: an array's index */
    size_t index;
};
void dv_path_text(const struct dv_path *p, char *out, size_t cap);
int dv_path_err(const struct dv_path *p, struct dv_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* DV_INVALID */

/* Members by offset. */
static inline void *dv_at(void *msg, size_t offset)
{
    return (char *)msg + offset;
}
static inline const void *dv_at_c(const void *msg, size_t offset)
{
    return (const char *)msg + offset;
}
static inline size_t dv_count_at(const void *msg, const struct dv_field *f)
{
    return *(const size_t *)dv_at_c(msg, f->n_offset);
}

void dv_field_default(const struct dv_field *f, void *msg);          /* walk.c */
bool dv_field_is_default(const struct dv_field *f, const void *msg); /* walk.c */

/* Sort by key, in place.  Keys must be unique. */
void dv_kvs_sort(struct dv_kvs *m);

#define DV_WIRE_INT_MAX (1ll << 52) /* the largest integer that travels as a number */

extern const char *const dv_names_replica_state[], *const dv_names_reason[]; /* names.c */

/* ---- how tables are written.  T is the struct, #defined around each table. */
typedef char *dv_kt_STR;
typedef bool dv_kt_BOOL;
typedef int64_t dv_kt_INT;
typedef uint64_t dv_kt_U64;
typedef uint64_t dv_kt_ID;
typedef int64_t dv_kt_DURATION;
typedef int64_t dv_kt_BYTES;
typedef int64_t dv_kt_MCPU;
typedef double dv_kt_NUM;
typedef struct dv_strs dv_kt_STRS;
typedef struct dv_kvs dv_kt_KVS;

#define DV_REQUIRE_(cond)                                                                                    \
    (0 * sizeof(struct {                                                                                     \
         _Static_assert(cond, "member's type does not fit its kind");                                        \
         int unused;                                                                                         \
     }))
#define DV_MEMBER_(m)     (((T *)0)->m)
#define DV_SAME_(m, type) __builtin_types_compatible_p(__typeof__(DV_MEMBER_(m)), type)

/* FIELD(INT, "port", port, .min = 1, .max = 65535, .def = 8080) */
#define FIELD(kind_, json, m, ...)                                                                           \
    {                                                                                                        \
        .name = (json), .kind = DV_K_##kind_,                                                                \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(DV_SAME_(m, dv_kt_##kind_)), ##__VA_ARGS__          \
    }
#define FIELD_ENUM(json, m, names_, ...)                                                                     \
    {                                                                                                        \
        .name = (json), .kind = DV_K_ENUM,                                                                   \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(sizeof(DV_MEMBER_(m)) == sizeof(int)),              \
        .names = (names_), ##__VA_ARGS__                                                                     \
    }
#define FIELD_OBJECT(json, m, table, c_type, ...)                                                            \
    {                                                                                                        \
        .name = (json), .kind = DV_K_OBJECT,                                                                 \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(DV_SAME_(m, c_type)), .type = &(table),             \
        ##__VA_ARGS__                                                                                        \
    }
#define FIELD_POINTER(json, m, table, c_type)                                                                \
    {                                                                                                        \
        .name = (json), .kind = DV_K_POINTER,                                                                \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(DV_SAME_(m, c_type *)), .type = &(table)            \
    }
#define FIELD_LIST(json, m, n_m, table, c_type, ...)                                                         \
    {                                                                                                        \
        .name = (json), .kind = DV_K_LIST,                                                                   \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(DV_SAME_(m, c_type *)),                             \
        .n_offset = __builtin_offsetof(T, n_m) + DV_REQUIRE_(DV_SAME_(n_m, size_t)), .type = &(table),       \
        ##__VA_ARGS__                                                                                        \
    }
#define FIELD_IDS(json, m, n_m, ...)                                                                         \
    {                                                                                                        \
        .name = (json), .kind = DV_K_IDS,                                                                    \
        .offset = __builtin_offsetof(T, m) + DV_REQUIRE_(DV_SAME_(m, uint64_t *)),                           \
        .n_offset = __builtin_offsetof(T, n_m) + DV_REQUIRE_(DV_SAME_(n_m, size_t)), ##__VA_ARGS__           \
    }

#define TABLE_INIT_(c_type, fields_, ...)                                                                    \
    {                                                                                                        \
        .name = #fields_, .size = sizeof(c_type), .fields = (fields_),                                       \
        .n_fields = DV_COUNT(fields_) + DV_REQUIRE_(DV_COUNT(fields_) <= 64), ##__VA_ARGS__                  \
    }

/* Tables that only other tables use. */
extern const struct dv_wire_type dv_type_health, dv_type_limits, dv_type_requests, dv_type_scale;

/* Checks of single strings. */
const char *dv_check_name(const char *s);
const char *dv_check_node_name(const char *s);

#endif

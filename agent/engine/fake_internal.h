/* What the files of the engine in memory share. */
#ifndef DV_FAKE_INTERNAL_H
#define DV_FAKE_INTERNAL_H

#include "agent/engine/engine_fake.h"
#include "proto/base/list.h"
#include "proto/rt/loop.h"

struct image {
    struct dv_list node;
    char name[128];
    struct dv_engine_image img;
    bool is_present;
};

struct log {
    struct dv_list node;
    bool is_stderr;
    int64_t wall_ms;
    char *text;
};

struct container {
    struct dv_list node;
    struct dv_engine_fake *f;
    struct dv_arena arena;
    struct dv_engine_create spec;
    struct dv_engine_container seen;
    struct dv_list logs; /* oldest first */
    const char *next;    /* of its toy program; NULL: runs until stopped */
    struct dv_timer timer;
};

typedef void (*any_fn)(void);

struct task {
    struct dv_list node;
    struct dv_timer timer;
    struct dv_engine_fake *f;
    enum dv_engine_fake_op op;
    int (*act)(struct task *t, struct dv_err *err); /* DV_OK: it has told its user; otherwise finish() does */
    void (*finish)(struct task *t, int code, const struct dv_err *err);
    any_fn done, each; /* of the user; cast back by the operation that set them */
    void *ctx;
    char id[160]; /* container, image, label or network */
    int64_t a, b, c;
    bool flag, is_stream, is_cancelled, is_busy;
    struct container *made; /* create: not yet among the containers */
};

struct dv_engine_fake {
    struct dv_engine base;
    struct dv_loop *loop;
    struct dv_list images, containers, tasks;
    uint64_t next_id, calls[DV_FAKE_N_OPS], errors;
    struct {
        int code, times;
        char words[160];
    } fail[DV_FAKE_N_OPS];
    uint64_t delay_ms[DV_FAKE_N_OPS];
    bool is_down;
    void (*on_start)(void *ctx, struct dv_engine_fake_started *s);
    void *on_start_ctx;
};

static inline struct dv_engine_fake *dv_fake_of(struct dv_engine *e)
{
    return DV_CONTAINER_OF(e, struct dv_engine_fake, base);
}

/* ---- containers: fake_process.c ---- */

struct container *dv_fake_find(const struct dv_engine_fake *f, const char *id); /* id or name; NULL: absent */
bool dv_fake_is_running(const struct container *c);
bool dv_fake_has_label(const struct container *c, const char *label); /* "key" or "key=value" */
const char *dv_fake_joins(const struct container *c); /* whose network it is to join; NULL: its own */
bool dv_fake_copy_spec(struct container *c, const struct dv_engine_create *from);
void dv_fake_container_free(struct container *c);
const char *dv_fake_script_of(const struct dv_engine_create *spec); /* of its toy program; NULL: none */
void dv_fake_on_program(struct dv_timer *t);
/* The process ends: events are told, followed logs end.  Nothing happens to one that does not run. */
void dv_fake_end_process(struct container *c, int64_t code, bool is_oom);
void dv_fake_add_log(struct container *c, bool is_stderr, const char *text);
void dv_fake_tell_event(struct dv_engine_fake *f, const struct container *c, const char *action);
void dv_fake_tell_line(struct task *t, const struct log *l);

/* ---- operations: fake_ops.c ---- */

extern const struct dv_engine_ops dv_fake_ops;
struct image *dv_fake_find_image(const struct dv_engine_fake *f, const char *name);

#endif

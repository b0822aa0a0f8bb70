/* A container engine in memory, for tests: it answers as Docker does (one contract suite holds both to it),
 * and can be told to fail, to be slow, to be gone.  Its containers run a toy: `sh -c` with "echo TEXT [>&2]",
 * "sleep SECONDS" and "exit CODE" separated by ";" does what it says, anything else runs until it is stopped.
 * Loop's thread. */
#ifndef DV_ENGINE_FAKE_H
#define DV_ENGINE_FAKE_H

#include "agent/engine/engine.h"

struct dv_engine_fake;

enum dv_engine_fake_op {
    DV_FAKE_CONNECT,
    DV_FAKE_IMAGE_INSPECT,
    DV_FAKE_IMAGE_PULL,
    DV_FAKE_IMAGE_LIST,
    DV_FAKE_IMAGE_IMPORT,
    DV_FAKE_CREATE,
    DV_FAKE_START,
    DV_FAKE_STOP,
    DV_FAKE_KILL,
    DV_FAKE_REMOVE,
    DV_FAKE_UPDATE,
    DV_FAKE_INSPECT,
    DV_FAKE_LIST,
    DV_FAKE_LOGS,
    DV_FAKE_EVENTS,
    DV_FAKE_NETWORK,
    DV_FAKE_N_OPS
};

/* Close it through ops->close of dv_engine_fake_engine.  DV_OK; DV_E_NOMEM. */
int dv_engine_fake_open(struct dv_loop *loop, struct dv_engine_fake **out);
struct dv_engine *dv_engine_fake_engine(struct dv_engine_fake *f);

/* An image that is present, or only in the registry.  img: NULL for a plain one; its lists are borrowed. */
void dv_engine_fake_add_image(struct dv_engine_fake *f, const char *name, const struct dv_engine_image *img,
                              bool is_present);

/* The next `times` calls of op (-1: all, 0: stop failing) end with code and these words, and change nothing.
 */
void dv_engine_fake_fail(struct dv_engine_fake *f, enum dv_engine_fake_op op, int code, const char *words,
                         int times);
void dv_engine_fake_delay(struct dv_engine_fake *f, enum dv_engine_fake_op op, uint64_t ms);
/* Down: every call fails as when nobody listens, streams break.  Containers live on (as under a live-restore
 * engine). */
void dv_engine_fake_down(struct dv_engine_fake *f, bool is_down);

/* Called when a container starts: may change the address and pid that inspect tells. */
struct dv_engine_fake_started {
    const char *id;
    const struct dv_engine_create *spec;
    char address[64]; /* preset to an address of its own that nobody listens on */
    int64_t pid;      /* preset to a number that no process has */
};
void dv_engine_fake_on_start(struct dv_engine_fake *f,
                             void (*fn)(void *ctx, struct dv_engine_fake_started *s), void *ctx);

/* The container's process ends by itself; id may be a name. */
void dv_engine_fake_exit(struct dv_engine_fake *f, const char *id, int64_t exit_code, bool is_oom);
void dv_engine_fake_end_all(struct dv_engine_fake *f); /* as when the machine was started anew */
void dv_engine_fake_log(struct dv_engine_fake *f, const char *id, bool is_stderr, const char *text);

size_t dv_engine_fake_count(const struct dv_engine_fake *f, const char *state);    /* NULL: all */
size_t dv_engine_fake_labelled(const struct dv_engine_fake *f, const char *label); /* "key" or "key=value" */
const struct dv_engine_create *dv_engine_fake_spec(const struct dv_engine_fake *f,
                                                   const char *id); /* NULL: absent */
uint64_t dv_engine_fake_calls(const struct dv_engine_fake *f, enum dv_engine_fake_op op);

#endif

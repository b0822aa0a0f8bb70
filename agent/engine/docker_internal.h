/* What the files of the Docker engine share: the connection, one call under way, and readers for its JSON. */
#ifndef DV_DOCKER_INTERNAL_H
#define DV_DOCKER_INTERNAL_H

#include "agent/engine/engine.h"
#include "proto/base/buf.h"
#include "proto/base/list.h"
#include "proto/rt/httpc.h"
#include "proto/rt/loop.h"

struct cJSON;

enum {
    DK_CALL_TIMEOUT_MS = 120 * 1000, /* an engine under load takes seconds for a create */
    DK_PULL_TIMEOUT_MS = 60 * 60 * 1000,
    DK_ANSWER_MAX = 16 * 1024 * 1024,
};

struct docker {
    struct dv_engine base; /* first: dv_engine is what the caller holds */
    struct dv_loop *loop;
    struct dv_httpc *http;
    char *socket;    /* unix socket, or NULL */
    char *origin;    /* "http://docker", "http://127.0.0.1:2375" */
    char prefix[16]; /* "/v1.41"; empty before the version was agreed on */
    bool is_podman;
    const char *network; /* what DV_ENGINE_NETWORK_AUTO stands for; a literal */
    uint64_t calls, errors;
    struct dv_list jobs;
    unsigned in_data; /* inside a stream's callback: close waits */
    bool is_closed;
};

/* One call to the engine.  Each kind embeds it first and adds its user's callback. */
struct dk_job {
    struct dv_list node;
    struct docker *d;
    struct dv_httpc_call *call;
    struct dv_defer late; /* tells a failure to send, after the caller returned */
    struct dv_err late_err;
    char what[200]; /* "creating container x": begins every message */
    /* The end, once: code is DV_OK with the answer in body, or what the answer or the lack of one means.  The
     * job is out of every list and is freed afterwards; it must not touch d once the user was called. */
    void (*answer)(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err);
    int (*data)(struct dk_job *j, struct dv_sv bytes); /* streams; non-zero ends the call */
    void (*discard)(struct dk_job *j);                 /* frees what the kind added; may be NULL */
    void *ctx;
    struct dv_sv api_version, server; /* headers of the answer, for connect */
    bool in_data, is_cancelled;
};

/* size bytes, zeroed, of a struct that begins with dk_job.  NULL when out of memory. */
void *dk_job_new(struct docker *d, size_t size, void *ctx,
                 void (*answer)(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err));
/* Send it.  path is what follows the version prefix.  A failure arrives through answer, later. */
void dk_send(struct dk_job *j, const char *method, struct dv_buf *path, struct dv_sv body,
             const char *const *headers, uint64_t timeout_ms);
/* Forget it: no answer follows. */
void dk_cancel(struct dk_job *j);

/* Error for a caller that got no memory to even begin. */
const struct dv_err *dk_no_memory(void);

/* Add s to a path or query, escaped but for unreserved characters and those in `keep`. */
void dk_escape(struct dv_buf *b, const char *s, const char *keep);

/* The two ends of an inspection: GET <noun><name>/json, the name escaped but for `keep`; and its answer, read
 * into out (and arena) by `read`, which may only run out of memory.  Returns code or what reading came to. */
void dk_inspect_send(struct dk_job *j, const char *noun, const char *name, const char *keep);
int dk_inspect_read(const struct dk_job *j, int code, struct dv_sv body,
                    int (*read)(const struct cJSON *v, struct dv_arena *a, void *out), struct dv_arena *arena,
                    void *out, struct dv_err *err);

/* ---- JSON of an answer: absent or of another type reads as the empty value ---- */
int dk_parse(struct dv_sv body, struct cJSON **out,
             struct dv_err *err); /* DV_OK, DV_E_ENGINE or DV_E_NOMEM */
const struct cJSON *dk_get(const struct cJSON *o, const char *key);
const char *dk_str(const struct cJSON *o, const char *key); /* "" when absent */
int64_t dk_i64(const struct cJSON *o, const char *key);
bool dk_bool(const struct cJSON *o, const char *key);
/* Into arena; elements that are no strings are left out.  DV_OK or DV_E_NOMEM. */
int dk_strs(const struct cJSON *array, struct dv_arena *a, struct dv_strs *out);
int dk_kvs(const struct cJSON *object, struct dv_arena *a, struct dv_kvs *out);
int dk_env(const struct cJSON *array, struct dv_arena *a, struct dv_kvs *out);

/* ---- the operations, by noun ---- */
void dk_image_inspect(struct dv_engine *e, const char *image,
                      void (*done)(void *, int, const struct dv_engine_image *, const struct dv_err *),
                      void *ctx);
void dk_image_pull(struct dv_engine *e, const char *image, const struct dv_registry_auth *auth,
                   void (*progress)(void *, int, const char *), dv_engine_done *done, void *ctx);
void dk_image_import(struct dv_engine *e, const char *image, struct dv_sv tar, dv_engine_done *done,
                     void *ctx);
void dk_image_list(struct dv_engine *e,
                   void (*done)(void *, int, const struct dv_image_ref *, size_t, const struct dv_err *),
                   void *ctx);
void dk_create(struct dv_engine *e, const struct dv_engine_create *spec,
               void (*done)(void *, int, const char *, const struct dv_err *), void *ctx);
void dk_start(struct dv_engine *e, const char *id, dv_engine_done *done, void *ctx);
void dk_stop(struct dv_engine *e, const char *id, int64_t grace_ms, dv_engine_done *done, void *ctx);
void dk_kill(struct dv_engine *e, const char *id, const char *signal, dv_engine_done *done, void *ctx);
void dk_remove(struct dv_engine *e, const char *id, bool force, dv_engine_done *done, void *ctx);
void dk_update(struct dv_engine *e, const char *id, const struct dv_engine_limits *limits,
               dv_engine_done *done, void *ctx);
void dk_inspect(struct dv_engine *e, const char *id,
                void (*done)(void *, int, const struct dv_engine_container *, const struct dv_err *),
                void *ctx);
void dk_list(struct dv_engine *e, const char *label,
             void (*done)(void *, int, const struct dv_engine_container *, size_t, const struct dv_err *),
             void *ctx);
void *dk_logs(struct dv_engine *e, const char *id, int64_t tail, int64_t since_ms, bool follow,
              void (*line)(void *, const struct dv_engine_log *), dv_engine_done *done, void *ctx);
void dk_logs_cancel(struct dv_engine *e, void *handle);
void dk_events(struct dv_engine *e, const char *label, void (*event)(void *, const struct dv_engine_event *),
               dv_engine_done *done, void *ctx);

/* A call whose only answer is a code.  ok_also: statuses (0-terminated) that are as good as success. */
struct dk_plain {
    struct dk_job job;
    dv_engine_done *done;
    unsigned ok_codes; /* bits 1 << DV_NOT_FOUND, 1 << DV_CONFLICT: outcomes that count as done */
};
struct dk_plain *dk_plain_new(struct docker *d, dv_engine_done *done, void *ctx, unsigned ok_codes);

#endif

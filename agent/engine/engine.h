/* Docker Engine API behind a table of functions: the real one over libcurl (engine_docker.c) and an in-memory
 * one for tests (engine_fake.c).  Asynchronous; every on_done runs exactly once on the loop, never before the
 * call returned (but at once with DV_E_NOMEM when there is no memory to remember it); after close it does not
 * run any more.  One owner, the agent's state loop.
 *
 * Codes, unless an operation says more: DV_E_ENGINE when the engine cannot be reached (the message names its
 * socket and the cure) or failed; DV_NOT_FOUND no such image or container; DV_CONFLICT the engine says the
 * state forbids it (or the name is taken); DV_INVALID it does not like the request; DV_DENIED; DV_E_NOMEM.
 * Messages carry the engine's words. */
#ifndef DV_ENGINE_H
#define DV_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/arena.h"
#include "proto/base/err.h"
#include "proto/base/str.h"
#include "proto/wire/types.h"

struct dv_loop;
struct dv_engine;

#define DV_ENGINE_NETWORK_AUTO "auto"
#define DV_ENGINE_NETWORK_OWN  "davit"

struct dv_engine_info {
    char version[32], api[16], arch[24], os[24], cgroup[8],
        name[64]; /* cgroup "v1"/"v2"; name: "docker" or "podman" */
    int64_t cpus, memory_bytes;
    bool has_memory_limit, has_pids_limit, has_cpu_quota;
};

struct dv_engine_image {
    char id[80];
    char arch[24], os[24];
    struct dv_strs entrypoint, command; /* in the call's arena, borrowed for the callback */
    struct dv_kvs env;
    char user[64], workdir[256];
    int64_t exposed_port; /* lowest exposed tcp port; 0 when none */
    int64_t size_bytes;
};

struct dv_engine_mount {
    const char *source, *target;
    bool read_only;
};

struct dv_engine_create {
    const char *name, *image;
    struct dv_strs entrypoint, command, env; /* env "K=V" */
    struct dv_kvs labels;
    const char *user, *workdir, *hostname;
    const char *network; /* name of one, or "container:ID" for that container's (then without hostname) */
    const struct dv_engine_mount *mounts;
    size_t n_mounts;
    int64_t memory_bytes, cpu_mcpu, pids, files, tmp_bytes;
    bool read_only;
    /* Always: all capabilities dropped, no-new-privileges, no restart policy, log driver json-file with
     * rotation (or none), init off. */
};

struct dv_engine_limits { /* 0: leave as it is */
    int64_t memory_bytes, cpu_mcpu, pids;
};

struct dv_engine_container { /* list and inspect */
    char id[72];
    char name[80], state[16]; /* created running paused restarting removing exited dead */
    char address[64];         /* IP on its network; empty when none, or when it has joined another's */
    char joins[72];           /* id of the container whose network it has joined; empty: none */
    bool is_network_told;     /* the engine said what its network is, so that an empty `joins` means none */
    int64_t pid;
    int64_t exit_code;
    bool oom_killed; /* may turn true a moment after the state says exited */
    char error[160];
    struct dv_kvs labels; /* borrowed for the callback */
    int64_t started_ms;   /* wall */
};

struct dv_engine_event {
    const char *action;    /* "die" "oom" "start" "destroy" "kill" "exec_create..." */
    const char *container; /* id */
    int64_t exit_code;     /* die */
    int64_t time_ns;
};

struct dv_engine_log {
    bool is_stderr;
    int64_t wall_ms;
    struct dv_sv text; /* one line without its newline (long lines are cut at 16 KiB) */
};

typedef void dv_engine_done(void *ctx, int code, const struct dv_err *err);

struct dv_engine_ops {
    /* Ping, negotiate the API version (min(ours, the engine's), at least what it demands), read info. */
    void (*connect)(struct dv_engine *e,
                    void (*done)(void *ctx, int code, const struct dv_engine_info *info,
                                 const struct dv_err *err),
                    void *ctx);
    /* DV_NOT_FOUND when it is not present. */
    void (*image_inspect)(struct dv_engine *e, const char *image,
                          void (*done)(void *ctx, int code, const struct dv_engine_image *img,
                                       const struct dv_err *err),
                          void *ctx);
    /* progress (may be NULL): 0-100 or -1 and the engine's words.  DV_NOT_FOUND, DV_DENIED, DV_UNSUPPORTED
     * (not for this machine's architecture), DV_E_ENGINE. */
    void (*image_pull)(struct dv_engine *e, const char *image, const struct dv_registry_auth *auth,
                       void (*progress)(void *ctx, int percent, const char *status), dv_engine_done *done,
                       void *ctx);
    /* An image of one layer made from a tar archive (borrowed for the call), under this name; an image that
     * had the name loses it. */
    void (*image_import)(struct dv_engine *e, const char *image, struct dv_sv tar, dv_engine_done *done,
                         void *ctx);
    void (*image_list)(struct dv_engine *e,
                       void (*done)(void *ctx, int code, const struct dv_image_ref *images, size_t n,
                                    const struct dv_err *err),
                       void *ctx);
    void (*create)(struct dv_engine *e, const struct dv_engine_create *spec,
                   void (*done)(void *ctx, int code, const char *id, const struct dv_err *err), void *ctx);
    void (*start)(struct dv_engine *e, const char *id, dv_engine_done *done,
                  void *ctx); /* already running is DV_OK */
    void (*stop)(struct dv_engine *e, const char *id, int64_t grace_ms, dv_engine_done *done,
                 void *ctx); /* gone or stopped is DV_OK */
    void (*kill)(struct dv_engine *e, const char *id, const char *signal, dv_engine_done *done,
                 void *ctx); /* DV_CONFLICT: not running */
    void (*remove)(struct dv_engine *e, const char *id, bool force, dv_engine_done *done,
                   void *ctx); /* gone is DV_OK */
    /* Other limits for a container that runs. */
    void (*update)(struct dv_engine *e, const char *id, const struct dv_engine_limits *limits,
                   dv_engine_done *done, void *ctx);
    void (*inspect)(struct dv_engine *e, const char *id,
                    void (*done)(void *ctx, int code, const struct dv_engine_container *c,
                                 const struct dv_err *err),
                    void *ctx);
    /* Containers with this label ("key" or "key=value"), stopped ones too. */
    void (*list)(struct dv_engine *e, const char *label,
                 void (*done)(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                              const struct dv_err *err),
                 void *ctx);
    /* Lines as they come; returns a handle for logs_cancel, valid until done (NULL: done ran already, out of
     * memory). follow ends with done when the container ends.  tail -1: all kept; since_ms 0: from the start.
     */
    void *(*logs)(struct dv_engine *e, const char *id, int64_t tail, int64_t since_ms, bool follow,
                  void (*line)(void *ctx, const struct dv_engine_log *l), dv_engine_done *done, void *ctx);
    void (*logs_cancel)(struct dv_engine *e, void *handle); /* no done follows; inside line, too */
    /* The events stream for containers with this label; done when it broke (reconnect after a pause):
     * DV_CLOSED when the engine ended it, DV_E_ENGINE when it could not be reached. */
    void (*events)(struct dv_engine *e, const char *label,
                   void (*event)(void *ctx, const struct dv_engine_event *ev), dv_engine_done *done,
                   void *ctx);
    /* Make sure a bridge network of this name exists without container-to-container traffic.  For
     * DV_ENGINE_NETWORK_AUTO the engine's default bridge is taken where it forbids such traffic (a container
     * on it starts some 100 ms sooner: no name server is set up for it), else DV_ENGINE_NETWORK_OWN; what was
     * taken is what `create` means by DV_ENGINE_NETWORK_AUTO from then on. */
    void (*network_ensure)(struct dv_engine *e, const char *name, dv_engine_done *done, void *ctx);
    void (*stats)(const struct dv_engine *e, uint64_t *calls, uint64_t *errors);
    /* Frees the engine; not from inside progress, line or event. */
    void (*close)(struct dv_engine *e);
};

struct dv_engine {
    const struct dv_engine_ops *ops;
};

/* endpoint: "unix:///var/run/docker.sock" or "tcp://127.0.0.1:2375".  No I/O yet. */
int dv_engine_docker_open(struct dv_loop *loop, const char *endpoint, struct dv_engine **out,
                          struct dv_err *err);

#endif

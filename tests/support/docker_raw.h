/* dockerd beside the engine under test, and a tar for an image made by the test. */
#ifndef DV_TEST_DOCKER_RAW_H
#define DV_TEST_DOCKER_RAW_H

#include <stdio.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/httpc.h"
#include "proto/rt/loop.h"

#define SOCKET  "/var/run/docker.sock"
#define BUSYBOX "/bin/busybox"

static inline void on_sent(void *ctx, const struct dv_httpc_result *res)
{
    long *status = ctx;
    *status = res->code ? -1 : res->status;
}

/* One call to dockerd, waited for.  The status; -1: there was no answer. */
static inline long docker_raw(const char *method, const char *path, struct dv_sv body, const char *type)
{
    struct dv_loop *loop = NULL;
    struct dv_httpc *http = NULL;
    long status = 0;
    DV_AUTO_STR char *url = dv_asprintf("http://docker%s", path);
    const struct dv_httpc_request req = {.method = method,
                                         .url = url,
                                         .unix_socket = SOCKET,
                                         .body = body,
                                         .content_type = type,
                                         .on_done = on_sent,
                                         .ctx = &status};
    if (dv_loop_new(&dv_clock_system, &loop, NULL) || dv_httpc_new(loop, &http, NULL) ||
        dv_httpc_send(http, &req, NULL, NULL))
        return -1;
    while (!status)
        (void)dv_loop_turn(loop, 100);
    dv_httpc_free(http);
    dv_loop_free(loop);
    return status;
}

/* file NULL: a directory. */
static inline void tar_entry(struct dv_buf *tar, const char *name, const struct dv_buf *file)
{
    static const char zeros[512];
    size_t size = file ? dv_buf_len(file) : 0, sum = 0;
    char head[512] = {0};
    (void)snprintf(head, 100, "%s", name);
    (void)snprintf(head + 100, 8, "%07o", 0755u);
    (void)snprintf(head + 108, 8, "%07o", 0u);
    (void)snprintf(head + 116, 8, "%07o", 0u);
    (void)snprintf(head + 124, 12, "%011zo", size);
    (void)snprintf(head + 136, 12, "%011o", 0u);
    memset(head + 148, ' ', 8);
    head[156] = file ? '0' : '5';
    memcpy(head + 257, "ustar\00000", 8);
    for (size_t k = 0; k < sizeof(head); k++)
        sum += (unsigned char)head[k];
    (void)snprintf(head + 148, 8, "%06zo", sum);
    (void)dv_buf_add(tar, head, sizeof(head));
    if (size)
        (void)dv_buf_add(tar, dv_buf_ptr(file), size);
    (void)dv_buf_add(tar, zeros, (512 - size % 512) % 512);
}

#endif

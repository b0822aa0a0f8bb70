#include "agent/node/identity.h"
#include "proto/base/buf.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

enum { FILE_MAX = 64 * 1024 };

static int path_of(const char *state_dir, char *out, size_t cap, struct dv_err *err)
{
    int n = snprintf(out, cap, "%s/node.json", state_dir);
    return n > 0 && (size_t)n < cap
               ? DV_OK
               : dv_err_set(err, DV_INVALID, "the path of the state directory is too long");
}

static int apply(struct dv_identity *id, const struct dv_join_reply *reply, struct dv_err *err)
{
    uint8_t key[DV_LINK_KEY_BYTES];
    if (!reply->node || !reply->key || !dv_unhex(dv_sv_c(reply->key), key, sizeof(key)))
        return dv_err_set(err, DV_INVALID, "node id or link key is missing or malformed");
    id->node = reply->node;
    memcpy(id->key, key, sizeof(key));
    explicit_bzero(key, sizeof(key));
    return DV_OK;
}

int dv_identity_load(const char *state_dir, struct dv_identity *out, struct dv_err *err)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    char path[4096];
    struct dv_identity id = {0};
    struct dv_join_reply kept;
    int rc = path_of(state_dir, path, sizeof(path), err);
    if (!rc)
        rc = dv_random(&id.incarnation, sizeof(id.incarnation), err);
    if (rc)
        return rc;
    rc = dv_file_read(path, FILE_MAX, &text, err);
    if (rc == DV_NOT_FOUND) {
        *out = id;
        return DV_OK;
    }
    if (rc)
        return rc;
    rc = dv_wire_decode(&dv_type_join_reply, dv_buf_sv(&text), FILE_MAX, DV_WIRE_IGNORE_UNKNOWN, &arena,
                        &kept, err);
    if (!rc)
        rc = apply(&id, &kept, err);
    if (rc)
        return dv_err_wrap(err, "%s (remove it to join as a new node)", path);
    *out = id;
    return DV_OK;
}

int dv_identity_take(struct dv_identity *id, const char *state_dir, const struct dv_join_reply *reply,
                     struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    char path[4096];
    struct dv_identity next = *id;
    int rc = apply(&next, reply, err);
    if (rc)
        return rc;
    if (next.node == id->node && !memcmp(next.key, id->key, sizeof(next.key)))
        return DV_OK;
    rc = dv_wire_encode(&dv_type_join_reply, reply, &text);
    if (!rc)
        rc = path_of(state_dir, path, sizeof(path), err);
    if (!rc)
        rc = dv_file_write(path, dv_buf_sv(&text), 0600, err);
    if (rc)
        return rc;
    *id = next;
    return DV_OK;
}

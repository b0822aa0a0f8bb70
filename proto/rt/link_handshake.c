/* The handshake: HELLO, WELCOME, PROOF.  Each side proves that it holds the pair's key by an HMAC-SHA256 over
 * both nonces and over everything else that was said, under a label of its own, so that neither a recording
 * nor the peer's own proof sent back is worth anything. */
#include "proto/rt/link_internal.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

static const char magic[4] = {'D', 'V', 'T', 'L'};
enum { LABEL_BYTES = 16, SAID_BYTES = LABEL_BYTES + 8 + 8 + 8 + 2 * DV_LINK_NONCE_BYTES };

static int prove(const struct dv_link *l, enum dv_link_role who, char out[DV_LINK_PROOF_BYTES])
{
    bool is_client = dv_link_is_client(l);
    char said[SAID_BYTES] = {0}, *p = said;
    memcpy(p, who == DV_LINK_CLIENT ? "davit-link/c" : "davit-link/s", 12);
    p += LABEL_BYTES;
    dv_put_u16(p, l->version);
    dv_put_u16(p + 2,
               l->lowest); /* the offer, too: nobody in between talks the pair down to an older version */
    dv_put_u16(p + 4, l->highest);
    dv_put_u16(p + 6, (uint16_t)l->cfg.purpose);
    dv_put_u64(p + 8, l->node);
    dv_put_u64(p + 16, l->incarnation);
    memcpy(p + 24, is_client ? l->cfg.nonce : l->peer_nonce, DV_LINK_NONCE_BYTES);
    memcpy(p + 24 + DV_LINK_NONCE_BYTES, is_client ? l->peer_nonce : l->cfg.nonce, DV_LINK_NONCE_BYTES);
    int rc = gnutls_hmac_fast(GNUTLS_MAC_SHA256, l->cfg.key, sizeof(l->cfg.key), said, sizeof(said), out);
    return rc < 0 ? DV_E_NOMEM : DV_OK; /* it fails for want of memory alone */
}

static int check_proof(const struct dv_link *l, enum dv_link_role who, const char *proof, struct dv_err *err)
{
    char want[DV_LINK_PROOF_BYTES];
    int rc = prove(l, who, want);
    if (rc)
        return dv_err_set(err, rc, "link proof");
    if (!dv_secret_eq(dv_sv(want, sizeof(want)), dv_sv(proof, sizeof(want))))
        return dv_err_set(err, DV_DENIED, "the peer does not hold this node's key");
    return DV_OK;
}

static int reject(struct dv_link *l, enum dv_link_reject why, int code)
{
    char *p = dv_lf_begin(l, DV_LF_REJECT, 0, 0, 4);
    if (p)
        dv_put_u32(p, why);
    return code;
}

static void open_link(struct dv_link *l)
{
    l->state = DV_LS_OPEN;
    l->cfg.on_event(l->cfg.ctx, &(struct dv_link_event){.kind = DV_LINK_EV_OPEN});
}

int dv_link_hello(struct dv_link *l)
{
    char *p = dv_lf_begin(l, DV_LF_HELLO, 0, 0, 36);
    if (!p)
        return l->failed;
    memcpy(p, magic, sizeof(magic));
    l->lowest = DV_LINK_VERSION_LOWEST;
    l->highest = DV_LINK_VERSION;
    dv_put_u16(p + 4, l->lowest);
    dv_put_u16(p + 6, l->highest);
    dv_put_u32(p + 8, (uint32_t)l->cfg.purpose);
    dv_put_u64(p + 12, l->cfg.node);
    memcpy(p + 20, l->cfg.nonce, DV_LINK_NONCE_BYTES);
    return DV_OK;
}

int dv_link_on_hello(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    const char *p = f->payload.p;
    if (memcmp(p, magic, sizeof(magic)) != 0)
        return dv_err_set(err, DV_E_PROTO, "not a Davit link");
    l->lowest = dv_get_u16(p + 4);
    l->highest = dv_get_u16(p + 6);
    uint32_t purpose = dv_get_u32(p + 8);
    uint64_t node = dv_get_u64(p + 12);
    if (l->lowest > DV_LINK_VERSION || l->highest < DV_LINK_VERSION_LOWEST || l->lowest > l->highest)
        return dv_err_set(err, reject(l, DV_REJECT_VERSION, DV_UNSUPPORTED),
                          "peer speaks link versions %u to %u, we %u to %u", l->lowest, l->highest,
                          DV_LINK_VERSION_LOWEST, DV_LINK_VERSION);
    if (purpose > DV_LINK_CONTROL_CONN)
        return dv_err_set(err, DV_E_PROTO, "connection of unknown purpose %u", purpose);
    if (node && node != l->cfg.node)
        return dv_err_set(err, reject(l, DV_REJECT_DENIED, DV_DENIED), "the peer wants another node");
    memcpy(l->peer_nonce, p + 20, DV_LINK_NONCE_BYTES);
    l->version = l->highest < DV_LINK_VERSION ? l->highest : DV_LINK_VERSION;
    l->cfg.purpose = (enum dv_link_purpose)purpose;
    l->node = l->cfg.node;
    l->incarnation = l->cfg.incarnation;

    char proof[DV_LINK_PROOF_BYTES];
    int rc = prove(l, DV_LINK_SERVER, proof);
    char *q = rc ? NULL : dv_lf_begin(l, DV_LF_WELCOME, 0, 0, 68);
    if (!q)
        return dv_err_set(err, rc ? rc : l->failed, "link handshake");
    dv_put_u32(q, l->version);
    dv_put_u64(q + 4, l->node);
    dv_put_u64(q + 12, l->incarnation);
    memcpy(q + 20, l->cfg.nonce, DV_LINK_NONCE_BYTES);
    memcpy(q + 36, proof, sizeof(proof));
    l->state = DV_LS_PROOF;
    return DV_OK;
}

int dv_link_on_welcome(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    const char *p = f->payload.p;
    uint32_t version = dv_get_u32(p);
    if (version < DV_LINK_VERSION_LOWEST || version > DV_LINK_VERSION)
        return dv_err_set(err, DV_UNSUPPORTED, "agent answered with link version %u", version);
    l->version = (uint16_t)version;
    l->node = dv_get_u64(p + 4);
    l->incarnation = dv_get_u64(p + 12);
    memcpy(l->peer_nonce, p + 20, DV_LINK_NONCE_BYTES);
    int rc = check_proof(l, DV_LINK_SERVER, p + 36, err);
    if (rc)
        return rc;
    if (l->cfg.node && l->node != l->cfg.node)
        return dv_err_set(err, DV_DENIED, "another node answers at this address");
    char proof[DV_LINK_PROOF_BYTES];
    rc = prove(l, DV_LINK_CLIENT, proof);
    char *q = rc ? NULL : dv_lf_begin(l, DV_LF_PROOF, 0, 0, sizeof(proof));
    if (!q)
        return dv_err_set(err, rc ? rc : l->failed, "link handshake");
    memcpy(q, proof, sizeof(proof));
    open_link(l);
    return DV_OK;
}

int dv_link_on_proof(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    int rc = check_proof(l, DV_LINK_CLIENT, f->payload.p, err);
    if (rc)
        return rc == DV_DENIED ? reject(l, DV_REJECT_DENIED, rc) : rc;
    open_link(l);
    return DV_OK;
}

int dv_link_on_reject(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    (void)l;
    if (dv_get_u32(f->payload.p) == DV_REJECT_VERSION)
        return dv_err_set(err, DV_UNSUPPORTED, "agent speaks none of the link versions %u to %u",
                          DV_LINK_VERSION_LOWEST, DV_LINK_VERSION);
    return dv_err_set(err, DV_DENIED, "agent refuses this orchestrator's key or node id");
}

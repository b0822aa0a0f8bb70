/* What is said at the gate of a primed sandbox: between the agent and davit-init, over the unix socket that
 * is mounted into the container.  Pure; bytes in, values out.  Compiled into davit-init too, so it needs
 * nothing but base.
 *
 * A message is a head of 12 bytes - "DVG1", one byte of type, three of zero, length of the body (little
 * endian, as every number here) - and its body.  davit-init says words (hello, started, refused, exited), the
 * agent says one thing, once: run. */
#ifndef DV_GATE_H
#define DV_GATE_H

#include <stddef.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/wire/types.h"

#define DV_GATE_DIR  "/.davit/gate" /* where the directory of the socket is mounted */
#define DV_GATE_SOCK "sock"

enum {
    DV_GATE_HEAD = 12,
    DV_GATE_RUN_MAX = 2 << 20, /* body of run: what Linux takes as arguments and environment */
    DV_GATE_STRINGS_MAX = 8192,
    DV_GATE_TEXT_MAX = 200,
    DV_GATE_WORD_MAX = DV_GATE_HEAD + 40 + DV_GATE_TEXT_MAX
};

enum dv_gate_type {
    DV_GATE_HELLO = 1, /* first on every connection */
    DV_GATE_STARTED,
    DV_GATE_REFUSED, /* nothing was started: code is what a shell would exit with, text says why */
    DV_GATE_EXITED,
    DV_GATE_RUN = 16
};

/* ---- head ---- */

struct dv_gate_head {
    enum dv_gate_type type;
    uint32_t n; /* bytes of the body */
};
/* head: DV_GATE_HEAD bytes.  DV_OK; DV_E_PROTO (not a head, or longer than its type may be). */
int dv_gate_head_read(const char *head, struct dv_gate_head *out);

/* ---- words of davit-init ---- */

struct dv_gate_word {
    enum dv_gate_type type;
    uint32_t pid;    /* of the program, as the container sees it; 0: none yet (hello, started) */
    uint32_t code;   /* exit code (exited, refused); 128 + signal when a signal ended it */
    uint32_t signal; /* that ended it; 0: none */
    uint64_t user_us, sys_us, max_rss_bytes; /* exited */
    char text[DV_GATE_TEXT_MAX + 1];         /* refused */
};
/* The whole message; returns its length. */
size_t dv_gate_word_write(const struct dv_gate_word *w, char out[DV_GATE_WORD_MAX]);
/* The message at the front of bytes.  DV_OK fills *out and *out_used; DV_AGAIN: more bytes are needed;
 * DV_E_PROTO. */
int dv_gate_word_read(struct dv_sv bytes, struct dv_gate_word *out, size_t *out_used);

/* ---- run ---- */

struct dv_gate_run {
    struct dv_strs argv; /* at least one */
    struct dv_strs env;  /* "K=V", in front of what the container has */
    const char *workdir; /* NULL or "": where the container stands */
};
/* Append the whole message.  DV_OK; DV_INVALID (no program, a string that is no variable, a relative
 * directory); DV_TOO_LARGE; DV_E_NOMEM.  out is as it was unless DV_OK. */
int dv_gate_run_write(struct dv_buf *out, const struct dv_gate_run *run);
/* body: of a run message.  The strings point into it; the lists end with NULL and are one allocation, given
 * back by dv_gate_run_deinit.  DV_OK; DV_E_PROTO; DV_E_NOMEM. */
int dv_gate_run_read(struct dv_sv body, struct dv_gate_run *out);
void dv_gate_run_deinit(struct dv_gate_run *run);

#endif

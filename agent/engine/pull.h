/* What a pull's stream says: progress over the layers, and how it failed.  Pure. */
#ifndef DV_ENGINE_PULL_H
#define DV_ENGINE_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include "proto/base/str.h"

enum { DV_PULL_LAYERS = 128 };

struct dv_pull_state {
    struct {
        char id[16];
        int permille; /* of this layer: fetching is worth 800, unpacking the rest */
    } layers[DV_PULL_LAYERS];
    size_t n_layers;
    int percent;      /* 0-100, never falls; -1 before the first layer is known */
    char status[160]; /* the engine's words */
    char error[240];  /* empty: none so far */
};

void dv_pull_init(struct dv_pull_state *s);
/* One JSON line of the stream; what is not understood is skipped.  True when percent or status changed. */
bool dv_pull_line(struct dv_pull_state *s, struct dv_sv line);
/* The engine's words -> DV_DENIED (the registry wants other credentials), DV_NOT_FOUND (no such image or
 * tag), DV_UNSUPPORTED (not for this machine's architecture), DV_E_ENGINE (anything else: network, disk ...).
 */
int dv_pull_classify(const char *words);
/* Cut "repo:tag" or "repo@digest" in two: image becomes the repository; returns the tag, "latest" when none
 * was named (the engine would fetch every tag otherwise). */
const char *dv_pull_split(char *image);

#endif

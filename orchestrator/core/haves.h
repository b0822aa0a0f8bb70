/* Which nodes have what: a name (an image, a kind of primed sandbox) -> the numbers of the nodes that have
 * it, in ascending order.  A name is kept once for all nodes, and for as long as one of them has it: a node
 * that reports two hundred images which every node has costs two hundred pointers.  One owner; no I/O. */
#ifndef DV_HAVES_H
#define DV_HAVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/map.h"

struct dv_have {
    uint32_t *nodes; /* ascending */
    uint32_t n, cap;
    uint32_t stamp; /* of the last list that named it */
    char name[];
};

struct dv_haves {
    struct dv_map by_name;
    uint32_t stamp;
};

struct dv_have_list { /* what one node has; order means nothing */
    struct dv_have **v;
    size_t n;
};

void dv_haves_init(struct dv_haves *h, uint64_t seed);
void dv_haves_deinit(struct dv_haves *h);

/* What this node has from now on; `list` is what it had.  names: borrowed; repeated ones count once.
 * DV_OK; DV_E_NOMEM: some of it is not known (a later call may know it all). */
int dv_haves_put(struct dv_haves *h, uint32_t node, struct dv_have_list *list, char *const *names, size_t n);
/* One more, or one less.  DV_OK (whether or not it changed anything), DV_E_NOMEM. */
int dv_haves_add(struct dv_haves *h, uint32_t node, struct dv_have_list *list, struct dv_sv name);
void dv_haves_drop(struct dv_haves *h, uint32_t node, struct dv_have_list *list, struct dv_sv name);
/* The node goes. */
void dv_haves_clear(struct dv_haves *h, uint32_t node, struct dv_have_list *list);
/* It is called `to` now; nobody else is. */
void dv_haves_renumber(const struct dv_have_list *list, uint32_t from, uint32_t to);

/* NULL: no node has it.  Valid until the next change. */
const struct dv_have *dv_haves_find(const struct dv_haves *h, struct dv_sv name);
bool dv_have_has(const struct dv_have *x, uint32_t node); /* x NULL: false */

#endif

/* What is due when: a heap of moments, so that a hundred thousand of them cost nothing until theirs comes.
 * Moments stand inside what they belong to.  Pure; one owner. */
#ifndef DV_DUE_H
#define DV_DUE_H

#include <stddef.h>
#include <stdint.h>

struct dv_due { /* zero to begin */
    uint64_t at_ns;
    size_t pos; /* in the heap, from 1; 0: not in it */
};

struct dv_dues { /* zero to begin */
    struct dv_due **v;
    size_t n, cap;
};

/* (Again) at another time.  DV_OK; DV_E_NOMEM: it is not set (one that was set stays so). */
int dv_due_set(struct dv_dues *h, struct dv_due *d, uint64_t at_ns);
void dv_due_cancel(struct dv_dues *h, struct dv_due *d); /* harmless when it is not set */
struct dv_due *dv_due_first(const struct dv_dues *h);    /* NULL: nothing is due, ever */
void dv_dues_deinit(struct dv_dues *h);

#endif

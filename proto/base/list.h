/* Intrusive doubly linked list with a sentinel head. */
#ifndef DV_LIST_H
#define DV_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include "proto/base/auto.h"

struct dv_list {
    struct dv_list *prev, *next;
};

static inline void dv_list_init(struct dv_list *l)
{
    l->prev = l->next = l;
}
static inline bool dv_list_empty(const struct dv_list *l)
{
    return l->next == l;
}
static inline void dv_list_insert_(struct dv_list *at, struct dv_list *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}
static inline void dv_list_push_back(struct dv_list *l, struct dv_list *n)
{
    dv_list_insert_(l, n);
}
static inline void dv_list_push_front(struct dv_list *l, struct dv_list *n)
{
    dv_list_insert_(l->next, n);
}
/* n must be in a list or freshly initialised; it is left initialised, so removing twice is harmless. */
static inline void dv_list_remove(struct dv_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    dv_list_init(n);
}
static inline struct dv_list *dv_list_pop_front(struct dv_list *l)
{
    struct dv_list *n = l->next;
    if (n == l)
        return NULL;
    dv_list_remove(n);
    return n;
}

#define DV_LIST_ENTRY(node, type, member) DV_CONTAINER_OF(node, type, member)
#define DV_LIST_FOR_EACH(it, list)        for (struct dv_list *it = (list)->next; it != (list); it = it->next)
/* The current node may be removed (and freed) inside the body. */
#define DV_LIST_FOR_EACH_SAFE(it, list)                                                                      \
    for (struct dv_list *it = (list)->next, *it##_next_ = it->next; it != (list);                            \
         it = it##_next_, it##_next_ = it->next)

#endif

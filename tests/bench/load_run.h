/* One run of load: connections, when requests leave, what came back. */
#ifndef DV_LOAD_RUN_H
#define DV_LOAD_RUN_H

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/load_hist.h"

enum load_trouble {
    LOAD_CONNECT,    /* no connection */
    LOAD_CLOSED,     /* ended inside an answer, or instead of one */
    LOAD_TIMEOUT,    /* no whole answer in time */
    LOAD_MALFORMED,  /* no HTTP */
    LOAD_WRONG,      /* a 2xx whose body has not the expected length */
    LOAD_UNFINISHED, /* due, but not answered when the run ended */
    LOAD_N_TROUBLES,
};
extern const char *const load_trouble_names[LOAD_N_TROUBLES];

struct load_cfg {
    struct sockaddr_in address;
    char **requests; /* heads; sent in turn */
    uint64_t n_requests;
    bool is_head;
    uint64_t body_bytes; /* of "x" behind each head */
    unsigned n_connections, n_idle, n_slow;
    double rate; /* requests a second; 0: closed loop */
    uint64_t warmup_ns, duration_ns, timeout_ns;
    uint64_t count;         /* stop after so many answers; 0: after duration_ns */
    int64_t expected_bytes; /* of a 2xx's body; -1: any */
};

struct load_result {
    struct load_hist latency; /* of what was due after the warm-up and answered 2xx */
    uint64_t n_counted;       /* 2xx after the warm-up */
    uint64_t n_all;           /* answers, the warm-up's included */
    uint64_t n_status[600], n_trouble[LOAD_N_TROUBLES];
    uint64_t n_connects, n_idle_open, n_slow_cut, bytes_in, bytes_out;
    double seconds; /* that n_counted took */
};

/* Set by a signal handler: the run ends at once, with what it has so far. */
extern volatile sig_atomic_t load_is_interrupted;

/* Runs until the end; 0, or -1 with a message on stderr (no descriptors, no memory). */
int load_run(const struct load_cfg *cfg, struct load_result *out);

#endif

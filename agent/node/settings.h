/* What davit-agent is told by its command line, environment and configuration file, checked and completed.
 * Start-up only; one thread. */
#ifndef DV_AGENT_SETTINGS_H
#define DV_AGENT_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/arena.h"
#include "proto/base/err.h"
#include "proto/wire/types.h"

struct dv_agent_settings { /* strings belong to the arena of dv_agent_settings_read, or to argv */
    const char *orchestrator, *join_token; /* token NULL: none */
    const char *listen, *metrics_listen;   /* metrics_listen "": none */
    const char *docker, *network, *init_path, *state_dir, *name;
    struct dv_kvs labels;
    int64_t max_replicas, primed_max, ready_networks, loops, busy_poll_us, drain_ms;
    int64_t reclaim_below;
    char advertise[288]; /* "host:port"; complete after dv_agent_settings_advertise */
    char run_dir[512];   /* after dv_agent_settings_run_dir */
    int lock_fd;         /* held while the process lives */
};

/* Reads options, sets up the log, makes and locks the state directory.  True: go on; false: leave with
 * *exit_code (what was wrong, or the help asked for, has been printed). */
bool dv_agent_settings_read(struct dv_agent_settings *out, int argc, char **argv, struct dv_arena *arena,
                            int *exit_code);
/* Fill in what --advertise left open: the port that was bound, and an address that the orchestrator can reach
 * when
 * --listen names every address.  DV_OK; DV_INVALID (no such address can be told: the message says what to
 * give). */
int dv_agent_settings_advertise(struct dv_agent_settings *s, int port, struct dv_err *err);
/* Make the directory for what must not survive a reboot.  DV_OK; DV_DENIED; DV_E_IO. */
int dv_agent_settings_run_dir(struct dv_agent_settings *s, uint64_t node, struct dv_err *err);

#endif

/* Watching a function until it is up. */
#ifndef DV_CLI_WAIT_H
#define DV_CLI_WAIT_H

struct cli;

/* See that the function can start: one that sleeps is woken (one replica, given back to the autoscaler
 * afterwards).  Shows what happens meanwhile.  CLI_OK when it is ready; CLI_FAILURE after showing why it
 * failed. */
int cli_wait_ready(struct cli *c, const char *word);

#endif

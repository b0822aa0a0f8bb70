/* The first process of a holder: a container that exists so that others may join its network.  It waits, and
 * ends when it is told to.  As process 1 it reaps, although nothing else is ever started beside it. */
#include "agent/init/init.h"

#include <signal.h>
#include <sys/wait.h>

int init_hold(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL))
        return 1;
    for (;;) {
        int signo = sigwaitinfo(&set, NULL);
        if (signo == SIGTERM || signo == SIGINT)
            return 0;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

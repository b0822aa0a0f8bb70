/* davit-init: the tiny first process of a container.
 *
 *   davit-init stdio [--port N] [--concurrency N] [--timeout MS] -- program [argument...]
 *   davit-init gate [DIR]
 *   davit-init hold
 *
 * `stdio` makes any program a function: a small HTTP/1.1 server runs it once per request, body on its
 * standard input, its standard output as the answer (stdio.c).  `gate` waits in a container made ahead of
 * need until the agent says what to run (gate.c).  `hold` only waits: its container is there to be joined by
 * others (hold.c).  As process 1 all reap whatever loses its parent. It is mounted into images of any kind,
 * so it needs nothing from them: no shell, no libc, no writable file. */
#include "agent/init/init.h"
#include "proto/base/str.h"
#include "proto/rt/gate.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static int usage(const char *why)
{
    (void)fprintf(
        stderr,
        "davit-init: %s\n"
        "usage: davit-init stdio [--port N] [--concurrency N] [--timeout MS] -- program [argument...]\n"
        "       davit-init gate [DIR]\n"
        "       davit-init hold\n",
        why);
    return 64;
}

static bool number(const char *s, uint64_t max, uint64_t *out)
{
    uint64_t v;
    if (!s || !dv_parse_u64(dv_sv_c(s), &v) || v > max)
        return false;
    *out = v;
    return true;
}

static int run_stdio(int argc, char **argv)
{
    uint64_t port = 8080, concurrency = 1, timeout_ms = 0;
    const char *env_port = getenv("PORT");
    if (env_port && !number(env_port, 65535, &port))
        return usage("PORT is not a port number");
    int i = 0;
    for (; i < argc && strcmp(argv[i], "--") != 0; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool ok = !strcmp(argv[i], "--port")          ? number(value, 65535, &port)
                  : !strcmp(argv[i], "--concurrency") ? number(value, 10000, &concurrency) && concurrency
                  : !strcmp(argv[i], "--timeout")     ? number(value, INT32_MAX, &timeout_ms)
                                                      : false;
        if (!ok)
            return usage(argv[i]);
    }
    if (i + 1 >= argc)
        return usage("no program given");
    struct init_stdio cfg = {.port = (uint16_t)port,
                             .concurrency = (int)concurrency,
                             .timeout_ms = (int64_t)timeout_ms,
                             .argv = argv + i + 1};
    return init_stdio_serve(&cfg);
}

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "stdio"))
        return run_stdio(argc - 2, argv + 2);
    if (argc >= 2 && argc <= 3 && !strcmp(argv[1], "gate"))
        return init_gate(argc == 3 ? argv[2] : DV_GATE_DIR);
    if (argc == 2 && !strcmp(argv[1], "hold"))
        return init_hold();
    if (argc >= 2 && !strcmp(argv[1], "--version")) {
        (void)printf("davit-init %s\n", DAVIT_VERSION);
        return 0;
    }
    return usage(argc >= 2 ? "unknown mode" : "no mode given");
}

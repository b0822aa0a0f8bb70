/* davit-load: HTTP/1.1 load from one thread, with honest latencies.  What it is told, and one JSON object.
 *
 *     davit-load -c 32 -d 2 http://127.0.0.1:8080/function/hello           closed loop
 *     davit-load -c 32 -d 2 --rate 20000 http://...                        open loop, latency from when it
 * was due davit-load --idle 10000 --rate 500 'http://.../function/f{}' --targets 10
 *
 * SIGINT and SIGTERM end a run early.  Pin it from outside (taskset); load_run.c says what is counted. */
#include <arpa/inet.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/bench/load_run.h"

enum { TARGETS_MAX = 100000, HEAD_BYTES = 4096, HEADERS_BYTES = 2048 };

struct options {
    struct load_cfg cfg;
    const char *method, *url;
    char headers[HEADERS_BYTES];
    uint64_t n_targets;
};

static const char usage[] =
    "davit-load [OPTION...] http://HOST[:PORT]/PATH      ({} in PATH is replaced by 0..TARGETS-1 in turn)\n"
    "  -c, --connections N   that carry the load (1)\n"
    "  -r, --rate R          open loop, R requests a second; closed loop without\n"
    "  -d, --duration S      measured seconds (2)      -w, --warmup S   seconds before them (0.2)\n"
    "  -n, --count N         end after N answers instead, all of them measured\n"
    "  -X, --method M        GET, or POST with a body  -b, --body N     bytes of body\n"
    "  -H, --header 'A: b'   may be repeated           -t, --timeout S  per request (10)\n"
    "      --targets N       how many {} there are     --expect-bytes N length of every good body\n"
    "      --idle N          connections that send one request, then nothing\n"
    "      --slow N          connections that send one byte of a request a second\n";

static bool add_header(struct options *o, const char *line)
{
    size_t have = strlen(o->headers);
    int n = snprintf(o->headers + have, sizeof(o->headers) - have, "%s\r\n", line);
    return n > 0 && (size_t)n < sizeof(o->headers) - have;
}

static uint64_t seconds_ns(const char *text)
{
    return (uint64_t)(strtod(text, NULL) * 1e9);
}

static bool take_option(struct options *o, int c, const char *arg)
{
    switch (c) {
    case 'c':
        o->cfg.n_connections = (unsigned)strtoul(arg, NULL, 10);
        return true;
    case 'r':
        o->cfg.rate = strtod(arg, NULL);
        return true;
    case 'd':
        o->cfg.duration_ns = seconds_ns(arg);
        return true;
    case 'w':
        o->cfg.warmup_ns = seconds_ns(arg);
        return true;
    case 'n':
        o->cfg.count = strtoull(arg, NULL, 10);
        return true;
    case 'X':
        o->method = arg;
        return true;
    case 'b':
        o->cfg.body_bytes = strtoull(arg, NULL, 10);
        return true;
    case 'H':
        return add_header(o, arg);
    case 't':
        o->cfg.timeout_ns = seconds_ns(arg);
        return true;
    case 'T':
        o->n_targets = strtoull(arg, NULL, 10);
        return o->n_targets > 0 && o->n_targets <= TARGETS_MAX;
    case 'e':
        o->cfg.expected_bytes = strtoll(arg, NULL, 10);
        return true;
    case 'i':
        o->cfg.n_idle = (unsigned)strtoul(arg, NULL, 10);
        return true;
    case 's':
        o->cfg.n_slow = (unsigned)strtoul(arg, NULL, 10);
        return true;
    default:
        return false;
    }
}

static bool parse_options(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        {"connections", 1, NULL, 'c'}, {"rate", 1, NULL, 'r'},   {"duration", 1, NULL, 'd'},
        {"warmup", 1, NULL, 'w'},      {"count", 1, NULL, 'n'},  {"method", 1, NULL, 'X'},
        {"body", 1, NULL, 'b'},        {"header", 1, NULL, 'H'}, {"timeout", 1, NULL, 't'},
        {"targets", 1, NULL, 'T'},     {"idle", 1, NULL, 'i'},   {"expect-bytes", 1, NULL, 'e'},
        {"slow", 1, NULL, 's'},        {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "c:r:d:w:n:X:b:H:t:h", longs, NULL)) != -1;)
        if (!take_option(o, c, optarg))
            return false;
    o->url = optind + 1 == argc ? argv[optind] : NULL;
    if (o->cfg.count)
        o->cfg.warmup_ns = 0;
    if (!o->method)
        o->method = o->cfg.body_bytes ? "POST" : "GET";
    o->cfg.is_head = strcmp(o->method, "HEAD") == 0;
    return o->url && o->cfg.timeout_ns > 0;
}

/* "http://1.2.3.4:80/path": the address, and where the path begins; NULL when it is something else. */
static const char *parse_url(const char *url, struct sockaddr_in *out, char host[static 64])
{
    if (strncmp(url, "http://", 7) != 0)
        return NULL;
    size_t n = strcspn(url + 7, "/");
    if (n >= 64)
        return NULL;
    memcpy(host, url + 7, n);
    host[n] = 0;
    char ip[64];
    size_t n_ip = strcspn(host, ":");
    memcpy(ip, host, n_ip);
    ip[n_ip] = 0;
    *out = (struct sockaddr_in){.sin_family = AF_INET};
    out->sin_port = htons(host[n_ip] ? (uint16_t)strtoul(host + n_ip + 1, NULL, 10) : 80);
    if (inet_pton(AF_INET, strcmp(ip, "localhost") == 0 ? "127.0.0.1" : ip, &out->sin_addr) != 1)
        return NULL;
    return url[7 + n] ? url + 7 + n : "/";
}

static char *make_head(const struct options *o, const char *host, const char *path, uint64_t index)
{
    char number[24] = "", length[64] = "", head[HEAD_BYTES];
    const char *at = strstr(path, "{}"), *rest = at ? at + 2 : "";
    int n_path = at ? (int)(at - path) : (int)strlen(path);
    if (at)
        (void)snprintf(number, sizeof(number), "%" PRIu64, index);
    if (o->cfg.body_bytes)
        (void)snprintf(length, sizeof(length), "Content-Length: %" PRIu64 "\r\n", o->cfg.body_bytes);
    int n =
        snprintf(head, sizeof(head), "%s %.*s%s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: davit-load\r\n%s%s\r\n",
                 o->method, n_path, path, number, rest, host, o->headers, length);
    return n > 0 && (size_t)n < sizeof(head) ? strdup(head) : NULL;
}

static bool make_requests(struct options *o)
{
    char host[64];
    const char *path = parse_url(o->url, &o->cfg.address, host);
    if (!path || !(o->cfg.requests = calloc(o->n_targets, sizeof(*o->cfg.requests))))
        return false;
    for (o->cfg.n_requests = 0; o->cfg.n_requests < o->n_targets; o->cfg.n_requests++)
        if (!(o->cfg.requests[o->cfg.n_requests] = make_head(o, host, path, o->cfg.n_requests)))
            return false;
    return true;
}

static void free_requests(struct options *o)
{
    for (uint64_t i = 0; o->cfg.requests && i < o->cfg.n_requests; i++)
        free(o->cfg.requests[i]);
    free(o->cfg.requests);
}

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

/* Statuses from 400 on and troubles that happened, by name. */
static void print_errors(const struct load_result *r)
{
    const char *comma = "";
    printf("\"errors\":{");
    for (int i = 400; i < 600; i++)
        if (r->n_status[i]) {
            printf("%s\"%d\":%" PRIu64, comma, i, r->n_status[i]);
            comma = ",";
        }
    for (int i = 0; i < LOAD_N_TROUBLES; i++)
        if (r->n_trouble[i]) {
            printf("%s\"%s\":%" PRIu64, comma, load_trouble_names[i], r->n_trouble[i]);
            comma = ",";
        }
    printf("}");
}

static void print_result(const struct load_result *r)
{
    const struct load_hist *h = &r->latency;
    printf("{\"requests\":%" PRIu64 ",\"requests_all\":%" PRIu64 ",\"duration_s\":%.3f,\"rps\":%.1f,",
           r->n_counted, r->n_all, r->seconds, r->seconds > 0 ? (double)r->n_counted / r->seconds : 0);
    print_errors(r);
    printf(
        ",\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f",
        h->n ? us(h->sum_ns) / (double)h->n : 0, us(load_hist_at(h, 0.5)), us(load_hist_at(h, 0.9)),
        us(load_hist_at(h, 0.99)), us(load_hist_at(h, 0.999)), us(h->max_ns));
    printf(",\"bytes_in\":%" PRIu64 ",\"bytes_out\":%" PRIu64 ",\"connects\":%" PRIu64
           ",\"idle_open\":%" PRIu64 ",\"slow_cut\":%" PRIu64 "}\n",
           r->bytes_in, r->bytes_out, r->n_connects, r->n_idle_open, r->n_slow_cut);
}

static void on_signal(int signo)
{
    (void)signo;
    load_is_interrupted = 1;
}

static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* a run that needs more says so by itself */
    }
}

int main(int argc, char **argv)
{
    struct options o = {
        .n_targets = 1,
        .cfg = {.n_connections = 1,
                .warmup_ns = 200000000,
                .duration_ns = 2000000000,
                .timeout_ns = 10000000000,
                .expected_bytes = -1},
    };
    static struct load_result result;
    if (!parse_options(&o, argc, argv) || !make_requests(&o)) {
        (void)fputs(usage, stderr);
        free_requests(&o);
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    raise_limits();
    int rc = load_run(&o.cfg, &result);
    if (!rc)
        print_result(&result);
    free_requests(&o);
    return rc ? 1 : 0;
}

/* Watching a function until it is up.  The API is asked a few times a second; events are shown as they come.
 */
#include "deploy/cli/wait.h"

#include <cjson/cJSON.h>
#include <time.h>

#include "deploy/cli/cli.h"

enum { POLL_MS = 200, GIVE_UP_S = 600 };

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int set_scale(struct cli *c, const char *word, const char *replicas)
{
    CLI_AUTO_REPLY reply = {0};
    const char *body = cli_format(c, "{\"replicas\":%s}", replicas);
    return cli_do(
        c,
        &(struct cli_call){
            .method = "POST", .path = cli_fn_path(c, word, "/scale"), .body = dv_sv_c(body), .timeout_s = 60},
        &reply);
}

/* The replica that is furthest behind says best what is being waited for. */
static void show(struct cli *c, const char *word, const struct cJSON *fn, int64_t since_ms)
{
    const char *message = cli_json_text(fn, "status.message", "");
    const cJSON *r, *list = cli_json_items(fn, "replicas");
    cJSON_ArrayForEach (r, list) {
        const char *words = cli_json_text(r, "message", NULL);
        if (words && *words && strcmp(cli_json_text(r, "state", ""), "warm") != 0)
            message = words;
    }
    const char *phase = cli_json_text(fn, "status.phase", "?");
    cli_progress(
        c,
        cli_format(c, "%s: %s%s%s%s", word, phase, *message ? ", " : "", message,
                   c->is_terminal ? cli_format(c, " (%llds)", (long long)(now_ms() - since_ms) / 1000) : ""));
}

static int look(struct cli *c, const char *word, int64_t since_ms, bool *out_asleep, bool *out_ready)
{
    CLI_AUTO_REPLY reply = {0};
    int code = cli_get(c, cli_fn_path(c, word, ""), &reply);
    if (code)
        return code;
    const char *phase = cli_json_text(reply.json, "status.phase", "");
    *out_asleep = strcmp(phase, "asleep") == 0;
    *out_ready = strcmp(phase, "ready") == 0;
    if (strcmp(phase, "failed") == 0)
        return cli_fail(CLI_FAILURE, "%s failed: %s\n       davit describe %s and davit logs %s say more",
                        word, cli_json_text(reply.json, "status.message", "no reason given"), word, word);
    if (!*out_ready)
        show(c, word, reply.json, since_ms);
    return CLI_OK;
}

int cli_wait_ready(struct cli *c, const char *word)
{
    int64_t begin = now_ms();
    bool asleep = false, ready = false, woken = false;
    int code = CLI_OK;
    while (code == CLI_OK && !ready) {
        code = look(c, word, begin, &asleep, &ready);
        if (code == CLI_OK && asleep && !woken) {
            code = set_scale(c, word, "1");
            woken = true;
        } else if (code == CLI_OK && !ready) {
            if (now_ms() - begin > GIVE_UP_S * 1000ll)
                code = cli_fail(CLI_FAILURE, "%s is not ready after %d s", word, GIVE_UP_S);
            (void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000l}, NULL);
        }
    }
    cli_progress(c, NULL);
    if (woken && set_scale(c, word, "null") != CLI_OK && code == CLI_OK)
        code = CLI_FAILURE;
    if (code == CLI_OK)
        cli_note("%s is ready after %.1f s", word, (double)(now_ms() - begin) / 1000);
    return code;
}

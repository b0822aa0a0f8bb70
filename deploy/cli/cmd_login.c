/* davit login, davit version. */
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

/* A line of stdin; on a terminal the typing is not shown. */
const char *cli_ask_password(struct cli *c)
{
    struct termios old, quiet;
    bool hidden = isatty(0) && tcgetattr(0, &old) == 0;
    if (hidden) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)fputs("Password: ", stderr);
        (void)tcsetattr(0, TCSAFLUSH, &quiet);
    }
    char line[1024];
    char *got = fgets(line, sizeof(line), stdin);
    if (hidden) {
        (void)tcsetattr(0, TCSAFLUSH, &old);
        (void)fputc('\n', stderr);
    }
    return got ? cli_format(c, "%.*s", (int)strcspn(line, "\r\n"), line) : NULL;
}

int cli_cmd_login(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_login_args *a = args;
    (void)words;
    if (a->user)
        c->user = a->user;
    if (c->password_file) {
        int code = cli_login_find(c);
        if (code)
            return code;
    } else {
        c->password = cli_ask_password(c);
    }
    if (!c->password || !*c->password)
        return cli_fail(CLI_USAGE, "no password given");
    CLI_AUTO_REPLY reply = {0};
    int code = cli_get(c, "/v1/functions?limit=1", &reply);
    return code ? code : cli_login_save(c, c->gateway, c->user, c->password);
}

int cli_cmd_version(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    (void)words;
    CLI_AUTO_REPLY reply = {0};
    printf("davit %s\n", DAVIT_VERSION);
    int code =
        cli_send(c, &(struct cli_call){.method = "GET", .path = "/v1/version", .timeout_s = 5}, &reply);
    if (code == CLI_OK && reply.status == 200)
        printf("orchestrator %s at %s\n", cli_json_text(reply.json, "version", "?"), c->gateway);
    return code == CLI_OK && reply.status != 200 ? cli_explain(c, &reply) : code;
}

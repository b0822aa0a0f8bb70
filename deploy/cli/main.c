/* davit, the command line of a Davit cluster.
 *
 * Reading order: cli.h says what commands share; commands.c lists every command with its options; one cmd_*.c
 * per noun runs them.  Below: client.c talks to the gateway and explains refusals, config.c knows passwords,
 * yaml.c and stack.c read files, table.c and json.c show answers, daemon.c starts and stops the programs of
 * `davit cluster`.
 *
 * A command does one thing and ends: no state but the login file and, for `cluster`, pid files.  Answers go
 * to stdout, everything said about them to stderr, so that a pipe gets the answer alone. */
#include <curl/curl.h>
#include <stdio.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

static void help_all(void)
{
    puts("davit: functions as containers, none of them running for nothing\n\nusage: davit COMMAND "
         "[OPTION...]\n");
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++)
        printf("  %-18s %s\n", cmd->name, cmd->summary);
    puts("\n  davit COMMAND --help shows its options.\n\n"
         "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied, 5 no answer, 6 conflict");
}

/* How many words of argv name this command: 0 when they do not. */
static int matches(const struct cli_cmd *cmd, int n, char **argv)
{
    size_t first = strcspn(cmd->name, " ");
    if (n < 1 || strlen(argv[0]) != first || strncmp(argv[0], cmd->name, first) != 0)
        return 0;
    if (!cmd->name[first])
        return 1;
    return n > 1 && strcmp(argv[1], cmd->name + first + 1) == 0 ? 2 : 0;
}

static const struct cli_cmd *find_command(int n, char **argv, int *out_words)
{
    const struct cli_cmd *best = NULL;
    *out_words = 0;
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++) {
        int words = matches(cmd, n, argv);
        if (words > *out_words) {
            best = cmd;
            *out_words = words;
        }
    }
    return best;
}

static int unknown(const char *word)
{
    (void)cli_fail(CLI_USAGE, "unknown command \"%s\"", word);
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++)
        if (strncmp(cmd->name, word, strlen(word)) == 0)
            cli_note("  did you mean: davit %s %s", cmd->name, cmd->synopsis);
    cli_note("davit help lists all of them");
    return CLI_USAGE;
}

/* What was not said on the command line. */
static int settle(struct cli *c)
{
    const char *url = getenv("DAVIT_URL"), *faas = getenv("OPENFAAS_URL");
    if (!c->gateway)
        c->gateway = url && *url ? url : faas && *faas ? faas : cli_local_gateway(c);
    if (!c->gateway || !*c->gateway)
        c->gateway = "http://127.0.0.1:8080";
    if (!strstr(c->gateway, "://"))
        c->gateway = cli_format(c, "http://%s", c->gateway);
    size_t n = strlen(c->gateway);
    while (n && c->gateway[n - 1] == '/')
        n--;
    c->gateway = cli_format(c, "%.*s", (int)n, c->gateway);
    const char *f = c->format_text;
    if (!f || strcmp(f, "table") == 0)
        c->format = CLI_TABLE;
    else if (strcmp(f, "wide") == 0)
        c->format = CLI_WIDE;
    else if (strcmp(f, "json") == 0)
        c->format = CLI_JSON;
    else
        return cli_fail(CLI_USAGE, "--output is table, wide or json, not \"%s\"", f);
    return CLI_OK;
}

static int run(struct cli *c, const struct cli_cmd *cmd, int n, char **argv)
{
    struct cli_list words = {0};
    bool wants_help;
    void *args = dv_arena_zalloc(&c->arena, cmd->args_bytes);
    if (!args)
        cli_out_of_memory();
    int code = cli_args_parse(c, cmd, n, argv, args, &words, &wants_help);
    if (code == CLI_OK && wants_help) {
        cli_help(cmd);
        return CLI_OK;
    }
    if (code == CLI_OK)
        code = settle(c);
    return code ? code : cmd->run(c, args, &words);
}

/* Options that every command takes may stand before it: how many words of argv they are. */
static int leading_options(int n, char **argv)
{
    int i = 0;
    while (i < n && argv[i][0] == '-') {
        const char *eq = strchr(argv[i], '=');
        const struct cli_opt *o = cli_global_opts;
        for (; o->name; o++) {
            bool is_long = strncmp(argv[i], o->name, eq ? (size_t)(eq - argv[i]) : SIZE_MAX) == 0;
            if (is_long || (o->letter && argv[i][1] == o->letter))
                break;
        }
        if (!o->name)
            return i;
        bool has_value = eq || (argv[i][1] != '-' && argv[i][2]);
        i += has_value ? 1 : 2;
    }
    return i < n ? i : n;
}

/* Put them behind the command: "-g URL list -o json" reads "list -o json" with "-g URL" in front of its
 * options. */
static char **command_first(struct cli *c, int n, char **argv, int n_leading)
{
    char **out = dv_arena_alloc(&c->arena, (size_t)(n + 1) * sizeof(char *));
    int words = 0;
    if (!out)
        cli_out_of_memory();
    (void)find_command(n - n_leading, argv + n_leading, &words);
    if (words == 0 && n_leading < n)
        words = 1;
    memcpy(out, argv + n_leading, (size_t)words * sizeof(char *));
    memcpy(out + words, argv, (size_t)n_leading * sizeof(char *));
    memcpy(out + words + n_leading, argv + n_leading + words,
           (size_t)(n - n_leading - words) * sizeof(char *));
    out[n] = NULL;
    return out;
}

static int dispatch(struct cli *c, int n, char **argv)
{
    int words, n_leading = leading_options(n, argv);
    if (n_leading)
        argv = command_first(c, n, argv, n_leading);
    if (n < 1 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        help_all();
        return n < 1 ? CLI_USAGE : CLI_OK;
    }
    if (strcmp(argv[0], "--version") == 0) {
        puts("davit " DAVIT_VERSION);
        return CLI_OK;
    }
    bool help = strcmp(argv[0], "help") == 0;
    if (help && n == 1) {
        help_all();
        return CLI_OK;
    }
    const struct cli_cmd *cmd = find_command(n - help, argv + help, &words);
    if (!cmd)
        return unknown(argv[help]);
    if (help) {
        cli_help(cmd);
        return CLI_OK;
    }
    return run(c, cmd, n - words, argv + words);
}

int main(int argc, char **argv)
{
    struct cli c = {.user = "admin"};
    const char *no_color = getenv("NO_COLOR");
    c.color = isatty(1) && !(no_color && *no_color);
    c.is_terminal = isatty(2);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        cli_out_of_memory();
    int code = dispatch(&c, argc - 1, argv + 1);
    if (fflush(stdout) != 0 && code == CLI_OK)
        code = CLI_FAILURE;
    curl_global_cleanup();
    dv_arena_deinit(&c.arena);
    return code;
}

/* Options: one table per command says what it takes; parsing, help and shell completion all read that table.
 * Options and words may stand in any order.  "--" ends the options; what follows are words, or, for a command
 * that takes one, the function's own command line. */
#include <stdarg.h>
#include <stdio.h>

#include "deploy/cli/cli.h"
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

void cli_list_add(struct cli *c, struct cli_list *l, const char *s)
{
    const char **v = dv_arena_alloc(&c->arena, (l->n + 1) * sizeof(*v));
    if (!v)
        cli_out_of_memory();
    if (l->n)
        memcpy(v, l->v, l->n * sizeof(*v));
    v[l->n++] = s;
    l->v = v;
}

static const struct cli_opt *find_in(const struct cli_opt *opts, const char *name, size_t n, char letter)
{
    for (const struct cli_opt *o = opts; o && o->name; o++)
        if (letter ? o->letter == letter : strlen(o->name) == n && memcmp(o->name, name, n) == 0)
            return o;
    return NULL;
}

/* A number left alone must be told from a zero that was asked for. */
static void preset(const struct cli_opt *opts, void *args)
{
    for (const struct cli_opt *o = opts; o && o->name; o++)
        if (o->kind >= CLI_INT) {
            int64_t unset = CLI_UNSET;
            memcpy((char *)args + o->offset, &unset, sizeof(unset));
        }
}

static int parse_number(enum cli_kind kind, const char *text, int64_t *out)
{
    struct dv_sv s = dv_sv_c(text);
    switch (kind) {
    case CLI_DURATION:
        return dv_parse_duration_ms(s, out);
    case CLI_BYTES:
        return dv_parse_bytes(s, out);
    case CLI_MCPU:
        return dv_parse_mcpu(s, out);
    default:
        return dv_parse_i64(s, out) ? DV_OK : DV_INVALID;
    }
}

static const char *kind_example(enum cli_kind kind)
{
    switch (kind) {
    case CLI_DURATION:
        return "a duration such as 250ms, 30s or 1m30s";
    case CLI_BYTES:
        return "a size such as 64Mi or 1G";
    case CLI_MCPU:
        return "cores such as 500m, 0.5 or 2";
    default:
        return "a whole number";
    }
}

static int store(struct cli *c, const struct cli_cmd *cmd, const struct cli_opt *o, void *base,
                 const char *value)
{
    char *at = (char *)base + o->offset;
    if (o->kind == CLI_FLAG) {
        bool on = true;
        memcpy(at, &on, sizeof(on));
    } else if (o->kind == CLI_TEXT) {
        memcpy(at, &value, sizeof(value));
    } else if (o->kind == CLI_LIST) {
        struct cli_list l;
        memcpy(&l, at, sizeof(l));
        cli_list_add(c, &l, value);
        memcpy(at, &l, sizeof(l));
    } else {
        int64_t v;
        if (parse_number(o->kind, value, &v) != DV_OK)
            return cli_usage(cmd, "%s takes %s, not \"%s\"", o->name, kind_example(o->kind), value);
        memcpy(at, &v, sizeof(v));
    }
    return CLI_OK;
}

struct cursor {
    char **argv;
    int n, i;
};

/* "--name value", "--name=value", "-x value" or "-xvalue"; flags take no value. */
static int take_option(struct cli *c, const struct cli_cmd *cmd, struct cursor *at, void *args)
{
    const char *word = at->argv[at->i++];
    bool is_long = word[1] == '-';
    const char *eq = is_long ? strchr(word, '=') : NULL;
    size_t n = eq ? (size_t)(eq - word) : strlen(word);
    char letter = is_long ? 0 : word[1];
    void *base = args;
    const struct cli_opt *o = find_in(cmd->opts, word, n, letter);
    if (!o) {
        o = find_in(cli_global_opts, word, n, letter);
        base = c;
    }
    if (!o)
        return cli_usage(cmd, "unknown option %.*s", is_long ? (int)n : 2, word);
    const char *value = eq ? eq + 1 : !is_long && word[2] ? word + 2 : NULL;
    if (o->kind == CLI_FLAG) {
        if (value)
            return cli_usage(cmd, "%s takes no value", o->name);
    } else if (!value) {
        if (at->i >= at->n)
            return cli_usage(cmd, "%s needs a value: %s", o->name, o->value);
        value = at->argv[at->i++];
    }
    return store(c, cmd, o, base, value);
}

int cli_args_parse(struct cli *c, const struct cli_cmd *cmd, int n, char **argv, void *args,
                   struct cli_list *words, bool *out_help)
{
    struct cursor at = {.argv = argv, .n = n};
    bool rest = false;
    preset(cmd->opts, args);
    *out_help = false;
    int n_words = 0;
    while (at.i < n) {
        const char *word = argv[at.i];
        if (!rest && strcmp(word, "--") == 0) {
            rest = true;
            at.i++;
        } else if (rest || word[0] != '-' || word[1] == 0) {
            cli_list_add(c, words, word);
            n_words += !(rest && cmd->takes_command);
            at.i++;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            *out_help = true;
            return CLI_OK;
        } else {
            int code = take_option(c, cmd, &at, args);
            if (code)
                return code;
        }
    }
    if (n_words < cmd->min_words)
        return cli_usage(cmd, "%s is missing", n_words == 0 ? "a name" : "an argument");
    if (cmd->max_words >= 0 && n_words > cmd->max_words)
        return cli_usage(cmd, "unexpected \"%s\"", words->v[cmd->max_words]);
    return CLI_OK;
}

static void help_option(const struct cli_opt *o)
{
    char left[64];
    char letter[8] = "    ";
    if (o->letter)
        (void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    (void)snprintf(left, sizeof(left), "%s%s%s%s", letter, o->name, o->kind == CLI_FLAG ? "" : " ",
                   o->kind == CLI_FLAG ? "" : o->value);
    printf("  %-32s %s%s\n", left, o->help, o->kind == CLI_LIST ? " (may be repeated)" : "");
}

void cli_help(const struct cli_cmd *cmd)
{
    printf("davit %s %s\n    %s\n", cmd->name, cmd->synopsis, cmd->summary);
    if (cmd->opts && cmd->opts->name) {
        puts("\nOptions:");
        for (const struct cli_opt *o = cmd->opts; o->name; o++)
            help_option(o);
    }
    puts("\nOptions of every command:");
    for (const struct cli_opt *o = cli_global_opts; o->name; o++)
        help_option(o);
}

int cli_usage(const struct cli_cmd *cmd, const char *fmt, ...)
{
    va_list ap;
    (void)fputs("davit: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\nusage: davit %s %s\n       davit %s --help says more\n", cmd->name,
                  cmd->synopsis, cmd->name);
    return CLI_USAGE;
}

/* davit completion: a script for each shell, made from the table of commands.  Function names are completed
 * by asking the cluster. */
#include <stdio.h>

#include "deploy/cli/cli.h"

static void print_options(const struct cli_opt *opts)
{
    for (const struct cli_opt *o = opts; o && o->name; o++)
        printf("%s ", o->name);
}

static bool takes_function(const struct cli_cmd *cmd)
{
    return strncmp(cmd->synopsis, "NAME", 4) == 0 && !strchr(cmd->name, ' ') && !cmd->takes_command;
}

/* The first word of a command's name, when no command before it has the same one; 0 otherwise. */
static size_t new_verb(const struct cli_cmd *cmd)
{
    size_t n = strcspn(cmd->name, " ");
    for (const struct cli_cmd *other = cli_commands; other != cmd; other++)
        if (strncmp(other->name, cmd->name, n) == 0 && strcspn(other->name, " ") == n)
            return 0;
    return n;
}

static void print_verbs(void)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++)
        if (new_verb(cmd))
            printf("%.*s ", (int)new_verb(cmd), cmd->name);
    (void)fputs("help", stdout);
}

/* The second words that may follow a verb. */
static void print_seconds(const char *verb, size_t n)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++)
        if (strncmp(cmd->name, verb, n) == 0 && cmd->name[n] == ' ')
            printf(" %s", cmd->name + n + 1);
}

static void bash_options(const struct cli_cmd *cmd)
{
    printf("words='");
    print_options(cmd->opts);
    print_options(cli_global_opts);
    printf("'%s ;;\n", takes_function(cmd) ? "; [[ $cur == -* ]] || words=$(_davit_functions)" : "");
}

static void bash(void)
{
    puts("_davit_functions() { davit list -o json 2>/dev/null | grep -oE '\"name\":[[:space:]]*\"[^\"]+\"' | "
         "cut -d'\"' -f4; }\n"
         "_davit() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} one=${COMP_WORDS[1]} two=${COMP_WORDS[2]} words=\n"
         "    case \"$one $two\" in");
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++) {
        bool is_two = strchr(cmd->name, ' ') != NULL;
        printf("    %s%s%s) ", is_two ? "'" : "", cmd->name, is_two ? "'" : "\\ *");
        bash_options(cmd);
    }
    (void)fputs("    esac\n    [ \"$COMP_CWORD\" -gt 1 ] || words='", stdout);
    print_verbs();
    puts("'\n    if [ \"$COMP_CWORD\" = 2 ]; then case \"$one\" in");
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++) {
        size_t n = new_verb(cmd);
        bool has_seconds = false;
        for (const struct cli_cmd *other = cli_commands; n && other->name; other++)
            has_seconds = has_seconds || (strncmp(other->name, cmd->name, n) == 0 && other->name[n] == ' ');
        if (!has_seconds)
            continue;
        printf("    %.*s) words+='", (int)n, cmd->name);
        print_seconds(cmd->name, n);
        puts("' ;;");
    }
    puts("    esac; fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "}\n"
         "complete -o default -F _davit davit");
}

static void fish_options(const char *condition, const struct cli_opt *opts)
{
    for (const struct cli_opt *o = opts; o && o->name; o++) {
        char letter[8] = "";
        if (o->letter)
            (void)snprintf(letter, sizeof(letter), " -s %c", o->letter);
        printf("complete -c davit %s -l %s%s%s -d \"%s\"\n", condition, o->name + 2, letter,
               o->kind == CLI_FLAG ? "" : " -r", strchr(o->help, '"') ? o->value : o->help);
    }
}

static void fish(struct cli *c)
{
    puts("function __davit_functions\n"
         "    davit list -o json 2>/dev/null | string match -rg '\"name\":\\s*\"([^\"]+)\"'\n"
         "end");
    fish_options("", cli_global_opts);
    for (const struct cli_cmd *cmd = cli_commands; cmd->name; cmd++) {
        size_t n = strcspn(cmd->name, " ");
        const char *verb = cli_format(c, "%.*s", (int)n, cmd->name);
        const char *seen = cli_format(c, "-n \"__fish_seen_subcommand_from %s\"", verb);
        if (cmd->name[n])
            printf("complete -c davit -f %s -a %s -d \"%s\"\n", seen, cmd->name + n + 1, cmd->summary);
        if (new_verb(cmd))
            printf("complete -c davit -f -n __fish_use_subcommand -a %s%s%s\n", verb,
                   cmd->name[n] ? "" : " -d ", cmd->name[n] ? "" : cli_format(c, "\"%s\"", cmd->summary));
        if (takes_function(cmd))
            printf("complete -c davit -f %s -a \"(__davit_functions)\"\n", seen);
        fish_options(seen, cmd->opts);
    }
}

int cli_cmd_completion(struct cli *c, void *args, const struct cli_list *words)
{
    const char *shell = words->v[0];
    (void)args;
    if (strcmp(shell, "bash") == 0) {
        bash();
    } else if (strcmp(shell, "zsh") == 0) {
        puts("autoload -U +X bashcompinit && bashcompinit");
        bash();
    } else if (strcmp(shell, "fish") == 0) {
        fish(c);
    } else {
        return cli_fail(CLI_USAGE, "completion is made for bash, zsh and fish, not \"%s\"", shell);
    }
    return CLI_OK;
}

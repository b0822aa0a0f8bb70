/* Tables: columns as wide as their widest cell, two blanks between them, headings in capitals. */
#include <stdio.h>

#include "deploy/cli/cli.h"

struct cli_table {
    struct cli *c;
    const char *const *columns;
    size_t n_columns;
    struct cli_list cells;
};

struct cli_table *cli_table_new(struct cli *c, const char *const *columns, size_t n)
{
    struct cli_table *t = dv_arena_zalloc(&c->arena, sizeof(*t));
    if (!t)
        cli_out_of_memory();
    *t = (struct cli_table){.c = c, .columns = columns, .n_columns = n};
    return t;
}

void cli_table_cell(struct cli_table *t, const char *text)
{
    const char *s = text && *text ? text : "-";
    /* Texts of answers die with the answer; and what a function wrote must not drive the terminal. */
    char *copy = dv_arena_strdup(&t->c->arena, s);
    if (!copy)
        cli_out_of_memory();
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    cli_list_add(t->c, &t->cells, copy);
}

void cli_table_cell_int(struct cli_table *t, int64_t v)
{
    cli_table_cell(t, cli_format(t->c, "%lld", (long long)v));
}

/* Characters, not bytes: continuation bytes of UTF-8 take no column. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_cell(struct cli_table *t, const char *text, int w, bool is_last, bool is_heading)
{
    const char *color = is_heading ? "" : cli_state_color(t->c, text);
    printf("%s%s%s", color, text, *color ? cli_color_end(t->c) : "");
    if (!is_last)
        printf("%*s", w - width(text) + 2, "");
}

static int column_width(const struct cli_table *t, size_t col)
{
    int w = width(t->columns[col]);
    for (size_t i = col; i < t->cells.n; i += t->n_columns) {
        int cell = width(t->cells.v[i]);
        w = cell > w ? cell : w;
    }
    return w;
}

void cli_table_print(struct cli_table *t)
{
    int *w = dv_arena_zalloc(&t->c->arena, t->n_columns * sizeof(*w));
    if (!w)
        cli_out_of_memory();
    for (size_t col = 0; col < t->n_columns; col++)
        w[col] = column_width(t, col);
    for (size_t col = 0; col < t->n_columns; col++)
        print_cell(t, t->columns[col], w[col], col + 1 == t->n_columns, true);
    putchar('\n');
    for (size_t i = 0; i < t->cells.n; i++) {
        size_t col = i % t->n_columns;
        print_cell(t, t->cells.v[i], w[col], col + 1 == t->n_columns, false);
        if (col + 1 == t->n_columns)
            putchar('\n');
    }
}

const char *cli_state_color(struct cli *c, const char *state)
{
    static const struct {
        const char *state, *escape;
    } colors[] = {{"ready", "\033[32m"},    {"warm", "\033[32m"},      {"failed", "\033[31m"},
                  {"lost", "\033[31m"},     {"not_ready", "\033[31m"}, {"starting", "\033[33m"},
                  {"draining", "\033[33m"}, {"joining", "\033[33m"},   {"cordoned", "\033[33m"},
                  {"asleep", "\033[2m"},    {"cold", "\033[2m"},       {"frozen", "\033[36m"}};
    if (c->color)
        for (size_t i = 0; i < DV_COUNT(colors); i++)
            if (strcmp(colors[i].state, state) == 0)
                return colors[i].escape;
    return "";
}

const char *cli_color_end(struct cli *c)
{
    return c->color ? "\033[0m" : "";
}

const char *cli_age(struct cli *c, int64_t since_ms)
{
    if (since_ms <= 0)
        return "-";
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    long long s = (long long)now.tv_sec - since_ms / 1000;
    if (s < 0)
        s = 0;
    if (s < 120)
        return cli_format(c, "%llds", s);
    if (s < 7200)
        return cli_format(c, "%lldm", s / 60);
    if (s < 172800)
        return cli_format(c, "%lldh", s / 3600);
    return cli_format(c, "%lldd", s / 86400);
}

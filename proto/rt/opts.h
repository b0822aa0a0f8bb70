/* Options of a program as one table: command line, environment, configuration file, --help, --version.
 * For an option "listen": --listen VALUE, --listen=VALUE, -l VALUE where it has a letter, DAVIT_LISTEN, and
 * the key "listen" of the JSON object in the --config file.  The command line wins over the environment,
 * which wins over the file, which wins over the table's default.  Start-up only; one thread. */
#ifndef DV_OPTS_H
#define DV_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/arena.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/wire/types.h"

enum dv_opt_kind {
    DV_OPT_STR,   /* out: const char * */
    DV_OPT_BOOL,  /* out: bool.  --name, --name=false, --no-name */
    DV_OPT_INT,   /* out: int64_t */
    DV_OPT_MS,    /* out: int64_t, milliseconds; "1m30s" */
    DV_OPT_BYTES, /* out: int64_t; "128Mi" */
    DV_OPT_STRS,  /* out: struct dv_strs.  Repeatable; in the environment separated by commas; a JSON array */
};

struct dv_opt {
    const char *name; /* "metrics-listen" */
    enum dv_opt_kind kind;
    void *out;
    const char *arg;     /* what help calls the value: "HOST:PORT" */
    const char *help;    /* one sentence */
    const char *preset;  /* default, written as on the command line; NULL leaves *out as it is */
    int64_t min, max;    /* of INT, MS, BYTES; both 0: not negative */
    const char *choices; /* of STR: "json|table|wide"; NULL: anything */
    char letter;         /* 0: none */
    bool cli_only;       /* has no environment twin and no key in the file */
};

struct dv_opts_spec {
    const char *program;  /* "davit-agent" */
    const char *usage;    /* what follows the program's name, "[options]" when NULL */
    const char *about;    /* one or two sentences under the usage line */
    const char *epilogue; /* at the end of --help; may be NULL */
    const struct dv_opt *opts;
    size_t n_opts;
    bool takes_args;    /* arguments that are no options are collected; otherwise they are refused */
    bool stops_at_arg;  /* the first such argument ends the options (a subcommand follows) */
    bool has_no_config; /* no --config, no file */
};

struct dv_opts_result {
    struct dv_strs args;  /* arguments before "--" (after a stop: everything from there on) */
    struct dv_strs after; /* what followed "--" */
    bool has_dashes;      /* "--" was there */
    bool want_help, want_version;
    const char *config; /* file read; NULL: none */
};

/* argv[0] is skipped.  env: as environ, NULL for none.  Strings belong to arena, or to argv.
 * DV_OK (also for --help and --version: the wish is in *res, and nothing else was checked); DV_INVALID, with
 * a message that names the option and, when unknown, the closest one; DV_E_NOMEM. */
int dv_opts_parse(const struct dv_opts_spec *spec, int argc, char *const *argv, char *const *env,
                  struct dv_arena *arena, struct dv_opts_result *res, struct dv_err *err);

/* The text of --help. */
int dv_opts_help(const struct dv_opts_spec *spec, struct dv_buf *out);

/* What main does: parse with the real environment; print help or version to stdout, an error to stderr.
 * True: go on.  False: leave with *exit_code (0, or 2 for wrong usage). */
bool dv_opts_main(const struct dv_opts_spec *spec, int argc, char *const *argv, struct dv_arena *arena,
                  struct dv_opts_result *res, int *exit_code);

/* The candidate closest to what was typed, NULL when none is near.  For subcommands, too. */
const char *dv_closest(const char *typed, const char *const *candidates, size_t n);

#endif

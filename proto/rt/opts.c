/* Options.  Every source hands its values to the same setter, so that a value is checked in one place and an
 * error names the place it came from: "--idle: ...", "DAVIT_IDLE: ...", "agent.json: idle: ...". Sources are
 * applied from the weakest to the strongest; a list is replaced by a stronger source, not extended. */
#include "proto/rt/opts.h"
#include "proto/base/alloc.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <cjson/cJSON.h>
#include <unistd.h>

enum { CONFIG_MAX = 1024 * 1024, MAX_NAME = 64, HELP_COLUMN = 34 };

enum source { FROM_PRESET, FROM_FILE, FROM_ENV, FROM_LINE };

struct parser {
    const struct dv_opts_spec *spec;
    struct dv_arena *arena;
    struct dv_opts_result *res;
    struct dv_err *err;
    const char *config;
    unsigned char *list_source; /* per option: source + 1 that filled its list last */
};

/* ---- names ---- */

static size_t distance(const char *a, const char *b)
{
    size_t row[MAX_NAME + 1], n = strlen(b), m = strlen(a);
    if (n > MAX_NAME || m > MAX_NAME)
        return MAX_NAME;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            best = best < up + 1 ? best : up + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            diagonal = up;
        }
    }
    return row[n];
}

const char *dv_closest(const char *typed, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t typed_n = strlen(typed), limit = typed_n / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(typed, candidates[i]);
        if (typed_n >= 2 && strncmp(candidates[i], typed, typed_n) == 0)
            d = 1; /* cut short */
        if (d <= limit && (!best || d < limit)) {
            best = candidates[i];
            limit = d;
        }
    }
    return best;
}

static const struct dv_opt *find(const struct dv_opts_spec *spec, struct dv_sv name)
{
    for (size_t i = 0; i < spec->n_opts; i++)
        if (dv_sv_eq(dv_sv_c(spec->opts[i].name), name))
            return &spec->opts[i];
    return NULL;
}

static int unknown(const struct parser *p, const char *prefix, struct dv_sv name)
{
    char typed[MAX_NAME];
    (void)snprintf(typed, sizeof(typed), "%.*s", (int)(name.n < MAX_NAME ? name.n : MAX_NAME - 1), name.p);
    const char **names = dv_arena_alloc(p->arena, (p->spec->n_opts + 3) * sizeof(*names));
    size_t n = 0;
    for (size_t i = 0; names && i < p->spec->n_opts; i++)
        names[n++] = p->spec->opts[i].name;
    for (size_t i = 0; names && i < 3; i++)
        names[n++] = ((const char *const[]){"help", "version", "config"})[i];
    const char *near = dv_closest(typed, names, n - (p->spec->has_no_config ? 1 : 0));
    return dv_err_set(p->err, DV_INVALID, "unknown option %s%s%s%s%s", prefix, typed,
                      near ? "; did you mean " : "", near ? prefix : "", near ? near : "");
}

/* "metrics-listen" -> "DAVIT_METRICS_LISTEN" */
static void env_name(const char *name, char out[MAX_NAME + 8])
{
    size_t n = (size_t)snprintf(out, MAX_NAME + 8, "DAVIT_%s", name);
    for (size_t i = 6; i < n && i < MAX_NAME + 7; i++)
        out[i] = out[i] == '-' ? '_' : out[i] >= 'a' && out[i] <= 'z' ? (char)(out[i] - 32) : out[i];
}

/* ---- setting one value ---- */

static bool parse_bool(struct dv_sv s, bool *out)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < DV_COUNT(words); i++)
        if (dv_sv_eq_nocase(s, dv_sv_c(words[i]))) {
            *out = i % 2 == 1;
            return true;
        }
    return false;
}

static bool is_choice(const char *choices, struct dv_sv value)
{
    struct dv_sv rest = dv_sv_c(choices), one;
    for (bool more = true; more;) {
        more = dv_sv_cut(rest, '|', &one, &rest);
        if (dv_sv_eq(one, value))
            return true;
    }
    return false;
}

static int set_number(struct parser *p, const struct dv_opt *o, const char *where, struct dv_sv value)
{
    int64_t v, max = o->min || o->max ? o->max : INT64_MAX;
    static const char *const wants[] = {[DV_OPT_INT] = "a whole number",
                                        [DV_OPT_MS] = "a duration such as 250ms or 1m30s",
                                        [DV_OPT_BYTES] = "an amount such as 512Ki or 64Mi"};
    bool ok = o->kind == DV_OPT_INT  ? dv_parse_i64(value, &v)
              : o->kind == DV_OPT_MS ? dv_parse_duration_ms(value, &v) == DV_OK
                                     : dv_parse_bytes(value, &v) == DV_OK;
    if (!ok)
        return dv_err_set(p->err, DV_INVALID, "%s: \"%.*s\" is not %s", where, (int)value.n, value.p,
                          wants[o->kind]);
    if (v < o->min || v > max)
        return dv_err_set(p->err, DV_INVALID, "%s: %.*s is out of range (%lld to %lld%s)", where,
                          (int)value.n, value.p, (long long)o->min, (long long)max,
                          o->kind == DV_OPT_MS ? " ms" : "");
    *(int64_t *)o->out = v;
    return DV_OK;
}

static int add_to_list(struct parser *p, struct dv_strs *list, struct dv_sv value)
{
    char **grown = dv_arena_alloc(p->arena, (list->n + 1) * sizeof(*grown));
    char *copy = dv_arena_strndup(p->arena, value.p, value.n);
    if (!grown || !copy)
        return dv_err_set(p->err, DV_E_NOMEM, "options");
    if (list->n)
        memcpy(grown, list->v, list->n * sizeof(*grown));
    grown[list->n] = copy;
    *list = (struct dv_strs){grown, list->n + 1};
    return DV_OK;
}

static int set_list(struct parser *p, const struct dv_opt *o, enum source from, struct dv_sv value)
{
    struct dv_strs *list = o->out;
    unsigned char *last = &p->list_source[o - p->spec->opts];
    if (*last != from + 1)
        *list = (struct dv_strs){0};
    *last = (unsigned char)(from + 1);
    if (from == FROM_LINE || from == FROM_FILE)
        return add_to_list(p, list, value);
    struct dv_sv rest = value, one;
    for (bool more = value.n > 0; more;) {
        more = dv_sv_cut(rest, ',', &one, &rest);
        int rc = add_to_list(p, list, dv_sv_trim(one));
        if (rc)
            return rc;
    }
    return DV_OK;
}

static int set(struct parser *p, const struct dv_opt *o, enum source from, const char *where,
               struct dv_sv value)
{
    char *text;
    switch (o->kind) {
    case DV_OPT_BOOL:
        return parse_bool(value, o->out)
                   ? DV_OK
                   : dv_err_set(p->err, DV_INVALID, "%s: \"%.*s\" is neither true nor false", where,
                                (int)value.n, value.p);
    case DV_OPT_STR:
        if (o->choices && !is_choice(o->choices, value))
            return dv_err_set(p->err, DV_INVALID, "%s: \"%.*s\" is not one of %s", where, (int)value.n,
                              value.p, o->choices);
        text = dv_arena_strndup(p->arena, value.p, value.n);
        if (!text)
            return dv_err_set(p->err, DV_E_NOMEM, "options");
        *(const char **)o->out = text;
        return DV_OK;
    case DV_OPT_STRS:
        return set_list(p, o, from, value);
    default:
        return set_number(p, o, where, value);
    }
}

/* ---- the sources ---- */

static int apply_presets(struct parser *p)
{
    for (size_t i = 0; i < p->spec->n_opts; i++) {
        const struct dv_opt *o = &p->spec->opts[i];
        int rc = o->preset ? set(p, o, FROM_PRESET, o->name, dv_sv_c(o->preset)) : DV_OK;
        if (rc)
            return rc;
    }
    return DV_OK;
}

static int apply_json(struct parser *p, const struct dv_opt *o, const char *where, const struct cJSON *v)
{
    char number[32];
    if (cJSON_IsString(v))
        return set(p, o, FROM_FILE, where, dv_sv_c(v->valuestring));
    if (cJSON_IsBool(v) && o->kind == DV_OPT_BOOL)
        return set(p, o, FROM_FILE, where, cJSON_IsTrue(v) ? DV_SV("true") : DV_SV("false"));
    if (cJSON_IsNumber(v) && (o->kind == DV_OPT_INT || o->kind == DV_OPT_BYTES)) {
        (void)snprintf(number, sizeof(number), "%.17g", v->valuedouble);
        return set(p, o, FROM_FILE, where, dv_sv_c(number));
    }
    if (!cJSON_IsArray(v) || o->kind != DV_OPT_STRS)
        return dv_err_set(p->err, DV_INVALID, "%s: wrong type of value", where);
    *(struct dv_strs *)o->out = (struct dv_strs){0}; /* an empty array empties the list */
    p->list_source[o - p->spec->opts] = FROM_FILE + 1;
    const cJSON *item;
    cJSON_ArrayForEach (item, v) {
        int rc = cJSON_IsString(item) ? set(p, o, FROM_FILE, where, dv_sv_c(item->valuestring))
                                      : dv_err_set(p->err, DV_INVALID, "%s: wrong type of value", where);
        if (rc)
            return rc;
    }
    return DV_OK;
}

static int apply_object(struct parser *p, const struct cJSON *tree)
{
    if (!cJSON_IsObject(tree))
        return dv_err_set(p->err, DV_INVALID, "%s: not a JSON object", p->config);
    const cJSON *v;
    cJSON_ArrayForEach (v, tree) {
        const struct dv_opt *o = find(p->spec, dv_sv_c(v->string));
        char where[200];
        (void)snprintf(where, sizeof(where), "%s: %s", p->config, v->string);
        if (!o || o->cli_only) {
            (void)unknown(p, "", dv_sv_c(v->string));
            (void)dv_err_wrap(p->err, "%s", p->config);
            return DV_INVALID;
        }
        int rc = apply_json(p, o, where, v);
        if (rc)
            return rc;
    }
    return DV_OK;
}

static int apply_file(struct parser *p)
{
    if (!p->config)
        return DV_OK;
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    struct cJSON *tree = NULL;
    int rc = dv_file_read(p->config, CONFIG_MAX, &text, p->err);
    if (rc == DV_OK) {
        rc = dv_json_parse(dv_buf_sv(&text), CONFIG_MAX, &tree, p->err);
        if (rc)
            (void)dv_err_wrap(p->err, "%s", p->config);
    }
    if (rc)
        return rc < 0 ? rc : DV_INVALID;
    rc = apply_object(p, tree);
    cJSON_Delete(tree);
    p->res->config = p->config;
    return rc;
}

static struct dv_sv env_find(char *const *env, const char *name)
{
    size_t n = strlen(name);
    for (; env && *env; env++)
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return dv_sv_c(*env + n + 1);
    return dv_sv(NULL, 0);
}

static int apply_env(struct parser *p, char *const *env)
{
    for (size_t i = 0; i < p->spec->n_opts; i++) {
        const struct dv_opt *o = &p->spec->opts[i];
        char name[MAX_NAME + 8];
        env_name(o->name, name);
        struct dv_sv value = o->cli_only ? dv_sv(NULL, 0) : env_find(env, name);
        if (!value.n)
            continue; /* set to nothing is as good as not set */
        int rc = set(p, o, FROM_ENV, name, value);
        if (rc)
            return rc;
    }
    return DV_OK;
}

/* ---- the command line ---- */

struct line {
    int argc, i;
    char *const *argv;
    bool is_dry; /* first pass: only --config, --help and --version are looked for */
};

static int value_of(struct parser *p, struct line *l, const char *shown, const char *inline_value,
                    struct dv_sv *out)
{
    if (inline_value)
        *out = dv_sv_c(inline_value);
    else if (l->i + 1 < l->argc)
        *out = dv_sv_c(l->argv[++l->i]);
    else
        return dv_err_set(p->err, DV_INVALID, "%s needs a value", shown);
    return DV_OK;
}

static int give(struct parser *p, struct line *l, const struct dv_opt *o, const char *shown,
                const char *inline_value)
{
    struct dv_sv value = DV_SV("true");
    if (o->kind != DV_OPT_BOOL || inline_value) {
        int rc = value_of(p, l, shown, inline_value, &value);
        if (rc)
            return rc;
    }
    return l->is_dry ? DV_OK : set(p, o, FROM_LINE, shown, value);
}

static int take_config(struct parser *p, struct line *l, const char *inline_value)
{
    struct dv_sv value = {0};
    int rc = value_of(p, l, "--config", inline_value, &value);
    if (rc == DV_OK)
        p->config = value.p;
    return rc;
}

static int take_long(struct parser *p, struct line *l, const char *text)
{
    const char *eq = strchr(text, '=');
    struct dv_sv name = eq ? dv_sv(text, (size_t)(eq - text)) : dv_sv_c(text);
    const struct dv_opt *o = find(p->spec, name);
    char shown[MAX_NAME + 3];
    (void)snprintf(shown, sizeof(shown), "--%.*s", (int)(name.n < MAX_NAME ? name.n : MAX_NAME), name.p);
    if (o)
        return give(p, l, o, shown, eq ? eq + 1 : NULL);
    if (!p->spec->has_no_config && dv_sv_eq(name, DV_SV("config")))
        return take_config(p, l, eq ? eq + 1 : NULL);
    if (dv_sv_eq(name, DV_SV("help")))
        p->res->want_help = true;
    else if (dv_sv_eq(name, DV_SV("version")))
        p->res->want_version = true;
    else if (dv_sv_starts(name, DV_SV("no-")) && !eq && (o = find(p->spec, dv_sv(name.p + 3, name.n - 3))) &&
             o->kind == DV_OPT_BOOL)
        return l->is_dry ? DV_OK : set(p, o, FROM_LINE, shown, DV_SV("false"));
    else
        return unknown(p, "--", name);
    return DV_OK;
}

static int take_letters(struct parser *p, struct line *l, const char *text)
{
    for (; *text; text++) {
        const struct dv_opt *o = NULL;
        char shown[3] = {'-', *text, '\0'};
        for (size_t i = 0; i < p->spec->n_opts && !o; i++)
            o = p->spec->opts[i].letter == *text ? &p->spec->opts[i] : NULL;
        if (!o && *text == 'h') {
            p->res->want_help = true;
            continue;
        }
        if (!o)
            return dv_err_set(p->err, DV_INVALID, "unknown option %s; see --help", shown);
        if (o->kind != DV_OPT_BOOL) /* the rest of the word is its value */
            return give(p, l, o, shown, text[1] == '=' ? text + 2 : text[1] ? text + 1 : NULL);
        int rc = give(p, l, o, shown, NULL);
        if (rc)
            return rc;
    }
    return DV_OK;
}

static int take_arg(struct parser *p, const struct line *l, const char *text)
{
    if (!p->spec->takes_args && !p->spec->stops_at_arg)
        return dv_err_set(p->err, DV_INVALID, "unexpected argument \"%s\"", text);
    return l->is_dry ? DV_OK : add_to_list(p, &p->res->args, dv_sv_c(text));
}

static int take_rest(struct parser *p, struct line *l, struct dv_strs *to)
{
    int rc = DV_OK;
    for (; rc == DV_OK && l->i < l->argc; l->i++)
        rc = l->is_dry ? DV_OK : add_to_list(p, to, dv_sv_c(l->argv[l->i]));
    return rc;
}

static int apply_line(struct parser *p, struct line l)
{
    for (l.i = 1; l.i < l.argc; l.i++) {
        const char *text = l.argv[l.i];
        int rc;
        if (strcmp(text, "--") == 0) {
            p->res->has_dashes = true;
            l.i++;
            return take_rest(p, &l, &p->res->after);
        }
        if (text[0] == '-' && text[1] == '-')
            rc = take_long(p, &l, text + 2);
        else if (text[0] == '-' && text[1])
            rc = take_letters(p, &l, text + 1);
        else if (p->spec->stops_at_arg)
            return take_rest(p, &l, &p->res->args);
        else
            rc = take_arg(p, &l, text);
        if (rc || p->res->want_help || p->res->want_version)
            return rc;
    }
    return DV_OK;
}

int dv_opts_parse(const struct dv_opts_spec *spec, int argc, char *const *argv, char *const *env,
                  struct dv_arena *arena, struct dv_opts_result *res, struct dv_err *err)
{
    *res = (struct dv_opts_result){0};
    struct parser p = {.spec = spec, .arena = arena, .res = res, .err = err};
    p.list_source = dv_arena_zalloc(arena, spec->n_opts + 1);
    if (!p.list_source)
        return dv_err_set(err, DV_E_NOMEM, "options");
    int rc = apply_line(&p, (struct line){.argc = argc, .argv = argv, .is_dry = true});
    if (rc || res->want_help || res->want_version)
        return rc;
    if (!spec->has_no_config && !p.config)
        p.config = env_find(env, "DAVIT_CONFIG").n ? env_find(env, "DAVIT_CONFIG").p : NULL;
    if ((rc = apply_presets(&p)) || (rc = apply_file(&p)) || (rc = apply_env(&p, env)))
        return rc;
    return apply_line(&p, (struct line){.argc = argc, .argv = argv});
}

/* ---- help ---- */

static void help_line(struct dv_buf *out, char letter, const char *name, const char *arg, const char *help,
                      const char *preset)
{
    size_t from = dv_buf_len(out);
    (void)dv_buf_add_c(out, "  ");
    if (letter)
        (void)dv_buf_addf(out, "-%c, ", letter);
    else
        (void)dv_buf_add_c(out, "    ");
    (void)dv_buf_addf(out, "--%s%s%s", name, arg ? " " : "", arg ? arg : "");
    size_t width = dv_buf_len(out) - from;
    if (width + 2 > HELP_COLUMN) {
        (void)dv_buf_add_char(out, '\n');
        width = 0;
    }
    (void)dv_buf_addf(out, "%*s%s", (int)(HELP_COLUMN - width), "", help);
    if (preset && preset[0])
        (void)dv_buf_addf(out, " (default %s)", preset);
    (void)dv_buf_add_char(out, '\n');
}

int dv_opts_help(const struct dv_opts_spec *spec, struct dv_buf *out)
{
    (void)dv_buf_addf(out, "Usage: %s %s\n\n", spec->program, spec->usage ? spec->usage : "[options]");
    if (spec->about)
        (void)dv_buf_addf(out, "%s\n\n", spec->about);
    (void)dv_buf_add_c(out, "Options:\n");
    bool has_env = false;
    for (size_t i = 0; i < spec->n_opts; i++) {
        const struct dv_opt *o = &spec->opts[i];
        const char *arg = o->kind == DV_OPT_BOOL ? NULL : o->choices ? o->choices : o->arg ? o->arg : "VALUE";
        help_line(out, o->letter, o->name, arg, o->help,
                  o->kind == DV_OPT_BOOL && o->preset && !strcmp(o->preset, "false") ? NULL : o->preset);
        has_env |= !o->cli_only;
    }
    if (!spec->has_no_config)
        help_line(out, 0, "config", "FILE", "Read options from this JSON file, keys as the names here.",
                  NULL);
    help_line(out, 'h', "help", NULL, "Show this help and leave.", NULL);
    help_line(out, 0, "version", NULL, "Show the version and leave.", NULL);
    if (has_env)
        (void)dv_buf_add_c(out,
                           "\nEvery option that takes part in configuration may come from the environment: "
                           "--metrics-listen is\nDAVIT_METRICS_LISTEN. The command line wins over the "
                           "environment, which wins over the file.\n");
    if (spec->epilogue)
        (void)dv_buf_addf(out, "\n%s\n", spec->epilogue);
    return out->failed;
}

bool dv_opts_main(const struct dv_opts_spec *spec, int argc, char *const *argv, struct dv_arena *arena,
                  struct dv_opts_result *res, int *exit_code)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_opts_parse(spec, argc, argv, environ, arena, res, &err);
    *exit_code = rc ? 2 : 0;
    if (rc) {
        (void)fprintf(stderr, "%s: %s\n", spec->program, dv_err_msg(&err, rc));
        return false;
    }
    if (res->want_help) {
        DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
        (void)dv_opts_help(spec, &text);
        (void)fwrite(dv_buf_ptr(&text), 1, dv_buf_len(&text), stdout);
        return false;
    }
    if (res->want_version) {
        (void)printf("%s %s\n", spec->program, DAVIT_VERSION);
        return false;
    }
    return true;
}

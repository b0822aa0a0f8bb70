/* Calls to the gateway, one at a time, blocking: libcurl's easy interface.
 * Explaining a refusal is done here, once, for every command. */
#include <cjson/cJSON.h>
#include <curl/curl.h>

#include "deploy/cli/cli.h"

struct transfer {
    struct cli_reply *reply;
    const struct cli_call *call;
    CURL *easy;
    bool is_stopped;
};

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    long status = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (t->call->on_data && status >= 200 && status < 300) {
        t->is_stopped = t->call->on_data(t->call->ctx, dv_sv(p, size * n)) != 0;
        return t->is_stopped ? 0 : size * n;
    }
    return dv_buf_add(&t->reply->body, p, size * n) == DV_OK ? size * n : 0;
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    if (size * n > 5 && memcmp(p, "HTTP/", 5) == 0) /* 100-continue has headers too: keep the last answer's */
        dv_buf_clear(&t->reply->headers);
    return dv_buf_add(&t->reply->headers, p, size * n) == DV_OK ? size * n : 0;
}

static struct curl_slist *add_line(struct curl_slist *list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(list, line);
    if (!longer)
        cli_out_of_memory();
    return longer;
}

static struct curl_slist *header_lines(struct cli *c, const struct cli_call *call)
{
    const char *type = call->content_type ? call->content_type : "application/json";
    /* No "Expect: 100-continue" of curl's own: it costs a round trip and the API needs none. */
    struct curl_slist *list = add_line(NULL, "Expect:");
    if (call->body.n)
        list = add_line(list, cli_format(c, "Content-Type: %s", type));
    for (size_t i = 0; call->headers && i < call->headers->n; i++)
        list = add_line(list, call->headers->v[i]);
    return list;
}

static void set_up(struct cli *c, CURL *e, const struct cli_call *call, struct transfer *t,
                   struct curl_slist *lines)
{
    const char *base = call->unix_socket ? "http://engine" : c->gateway;
    (void)curl_easy_setopt(e, CURLOPT_URL, cli_format(c, "%s%s", base, call->path));
    (void)curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    (void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, call->method);
    (void)curl_easy_setopt(e, CURLOPT_NOBODY, strcmp(call->method, "HEAD") == 0 ? 1L : 0L);
    (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, lines);
    (void)curl_easy_setopt(e, CURLOPT_USERAGENT, "davit/" DAVIT_VERSION);
    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
    (void)curl_easy_setopt(e, CURLOPT_TIMEOUT, call->timeout_s);
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    (void)curl_easy_setopt(e, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    if (call->unix_socket)
        (void)curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, call->unix_socket);
    if (call->body.n || strcmp(call->method, "POST") == 0 || strcmp(call->method, "PUT") == 0) {
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body.n ? call->body.p : "");
        (void)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.n);
    }
    if (!call->anonymous && !call->unix_socket && c->password) {
        (void)curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        (void)curl_easy_setopt(e, CURLOPT_USERNAME, c->user);
        (void)curl_easy_setopt(e, CURLOPT_PASSWORD, c->password);
    }
}

static bool is_no_answer(CURLcode code)
{
    return code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
           code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_OPERATION_TIMEDOUT ||
           code == CURLE_GOT_NOTHING || code == CURLE_SSL_CONNECT_ERROR ||
           code == CURLE_PEER_FAILED_VERIFICATION;
}

int cli_send(struct cli *c, const struct cli_call *call, struct cli_reply *out)
{
    char why[CURL_ERROR_SIZE] = "";
    *out = (struct cli_reply){0};
    if (!call->anonymous && !call->unix_socket && cli_login_find(c) != CLI_OK)
        return CLI_FAILURE;
    CURL *e = curl_easy_init();
    if (!e)
        cli_out_of_memory();
    struct transfer t = {.reply = out, .call = call, .easy = e};
    struct curl_slist *lines = header_lines(c, call);
    set_up(c, e, call, &t, lines);
    (void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, why);
    CURLcode code = curl_easy_perform(e);
    (void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &out->status);
    curl_slist_free_all(lines);
    curl_easy_cleanup(e);
    if (code != CURLE_OK && !t.is_stopped) {
        const char *words = why[0] ? why : curl_easy_strerror(code);
        if (call->quiet)
            return CLI_UNREACHABLE;
        if (call->unix_socket)
            return cli_fail(CLI_UNREACHABLE, "%s: %s", call->unix_socket, words);
        if (is_no_answer(code))
            return cli_fail(CLI_UNREACHABLE, "no answer from %s: %s%s", c->gateway, words,
                            cli_gateway_is_local(c->gateway)
                                ? "\n       is it running? start it with: davit cluster up"
                                : "\n       check --gateway or DAVIT_URL");
        return cli_fail(CLI_FAILURE, "the exchange with %s broke off: %s", c->gateway, words);
    }
    out->json = cJSON_ParseWithLength(dv_buf_ptr(&out->body), dv_buf_len(&out->body));
    return CLI_OK;
}

int cli_do(struct cli *c, const struct cli_call *call, struct cli_reply *out)
{
    int code = cli_send(c, call, out);
    if (code == CLI_OK && (out->status < 200 || out->status > 299))
        code = cli_explain(c, out);
    return code;
}

int cli_get(struct cli *c, const char *path, struct cli_reply *out)
{
    return cli_do(c, &(struct cli_call){.method = "GET", .path = path, .timeout_s = 60}, out);
}

static int exit_code_of(long status)
{
    switch (status) {
    case 401:
    case 403:
        return CLI_DENIED;
    case 404:
        return CLI_NOT_FOUND;
    case 409:
    case 412:
        return CLI_CONFLICT;
    default:
        return CLI_FAILURE;
    }
}

/* What the person can do about it, where the answer does not say so itself. */
static const char *advice(struct cli *c, long status, const char *code, const char *function)
{
    if (status >= 500 && function && code && strcmp(code, "function_failing") == 0)
        return cli_format(c, "what happened, and why: davit describe %s", function);
    switch (status) {
    case 401:
        return c->password ? "the password is wrong: davit login, DAVIT_PASSWORD or --password-file"
                           : "no password was found: davit login, DAVIT_PASSWORD or --password-file";
    case 409:
        return "look at what is there: davit describe; davit list";
    case 412:
        return "it was changed since you read it: look again, then repeat";
    case 429:
        return "wait a moment, then repeat";
    case 503:
        return "is a node ready? davit nodes; davit cluster status";
    default:
        return NULL;
    }
}

int cli_explain(struct cli *c, const struct cli_reply *r)
{
    const char *detail = cli_json_text(r->json, "detail", NULL);
    const char *field = cli_json_text(r->json, "field", NULL);
    const char *what =
        advice(c, r->status, cli_json_text(r->json, "code", NULL), cli_json_text(r->json, "function", NULL));
    if (!detail)
        detail = cli_json_text(r->json, "title", NULL);
    if (!detail && !r->json && dv_buf_len(&r->body))
        detail = cli_format(c, "%.*s", (int)(dv_buf_len(&r->body) > 500 ? 500 : dv_buf_len(&r->body)),
                            dv_buf_ptr(&r->body));
    if (!detail)
        detail = "the answer says nothing more";
    if (field && strncmp(detail, field, strlen(field)) == 0)
        field = NULL; /* the detail names it already */
    size_t n = strcspn(detail, "\n");
    bool is_one_line = detail[n] == 0 || detail[n + 1] == 0;
    return cli_fail(exit_code_of(r->status), "%s%s%.*s (%ld)%s%s", field ? field : "", field ? ": " : "",
                    is_one_line ? (int)n : (int)strlen(detail), detail, r->status, what ? "\n       " : "",
                    what ? what : "");
}

void cli_reply_free(struct cli_reply *r)
{
    dv_buf_deinit(&r->body);
    dv_buf_deinit(&r->headers);
    cJSON_Delete(r->json);
    r->json = NULL;
}

const char *cli_reply_header(struct cli *c, const struct cli_reply *r, const char *name)
{
    struct dv_sv rest = dv_buf_sv(&r->headers), line, key, value;
    while (rest.n) {
        (void)dv_sv_cut(rest, '\n', &line, &rest);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (dv_sv_cut(line, ':', &key, &value) && dv_sv_eq_nocase(key, dv_sv_c(name))) {
            value = dv_sv_trim(value);
            return cli_format(c, "%.*s", (int)value.n, value.p);
        }
    }
    return NULL;
}

const char *cli_escape(struct cli *c, const char *s)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = dv_arena_alloc(&c->arena, 3 * strlen(s) + 1), *p = out;
    if (!out)
        cli_out_of_memory();
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
                     memchr("-._~", ch, 4) != NULL;
        if (plain) {
            *p++ = (char)ch;
        } else {
            *p++ = '%';
            *p++ = hex[ch >> 4];
            *p++ = hex[ch & 15];
        }
    }
    *p = 0;
    return out;
}

void cli_fn_split(struct cli *c, const char *word, const char **out_name, const char **out_ns)
{
    const char *dot = c->ns ? NULL : strrchr(word, '.');
    *out_name = dot ? cli_format(c, "%.*s", (int)(dot - word), word) : word;
    *out_ns = dot ? dot + 1 : c->ns;
}

const char *cli_fn_path(struct cli *c, const char *word, const char *suffix)
{
    const char *name, *ns;
    cli_fn_split(c, word, &name, &ns);
    return cli_format(c, "/v1/functions/%s%s%s%s", cli_escape(c, name), suffix, ns ? "?namespace=" : "",
                      ns ? cli_escape(c, ns) : "");
}

int cli_show_list(struct cli *c, const char *path, const char *key, const char *const *columns,
                  size_t n_columns, void (*row)(struct cli *c, struct cli_table *t, const struct cJSON *item))
{
    CLI_AUTO_REPLY reply = {0};
    int code = cli_get(c, path, &reply);
    if (code)
        return code;
    if (c->format == CLI_JSON) {
        cli_json_print(reply.json);
        return CLI_OK;
    }
    struct cli_table *t = cli_table_new(c, columns, n_columns);
    const cJSON *item, *items = cli_json_items(reply.json, key);
    cJSON_ArrayForEach (item, items)
        row(c, t, item);
    cli_table_print(t);
    return CLI_OK;
}

int cli_remove_each(struct cli *c, const struct cli_list *words, const char *kind, const char *done,
                    const char *(*path)(struct cli *c, const char *name))
{
    int code = CLI_OK;
    for (size_t i = 0; i < words->n; i++) {
        CLI_AUTO_REPLY reply = {0};
        int one = cli_do(
            c, &(struct cli_call){.method = "DELETE", .path = path(c, words->v[i]), .timeout_s = 60}, &reply);
        if (one == CLI_OK)
            cli_note("%s %s %s", kind, words->v[i], done);
        code = code ? code : one;
    }
    return code;
}

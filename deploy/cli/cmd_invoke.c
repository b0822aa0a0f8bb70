/* davit invoke: call a function as anybody would, through the gateway. */
#include <stdio.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

static int read_body(struct cli *c, const struct cli_invoke_args *a, struct dv_sv *out)
{
    *out = dv_sv("", 0);
    if (a->data) {
        *out = dv_sv_c(a->data);
    } else if (a->file || !isatty(0)) {
        size_t n;
        const char *s = cli_read_file(c, a->file ? a->file : "-", &n);
        if (!s)
            return CLI_FAILURE;
        *out = dv_sv(s, n);
    }
    return CLI_OK;
}

/* The part behind the function's name: "/rest?query", begun with a slash whether or not it was given with
 * one. */
static const char *rest_of(struct cli *c, const char *path)
{
    if (!path || !*path)
        return "";
    return path[0] == '/' || path[0] == '?' ? path : cli_format(c, "/%s", path);
}

static const char *public_path(struct cli *c, const struct cli_invoke_args *a, const char *word)
{
    const char *name, *ns;
    cli_fn_split(c, word, &name, &ns);
    return cli_format(c, "%s/%s%s%s%s", a->async ? "/async-function" : "/function", cli_escape(c, name),
                      ns ? "." : "", ns ? cli_escape(c, ns) : "", rest_of(c, a->path));
}

/* A function that is not open to everybody is called with our credentials. */
static const char *protected_path(struct cli *c, const struct cli_invoke_args *a, const char *word)
{
    const char *name, *ns, *rest = rest_of(c, a->path);
    cli_fn_split(c, word, &name, &ns);
    return cli_format(c, "/v1/functions/%s/invoke%s%s%s%s", cli_escape(c, name), rest,
                      ns ? strchr(rest, '?') ? "&" : "?" : "", ns ? "namespace=" : "",
                      ns ? cli_escape(c, ns) : "");
}

static int print_stream(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    if (fwrite(bytes.p, 1, bytes.n, stdout) != bytes.n || fflush(stdout) != 0)
        return -1; /* whoever read us has left */
    return 0;
}

static bool is_problem(struct cli *c, const struct cli_reply *r)
{
    const char *type = cli_reply_header(c, r, "Content-Type");
    return (type && strncmp(type, "application/problem+json", 24) == 0) ||
           cli_reply_header(c, r, "X-OpenFaaS-Internal");
}

/* An answer of 400 and more: ours is explained, the function's own is shown as it is. */
static int refused(struct cli *c, const struct cli_reply *r)
{
    if (is_problem(c, r) || r->status == 401)
        return cli_explain(c, r);
    (void)fwrite(dv_buf_ptr(&r->body), 1, dv_buf_len(&r->body), stdout);
    (void)fflush(stdout);
    return cli_fail(CLI_FAILURE, "the function answered %ld", r->status);
}

int cli_cmd_invoke(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_invoke_args *a = args;
    struct dv_sv body;
    CLI_AUTO_REPLY reply = {0};
    int code = read_body(c, a, &body);
    if (code)
        return code;
    struct cli_call call = {.method = a->method ? a->method : "POST",
                            .path = public_path(c, a, words->v[0]),
                            .body = body,
                            .content_type = a->content_type ? a->content_type : "text/plain",
                            .headers = &a->headers,
                            .anonymous = true,
                            .timeout_s = a->timeout == CLI_UNSET ? 0 : (long)((a->timeout + 999) / 1000),
                            .on_data = print_stream};
    code = cli_send(c, &call, &reply);
    if (code == CLI_OK && reply.status == 401 && !a->async) {
        cli_reply_free(&reply);
        call.path = protected_path(c, a, words->v[0]);
        call.anonymous = false;
        code = cli_send(c, &call, &reply);
    }
    if (code)
        return code;
    if (a->include)
        (void)fwrite(dv_buf_ptr(&reply.headers), 1, dv_buf_len(&reply.headers), stderr);
    if (reply.status >= 400)
        return refused(c, &reply);
    (void)fwrite(dv_buf_ptr(&reply.body), 1, dv_buf_len(&reply.body), stdout); /* of a redirection */
    if (a->async)
        cli_note("accepted, call %s", cli_reply_header(c, &reply, "X-Call-Id"));
    return CLI_OK;
}

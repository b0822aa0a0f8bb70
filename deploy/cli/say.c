/* Talking to the person: failures, notes, one line of progress; and reading the files they name. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

static bool line_open; /* a progress line stands on the terminal */

static void close_line(void)
{
    if (line_open)
        (void)fputs("\r\033[K", stderr);
    line_open = false;
}

int cli_fail(int code, const char *fmt, ...)
{
    va_list ap;
    close_line();
    (void)fputs("davit: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    return code;
}

void cli_note(const char *fmt, ...)
{
    va_list ap;
    close_line();
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
}

void cli_progress(struct cli *c, const char *text)
{
    static char last[200];
    if (!text) {
        close_line();
        last[0] = 0;
        return;
    }
    if (strcmp(last, text) == 0)
        return;
    (void)dv_copy(last, sizeof(last), text);
    if (c->is_terminal) {
        (void)fprintf(stderr, "\r\033[K%.76s", last);
        (void)fflush(stderr);
        line_open = true;
    } else {
        (void)fprintf(stderr, "%s\n", last);
    }
}

_Noreturn void cli_out_of_memory(void)
{
    (void)fputs("davit: out of memory\n", stderr);
    exit(CLI_FAILURE);
}

char *cli_format(struct cli *c, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : dv_arena_alloc(&c->arena, (size_t)n + 1);
    if (!s)
        cli_out_of_memory();
    va_start(ap, fmt);
    (void)vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

const char *cli_read_file(struct cli *c, const char *path, size_t *out_len)
{
    DV_AUTO_FD int fd = strcmp(path, "-") == 0 ? dup(0) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)cli_fail(CLI_FAILURE, "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    for (;;) {
        if (dv_buf_reserve(&b, 64 * 1024) != DV_OK)
            cli_out_of_memory();
        ssize_t n = read(fd, dv_buf_end(&b), dv_buf_room(&b));
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            (void)cli_fail(CLI_FAILURE, "cannot read %s: %s", path, strerror(errno));
            return NULL;
        }
        dv_buf_commit(&b, (size_t)n);
    }
    *out_len = dv_buf_len(&b);
    char *s = dv_arena_strndup(&c->arena, dv_buf_ptr(&b), dv_buf_len(&b));
    if (!s)
        cli_out_of_memory();
    return s;
}

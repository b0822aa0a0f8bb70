#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/loop.h"
#include "proto/rt/sys.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    (void)dv_copy(dir, sizeof(dir), "/tmp/dv-sys-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    DV_AUTO_STR char *cmd = dv_asprintf("rm -rf '%s'", dir);
    FILE *p = popen(cmd, "r");
    return p ? pclose(p) : -1;
}

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int i;
    i = (i + 1) % 4;
    (void)snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
    return path[i];
}

static void directories_are_made_with_their_parents_and_exact_mode(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    struct stat st;
    mode_t mask = umask(077);
    assert_int_equal(dv_mkdirs(in_dir("a/b/c/"), 0711, &err), DV_OK);
    (void)umask(mask);
    assert_int_equal(stat(in_dir("a/b"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_int_equal(dv_mkdirs(in_dir("a/b/c"), 0700, &err), DV_OK);
    assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
}

static void a_file_in_the_way_of_a_directory_is_named(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_file_write(in_dir("f"), DV_SV("x"), 0600, &err), DV_OK);
    assert_int_equal(dv_mkdirs(in_dir("f"), 0700, &err), DV_INVALID);
    assert_non_null(strstr(err.msg, "/f is not a directory"));
    assert_int_equal(dv_mkdirs(in_dir("f/g"), 0700, &err), DV_INVALID);
}

static void a_file_is_replaced_whole_and_read_back(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct stat st;
    assert_int_equal(dv_file_write(in_dir("f"), DV_SV("first and long"), 0644, &err), DV_OK);
    assert_int_equal(dv_file_write(in_dir("f"), DV_SV("second"), 0600, &err), DV_OK);
    assert_int_equal(stat(in_dir("f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(dv_buf_add_c(&b, "before "), DV_OK);
    assert_int_equal(dv_file_read(in_dir("f"), 6, &b, &err), DV_OK);
    assert_true(dv_sv_eq(dv_buf_sv(&b), DV_SV("before second")));
}

static void reading_is_bounded_and_leaves_the_buffer_alone_on_failure(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_buf_add_c(&b, "kept"), DV_OK);
    assert_int_equal(dv_file_write(in_dir("f"), DV_SV("1234567"), 0600, &err), DV_OK);
    assert_int_equal(dv_file_read(in_dir("f"), 6, &b, &err), DV_TOO_LARGE);
    assert_int_equal(dv_file_read(in_dir("absent"), 6, &b, &err), DV_NOT_FOUND);
    assert_non_null(strstr(err.msg, "absent"));
    assert_int_equal(dv_file_read(dir, 6, &b, &err), DV_INVALID);
    assert_true(dv_sv_eq(dv_buf_sv(&b), DV_SV("kept")));
}

static void a_write_that_fails_leaves_the_old_file_and_no_litter(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_file_write(in_dir("no/such/dir"), DV_SV("x"), 0600, &err), DV_NOT_FOUND);
    assert_int_equal(dv_mkdirs(in_dir("d"), 0700, &err), DV_OK);
    assert_int_not_equal(dv_file_write(in_dir("d"), DV_SV("x"), 0600, &err),
                         DV_OK); /* a directory stands there */
    DV_AUTO_STR char *cmd = dv_asprintf("ls -A '%s' | wc -l", dir);
    FILE *p = popen(cmd, "r");
    char out[16] = "";
    assert_non_null(fgets(out, sizeof(out), p));
    (void)pclose(p);
    assert_string_equal(out, "1\n");
}

static void random_bytes_differ(void **state)
{
    (void)state;
    unsigned char a[32] = {0}, b[32] = {0};
    assert_int_equal(dv_random(a, sizeof(a), NULL), DV_OK);
    assert_int_equal(dv_random(b, sizeof(b), NULL), DV_OK);
    assert_memory_not_equal(a, b, sizeof(a));
}

static void addresses_are_cut_into_host_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int fallback, rc;
        const char *host;
        int port;
        bool is_loopback;
    } rows[] = {
        {"127.0.0.1:8080", -1, DV_OK, "127.0.0.1", 8080, true},
        {"127.9.9.9:0", -1, DV_OK, "127.9.9.9", 0, true},
        {"localhost:80", -1, DV_OK, "localhost", 80, true},
        {"[::1]:443", -1, DV_OK, "::1", 443, true},
        {"[::]:443", -1, DV_OK, "::", 443, false},
        {":8080", -1, DV_OK, "", 8080, false},
        {"*:8080", -1, DV_OK, "", 8080, false},
        {"node-1.example:65535", -1, DV_OK, "node-1.example", 65535, false},
        {"node-1", 8090, DV_OK, "node-1", 8090, false},
        {"[::1]", 8090, DV_OK, "::1", 8090, true},
        {"node-1", -1, DV_INVALID, "", 0, false},
        {"", 80, DV_INVALID, "", 0, false},
        {"h:65536", -1, DV_INVALID, "", 0, false},
        {"h:-1", -1, DV_INVALID, "", 0, false},
        {"h:", -1, DV_INVALID, "", 0, false},
        {"::1:80", -1, DV_INVALID, "", 0, false},
        {"[::1:80", -1, DV_INVALID, "", 0, false},
        {"http://h:80", -1, DV_INVALID, "", 0, false},
        {"a b:80", -1, DV_INVALID, "", 0, false},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        struct dv_hostport hp = {"untouched", 1};
        struct dv_err err = DV_ERR_INIT;
        assert_int_equal(dv_hostport_parse(rows[i].text, rows[i].fallback, &hp, &err), rows[i].rc);
        if (rows[i].rc) {
            assert_string_equal(hp.host, "untouched");
            assert_true(err.msg[0]);
            continue;
        }
        assert_string_equal(hp.host, rows[i].host);
        assert_int_equal(hp.port, rows[i].port);
        assert_int_equal(dv_hostport_is_loopback(&hp), rows[i].is_loopback);
    }
}

static void a_port_in_use_is_named_with_its_cure(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_FD int a = -1;
    int b = -1;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &a, &err), DV_OK);
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_socket_port(a));
    assert_int_equal(dv_listen_tcp(address, 0, "--listen", &b, &err), DV_EXISTS);
    assert_int_equal(b, -1);
    char want[160];
    (void)snprintf(want, sizeof(want),
                   "address %s already in use: another program listens there; choose another with --listen",
                   address);
    assert_string_equal(err.msg, want);
}

static void reuseport_lets_two_listeners_share_a_port(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_FD int a = -1;
    DV_AUTO_FD int b = -1;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", DV_LISTEN_REUSEPORT, NULL, &a, &err), DV_OK);
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_socket_port(a));
    assert_int_equal(dv_listen_tcp(address, DV_LISTEN_REUSEPORT, NULL, &b, &err), DV_OK);
}

static void a_listener_on_every_address_takes_ipv4(void **state)
{
    (void)state;
    DV_AUTO_FD int a = -1;
    assert_int_equal(dv_listen_tcp(":0", 0, NULL, &a, NULL), DV_OK);
    assert_true(dv_socket_port(a) > 0);
}

static void foreign_addresses_and_bad_names_are_refused(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    int fd = -1;
    assert_int_equal(dv_listen_tcp("192.0.2.1:0", 0, "--listen", &fd, &err), DV_INVALID);
    assert_non_null(strstr(err.msg, "does not belong to this machine"));
    assert_int_equal(dv_listen_tcp("8080", 0, "--listen", &fd, &err), DV_INVALID);
    assert_int_equal(fd, -1);
}

static void a_stale_unix_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    struct stat st;
    int a = -1, b = -1;
    assert_int_equal(dv_listen_unix(in_dir("s"), 0600, &a, &err), DV_OK);
    assert_int_equal(stat(in_dir("s"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(dv_listen_unix(in_dir("s"), 0600, &b, &err), DV_EXISTS);
    assert_non_null(strstr(err.msg, "another program listens there"));
    (void)close(a);
    assert_int_equal(dv_listen_unix(in_dir("s"), 0660, &b, &err), DV_OK);
    assert_int_equal(stat(in_dir("s"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    (void)close(b);
}

static void a_file_that_is_no_socket_is_never_removed(void **state)
{
    (void)state;
    struct dv_err err = DV_ERR_INIT;
    int fd = -1;
    assert_int_equal(dv_file_write(in_dir("s"), DV_SV("precious"), 0600, &err), DV_OK);
    assert_int_equal(dv_listen_unix(in_dir("s"), 0600, &fd, &err), DV_INVALID);
    assert_int_equal(access(in_dir("s"), F_OK), 0);
    char longer[200];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(dv_listen_unix(longer, 0600, &fd, &err), DV_INVALID);
}

struct seen {
    int last, n;
    struct dv_signals *stop_me;
};

static void on_signal(void *ctx, int signo)
{
    struct seen *s = ctx;
    s->last = signo;
    s->n++;
    if (s->stop_me)
        dv_signals_stop(s->stop_me);
    s->stop_me = NULL;
}

static void signals_arrive_on_the_loop(void **state)
{
    (void)state;
    struct dv_loop *loop = NULL;
    struct dv_signals *s = NULL;
    struct seen seen = {0};
    static const int list[] = {SIGUSR1, SIGTERM};
    assert_int_equal(dv_loop_new(&dv_clock_system, &loop, NULL), DV_OK);
    assert_int_equal(dv_signals_start(loop, list, 2, on_signal, &seen, &s, NULL), DV_OK);
    assert_int_equal(raise(SIGTERM), 0);
    assert_int_equal(seen.n, 0);
    assert_int_equal(dv_loop_turn(loop, 1000), DV_OK);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.last, SIGTERM);
    seen.stop_me = s; /* a handler may stop its own watch */
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(dv_loop_turn(loop, 1000), DV_OK);
    assert_int_equal(seen.last, SIGUSR1);
    dv_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(directories_are_made_with_their_parents_and_exact_mode, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_file_in_the_way_of_a_directory_is_named, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_file_is_replaced_whole_and_read_back, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reading_is_bounded_and_leaves_the_buffer_alone_on_failure, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_write_that_fails_leaves_the_old_file_and_no_litter, make_dir,
                                        remove_dir),
        cmocka_unit_test(random_bytes_differ),
        cmocka_unit_test(addresses_are_cut_into_host_and_port),
        cmocka_unit_test(a_port_in_use_is_named_with_its_cure),
        cmocka_unit_test(reuseport_lets_two_listeners_share_a_port),
        cmocka_unit_test(a_listener_on_every_address_takes_ipv4),
        cmocka_unit_test(foreign_addresses_and_bad_names_are_refused),
        cmocka_unit_test_setup_teardown(a_stale_unix_socket_is_replaced_and_a_live_one_is_not, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_socket_is_never_removed, make_dir, remove_dir),
        cmocka_unit_test(signals_arrive_on_the_loop),
    };
    return cmocka_run_group_tests_name("sys", tests, NULL, NULL);
}

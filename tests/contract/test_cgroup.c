/* Control groups against the machine's own kernel: a group of the test's making, with a process of its own
 * inside. Needs root and a writable hierarchy; says so and skips otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/cgroup/cgroup_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    pid_t pid;
    char dirs[4][512];
    int n_dirs;
    struct dv_cgroup *group;
};

static struct fixture f; /* made by setup; *state points at it when it can be used */

static bool make_dir(const struct dv_cg_mount *m)
{
    char *dir = f.dirs[f.n_dirs];
    if (!m->at[0])
        return false;
    (void)snprintf(dir, sizeof(f.dirs[0]), "%s/davit-test-%d", m->at, (int)getpid());
    if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
        print_message("[ SKIPPING ] cannot make %s: %s\n", dir, strerror(errno));
        return false;
    }
    f.n_dirs++;
    char pid[16];
    (void)snprintf(pid, sizeof(pid), "%d", (int)f.pid);
    return dv_cg_write(dir, "cgroup.procs", pid, NULL) == DV_OK;
}

static void spin(void)
{
    for (volatile uint64_t i = 0;; i++)
        if (!(i & 0xfffff))
            (void)usleep(1000);
}

static int setup(void **state)
{
    struct dv_err err = DV_ERR_INIT;
    *state = NULL;
    f.pid = fork();
    if (!f.pid)
        spin();
    if (geteuid() != 0 || dv_cgroup_setup(&err)) {
        print_message("[ SKIPPING ] needs root and mounted control groups: %s\n", err.msg);
        return 0;
    }
    FILE *mi = fopen("/proc/self/mountinfo", "re");
    static char text[256 * 1024];
    size_t n = mi ? fread(text, 1, sizeof(text), mi) : 0;
    if (mi)
        (void)fclose(mi);
    struct dv_cg_mount m[CG_N];
    dv_cg_parse_mounts(dv_sv(text, n), m);
    bool ok = dv_cgroup_version() == DV_CGROUP_V2
                  ? make_dir(&m[CG_UNIFIED])
                  : make_dir(&m[CG_MEMORY]) && make_dir(&m[CG_FREEZER]) && make_dir(&m[CG_CPUACCT]);
    if (ok && dv_cgroup_of_pid(f.pid, &f.group, NULL) == DV_OK)
        *state = &f;
    return 0;
}

static int teardown(void **state)
{
    bool is_frozen;
    (void)state;
    if (f.group && dv_cgroup_is_frozen(f.group, &is_frozen, NULL) == DV_OK && is_frozen)
        (void)dv_cgroup_freeze(f.group, false, NULL);
    (void)kill(f.pid, SIGKILL);
    (void)waitpid(f.pid, NULL, 0);
    dv_cgroup_free(f.group);
    for (int i = 0; i < f.n_dirs; i++)
        for (int tries = 0; rmdir(f.dirs[i]) < 0 && errno == EBUSY && tries < 100; tries++)
            (void)usleep(1000); /* the kernel lets go of a dead process a little later */
    return 0;
}

static struct fixture *need(void **state)
{
    if (!*state) {
        print_message("[ SKIPPING ] no control group of our own could be made here\n");
        skip();
    }
    return *state;
}

static int64_t cpu_us(struct fixture *own)
{
    struct dv_cgroup_usage u;
    assert_int_equal(dv_cgroup_usage(own->group, &u, NULL), DV_OK);
    return u.cpu_us;
}

static void usage_of_a_running_process_grows(void **state)
{
    struct fixture *own = need(state);
    int64_t before = cpu_us(own), after = before;
    for (int i = 0; i < 1000 && after <= before; i++) {
        (void)usleep(1000);
        after = cpu_us(own);
    }
    assert_true(after > before);
}

static void a_frozen_process_uses_no_cpu_until_it_is_thawed(void **state)
{
    struct fixture *own = need(state);
    bool is_frozen = false;
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_cgroup_freeze(own->group, true, &err);
    if (rc)
        print_message("%s\n", err.msg);
    assert_int_equal(rc, DV_OK);
    assert_int_equal(dv_cgroup_is_frozen(own->group, &is_frozen, NULL), DV_OK);
    assert_true(is_frozen);
    int64_t before = cpu_us(own);
    (void)usleep(20000);
    assert_int_equal(cpu_us(own), before);
    assert_int_equal(dv_cgroup_freeze(own->group, false, NULL), DV_OK);
    assert_int_equal(dv_cgroup_is_frozen(own->group, &is_frozen, NULL), DV_OK);
    assert_false(is_frozen);
    usage_of_a_running_process_grows(state);
}

static void a_memory_limit_set_is_the_limit_read_back(void **state)
{
    struct fixture *own = need(state);
    struct dv_cgroup_usage u;
    int64_t limit;
    if (dv_cgroup_version() == DV_CGROUP_V2 &&
        dv_cg_read_i64(dv_cgroup_path(own->group, "memory"), "memory.max", &limit) == DV_NOT_FOUND) {
        print_message("[ SKIPPING ] cgroup v2 without its memory controller (another hierarchy has it)\n");
        skip();
    }
    assert_int_equal(dv_cgroup_set_limits(own->group, 64 << 20, 0, 0, NULL), DV_OK);
    assert_int_equal(dv_cgroup_usage(own->group, &u, NULL), DV_OK);
    assert_int_equal(u.memory_limit_bytes, 64 << 20);
    assert_int_equal(dv_cgroup_set_limits(own->group, 128 << 20, 0, 0, NULL), DV_OK);
    assert_int_equal(dv_cgroup_usage(own->group, &u, NULL), DV_OK);
    assert_int_equal(u.memory_limit_bytes, 128 << 20);
}

static void a_process_that_is_gone_is_not_found(void **state)
{
    (void)state;
    struct dv_cgroup *g = NULL;
    assert_int_equal(dv_cgroup_of_pid(0x7ffffffe, &g, NULL), DV_NOT_FOUND);
    assert_int_equal(dv_cgroup_of_pid(-1, &g, NULL), DV_NOT_FOUND);
}

static void the_machine_tells_its_use(void **state)
{
    (void)state;
    int64_t cpu = 0, mem = 0;
    assert_int_equal(dv_machine_usage(&cpu, &mem, NULL), DV_OK);
    assert_true(cpu > 0);
    assert_true(mem > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_of_a_running_process_grows),
        cmocka_unit_test(a_frozen_process_uses_no_cpu_until_it_is_thawed),
        cmocka_unit_test(a_memory_limit_set_is_the_limit_read_back),
        cmocka_unit_test(a_process_that_is_gone_is_not_found),
        cmocka_unit_test(the_machine_tells_its_use),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

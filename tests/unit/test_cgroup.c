/* Finding and reading control groups, on directories of the test's own making: every layout, on any machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/cgroup/cgroup_internal.h"
#include "proto/base/alloc.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char g_dir[] = "/tmp/davit-test-cgroup-XXXXXX";

static void put(const char *file, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", g_dir, file);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(g_dir) ? 0 : -1;
}

static int drop(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(g_dir, drop, 8, FTW_DEPTH | FTW_PHYS);
}

static const char v1_mounts[] =
    "25 1 0:20 / /proc rw - proc proc rw\n"
    "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n"
    "32 30 0:28 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,name=systemd\n"
    "33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 30 0:30 /outer /sys/fs/cgroup/memory rw shared:8 master:1 - cgroup cgroup rw,memory\n";

static void mounts_are_found_with_the_part_of_the_hierarchy_they_show(void **state)
{
    (void)state;
    struct dv_cg_mount m[CG_N];
    dv_cg_parse_mounts(dv_sv_c(v1_mounts), m);
    assert_string_equal(m[CG_CPU].at, "/sys/fs/cgroup/cpu,cpuacct");
    assert_string_equal(m[CG_CPUACCT].at, "/sys/fs/cgroup/cpu,cpuacct");
    assert_string_equal(m[CG_MEMORY].at, "/sys/fs/cgroup/memory");
    assert_string_equal(m[CG_MEMORY].root, "/outer");
    assert_string_equal(m[CG_UNIFIED].at, "/sys/fs/cgroup/unified");
    assert_string_equal(m[CG_FREEZER].at, "");
}

static void a_v1_group_is_found_in_each_hierarchy(void **state)
{
    (void)state;
    struct dv_cg_mount m[CG_N];
    dv_cg_parse_mounts(dv_sv_c(v1_mounts), m);
    DV_AUTO(dv_cgroup_free) struct dv_cgroup *g = NULL;
    assert_int_equal(
        dv_cg_resolve(
            DV_SV("4:memory:/outer/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/y\n"), m,
            DV_CGROUP_V1, &g, NULL),
        DV_OK);
    assert_string_equal(dv_cgroup_path(g, "memory"), "/sys/fs/cgroup/memory/docker/abc");
    assert_string_equal(dv_cgroup_path(g, "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/docker/abc");
    assert_string_equal(g->name[CG_MEMORY], "docker/abc");
    assert_string_equal(g->dir[CG_UNIFIED], "/sys/fs/cgroup/unified/y");
    assert_null(dv_cgroup_path(g, "freezer"));
}

static void a_group_outside_what_is_mounted_here_is_refused(void **state)
{
    (void)state;
    struct dv_cg_mount m[CG_N];
    struct dv_err err = DV_ERR_INIT;
    struct dv_cgroup *g = NULL;
    dv_cg_parse_mounts(dv_sv_c(v1_mounts), m);
    assert_int_equal(dv_cg_resolve(DV_SV("4:memory:/outermost/abc\n"), m, DV_CGROUP_V1, &g, &err), DV_E_IO);
    assert_null(g);
    assert_int_equal(dv_cg_resolve(DV_SV("3:cpu,cpuacct:/../../abc\n"), m, DV_CGROUP_V1, &g, &err), DV_E_IO);
}

static void v1_usage_counts_memory_without_page_cache_that_can_go(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V1,
                          .dir = {[CG_MEMORY] = g_dir, [CG_CPUACCT] = g_dir, [CG_PIDS] = g_dir}};
    put("memory.usage_in_bytes", "10485760\n");
    put("memory.stat", "cache 4194304\ninactive_file 1\ntotal_inactive_file 2097152\n");
    put("memory.limit_in_bytes", "9223372036854771712\n");
    put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
    put("cpuacct.usage", "1234567890\n");
    put("pids.current", "7\n");
    struct dv_cgroup_usage u;
    assert_int_equal(dv_cgroup_usage(&g, &u, NULL), DV_OK);
    assert_int_equal(u.memory_bytes, 8388608);
    assert_int_equal(u.memory_limit_bytes, 0);
    assert_int_equal(u.oom_kills, 3);
    assert_int_equal(u.cpu_us, 1234567);
    assert_int_equal(u.pids, 7);
}

static void v2_usage_reads_the_unified_files(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V2, .dir = {[CG_UNIFIED] = g_dir}};
    put("memory.current", "10485760\n");
    put("memory.stat", "anon 1\ninactive_file 2097152\n");
    put("memory.max", "16777216\n");
    put("memory.events", "low 0\noom 2\noom_kill 1\n");
    put("cpu.stat", "usage_usec 4242\nuser_usec 1\n");
    struct dv_cgroup_usage u;
    assert_int_equal(dv_cgroup_usage(&g, &u, NULL), DV_OK);
    assert_int_equal(u.memory_bytes, 8388608);
    assert_int_equal(u.memory_limit_bytes, 16777216);
    assert_int_equal(u.oom_kills, 1);
    assert_int_equal(u.cpu_us, 4242);
    put("memory.max", "max\n");
    assert_int_equal(dv_cgroup_usage(&g, &u, NULL), DV_OK);
    assert_int_equal(u.memory_limit_bytes, 0);
}

static void v2_freezing_gives_up_when_the_kernel_does_not_confirm(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V2, .dir = {[CG_UNIFIED] = g_dir}};
    put("cgroup.freeze", "");
    put("cgroup.events", "populated 1\nfrozen 0\n");
    assert_int_equal(dv_cgroup_freeze(&g, true, NULL), DV_DEADLINE);
    char text[8];
    assert_int_equal(dv_cg_read(g_dir, "cgroup.freeze", text, sizeof(text)), DV_OK);
    assert_string_equal(text, "1");
    put("cgroup.events", "populated 1\nfrozen 1\n");
    assert_int_equal(dv_cgroup_freeze(&g, true, NULL), DV_OK);
}

static void v2_memory_is_taken_by_the_file_that_is_for_it(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V2, .dir = {[CG_UNIFIED] = g_dir}};
    char text[24];
    int64_t got = -1;
    put("memory.current", "10485760\n");
    assert_false(dv_cgroup_can_reclaim(&g));
    assert_int_equal(dv_cgroup_reclaim(g_dir, 4096, &got, NULL), DV_UNSUPPORTED); /* a kernel before 5.19 */
    put("memory.reclaim", "");
    assert_true(dv_cgroup_can_reclaim(&g));
    assert_int_equal(dv_cgroup_reclaim(g_dir, 1048576, &got, NULL), DV_OK);
    assert_int_equal(got, 0); /* the test's file does not shrink */
    assert_int_equal(dv_cg_read(g_dir, "memory.reclaim", text, sizeof(text)), DV_OK);
    assert_string_equal(text, "1048576");
    g.version = DV_CGROUP_V1;
    assert_false(dv_cgroup_can_reclaim(&g));
}

static void only_a_group_of_the_containers_own_is_frozen(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V2,
                          .dir = {[CG_UNIFIED] = (char *)"/sys/fs/cgroup/system.slice/docker-0a1b.scope"}};
    assert_true(dv_cgroup_can_freeze(&g, "0a1b"));
    assert_false(dv_cgroup_can_freeze(&g, "0a1c"));
    assert_false(dv_cgroup_can_freeze(&g, ""));
    g.dir[CG_UNIFIED] = NULL;
    assert_false(dv_cgroup_can_freeze(&g, "0a1b"));
}

static void v2_limits_are_written_where_v2_keeps_them(void **state)
{
    (void)state;
    struct dv_cgroup g = {.version = DV_CGROUP_V2, .dir = {[CG_UNIFIED] = g_dir}};
    char text[64];
    put("memory.max", "max");
    put("cpu.max", "max 100000");
    put("pids.max", "max");
    assert_int_equal(dv_cgroup_set_limits(&g, 33554432, 500, 64, NULL), DV_OK);
    assert_int_equal(dv_cg_read(g_dir, "memory.max", text, sizeof(text)), DV_OK);
    assert_string_equal(text, "33554432");
    assert_int_equal(dv_cg_read(g_dir, "cpu.max", text, sizeof(text)), DV_OK);
    assert_string_equal(text, "50000 100000");
    assert_int_equal(dv_cg_read(g_dir, "pids.max", text, sizeof(text)), DV_OK);
    assert_memory_equal(text, "64", 2);
}

static void running_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    struct dv_cg_mount m[CG_N];
    dv_cg_parse_mounts(dv_sv_c(v1_mounts), m);
    for (uint64_t n = 1;; n++) {
        struct dv_cgroup *g = NULL;
        dv_alloc_fail_at(n);
        int rc = dv_cg_resolve(DV_SV("4:memory:/outer/a\n3:cpu,cpuacct:/a\n"), m, DV_CGROUP_V1, &g, NULL);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_true(n > 3);
            dv_cgroup_free(g);
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_null(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mounts_are_found_with_the_part_of_the_hierarchy_they_show),
        cmocka_unit_test(a_v1_group_is_found_in_each_hierarchy),
        cmocka_unit_test(a_group_outside_what_is_mounted_here_is_refused),
        cmocka_unit_test(v1_usage_counts_memory_without_page_cache_that_can_go),
        cmocka_unit_test(v2_usage_reads_the_unified_files),
        cmocka_unit_test(v2_freezing_gives_up_when_the_kernel_does_not_confirm),
        cmocka_unit_test(v2_memory_is_taken_by_the_file_that_is_for_it),
        cmocka_unit_test(only_a_group_of_the_containers_own_is_frozen),
        cmocka_unit_test(v2_limits_are_written_where_v2_keeps_them),
        cmocka_unit_test(running_out_of_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

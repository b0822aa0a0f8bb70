/* What every engine must do, held against the in-memory one and against Docker.  With Docker the containers
 * are real ones of an image made here from the static busybox; they carry a label of this run and are removed
 * by it. */
#include "tests/support/docker_raw.h"
#include "tests/support/engine_world.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/engine/engine_fake.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/sys.h"

static char image[64], label[64], other_label[64], name[64];
static const char *why_skipped = "not asked for"; /* NULL while the real engine is used */

/* ---- the two backends ---- */

static int open_fake(void **state)
{
    static char *entrypoint[] = {(char *)(uintptr_t)BUSYBOX};
    static struct dv_kv env[] = {{(char *)(uintptr_t) "DAVIT_TEST", (char *)(uintptr_t) "a=b"}};
    const struct dv_engine_image img = {.arch = "amd64",
                                        .os = "linux",
                                        .entrypoint = {entrypoint, 1},
                                        .env = {env, 1},
                                        .exposed_port = 8080,
                                        .size_bytes = 1 << 20,
                                        .workdir = "/work"};
    struct dv_engine_fake *f;
    (void)state;
    memset(&ew, 0, sizeof(ew));
    if (dv_loop_new(&dv_clock_system, &ew.loop, NULL) || dv_engine_fake_open(ew.loop, &f))
        return -1;
    dv_engine_fake_add_image(f, image, &img, true);
    ew.e = dv_engine_fake_engine(f);
    return 0;
}

/* A tar of bin/busybox and of the directories that containers need (not /tmp: runc gives a tmpfs the mode of
 * the directory that it covers, where the image has one). */
static int make_tar(struct dv_buf *tar)
{
    DV_AUTO_BUF struct dv_buf file = DV_BUF_INIT;
    static const char *const dirs[] = {"bin/", "work/", "proc/", "sys/", "dev/", "etc/"};
    static const char end[1024] = {0};
    int rc = dv_file_read(BUSYBOX, 8 << 20, &file, NULL);
    if (rc)
        return rc;
    for (size_t i = 0; i < DV_COUNT(dirs); i++)
        tar_entry(tar, dirs[i], NULL);
    tar_entry(tar, "bin/busybox", &file);
    (void)dv_buf_add(tar, end, sizeof(end));
    return tar->failed ? DV_E_NOMEM : DV_OK;
}

static int open_docker(void **state)
{
    (void)state;
    memset(&ew, 0, sizeof(ew));
    if (dv_loop_new(&dv_clock_system, &ew.loop, NULL))
        return -1;
    if (why_skipped)
        return 0; /* the test itself skips */
    return dv_engine_docker_open(ew.loop, "unix://" SOCKET, &ew.e, NULL);
}

static void remove_listed(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                          const struct dv_err *err)
{
    char(*ids)[72] = ctx;
    for (size_t i = 0; i < n && i < 31; i++)
        (void)dv_copy(ids[i], 72, c[i].id);
    ew_note(code, err);
}

static int close_engine(void **state)
{
    (void)state;
    char ids[32][72] = {{0}};
    if (ew.e) {
        int before = ew.n_done;
        ew.e->ops->list(ew.e, label, remove_listed, ids);
        ew_until(&ew.n_done, before + 1);
        for (int i = 0; ids[i][0]; i++)
            EW_CALL(remove, ids[i], true, ew_done);
        ew.e->ops->close(ew.e);
    }
    dv_loop_free(ew.loop);
    return 0;
}

static int prepare_docker(void **state)
{
    DV_AUTO_BUF struct dv_buf tar = DV_BUF_INIT;
    (void)state;
    memset(&ew, 0, sizeof(ew));
    if (dv_loop_new(&dv_clock_system, &ew.loop, NULL))
        return -1;
    why_skipped = NULL;
    if (access(BUSYBOX, X_OK) != 0)
        why_skipped = "no static busybox at " BUSYBOX;
    else if (docker_raw("GET", "/_ping", dv_sv(NULL, 0), NULL) != 200)
        why_skipped = "no dockerd answers at " SOCKET;
    else if (make_tar(&tar))
        why_skipped = "cannot read " BUSYBOX;
    if (!why_skipped) {
        DV_AUTO_STR char *path =
            dv_asprintf("/images/create?fromSrc=-&repo=%s&changes=EXPOSE%%208080&changes=EXPOSE%%209090"
                        "&changes=ENV%%20DAVIT_TEST=a=b&changes=ENTRYPOINT%%20%%5B%%22" BUSYBOX
                        "%%22%%5D&changes=WORKDIR%%20/work",
                        image);
        if (docker_raw("POST", path, dv_buf_sv(&tar), "application/x-tar") != 200)
            why_skipped = "dockerd did not import the test image";
    }
    if (why_skipped)
        print_message("[  SKIPPED ] the real engine: %s\n", why_skipped);
    dv_loop_free(ew.loop);
    return 0;
}

static int clean_docker(void **state)
{
    (void)state;
    if (why_skipped || dv_loop_new(&dv_clock_system, &ew.loop, NULL))
        return 0;
    DV_AUTO_STR char *path = dv_asprintf("/images/%s?force=true", image);
    (void)docker_raw("DELETE", path, dv_sv(NULL, 0), NULL);
    dv_loop_free(ew.loop);
    return 0;
}

/* ---- helpers ---- */

#define NEEDS_ENGINE()                                                                                       \
    do {                                                                                                     \
        if (!ew.e) {                                                                                         \
            print_message("skipped: %s\n", why_skipped);                                                     \
            skip();                                                                                          \
        }                                                                                                    \
    } while (0)

static struct dv_engine_create spec_of(char *const *command, size_t n, struct dv_kv labels[1])
{
    static int counter;
    labels[0] = (struct dv_kv){label, (char *)(uintptr_t) "yes"};
    (void)snprintf(name, sizeof(name), "davit-contract-%d-%d", (int)getpid(), ++counter);
    return (struct dv_engine_create){.name = name,
                                     .image = image,
                                     .command = {(char **)(uintptr_t)command, n},
                                     .labels = {labels, 1},
                                     .memory_bytes = 32 << 20,
                                     .cpu_mcpu = 500,
                                     .pids = 64,
                                     .files = 256,
                                     .tmp_bytes = 1 << 20,
                                     .read_only = true};
}

static void create(const char *const *command, size_t n)
{
    struct dv_kv labels[1];
    struct dv_engine_create spec = spec_of((char *const *)(uintptr_t)command, n, labels);
    EW_OK(create, &spec, ew_created);
    assert_true(strlen(ew.id) >= 12);
}

static void create_script(const char *script)
{
    const char *const command[] = {"sh", "-c", script};
    create(command, 3);
}

static void create_sleeper(void)
{
    const char *const command[] = {"sleep", "1000"};
    create(command, 2);
}

static void until_state(const char *state)
{
    for (int i = 0; i < 500; i++) {
        EW_OK(inspect, ew.id, ew_inspected);
        if (strcmp(ew.c.state, state) == 0)
            return;
        (void)dv_loop_turn(ew.loop, 10);
    }
    fail_msg("state is %s, not %s", ew.c.state, state);
}

/* ---- the contract ---- */

static void it_says_who_it_is(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    EW_OK(connect, ew_connected);
    assert_true(ew.info.version[0]);
    assert_true(strncmp(ew.info.api, "1.4", 3) == 0);
    assert_string_equal(ew.info.os, "linux");
    assert_true(ew.info.arch[0]);
    assert_true(!strcmp(ew.info.cgroup, "v1") || !strcmp(ew.info.cgroup, "v2"));
    assert_true(ew.info.cpus > 0);
    assert_true(ew.info.memory_bytes > 0);
}

static void on_image(void *ctx, int code, const struct dv_engine_image *img, const struct dv_err *err)
{
    (void)ctx;
    if (img) {
        assert_true(strncmp(img->id, "sha256:", 7) == 0);
        assert_string_equal(img->os, "linux");
        assert_int_equal(img->entrypoint.n, 1);
        assert_string_equal(img->entrypoint.v[0], BUSYBOX);
        assert_int_equal(img->command.n, 0);
        assert_int_equal(img->exposed_port, 8080);
        assert_true(img->size_bytes > 0);
        assert_string_equal(img->workdir, "/work");
        bool found = false;
        for (size_t i = 0; i < img->env.n; i++)
            found |= !strcmp(img->env.v[i].k, "DAVIT_TEST") && !strcmp(img->env.v[i].v, "a=b");
        assert_true(found);
    }
    ew_note(code, err);
}

static void an_image_is_described_and_an_absent_one_is_not_found(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    EW_OK(image_inspect, image, on_image);
    EW_CALL(image_inspect, "davit-test/no-such-image:1", on_image);
    assert_int_equal(ew.code, DV_NOT_FOUND);
    assert_non_null(strstr(ew.msg, "davit-test/no-such-image:1"));
}

static void on_found(void *ctx, int code, const struct dv_engine_image *img, const struct dv_err *err)
{
    (void)ctx;
    (void)img;
    ew_note(code, err);
}

static void on_images(void *ctx, int code, const struct dv_image_ref *refs, size_t n,
                      const struct dv_err *err)
{
    (void)ctx;
    char want[96];
    bool found = false;
    (void)snprintf(want, sizeof(want), "%s", image);
    for (size_t i = 0; i < n; i++)
        found |= strcmp(refs[i].name, want) == 0 && refs[i].id[0];
    assert_true(found);
    ew_note(code, err);
}

static void images_are_listed_by_name_and_tag(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    EW_OK(image_list, on_images);
}

static void a_container_lives_from_create_to_remove(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_sleeper();
    EW_OK(inspect, ew.id, ew_inspected);
    assert_string_equal(ew.c.state, "created");
    assert_string_equal(ew.c.name, name);
    assert_int_equal(ew.c.pid, 0);
    assert_int_equal(ew.c.started_ms, 0);
    EW_OK(start, ew.id, ew_done);
    EW_OK(start, ew.id, ew_done); /* again: no harm */
    EW_OK(inspect, ew.id, ew_inspected);
    assert_string_equal(ew.c.state, "running");
    assert_true(ew.c.pid > 0);
    assert_true(ew.c.address[0]);
    assert_true(ew.c.started_ms > 1600000000000);
    EW_OK(stop, ew.id, 0, ew_done);
    EW_OK(inspect, ew.id, ew_inspected);
    assert_string_equal(ew.c.state, "exited");
    assert_int_equal(ew.c.exit_code, 137);
    assert_false(ew.c.oom_killed);
    EW_OK(stop, ew.id, 0, ew_done);
    EW_OK(remove, ew.id, false, ew_done);
    EW_OK(remove, ew.id, false, ew_done);
    EW_OK(stop, ew.id, 0, ew_done);
    EW_CALL(inspect, ew.id, ew_inspected);
    assert_int_equal(ew.code, DV_NOT_FOUND);
    EW_CALL(start, ew.id, ew_done);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void note_listed(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                        const struct dv_err *err)
{
    struct dv_engine_container *wanted = ctx;
    for (size_t i = 0; i < n; i++)
        if (strcmp(c[i].id, wanted->id) == 0) {
            *wanted = c[i];
            wanted->labels = (struct dv_kvs){0}; /* borrowed */
        }
    ew_note(code, err);
}

static void listed(const char *id, struct dv_engine_container *out)
{
    int before = ew.n_done;
    *out = (struct dv_engine_container){0};
    (void)dv_copy(out->id, sizeof(out->id), id);
    ew.e->ops->list(ew.e, label, note_listed, out);
    ew_until(&ew.n_done, before + 1);
}

static void a_container_joins_anothers_network_while_that_one_runs(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char host[72], network[96];
    struct dv_kv labels[1];
    const char *const command[] = {"sleep", "1000"};
    struct dv_engine_container seen;
    create_sleeper();
    EW_OK(start, ew.id, ew_done);
    (void)dv_copy(host, sizeof(host), ew.id);
    (void)snprintf(network, sizeof(network), "container:%s", host);
    struct dv_engine_create spec = spec_of((char *const *)(uintptr_t)command, 2, labels);
    spec.network = network;
    EW_OK(create, &spec, ew_created);
    EW_OK(start, ew.id, ew_done);
    EW_OK(inspect, ew.id, ew_inspected);
    assert_string_equal(ew.c.state, "running");
    assert_string_equal(ew.c.joins, host);
    assert_true(ew.c.is_network_told);
    assert_string_equal(ew.c.address, ""); /* it is the other's */
    listed(ew.id, &seen);
    assert_string_equal(seen.joins, host);
    listed(host, &seen);
    assert_string_equal(seen.joins, "");
    assert_true(seen.is_network_told && seen.address[0]);
    EW_OK(stop, ew.id, 0, ew_done);
    EW_OK(stop, host, 0, ew_done);
    EW_CALL(start, ew.id, ew_done);
    assert_int_equal(ew.code, DV_CONFLICT);
    EW_OK(remove, host, true, ew_done);
    EW_CALL(start, ew.id, ew_done);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void an_image_is_made_of_an_empty_archive(void **state)
{
    static const char empty_tar[1024];
    (void)state;
    NEEDS_ENGINE();
    char made[96], path[128];
    (void)snprintf(made, sizeof(made), "davit-contract-empty-%d:t2", (int)getpid());
    EW_CALL(image_inspect, made, on_found);
    assert_int_equal(ew.code, DV_NOT_FOUND);
    EW_OK(image_import, made, dv_sv(empty_tar, sizeof(empty_tar)), ew_done);
    EW_OK(image_import, made, dv_sv(empty_tar, sizeof(empty_tar)), ew_done); /* again: no harm */
    EW_OK(image_inspect, made, on_found);
    (void)snprintf(path, sizeof(path), "/images/%s?force=true", made);
    (void)docker_raw("DELETE", path, dv_sv(NULL, 0), NULL);
}

static void an_exit_leaves_its_code_and_its_logs(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    int64_t before = dv_clock_wall_ms(&dv_clock_system);
    create_script("echo one;echo two >&2;echo three;exit 3");
    EW_OK(start, ew.id, ew_done);
    until_state("exited");
    assert_int_equal(ew.c.exit_code, 3);
    int n = ew.n_done;
    assert_non_null(ew.e->ops->logs(ew.e, ew.id, -1, 0, false, ew_line, ew_done, NULL));
    ew_until(&ew.n_done, n + 1);
    assert_int_equal(ew.code, DV_OK);
    assert_int_equal(ew.n_lines, 3);
    assert_non_null(strstr(ew.logs, "out:one\n"));
    assert_non_null(strstr(ew.logs, "err:two\n"));
    assert_non_null(strstr(ew.logs, "out:three\n"));
    assert_true(ew.log_ms >= before - 1000 && ew.log_ms < before + 60000);
    ew.logs[0] = '\0';
    (void)ew.e->ops->logs(ew.e, ew.id, 1, 0, true, ew_line, ew_done,
                          NULL); /* following the dead ends at once */
    ew_until(&ew.n_done, n + 2);
    assert_string_equal(strchr(ew.logs, ':') ? strchr(ew.logs, '\n') : "", "\n"); /* one line */
    (void)ew.e->ops->logs(ew.e, ew.id, -1, before + 3600000, false, ew_line, ew_done, NULL);
    ew_until(&ew.n_done, n + 3);
    assert_int_equal(ew.n_lines, 4); /* nothing that recent */
}

static void followed_logs_come_as_written_and_end_with_the_container(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_script("echo first;sleep 0.2;echo second");
    EW_OK(start, ew.id, ew_done);
    int n = ew.n_done;
    assert_non_null(ew.e->ops->logs(ew.e, ew.id, -1, 0, true, ew_line, ew_done, NULL));
    ew_until(&ew.n_lines, 1);
    assert_int_equal(ew.n_done, n);
    ew_until(&ew.n_done, n + 1);
    assert_int_equal(ew.code, DV_OK);
    assert_string_equal(ew.logs, "out:first\nout:second\n");
}

static void *cancel_me;

static void line_that_cancels(void *ctx, const struct dv_engine_log *l)
{
    ew_line(ctx, l);
    ew.e->ops->logs_cancel(ew.e, cancel_me);
}

static void cancelled_logs_say_nothing_more(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_script("echo one;echo two;sleep 1000");
    EW_OK(start, ew.id, ew_done);
    int n = ew.n_done;
    cancel_me = ew.e->ops->logs(ew.e, ew.id, -1, 0, true, line_that_cancels, ew_done, NULL);
    ew_until(&ew.n_lines, 1);
    void *early = ew.e->ops->logs(ew.e, ew.id, -1, 0, true, ew_line, ew_done, NULL);
    ew.e->ops->logs_cancel(ew.e, early);
    EW_OK(remove, ew.id, true, ew_done);
    assert_int_equal(ew.n_done, n + 1);
    assert_int_equal(ew.n_lines, 1);
}

static void logs_of_an_absent_container_are_not_found(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    (void)ew.e->ops->logs(ew.e, "davit-no-such", -1, 0, true, ew_line, ew_done, NULL);
    ew_until(&ew.n_done, 1);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void events_tell_of_containers_with_the_label_only(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    ew.e->ops->events(ew.e, label, ew_event, ew_events_over, NULL);
    EW_OK(connect, ew_connected); /* by then the stream has begun */
    create_script("sleep 0.05;exit 7");
    struct dv_kv labels[1];
    const char *const command[] = {"sleep", "1000"};
    struct dv_engine_create other = spec_of((char *const *)(uintptr_t)command, 2, labels);
    char first[72];
    (void)dv_copy(first, sizeof(first), ew.id);
    labels[0].k = other_label;
    EW_OK(create, &other, ew_created);
    EW_OK(start, ew.id, ew_done);
    EW_OK(remove, ew.id, true, ew_done);
    EW_OK(start, first, ew_done);
    ew_until(&ew.n_events, 2);
    EW_OK(remove, first, true, ew_done);
    ew_until(&ew.n_events, 3);
    assert_string_equal(ew.events, "start die:7 destroy ");
    assert_false(ew.events_over);
}

static void on_list(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                    const struct dv_err *err)
{
    int *count = ctx;
    *count = (int)n;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(c[i].labels.n, 1);
        assert_string_equal(c[i].labels.v[0].k, label);
        assert_string_equal(c[i].labels.v[0].v, "yes");
        assert_true(strlen(c[i].id) == 64);
        assert_true(strncmp(c[i].name, "davit-contract-", 15) == 0);
        if (!strcmp(c[i].state, "exited"))
            assert_int_equal(c[i].exit_code, 5);
    }
    ew_note(code, err);
}

static int count_listed(const char *which)
{
    int count = -1, before = ew.n_done;
    ew.e->ops->list(ew.e, which, on_list, &count);
    ew_until(&ew.n_done, before + 1);
    assert_int_equal(ew.code, DV_OK);
    return count;
}

static void containers_are_listed_by_label_stopped_ones_too(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char with_value[80];
    (void)snprintf(with_value, sizeof(with_value), "%s=yes", label);
    assert_int_equal(count_listed(label), 0);
    create_sleeper();
    create_script("exit 5");
    EW_OK(start, ew.id, ew_done);
    until_state("exited");
    assert_int_equal(count_listed(label), 2);
    assert_int_equal(count_listed(with_value), 2);
    with_value[strlen(with_value) - 1] = 'x';
    assert_int_equal(count_listed(with_value), 0);
}

static void what_cannot_be_created_says_why(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    struct dv_kv labels[1];
    const char *const command[] = {"sleep", "1000"};
    struct dv_engine_create spec = spec_of((char *const *)(uintptr_t)command, 2, labels);
    EW_OK(create, &spec, ew_created);
    EW_CALL(create, &spec, ew_created);
    assert_int_equal(ew.code, DV_CONFLICT);
    assert_non_null(strstr(ew.msg, "already in use"));
    spec = spec_of((char *const *)(uintptr_t)command, 2, labels);
    spec.image = "davit-test/no-such-image:1";
    EW_CALL(create, &spec, ew_created);
    assert_int_equal(ew.code, DV_NOT_FOUND);
    assert_non_null(strstr(ew.msg, "No such image"));
    spec.image = image;
    spec.memory_bytes = 1 << 20;
    EW_CALL(create, &spec, ew_created);
    assert_int_equal(ew.code, DV_INVALID);
    assert_non_null(strstr(ew.msg, "inimum memory limit"));
}

static void a_signal_needs_a_running_container(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_sleeper();
    EW_CALL(kill, ew.id, "KILL", ew_done);
    assert_int_equal(ew.code, DV_CONFLICT);
    EW_OK(start, ew.id, ew_done);
    EW_OK(kill, ew.id, "KILL", ew_done);
    until_state("exited");
    assert_int_equal(ew.c.exit_code, 137);
    EW_CALL(kill, "davit-no-such", "KILL", ew_done);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void removing_what_runs_needs_force(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_sleeper();
    EW_OK(start, ew.id, ew_done);
    EW_CALL(remove, ew.id, false, ew_done);
    assert_int_equal(ew.code, DV_CONFLICT);
    EW_OK(remove, ew.id, true, ew_done);
    EW_CALL(inspect, ew.id, ew_inspected);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void limits_of_a_running_container_are_changed(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_sleeper();
    EW_OK(start, ew.id, ew_done);
    const struct dv_engine_limits wider = {.memory_bytes = 64 << 20, .cpu_mcpu = 1000, .pids = 99};
    EW_OK(update, ew.id, &wider, ew_done);
    const struct dv_engine_limits narrower = {.memory_bytes = 16 << 20};
    EW_OK(update, ew.id, &narrower, ew_done);
    const struct dv_engine_limits impossible = {.memory_bytes = 1 << 20};
    EW_CALL(update, ew.id, &impossible, ew_done);
    assert_int_not_equal(ew.code, DV_OK);
    EW_CALL(update, "0123456789abcdef", &wider, ew_done);
    assert_int_equal(ew.code, DV_NOT_FOUND);
}

static void a_network_is_made_once(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char net[64];
    (void)snprintf(net, sizeof(net), "davit-contract-%d", (int)getpid());
    EW_OK(network_ensure, net, ew_done);
    EW_OK(network_ensure, net, ew_done);
    struct dv_kv labels[1];
    const char *const command[] = {"sleep", "1000"};
    struct dv_engine_create spec = spec_of((char *const *)(uintptr_t)command, 2, labels);
    spec.network = net;
    EW_OK(create, &spec, ew_created);
    EW_OK(start, ew.id, ew_done);
    EW_OK(inspect, ew.id, ew_inspected);
    assert_true(ew.c.address[0]);
    EW_OK(remove, ew.id, true, ew_done);
    if (why_skipped)
        return; /* nothing real was made */
    DV_AUTO_STR char *path = dv_asprintf("/networks/%s", net);
    (void)docker_raw("DELETE", path, dv_sv(NULL, 0), NULL);
}

static void calls_and_failures_are_counted(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    uint64_t calls, errors;
    EW_CALL(inspect, "davit-no-such", ew_inspected);
    ew.e->ops->stats(ew.e, &calls, &errors);
    assert_int_equal(calls, 1);
    assert_int_equal(errors, 0); /* an outcome, not a failure */
}

static void closing_ends_what_is_under_way_in_silence(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    ew.e->ops->events(ew.e, label, ew_event, ew_events_over, NULL);
    ew.e->ops->inspect(ew.e, "davit-no-such", ew_inspected, NULL);
    (void)ew.e->ops->logs(ew.e, "davit-no-such", -1, 0, true, ew_line, ew_done, NULL);
    ew.e->ops->close(ew.e);
    ew.e = NULL;
    for (int i = 0; i < 5; i++)
        assert_int_equal(dv_loop_turn(ew.loop, 2), DV_OK);
    assert_int_equal(ew.n_done, 0);
}

static void close_it(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err)
{
    ew_inspected(ctx, code, c, err);
    ew.e->ops->close(ew.e);
    ew.e = NULL;
}

static void an_engine_may_be_closed_by_the_last_who_waited(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    ew.e->ops->events(ew.e, label, ew_event, ew_events_over, NULL);
    ew.e->ops->inspect(ew.e, "davit-no-such", close_it, NULL);
    ew_until(&ew.n_done, 1);
    assert_int_equal(ew.code, DV_NOT_FOUND);
    for (int i = 0; i < 5; i++)
        assert_int_equal(dv_loop_turn(ew.loop, 2), DV_OK);
    assert_false(ew.events_over);
}

/* ---- only with the real one: what the kernel makes of it ---- */

static void the_container_is_as_hard_as_it_was_ordered(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    create_script(
        "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; touch /nope || echo root is "
        "read-only;"
        "grep ' /tmp ' /proc/mounts; stat -c %a /tmp; echo x >/tmp/ok && cat /tmp/ok; ulimit -n; "
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; "
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; exit 0");
    EW_OK(start, ew.id, ew_done);
    until_state("exited");
    int n = ew.n_done;
    (void)ew.e->ops->logs(ew.e, ew.id, -1, 0, false, ew_line, ew_done, NULL);
    ew_until(&ew.n_done, n + 1);
    static const char *const wanted[] = {"CapEff:\t0000000000000000",
                                         "NoNewPrivs:\t1",
                                         "out:root is read-only",
                                         "size=1024k",
                                         "out:1777",
                                         "out:x\n",
                                         "out:256\n",
                                         "out:33554432\n"};
    for (size_t i = 0; i < DV_COUNT(wanted); i++)
        if (!strstr(ew.logs, wanted[i]))
            fail_msg("no \"%s\" in:\n%s", wanted[i], ew.logs);
}

static void a_container_past_its_memory_is_told_apart(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    struct dv_kv labels[1];
    const char *const command[] = {"sh", "-c", "x=y; while true; do x=$x$x; done"};
    struct dv_engine_create spec = spec_of((char *const *)(uintptr_t)command, 3, labels);
    spec.memory_bytes = 8 << 20;
    ew.e->ops->events(ew.e, label, ew_event, ew_events_over, NULL);
    EW_OK(create, &spec, ew_created);
    EW_OK(start, ew.id, ew_done);
    until_state("exited");
    assert_int_equal(ew.c.exit_code, 137);
    for (int i = 0; i < 300 && !ew.c.oom_killed; i++) { /* the engine may learn of it after the exit */
        (void)dv_loop_turn(ew.loop, 10);
        EW_OK(inspect, ew.id, ew_inspected);
    }
    assert_true(ew.c.oom_killed);
    for (int i = 0; i < 500 && !(strstr(ew.events, "die:137") && strstr(ew.events, "oom ")); i++)
        (void)dv_loop_turn(ew.loop, 10);
    assert_non_null(strstr(ew.events, "oom "));
    assert_non_null(strstr(ew.events, "die:137 "));
}

static void a_pull_of_nothing_says_so_in_the_engines_words(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    EW_CALL(image_pull, "127.0.0.1:1/davit/nothing:1", NULL, NULL, ew_done);
    assert_int_equal(ew.code, DV_E_ENGINE); /* no registry there: neither missing nor denied */
    assert_non_null(strstr(ew.msg, "connection refused"));
}

int main(void)
{
    (void)snprintf(image, sizeof(image), "davit-contract-%d:t1", (int)getpid());
    (void)snprintf(label, sizeof(label), "dev.davit.contract-%d", (int)getpid());
    (void)snprintf(other_label, sizeof(other_label), "dev.davit.contract-%d-other", (int)getpid());
#define BOTH(X)                                                                                              \
    X(it_says_who_it_is)                                                                                     \
    X(an_image_is_described_and_an_absent_one_is_not_found)                                                  \
    X(images_are_listed_by_name_and_tag)                                                                     \
    X(a_container_joins_anothers_network_while_that_one_runs)                                                \
    X(an_image_is_made_of_an_empty_archive)                                                                  \
    X(a_container_lives_from_create_to_remove)                                                               \
    X(an_exit_leaves_its_code_and_its_logs)                                                                  \
    X(followed_logs_come_as_written_and_end_with_the_container)                                              \
    X(cancelled_logs_say_nothing_more)                                                                       \
    X(logs_of_an_absent_container_are_not_found)                                                             \
    X(events_tell_of_containers_with_the_label_only)                                                         \
    X(containers_are_listed_by_label_stopped_ones_too)                                                       \
    X(what_cannot_be_created_says_why)                                                                       \
    X(a_signal_needs_a_running_container)                                                                    \
    X(removing_what_runs_needs_force)                                                                        \
    X(limits_of_a_running_container_are_changed)                                                             \
    X(a_network_is_made_once)                                                                                \
    X(calls_and_failures_are_counted)                                                                        \
    X(closing_ends_what_is_under_way_in_silence)                                                             \
    X(an_engine_may_be_closed_by_the_last_who_waited)
#define FAKE(f) cmocka_unit_test_setup_teardown(f, open_fake, close_engine),
#define REAL(f) cmocka_unit_test_setup_teardown(f, open_docker, close_engine),
    const struct CMUnitTest fake[] = {BOTH(FAKE)};
    const struct CMUnitTest real[] = {BOTH(REAL) REAL(the_container_is_as_hard_as_it_was_ordered) REAL(
        a_container_past_its_memory_is_told_apart) REAL(a_pull_of_nothing_says_so_in_the_engines_words)};
    int failed = cmocka_run_group_tests_name("engine in memory", fake, NULL, NULL);
    return failed + cmocka_run_group_tests_name("engine: docker", real, prepare_docker, clean_docker);
}

/* What the orchestrator holds in memory for what it merely knows.  The whole path of a write is real:
 * control, core, gateway with two loops, SQLite (which keeps rows on disk, and a page cache of a fixed size
 * in memory). Counted is what malloc has handed out and not got back, in all arenas. */
#include "tests/support/control_rig.h"

#include <malloc.h>

enum { FUNCTIONS = 10000, BATCH = 250, FUNCTION_BYTES = 2048, NODES = 200, NODE_BYTES = 4096 };

static size_t heap(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static bool is_countable(void)
{
    return heap() > 0; /* sanitizers have a malloc of their own */
}

/* As people write them: some environment, a label, limits. */
static void spec_init(struct dv_fn_spec *s, size_t i, char name[64], struct dv_arena *arena)
{
    static struct dv_kv env[] = {{(char *)"LOG_LEVEL", (char *)"info"},
                                 {(char *)"UPSTREAM", (char *)"https://orders.example.com/v2"}};
    static struct dv_kv labels[] = {{(char *)"team", (char *)"payments"}};
    (void)snprintf(name, 64, "function-number-%zu", i);
    dv_wire_defaults(&dv_type_fn_spec, s);
    s->name = name;
    s->ns = (char *)"default";
    s->image = (char *)"registry.example.com/payments/checkout:2024-11-03";
    s->env = (struct dv_kvs){env, DV_COUNT(env)};
    s->labels = (struct dv_kvs){labels, DV_COUNT(labels)};
    s->limits.memory_bytes = 128 << 20;
    assert_int_equal(dv_fn_spec_finish(s, arena, NULL), DV_OK);
}

static void deploy_batch(size_t first)
{
    static struct dv_fn_spec specs[BATCH];
    static struct dv_fn_put puts[BATCH];
    static char names[BATCH][64];
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    for (size_t i = 0; i < BATCH; i++) {
        spec_init(&specs[i], first + i, names[i], &arena);
        puts[i] = (struct dv_fn_put){.spec = &specs[i], .mode = DV_PUT_CREATE, .if_revision = DV_REV_ANY};
    }
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, puts, BATCH, false, done, NULL, &rig.err)), DV_OK);
}

static int two_loops(void **state)
{
    rig_n_loops = 2;
    int rc = set_up(state);
    turn_for(20);
    return rc;
}

static void settle(void)
{
    turn_for(100); /* loops take what they were told */
}

static void a_function_at_rest_costs_less_than_two_kilobytes(void **state)
{
    (void)state;
    if (!is_countable())
        skip();
    deploy_batch(FUNCTIONS); /* what is there once, is there now */
    settle();
    size_t before = heap();
    for (size_t i = 0; i < FUNCTIONS; i += BATCH)
        deploy_batch(i);
    settle();
    size_t each = (heap() - before) / FUNCTIONS;
    print_message("%zu bytes a function after its deploy\n", each);
    assert_in_range(each, 200, FUNCTION_BYTES);
    orchestrator_down();
    size_t without = heap();
    orchestrator_up();
    settle();
    each = (heap() - without) / FUNCTIONS;
    print_message("%zu bytes a function after a restart, with all that is there once\n", each);
    assert_in_range(each, 200, FUNCTION_BYTES);
}

/* The agents stand in this very process, so their ends of the three links (control, and data for each of two
 * loops) are counted too; a link's two ends are alike. */
static void a_connected_node_at_rest_costs_less_than_four_kilobytes(void **state)
{
    (void)state;
    enum { IMAGES = 24, AGENTS_ENDS = 3 * 528 };
    if (!is_countable())
        skip();
    static struct agent agents[NODES];
    char names[IMAGES][64], *images[IMAGES];
    for (int k = 0; k < IMAGES; k++) {
        (void)snprintf(names[k], sizeof(names[k]), "registry.example.com/team/image-%d:2024-11-03", k);
        images[k] = names[k];
    }
    for (int i = 0; i < NODES; i++) {
        agents[i] = (struct agent){.loop = rig.loop};
        (void)snprintf(agents[i].name, sizeof(agents[i].name), "worker-%d.rack-7", i);
        agent_up(&agents[i]);
    }
    turn_for(50);
    size_t before = heap();
    for (int i = 0; i < NODES; i++)
        assert_int_equal(join(&agents[i]), DV_OK);
    for (int i = 0; i < NODES; i++) {
        WAIT_FOR(node_state(agents[i].name) == DV_NODE_READY);
        struct dv_node_report n = {.node = agents[i].id,
                                   .engine_ok = true,
                                   .version = (char *)"0.1.0",
                                   .engine_version = (char *)"20.10.24",
                                   .arch = (char *)"amd64",
                                   .os = (char *)"linux",
                                   .cpus = 2,
                                   .memory_bytes = 1 << 30,
                                   .replicas_max = HELD_MAX,
                                   .images = {images, IMAGES}};
        send_report(&agents[i], &(struct dv_report){.type = (char *)"node", .node = &n});
    }
    turn_for(2500); /* a second without a stream, and a ping that finds it so */
    size_t each = (heap() - before) / NODES;
    struct dv_node_status s;
    assert_int_equal(dv_control_node_find(rig.control, DV_SV("worker-7.rack-7"), &s), DV_OK);
    assert_int_equal(s.n_images, IMAGES);
    assert_string_equal(s.images[0], "registry.example.com/team/image-0:2024-11-03");
    print_message("%zu bytes a node with both ends of its links\n", each);
    assert_in_range(each, 500, NODE_BYTES + AGENTS_ENDS);
    for (int i = 0; i < NODES; i++)
        agent_down(&agents[i]);
}

static void set_replicas(size_t n_fns, size_t n)
{
    struct dv_route_replica r[] = {{.id = 1, .node = 9, .concurrency = 1},
                                   {.id = 2, .node = 9, .concurrency = 1}};
    for (size_t i = 0; i < n_fns; i++) {
        r[0].id = 2 * i + 2;
        r[1].id = 2 * i + 3;
        assert_int_equal(dv_gateway_replicas_put(rig.gateway, i + 1, r, n), DV_OK);
    }
    settle();
}

static void what_the_gateway_takes_for_a_function_in_use_is_given_back(void **state)
{
    (void)state;
    enum { N = 2000, COUNTERS = 2 * 512 };
    if (!is_countable())
        skip();
    for (uint64_t i = 0; i < N; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "f%d", (int)i);
        struct dv_route_fn fn = {.uid = i + 1, .name = name, .ns = "default", .queue_max = 10};
        assert_int_equal(dv_gateway_fn_put(rig.gateway, &fn), DV_OK);
    }
    settle();
    size_t at_rest = heap();
    set_replicas(N, 2);
    size_t in_use = heap();
    set_replicas(N, 0);
    size_t again = heap();
    print_message("%zu bytes more in use, %zu for its counters afterwards\n", (in_use - at_rest) / N,
                  (again - at_rest) / N);
    assert_true(in_use - again > N * 500);
    assert_in_range((again - at_rest) / N, 0, COUNTERS);
    set_replicas(N, 2);
    set_replicas(N, 0);
    assert_in_range(heap() / 4096, again / 4096 - 16,
                    again / 4096 + 16); /* and nothing more the second time */
}

int main(void)
{
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_connected_node_at_rest_costs_less_than_four_kilobytes, two_loops,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_function_at_rest_costs_less_than_two_kilobytes, two_loops,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_the_gateway_takes_for_a_function_in_use_is_given_back, two_loops,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

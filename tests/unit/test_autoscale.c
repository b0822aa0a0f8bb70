#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/autoscale.h"
#include "proto/base/auto.h"
#include "proto/base/rng.h"
#include "proto/wire/codec.h"

#define MS 1000000ull
#define S  1000000000ull

/* One function under a steady hand: time, load and replicas are told, the decision is read. */
struct bench {
    struct dv_scale_policy policy;
    struct dv_scale_state state;
    struct dv_scale_sample sample;
    struct dv_scale_seen seen;
    struct dv_scale_decision d;
    uint64_t now;
    double rate, rate_rest; /* arrivals per second while it runs */
};

static struct bench bench_of(int64_t min, int64_t max, int64_t concurrency, int64_t target, int64_t idle_ms)
{
    struct dv_fn_spec spec = {
        .scale = {.min = min, .max = max, .concurrency = concurrency, .target = target, .idle_ms = idle_ms}};
    struct bench b = {.now = 1000 * S};
    dv_scale_policy_of(&spec, -1, &b.policy);
    return b;
}

static int64_t decide(struct bench *b)
{
    dv_scale_observe(&b->state, &b->policy, &b->sample, b->now);
    dv_scale_decide(&b->state, &b->policy, &b->seen, b->now, &b->d);
    return b->d.wanted;
}

/* `ms` go by with this load, decisions every 100 ms; replicas appear as they are decided. */
static int64_t run(struct bench *b, uint64_t waiting, uint64_t in_flight, uint64_t ms)
{
    if (in_flight > 0 && b->seen.ready == 0)
        b->seen.ready = 1; /* they are inside of something */
    for (uint64_t t = 0; t < ms; t += 100) {
        b->now += 100 * MS;
        b->sample.waiting = waiting;
        b->sample.in_flight = in_flight;
        b->sample.in_flight_time += (double)in_flight * 0.1;
        b->rate_rest += b->rate * 0.1;
        uint64_t came = (uint64_t)b->rate_rest;
        b->sample.arrived += came;
        b->rate_rest -= (double)came;
        if (waiting + in_flight + came)
            b->sample.last_activity_ns = b->now;
        b->seen.ready = decide(b);
    }
    return b->d.wanted;
}

static void answered(struct bench *b, uint64_t n, uint64_t each_ns)
{
    b->sample.answered += n;
    b->sample.service_ns += n * each_ns;
}

/* Requests of 20 ms: never more than a fraction of one in flight, none at the samples. */
static int64_t run_rate(struct bench *b, double rate, uint64_t ms)
{
    b->rate = rate;
    int64_t wanted = run(b, 0, 0, ms);
    b->rate = 0;
    return wanted;
}

static void arrivals_per_second_are_held_against_the_rate_wanted(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 20, 100, 70, 45000);
    b.policy.rps = 5;
    assert_int_equal(run_rate(&b, 5, 60000), 1);
    assert_int_equal(run_rate(&b, 10, 12000), 2);
    assert_non_null(strstr(b.d.reason, "requests a second"));
    assert_int_equal(run_rate(&b, 40, 30000), 8);
    assert_int_equal(run_rate(&b, 1000, 30000), 20);
    struct bench off = bench_of(1, 20, 100, 70, 45000);
    assert_int_equal(run_rate(&off, 1000, 60000), 1);
}

static void a_burst_is_no_rate(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 20, 100, 70, 45000);
    b.policy.rps = 5;
    run_rate(&b, 0, 5000);
    assert_int_equal(run_rate(&b, 50, 1000), 1);
    b.sample.arrived = 0; /* the counters began anew */
    assert_int_equal(run_rate(&b, 1, 1000), 1);
}

static void within_a_minute_of_the_loads_end_a_rate_is_forgotten(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 20, 100, 70, 45000);
    b.policy.rps = 5;
    assert_int_equal(run_rate(&b, 60, 90000), 12);
    assert_true(run_rate(&b, 0, 30000) < 12);
    assert_int_equal(run_rate(&b, 0, 16000), 1);
    b.policy.stable_ns = 10 * S; /* short memories look back over all they have */
    b.state = (struct dv_scale_state){0};
    assert_int_equal(run_rate(&b, 20, 15000), 4);
}

static void a_set_number_stays_a_window_and_then_follows_the_load(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 16, 1, 1, 5000); /* idle is shorter than the window of ten seconds */
    run(&b, 0, 0, 1000);
    dv_scale_set(&b.state, &b.policy, 6, b.now);
    assert_int_equal(decide(&b), 6);
    assert_string_equal(b.d.reason, "set to 6 by the scale API");
    assert_int_equal(run(&b, 0, 0, 9900), 6);
    assert_int_equal(run(&b, 0, 0, 200), 1);
    run(&b, 0, 4, 20000);
    dv_scale_set(&b.state, &b.policy, 2, b.now);
    assert_int_equal(run(&b, 0, 4, 9900), 2); /* averages do not move it */
    assert_int_equal(run(&b, 0, 4, 1000), 4);
}

static void a_set_number_gives_way_to_a_queue_and_to_a_pin(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 8, 1, 1, 60000);
    dv_scale_set(&b.state, &b.policy, 2, b.now);
    assert_int_equal(run(&b, 0, 0, 1000), 2);
    assert_int_equal(run(&b, 3, 2, 100), 5);
    assert_int_equal(run(&b, 0, 2, 1000), 5);
    assert_int_equal(run(&b, 90, 5, 100), 8);
    b.policy.override = 3;
    assert_int_equal(run(&b, 0, 3, 100), 3);
    b.policy.override = -1;
    assert_int_equal(run(&b, 0, 1, 70000), 1); /* the pin ended it */
    b.policy.min = 4;
    dv_scale_set(&b.state, &b.policy, 2, b.now); /* the range counts, should it have changed meanwhile */
    assert_int_equal(decide(&b), 4);
}

static void a_beginning_stays_until_idle_and_gives_way_to_load(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 8, 1, 1, 5000);
    dv_scale_begin(&b.state, &b.policy, 2, b.now);
    assert_int_equal(decide(&b), 2);
    assert_string_equal(b.d.reason, "begins with 2");
    assert_int_equal(run(&b, 0, 0, 4000), 2);
    assert_int_equal(run(&b, 0, 0, 1100), 0); /* idle is shorter than the window */
    b = bench_of(0, 8, 1, 1, 60000);
    dv_scale_begin(&b.state, &b.policy, 1, b.now);
    assert_int_equal(decide(&b), 1);
    b.seen.ready = 1;
    assert_int_equal(run(&b, 0, 4, 5000), 4);
    dv_scale_set(&b.state, &b.policy, 3, b.now); /* no beginning any more */
    assert_int_equal(run(&b, 0, 4, 5000), 3);
}

static void at_rest_there_is_the_minimum(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 20, 1, 1, 60000);
    assert_int_equal(decide(&b), 0);
    b = bench_of(1, 20, 1, 1, 60000);
    assert_int_equal(decide(&b), 1);
    assert_non_null(strstr(b.d.reason, "minimum is 1"));
}

static void the_first_waiting_request_brings_one_replica(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 20, 100, 70, 60000);
    b.sample.waiting = 1;
    assert_int_equal(decide(&b), 1);
}

static void a_burst_from_zero_asks_for_the_maximum_at_once(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 5000);
    b.sample.waiting = 200;
    assert_int_equal(decide(&b), 16);
    assert_non_null(strstr(b.d.reason, "maximum"));
}

static void a_burst_on_a_warm_function_reaches_the_maximum_within_a_second(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 60000);
    answered(&b, 100, 50 * MS);
    run(&b, 0, 1, 30000);
    assert_int_equal(b.d.wanted, 1);
    assert_int_equal(run(&b, 200, 1, 1000), 16);
}

static void a_queue_is_drained_in_time_before_averages_notice_it(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 1000, 1, 1, 60000);
    answered(&b, 100, 100 * MS);
    run(&b, 0, 1, 30000);
    /* 500 requests of 100 ms in half a second: 100 replicas beside the one in use */
    assert_true(run(&b, 500, 1, 100) >= 100);
    assert_true(b.d.wanted <= 501);
}

static void never_more_slots_than_requests(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 1000, 1, 1, 60000);
    answered(&b, 10, 20 * S); /* slow: draining in time would ask for forty a request */
    b.sample.waiting = 3;
    assert_int_equal(decide(&b), 3);
}

static void a_steady_load_gets_load_over_target(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 100, 10, 7, 60000);
    run(&b, 0, 35, 200000);
    assert_int_equal(b.d.wanted, 5);
}

static void idle_functions_go_to_zero_after_idle_and_not_before(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 5000);
    run(&b, 40, 16, 1000);
    assert_int_equal(b.d.wanted, 16);
    assert_true(run(&b, 0, 0, 4800) >= 1);
    assert_int_equal(run(&b, 0, 0, 200), 0);
    assert_non_null(strstr(b.d.reason, "no request for 5s"));
}

static void idle_functions_with_a_minimum_keep_it(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 16, 1, 1, 5000);
    run(&b, 40, 16, 1000);
    assert_int_equal(run(&b, 0, 0, 6000), 1);
}

static void a_long_request_is_not_idleness(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 5000);
    assert_int_equal(run(&b, 0, 1, 60000), 1);
}

static void after_a_burst_the_number_stays_a_window_and_then_falls(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 50, 1, 1, 60000);
    run(&b, 0, 40, 5000);
    assert_int_equal(b.d.wanted, 40);
    assert_int_equal(run(&b, 0, 2, 30000), 40);
    assert_true(run(&b, 0, 2, 120000) <= 3);
}

static void pins_are_obeyed_within_the_maximum(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 5000);
    b.policy.override = 4;
    assert_int_equal(run(&b, 100, 4, 60000), 4);
    b.policy.override = 40;
    assert_int_equal(decide(&b), 16);
}

static void put_to_sleep_it_sleeps_until_somebody_waits(void **state)
{
    (void)state;
    struct bench b = bench_of(1, 16, 1, 1, 5000);
    b.policy.override = 0;
    assert_int_equal(run(&b, 0, 0, 1000), 0);
    assert_false(b.d.override_over);
    assert_int_equal(run(&b, 1, 0, 100), 1);
    assert_true(b.d.override_over);
}

static void nothing_is_made_again_for_nobody(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 60000);
    b.sample.waiting = 5;
    assert_int_equal(decide(&b), 5);
    b.now += 100 * MS; /* all failed, callers were turned away */
    b.sample.waiting = 0;
    assert_int_equal(decide(&b), 0);
}

static void what_was_found_running_is_kept_for_a_window(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 60000);
    b.seen.ready = 7;
    dv_scale_hold(&b.state, &b.policy, 7, b.now);
    assert_int_equal(decide(&b), 7);
    assert_int_equal(run(&b, 0, 1, 50000), 7);
    assert_true(run(&b, 0, 1, 60000) < 7);
}

static void a_decision_is_cut_to_what_fits_and_says_so(void **state)
{
    (void)state;
    struct dv_scale_decision d = {.wanted = 20, .reason = "more needed"};
    dv_scale_bound(&d, 3, 4);
    assert_int_equal(d.wanted, 7);
    assert_string_equal(d.reason, "more needed; 20 asked for, 7 fit");
}

static void more_load_never_means_fewer_replicas(void **state)
{
    (void)state;
    struct dv_rng r;
    dv_rng_init(&r, 3);
    for (int round = 0; round < 3000; round++) {
        struct bench low =
            bench_of((int64_t)dv_rng_below(&r, 3), 3 + (int64_t)dv_rng_below(&r, 60),
                     1 + (int64_t)dv_rng_below(&r, 20), 1 + (int64_t)dv_rng_below(&r, 20), 10000);
        struct bench high = low;
        uint64_t waiting = dv_rng_below(&r, 100), flight = dv_rng_below(&r, 100);
        uint64_t more = dv_rng_below(&r, 50);
        answered(&low, 20, 30 * MS);
        answered(&high, 20, 30 * MS);
        uint64_t ms = 100 * (1 + dv_rng_below(&r, 30));
        int64_t a = run(&low, waiting, flight, ms), b = run(&high, waiting + more, flight + more, ms);
        assert_true(b >= a);
        assert_true(b <= high.policy.max && a >= (waiting + flight ? 1 : low.policy.min));
    }
}

static void a_gap_in_the_samples_or_counters_that_began_anew_do_no_harm(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 16, 1, 1, 60000);
    run(&b, 0, 3, 10000);
    b.now += 3600 * S;
    assert_int_equal(run(&b, 0, 0, 100), 0);
    b.sample = (struct dv_scale_sample){.waiting = 1};
    b.seen.ready = 0;
    assert_int_equal(run(&b, 1, 0, 100), 1);
}

/* ---------------------------------------------------------------- windows and rates of one's own */

static struct dv_scale_policy policy_of(const char *scale)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    char json[300];
    struct dv_fn_spec spec;
    struct dv_scale_policy p;
    struct dv_err err = DV_ERR_INIT;
    (void)snprintf(json, sizeof(json),
                   "{\"name\":\"f\",\"image\":\"i\",\"limits\":{\"cpu\":\"1\",\"memory\":\"64Mi\"},"
                   "\"scale\":{%s}}",
                   scale);
    if (dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 4096, 0, &arena, &spec, &err) ||
        dv_fn_spec_finish(&spec, &arena, &err))
        fail_msg("%s", err.msg);
    dv_scale_policy_of(&spec, -1, &p);
    return p;
}

static void windows_follow_idle_unless_they_are_given(void **state)
{
    (void)state;
    struct dv_scale_policy p = policy_of("\"idle\":\"30s\"");
    assert_int_equal(p.stable_ns, 30 * S);
    assert_int_equal(p.down_ns, 5 * S);
    assert_int_equal(p.panic_buckets, DV_SCALE_BUCKETS / 10);
    assert_int_equal(p.panic_threshold, 200);
    p = policy_of(
        "\"idle\":\"30s\",\"window\":\"6s\",\"panic_window\":50,\"panic_threshold\":300,\"down\":\"2m\","
        "\"up_rate\":3,\"down_rate\":2,\"cpu\":70,\"memory\":80");
    assert_int_equal(p.stable_ns, 6 * S);
    assert_int_equal(p.down_ns, 120 * S);
    assert_int_equal(p.panic_buckets, DV_SCALE_BUCKETS / 2);
    assert_int_equal(p.panic_threshold, 300);
    assert_int_equal(p.up_rate, 3);
    assert_int_equal(p.down_rate, 2);
    assert_int_equal(p.cpu, 70);
    assert_int_equal(p.memory, 80);
    p = policy_of("\"panic_window\":1");
    assert_int_equal(p.panic_buckets, 1);
}

static void at_once_it_grows_by_no_more_than_its_rate(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 100, 1, 1, 60000);
    b.policy.up_rate = 3;
    b.sample.waiting = 80;
    assert_int_equal(decide(&b), 3);
    b.seen.starting = 3; /* they are on their way: what is ready counts */
    b.now += 100 * MS;
    assert_int_equal(decide(&b), 3);
    b.seen = (struct dv_scale_seen){.ready = 3};
    b.now += 100 * MS;
    assert_int_equal(decide(&b), 9);
    b.seen.ready = 2; /* one died: what was asked for stays asked for */
    b.now += 100 * MS;
    assert_int_equal(decide(&b), 9);
}

static void it_shrinks_step_by_step_by_its_rate(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 100, 1, 1, 60000);
    b.policy.down_rate = 2;
    run(&b, 0, 16, 70000);
    assert_int_equal(b.d.wanted, 16);
    int64_t last = 16, steps = 0;
    for (int i = 0; i < 3000 && last > 1; i++) {
        int64_t n = run(&b, 0, 1, 100);
        assert_true(n >= last / 2);
        steps += n != last;
        last = n;
    }
    assert_int_equal(last, 1);
    assert_true(steps >= 4);
}

static void a_higher_threshold_takes_a_rise_for_a_habit(void **state)
{
    (void)state;
    struct bench calm = bench_of(0, 100, 1, 1, 60000), nervous = calm;
    calm.policy.panic_threshold = 1000;
    run(&calm, 0, 2, 30000);
    run(&nervous, 0, 2, 30000);
    calm.state.panic_until_ns = nervous.state.panic_until_ns = 0; /* the start from zero is long ago */
    run(&calm, 3, 2, 100);
    run(&nervous, 3, 2, 100);
    assert_true(calm.state.panic_until_ns == 0);
    assert_true(nervous.state.panic_until_ns > 0);
}

/* ---------------------------------------------------------------- asks of other signals */

static int64_t run_asked(struct bench *b, const struct dv_scale_ask *asks, size_t n, uint64_t in_flight,
                         uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 100) {
        b->seen.asks = asks;
        b->seen.n_asks = n;
        (void)run(b, 0, in_flight, 100);
    }
    b->seen.asks = NULL;
    b->seen.n_asks = 0;
    return b->d.wanted;
}

static void the_largest_ask_counts_and_is_named(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 20, 100, 70, 10000);
    struct dv_scale_ask asks[] = {{.signal = DV_SIG_CPU, .replicas = 3, .text = "cpu at 120 %"},
                                  {.signal = DV_SIG_METRIC, .replicas = 7, .text = "metric q is 70"}};
    assert_int_equal(run_asked(&b, asks, 2, 1, 1000), 7);
    assert_int_equal(b.d.signal, DV_SIG_METRIC);
    assert_non_null(strstr(b.d.reason, "metric q is 70"));
    asks[1].replicas = 700;
    assert_int_equal(run_asked(&b, asks, 2, 1, 100), 20);
    asks[1].replicas = 0;
    assert_int_equal(run_asked(&b, asks, 2, 1, 20000), 3);
}

static void an_active_metric_wakes_and_an_idle_one_lets_it_sleep(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 20, 100, 70, 5000);
    struct dv_scale_ask ask = {.signal = DV_SIG_METRIC, .is_active = true, .text = "metric q is 4"};
    assert_int_equal(run_asked(&b, &ask, 1, 0, 100), 1); /* active is at least one */
    assert_int_equal(run_asked(&b, &ask, 1, 0, 60000), 1);
    ask.is_active = false;
    assert_int_equal(run_asked(&b, &ask, 1, 0, 4800), 1); /* the idle time begins with its end */
    assert_int_equal(run_asked(&b, &ask, 1, 0, 300), 0);
}

static void a_signal_without_data_keeps_what_there_is_and_harms_no_other(void **state)
{
    (void)state;
    struct bench b = bench_of(0, 20, 1, 1, 10000);
    struct dv_scale_ask ask = {.signal = DV_SIG_METRIC,
                               .is_hold = true,
                               .keeps_awake = true,
                               .text = "metric q stale for 40 s: keeps 4"};
    assert_int_equal(run_asked(&b, &ask, 1, 0, 100), 0); /* at zero it wakes nothing */
    run(&b, 0, 4, 30000);
    assert_int_equal(run_asked(&b, &ask, 1, 1, 60000), 4);
    assert_non_null(strstr(b.d.reason, "stale for 40 s: keeps 4"));
    assert_int_equal(run_asked(&b, &ask, 1, 0, 60000), 4);
    assert_int_equal(run_asked(&b, &ask, 1, 9, 20000), 9); /* load still raises it */
    ask.keeps_awake = false; /* what only measures replicas does not keep an idle function up */
    assert_int_equal(run_asked(&b, &ask, 1, 0, 60000), 0);
}

static void asks_never_lead_out_of_the_range_nor_more_to_fewer(void **state)
{
    (void)state;
    struct dv_rng r;
    dv_rng_init(&r, 5);
    for (int round = 0; round < 2000; round++) {
        struct bench low = bench_of((int64_t)dv_rng_below(&r, 4), 4 + (int64_t)dv_rng_below(&r, 40),
                                    1 + (int64_t)dv_rng_below(&r, 20), 1, 10000);
        low.policy.up_rate = (uint16_t)(dv_rng_below(&r, 2) ? 0 : 2 + dv_rng_below(&r, 3));
        low.policy.down_rate = (uint16_t)(dv_rng_below(&r, 2) ? 0 : 2);
        struct bench high = low;
        struct dv_scale_ask asks[3], more[3];
        for (int i = 0; i < 3; i++) {
            asks[i] = (struct dv_scale_ask){.signal = DV_SIG_METRIC,
                                            .replicas = (int64_t)dv_rng_below(&r, 60),
                                            .is_active = dv_rng_below(&r, 2) == 0,
                                            .text = "x"};
            more[i] = asks[i];
            more[i].replicas += (int64_t)dv_rng_below(&r, 30);
            more[i].is_active |= dv_rng_below(&r, 2) == 0;
        }
        uint64_t flight = dv_rng_below(&r, 40), ms = 100 * (1 + dv_rng_below(&r, 30));
        int64_t a = run_asked(&low, asks, 3, flight, ms), b = run_asked(&high, more, 3, flight, ms);
        assert_true(b >= a);
        assert_true(a >= low.policy.min && b <= high.policy.max);
        /* whatever falls silent from here on takes nothing away */
        for (int i = 0; i < 3; i++)
            more[i] = (struct dv_scale_ask){
                .signal = DV_SIG_METRIC, .is_hold = true, .keeps_awake = true, .text = "x"};
        if (b > 0)
            assert_true(run_asked(&high, more, 3, 0, 30000) >= b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_rest_there_is_the_minimum),
        cmocka_unit_test(the_first_waiting_request_brings_one_replica),
        cmocka_unit_test(a_burst_from_zero_asks_for_the_maximum_at_once),
        cmocka_unit_test(a_burst_on_a_warm_function_reaches_the_maximum_within_a_second),
        cmocka_unit_test(a_queue_is_drained_in_time_before_averages_notice_it),
        cmocka_unit_test(never_more_slots_than_requests),
        cmocka_unit_test(a_steady_load_gets_load_over_target),
        cmocka_unit_test(idle_functions_go_to_zero_after_idle_and_not_before),
        cmocka_unit_test(idle_functions_with_a_minimum_keep_it),
        cmocka_unit_test(a_long_request_is_not_idleness),
        cmocka_unit_test(after_a_burst_the_number_stays_a_window_and_then_falls),
        cmocka_unit_test(pins_are_obeyed_within_the_maximum),
        cmocka_unit_test(put_to_sleep_it_sleeps_until_somebody_waits),
        cmocka_unit_test(nothing_is_made_again_for_nobody),
        cmocka_unit_test(what_was_found_running_is_kept_for_a_window),
        cmocka_unit_test(a_decision_is_cut_to_what_fits_and_says_so),
        cmocka_unit_test(arrivals_per_second_are_held_against_the_rate_wanted),
        cmocka_unit_test(a_burst_is_no_rate),
        cmocka_unit_test(within_a_minute_of_the_loads_end_a_rate_is_forgotten),
        cmocka_unit_test(a_set_number_stays_a_window_and_then_follows_the_load),
        cmocka_unit_test(a_set_number_gives_way_to_a_queue_and_to_a_pin),
        cmocka_unit_test(a_beginning_stays_until_idle_and_gives_way_to_load),
        cmocka_unit_test(more_load_never_means_fewer_replicas),
        cmocka_unit_test(windows_follow_idle_unless_they_are_given),
        cmocka_unit_test(at_once_it_grows_by_no_more_than_its_rate),
        cmocka_unit_test(it_shrinks_step_by_step_by_its_rate),
        cmocka_unit_test(a_higher_threshold_takes_a_rise_for_a_habit),
        cmocka_unit_test(the_largest_ask_counts_and_is_named),
        cmocka_unit_test(an_active_metric_wakes_and_an_idle_one_lets_it_sleep),
        cmocka_unit_test(a_signal_without_data_keeps_what_there_is_and_harms_no_other),
        cmocka_unit_test(asks_never_lead_out_of_the_range_nor_more_to_fewer),
        cmocka_unit_test(a_gap_in_the_samples_or_counters_that_began_anew_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

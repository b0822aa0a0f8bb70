/* Loads with a shape: how an autoscaler follows what comes up at once, slowly, for a moment, again and again.
 */
#include "tests/sim/load.h"

#include <math.h>

/* Ten minutes of load, ten of nothing. */
static double steps(double t)
{
    return fmod(t, 1200) >= 600 ? 1 : 0;
}

/* Up for ten minutes, down for ten, rest for ten. */
static double ramps(double t)
{
    double x = fmod(t, 1800);
    return x < 600 ? x / 600 : x < 1200 ? (1200 - x) / 600 : 0;
}

/* A twentieth of the peak, and every five minutes for twenty seconds the peak. */
static double spikes(double t)
{
    double x = fmod(t, 300);
    return x >= 200 && x < 220 ? 1 : 0.05;
}

/* Nothing, and every ten minutes for twenty seconds the peak. */
static double bursts(double t)
{
    double x = fmod(t, 600);
    return x >= 200 && x < 220 ? 1 : 0;
}

/* Up slowly within three minutes, then down at once. */
static double sawtooth(double t)
{
    return fmod(t, 180) / 180;
}

const struct sim_shape sim_shapes[] = {
    {"steps", "ten minutes of load, ten of nothing", steps},
    {"ramps", "ten minutes up, ten down, ten of nothing", ramps},
    {"spikes", "a twentieth of the peak; the peak for 20 s every 5 minutes", spikes},
    {"bursts", "nothing; the peak for 20 s every 10 minutes", bursts},
    {"sawtooth", "three minutes up, down at once", sawtooth},
};
const size_t sim_n_shapes = DV_COUNT(sim_shapes);

void sim_shape_load(struct sim *s, const struct sim_shape *shape, double peak)
{
    static const double seconds[] = {0.05, 0.2, 0.5, 1.0};
    static const int64_t concurrency[] = {1, 10};
    for (size_t i = 0; i < DV_COUNT(seconds) * DV_COUNT(concurrency); i++) {
        char name[48];
        double mean_s = seconds[i / DV_COUNT(concurrency)];
        int64_t c = concurrency[i % DV_COUNT(concurrency)];
        (void)snprintf(name, sizeof(name), "%s-%g-ms-%lld", shape->name, mean_s * 1e3, (long long)c);
        struct sim_fn *f = sim_fn_add(s, name, "");
        sim_image(f, 0);
        f->mean_s = mean_s;
        f->spread = 0.3;
        f->def.spec.scale.concurrency = c;
        f->def.spec.scale.target = c * 7 / 10 > 0 ? c * 7 / 10 : 1;
        f->arrivals = (struct sim_arrivals){.kind = SIM_PROFILE,
                                            .profile = shape->profile,
                                            .peak_s = peak / mean_s,
                                            .shift_s = 7 * (double)i}; /* no two spikes at once */
        sim_fn_begin(s, f);
    }
}

/* Scheduled capacity: looks at the clock when a window opens or closes, and tells the core the minimum. */
#include "orchestrator/control/control_internal.h"

#include "orchestrator/core/schedule.h"
#include "proto/rt/tzfile.h"

/* The wall clock may be set: whatever comes later is looked at again after this long. */
#define LOOK_AGAIN_S 60

struct ctl_zone {
    char *name;
    struct dv_tz *tz;
};

struct ctl_schedule {
    struct dv_control *c;
    uint64_t fn_uid;
    struct dv_timer timer;
    size_t n;
    struct dv_schedule_entry v[];
};

/* ---- zones, read once ---- */

static int zone_of(struct dv_control *c, const char *name, const struct dv_tz **out, struct dv_err *err)
{
    struct ctl_zone *z = name ? dv_map_find(&c->zones, dv_sv_c(name)) : NULL;
    struct dv_tz *tz = NULL;
    if (!name || z) {
        *out = z ? z->tz : NULL;
        return DV_OK;
    }
    int rc = dv_tz_load(name, &tz, err);
    if (rc)
        return rc;
    z = dv_zalloc(sizeof(*z));
    if (z)
        z->name = dv_strdup(name);
    if (!z || !z->name || dv_map_put(&c->zones, dv_sv_c(z->name), z)) {
        dv_tz_free(tz);
        if (z)
            dv_free(z->name);
        dv_free(z);
        return dv_err_set(err, DV_E_NOMEM, "time zone");
    }
    z->tz = tz;
    *out = tz;
    return DV_OK;
}

void ctl_zones_free(struct dv_control *c)
{
    struct ctl_zone *z;
    for (size_t i = 0; (z = dv_map_next(&c->zones, &i));) {
        dv_tz_free(z->tz);
        dv_free(z->name);
        dv_free(z);
    }
    dv_map_deinit(&c->zones);
}

int ctl_schedule_check(struct dv_control *c, const struct dv_fn_spec *spec, char *field, size_t cap,
                       struct dv_err *err)
{
    for (size_t i = 0; i < spec->scale.n_schedule; i++) {
        const struct dv_tz *tz;
        (void)snprintf(field, cap, "scale.schedule[%zu].timezone", i);
        int rc = zone_of(c, spec->scale.schedule[i].timezone, &tz, err);
        if (rc)
            return rc == DV_NOT_FOUND ? DV_INVALID : rc;
    }
    return DV_OK;
}

/* ---- time ---- */

static void look(struct ctl_schedule *s)
{
    struct dv_control *c = s->c;
    int64_t wall_ms = ctl_wall(c), wait_ms = LOOK_AGAIN_S * 1000;
    struct dv_schedule_state now = dv_schedule_at(s->v, s->n, wall_ms / 1000);
    if (now.next_s < wall_ms / 1000 + LOOK_AGAIN_S)
        wait_ms = now.next_s * 1000 - wall_ms;
    dv_cluster_schedule(c->cluster, s->fn_uid, now.min, ctl_now(c));
    ctl_pump(c);
    /* Short of memory: the next change of the function looks again. */
    (void)dv_timer_set(c->cfg.loop, &s->timer, ctl_now(c) + (uint64_t)(wait_ms > 1 ? wait_ms : 1) * CTL_MS);
}

static void on_timer(struct dv_timer *t)
{
    look(DV_CONTAINER_OF(t, struct ctl_schedule, timer));
}

void ctl_schedule_free(struct ctl_schedule *s)
{
    if (!s)
        return;
    dv_timer_cancel(s->c->cfg.loop, &s->timer);
    dv_free(s);
}

/* A window that cannot be read (its zone went away since it was written) is left out and told of. */
static void take_window(struct ctl_schedule *s, const struct ctl_fn *f, const struct dv_window *w)
{
    struct dv_schedule_entry *e = &s->v[s->n];
    struct dv_err err = DV_ERR_INIT;
    *e = (struct dv_schedule_entry){.duration_s = w->duration_ms / 1000, .min = w->min};
    if (dv_cron_parse(dv_sv_c(w->cron), &e->begins, NULL) || zone_of(s->c, w->timezone, &e->tz, &err))
        dv_log(DV_LOG_ERROR, "a window of a function's schedule is left out", DV_LS("function", f->key),
               DV_LS("cron", w->cron), DV_LE(&err));
    else
        s->n++;
}

void ctl_schedule_put(struct dv_control *c, struct ctl_fn *f)
{
    const struct dv_scale *sc = &f->v->def.spec.scale;
    bool was_there = f->schedule != NULL;
    ctl_schedule_free(f->schedule);
    f->schedule = NULL;
    if (sc->n_schedule)
        f->schedule = dv_zalloc(sizeof(*f->schedule) + sc->n_schedule * sizeof(struct dv_schedule_entry));
    if (!f->schedule) {
        if (was_there)
            dv_cluster_schedule(c->cluster, f->uid, 0, ctl_now(c));
        if (sc->n_schedule)
            dv_log(DV_LOG_ERROR, "out of memory: a function's schedule is not followed",
                   DV_LS("function", f->key));
        return;
    }
    f->schedule->c = c;
    f->schedule->fn_uid = f->uid;
    f->schedule->timer.fn = on_timer;
    for (size_t i = 0; i < sc->n_schedule; i++)
        take_window(f->schedule, f, &sc->schedule[i]);
    look(f->schedule);
}

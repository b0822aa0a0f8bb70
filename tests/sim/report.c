#include "tests/sim/report.h"

#include <stddef.h>
#include "proto/base/auto.h"

struct column {
    const char *json, *title, *format;
    size_t offset;
    double factor;
};

#define AT(f) offsetof(struct sim_figures, f)
static const struct column columns[] = {
    {"requests", "requests", "%11.0f", AT(requests), 1},
    {"cold_starts", "cold", "%9.0f", AT(cold), 1},
    {"cold_share", "cold %", "%8.4f", AT(cold_share), 100},
    {"primed_share", "primed %", "%8.4f", AT(primed_share), 100},
    {"queued_share", "queued %", "%8.4f", AT(queued_share), 100},
    {"wait_p50_ms", "p50 ms", "%8.2f", AT(p50_ms), 1},
    {"wait_p99_ms", "p99 ms", "%8.1f", AT(p99_ms), 1},
    {"wait_p999_ms", "p99.9 ms", "%8.1f", AT(p999_ms), 1},
    {"containers", "made", "%9.0f", AT(containers), 1},
    {"replica_seconds", "replica-s", "%12.0f", AT(replica_s), 1},
    {"gb_seconds", "GB-s", "%11.0f", AT(gb_s), 1},
    {"lost", "lost", "%6.0f", AT(lost), 1},
    {"refused", "refused", "%7.0f", AT(refused), 1},
    {"wall_s", "took s", "%6.1f", AT(wall_s), 1},
};

static double value_of(const struct sim_figures *f, size_t offset)
{
    return *(const double *)(const void *)((const char *)f + offset);
}

static struct sim_spread spread(double *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && v[k] < v[k - 1]; k--) {
            double x = v[k];
            v[k] = v[k - 1];
            v[k - 1] = x;
        }
    if (!n)
        return (struct sim_spread){0};
    return (struct sim_spread){(v[(n - 1) / 2] + v[n / 2]) / 2, v[0], v[n - 1]};
}

struct sim_spread sim_spread_of(const struct sim_row *row, size_t offset)
{
    double v[SIM_SEEDS_MAX];
    for (size_t i = 0; i < row->n; i++)
        v[i] = value_of(&row->runs[i], offset);
    return spread(v, row->n);
}

struct sim_spread sim_ratio_of(const struct sim_row *a, const struct sim_row *b, size_t offset)
{
    double v[SIM_SEEDS_MAX];
    size_t n = a->n < b->n ? a->n : b->n;
    for (size_t i = 0; i < n; i++) {
        double y = value_of(&b->runs[i], offset);
        v[i] = y != 0 ? value_of(&a->runs[i], offset) / y : 0;
    }
    return spread(v, n);
}

void sim_print_table(const struct sim_row *rows, size_t n, FILE *out)
{
    fprintf(out, "%-14s %-20s", "load", "system");
    for (size_t c = 0; c < DV_COUNT(columns); c++) {
        int width = 0;
        (void)sscanf(columns[c].format, "%%%d", &width);
        fprintf(out, " %*s", width, columns[c].title);
    }
    fputc('\n', out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%-14s %-20s", rows[i].load, rows[i].system);
        for (size_t c = 0; c < DV_COUNT(columns); c++) {
            fputc(' ', out);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            fprintf(out, columns[c].format,
                    sim_spread_of(&rows[i], columns[c].offset).median * columns[c].factor);
#pragma GCC diagnostic pop
        }
        fputc('\n', out);
    }
}

void sim_print_json(const struct sim_row *rows, size_t n, FILE *out)
{
    fputs("{\"rows\":[", out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s\n{\"load\":\"%s\",\"system\":\"%s\",\"seeds\":%zu", i ? "," : "", rows[i].load,
                rows[i].system, rows[i].n);
        for (size_t c = 0; c < DV_COUNT(columns); c++) {
            struct sim_spread s = sim_spread_of(&rows[i], columns[c].offset);
            fprintf(out, ",\"%s\":{\"median\":%.9g,\"least\":%.9g,\"most\":%.9g}", columns[c].json, s.median,
                    s.least, s.most);
        }
        fputc('}', out);
    }
    fputs("\n]}\n", out);
}

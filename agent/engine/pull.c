#include "agent/engine/pull.h"

#include <cjson/cJSON.h>

#include "agent/engine/docker_internal.h"
#include "proto/wire/codec.h"

enum { FETCHED = 800, WHOLE = 1000 };

void dv_pull_init(struct dv_pull_state *s)
{
    memset(s, 0, sizeof(*s));
    s->percent = -1;
}

static int share(const struct cJSON *detail, int of)
{
    double current = (double)dk_i64(detail, "current"), total = (double)dk_i64(detail, "total");
    if (current <= 0 || total <= 0)
        return 0;
    return (int)((current < total ? current / total : 1) * of);
}

/* How far a layer is by this line; -1 when the line is not about a layer. */
static int layer_progress(const char *status, const struct cJSON *detail)
{
    struct dv_sv s = dv_sv_c(status);
    if (dv_sv_starts(s, DV_SV("Pulling fs layer")) || dv_sv_starts(s, DV_SV("Waiting")))
        return 0;
    if (dv_sv_starts(s, DV_SV("Downloading")))
        return share(detail, FETCHED);
    if (dv_sv_starts(s, DV_SV("Verifying Checksum")) || dv_sv_starts(s, DV_SV("Download complete")))
        return FETCHED;
    if (dv_sv_starts(s, DV_SV("Extracting")))
        return FETCHED + share(detail, WHOLE - FETCHED);
    if (dv_sv_starts(s, DV_SV("Pull complete")) || dv_sv_starts(s, DV_SV("Already exists")))
        return WHOLE;
    return -1;
}

static void move_layer(struct dv_pull_state *s, const char *id, int permille)
{
    size_t i = 0;
    while (i < s->n_layers && strcmp(s->layers[i].id, id) != 0)
        i++;
    if (i == DV_PULL_LAYERS)
        return;
    if (i == s->n_layers) {
        (void)dv_copy(s->layers[s->n_layers++].id, sizeof(s->layers[i].id), id);
        s->layers[i].permille = 0;
    }
    if (permille > s->layers[i].permille)
        s->layers[i].permille = permille;
}

static bool sum_up(struct dv_pull_state *s)
{
    long sum = 0;
    for (size_t i = 0; i < s->n_layers; i++)
        sum += s->layers[i].permille;
    int percent = s->n_layers ? (int)(sum / 10 / (long)s->n_layers) : -1;
    if (percent <= s->percent)
        return false;
    s->percent = percent;
    return true;
}

bool dv_pull_line(struct dv_pull_state *s, struct dv_sv line)
{
    struct cJSON *tree = NULL;
    if (dv_json_parse(line, 64 * 1024, &tree, NULL))
        return false;
    const char *error = dk_str(dk_get(tree, "errorDetail"), "message"), *status = dk_str(tree, "status"),
               *id = dk_str(tree, "id");
    if (!error[0])
        error = dk_str(tree, "error");
    if (error[0])
        (void)dv_copy(s->error, sizeof(s->error), error);
    int permille = layer_progress(status, dk_get(tree, "progressDetail"));
    if (permille >= 0 && id[0] && strlen(id) < sizeof(s->layers[0].id))
        move_layer(s, id, permille);
    bool is_news = sum_up(s);
    char text[sizeof(s->status)];
    (void)snprintf(text, sizeof(text), "%s%s%s", id, id[0] ? ": " : "", status);
    if (status[0] && strcmp(text, s->status) != 0) {
        (void)dv_copy(s->status, sizeof(s->status), text);
        is_news = true;
    }
    cJSON_Delete(tree);
    return is_news;
}

int dv_pull_classify(const char *words)
{
    static const struct {
        const char *says;
        int code;
    } rows[] = {
        /* before "not found": the same sentence often holds both */
        {"no matching manifest", DV_UNSUPPORTED},
        {"does not match the specified platform", DV_UNSUPPORTED},
        {"no image found in manifest list for architecture", DV_UNSUPPORTED},
        {"no image found in image index for architecture", DV_UNSUPPORTED},
        {"unauthorized", DV_DENIED},
        {"authentication required", DV_DENIED},
        {"no basic auth credentials", DV_DENIED},
        {"incorrect username or password", DV_DENIED},
        {"access denied", DV_DENIED},
        {"access forbidden", DV_DENIED},
        {"denied:", DV_DENIED},
        {"manifest unknown", DV_NOT_FOUND},
        {"name unknown", DV_NOT_FOUND},
        {"not found", DV_NOT_FOUND},
        {"no such image", DV_NOT_FOUND},
        {"does not exist", DV_NOT_FOUND},
        {"invalid reference format", DV_NOT_FOUND},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++)
        if (strcasestr(words, rows[i].says))
            return rows[i].code;
    return DV_E_ENGINE;
}

const char *dv_pull_split(char *image)
{
    char *at = strchr(image, '@');
    if (at) {
        *at = '\0';
        /* "repo:tag@digest": the digest alone decides */
        char *slash = strrchr(image, '/'), *colon = strrchr(image, ':');
        if (colon && (!slash || colon > slash))
            *colon = '\0';
        return at + 1;
    }
    char *slash = strrchr(image, '/'), *colon = strrchr(slash ? slash : image, ':');
    if (!colon)
        return "latest";
    *colon = '\0';
    return colon + 1;
}

/* Every route there is: it drives dispatch, 405 + Allow, the check of query parameters, `--print-routes`, and
 * the test that holds proto/openapi.yaml to it.  400 (a query parameter that is unknown or no good) and 401
 * belong to every protected route; 413 is the HTTP server's own.  500 and 503 stand for failures of our own
 * (memory, store). */
#include "orchestrator/api/api_internal.h"

#define READ  "200,400,401,500"
#define FOUND "200,400,401,404,500"
#define WRITE "400,401,413,500,503"

const struct dv_api_route dv_api_route_table[] = {
    {"GET", "/v1/functions", DV_API_ADMIN, dv_api_functions_list, READ,
     "namespace,label,image,q,limit,after"},
    {"POST", "/v1/functions", DV_API_ADMIN, dv_api_functions_create, "200,201,409," WRITE,
     "namespace,dry_run"},
    {"GET", "/v1/functions/{name}", DV_API_ADMIN, dv_api_function_get, FOUND, "namespace"},
    {"PUT", "/v1/functions/{name}", DV_API_ADMIN, dv_api_function_put, "200,201,404,409,412," WRITE,
     "namespace,dry_run"},
    {"PATCH", "/v1/functions/{name}", DV_API_ADMIN, dv_api_function_patch, "200,404,409,412," WRITE,
     "namespace,dry_run"},
    {"DELETE", "/v1/functions/{name}", DV_API_ADMIN, dv_api_function_delete, "204,404,412," WRITE,
     "namespace,dry_run"},
    {"POST", "/v1/functions/{name}/scale", DV_API_ADMIN, dv_api_function_scale, "200,404," WRITE,
     "namespace"},
    {"GET", "/v1/functions/{name}/events", DV_API_ADMIN, dv_api_function_events, FOUND, "namespace"},
    {"GET", "/v1/functions/{name}/decisions", DV_API_ADMIN, dv_api_function_decisions, FOUND, "namespace"},
    {"GET", "/v1/functions/{name}/replicas", DV_API_ADMIN, dv_api_function_replicas, FOUND, "namespace"},
    {"GET", "/v1/functions/{name}/logs", DV_API_ADMIN, dv_api_function_logs, FOUND,
     "namespace,follow,since,tail,replica"},
    {"POST", "/v1/apply", DV_API_ADMIN, dv_api_apply, "200,409," WRITE, "dry_run"},
    {"GET", "/v1/replicas", DV_API_ADMIN, dv_api_replicas, READ, "namespace"},
    {"GET", "/v1/nodes", DV_API_ADMIN, dv_api_nodes, READ, ""},
    {"POST", "/v1/nodes/join", DV_API_JOIN, dv_api_node_join, "200,409," WRITE, ""},
    {"GET", "/v1/nodes/{node}", DV_API_ADMIN, dv_api_node_get, FOUND, ""},
    {"DELETE", "/v1/nodes/{node}", DV_API_ADMIN, dv_api_node_delete, "204,404,409," WRITE, "force"},
    {"POST", "/v1/nodes/{node}/cordon", DV_API_ADMIN, dv_api_node_cordon, "200,404,409," WRITE, ""},
    {"POST", "/v1/nodes/{node}/uncordon", DV_API_ADMIN, dv_api_node_uncordon, "200,404,409," WRITE, ""},
    {"POST", "/v1/nodes/{node}/drain", DV_API_ADMIN, dv_api_node_drain, "200,404,409," WRITE, ""},
    {"GET", "/v1/secrets", DV_API_ADMIN, dv_api_secrets_list, READ, "namespace"},
    {"POST", "/v1/secrets", DV_API_ADMIN, dv_api_secret_post, "201,404,409," WRITE, "namespace"},
    {"POST", "/v1/secrets/{name}", DV_API_ADMIN, dv_api_secret_post, "201,404,409," WRITE, "namespace"},
    {"PUT", "/v1/secrets/{name}", DV_API_ADMIN, dv_api_secret_put, "200,404," WRITE, "namespace"},
    {"DELETE", "/v1/secrets/{name}", DV_API_ADMIN, dv_api_secret_delete, "204,404," WRITE, "namespace"},
    {"GET", "/v1/namespaces", DV_API_ADMIN, dv_api_ns_list, READ, ""},
    {"POST", "/v1/namespaces", DV_API_ADMIN, dv_api_ns_create, "201,409," WRITE, ""},
    {"GET", "/v1/namespaces/{name}", DV_API_ADMIN, dv_api_ns_get, FOUND, ""},
    {"PUT", "/v1/namespaces/{name}", DV_API_ADMIN, dv_api_ns_put, "200,404," WRITE, ""},
    {"DELETE", "/v1/namespaces/{name}", DV_API_ADMIN, dv_api_ns_delete, "204,404,409," WRITE, ""},
    {"GET", "/v1/registries", DV_API_ADMIN, dv_api_registries_list, READ, ""},
    {"POST", "/v1/registries", DV_API_ADMIN, dv_api_registry_put, "200," WRITE, ""},
    {"PUT", "/v1/registries/{server}", DV_API_ADMIN, dv_api_registry_put, "200," WRITE, ""},
    {"DELETE", "/v1/registries/{server}", DV_API_ADMIN, dv_api_registry_delete, "204,404," WRITE, ""},
    {"GET", "/v1/version", DV_API_OPEN, dv_api_version, "200,400,500", ""},
    {"GET", "/v1/health", DV_API_OPEN, dv_api_health, "200,400", ""},
    {"GET", "/v1/ready", DV_API_OPEN, dv_api_ready, "200,400,503", ""},
    {"GET", "/healthz", DV_API_OPEN, dv_api_health, "200,400", ""},
    {"GET", "/readyz", DV_API_OPEN, dv_api_ready, "200,400,503", ""},
    {"GET", "/metrics", DV_API_ADMIN, dv_api_metrics, READ, ""},

    {"GET", "/system/functions", DV_API_ADMIN, dv_of_functions_list, "200,401,500", "namespace"},
    {"POST", "/system/functions", DV_API_ADMIN, dv_of_functions_create, "202,409," WRITE, ""},
    {"PUT", "/system/functions", DV_API_ADMIN, dv_of_functions_update, "202,404,409," WRITE, ""},
    {"DELETE", "/system/functions", DV_API_ADMIN, dv_of_functions_delete, "202,404," WRITE, "namespace"},
    {"GET", "/system/function/{name}", DV_API_ADMIN, dv_of_function_get, "200,400,401,404,500",
     "namespace,usage"},
    {"POST", "/system/scale-function/{name}", DV_API_ADMIN, dv_of_scale, "202,404," WRITE, "namespace"},
    {"GET", "/system/info", DV_API_ADMIN, dv_of_info, "200,401,500", ""},
    {"GET", "/system/secrets", DV_API_ADMIN, dv_of_secrets_list, "200,401,500", "namespace"},
    {"POST", "/system/secrets", DV_API_ADMIN, dv_of_secrets_create, "202,404,409," WRITE, ""},
    {"PUT", "/system/secrets", DV_API_ADMIN, dv_of_secrets_update, "202,404," WRITE, ""},
    {"DELETE", "/system/secrets", DV_API_ADMIN, dv_of_secrets_delete, "202,404," WRITE, "namespace"},
    {"GET", "/system/logs", DV_API_ADMIN, dv_of_logs, "200,400,401,404,422,500",
     "name,namespace,instance,tail,follow,since"},
    {"GET", "/system/namespaces", DV_API_ADMIN, dv_of_namespaces, "200,401,500", ""},
    {"POST", "/system/namespace/", DV_API_ADMIN, dv_of_ns_create, "201,409," WRITE, ""},
    {"GET", "/system/namespace/{name}", DV_API_ADMIN, dv_of_ns_get, "200,400,401,404,500", ""},
    {"POST", "/system/namespace/{name}", DV_API_ADMIN, dv_of_ns_create, "201,409," WRITE, ""},
    {"PUT", "/system/namespace/{name}", DV_API_ADMIN, dv_of_ns_update, "202,404," WRITE, ""},
    {"DELETE", "/system/namespace/{name}", DV_API_ADMIN, dv_of_ns_delete, "202,404,409," WRITE, ""},
    {"POST", "/system/alert", DV_API_ADMIN, dv_of_alert, "200,400,401,413,500", ""},
    {"GET", "/system/telemetry", DV_API_ADMIN, dv_of_telemetry, "200,401,500", ""},
    {"GET", "/ui/{rest}", DV_API_ADMIN, dv_of_ui, "200,400,401,404,500", ""},
    {"GET", "/", DV_API_OPEN, dv_of_root, "307", ""},
};
const size_t dv_api_n_routes = DV_COUNT(dv_api_route_table);

enum dv_api_face dv_api_face_of(const struct dv_api_route *route)
{
    return dv_sv_starts(dv_sv_c(route->pattern), DV_SV("/system/")) ||
                   dv_sv_starts(dv_sv_c(route->pattern), DV_SV("/ui/"))
               ? DV_API_OPENFAAS
               : DV_API_V1;
}

int dv_api_routes(struct dv_buf *out)
{
    for (size_t i = 0; i < dv_api_n_routes; i++) {
        const struct dv_api_route *r = &dv_api_route_table[i];
        (void)dv_buf_addf(out, "%s %s %s %s\n", r->method, r->pattern, r->statuses,
                          *r->params ? r->params : "-");
    }
    return out->failed;
}

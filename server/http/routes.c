/* routes.c - the table of routes, and which of them a request is for. */
#include "server/http/routes.h"

#include <string.h>

#include "server/http/handlers.h"

#define BIT(id) (1u << PARAMETER_##id)
#define EXPLANATION (BIT(ATTENTION) | BIT(LAYER) | BIT(LAYERS) | BIT(HEAD) | BIT(TARGET))
#define WORDS (BIT(LABELS) | BIT(TEMPLATE))
#define CLASSIFICATION (BIT(MODEL) | BIT(TOP_K) | BIT(FUNCTION) | EXPLANATION | WORDS)
#define PICTURE (BIT(COLORMAP) | BIT(ALPHA) | BIT(OVERLAY) | BIT(SIZE))

#define POST_IMAGES .method = "POST", .role = ROLE_INFER, .takes_images = true, .needs_models = true, \
     .handle = handle_images, .parse = parse_images
#define INSIDE .method = "GET", .role = ROLE_INFER, .needs_models = true, .model = MODEL_IN_PATH, .handle = handle_inside

#define V2 .errors = ERRORS_PLAIN
#define V2_MODEL .method = "GET", .role = ROLE_INFER, .needs_models = true, .model = MODEL_IN_PATH, V2
#define V2_STATS .method = "GET", .role = ROLE_INFER, .needs_models = true, V2, .handle = handle_v2_stats
#define V2_INFER .method = "POST", .role = ROLE_INFER, .takes_images = true, .needs_models = true, .model = MODEL_IN_PATH, \
     V2, \
     .handle = handle_v2_infer, .parse = parse_v2_infer, .finish = finish_v2_infer
#define IMAGE_FOR_PATH .role = ROLE_INFER, .takes_images = true, .needs_models = true, .model = MODEL_IN_PATH, \
     .parameters = BIT(TOP_K) | BIT(FUNCTION) | WORDS, .one_image = true

static const struct route routes[] = {
    {.name = "classify", .path = "/classify", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = CLASSIFICATION,
     .finish = finish_classify},
    {.name = "explain", .path = "/explain", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = CLASSIFICATION | PICTURE,
     .explains = true, .pictures = PICTURES_PREFERRED, .finish = finish_explain},
    {.name = "attention-distance", .path = "/attention-distance", POST_IMAGES, .model = MODEL_IN_QUERY,
     .parameters = BIT(MODEL), .pictures = PICTURES_POSSIBLE, .finish = finish_attention_distance},
    {.name = "embed", .path = "/embed", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = BIT(MODEL),
     .finish = finish_embed},
    {.name = "models", .method = "GET", .path = "/models", .role = ROLE_INFER, .needs_models = true,
     .handle = handle_models},
    {.name = "model", .method = "GET", .path = "/models/{name}", .role = ROLE_INFER, .needs_models = true,
     .handle = handle_model},
    {.name = "filters", .path = "/models/{name}/filters", INSIDE, .finish = finish_filters},
    {.name = "filters.png", .path = "/models/{name}/filters.png", INSIDE, .finish = finish_filters_png},
    {.name = "positions", .path = "/models/{name}/positions", INSIDE, .finish = finish_positions},
    {.name = "positions.png", .path = "/models/{name}/positions.png", INSIDE, .finish = finish_positions_png},
    {.name = "v2", .method = "GET", .path = "/v2", .role = ROLE_OPEN, V2, .handle = handle_v2_server},
    {.name = "v2-live", .method = "GET", .path = "/v2/health/live", .role = ROLE_OPEN, V2, .handle = handle_v2_live},
    {.name = "v2-ready", .method = "GET", .path = "/v2/health/ready", .role = ROLE_OPEN, V2, .handle = handle_v2_ready},
    {.name = "v2-stats", .method = "GET", .path = "/v2/models/stats", .role = ROLE_METRICS, V2, .needs_models = true,
     .handle = handle_v2_stats},
    {.name = "v2-model", .path = "/v2/models/{name}", V2_MODEL, .handle = handle_v2_model},
    {.name = "v2-model", .path = "/v2/models/{name}/versions/{version}", V2_MODEL, .handle = handle_v2_model},
    {.name = "v2-model-ready", .method = "GET", .path = "/v2/models/{name}/ready", .role = ROLE_OPEN, V2,
     .needs_models = true, .handle = handle_v2_model_ready},
    {.name = "v2-model-ready", .method = "GET", .path = "/v2/models/{name}/versions/{version}/ready", .role = ROLE_OPEN,
     V2, .needs_models = true, .handle = handle_v2_model_ready},
    {.name = "v2-infer", .path = "/v2/models/{name}/infer", V2_INFER},
    {.name = "v2-infer", .path = "/v2/models/{name}/versions/{version}/infer", V2_INFER},
    {.name = "v2-stats", .path = "/v2/models/{name}/stats", V2_STATS},
    {.name = "v2-stats", .path = "/v2/models/{name}/versions/{version}/stats", V2_STATS},
    {.name = "v2-index", .method = "POST", .path = "/v2/repository/index", .role = ROLE_INFER, V2, .needs_models = true,
     .handle = handle_v2_index},
    {.name = "v2-load", .method = "POST", .path = "/v2/repository/models/{name}/load", .role = ROLE_ADMIN, V2,
     .needs_models = true, .handle = handle_reload},
    {.name = "v2-unload", .method = "POST", .path = "/v2/repository/models/{name}/unload", .role = ROLE_ADMIN, V2,
     .needs_models = true, .handle = handle_unload},
    {.name = "hf", .method = "POST", .path = "/hf/{name}", IMAGE_FOR_PATH, .errors = ERRORS_PLAIN, .handle = handle_hf,
     .parse = parse_hf, .finish = finish_hf},
    {.name = "predictions", .method = "POST", .path = "/predictions/{name}", IMAGE_FOR_PATH, .handle = handle_images,
     .finish = finish_predictions},
    {.name = "predictions", .method = "POST", .path = "/predictions/{name}/{version}", IMAGE_FOR_PATH,
     .handle = handle_images, .finish = finish_predictions},
    {.name = "ping", .method = "GET", .path = "/ping", .role = ROLE_OPEN, .handle = handle_ping},
    {.name = "load", .method = "POST", .path = "/models/{name}/load", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_load},
    {.name = "reload", .method = "POST", .path = "/models/{name}/reload", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_reload},
    {.name = "unload", .method = "POST", .path = "/models/{name}/unload", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_unload},
    {.name = "page", .method = "GET", .path = "/", .role = ROLE_OPEN, .handle = handle_page},
    {.name = "openapi", .method = "GET", .path = "/openapi.json", .role = ROLE_OPEN, .handle = handle_openapi},
    {.name = "healthz", .method = "GET", .path = "/healthz", .role = ROLE_OPEN, .handle = handle_healthz},
    {.name = "readyz", .method = "GET", .path = "/readyz", .role = ROLE_OPEN, .handle = handle_readyz},
    {.name = "metrics", .method = "GET", .path = "/metrics", .role = ROLE_METRICS, .handle = handle_metrics},
    {.name = "debug-queue", .method = "GET", .path = "/debug/queue", .role = ROLE_ADMIN, .handle = handle_debug_queue},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

const struct route *routes_table(size_t *count)
{
    *count = ROUTE_COUNT;
    return routes;
}

/* ---- finding the route ---- */

/* The segment of the path that {name} or {version} of the pattern stands for, decoded; false: none can be. */
static bool take_segment(struct request *request, const char *pattern, const char *path, size_t length)
{
    const bool version = strncmp(pattern, "{version}", 9) == 0;
    char *out = version ? request->version : request->name;
    return length > 0 && percent_decode(path, length, false, out, version ? sizeof request->version : sizeof request->name);
}

/* Whether the path is the route's, whose segments are then in the request. */
static bool path_matches(const struct route *route, struct request *request)
{
    const char *pattern = route->path, *path = request->path;
    request->name[0] = request->version[0] = '\0';
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        const size_t length = strcspn(path, "/");
        if (!take_segment(request, pattern, path, length))
            return false;
        path += length;
        pattern = strchr(pattern, '}') + 1;
    }
    return *path == '\0';
}

static bool is_served(const struct route *route, const struct request *request)
{
    return route->role != ROLE_ADMIN || request->settings->config.access.admin;
}

static bool method_matches(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0) ||
           (strcmp(method, "PUT") == 0 && route->finish == finish_predictions); /* as TorchServe takes curl -T */
}

void routes_find(struct request *request)
{
    const struct route *row = routes;
    while (row < routes + ROUTE_COUNT && !path_matches(row, request))
        row++;
    if (row < routes + ROUTE_COUNT && !is_served(row, request)) {
        problem_set(&request->problem, 404, "route_not_found", "%s is only there with access.admin in the configuration",
                    row->path);
        return;
    }
    if (row == routes + ROUTE_COUNT) {
        problem_set(&request->problem, 404, "route_not_found",
                    "there is no %.80s here; GET /openapi.json says what there is", request->path);
        return;
    }
    request->route = row;
    if (!method_matches(row, request->method)) {
        request->allow = strcmp(row->method, "GET") == 0          ? "GET, HEAD"
                         : row->finish == finish_predictions ? "POST, PUT"
                                                               : row->method;
        if (request->origin && strcmp(request->method, "OPTIONS") == 0)
            request->status = 204; /* a browser asks before it sends the request itself */
        else
            problem_set(&request->problem, 405, "method_not_allowed", "%s takes %s, not %s", row->path, request->allow,
                        request->method);
    }
}

/* admin.c - models brought into memory, anew or out of it: the loader does it, the reply says how it went. */
#include <stdio.h>

#include "server/http/handlers.h"
#include "server/http/reply.h"

static void put_state(struct request *request)
{
    struct listed listed;
    if (!registry_look(request->service->registry, request->asked_id, &listed)) {
        problem_set(&request->problem, 404, "model_not_found", "there is no model %s any more", request->asked_id);
        return;
    }
    strbuf_text(&request->reply, "{\"model\":");
    strbuf_json_string(&request->reply, request->asked_id);
    strbuf_put_text(&request->reply, "state", model_state_name(listed.state));
    strbuf_text(&request->reply, "}");
    listed_release(&listed);
}

enum outcome request_ask_loader(struct request *request, enum loader_wish wish)
{
    if (request->asked_id[0]) { /* it has done it */
        put_state(request);
        return OUTCOME_REPLY;
    }
    const char *version = *request->version ? request->version : NULL;
    if (!version && registry_versions(request->service->registry, request->name) > 1) {
        problem_set(&request->problem, 400, "version_needed", "%.64s has several versions: say which, as in %.64s:1",
                    request->name, request->name);
        return OUTCOME_REPLY;
    }
    if (registry_find(request->service->registry, request->name, version, NULL, request->load_id) == FOUND_NOTHING) {
        request->load_id[0] = '\0';
        request_unknown_model(request, request->name);
        return OUTCOME_REPLY;
    }
    snprintf(request->asked_id, sizeof request->asked_id, "%s", request->load_id);
    request->wish = wish;
    return OUTCOME_LOAD;
}

enum outcome handle_load(struct request *request)
{
    return request_ask_loader(request, LOADER_LOAD);
}

enum outcome handle_reload(struct request *request)
{
    return request_ask_loader(request, LOADER_RELOAD);
}

enum outcome handle_unload(struct request *request)
{
    return request_ask_loader(request, LOADER_UNLOAD);
}

/* others.c - the shapes that clients of Hugging Face's inference API and of TorchServe expect. */
#include <stdlib.h>

#include "server/http/handlers.h"
#include "server/http/hf_message.h"
#include "server/http/multipart.h"

/* ---- Hugging Face ---- */

/* A picture as it is, or base64 in JSON, whose Content-Type curl -d leaves out. */
enum outcome handle_hf(struct request *request)
{
    const bool object = request->body_length > 0 && request->body[0] == '{';
    return object || request_is_json(request) ? request_parse_on_worker(request) : handle_images(request);
}

static void release_message(void *message)
{
    hf_release(message);
    free(message);
}

void parse_hf(struct request *request)
{
    struct hf_request *message = calloc(1, sizeof *message);
    if (!message) {
        request_out_of_memory(request);
        return;
    }
    if (!hf_parse(message, request->body, request->body_length, &request->problem)) {
        free(message);
        return;
    }
    request->message = message;
    request->free_message = release_message;
    request->images = 1;
    request->single = true;
    if (message->has_top_k)
        request->choices.top_k = message->top_k;
    if (message->has_function)
        request->choices.function = message->function;
    const struct part body = {request->body, request->body_length};
    const bool hit = request_answer_from_cache(request, &body, 1);
    request_free_body(request); /* the picture is in the message */
    request->files = hit ? NULL : calloc(1, sizeof *request->files);
    if (hit)
        return;
    if (!request->files) {
        request_out_of_memory(request);
        return;
    }
    request->files[0] = (struct multipart_file){message->bytes, message->length};
    request_make_images_job(request);
}

void finish_hf(struct request *request, const struct job *job)
{
    hf_reply(&request->reply, job->images[0].logits, job_class_count(job), request->choices.top_k,
             request->choices.function, request_label, job);
}

/* ---- TorchServe ---- */

enum outcome handle_ping(struct request *request)
{
    const struct service *service = request->service;
    const bool healthy = atomic_load(&service->ready) && !atomic_load(&service->draining);
    strbuf_printf(&request->reply, "{\"status\":\"%s\"}", healthy ? "Healthy" : "Unhealthy");
    request->status = healthy ? 200 : 503;
    return OUTCOME_REPLY;
}

/* {"label":probability,...}, best first. */
void finish_predictions(struct request *request, const struct job *job)
{
    struct strbuf *out = &request->reply;
    const size_t classes = job_class_count(job), wanted = request->choices.top_k;
    const size_t count = wanted && wanted < classes ? wanted : classes;
    float *scores = job->images[0].logits;
    size_t *best = malloc((count + 1) * sizeof *best);
    if (!best) {
        request_out_of_memory(request);
        return;
    }
    vit_scores(scores, scores, classes, request->choices.function);
    vit_top_k(best, scores, classes, count);
    strbuf_text(out, "{");
    for (size_t i = 0; i < count; i++) {
        strbuf_text(out, i ? "," : "");
        strbuf_json_string(out, job_class_label(job, best[i]));
        strbuf_text(out, ":");
        strbuf_json_float(out, (double)scores[best[i]]);
    }
    strbuf_text(out, "}");
    free(best);
}

/*
 * handlers.h - what stands behind the rows of the route table. A handler runs on an HTTP thread and must not block; its
 * `finish` writes the reply on a worker, once the job is done.
 */
#ifndef SERVER_HTTP_HANDLERS_H
#define SERVER_HTTP_HANDLERS_H

#include "server/http/routes.h"

/* images.c: what is posted */
enum outcome handle_images(struct request *request);
void parse_images(struct request *request);
void finish_classify(struct request *request, const struct job *job);
void finish_embed(struct request *request, const struct job *job);
void finish_explain(struct request *request, const struct job *job);
void finish_attention_distance(struct request *request, const struct job *job);

/* models.c: what is known of the models */
enum outcome handle_models(struct request *request);
enum outcome handle_model(struct request *request);
enum outcome handle_inside(struct request *request); /* needs a worker, as what follows takes time */
void finish_filters(struct request *request, const struct job *job);
void finish_filters_png(struct request *request, const struct job *job);
void finish_positions(struct request *request, const struct job *job);
void finish_positions_png(struct request *request, const struct job *job);

/* service.c: the daemon itself */
enum outcome handle_page(struct request *request);
enum outcome handle_openapi(struct request *request);
enum outcome handle_healthz(struct request *request);
enum outcome handle_readyz(struct request *request);
enum outcome handle_metrics(struct request *request);
enum outcome handle_debug_queue(struct request *request);

/* v2.c: the Open Inference Protocol */
enum outcome handle_v2_server(struct request *request);
enum outcome handle_v2_live(struct request *request);
enum outcome handle_v2_ready(struct request *request);
enum outcome handle_v2_model(struct request *request);
enum outcome handle_v2_model_ready(struct request *request);
enum outcome handle_v2_infer(struct request *request);
void parse_v2_infer(struct request *request);
void finish_v2_infer(struct request *request, const struct job *job);
enum outcome handle_v2_stats(struct request *request);
enum outcome handle_v2_index(struct request *request);

/* others.c: Hugging Face, TorchServe */
enum outcome handle_hf(struct request *request);
void parse_hf(struct request *request);
void finish_hf(struct request *request, const struct job *job);
enum outcome handle_ping(struct request *request);
void finish_predictions(struct request *request, const struct job *job);

/* admin.c: models brought into memory, and out of it */
enum outcome handle_load(struct request *request);
enum outcome handle_reload(struct request *request);
enum outcome handle_unload(struct request *request);

/* ---- shared by them ---- */

/* Shutting down, or still loading. */
void request_not_ready(struct request *request);

/* A 404 that says which models there are, to those who may know. */
void request_unknown_model(struct request *request, const char *name);
/* A job's label, for replies that know no jobs (hf_label, v2_label). */
const char *request_label(const void *job, size_t index);
/* What a failed image means to the client. */
void request_image_problem(struct request *request, const struct job_image *image);

/* By its Content-Type. */
bool request_is_json(const struct request *request);

/* The route's `parse` is to be called on a worker, where it makes the job. */
enum outcome request_parse_on_worker(struct request *request);

/* The job of the images in request->files, or first that of the words that are to be embedded for them. */
void request_make_images_job(struct request *request);

/* The loader is asked for what the path names; called again when it has done so, writes the reply. */
enum outcome request_ask_loader(struct request *request, enum loader_wish wish);

void request_queue_full(struct request *request);
/* The most images that the queue could ever take from this request, and the problem of one that has more. */
size_t request_most_images(const struct request *request);
void request_too_many_images(struct request *request);
void request_out_of_memory(struct request *request);

/* Makes request->job, with `images` images, for the request's model; reserves room for it. false: the problem says why. */
bool request_make_job(struct request *request, size_t images);

/* words.c: what a request names in words, where the model has a text tower. request_read_words() takes labels and targets
 * from the query, beside those that the body has brought (request_add_text()); false: the problem says what is wrong.
 * request_settle_words(): WORDS_KNOWN: every text has its embedding; WORDS_ASKED: request->job will bring those that are
 * missing, for request_take_words() once it is done. */
enum words_state { WORDS_REFUSED, WORDS_KNOWN, WORDS_ASKED };
bool request_add_text(struct request *request, struct words **words, const char *template, const char *text, size_t length);
bool request_read_words(struct request *request);
enum words_state request_settle_words(struct request *request);
void request_take_words(struct request *request);
/* What it means to the client that they could not be embedded. */
void request_words_problem(struct request *request, const struct job_image *texts);
struct words_work;
void words_work_free(struct words_work *work);

/* Whether the reply is in the cache, and now in the request; else, where there is a cache, it will be kept under the key of
 * the request's query and these parts. */
struct part {
    const void *bytes;
    size_t length;
};
bool request_answer_from_cache(struct request *request, const struct part *parts, size_t count);

/* A picture is the reply; png is taken over. */
void request_reply_png(struct request *request, uint8_t *png, size_t length);

#endif

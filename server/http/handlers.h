/*
 * handlers.h - what stands behind the rows of the route table. A handler runs on the HTTP thread and must not block; its
 * `finish` writes the reply on a worker, once the job is done.
 */
#ifndef SERVER_HTTP_HANDLERS_H
#define SERVER_HTTP_HANDLERS_H

#include "server/http/routes.h"

/* images.c: what is posted */
enum outcome handle_images(struct request *request);
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

/* ---- shared by them ---- */

/* Sets request->model; false with a 404 if there is no model of that name. */
bool request_find_model(struct request *request, const char *name);

/* Takes room in the queue for a job with `images` images, or sets the problem: the queue is full. */
bool request_reserve(struct request *request, size_t images);
void request_out_of_memory(struct request *request);

/* A picture is the reply; png is taken over. */
void request_reply_png(struct request *request, uint8_t *png, size_t length);

#endif

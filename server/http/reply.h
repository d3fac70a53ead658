/*
 * reply.h - the JSON that clients read, and the one place where failures become HTTP statuses.
 */
#ifndef SERVER_HTTP_REPLY_H
#define SERVER_HTTP_REPLY_H

#include "server/http/query.h"
#include "server/http/strbuf.h"
#include "server/models/registry.h"
#include "server/work/job.h"

/* {"error":{"code":...,"message":...}} */
void reply_error(struct strbuf *out, const struct problem *problem);
/* {"error":"..."} */
void reply_error_plain(struct strbuf *out, const struct problem *problem);

/* What a failed image means to the client; status 499 when the client has left. */
void reply_image_problem(const struct job_image *image, struct problem *problem);

/* {"model":"NAME", and "version":N where the model is configured with one */
void reply_begin(struct strbuf *out, const struct model *model);

/* The answer to a finished job of POST /classify, /embed or /attention-distance, when its first image counts as the whole request
 * (single) or among several. Every image is done or failed; with `single` it is done. */
void reply_classify(struct strbuf *out, const struct model *model, const struct job *job,
                    const struct choices *choices, bool single);
void reply_embed(struct strbuf *out, const struct model *model, const struct job *job, bool single);

void reply_distances(struct strbuf *out, const struct model *model, const struct job *job, bool single);

/* {"model","embeddings":[[D],...],"dim"}, of texts whose embeddings are known */
void reply_texts(struct strbuf *out, const struct model *model, const struct words *words);

/* reply_models.c */

/* {"models":[{...},...]}: as reply_model, without the labels */
void reply_models(struct strbuf *out, const struct listed *list, size_t count);
/* {"name","state",...,"labels":[...]}; of a model that is not in memory not more than the state */
void reply_model(struct strbuf *out, const struct listed *listed);

/* {"model","patch_size","variances":[...],"components":[...]}; errors as vit_model_filters() */
vit_status reply_filters(struct strbuf *out, const struct model *model, vit_error *err);
/* {"model","grid","similarity":[gh][gw][gh][gw]}; errors as vit_model_positions() */
vit_status reply_positions(struct strbuf *out, const struct model *model, vit_error *err);

#endif

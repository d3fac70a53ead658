/*
 * image_message.h - pictures and texts in a JSON body:
 *
 *     {"image": "<base64>" | ["<base64>", ...], "labels": ["a cat", ...],
 *      "target": ["frisbee", ...], "template": "a photo of {}"}
 *     {"text": "a cat" | ["a cat", ...]}
 */
#ifndef SERVER_HTTP_IMAGE_MESSAGE_H
#define SERVER_HTTP_IMAGE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/multipart.h"
#include "server/http/query.h"

struct image_message_text {
    char *text;
    size_t length;
};

struct image_message_texts {
    struct image_message_text *items; /* owned */
    size_t count, capacity;
};

struct image_message {
    struct multipart_file *images; /* [image_count], slices of memory; owned */
    size_t image_count, image_capacity;
    struct image_message_texts labels, targets, texts;
    char template[256];
    char *memory; /* owned */
    size_t used;
    size_t max_images, max_texts;
};

/* Fills *message, of which max_images and max_texts are set. false: *problem says what is wrong, and all is released. */
bool image_message_parse(struct image_message *message, const void *body, size_t length, struct problem *problem);
/* Accepts a zeroed one. */
void image_message_release(struct image_message *message);

#endif

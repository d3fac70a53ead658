/* image_message.c - see image_message.h. What is decoded never takes more than the body, where it all goes. */
#include "server/http/image_message.h"

#include <stdlib.h>
#include <string.h>

#include "server/http/json_message.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* ---- bounds ---- */

static bool too_many(struct json_message *message, const char *code, const char *what, size_t most)
{
    return problem_set(message->problem, 413, code, "%s: one request may carry %zu %s", message->path, most, what);
}

/* ---- texts ---- */

static bool add_text(struct json_message *message, struct image_message *into, struct image_message_texts *texts)
{
    struct json_text text;
    size_t length;
    if (texts->count == into->max_texts)
        return too_many(message, "too_many_texts", "texts (limits.max_texts_per_request)", into->max_texts);
    if (json_reader_peek(&message->reader) != JSON_STRING)
        return json_message_refuse(message, "a text");
    if (!json_reader_string(&message->reader, &text))
        return json_message_refuse(message, "a text");
    if (texts->count == texts->capacity) {
        const size_t capacity = texts->capacity ? 2 * texts->capacity : 16;
        struct image_message_text *items = reallocarray(texts->items, capacity, sizeof *items);
        if (!items)
            return json_message_no_memory(message);
        texts->items = items;
        texts->capacity = capacity;
    }
    json_text_copy(&text, into->memory + into->used, text.length, &length);
    texts->items[texts->count++] = (struct image_message_text){into->memory + into->used, length};
    into->used += length;
    return true;
}

static bool read_label(struct json_message *message, void *into)
{
    return add_text(message, into, &((struct image_message *)into)->labels);
}

static bool read_target(struct json_message *message, void *into)
{
    return add_text(message, into, &((struct image_message *)into)->targets);
}

static bool read_text(struct json_message *message, void *into)
{
    return add_text(message, into, &((struct image_message *)into)->texts);
}

/* One, or a list of them. */
static bool read_some(struct json_message *message, const char *allowed, json_read *read, void *into)
{
    return json_reader_peek(&message->reader) == JSON_STRING ? read(message, into)
                                                             : json_message_list(message, allowed, SIZE_MAX, read, into);
}

static bool read_labels(struct json_message *message, void *into)
{
    return json_message_list(message, "a list of texts", SIZE_MAX, read_label, into);
}

static bool read_targets(struct json_message *message, void *into)
{
    return read_some(message, "a text or a list of texts", read_target, into);
}

static bool read_texts(struct json_message *message, void *into)
{
    return read_some(message, "a text or a list of texts", read_text, into);
}

static bool read_template(struct json_message *message, void *into)
{
    struct image_message *image = into;
    if (!json_message_string(message, image->template, sizeof image->template))
        return false;
    return strstr(image->template, "{}") ||
           json_message_say(message, "found no {}, allowed is a text with {} in the label's place");
}

/* ---- images ---- */

static bool read_image(struct json_message *message, void *into)
{
    struct image_message *image = into;
    size_t length;
    if (image->image_count == image->max_images)
        return too_many(message, "too_many_images", "images", image->max_images);
    if (image->image_count == image->image_capacity) {
        const size_t capacity = image->image_capacity ? 2 * image->image_capacity : 4;
        struct multipart_file *images = reallocarray(image->images, capacity, sizeof *images);
        if (!images)
            return json_message_no_memory(message);
        image->images = images;
        image->image_capacity = capacity;
    }
    uint8_t *bytes = (uint8_t *)image->memory + image->used;
    if (!json_message_base64(message, bytes, &length))
        return false;
    image->images[image->image_count++] = (struct multipart_file){bytes, length};
    image->used += length;
    return true;
}

static bool read_images(struct json_message *message, void *into)
{
    return read_some(message, "a picture as a string of base64, or a list of them", read_image, into);
}

/* ---- the whole ---- */

bool image_message_parse(struct image_message *message, const void *body, size_t length, struct problem *problem)
{
    static const struct json_member members[] = {{"image", read_images},     {"labels", read_labels},
                                                 {"target", read_targets},   {"text", read_texts},
                                                 {"template", read_template}};
    struct json_message json;
    message->memory = malloc(length + 1);
    json_message_begin(&json, body, length, problem);
    if (!message->memory)
        json_message_no_memory(&json);
    else if (json_message_object(&json, members, COUNT(members), JSON_REFUSE_OTHERS, message) && json_message_end(&json))
        return true;
    image_message_release(message);
    return false;
}

void image_message_release(struct image_message *message)
{
    free(message->images);
    free(message->labels.items);
    free(message->targets.items);
    free(message->texts.items);
    free(message->memory);
    *message = (struct image_message){0};
}

/* tiny_clip.h - a CLIP model small enough to write in a test, with random weights and a tokenizer of single letters and
 * a few merges: what CLIP does can be tested without a published model, whose vocabulary is not ours to ship. */
#ifndef TESTS_TINY_CLIP_H
#define TESTS_TINY_CLIP_H

enum {
    TINY_IMAGE = 32,
    TINY_PATCH = 8,
    TINY_LAYERS = 2,
    TINY_WIDTH = 48, /* of the image tower, and so on */
    TINY_HEADS = 3,
    TINY_MLP = 96,
    TINY_TEXT_WIDTH = 32,
    TINY_TEXT_HEADS = 2,
    TINY_TEXT_MLP = 64,
    TINY_CONTEXT = 20,
    TINY_VOCABULARY = 520,
    TINY_EMBEDDING = 24
};

/* config.json, preprocessor_config.json, vocab.json, merges.txt and model.safetensors (F32) into an existing folder. */
void tiny_clip_write(const char *folder);

#endif

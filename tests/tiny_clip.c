/* tiny_clip.c - see tiny_clip.h. */
#include "tests/tiny_clip.h"

#include <check.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *create(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "%s", path);
    return file;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    FILE *file = create(folder, name);
    fputs(text, file);
    fclose(file);
}

/* ---- the tensors ---- */

/* A safetensors file in the making: its header and its data. */
struct file {
    char *header;
    size_t header_bytes;
    float *data;
    size_t floats;
    FILE *header_stream;
    uint32_t random;
};

static float noise(struct file *file)
{
    file->random = file->random * 1664525u + 1013904223u;
    return (float)(file->random >> 8) / (1 << 23) - 1;
}

/* centre +- spread, in the order of the names */
static void add(struct file *file, const char *name, float centre, float spread, size_t rank, const size_t *shape)
{
    size_t count = 1;
    fprintf(file->header_stream, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", file->floats > 0 ? "," : "", name);
    for (size_t i = 0; i < rank; count *= shape[i++])
        fprintf(file->header_stream, "%s%zu", i > 0 ? "," : "", shape[i]);
    fprintf(file->header_stream, "],\"data_offsets\":[%zu,%zu]}", 4 * file->floats, 4 * (file->floats + count));
    file->data = realloc(file->data, (file->floats + count) * sizeof *file->data);
    for (size_t i = 0; i < count; i++)
        file->data[file->floats++] = centre + spread * noise(file);
}

static void add_vector(struct file *file, float centre, float spread, size_t width, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void add_vector(struct file *file, float centre, float spread, size_t width, const char *format, ...)
{
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    add(file, name, centre, spread, 1, &width);
}

static void add_linear(struct file *file, const char *prefix, const char *name, size_t out, size_t in)
{
    char weight[128];
    snprintf(weight, sizeof weight, "%s%s.weight", prefix, name);
    add(file, weight, 0, 2 / sqrtf((float)in), 2, (size_t[]){out, in});
    add_vector(file, 0, 0.2f, out, "%s%s.bias", prefix, name);
}

static void add_norm(struct file *file, const char *prefix, const char *name, size_t width)
{
    add_vector(file, 1, 0.3f, width, "%s%s.weight", prefix, name);
    add_vector(file, 0, 0.2f, width, "%s%s.bias", prefix, name);
}

static void add_blocks(struct file *file, const char *tower, size_t width, size_t hidden)
{
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    for (size_t layer = 0; layer < TINY_LAYERS; layer++) {
        char prefix[64], attention[80];
        snprintf(prefix, sizeof prefix, "%s.encoder.layers.%zu.", tower, layer);
        snprintf(attention, sizeof attention, "%sself_attn.", prefix);
        add_norm(file, prefix, "layer_norm1", width);
        for (size_t i = 0; i < 4; i++)
            add_linear(file, attention, projections[i], width, width);
        add_norm(file, prefix, "layer_norm2", width);
        add_linear(file, prefix, "mlp.fc1", hidden, width);
        add_linear(file, prefix, "mlp.fc2", width, hidden);
    }
}

static void add_tensors(struct file *file)
{
    const size_t grid = TINY_IMAGE / TINY_PATCH;
    add_vector(file, 0, 1, TINY_WIDTH, "vision_model.embeddings.class_embedding");
    add(file, "vision_model.embeddings.patch_embedding.weight", 0, 0.1f, 4,
        (size_t[]){TINY_WIDTH, 3, TINY_PATCH, TINY_PATCH});
    add(file, "vision_model.embeddings.position_embedding.weight", 0, 0.5f, 2, (size_t[]){grid * grid + 1, TINY_WIDTH});
    add_norm(file, "vision_model.", "pre_layrnorm", TINY_WIDTH);
    add_blocks(file, "vision_model", TINY_WIDTH, TINY_MLP);
    add_norm(file, "vision_model.", "post_layernorm", TINY_WIDTH);
    add(file, "visual_projection.weight", 0, 0.2f, 2, (size_t[]){TINY_EMBEDDING, TINY_WIDTH});
    add(file, "text_model.embeddings.token_embedding.weight", 0, 1, 2, (size_t[]){TINY_VOCABULARY, TINY_TEXT_WIDTH});
    add(file, "text_model.embeddings.position_embedding.weight", 0, 0.5f, 2, (size_t[]){TINY_CONTEXT, TINY_TEXT_WIDTH});
    add_blocks(file, "text_model", TINY_TEXT_WIDTH, TINY_TEXT_MLP);
    add_norm(file, "text_model.", "final_layer_norm", TINY_TEXT_WIDTH);
    add(file, "text_projection.weight", 0, 0.2f, 2, (size_t[]){TINY_EMBEDDING, TINY_TEXT_WIDTH});
    add(file, "logit_scale", 3, 0, 0, NULL);
}

static void write_tensors(const char *folder)
{
    struct file file = {.random = 1};
    file.header_stream = open_memstream(&file.header, &file.header_bytes);
    fputc('{', file.header_stream);
    add_tensors(&file);
    fputc('}', file.header_stream);
    while (ftell(file.header_stream) % 8 != 0)
        fputc(' ', file.header_stream);
    fclose(file.header_stream);
    FILE *out = create(folder, "model.safetensors");
    const uint64_t length = file.header_bytes; /* little-endian, as the tests' machines are */
    fwrite(&length, sizeof length, 1, out);
    fwrite(file.header, 1, file.header_bytes, out);
    fwrite(file.data, sizeof *file.data, file.floats, out);
    fclose(out);
    free(file.header);
    free(file.data);
}

/* ---- the tokenizer ---- */

static const char *const merges[][2] = {{"c", "a"}, {"ca", "t</w>"}, {"d", "o"}, {"do", "g</w>"}, {"a", "n"},
                                        {"an", "d</w>"}};

enum { MERGES = sizeof merges / sizeof merges[0] };

/* A byte's printable character, as GPT-2's byte-level encoding has it; in JSON. */
static void write_byte(FILE *file, int byte, int *other)
{
    if (byte == '"' || byte == '\\')
        fprintf(file, "\\%c", byte);
    else if (byte >= '!' && byte <= '~')
        fputc(byte, file);
    else if (byte >= 0xA1 && byte != 0xAD)
        fprintf(file, "\\u%04x", (unsigned)byte);
    else
        fprintf(file, "\\u%04x", (unsigned)(256 + (*other)++));
}

static void write_vocabulary(const char *folder)
{
    FILE *file = create(folder, "vocab.json");
    int id = 0;
    for (int word_end = 0; word_end < 2; word_end++) {
        int other = 0;
        for (int byte = 0; byte < 256; byte++) {
            fputs(id == 0 ? "{\"" : ", \"", file);
            write_byte(file, byte, &other);
            fprintf(file, "%s\": %d", word_end ? "</w>" : "", id++);
        }
    }
    for (size_t i = 0; i < MERGES; i++)
        fprintf(file, ", \"%s%s\": %d", merges[i][0], merges[i][1], id++);
    fprintf(file, ", \"<|startoftext|>\": %d, \"<|endoftext|>\": %d}\n", id, id + 1);
    ck_assert_int_eq(id + 2, TINY_VOCABULARY);
    fclose(file);
    file = create(folder, "merges.txt");
    fputs("#version: 0.2\n", file);
    for (size_t i = 0; i < MERGES; i++)
        fprintf(file, "%s %s\n", merges[i][0], merges[i][1]);
    fclose(file);
}

/* ---- all of it ---- */

void tiny_clip_write(const char *folder)
{
    char config[1024];
    snprintf(config, sizeof config,
             "{\"model_type\": \"clip\", \"architectures\": [\"CLIPModel\"], \"projection_dim\": %d,\n"
             " \"text_config\": {\"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
             "\"max_position_embeddings\": %d, "
             "\"vocab_size\": %d, \"eos_token_id\": %d},\n"
             " \"vision_config\": {\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"image_size\": %d, "
             "\"hidden_act\": \"gelu\"}}\n",
             TINY_EMBEDDING, TINY_LAYERS, TINY_TEXT_HEADS, TINY_CONTEXT, TINY_VOCABULARY, TINY_VOCABULARY - 1,
             TINY_LAYERS, TINY_HEADS, TINY_IMAGE);
    write_text(folder, "config.json", config);
    write_text(folder, "preprocessor_config.json",
               "{\"crop_size\": 32, \"do_center_crop\": true, \"do_normalize\": true, \"do_resize\": true,\n"
               " \"feature_extractor_type\": \"CLIPFeatureExtractor\", \"resample\": 3, \"size\": 32,\n"
               " \"image_mean\": [0.48145466, 0.4578275, 0.40821073],\n"
               " \"image_std\": [0.26862954, 0.26130258, 0.27577711]}\n");
    write_vocabulary(folder);
    write_tensors(folder);
}

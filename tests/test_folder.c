/*
 * test_folder.c - damaged, hostile and unsupported model folders: each is refused with a sentence that names the
 * fault, and none crashes.
 *
 * Every case starts from a copy of a golden folder, mostly vit-hf or vit-timm, and breaks one thing.
 */
#include <check.h>
#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/layers/layers.h"
#include "tests/suite.h"
#include "vit.h"

static char folder[256];
static size_t most_bytes = 2 << 20; /* of a file */

static void write_file(const char *name, const void *bytes, size_t length)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

static char *read_file(const char *from, const char *name, size_t *length)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", from, name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    char *bytes = malloc(most_bytes + 1);
    *length = fread(bytes, 1, most_bytes, file);
    bytes[*length] = '\0';
    fclose(file);
    return bytes;
}

static void remove_folder(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static void copy_golden(const char *name)
{
    const char *files[] = {"config.json", "model.safetensors", "preprocessor_config.json"};
    const char *tests = getenv("VITD_TESTS");
    char from[300];
    snprintf(folder, sizeof folder, "/tmp/vitd-folder-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(from, sizeof from, "%s/golden/%s", tests != NULL ? tests : "tests", name);
    for (size_t i = 0; i < (strstr(name, "-hf") != NULL ? 3 : 2); i++) {
        size_t length;
        char *bytes = read_file(from, files[i], &length);
        write_file(files[i], bytes, length);
        free(bytes);
    }
}

static void assert_opens(void)
{
    vit_model *model;
    vit_error err = {""};
    ck_assert_msg(vit_model_open(&model, folder, NULL, &err) == VIT_OK, "%s", err.message);
    vit_model_free(model);
    remove_folder();
}

static void assert_refused(vit_status status, const char *words)
{
    vit_model *model = NULL;
    vit_error err = {""};
    vit_status got = vit_model_open(&model, folder, NULL, &err);
    ck_assert_msg(got == status, "status %d, not %d: %s", got, status, err.message);
    ck_assert_msg(strstr(err.message, words) != NULL, "\"%s\" does not hold \"%s\"", err.message, words);
    ck_assert_msg(strstr(err.message, folder) == err.message, "\"%s\" does not name the folder", err.message);
    ck_assert_ptr_null(model);
    remove_folder();
}

/* ---- editing the copy ---- */

static void edit_json(const char *name, const char *key, cJSON *value)
{
    size_t length;
    char *text = read_file(folder, name, &length);
    cJSON *root = cJSON_Parse(text);
    cJSON_DeleteItemFromObjectCaseSensitive(root, key);
    if (value != NULL)
        cJSON_AddItemToObject(root, key, value);
    char *changed = cJSON_Print(root);
    write_file(name, changed, strlen(changed));
    free(changed);
    cJSON_Delete(root);
    free(text);
}

/* Calls edit on the header and writes the file back with the data that followed, `cut` bytes shorter. */
static void edit_header(void (*edit)(cJSON *header), size_t cut)
{
    size_t length;
    char *file = read_file(folder, "model.safetensors", &length);
    uint64_t size;
    memcpy(&size, file, 8);
    cJSON *header = cJSON_ParseWithLength(file + 8, size);
    if (edit != NULL)
        edit(header);
    char *text = cJSON_PrintUnformatted(header);
    uint64_t new_size = strlen(text);
    size_t data = length - 8 - size - cut;
    char *changed = malloc(8 + new_size + data);
    memcpy(changed, &new_size, 8);
    memcpy(changed + 8, text, new_size);
    memcpy(changed + 8 + new_size, file + 8 + size, data);
    write_file("model.safetensors", changed, 8 + new_size + data);
    free(changed);
    free(text);
    cJSON_Delete(header);
    free(file);
}

#define HEAD "classifier.weight"

static void rename_head(cJSON *header)
{
    cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(header, HEAD);
    cJSON_AddItemToObject(header, "another.weight", item);
}

static void unknown_dtype(cJSON *header)
{
    cJSON_ReplaceItemInObject(cJSON_GetObjectItem(header, HEAD), "dtype", cJSON_CreateString("F13"));
}

static void integer_dtype(cJSON *header)
{
    cJSON_ReplaceItemInObject(cJSON_GetObjectItem(header, HEAD), "dtype", cJSON_CreateString("I32"));
}

static void set_shape(cJSON *header, double a, double b)
{
    const double shape[] = {a, b};
    cJSON_ReplaceItemInObject(cJSON_GetObjectItem(header, HEAD), "shape", cJSON_CreateDoubleArray(shape, 2));
}

static void transposed_shape(cJSON *header) { set_shape(header, 64, 10); }
static void shape_too_large(cJSON *header) { set_shape(header, 11, 64); }
static void shape_overflows(cJSON *header) { set_shape(header, 9007199254740991.0, 9007199254740991.0); }
static void shape_negative(cJSON *header) { set_shape(header, -1, 64); }
static void shape_fractional(cJSON *header) { set_shape(header, 9.5, 64); }

static void move_head(cJSON *header, double by)
{
    cJSON *offsets = cJSON_GetObjectItem(cJSON_GetObjectItem(header, HEAD), "data_offsets");
    cJSON_SetNumberValue(cJSON_GetArrayItem(offsets, 0), cJSON_GetArrayItem(offsets, 0)->valuedouble + by);
    cJSON_SetNumberValue(cJSON_GetArrayItem(offsets, 1), cJSON_GetArrayItem(offsets, 1)->valuedouble + by);
}

static void overlap(cJSON *header) { move_head(header, -4); }
static void beyond_end(cJSON *header) { move_head(header, 1e9); }

static void twice(cJSON *header)
{
    cJSON_AddItemToObject(header, "zero", cJSON_Parse("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"));
    cJSON_AddItemToObject(header, "zero", cJSON_Parse("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"));
}

static void extra_tensor(cJSON *header)
{
    cJSON_AddItemToObject(header, "vit.encoder.layer.0.layer_scale",
                          cJSON_Parse("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}"));
}

static void not_an_object(cJSON *header) { cJSON_ReplaceItemInObject(header, HEAD, cJSON_CreateNumber(1)); }

START_TEST(test_folder_copy_opens)
{
    copy_golden(_i == 0 ? "vit-hf" : "vit-timm");
    assert_opens();
}
END_TEST

START_TEST(test_safetensors_header_is_checked)
{
    static const struct {
        void (*edit)(cJSON *header);
        size_t cut;
        vit_status status;
        const char *words;
    } cases[] = {
        {rename_head, 0, VIT_ERR_UNSUPPORTED, "'classifier.weight' [classes, width] is missing"},
        {unknown_dtype, 0, VIT_ERR_FORMAT, "'classifier.weight': \"dtype\" F13 is unknown"},
        {integer_dtype, 0, VIT_ERR_UNSUPPORTED, "'classifier.weight': F32, F16 or BF16 was expected, I32 was found"},
        {transposed_shape, 0, VIT_ERR_FORMAT, "'classifier.weight': [64, 64] was expected, [64, 10] was found"},
        {shape_too_large, 0, VIT_ERR_FORMAT, "F32 [11, 64] takes 2816 bytes, its \"data_offsets\" hold 2560"},
        {shape_overflows, 0, VIT_ERR_FORMAT, "'classifier.weight': size 1 of its \"shape\" is out of range"},
        {shape_negative, 0, VIT_ERR_FORMAT, "'classifier.weight': size 0 of its \"shape\" is out of range"},
        {shape_fractional, 0, VIT_ERR_FORMAT, "'classifier.weight': size 0 of its \"shape\" is out of range"},
        {overlap, 0, VIT_ERR_FORMAT, "overlaps another tensor"},
        {beyond_end, 0, VIT_ERR_FORMAT, "'classifier.weight': \"data_offsets\" end at "},
        {twice, 0, VIT_ERR_FORMAT, "'zero' is there twice"},
        {extra_tensor, 0, VIT_ERR_UNSUPPORTED, "'vit.encoder.layer.0.layer_scale' is no part of architecture 'vit'"},
        {not_an_object, 0, VIT_ERR_FORMAT, "'classifier.weight': an object was expected"},
        {NULL, 4, VIT_ERR_FORMAT, "is the file all there?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_golden("vit-hf");
        edit_header(cases[i].edit, cases[i].cut);
        assert_refused(cases[i].status, cases[i].words);
    }
}
END_TEST

START_TEST(test_safetensors_length_is_checked)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *words;
    } cases[] = {{"", 0, "is not a regular file with bytes in it"},
                 {"\1\0\0", 3, "is not a complete safetensors file"},
                 {"\x10\0\0\0\0\0\0\0{}", 10, "a header of 16 announced"},
                 {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "is not a complete safetensors file"},
                 {"\2\0\0\0\0\0\0\0{}", 10, "holds no tensor"},
                 {"\2\0\0\0\0\0\0\0[]", 10, "is not one JSON object"},
                 {"\4\0\0\0\0\0\0\0{}xy", 12, "is not one JSON object"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_golden("vit-hf");
        write_file("model.safetensors", cases[i].bytes, cases[i].length);
        assert_refused(VIT_ERR_FORMAT, cases[i].words);
    }
}
END_TEST

START_TEST(test_config_is_checked)
{
    const struct {
        const char *file, *key, *value; /* value: JSON, NULL removes the key */
        vit_status status;
        const char *words;
    } cases[] = {
        {"config.json", "model_type", "\"beit\"", VIT_ERR_UNSUPPORTED, "architecture 'beit' is not one that vitd runs"},
        {"config.json", "model_type", NULL, VIT_ERR_FORMAT, "neither \"model_type\" (transformers) nor"},
        {"config.json", "num_attention_heads", NULL, VIT_ERR_FORMAT, "\"num_attention_heads\" is missing"},
        {"config.json", "num_attention_heads", "0", VIT_ERR_FORMAT, "\"num_attention_heads\" must be a whole number"},
        {"config.json", "num_attention_heads", "3", VIT_ERR_FORMAT, "a width of 64 cannot be split into 3 heads"},
        {"config.json", "num_attention_heads", "\"4\"", VIT_ERR_FORMAT, "must be a whole number from 1"},
        {"config.json", "layer_norm_eps", NULL, VIT_ERR_FORMAT, "\"layer_norm_eps\" is missing"},
        {"config.json", "hidden_act", "\"relu\"", VIT_ERR_UNSUPPORTED, "activation \"relu\" is not supported"},
        {"config.json", "num_hidden_layers", "4", VIT_ERR_FORMAT, "\"num_hidden_layers\" is 4, the tensors hold 3"},
        {"config.json", "image_size", "56", VIT_ERR_FORMAT, "[1, 50, 64] was expected, [1, 37, 64] was found"},
        {"config.json", "image_size", NULL, VIT_ERR_FORMAT, "image size"},
        {"config.json", "id2label", "{\"99\": \"x\"}", VIT_ERR_FORMAT, "\"99\" is not one of 10 classes"},
        {"preprocessor_config.json", "image_std", "[1, 0, 1]", VIT_ERR_FORMAT, "must not be zero"},
        {"preprocessor_config.json", "image_mean", NULL, VIT_ERR_FORMAT, "\"image_mean\" is missing"},
        {"preprocessor_config.json", "size", "64", VIT_ERR_UNSUPPORTED, "64x64 pixels (height x width), the model takes"},
        {"preprocessor_config.json", "resample", "9", VIT_ERR_FORMAT, "\"resample\" must be a whole number from 0 to 5"},
        {"preprocessor_config.json", "size", "{\"longest_edge\": 5}", VIT_ERR_UNSUPPORTED, "\"size\" must hold"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_golden("vit-hf");
        edit_json(cases[i].file, cases[i].key, cases[i].value != NULL ? cJSON_Parse(cases[i].value) : NULL);
        assert_refused(cases[i].status, cases[i].words);
    }
}
END_TEST

START_TEST(test_timm_config_is_checked)
{
    copy_golden("vit-timm");
    edit_json("config.json", "global_pool", cJSON_CreateString("map"));
    assert_refused(VIT_ERR_UNSUPPORTED, "\"global_pool\" is \"map\"");
    copy_golden("vit-timm");
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64, \"qk_norm\": true, \"num_heads\": 3}"));
    assert_refused(VIT_ERR_UNSUPPORTED, "\"model_args.qk_norm\" is not supported");
    copy_golden("vit-timm");
    edit_json("config.json", "architecture", cJSON_CreateString("vit_odd_patch16"));
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64}"));
    assert_refused(VIT_ERR_FORMAT, "\"model_args.num_heads\" is missing");
    copy_golden("vit-timm");
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64, \"embed_dim\": 48}"));
    assert_opens(); /* vit_tiny: 3 heads, by its name */
    copy_golden("vit-timm");
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64}"));
    assert_refused(VIT_ERR_FORMAT, "stands for 3 heads in a width of 192, and the tensors have 48");
    static const char *const no_objects[] = {"[1]", "[]", "\"abc\"", "3", "true"};
    for (size_t i = 0; i < sizeof no_objects / sizeof no_objects[0]; i++) {
        copy_golden("vit-timm");
        edit_json("config.json", i % 2 ? "pretrained_cfg" : "model_args", cJSON_Parse(no_objects[i]));
        assert_refused(VIT_ERR_FORMAT, "\"model_args\" and \"pretrained_cfg\" must be objects");
    }
    static const char *const pooled[] = {"swin-timm", "resnetv2-timm", "vit-timm"};
    for (size_t i = 0; i < 3; i++) {
        copy_golden(pooled[i]);
        edit_json("config.json", "global_pool", cJSON_CreateString("max"));
        assert_refused(VIT_ERR_UNSUPPORTED, "\"global_pool\" is \"max\"; supported is");
    }
    copy_golden("swin-timm");
    edit_json("config.json", "num_classes", cJSON_CreateNumber(7));
    assert_refused(VIT_ERR_FORMAT, "\"num_classes\" is 7, the head has 5");
}
END_TEST

START_TEST(test_missing_and_odd_files)
{
    const char *files[] = {"config.json", "model.safetensors", "preprocessor_config.json"};
    for (int i = 0; i < 3; i++) {
        char path[300];
        copy_golden("vit-hf");
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        ck_assert_int_eq(unlink(path), 0);
        assert_refused(VIT_ERR_IO, files[i]);
        copy_golden("vit-hf");
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(mkfifo(path, 0600), 0); /* must not hang */
        assert_refused(i == 1 ? VIT_ERR_FORMAT : VIT_ERR_IO, "is not a regular file");
    }
    copy_golden("vit-hf");
    write_file("config.json", "{\n\"model_type\": \n]", 18);
    assert_refused(VIT_ERR_FORMAT, "config.json:3: is not valid JSON");
}
END_TEST

/* model.safetensors under another name, reached through an index. */
static void make_index(const char *shard)
{
    char path[300], other[300];
    copy_golden("vit-hf");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(other, sizeof other, "%s/model-00001-of-00001.safetensors", folder);
    ck_assert_int_eq(rename(path, other), 0);
    char index[400];
    snprintf(index, sizeof index, "{\"metadata\": {}, \"weight_map\": {\"a\": \"%s\", \"b\": \"%s\"}}", shard, shard);
    write_file("model.safetensors.index.json", index, strlen(index));
}

START_TEST(test_shards)
{
    make_index("model-00001-of-00001.safetensors");
    assert_opens();
    make_index("../model-00001-of-00001.safetensors");
    assert_refused(VIT_ERR_FORMAT, "must name a file of the folder");
    make_index("model-00002-of-00001.safetensors");
    assert_refused(VIT_ERR_IO, "cannot be opened");
}
END_TEST

START_TEST(test_values_must_be_finite)
{
    size_t length;
    copy_golden("vit-hf");
    char *file = read_file(folder, "model.safetensors", &length);
    memset(file + length - 4, 0xff, 4);
    write_file("model.safetensors", file, length);
    free(file);
    assert_refused(VIT_ERR_FORMAT, "holds a value that is not finite");
}
END_TEST

START_TEST(test_labels_have_fallbacks)
{
    vit_model *model;
    vit_error err = {""};
    const char *text = "zero\r\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n";
    copy_golden("vit-hf");
    edit_json("config.json", "id2label", NULL);
    ck_assert_int_eq(vit_model_open(&model, folder, NULL, &err), VIT_OK);
    ck_assert_str_eq(vit_model_label(model, 7), "7");
    vit_model_free(model);
    write_file("labels.txt", text, strlen(text));
    ck_assert_int_eq(vit_model_open(&model, folder, NULL, &err), VIT_OK);
    ck_assert_str_eq(vit_model_label(model, 0), "zero");
    ck_assert_str_eq(vit_model_label(model, 9), "nine");
    vit_model_free(model);
    write_file("labels.txt", "one\ntwo\n", 8);
    assert_refused(VIT_ERR_FORMAT, "2 labels for 10 classes");
}
END_TEST

/* ---- position embeddings ---- */

enum { POSITIONS = 17, WIDTH = 48 }; /* of golden/vit-timm */

/* Takes a tensor out of the copy, and its data with it; with a shape, puts one of zeros in its place. */
static void replace_tensor(const char *name, const size_t *shape, size_t rank)
{
    size_t length, begin = 0, bytes = 0, added = shape != NULL ? sizeof(float) : 0;
    char *file = read_file(folder, "model.safetensors", &length);
    uint64_t size;
    memcpy(&size, file, 8);
    cJSON *header = cJSON_ParseWithLength(file + 8, size), *item, *offset;
    const size_t old = length - 8 - size;
    if ((item = cJSON_GetObjectItem(header, name)) != NULL) {
        const cJSON *place = cJSON_GetObjectItem(item, "data_offsets");
        begin = (size_t)place->child->valuedouble;
        bytes = (size_t)place->child->next->valuedouble - begin;
        cJSON_DeleteItemFromObject(header, name);
    }
    cJSON_ArrayForEach(item, header) {
        cJSON_ArrayForEach(offset, cJSON_GetObjectItem(item, "data_offsets"))
            if (offset->valuedouble > (double)begin)
                cJSON_SetNumberValue(offset, offset->valuedouble - (double)bytes);
    }
    if (shape != NULL) {
        item = cJSON_AddObjectToObject(header, name);
        cJSON_AddStringToObject(item, "dtype", "F32");
        cJSON *sides = cJSON_AddArrayToObject(item, "shape");
        for (size_t i = 0; i < rank; i++, added *= shape[i - 1])
            cJSON_AddItemToArray(sides, cJSON_CreateNumber((double)shape[i]));
        const double place[] = {(double)(old - bytes), (double)(old - bytes + added)};
        cJSON_AddItemToObject(item, "data_offsets", cJSON_CreateDoubleArray(place, 2));
    }
    char *text = cJSON_PrintUnformatted(header), *data = file + 8 + size;
    const uint64_t new_size = strlen(text);
    char *changed = calloc(1, 8 + new_size + old - bytes + added);
    memcpy(changed, &new_size, 8);
    memcpy(changed + 8, text, new_size);
    memcpy(changed + 8 + new_size, data, begin);
    memcpy(changed + 8 + new_size + begin, data + begin + bytes, old - bytes - begin);
    write_file("model.safetensors", changed, 8 + new_size + old - bytes + added);
    free(changed);
    free(text);
    cJSON_Delete(header);
    free(file);
}

static void drop_tensor(const char *name)
{
    replace_tensor(name, NULL, 0);
}

/* What a model may lack is missing in one place only, or against the config's word: the file is damaged. */
START_TEST(test_optional_tensors_are_all_there_or_none)
{
    static const struct {
        const char *golden, *tensor, *words;
    } cases[] = {
        {"vit-timm", "blocks.1.attn.qkv.bias", "tensor 'blocks.1.attn.qkv.bias' is missing, unlike in the first block"},
        {"vit-timm", "blocks.0.attn.qkv.bias", "tensor 'blocks.1.attn.qkv.bias' is there, unlike in the first block"},
        {"vit-hf", "vit.encoder.layer.2.attention.attention.query.bias", "unlike in the first block"},
        {"vit-hf", "vit.encoder.layer.2.attention.attention.key.bias", "key.bias' [64] is missing"},
        {"deit3-timm", "blocks.1.ls1.gamma", "tensor 'blocks.1.ls1.gamma' is missing"},
        {"dinov2-hf", "dinov2.encoder.layer.1.layer_scale2.lambda1", "layer_scale2.lambda1' is missing"},
        {"swin-timm", "layers.1.blocks.1.attn.qkv.bias", "unlike in the first block"},
        {"vit-reg-timm", "reg_token", "tensor 'reg_token' holds 0 register tokens"},
        {"t2t-vit-performer", "tokens_to_token.attention1.kqv.bias", "kqv.bias' [48] is missing"},
        {"t2t-vit-performer", "tokens_to_token.project.bias", "project.bias' [48] is missing"},
        {"mvitv2-cls-timm", "cls_token", "tensor 'cls_token' [1, 1, 16] is missing"},
        {"resnetv2-odd-timm", "stages.1.blocks.0.downsample.conv.weight", "downsample.conv.weight'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        copy_golden(cases[i].golden);
        drop_tensor(cases[i].tensor);
        assert_refused(VIT_ERR_FORMAT, cases[i].words);
    }
}
END_TEST

/* The copy's pos_embed with other values. */
static void set_positions(const float *rows, size_t count)
{
    size_t length;
    char *file = read_file(folder, "model.safetensors", &length);
    uint64_t size;
    memcpy(&size, file, 8);
    cJSON *header = cJSON_ParseWithLength(file + 8, size);
    const cJSON *place = cJSON_GetObjectItem(cJSON_GetObjectItem(header, "pos_embed"), "data_offsets");
    memcpy(file + 8 + size + (size_t)place->child->valuedouble, rows, count * WIDTH * sizeof *rows);
    write_file("model.safetensors", file, length);
    cJSON_Delete(header);
    free(file);
}

static void set_encoding(const char *name)
{
    cJSON *arguments = cJSON_Parse("{\"img_size\": 64, \"num_heads\": 3}");
    if (name != NULL)
        cJSON_AddStringToObject(arguments, "pos_embed", name);
    edit_json("config.json", "model_args", arguments);
}

/* The logits of the copy for some picture. */
static void run_copy(float logits[9])
{
    vit_model *model;
    vit_session *session;
    vit_error err = {""};
    float *pixels = malloc(3 * 64 * 64 * sizeof *pixels);
    for (size_t i = 0; i < 3 * 64 * 64; i++)
        pixels[i] = (float)(i * 7919 % 1000) / 500 - 1;
    ck_assert_msg(vit_model_open(&model, folder, NULL, &err) == VIT_OK, "%s", err.message);
    ck_assert_int_eq(vit_session_create(&session, model, 1, &err), VIT_OK);
    const vit_item item = {.pixels = pixels, .logits = logits};
    ck_assert_int_eq(vit_session_run(session, &item, 1, &err), VIT_OK);
    vit_session_free(session);
    vit_model_free(model);
    free(pixels);
    remove_folder();
}

/* A fixed encoding that the config names does what a file with its numbers does; class tokens have a place in the
 * one-dimensional sequence, and none in the grid. */
START_TEST(test_encodings_by_name)
{
    static const char *const names[] = {"sinusoidal", "sincos2d", "sincos2d_mae", "none"};
    for (int i = 0; i < 4; i++) {
        float rows[POSITIONS * WIDTH] = {0}, by_file[9], by_name[9];
        const char *golden = i < 3 ? "vit-timm" : "vit-timm-gap"; /* without class token */
        if (i == 0)
            positions_sinusoidal(rows, POSITIONS, WIDTH);
        else if (i < 3)
            positions_sincos2d(rows + WIDTH, 4, 4, WIDTH, i == 1);
        copy_golden(golden);
        set_positions(rows, i < 3 ? POSITIONS : POSITIONS - 1);
        set_encoding(NULL);
        run_copy(by_file);
        copy_golden(golden);
        drop_tensor("pos_embed");
        set_encoding(names[i]);
        run_copy(by_name);
        ck_assert_mem_eq(by_name, by_file, sizeof by_name);
    }
}
END_TEST

START_TEST(test_encodings_are_checked)
{
    copy_golden("vit-timm");
    drop_tensor("pos_embed");
    assert_refused(VIT_ERR_FORMAT, "tensor 'pos_embed' [1, 17, 48] is missing");
    copy_golden("vit-timm");
    set_encoding("rope");
    assert_refused(VIT_ERR_UNSUPPORTED, "\"pos_embed\" is \"rope\"; learn, none, sinusoidal");
    copy_golden("vit-timm-gap");
    set_encoding("none");
    assert_refused(VIT_ERR_UNSUPPORTED, "tensor 'pos_embed' is no part of architecture 'vit'");
    copy_golden("vit-timm");
    drop_tensor("pos_embed");
    set_encoding("none");
    assert_refused(VIT_ERR_UNSUPPORTED, "\"none\" beside class or register tokens");
    copy_golden("vit-timm");
    set_encoding("sincos2d"); /* the file's own numbers count */
    assert_opens();
}
END_TEST

/* ---- sizes ---- */

START_TEST(test_image_size_is_checked)
{
    static const struct {
        const char *golden;
        size_t image_size;
        vit_status status;
        const char *words; /* NULL: opens */
    } cases[] = {{"vit-hf", 80, VIT_OK, NULL},
                 {"vit-hf", 4, VIT_ERR_FORMAT, "an image of 4x4 holds no patch of 8"},
                 {"vit-hf", 16384, VIT_ERR_UNSUPPORTED, "patches per image are more than"},
                 {"vit-hf", 20000, VIT_ERR_ARGUMENT, "an image size of 20000: at most 16384 is possible"},
                 {"dinov2-hf", 84, VIT_OK, NULL},
                 {"deepvit-cnn", 96, VIT_OK, NULL},
                 {"t2t-vit-performer", 96, VIT_OK, NULL},
                 {"t2t-vit-performer", 1, VIT_ERR_UNSUPPORTED, "so few pixels has no patches"},
                 {"t2t-vit-transformer", 2, VIT_ERR_UNSUPPORTED, "so few pixels has no patches"},
                 {"hybrid-resnet-timm", 96, VIT_OK, NULL},
                 {"swin-timm", 96, VIT_OK, NULL},
                 {"swin-hf", 96, VIT_OK, NULL},
                 {"swin-hf", 16, VIT_ERR_UNSUPPORTED, "smaller than the model's windows of 4"},
                 {"resnetv2-timm", 96, VIT_OK, NULL},
                 {"mvitv2-timm", 96, VIT_ERR_UNSUPPORTED, "MViTv2 runs in its own size only, this one in 64x64"},
                 {"mvitv2-timm", 32, VIT_ERR_UNSUPPORTED, "MViTv2 runs in its own size only"},
                 {"mvitv2-timm", 64, VIT_OK, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const vit_options options = {.image_size = cases[i].image_size};
        vit_model *model = NULL;
        vit_error err = {""};
        copy_golden(cases[i].golden);
        ck_assert_msg(vit_model_open(&model, folder, &options, &err) == cases[i].status, "%s", err.message);
        if (cases[i].words != NULL) {
            ck_assert_msg(strstr(err.message, cases[i].words) != NULL, "%s", err.message);
        } else {
            ck_assert_uint_eq(vit_model_describe(model)->preprocess->height, cases[i].image_size);
            ck_assert_uint_eq(vit_model_describe(model)->image_width, cases[i].image_size);
        }
        vit_model_free(model);
        remove_folder();
    }
}
END_TEST

/* ---- damage ---- */

/* Runs an image of noise, if the model is small, with every explanation it has. */
static void run_noise(const vit_model *model)
{
    const vit_model_info *info = vit_model_describe(model);
    const size_t floats = 3 * info->image_height * info->image_width;
    vit_session *session = NULL;
    vit_error err;
    if (floats > 3 * 400 * 400 || info->tokens > 1000 || vit_session_create(&session, model, 1, &err) != VIT_OK)
        return;
    float *pixels = calloc(floats, sizeof *pixels), *logits = calloc(info->classes, sizeof *logits);
    for (int method = 0; method < VIT_ATTENTION_COUNT; method++) {
        const vit_explain explain = {.method = (vit_attention)method, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
        vit_map_shape shape = {.floats = 1};
        if (method > 0 && vit_explain_shape(model, &explain, &shape, &err) != VIT_OK)
            continue;
        float *map = calloc(shape.floats, sizeof *map);
        const vit_item item = {.pixels = pixels, .logits = logits, .explain = method > 0 ? &explain : NULL, .map = map};
        vit_session_run(session, &item, 1, &err);
        free(map);
    }
    vit_session_free(session);
    free(pixels);
    free(logits);
}

/* Opens the copy, and runs what opens. */
static void try_copy(size_t image_size)
{
    const vit_options options = {.image_size = image_size};
    vit_model *model = NULL;
    vit_error err = {""};
    if (vit_model_open(&model, folder, &options, &err) == VIT_OK)
        run_noise(model);
    else
        ck_assert(err.message[0] != '\0' && model == NULL);
    vit_model_free(model);
}

static void assert_runs(size_t image_size)
{
    const vit_options options = {.image_size = image_size};
    vit_model *model = NULL;
    vit_error err = {""};
    ck_assert_msg(vit_model_open(&model, folder, &options, &err) == VIT_OK, "%s", err.message);
    run_noise(model);
    vit_model_free(model);
    remove_folder();
}

/* Random damage to the header and to the JSON files: an error or a model that runs, never a crash. */
static void damage(const char *name, unsigned *seed, int rounds)
{
    size_t length;
    char *original = read_file(folder, name, &length);
    char *damaged = malloc(length);
    uint64_t header = 0;
    if (strcmp(name, "model.safetensors") == 0)
        memcpy(&header, original, 8);
    const size_t reach = header > 0 ? header + 100 : length; /* the safetensors header, and a little beyond */
    for (int round = 0; round < rounds; round++) {
        memcpy(damaged, original, length);
        for (int flips = 0; flips < 1 + round % 4; flips++) {
            *seed = *seed * 1664525u + 1013904223u;
            const size_t at = (*seed >> 8) % reach;
            const bool digit = damaged[at] >= '0' && damaged[at] <= '9' && round % 2 == 0;
            damaged[at] = digit ? (char)('0' + (*seed >> 24) % 10) : (char)(*seed >> 24);
        }
        write_file(name, damaged, length - (round % 5 == 1 ? (*seed >> 4) % length : 0));
        try_copy(0);
    }
    write_file(name, original, length);
    free(damaged);
    free(original);
}

static const char *const damaged_folders[] = {"vit-hf", "dinov2-swiglu-hf", "swin-hf", "swin-timm", "mvitv2-odd-timm",
                                              "t2t-80", "t2t-vit-transformer", "deepvit-cnn", "hybrid-r50-odd-timm",
                                              "hybrid-stem-timm", "resnetv2-odd-timm"};
enum { DAMAGED = sizeof damaged_folders / sizeof damaged_folders[0] };

START_TEST(test_random_damage)
{
    unsigned seed = 1 + (unsigned)_i;
    const int rounds = getenv("VITD_SANITIZED") != NULL ? 40 : 200;
    copy_golden(damaged_folders[_i]);
    damage("config.json", &seed, rounds);
    damage("model.safetensors", &seed, rounds);
    if (strstr(damaged_folders[_i], "-hf") != NULL)
        damage("preprocessor_config.json", &seed, rounds);
    assert_opens();
}
END_TEST

/* Each tensor of a folder in turn without rows. */
START_TEST(test_empty_tensors)
{
    copy_golden(damaged_folders[_i]);
    size_t length;
    uint64_t size;
    char *original = read_file(folder, "model.safetensors", &length);
    memcpy(&size, original, 8);
    cJSON *header = cJSON_ParseWithLength(original + 8, size), *item, *side;
    cJSON_ArrayForEach(item, header) {
        size_t shape[8] = {0}, rank = 0;
        cJSON_ArrayForEach(side, cJSON_GetObjectItem(item, "shape")) {
            shape[rank] = rank > 0 ? (size_t)side->valuedouble : 0;
            rank++;
        }
        if (rank == 0)
            continue;
        replace_tensor(item->string, shape, rank);
        try_copy(0);
        write_file("model.safetensors", original, length);
    }
    cJSON_Delete(header);
    free(original);
    assert_opens();
}
END_TEST

/* The shape of a tensor of golden/deepvit (width 48, 4 heads, MLP 144) for 6 channels, 6 heads and an MLP of 18. */
static size_t shrink(const char *name, const cJSON *item, size_t shape[8])
{
    const bool by_head = strstr(name, "reatten") != NULL || strstr(name, "var_norm") != NULL;
    const cJSON *side;
    size_t rank = 0;
    cJSON_ArrayForEach(side, cJSON_GetObjectItem(item, "shape")) {
        const size_t n = (size_t)side->valuedouble;
        shape[rank++] = n == 48 || n == 144 ? n / 8 : by_head && n == 4 ? 6 : n;
    }
    return rank;
}

/* A narrow DeepViT whose second block has no re-attention: its tile of attention is larger than the first's. The overrun
 * would be in LeGrad, beyond the end of all of its memory, where the sanitizers see it. */
START_TEST(test_uneven_attention_has_room)
{
    size_t length, shape[8];
    uint64_t size;
    copy_golden("deepvit");
    char *original = read_file(folder, "model.safetensors", &length);
    memcpy(&size, original, 8);
    cJSON *header = cJSON_ParseWithLength(original + 8, size), *item;
    cJSON_ArrayForEach(item, header) {
        const size_t rank = shrink(item->string, item, shape);
        if (strstr(item->string, "blocks.1.attn.reatten") != NULL || strstr(item->string, "blocks.1.attn.var_norm") != NULL)
            drop_tensor(item->string);
        else if (rank > 0)
            replace_tensor(item->string, shape, rank);
    }
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64, \"num_heads\": 6}"));
    assert_runs(320);
    cJSON_Delete(header);
    free(original);
}
END_TEST

/* An MViTv2 that widens in its last block: the pooled features need more room than any block's. */
START_TEST(test_uneven_widths_have_room)
{
    static const struct {
        const char *name;
        size_t shape[2], rank;
    } wide[] = {{"stages.3.blocks.0.mlp.fc1.weight", {1, 128}, 2},
                {"stages.3.blocks.0.mlp.fc1.bias", {1}, 1},
                {"stages.3.blocks.0.mlp.fc2.weight", {65536, 1}, 2},
                {"stages.3.blocks.0.mlp.fc2.bias", {65536}, 1},
                {"stages.3.blocks.0.shortcut_proj_mlp.weight", {65536, 128}, 2},
                {"stages.3.blocks.0.shortcut_proj_mlp.bias", {65536}, 1},
                {"norm.weight", {65536}, 1},
                {"norm.bias", {65536}, 1},
                {"head.fc.weight", {5, 65536}, 2}};
    copy_golden("mvitv2-timm");
    most_bytes = 64 << 20;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        replace_tensor(wide[i].name, wide[i].shape, wide[i].rank);
    edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 32}")); /* few tokens, so that the width counts */
    assert_runs(0);
}
END_TEST

/* What only an architecture's name tells, in folders as hubs have them: without model_args, but in another width. */
START_TEST(test_sizes_by_name)
{
    static const struct {
        const char *golden, *name;
        size_t heads;
    } cases[] = {
        {"vit-timm", "vit_tiny_patch16_224", 3},       {"vit-timm", "vit_wee_patch16_224", 4},
        {"vit-timm", "vit_small_patch16_224", 6},      {"vit-timm", "deit3_medium_patch16_224", 8},
        {"vit-timm", "vit_mediumd_patch16_224", 8},    {"vit-timm", "vit_base_patch16_224", 12},
        {"vit-timm", "deit_base_patch16_224", 12},     {"vit-timm", "vit_base_patch16_gap_224", 16},
        {"vit-timm", "vit_large_patch16_224", 16},     {"vit-timm", "vit_huge_patch14_224", 16},
        {"vit-timm", "vit_giant_patch14_224", 16},     {"vit-timm", "vit_giant_patch14_dinov2", 24},
        {"vit-timm", "vit_gigantic_patch14_224", 16},  {"vit-timm", "vit_little_patch16_224", 5},
        {"vit-timm", "vit_betwixt_patch16_224", 10},   {"vit-timm", "vit_so150m_patch16_224", 14},
        {"vit-timm", "vit_so150m2_patch16_224", 13},   {"vit-timm", "vit_base_patch32_plus_256", 14},
        {"vit-timm", "vit_giantopt_patch16_siglip_gap_256", 16}, {"vit-timm", "vit_xsmall_patch16_clip_224", 4},
        {"t2t-vit-performer", "t2t_vit_7", 4},         {"t2t-vit-performer", "t2t_vit_14", 6},
        {"t2t-vit-performer", "t2t_vit_19", 7},        {"t2t-vit-transformer", "t2t_vit_t_24", 8},
        {"t2t-vit-performer", "t2t_vit_14_wide", 12},  {"t2t-vit-performer", "t2t_vit_14_resnext", 32},
        {"deepvit", "deepvit_patch16_224_re_attn_24b", 12}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vit_model *model = NULL;
        vit_error err = {""};
        char words[80];
        copy_golden(cases[i].golden);
        edit_json("config.json", "architecture", cJSON_CreateString(cases[i].name));
        edit_json("config.json", "model_args", cJSON_Parse("{\"img_size\": 64, \"embed_dim\": 48}"));
        vit_status status = vit_model_open(&model, folder, NULL, &err);
        snprintf(words, sizeof words, "a width of 48 cannot be split into %zu heads", cases[i].heads);
        if (strncmp(cases[i].golden, "deepvit", 7) == 0)
            ck_assert_msg(strstr(err.message, "'blocks.0.attn.reatten_matrix.weight': [12, 12, 1, 1] was expected") != NULL, "%s",
                          err.message);
        else if (48 % cases[i].heads != 0)
            ck_assert_msg(status == VIT_ERR_FORMAT && strstr(err.message, words) != NULL, "%s: %s", cases[i].name, err.message);
        else
            ck_assert_msg(status == VIT_OK && vit_model_describe(model)->heads == cases[i].heads, "%s: %s", cases[i].name,
                          err.message);
        vit_model_free(model);
        remove_folder();
    }
}
END_TEST

/* A name does what its arguments do. */
START_TEST(test_settings_by_name)
{
    static const struct {
        const char *golden, *name, *arguments;
    } cases[] = {{"deepvit-s", "deepvit_S", "{\"num_heads\": 4, \"scale_adjustment\": 0.5, \"transform_scale\": true}"},
                 {"deepvit-s", "deepvit_L", "{\"num_heads\": 4, \"scale_adjustment\": 0.5, \"transform_scale\": false}"},
                 {"deepvit", "deepvit_patch16_224_re_attn_16b",
                  "{\"num_heads\": 4, \"scale_adjustment\": 1, \"transform_scale\": false}"},
                 {"vit-clip-timm", "vit_so400m_patch16_siglip_gap_256", "{\"num_heads\": 4, \"act_layer\": \"gelu_tanh\"}"},
                 {"vit-clip-timm", "vit_so400m_patch14_siglip_gap_224", "{\"num_heads\": 4, \"act_layer\": \"gelu\"}"},
                 {"vit-clip-timm", "vit_base_patch32_clip_quickgelu_224", "{\"num_heads\": 4, \"act_layer\": \"quick_gelu\"}"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float by_name[9] = {0}, by_arguments[9] = {0};
        copy_golden(cases[i].golden);
        edit_json("config.json", "architecture", cJSON_CreateString(cases[i].name));
        edit_json("config.json", "model_args", cJSON_Parse("{\"num_heads\": 4}"));
        run_copy(by_name);
        copy_golden(cases[i].golden);
        /* a name that says nothing else; siglips have another eps than clips */
        if (strstr(cases[i].name, "quickgelu") == NULL)
            edit_json("config.json", "architecture",
                      cJSON_CreateString(strstr(cases[i].name, "siglip") != NULL ? "vit_other_224" : "deepvit_other"));
        edit_json("config.json", "model_args", cJSON_Parse(cases[i].arguments));
        run_copy(by_arguments);
        ck_assert_mem_eq(by_name, by_arguments, sizeof by_name);
    }
    static const char *const variants[] = {"vit_pe_core_tiny_patch16_384", "vit_base_patch16_rope_224",
                                           "vit_relpos_base_patch16_224", "vit_base_patch16_rpn_224",
                                           "vit_base_patch16_18x2_224", "vit_dwee_patch16_reg1_gap_256"};
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        copy_golden("vit-clip-timm");
        edit_json("config.json", "architecture", cJSON_CreateString(variants[i]));
        assert_refused(VIT_ERR_UNSUPPORTED, "which vitd does not run");
    }
    copy_golden("vit-swiglu-timm");
    edit_json("config.json", "model_args", cJSON_Parse("{\"num_heads\": 4, \"act_layer\": \"gelu\"}"));
    assert_refused(VIT_ERR_UNSUPPORTED, "the MLPs are gated, and vitd gates by silu");
    copy_golden("swin-hf");
    edit_json("config.json", "window_size", cJSON_CreateNumber(8));
    assert_refused(VIT_ERR_FORMAT, "\"window_size\" is 8, the tables of relative positions are for 4");
    copy_golden("swin-timm");
    edit_json("config.json", "architecture", cJSON_CreateString("resnet50"));
    assert_refused(VIT_ERR_UNSUPPORTED, "mvitv2_*, resnetv2_*_bit*");
}
END_TEST

int main(void)
{
    vit_blas_init();
    Suite *suite = suite_create("folder");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_folder_copy_opens, 0, 2);
    tcase_add_test(tests, test_safetensors_header_is_checked);
    tcase_add_test(tests, test_safetensors_length_is_checked);
    tcase_add_test(tests, test_config_is_checked);
    tcase_add_test(tests, test_timm_config_is_checked);
    tcase_add_test(tests, test_missing_and_odd_files);
    tcase_add_test(tests, test_shards);
    tcase_add_test(tests, test_values_must_be_finite);
    tcase_add_test(tests, test_labels_have_fallbacks);
    tcase_add_test(tests, test_optional_tensors_are_all_there_or_none);
    tcase_add_test(tests, test_encodings_by_name);
    tcase_add_test(tests, test_encodings_are_checked);
    tcase_add_test(tests, test_image_size_is_checked);
    tcase_add_test(tests, test_sizes_by_name);
    tcase_add_test(tests, test_settings_by_name);
    tcase_add_test(tests, test_uneven_attention_has_room);
    tcase_add_test(tests, test_uneven_widths_have_room);
    tcase_add_loop_test(tests, test_empty_tensors, 0, DAMAGED);
    tcase_add_loop_test(tests, test_random_damage, 0, DAMAGED);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}

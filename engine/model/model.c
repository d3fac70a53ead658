/* model.c - opens a model folder: config, tensors, architecture, preprocessing, tokenizer or labels, in this order. */
#include "engine/model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/math/cpu.h"
#include "engine/store/json.h"

enum { PATH_BYTES = 4096, MAX_IMAGE_SIZE = 1 << 14, MAX_SAID_CLASSES = 1 << 30 };

/* Which layout it is, and the name that the table of architectures goes by. */
static vit_status identify(struct folder *folder, const cJSON *config, vit_error *err)
{
    *folder = (struct folder){.config = config};
    const cJSON *type = json_get(config, "model_type"), *architecture = json_get(config, "architecture");
    if (cJSON_IsString(type)) {
        folder->layout = LAYOUT_TRANSFORMERS;
        folder->name = type->valuestring;
    } else if (cJSON_IsString(architecture)) {
        folder->layout = LAYOUT_TIMM;
        folder->name = architecture->valuestring;
        folder->model_args = json_get(config, "model_args");
        folder->pretrained = json_get(config, "pretrained_cfg");
        if (folder->pretrained == NULL)
            folder->pretrained = config;
    } else {
        return vit_error_set(err, VIT_ERR_FORMAT,
                             "config.json: there is neither \"model_type\" (transformers) nor \"architecture\" (timm), as "
                             "a string");
    }
    if ((folder->model_args != NULL && !cJSON_IsObject(folder->model_args)) ||
        (folder->pretrained != NULL && !cJSON_IsObject(folder->pretrained)))
        return vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"model_args\" and \"pretrained_cfg\" must be objects");
    if (strlen(folder->name) > 64)
        return vit_error_set(err, VIT_ERR_FORMAT, "config.json: the architecture's name is too long");
    return VIT_OK;
}

static vit_status find_architecture(struct vit_model *model, const struct folder *folder, vit_error *err)
{
    model->arch = arch_find(folder);
    if (model->arch != NULL)
        return VIT_OK;
    char known[200];
    if (arch_refusal(folder) != NULL)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED, "architecture '%.64s' is not one that vitd runs: %s",
                             folder->name, arch_refusal(folder));
    arch_list(known, sizeof known, folder->layout);
    return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                         "architecture '%.64s' is not one that vitd runs; in the %s layout it runs %s", folder->name,
                         folder->layout == LAYOUT_TIMM ? "timm" : "transformers", known);
}

/* Of the matrices: the first tensor of rank 2 or more tells. */
static const char *stored_dtype(const struct tensors *tensors)
{
    for (size_t i = 0; i < tensors->count; i++)
        if (tensors->items[i].rank >= 2 && tensors->items[i].dtype[0] != 'I')
            return tensors->items[i].dtype;
    return "F32";
}

static vit_status read_preprocessor(vit_preprocess *preprocess, const char *path, vit_error *err)
{
    char file[PATH_BYTES];
    cJSON *preprocessor = NULL;
    snprintf(file, sizeof file, "%s/preprocessor_config.json", path);
    vit_status status = json_load(&preprocessor, file, err);
    if (status == VIT_OK)
        status = preprocess_read_transformers(preprocess, preprocessor, err);
    cJSON_Delete(preprocessor);
    return status;
}

/* timm's configs say the number of classes as well. */
static vit_status check_classes(const struct folder *folder, size_t classes, vit_error *err)
{
    const cJSON *const places[] = {folder->config, folder->model_args};
    for (size_t i = 0; folder->layout == LAYOUT_TIMM && i < 2; i++) {
        size_t said = classes;
        vit_status status = json_size(places[i], "num_classes", 1, MAX_SAID_CLASSES, &said, NULL, err);
        if (status == VIT_OK && said != classes)
            status = vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"num_classes\" is %zu, the head has %zu", said,
                                   classes);
        if (status != VIT_OK)
            return status;
    }
    return VIT_OK;
}

/* A transformers folder tells its preprocessing itself, and models that take any size go by it; timm's follows from the
 * model's size. */
static vit_status load(struct vit_model *model, const struct folder *folder, const char *path, vit_error *err)
{
    const bool timm = folder->layout == LAYOUT_TIMM;
    vit_status status = timm ? VIT_OK : read_preprocessor(&model->preprocess, path, err);
    if (status == VIT_OK)
        status = model->arch->load(&model->state, folder, &model->info, err);
    if (status == VIT_OK)
        status = check_classes(folder, model->info.classes, err);
    if (status != VIT_OK)
        return status;
    const size_t height = model->info.image_height, width = model->info.image_width;
    return timm ? preprocess_read_timm(&model->preprocess, folder, height, width, err)
                : preprocess_fit(&model->preprocess, height, width, folder->image_size > 0, err);
}

static vit_status open_tokenizer(struct vit_model *model, const char *path, vit_error *err)
{
    vit_status status = tokenizer_open(&model->tokenizer, path, model->info.vocabulary, err);
    return status == VIT_OK ? text_check(model, err) : status;
}

static vit_status fill(struct vit_model *model, const cJSON *config, const char *path, const vit_options *options,
                       vit_error *err)
{
    struct folder folder;
    struct tensors tensors = {0};
    vit_status status = identify(&folder, config, err);
    if (status == VIT_OK)
        status = find_architecture(model, &folder, err);
    if (status == VIT_OK)
        status = tensors_open(&tensors, path, err);
    if (status == VIT_OK)
        status = weights_init(&model->weights, &tensors, err);
    if (status != VIT_OK)
        return status;

    folder.weights = &model->weights;
    folder.preprocess = &model->preprocess;
    folder.image_size = options != NULL ? options->image_size : 0;
    folder.dtype = options != NULL ? options->dtype : VIT_DTYPE_FP32;
    folder.scratch = &model->scratch;
    folder.mapped = &model->mapped;
    if (folder.image_size > MAX_IMAGE_SIZE)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "an image size of %zu: at most %d is possible", folder.image_size,
                             MAX_IMAGE_SIZE);
    status = load(model, &folder, path, err);
    if (status == VIT_OK && model->info.text)
        status = open_tokenizer(model, path, err);
    if (status == VIT_OK && model->info.classes > 0)
        status = labels_read(&model->labels, &folder, path, model->info.classes, err);
    if (status != VIT_OK)
        return status;
    model->info.architecture = model->arch->name;
    model->info.layout = folder.layout == LAYOUT_TIMM ? "timm" : "transformers";
    model->info.dtype = vit_dtype_name(folder.dtype);
    model->info.stored_dtype = stored_dtype(&model->weights.tensors);
    const struct arch_inside inside = model_inside(model);
    model->info.filters = inside.filters != NULL;
    model->info.positions = inside.positions != NULL;
    model->info.parameters = model->weights.parameters;
    model->info.preprocess = &model->preprocess;
    model->kernels = kernels_best();
    model->packed = products_best(folder.dtype) != NULL;
    if (model->packed)
        tensors_forget_pages(&model->weights.tensors);
    return VIT_OK;
}

/* Messages name the folder once, whichever step they come from. */
static vit_status in_folder(vit_status status, const char *path, const vit_error *inner, vit_error *err)
{
    if (strncmp(inner->message, path, strlen(path)) == 0)
        return vit_error_set(err, status, "%s", inner->message);
    return vit_error_set(err, status, "%s: %s", path, inner->message);
}

vit_status vit_model_open(vit_model **model, const char *folder, const vit_options *options, vit_error *err)
{
    char file[PATH_BYTES];
    vit_error inner = {""};
    if (strlen(folder) + 64 > sizeof file)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "the model folder's path is too long");
    snprintf(file, sizeof file, "%s/config.json", folder);
    if (access(folder, R_OK | X_OK) != 0 && errno == ENOENT)
        return vit_error_set(err, VIT_ERR_IO, "%s: there is no such folder", folder);
    if (access(folder, R_OK | X_OK) != 0)
        return vit_error_set(err, VIT_ERR_IO, "%s: %s (this user must be able to enter the folder, and all above it)", folder,
                             strerror(errno));

    cJSON *config = NULL;
    vit_status status = json_load(&config, file, &inner);
    struct vit_model *opened = NULL;
    if (status == VIT_OK) {
        opened = calloc(1, sizeof *opened);
        status = opened == NULL ? vit_error_set(&inner, VIT_ERR_NO_MEMORY, "no memory for the model")
                                : fill(opened, config, folder, options, &inner);
    }
    cJSON_Delete(config);
    if (status != VIT_OK) {
        vit_model_free(opened);
        return in_folder(status, folder, &inner, err);
    }
    *model = opened;
    return VIT_OK;
}

void vit_model_free(vit_model *model)
{
    if (model == NULL)
        return;
    if (model->state != NULL)
        model->arch->free(model->state);
    tokenizer_free(model->tokenizer);
    labels_free(model->labels, model->info.classes);
    weights_release(&model->weights);
    free(model);
}

size_t vit_model_bytes(const vit_model *model)
{
    size_t bytes = weights_owned_bytes(&model->weights) + (model->packed ? model->mapped : 0);
    for (size_t i = 0; !model->packed && i < model->weights.tensors.mapping_count; i++)
        bytes += model->weights.tensors.mappings[i].length;
    return bytes;
}

const vit_model_info *vit_model_describe(const vit_model *model)
{
    return &model->info;
}

const char *vit_model_label(const vit_model *model, size_t index)
{
    return index < model->info.classes ? model->labels[index] : "";
}

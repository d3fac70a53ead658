/*
 * preprocess_config.c - reads both dialects of preprocessing into one vit_preprocess.
 *
 * transformers: preprocessor_config.json. Defaults differ by image processor; only what every published config of
 * the classes we accept may leave out has a default here. timm: pretrained_cfg, with timm's own defaults.
 */
#include <math.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/model/model.h"
#include "engine/store/json.h"

enum { MAX_SIDE = 1 << 15 };

/* ---- transformers ---- */

/* "size" and "crop_size": one number, {"height", "width"} or {"shortest_edge"}. */
struct size {
    size_t height, width, shortest_edge; /* 0: not given */
};

static vit_status read_size(struct size *size, const cJSON *config, const char *key, vit_error *err)
{
    *size = (struct size){0};
    const cJSON *item = json_get(config, key);
    if (item == NULL)
        return VIT_OK;
    if (cJSON_IsNumber(item)) {
        size_t side = 0;
        vit_status status = json_size(config, key, 1, MAX_SIDE, &side, NULL, err);
        size->height = size->width = side;
        return status;
    }
    vit_status status = json_size(item, "height", 1, MAX_SIDE, &size->height, NULL, err);
    if (status == VIT_OK)
        status = json_size(item, "width", 1, MAX_SIDE, &size->width, NULL, err);
    if (status == VIT_OK)
        status = json_size(item, "shortest_edge", 1, MAX_SIDE, &size->shortest_edge, NULL, err);
    if (status == VIT_OK && (size->height == 0 || size->width == 0) && size->shortest_edge == 0)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "preprocessor_config.json: \"%s\" must hold \"height\" and \"width\", or \"shortest_edge\"", key);
    return status;
}

/* Processors whose single number means the shortest edge, as transformers' own classes read it. */
static bool single_number_is_edge(const char *processor)
{
    static const char *const edges[] = {"CLIP", "Bit", "ConvNext", "LeViT", "Levit", "PoolFormer", "MobileNet"};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        if (strncmp(processor, edges[i], strlen(edges[i])) == 0)
            return true;
    return false;
}

static vit_status read_filter_number(vit_preprocess *p, const cJSON *config, vit_error *err)
{
    static const vit_filter pillow[] = {VIT_FILTER_NEAREST, VIT_FILTER_LANCZOS, VIT_FILTER_BILINEAR,
                                        VIT_FILTER_BICUBIC, VIT_FILTER_BOX,     VIT_FILTER_HAMMING};
    size_t number = 2; /* bilinear, the default of ViTImageProcessor */
    vit_status status = json_size(config, "resample", 0, 5, &number, NULL, err);
    p->filter = pillow[number];
    return status;
}

/* ConvNeXt's dialect: below 384 resize the shortest edge to int(size / crop_pct) and crop, else warp. */
static vit_status read_crop_pct(vit_preprocess *p, double crop_pct, size_t edge, vit_error *err)
{
    if (!(crop_pct > 0 && crop_pct <= 1))
        return vit_error_set(err, VIT_ERR_FORMAT, "preprocessor_config.json: \"crop_pct\" must be above 0 and at most 1");
    p->resize = edge < 384 ? VIT_RESIZE_SHORTEST_EDGE : VIT_RESIZE_EXACT;
    p->resize_height = p->resize_width = edge < 384 ? (size_t)((double)edge / crop_pct) : edge;
    p->crop = edge < 384 ? VIT_CROP_FLOOR : VIT_CROP_NONE;
    p->height = p->width = edge;
    return VIT_OK;
}

static vit_status read_resize(vit_preprocess *p, const cJSON *config, const char *processor, vit_error *err)
{
    bool resize = true;
    struct size size;
    vit_status status = json_bool(config, "do_resize", &resize, NULL, err);
    if (status == VIT_OK)
        status = read_size(&size, config, "size", err);
    if (status == VIT_OK)
        status = read_filter_number(p, config, err);
    if (status != VIT_OK || !resize)
        return status;
    double crop_pct = 0;
    bool has_crop_pct = false;
    status = json_number(config, "crop_pct", &crop_pct, &has_crop_pct, err);
    if (status != VIT_OK)
        return status;
    if (size.shortest_edge == 0 && size.height == 0)
        return vit_error_set(err, VIT_ERR_FORMAT, "preprocessor_config.json: \"size\" is missing");
    if (cJSON_IsNumber(json_get(config, "size")) && single_number_is_edge(processor))
        size = (struct size){.shortest_edge = size.height};
    if (has_crop_pct && size.shortest_edge != 0)
        return read_crop_pct(p, crop_pct, size.shortest_edge, err);
    if (size.shortest_edge != 0) {
        p->resize = VIT_RESIZE_SHORTEST_EDGE;
        p->resize_height = p->resize_width = size.shortest_edge;
    } else {
        p->resize = VIT_RESIZE_EXACT;
        p->resize_height = p->height = size.height;
        p->resize_width = p->width = size.width;
    }
    return VIT_OK;
}

static vit_status read_crop(vit_preprocess *p, const cJSON *config, vit_error *err)
{
    bool crop = false;
    struct size size;
    vit_status status = json_bool(config, "do_center_crop", &crop, NULL, err);
    if (status == VIT_OK)
        status = read_size(&size, config, "crop_size", err);
    if (status != VIT_OK || !crop)
        return status;
    if (size.height == 0)
        return vit_error_set(err, VIT_ERR_FORMAT,
                             "preprocessor_config.json: \"crop_size\" is missing, and \"do_center_crop\" is true");
    p->crop = VIT_CROP_FLOOR;
    p->height = size.height;
    p->width = size.width;
    return VIT_OK;
}

static vit_status read_normalisation(vit_preprocess *p, const cJSON *config, vit_error *err)
{
    bool rescale = true, normalise = true, has_mean = false, has_std = false;
    p->rescale_factor = 1.0 / 255;
    vit_status status = json_bool(config, "do_rescale", &rescale, NULL, err);
    if (status == VIT_OK)
        status = json_number(config, "rescale_factor", &p->rescale_factor, NULL, err);
    if (status == VIT_OK)
        status = json_bool(config, "do_normalize", &normalise, NULL, err);
    if (status == VIT_OK && normalise)
        status = json_floats(config, "image_mean", p->mean, 3, &has_mean, err);
    if (status == VIT_OK && normalise)
        status = json_floats(config, "image_std", p->std, 3, &has_std, err);
    if (status != VIT_OK)
        return status;
    if (normalise && (!has_mean || !has_std))
        return vit_error_set(err, VIT_ERR_FORMAT, "preprocessor_config.json: \"%s\" is missing",
                             has_mean ? "image_std" : "image_mean");
    if (!rescale)
        p->rescale_factor = 1;
    return VIT_OK;
}

static vit_status check_deviations(const vit_preprocess *p, vit_error *err)
{
    for (int i = 0; i < 3; i++)
        if (!isnormal(p->std[i]))
            return vit_error_set(err, VIT_ERR_FORMAT, "the standard deviations of the preprocessing must not be zero");
    return VIT_OK;
}

vit_status preprocess_read_transformers(vit_preprocess *preprocess, const cJSON *preprocessor, vit_error *err)
{
    vit_preprocess p = {.std = {1, 1, 1}};
    const char *processor = "ViTImageProcessor";
    vit_status status = json_string(preprocessor, "feature_extractor_type", &processor, NULL, err);
    if (status == VIT_OK)
        status = json_string(preprocessor, "image_processor_type", &processor, NULL, err);
    if (status == VIT_OK)
        status = read_resize(&p, preprocessor, processor, err);
    if (status == VIT_OK)
        status = read_crop(&p, preprocessor, err);
    if (status == VIT_OK)
        status = read_normalisation(&p, preprocessor, err);
    if (status == VIT_OK && p.resize == VIT_RESIZE_SHORTEST_EDGE && p.crop == VIT_CROP_NONE)
        status = vit_error_set(err, VIT_ERR_UNSUPPORTED,
                               "preprocessor_config.json: resizing by \"shortest_edge\" needs \"do_center_crop\"");
    if (status == VIT_OK)
        status = check_deviations(&p, err);
    if (status == VIT_OK)
        *preprocess = p;
    return status;
}

/* A length that was resized to, where `from` was its result's and `to` is. */
static size_t in_proportion(size_t length, size_t from, size_t to)
{
    return (size_t)round((double)length * (double)to / (double)from);
}

vit_status preprocess_fit(vit_preprocess *p, size_t height, size_t width, bool scaled, vit_error *err)
{
    if (p->height == 0) { /* pictures must come in the model's size */
        p->height = height;
        p->width = width;
    }
    if (scaled && p->resize != VIT_RESIZE_NONE) {
        p->resize_height = in_proportion(p->resize_height, p->height, height);
        p->resize_width = in_proportion(p->resize_width, p->width, width);
        p->height = height;
        p->width = width;
    }
    if (p->height != height || p->width != width)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "the preprocessing ends in %zux%zu pixels (height x width), the model takes %zux%zu: set "
                             "image_size to the size that pictures should be resized to",
                             p->height, p->width, height, width);
    return VIT_OK;
}

/* ---- timm ---- */

static vit_status read_filter_name(vit_preprocess *p, const cJSON *config, vit_error *err)
{
    static const struct {
        const char *name;
        vit_filter filter;
    } known[] = {{"nearest", VIT_FILTER_NEAREST}, {"box", VIT_FILTER_BOX},         {"bilinear", VIT_FILTER_BILINEAR},
                 {"hamming", VIT_FILTER_HAMMING}, {"bicubic", VIT_FILTER_BICUBIC}, {"lanczos", VIT_FILTER_LANCZOS}};
    const char *name = "bicubic";
    vit_status status = json_string(config, "interpolation", &name, NULL, err);
    for (size_t i = 0; status == VIT_OK && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            p->filter = known[i].filter;
            return VIT_OK;
        }
    return status != VIT_OK ? status
                            : vit_error_set(err, VIT_ERR_UNSUPPORTED, "config.json: \"interpolation\": \"%.32s\" is unknown",
                                            name);
}

static vit_status read_crop_mode(vit_preprocess *p, const cJSON *config, vit_error *err)
{
    const char *mode = "center";
    vit_status status = json_string(config, "crop_mode", &mode, NULL, err);
    if (status != VIT_OK)
        return status;
    p->crop = VIT_CROP_ROUND;
    if (strcmp(mode, "squash") == 0) {
        p->resize = VIT_RESIZE_EXACT;
    } else if (strcmp(mode, "border") == 0) {
        p->resize = VIT_RESIZE_LONGEST_EDGE;
        for (int i = 0; i < 3; i++) {
            double fill = nearbyint(255.0 * (double)p->mean[i]);
            p->fill[i] = fill < 0 ? 0 : fill > 255 ? 255 : (uint8_t)fill;
        }
    } else if (strcmp(mode, "center") == 0 && p->height == p->width) {
        p->resize = VIT_RESIZE_SHORTEST_EDGE;
    } else {
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "config.json: \"crop_mode\" \"%.32s\" for %zux%zu pixels is not supported", mode, p->height,
                             p->width);
    }
    return VIT_OK;
}

vit_status preprocess_read_timm(vit_preprocess *preprocess, const struct folder *folder, size_t height, size_t width,
                                vit_error *err)
{
    const cJSON *config = folder->pretrained;
    vit_preprocess p = {.height = height, .width = width, .rescale_factor = 1.0 / 255,
                        .mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}}; /* timm's defaults */
    double crop_pct = 0.875;
    vit_status status = json_number(config, "crop_pct", &crop_pct, NULL, err);
    if (status == VIT_OK && !(crop_pct >= 0.01 && crop_pct <= 1))
        status = vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"crop_pct\" must be from 0.01 to 1");
    if (status == VIT_OK)
        status = json_floats(config, "mean", p.mean, 3, NULL, err);
    if (status == VIT_OK)
        status = json_floats(config, "std", p.std, 3, NULL, err);
    if (status == VIT_OK)
        status = read_filter_name(&p, config, err);
    if (status == VIT_OK)
        status = read_crop_mode(&p, config, err);
    if (status == VIT_OK)
        status = check_deviations(&p, err);
    if (status != VIT_OK)
        return status;
    p.resize_height = (size_t)floor((double)height / crop_pct);
    p.resize_width = (size_t)floor((double)width / crop_pct);
    *preprocess = p;
    return VIT_OK;
}

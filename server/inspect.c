/* inspect.c - `vitd inspect DIR`: what a model folder holds, and whether vitd can run it. */
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

#include "server/cli.h"
#include "server/commands.h"
#include "server/log.h"
#include "server/work/model.h"
#include "server/stages.h"
#include "vit.h"

static const char *const sample_text = "a photo of a cat";

static void print_preprocessing(const vit_preprocess *p)
{
    printf("preprocessing   ");
    if (p->resize == VIT_RESIZE_EXACT)
        printf("resize to %zux%zu (%s), ", p->resize_width, p->resize_height, vit_filter_name(p->filter));
    else if (p->resize == VIT_RESIZE_SHORTEST_EDGE)
        printf("resize the shorter side to %zu (%s), ", p->resize_height, vit_filter_name(p->filter));
    else if (p->resize == VIT_RESIZE_LONGEST_EDGE)
        printf("fit into %zux%zu (%s), ", p->resize_width, p->resize_height, vit_filter_name(p->filter));
    if (p->crop != VIT_CROP_NONE)
        printf("crop the centre %zux%zu, ", p->width, p->height);
    printf("mean %.4g %.4g %.4g, deviation %.4g %.4g %.4g\n", (double)p->mean[0], (double)p->mean[1],
           (double)p->mean[2], (double)p->std[0], (double)p->std[1], (double)p->std[2]);
}

static void print_labels(const vit_model *model, size_t classes)
{
    char label[64];
    printf("classes         %zu:", classes);
    for (size_t i = 0; i < classes && i < 4; i++)
        printf("%s %s", i > 0 ? "," : "", log_clean(label, sizeof label, vit_model_label(model, i)));
    puts(classes > 4 ? ", ..." : "");
}

static void print_text_tower(const vit_model_info *info, double flops)
{
    printf("texts           %zu layers, width %zu, %zu heads; up to %zu tokens, of %zu\n", info->text_layers,
           info->text_width, info->text_heads, info->context_length, info->vocabulary);
    printf("                %.1f MFLOP for \"%s\"; logits are %.4g times the cosine with the image\n", flops / 1e6,
           sample_text, (double)info->logit_scale);
}

static void print_explanations(const vit_model_info *info)
{
    const char *before = "explanations    attention=";
    for (int method = VIT_ATTENTION_RAW; method < VIT_ATTENTION_COUNT; method++)
        if (info->explanations & 1u << method) {
            printf("%s%s", before, vit_attention_name((vit_attention)method));
            before = ", ";
        }
    if (info->explanations == 0)
        printf("explanations    none");
    puts(info->distances ? ", attention distances" : "");
}

/* Layer by layer, where they differ. */
static void print_stages(const vit_model_info *info)
{
    if (stage_length(info, 0) == info->layers)
        return;
    for (size_t first = 0, length; first < info->layers; first += length) {
        const vit_layer_info *layer = &info->layer_info[first];
        length = stage_length(info, first);
        printf("%-15s %zu layer%s of width %zu", first == 0 ? "stages" : "", length, length == 1 ? "" : "s", layer->width);
        if (layer->heads > 0)
            printf(", %zu head%s", layer->heads, layer->heads == 1 ? "" : "s");
        printf(", maps of %zux%zu\n", layer->grid_width, layer->grid_height);
    }
}

/* A ResNet has no patches; where stages differ, the tokens are those at the end. */
static void print_input(const vit_model_info *info)
{
    printf("input           %zux%zu pixels", info->image_width, info->image_height);
    if (info->heads > 0)
        printf(", patches of %zu, %zu tokens%s", info->patch_size, info->tokens,
               stage_length(info, 0) < info->layers ? " at the end" : "");
    puts("");
}

static void print_size(const vit_model_info *info)
{
    printf("size            %zu layers, width %zu", info->layers, info->width);
    if (info->heads > 0)
        printf(", %zu heads, MLP %zu", info->heads, info->mlp_width);
    if (info->parameters < 1000000)
        printf("; %llu parameters\n", (unsigned long long)info->parameters);
    else
        printf("; %.1f million parameters\n", (double)info->parameters / 1e6);
}

/* The operations in products: of an image, and of the sample text. */
struct costs {
    double image, text;
};

static void print_model(const vit_model *model, const struct costs *costs)
{
    const vit_model_info *info = vit_model_describe(model);
    const double flops = costs->image;
    printf("architecture    %s (%s layout)\n", info->architecture, info->layout);
    print_input(info);
    print_size(info);
    print_stages(info);
    printf("cost            %.2f %s per image\n", flops < 1e9 ? flops / 1e6 : flops / 1e9, flops < 1e9 ? "MFLOP" : "GFLOP");
    const double bytes = strcmp(info->dtype, "fp32") == 0 ? 4 : strcmp(info->dtype, "bf16") == 0 ? 2 : 1;
    printf("weights         stored as %s, computed in %s: %.1f MB\n", info->stored_dtype, info->dtype,
           bytes * (double)info->parameters / 1e6);
    printf("head            pooling %s, activation %s, embedding of %zu\n", info->pooling, info->activation,
           info->embedding_width);
    print_preprocessing(info->preprocess);
    if (info->text)
        print_text_tower(info, costs->text);
    else
        print_labels(model, info->classes);
    print_explanations(info);
    printf("vitd can run this model.\n");
}

int command_inspect(const struct cli *cli)
{
    vit_error err = {""};
    char clean[4 * sizeof err.message];
    vit_model *model = NULL;
    vit_session *session = NULL;
    struct costs costs = {0};
    const vit_options options =
        model_options(&(struct config_model){.dtype = cli->config.dtype, .image_size = cli->config.image_size});
    vit_status status = vit_model_open(&model, cli->operands[0], &options, &err);
    if (status == VIT_OK)
        status = vit_session_create(&session, model, 1, &err);
    if (status == VIT_OK)
        status = vit_session_profile(session, 1, &costs.image, NULL, &err);
    if (status == VIT_OK && vit_model_describe(model)->text)
        status = vit_session_profile_texts(session, &sample_text, 1, &costs.text, NULL, &err);
    if (status == VIT_OK)
        print_model(model, &costs);
    else
        fprintf(stderr, "vitd cannot run this model: %s\n", log_clean(clean, sizeof clean, err.message));
    vit_session_free(session);
    vit_model_free(model);
    return status == VIT_OK ? EXIT_SUCCESS : EXIT_RUNTIME;
}

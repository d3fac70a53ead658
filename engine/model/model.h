/* model.h - what a vit_model is made of; shared by the files of engine/model. */
#ifndef ENGINE_MODEL_MODEL_H
#define ENGINE_MODEL_MODEL_H

#include "engine/arch/arch.h"
#include "engine/store/weights.h"
#include "engine/text/tokenizer.h"
#include "vit.h"

struct vit_model {
    vit_model_info info;
    vit_preprocess preprocess;
    const struct arch *arch;
    void *state; /* the architecture's */
    const struct kernels *kernels;
    size_t scratch; /* floats, of each thread */
    size_t mapped;  /* bytes that runs read all over where the file is mapped */
    struct tokenizer *tokenizer; /* of a model with a text tower */
    struct weights weights;
    bool packed; /* the large weights are, and hardly read as they are stored */
    char **labels; /* [classes] */
};

/* preprocess_config.c. transformers: what preprocessor_config.json says, the size 0 where it neither resizes nor crops;
 * then made to end in the model's H x W, `scaled` in the same proportions, else it must do so as it is. timm: what the
 * folder says for a model that takes H x W. */
vit_status preprocess_read_transformers(vit_preprocess *preprocess, const cJSON *preprocessor, vit_error *err);
vit_status preprocess_fit(vit_preprocess *preprocess, size_t height, size_t width, bool scaled, vit_error *err);
vit_status preprocess_read_timm(vit_preprocess *preprocess, const struct folder *folder, size_t height, size_t width,
                                vit_error *err);

/* inside.c: what the architecture shows of its weights. */
struct arch_inside model_inside(const vit_model *model);

/* texts.c: whether the tokenizer ends its texts as the text tower expects. */
vit_status text_check(const vit_model *model, vit_error *err);

/* labels.c: *labels [classes], to be freed with labels_free(). */
vit_status labels_read(char ***labels, const struct folder *folder, const char *path, size_t classes, vit_error *err);
void labels_free(char **labels, size_t classes);

#endif

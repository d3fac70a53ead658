#include "engine/arch/arch.h"

#include <stdio.h>
#include <string.h>

/* The first that recognises a folder runs it: the hybrids' names begin like the plain ViTs'. */
static const struct arch *const table[] = {&arch_hybrid, &arch_vit,     &arch_dinov2, &arch_clip, &arch_t2t,
                                           &arch_deepvit, &arch_swin,   &arch_mvit,   &arch_resnet};

enum { ARCH_COUNT = sizeof table / sizeof table[0] };

const struct arch *arch_find(const struct folder *folder)
{
    for (size_t i = 0; i < ARCH_COUNT; i++)
        if (table[i]->recognise(folder))
            return table[i];
    return NULL;
}

const char *arch_refusal(const struct folder *folder)
{
    static const struct {
        const char *name, *why;
    } relatives[] = {
        {"clip_vision_model", "it is CLIP's image tower alone; vitd runs the whole model, \"clip\""},
        {"clip_text_model", "it is CLIP's text tower alone; vitd runs the whole model, \"clip\""},
        {"siglip", "it is no CLIP: its pooling, its logits and its tokenizer are others"},
        {"siglip2", "it is no CLIP: its pooling, its logits and its tokenizer are others"},
    };
    for (size_t i = 0; i < sizeof relatives / sizeof relatives[0]; i++)
        if (folder->layout == LAYOUT_TRANSFORMERS && strcmp(folder->name, relatives[i].name) == 0)
            return relatives[i].why;
    return NULL;
}

void arch_list(char *text, size_t size, enum layout layout)
{
    size_t used = 0;
    for (size_t i = 0; i < ARCH_COUNT && used < size; i++)
        if (table[i]->runs[layout] != NULL)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", table[i]->runs[layout]);
}

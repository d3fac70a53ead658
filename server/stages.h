/* stages.h - layers of one kind in a row, as people are told of them. */
#ifndef SERVER_STAGES_H
#define SERVER_STAGES_H

#include "vit.h"

/* How many layers from `first` on are alike. */
size_t stage_length(const vit_model_info *info, size_t first);

#endif

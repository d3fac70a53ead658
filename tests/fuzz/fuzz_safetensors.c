/* fuzz_safetensors.c - any bytes as model.safetensors: an error or tensors, never a fault. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/store/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/vitd-fuzz-XXXXXX";
static char path[sizeof folder + 32];

static void remove_folder(void)
{
    unlink(path);
    rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (path[0] == '\0') {
        if (mkdtemp(folder) == NULL)
            abort();
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        atexit(remove_folder);
    }
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();

    struct tensors tensors = {0};
    vit_error err = {""};
    if (tensors_open(&tensors, folder, &err) != VIT_OK)
        return err.message[0] == '\0' ? abort(), 0 : 0;
    volatile uint8_t sum = 0; /* every byte that a tensor claims is readable */
    for (size_t i = 0; i < tensors.count; i++)
        for (size_t j = 0; j < tensors.items[i].bytes; j++)
            sum = (uint8_t)(sum + tensors.items[i].data[j]);
    tensors_release(&tensors);
    return 0;
}

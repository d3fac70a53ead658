/* replay.c - runs a fuzz target over the files named on the command line, for `make test`. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        fseek(file, 0, SEEK_END);
        long size = ftell(file);
        rewind(file);
        uint8_t *data = malloc((size_t)size + 1);
        if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        LLVMFuzzerTestOneInput(data, (size_t)size);
        free(data);
        fclose(file);
    }
    printf("%s: %d inputs replayed\n", argv[0], argc - 1);
    return argc > 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

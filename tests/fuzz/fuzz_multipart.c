/* fuzz_multipart.c - the first line is a Content-Type, the rest a body; every slice must lie within the body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MAX_FILES = 8 };
    struct multipart_file files[MAX_FILES];
    char boundary[MULTIPART_MAX_BOUNDARY + 1], type[512];
    const char *why = NULL;
    size_t count = 0, line = 0;
    struct multipart_file labels;
    while (line < size && line < sizeof type - 1 && data[line] != '\n')
        line++;
    memcpy(type, data, line);
    type[line] = '\0';
    if (multipart_boundary(type, boundary) != MULTIPART_FORM)
        return 0;
    const uint8_t *body = data + line + (line < size);
    const size_t length = size - (size_t)(body - data);
    enum multipart_result result = multipart_files(body, length, boundary, files, MAX_FILES, &count, &labels, &why);
    if (count > MAX_FILES || (result == MULTIPART_MALFORMED && why == NULL))
        abort();
    for (size_t i = 0; i < count; i++)
        if (files[i].bytes < body || files[i].length > length || files[i].bytes + files[i].length > body + length)
            abort();
    return 0;
}

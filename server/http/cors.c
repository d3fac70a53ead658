#include "server/http/cors.h"

#include <string.h>

bool cors_allows(const char *origins, const char *origin)
{
    while (origin && *origins) {
        const size_t length = strcspn(origins, "\n");
        if ((length == strlen(origin) && memcmp(origins, origin, length) == 0) || (length == 1 && *origins == '*'))
            return true;
        origins += length + (origins[length] == '\n');
    }
    return false;
}

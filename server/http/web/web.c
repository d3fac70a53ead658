#include "server/http/web/web.h"

/* The assembler copies the file; the Makefile knows that this object depends on it. */
#define EMBED(name, file)                                                \
    __asm__(".pushsection .rodata\n"                                     \
            ".global " #name ", " #name "_length\n"                      \
            #name ": .incbin \"server/http/web/" file "\"\n"             \
            "1: .balign 8\n"                                             \
            #name "_length: .dc.a 1b - " #name "\n"                      \
            ".popsection")

EMBED(web_page, "index.html");
EMBED(web_openapi, "openapi.json");

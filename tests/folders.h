/* folders.h - model folders in /tmp that tests make and change. */
#ifndef TESTS_FOLDERS_H
#define TESTS_FOLDERS_H

#include <stddef.h>

enum { FOLDER_BYTES = 32 };

/* A configuration's text, in which each @ is the folder of the golden models. */
void folder_expand(char *out, size_t size, const char *text);

/* An empty folder. */
void folder_make(char folder[FOLDER_BYTES]);
/* A copy of a model's folder in it, called `name`. */
void folder_add(const char *folder, const char *name, const char *model);
/* folder/link leads to folder/name from now on: at once, as a deployment does it. */
void folder_link(const char *folder, const char *name, const char *link);
/* Overwrites folder/name with a text. */
void folder_write(const char *folder, const char *name, const char *text);
/* With all that is in it. */
void folder_remove(const char *folder);

#endif

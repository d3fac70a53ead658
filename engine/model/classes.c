/* classes.c - from what people call a class to its index. */
#include <string.h>
#include <strings.h>

#include "engine/base/error.h"
#include "engine/model/model.h"

/* A piece of someone's text, without the blanks around it. */
struct span {
    const char *start;
    size_t length;
};

static struct span trimmed(const char *start, size_t length)
{
    while (length > 0 && *start == ' ') {
        start++;
        length--;
    }
    while (length > 0 && start[length - 1] == ' ')
        length--;
    return (struct span){start, length};
}

static bool same(struct span a, const char *b, size_t length)
{
    return a.length == length && strncasecmp(a.start, b, length) == 0;
}

/* One of the names in "tabby, tabby cat". */
static bool is_synonym(struct span name, const char *label)
{
    while (*label != '\0') {
        const size_t length = strcspn(label, ",");
        const struct span synonym = trimmed(label, length);
        if (same(name, synonym.start, synonym.length))
            return true;
        label += length + (label[length] == ',');
    }
    return false;
}

/* The number of classes that are called so, at most 2; found: which. */
static size_t count_classes(const vit_model *model, struct span name, bool synonyms, size_t found[2])
{
    size_t count = 0;
    for (size_t i = 0; i < model->info.classes && count < 2; i++) {
        const char *label = model->labels[i];
        if (synonyms ? is_synonym(name, label) : same(name, label, strlen(label)))
            found[count++] = i;
    }
    return count;
}

/* An index of digits alone; false if it is none, or too large for any model. */
static bool read_index(struct span name, size_t *index)
{
    size_t value = 0;
    if (name.length == 0 || name.length > 9)
        return false;
    for (size_t i = 0; i < name.length; i++) {
        if (name.start[i] < '0' || name.start[i] > '9')
            return false;
        value = value * 10 + (size_t)(name.start[i] - '0');
    }
    *index = value;
    return true;
}

static vit_status find_class(const vit_model *model, struct span name, size_t *index, vit_error *err)
{
    const int shown = name.length < 80 ? (int)name.length : 80;
    size_t found[2], number;
    if (model->info.classes == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "this model (architecture %s) has no classes of its own",
                             model->info.architecture);
    if (name.length == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a class without a name: give a label or an index");
    if (read_index(name, &number)) {
        if (number >= model->info.classes)
            return vit_error_set(err, VIT_ERR_ARGUMENT, "class %zu does not exist: the model has classes 0 to %zu",
                                 number, model->info.classes - 1);
        *index = number;
        return VIT_OK;
    }
    size_t count = count_classes(model, name, false, found);
    if (count == 0)
        count = count_classes(model, name, true, found);
    if (count == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "no class is called '%.*s': give one of the model's labels, or an "
                             "index from 0 to %zu", shown, name.start, model->info.classes - 1);
    if (count > 1)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "several classes are called '%.*s', %zu and %zu among them: give an "
                             "index", shown, name.start, found[0], found[1]);
    *index = found[0];
    return VIT_OK;
}

vit_status vit_model_find_class(const vit_model *model, const char *text, size_t *index, vit_error *err)
{
    return find_class(model, trimmed(text, strlen(text)), index, err);
}

/* The length of the longest label with commas that the list begins with, else of its first item. */
static size_t first_item(const vit_model *model, const char *list)
{
    const size_t simple = strcspn(list, ",");
    for (size_t length = strlen(list); length > simple;) {
        size_t found[2];
        if (count_classes(model, trimmed(list, length), false, found) > 0)
            return length;
        do
            length--;
        while (length > simple && list[length] != ',');
    }
    return simple;
}

vit_status vit_model_find_classes(const vit_model *model, const char *text, size_t *indices, size_t capacity,
                                  size_t *count, vit_error *err)
{
    size_t used = 0;
    for (bool more = true; more;) {
        const size_t length = first_item(model, text);
        size_t index, i = 0;
        vit_status status = find_class(model, trimmed(text, length), &index, err);
        if (status != VIT_OK)
            return status;
        while (i < used && indices[i] != index)
            i++;
        if (i == capacity)
            return vit_error_set(err, VIT_ERR_ARGUMENT, "%zu classes at most", capacity);
        indices[i] = index;
        used = i == used ? used + 1 : used;
        more = text[length] == ',';
        text += length + more;
    }
    *count = used;
    return VIT_OK;
}

#include "engine/store/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

enum {
    LENGTH_BYTES = 8,
    HEADER_MAX_BYTES = 100 * 1000 * 1000, /* the reference implementation's limit */
    PATH_MAX_BYTES = 4096,
    SHARDS_MAX = 1000
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},     {"U64", 8},     {"I32", 4}, {"U32", 4},
              {"I16", 2}, {"U16", 2}, {"I8", 1},   {"U8", 1},  {"BOOL", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}};

void shape_format(char *text, size_t size, const size_t *shape, size_t rank)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%zu", i > 0 ? ", " : "", shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

/* A JSON number that is a whole number a double holds exactly. */
static bool exact_size(const cJSON *item, size_t *value)
{
    if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > 9007199254740992.0 ||
        item->valuedouble != floor(item->valuedouble))
        return false;
    *value = (size_t)item->valuedouble;
    return true;
}

static vit_status read_shape(struct tensor *tensor, const cJSON *shape, const char *path, vit_error *err)
{
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) > TENSOR_MAX_RANK)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': \"shape\" must be a list of at most %d sizes", path,
                             tensor->name, TENSOR_MAX_RANK);
    tensor->count = 1;
    const cJSON *item;
    cJSON_ArrayForEach(item, shape) {
        size_t *size = &tensor->shape[tensor->rank];
        if (!exact_size(item, size) || !size_multiply(tensor->count, *size, &tensor->count))
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': size %zu of its \"shape\" is out of range", path,
                                 tensor->name, tensor->rank);
        tensor->rank++;
    }
    return VIT_OK;
}

static vit_status read_dtype(struct tensor *tensor, const cJSON *dtype, const char *path, vit_error *err)
{
    for (size_t i = 0; cJSON_IsString(dtype) && i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtype->valuestring, dtypes[i].name) != 0)
            continue;
        tensor->dtype = dtypes[i].name;
        if (!size_multiply(tensor->count, dtypes[i].bytes, &tensor->bytes))
            break;
        return VIT_OK;
    }
    return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': \"dtype\" %.20s is unknown or its size overflows", path,
                         tensor->name, cJSON_IsString(dtype) ? dtype->valuestring : "(not a string)");
}

/* Reads one entry of the header. data is the first byte after the header, of `available` bytes. */
static vit_status read_entry(struct tensor *tensor, const cJSON *entry, const uint8_t *data, size_t available,
                             const char *path, vit_error *err)
{
    if (!cJSON_IsObject(entry))
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': an object was expected", path, tensor->name);
    vit_status status = read_shape(tensor, json_get(entry, "shape"), path, err);
    if (status == VIT_OK)
        status = read_dtype(tensor, json_get(entry, "dtype"), path, err);
    if (status != VIT_OK)
        return status;

    const cJSON *offsets = json_get(entry, "data_offsets");
    size_t begin, end;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !exact_size(offsets->child, &begin) ||
        !exact_size(offsets->child->next, &end) || begin > end)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': \"data_offsets\" must be [begin, end]", path,
                             tensor->name);
    if (end > available)
        return vit_error_set(err, VIT_ERR_FORMAT,
                             "%s: tensor '%s': \"data_offsets\" end at %zu, and there are %zu bytes of data: is the file "
                             "all there?", path, tensor->name, end, available);
    if (end - begin != tensor->bytes) {
        char shape[128];
        shape_format(shape, sizeof shape, tensor->shape, tensor->rank);
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s': %s %s takes %zu bytes, its \"data_offsets\" hold %zu",
                             path, tensor->name, tensor->dtype, shape, tensor->bytes, end - begin);
    }
    tensor->data = data + begin;
    return VIT_OK;
}

static struct tensor *append(struct tensors *tensors, const char *name)
{
    if (tensors->count == tensors->capacity) {
        size_t capacity = tensors->capacity == 0 ? 256 : 2 * tensors->capacity;
        struct tensor *items = realloc(tensors->items, capacity * sizeof *items);
        if (items == NULL)
            return NULL;
        tensors->items = items;
        tensors->capacity = capacity;
    }
    struct tensor *tensor = &tensors->items[tensors->count];
    *tensor = (struct tensor){.name = strdup(name)};
    if (tensor->name == NULL)
        return NULL;
    tensors->count++;
    return tensor;
}

static int by_address(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* The tensors of one file must cover its data exactly, each byte once. */
static vit_status check_coverage(struct tensor *items, size_t count, const uint8_t *data, size_t available,
                                 const char *path, vit_error *err)
{
    qsort(items, count, sizeof *items, by_address);
    const uint8_t *next = data;
    for (size_t i = 0; i < count; i++) {
        if (items[i].data != next)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s' %s", path, items[i].name,
                                 items[i].data < next ? "overlaps another tensor" : "is preceded by unused bytes");
        next += items[i].bytes;
    }
    if ((size_t)(next - data) != available)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: %zu bytes after the last tensor belong to none", path,
                             available - (size_t)(next - data));
    return VIT_OK;
}

static vit_status read_header(struct tensors *tensors, const uint8_t *file, size_t length, const char *path,
                              vit_error *err)
{
    uint64_t header_length = 0;
    if (length >= LENGTH_BYTES)
        for (int i = LENGTH_BYTES - 1; i >= 0; i--)
            header_length = header_length << 8 | file[i];
    if (length < LENGTH_BYTES || header_length > length - LENGTH_BYTES || header_length > HEADER_MAX_BYTES)
        return vit_error_set(err, VIT_ERR_FORMAT,
                             "%s: is not a complete safetensors file: %zu bytes, a header of %llu announced", path,
                             length, (unsigned long long)header_length);

    const char *text = (const char *)file + LENGTH_BYTES;
    const char *end = NULL;
    cJSON *header = cJSON_ParseWithLengthOpts(text, (size_t)header_length, &end, 0);
    const char *rest = end;
    while (header != NULL && rest < text + header_length && *rest == ' ')
        rest++; /* the format allows padding by spaces, and nothing else, after the object */
    if (!cJSON_IsObject(header) || rest != text + header_length) {
        cJSON_Delete(header);
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: the safetensors header is not one JSON object", path);
    }

    const uint8_t *data = file + LENGTH_BYTES + header_length;
    size_t available = length - LENGTH_BYTES - (size_t)header_length, first = tensors->count;
    vit_status status = VIT_OK;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, header) {
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        struct tensor *tensor = append(tensors, entry->string);
        status = tensor == NULL ? vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory for its header", path)
                                : read_entry(tensor, entry, data, available, path, err);
        if (status != VIT_OK)
            break;
    }
    cJSON_Delete(header);
    if (status != VIT_OK || tensors->count == first)
        return status == VIT_OK ? vit_error_set(err, VIT_ERR_FORMAT, "%s: holds no tensor", path) : status;
    return check_coverage(tensors->items + first, tensors->count - first, data, available, path, err);
}

static vit_status map_file(struct tensors *tensors, const char *path, vit_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return vit_error_set(err, VIT_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: is not a regular file with bytes in it", path);
    }
    void *address = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int map_errno = errno;
    close(fd);
    if (address == MAP_FAILED)
        return vit_error_set(err, VIT_ERR_IO, "%s: cannot be mapped: %s", path, strerror(map_errno));

    struct mapping *mappings = realloc(tensors->mappings, (tensors->mapping_count + 1) * sizeof *mappings);
    if (mappings == NULL) {
        munmap(address, (size_t)st.st_size);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory to map it", path);
    }
    tensors->mappings = mappings;
    tensors->mappings[tensors->mapping_count++] = (struct mapping){address, (size_t)st.st_size};
    return read_header(tensors, address, (size_t)st.st_size, path, err);
}

/* A shard's name comes from a file: it must stay inside the folder. */
static bool plain_file_name(const cJSON *item)
{
    return cJSON_IsString(item) && item->valuestring[0] != '\0' && item->valuestring[0] != '.' &&
           strchr(item->valuestring, '/') == NULL && strlen(item->valuestring) < 256;
}

static vit_status map_shards(struct tensors *tensors, const cJSON *index, const char *folder, vit_error *err)
{
    const cJSON *map = json_get(index, "weight_map"), *entry, *earlier;
    if (!cJSON_IsObject(map) || map->child == NULL)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s/model.safetensors.index.json: \"weight_map\" is missing", folder);
    cJSON_ArrayForEach(entry, map) {
        if (!plain_file_name(entry))
            return vit_error_set(err, VIT_ERR_FORMAT,
                                 "%s/model.safetensors.index.json: tensor '%s' must name a file of the folder", folder,
                                 entry->string);
        for (earlier = map->child; earlier != entry; earlier = earlier->next)
            if (strcmp(earlier->valuestring, entry->valuestring) == 0)
                break;
        if (earlier != entry)
            continue;
        if (tensors->mapping_count == SHARDS_MAX)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: has more than %d shards", folder, SHARDS_MAX);
        char path[PATH_MAX_BYTES];
        snprintf(path, sizeof path, "%s/%s", folder, entry->valuestring);
        vit_status status = map_file(tensors, path, err);
        if (status != VIT_OK)
            return status;
    }
    return VIT_OK;
}

/* After sorting by name: no name twice. */
static vit_status check_names(const struct tensors *tensors, const char *folder, vit_error *err)
{
    for (size_t i = 1; i < tensors->count; i++)
        if (strcmp(tensors->items[i - 1].name, tensors->items[i].name) == 0)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: tensor '%s' is there twice", folder, tensors->items[i].name);
    return VIT_OK;
}

static vit_status open_files(struct tensors *tensors, const char *folder, vit_error *err)
{
    char path[PATH_MAX_BYTES], index_path[PATH_MAX_BYTES];
    int n = snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (n < 0 || (size_t)n + 300 > sizeof path)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "the model folder's path is too long");
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", folder);
    if (access(path, F_OK) == 0)
        return map_file(tensors, path, err);
    if (access(index_path, F_OK) != 0)
        return vit_error_set(err, VIT_ERR_IO, "%s: %s (weights in other formats have to be saved as safetensors)", path,
                             strerror(errno));
    cJSON *index = NULL;
    vit_status status = json_load(&index, index_path, err);
    if (status == VIT_OK)
        status = map_shards(tensors, index, folder, err);
    cJSON_Delete(index);
    return status;
}

vit_status tensors_open(struct tensors *tensors, const char *folder, vit_error *err)
{
    struct tensors opened = {0};
    vit_status status = open_files(&opened, folder, err);
    if (status == VIT_OK) {
        qsort(opened.items, opened.count, sizeof *opened.items, by_name);
        status = check_names(&opened, folder, err);
    }
    if (status != VIT_OK) {
        tensors_release(&opened);
        return status;
    }
    *tensors = opened;
    return VIT_OK;
}

void tensors_release(struct tensors *tensors)
{
    for (size_t i = 0; i < tensors->count; i++)
        free(tensors->items[i].name);
    free(tensors->items);
    for (size_t i = 0; i < tensors->mapping_count; i++)
        munmap(tensors->mappings[i].address, tensors->mappings[i].length);
    free(tensors->mappings);
    *tensors = (struct tensors){0};
}

void tensors_forget_pages(const struct tensors *tensors)
{
    for (size_t i = 0; i < tensors->mapping_count; i++)
        madvise(tensors->mappings[i].address, tensors->mappings[i].length, MADV_DONTNEED);
}

const struct tensor *tensors_find(const struct tensors *tensors, const char *name)
{
    size_t low = 0, high = tensors->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, tensors->items[middle].name);
        if (order == 0)
            return &tensors->items[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/*
 * multipart.c - finds the files in a form.
 *
 *     preamble  CRLF--boundary CRLF  headers CRLF CRLF  content  CRLF--boundary ...  CRLF--boundary--  epilogue
 *
 * The CRLF before a delimiter belongs to it (the very first may lack it), spaces and tabs may follow it. Bytes that
 * look like a delimiter but go on with something else are content.
 */
#include "server/http/multipart.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct slice {
    const uint8_t *at, *end;
};

/* ---- header values: token; name=token; name="quoted" ---- */

static bool is_token_char(int c)
{
    return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_boundary_char(int c)
{
    return isalnum(c) || (c && strchr("'()+_,-./:=? ", c));
}

static const char *skip_blank(const char *text, const char *end)
{
    while (text < end && (*text == ' ' || *text == '\t'))
        text++;
    return text;
}

struct parameter {
    const char *name;
    size_t name_length;
    char value[256]; /* unquoted; cut if longer */
    size_t value_length; /* before the cut */
};

/* Reads a quoted string or a token; NULL when it is neither. */
static const char *read_value(const char *at, const char *end, struct parameter *parameter)
{
    size_t length = 0;
    bool quoted = at < end && *at == '"';
    at += quoted;
    while (at < end && (quoted ? *at != '"' : is_token_char((unsigned char)*at) || strchr("/:=?@()[]", *at))) {
        if (quoted && *at == '\\' && at + 1 < end)
            at++;
        if (length < sizeof parameter->value - 1)
            parameter->value[length] = *at;
        length++;
        at++;
    }
    parameter->value[length < sizeof parameter->value ? length : sizeof parameter->value - 1] = '\0';
    parameter->value_length = length;
    if (quoted && at == end)
        return NULL;
    return at + quoted;
}

/* The next "; name=value" at *at; false at the end or at what cannot be read. */
static bool next_parameter(const char **at, const char *end, struct parameter *parameter)
{
    const char *text = skip_blank(*at, end);
    while (text < end && *text == ';')
        text = skip_blank(text + 1, end);
    parameter->name = text;
    while (text < end && is_token_char((unsigned char)*text))
        text++;
    parameter->name_length = (size_t)(text - parameter->name);
    text = skip_blank(text, end);
    if (!parameter->name_length || text == end || *text != '=')
        return false;
    text = read_value(skip_blank(text + 1, end), end, parameter);
    if (!text)
        return false;
    *at = text;
    return true;
}

static bool name_is(const struct parameter *parameter, const char *name)
{
    return parameter->name_length == strlen(name) && strncasecmp(parameter->name, name, parameter->name_length) == 0;
}

enum multipart_kind multipart_boundary(const char *content_type, char boundary[MULTIPART_MAX_BOUNDARY + 1])
{
    static const char type[] = "multipart/form-data";
    if (!content_type)
        return MULTIPART_NONE;
    const char *end = content_type + strlen(content_type), *at = skip_blank(content_type, end);
    if (strncasecmp(at, type, sizeof type - 1) != 0)
        return MULTIPART_NONE;
    at = skip_blank(at + sizeof type - 1, end);
    if (at < end && *at != ';')
        return MULTIPART_NONE;
    for (struct parameter parameter; next_parameter(&at, end, &parameter);) {
        size_t length = parameter.value_length;
        if (!name_is(&parameter, "boundary"))
            continue;
        if (length < 1 || length > MULTIPART_MAX_BOUNDARY || parameter.value[length - 1] == ' ')
            return MULTIPART_INVALID;
        for (size_t i = 0; i < length; i++)
            if (!is_boundary_char((unsigned char)parameter.value[i]))
                return MULTIPART_INVALID;
        memcpy(boundary, parameter.value, length + 1);
        return MULTIPART_FORM;
    }
    return MULTIPART_INVALID;
}

/* ---- part headers ---- */

struct part_header {
    bool filename, named_file; /* a filename is given; it is not empty */
    bool image_type;
    bool labels; /* its name is "labels" */
};

static bool starts_with(const char *text, const char *end, const char *prefix)
{
    size_t length = strlen(prefix);
    return (size_t)(end - text) >= length && strncasecmp(text, prefix, length) == 0;
}

static void read_header_line(const char *line, const char *end, struct part_header *header)
{
    const char *colon = memchr(line, ':', (size_t)(end - line));
    if (!colon)
        return;
    const char *name_end = colon, *value = skip_blank(colon + 1, end);
    while (name_end > line && (name_end[-1] == ' ' || name_end[-1] == '\t'))
        name_end--;
    size_t name_length = (size_t)(name_end - line);
    if (name_length == strlen("Content-Type") && strncasecmp(line, "Content-Type", name_length) == 0)
        header->image_type =
            starts_with(value, end, "image/") || starts_with(value, end, "application/octet-stream");
    if (name_length != strlen("Content-Disposition") || strncasecmp(line, "Content-Disposition", name_length) != 0)
        return;
    while (value < end && *value != ';')
        value++;
    for (struct parameter parameter; next_parameter(&value, end, &parameter);) {
        if (name_is(&parameter, "filename") || name_is(&parameter, "filename*")) {
            header->filename = true;
            header->named_file |= parameter.value_length > 0;
        }
        if (name_is(&parameter, "name"))
            header->labels = parameter.value_length == 6 && memcmp(parameter.value, "labels", 6) == 0;
    }
}

static const uint8_t *find_crlf(struct slice in)
{
    return in.at < in.end ? memmem(in.at, (size_t)(in.end - in.at), "\r\n", 2) : NULL;
}

/* Reads header lines to the blank one; returns where the content starts, or NULL. */
static const uint8_t *read_part_header(struct slice part, struct part_header *header, const char **why)
{
    *header = (struct part_header){0};
    struct slice in = part;
    if (in.end - in.at > MULTIPART_MAX_PART_HEADER)
        in.end = in.at + MULTIPART_MAX_PART_HEADER;
    for (;;) {
        const uint8_t *line_end = find_crlf(in);
        if (!line_end) {
            *why = in.end == part.end ? "a part's header does not end with an empty line"
                                      : "a part's header is longer than 8192 bytes";
            return NULL;
        }
        if (line_end == in.at)
            return line_end + 2;
        read_header_line((const char *)in.at, (const char *)line_end, header);
        in.at = line_end + 2;
    }
}

/* ---- the body ---- */

struct delimiter {
    char text[4 + MULTIPART_MAX_BOUNDARY + 1]; /* CRLF--boundary */
    size_t length;
};

/* What follows a delimiter: the next part (after), the end of the form, or neither (then it was content). */
enum follows { FOLLOWS_PART, FOLLOWS_END, FOLLOWS_NOTHING };

static enum follows what_follows(struct slice in, const uint8_t **after)
{
    if (in.end - in.at >= 2 && in.at[0] == '-' && in.at[1] == '-')
        return FOLLOWS_END;
    while (in.at < in.end && (*in.at == ' ' || *in.at == '\t'))
        in.at++;
    if (in.end - in.at < 2 || in.at[0] != '\r' || in.at[1] != '\n')
        return FOLLOWS_NOTHING;
    *after = in.at + 2;
    return FOLLOWS_PART;
}

/* The next true delimiter at or after in.at; *found is where it starts. FOLLOWS_NOTHING: there is none. */
static enum follows find_delimiter(struct slice in, const struct delimiter *delimiter, const uint8_t **found,
                                   const uint8_t **after)
{
    while (in.at < in.end) {
        const uint8_t *at = memmem(in.at, (size_t)(in.end - in.at), delimiter->text, delimiter->length);
        if (!at)
            break;
        enum follows follows = what_follows((struct slice){at + delimiter->length, in.end}, after);
        if (follows != FOLLOWS_NOTHING) {
            *found = at;
            return follows;
        }
        in.at = at + 2;
    }
    return FOLLOWS_NOTHING;
}

/* The first delimiter may open the body, without a CRLF before it. */
static enum follows find_first(struct slice in, const struct delimiter *delimiter, const uint8_t **after)
{
    const uint8_t *found;
    size_t length = delimiter->length - 2;
    if ((size_t)(in.end - in.at) >= length && memcmp(in.at, delimiter->text + 2, length) == 0) {
        enum follows follows = what_follows((struct slice){in.at + length, in.end}, after);
        if (follows != FOLLOWS_NOTHING)
            return follows;
    }
    return find_delimiter(in, delimiter, &found, after);
}

enum multipart_result multipart_files(const uint8_t *body, size_t length, const char *boundary,
                                      struct multipart_file *files, size_t max_files, size_t *count,
                                      struct multipart_file *labels, const char **why)
{
    struct delimiter delimiter = {.text = "\r\n--"};
    delimiter.length = 4 + strlen(boundary);
    memcpy(delimiter.text + 4, boundary, strlen(boundary) + 1);
    struct slice in = {body, body + length};
    *count = 0;
    *labels = (struct multipart_file){0};

    enum follows follows = length ? find_first(in, &delimiter, &in.at) : FOLLOWS_NOTHING;
    if (follows == FOLLOWS_NOTHING) {
        *why = "the boundary of the Content-Type header does not occur in the body";
        return MULTIPART_MALFORMED;
    }
    while (follows == FOLLOWS_PART) {
        struct part_header header;
        const uint8_t *content = read_part_header(in, &header, why), *content_end = NULL;
        if (!content)
            return MULTIPART_MALFORMED;
        /* an empty part's delimiter shares its CRLF with the empty line before it */
        follows = find_delimiter((struct slice){content - 2, in.end}, &delimiter, &content_end, &in.at);
        if (follows == FOLLOWS_NOTHING) {
            *why = "the final boundary is missing: the body is cut off";
            return MULTIPART_MALFORMED;
        }
        size_t size = content_end > content ? (size_t)(content_end - content) : 0;
        const bool is_labels = header.labels && !header.filename && !header.image_type;
        if (is_labels && labels->bytes) {
            *why = "there are two fields \"labels\", allowed is one with a label on each line";
            return MULTIPART_MALFORMED;
        }
        if (is_labels)
            *labels = (struct multipart_file){content, size};
        if (!(header.filename || header.image_type) || (header.filename && !header.named_file && !size))
            continue;
        if (*count == max_files)
            return MULTIPART_TOO_MANY;
        files[(*count)++] = (struct multipart_file){content, size};
    }
    return MULTIPART_OK;
}

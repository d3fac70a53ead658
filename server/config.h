/*
 * config.h - the daemon's configuration: defaults, then the JSON file, then the command line.
 *
 * One table in config.c names every key with its bounds and its default; loading (config_file.c), --check-config,
 * command line options and the error messages all read that table. Strings are owned by the struct.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum dtype { DTYPE_FP32, DTYPE_BF16, DTYPE_INT8, DTYPE_AUTO }; /* vit_dtype, and which this CPU is to choose */

struct config_model {
    char *name; /* [A-Za-z0-9._-]{1,64}, unique; by default the folder's last component */
    char *path; /* relative paths in a file are taken from the file's folder */
    int dtype;
    int image_size; /* side of the square input; 0: the folder's own */
    int draft;      /* 1: big JPEGs are decoded smaller; 0: as Pillow does */
};

/* A model as it is written; what may be NULL falls back to the folder's last component and to the configuration. */
struct config_model_text {
    const char *name; /* or NULL */
    const char *path;
    const char *dtype, *image_size, *draft; /* or NULL */
};

struct config {
    struct {
        char *address; /* numeric IPv4 or IPv6 */
        int port;      /* 0: any free port */
    } listen;
    struct config_model *models;
    size_t model_count;
    int threads; /* 0: as many as the CPUs this process may use */
    int dtype, image_size, draft; /* for models that do not say */
    struct {
        int max_batch_size;
        int max_queue_delay_us;
        int max_queue_size; /* images waiting, over all models */
        int request_timeout_ms;
    } batching;
    struct {
        int max_body_bytes;
        int max_pixels;
        int max_connections;
        int max_images_per_request;
        int header_timeout_ms; /* from a request's first byte to a complete header; and to be idle */
        int body_timeout_ms;   /* from the header to the last byte of the body */
    } limits;
    struct {
        int level;  /* enum log_level */
        int format; /* enum log_format */
    } log;
};

enum { CONFIG_MAX_MODELS = 256, CONFIG_MAX_NAME = 64 };

struct config_error {
    char message[512]; /* "vitd.json:12: batching.max_batch_size: found 0, allowed is 1 to 256" */
};

/* Fills in every default; no models. */
void config_init(struct config *config);
void config_release(struct config *config);

/* Reads the file over what is in *config (models given in the file replace those there). JSON with // and block
 * comments. An unknown or duplicate key, a wrong type or a value out of range is an error naming the file, the line,
 * the key and what is allowed; *config is then unchanged. */
bool config_load(struct config *config, const char *path, struct config_error *error);

/* Sets one scalar key, e.g. ("listen.port", "8080"). The message of an error, "found 70000, allowed is 0 to 65535",
 * leaves it to the caller to say where the value came from. */
bool config_set(struct config *config, const char *key, const char *value, struct config_error *error);

/* Appends a model; spec is "DIR" or "NAME=DIR". */
bool config_add_model(struct config *config, const char *spec, struct config_error *error);
/* The same from its parts. */
bool config_put_model(struct config *config, const struct config_model_text *text, struct config_error *error);
void config_clear_models(struct config *config);

enum config_type { CONFIG_STRING, CONFIG_NUMBER, CONFIG_BOOLEAN };

/* A scalar key as the table has it. */
struct config_key {
    const char *name;    /* "listen.port" */
    enum config_type type;
    char allowed[80];    /* "0 to 65535" */
    char value[64];      /* in the configuration asked about, as config_set() takes it */
};
/* The i-th key of the table; false past the last. */
bool config_describe(const struct config *config, size_t i, struct config_key *key);

/* Number of CPUs this process may use: affinity mask and cgroup v2/v1 quota (rounded up), at least 1. cpus.c. */
int config_cpu_count(void);

#endif

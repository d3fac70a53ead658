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
    char *name; /* [A-Za-z0-9._-]{1,64}; by default the folder's last component */
    char *path; /* relative paths in a file are taken from the file's folder */
    int version; /* 0: none is given. Models of one name have different ones */
    int dtype;
    int image_size; /* side of the square input; 0: the folder's own */
    int draft;      /* 1: big JPEGs are decoded smaller; 0: as Pillow does */
    int max_batch_size, max_queue_delay_us;
    int lazy;       /* 1: opened for the first request that needs it */
    char *labels;   /* of a model with a text tower: its classes, separated by line feeds; "": each request's own */
    char *template; /* what the tower reads of a label, {} standing for it; "": the label */
};

struct config {
    struct {
        char *address; /* numeric IPv4 or IPv6 */
        int port;      /* 0: any free port */
        char *socket;  /* path of a Unix socket beside it; "": none */
    } listen;
    struct {
        char *certificate, *key; /* paths of PEM files; "": no TLS */
    } tls;
    struct config_model *models;
    size_t model_count;
    long long model_memory_bytes; /* for models in memory; 0: no bound */
    int threads; /* 0: as many as the CPUs this process may use */
    int dtype, image_size, draft; /* for models that do not say */
    struct {
        int max_batch_size, max_queue_delay_us; /* for models that do not say */
        int max_queue_size;        /* images waiting, over all models */
        long long max_queue_bytes; /* of uploads that are being read or wait */
        int request_timeout_ms;
    } batching;
    struct {
        int max_body_bytes;
        int max_pixels;
        int max_connections;
        int max_connections_per_address; /* 0: no bound */
        int max_images_per_request;
        int max_texts_per_request;
        int header_timeout_ms; /* from a request's first byte to a complete header; and to be idle */
        int body_timeout_ms;   /* from the header to the last byte of the body */
    } limits;
    struct {
        char *keys;         /* path of the file of bearer keys; "": everyone may do everything but admin */
        int admin;          /* 1: models may be loaded and unloaded over HTTP */
        char *cors_origins; /* separated by line feeds */
    } access;
    struct {
        long long max_bytes; /* of replies kept; 0: none */
        long long max_text_bytes; /* of texts' embeddings kept; 0: none */
    } cache;
    int drain_delay_ms;   /* from SIGTERM, or SIGINT, until no connection is accepted any more */
    int drain_timeout_ms; /* and from then until what is left is cut */
    struct {
        int level;  /* enum log_level */
        int format; /* enum log_format */
        int access; /* 1: a line for each request */
    } log;
};

enum { CONFIG_MAX_MODELS = 256, CONFIG_MAX_NAME = 64, CONFIG_MAX_BATCH = 256 };

struct config_error {
    char message[512]; /* "vitd.json:12: batching.max_batch_size: found 0, allowed is 1 to 256" */
};

/* Fills in every default; no models. */
void config_init(struct config *config);
void config_release(struct config *config);
/* *copy is fresh, to be released. */
void config_copy(struct config *copy, const struct config *config);

/* Reads the file over what is in *config (models given in the file replace those there). JSON with // and block
 * comments. An unknown or duplicate key, a wrong type or a value out of range is an error naming the file, the line,
 * the key and what is allowed; *config is then unchanged. */
bool config_load(struct config *config, const char *path, struct config_error *error);

/* Sets one scalar key, e.g. ("listen.port", "8080"). The message of an error, "found 70000, allowed is 0 to 65535",
 * leaves it to the caller to say where the value came from. */
bool config_set(struct config *config, const char *key, const char *value, struct config_error *error);

/* Appends a model; spec is "DIR" or "NAME=DIR". */
bool config_add_model(struct config *config, const char *spec, struct config_error *error);
void config_clear_models(struct config *config);
/* Where no model is named, the highest version of the first name is meant. There must be a model. */
const struct config_model *config_default_model(const struct config *config);

/* The same step by step: with what the configuration has for models that do not say; then key by key, as config_set();
 * then appended, which takes *model over. Whatever fails, *model is to be released. */
void config_model_init(struct config_model *model, const struct config *config);
bool config_model_set(struct config_model *model, const char *key, const char *value, struct config_error *error);
bool config_append_model(struct config *config, struct config_model *model, struct config_error *error);
void config_model_release(struct config_model *model);
/* *copy is fresh. */
void config_model_copy(struct config_model *copy, const struct config_model *model);
/* Whether nothing but the name tells them apart. */
bool config_model_equal(const struct config_model *a, const struct config_model *b);

enum config_type { CONFIG_STRING, CONFIG_NUMBER, CONFIG_BOOLEAN, CONFIG_PATH, CONFIG_LIST };

/* A scalar key as the table has it. */
struct config_key {
    const char *name;    /* "listen.port" */
    enum config_type type;
    bool restart;        /* a change takes effect at the next start only */
    char allowed[80];    /* "0 to 65535" */
    char value[256];     /* in the configuration asked about, as config_set() takes it (longer ones cut) */
};
/* The i-th key of the table; false past the last. */
bool config_describe(const struct config *config, size_t i, struct config_key *key);
/* The i-th key of a model; the value is not given. */
bool config_describe_model(size_t i, struct config_key *key);

/* Number of CPUs this process may use: affinity mask and cgroup v2/v1 quota (rounded up), at least 1. cpus.c. */
int config_cpu_count(void);

#endif

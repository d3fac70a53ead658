/*
 * cli.c - the command line. Two tables, the commands and the options; an option overrides the configuration file
 * wherever it stands, so options are collected first and applied after the file.
 */
#include "server/cli.h"

#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/http/http.h"
#include "server/log.h"
#include "server/settings.h"

#ifndef VITD_VERSION
#define VITD_VERSION "unknown"
#endif
#define BUNDLED_MODEL "vit-tiny-64"

/* ---- tables ---- */

enum option_id {
    OPTION_CONFIG, OPTION_MODEL, OPTION_ADDRESS, OPTION_PORT, OPTION_THREADS, OPTION_DTYPE, OPTION_IMAGE_SIZE, OPTION_DRAFT,
    OPTION_TOP_K, OPTION_LABELS, OPTION_TEMPLATE, OPTION_IMAGE, OPTION_ATTENTION, OPTION_LAYER, OPTION_LAYERS, OPTION_HEAD,
    OPTION_TARGET, OPTION_COLORMAP, OPTION_ALPHA, OPTION_OVERLAY, OPTION_SIZE, OPTION_OUTPUT, OPTION_JSON,
    OPTION_CHECK_CONFIG, OPTION_VERSION, OPTION_HELP, OPTIONS
};

struct option_row {
    const char *name;
    int has_argument;
    const char *key; /* of the configuration, for those that set one; without an argument, to true */
    const struct parameter *parameter; /* of parameters.h, for those that choose as a query does */
};
static const struct option_row option_table[OPTIONS] = {
    [OPTION_CONFIG] = {"config", required_argument, NULL, NULL},
    [OPTION_MODEL] = {"model", required_argument, NULL, NULL},
    [OPTION_ADDRESS] = {"address", required_argument, "listen.address", NULL},
    [OPTION_PORT] = {"port", required_argument, "listen.port", NULL},
    [OPTION_THREADS] = {"threads", required_argument, "threads", NULL},
    [OPTION_DTYPE] = {"dtype", required_argument, "dtype", NULL},
    [OPTION_IMAGE_SIZE] = {"image-size", required_argument, "image_size", NULL},
    [OPTION_DRAFT] = {"draft", no_argument, "draft", NULL},
    [OPTION_TOP_K] = {"top-k", required_argument, NULL, &parameters[PARAMETER_TOP_K]},
    [OPTION_LABELS] = {"labels", required_argument, NULL, &parameters[PARAMETER_LABELS]},
    [OPTION_TEMPLATE] = {"template", required_argument, NULL, &parameters[PARAMETER_TEMPLATE]},
    [OPTION_IMAGE] = {"image", required_argument, NULL, NULL},
    [OPTION_ATTENTION] = {"attention", required_argument, NULL, &parameters[PARAMETER_ATTENTION]},
    [OPTION_LAYER] = {"layer", required_argument, NULL, &parameters[PARAMETER_LAYER]},
    [OPTION_LAYERS] = {"layers", required_argument, NULL, &parameters[PARAMETER_LAYERS]},
    [OPTION_HEAD] = {"head", required_argument, NULL, &parameters[PARAMETER_HEAD]},
    [OPTION_TARGET] = {"target", required_argument, NULL, &parameters[PARAMETER_TARGET]},
    [OPTION_COLORMAP] = {"colormap", required_argument, NULL, &parameters[PARAMETER_COLORMAP]},
    [OPTION_ALPHA] = {"alpha", required_argument, NULL, &parameters[PARAMETER_ALPHA]},
    [OPTION_OVERLAY] = {"overlay", required_argument, NULL, &parameters[PARAMETER_OVERLAY]},
    [OPTION_SIZE] = {"size", required_argument, NULL, &parameters[PARAMETER_SIZE]},
    [OPTION_OUTPUT] = {"output", required_argument, NULL, NULL},
    [OPTION_JSON] = {"json", required_argument, NULL, NULL},
    [OPTION_CHECK_CONFIG] = {"check-config", required_argument, NULL, NULL},
    [OPTION_VERSION] = {"version", no_argument, NULL, NULL},
    [OPTION_HELP] = {"help", no_argument, NULL, NULL},
};

#define BIT(id) (1u << OPTION_##id)
#define EXPLAIN_OPTIONS                                                                                     \
    (BIT(ATTENTION) | BIT(LAYER) | BIT(LAYERS) | BIT(HEAD) | BIT(TARGET) | BIT(COLORMAP) | BIT(ALPHA) |     \
     BIT(OVERLAY) | BIT(SIZE) | BIT(OUTPUT))
#define COMMON_OPTIONS (BIT(CONFIG) | BIT(MODEL) | BIT(DTYPE) | BIT(IMAGE_SIZE) | BIT(DRAFT) | BIT(HELP))

struct command {
    const char *name;
    int (*run)(const struct cli *cli);
    unsigned options; /* BIT()s */
    size_t min_operands, max_operands;
    const char *operand; /* what they are, for messages */
    size_t max_models;   /* 0: needs none */
    const char *help;
};

static const char general_help[] =
    "vitd " VITD_VERSION ", a Vision Transformer inference daemon\n"
    "\n"
    "usage: vitd [serve] [OPTION]...           answer HTTP requests\n"
    "       vitd classify [OPTION]... IMAGE... classify files, without a server\n"
    "       vitd inspect DIR                   what a model folder holds, and whether vitd can run it\n"
    "       vitd bench [OPTION]...             speed of the engine on this machine\n"
    "       vitd --check-config FILE           check a configuration file\n"
    "       vitd --version | --help\n"
    "\n"
    "vitd COMMAND --help lists a command's options; vitd(8) is the manual.\n";

#define MODEL_HELP \
    "  --model DIR         the model folder (default: the configured one, else the bundled one)\n"
#define CONFIG_HELP "  --config FILE       read a configuration file; options override it\n"
#define DTYPE_HELP \
    "  --dtype D           arithmetic: fp32 (default), bf16, int8, or auto for the fastest with the top classes of fp32\n"
#define IMAGE_SIZE_HELP "  --image-size N      side of the square input; 0 for the model's own (default 0)\n"
#define DRAFT_HELP \
    "  --draft             decode big JPEGs at 1/2, 1/4 or 1/8: faster, and close to the exact pixels\n"
#define HELP_HELP "  --help              show this\n"

static const char serve_help[] =
    "usage: vitd [serve] [OPTION]...\n"
    "\n"
    "Answers POST /classify and other requests over HTTP until SIGTERM or SIGINT.\n"
    "\n" CONFIG_HELP
    "  --model [NAME=]DIR  serve this model folder; may be repeated, the first is the default model\n"
    "                      (default: the configured models, else the bundled one)\n"
    "  --address ADDRESS   numeric address to listen on (default 127.0.0.1)\n"
    "  --port N            port to listen on, 0 for any free one (default 8080)\n"
    "  --threads N         worker threads, 0 for one per CPU this process may use (default 0)\n" DTYPE_HELP IMAGE_SIZE_HELP
    DRAFT_HELP HELP_HELP;

static const char classify_help[] =
    "usage: vitd classify [OPTION]... IMAGE...\n"
    "\n"
    "Prints the most probable classes of each image file (- is standard input).\n"
    "Exits with 1 if any image could not be classified.\n"
    "\n" MODEL_HELP "  --top-k N           classes per image, 0 for all (default 5)\n"
    "  --labels TEXTS      the classes of a model with a text tower, such as CLIP: any texts, separated by commas\n"
    "  --template TEXT     what the text tower reads of each, {} standing for it: \"a photo of {}\" (default {})\n"
    "  --attention METHOD  raw, rollout or legrad: draw where the model looked in the image\n"
    "  --output FILE       where that picture goes, as a PNG\n"
    "  --target CLASSES    legrad: classes by index or label, separated by commas (default: the top class);\n"
    "                      with a text tower any texts (default: the labels)\n"
    "  --layers N          legrad: add up the last N layers only (default all)\n"
    "  --layer N|all       raw: a layer, from 0 (default: the last); legrad: one layer's own map\n"
    "  --head N|mean|all   raw: a head, from 0 (default mean)\n"
    "  --colormap NAME     viridis or turbo (default viridis)\n"
    "  --alpha X           the map's opacity, 0 to 1 (default 0.5)\n"
    "  --overlay BOOLEAN   false: the map alone (default true)\n"
    "  --size SIZE         model: as the model sees the picture; original: as it is (default model)\n" CONFIG_HELP
    DTYPE_HELP IMAGE_SIZE_HELP DRAFT_HELP HELP_HELP;

static const char inspect_help[] =
    "usage: vitd inspect [OPTION]... DIR\n"
    "\n"
    "Prints what the model folder holds. Exits with 1, and the reason, if vitd cannot run it.\n"
    "\n" DTYPE_HELP IMAGE_SIZE_HELP HELP_HELP;

static const char bench_help[] =
    "usage: vitd bench [OPTION]...\n"
    "\n"
    "Measures the engine on this machine: the most that the machine can do, and in each arithmetic\n"
    "that its CPU has instructions for the time per image, by stage, and the share of that most.\n"
    "\n" MODEL_HELP "  --image FILE        also measure decode + preprocess + forward on this image\n"
    "  --json FILE         write the figures as JSON, too\n"
    "  --threads N         most threads to measure, 0 for one per usable CPU (default 0)\n"
    "  --dtype D           measure this arithmetic alone: fp32, bf16, int8 or auto\n" CONFIG_HELP IMAGE_SIZE_HELP DRAFT_HELP
    HELP_HELP;

static const struct command commands[] = {
    {"serve", command_serve, COMMON_OPTIONS | BIT(ADDRESS) | BIT(PORT) | BIT(THREADS), 0, 0, NULL, CONFIG_MAX_MODELS,
     serve_help},
    {"classify", command_classify, COMMON_OPTIONS | BIT(TOP_K) | BIT(LABELS) | BIT(TEMPLATE) | EXPLAIN_OPTIONS, 1, SIZE_MAX,
     "IMAGE", 1, classify_help},
    {"inspect", command_inspect, BIT(DTYPE) | BIT(IMAGE_SIZE) | BIT(HELP), 1, 1, "DIR", 0, inspect_help},
    {"bench", command_bench, COMMON_OPTIONS | BIT(THREADS) | BIT(IMAGE) | BIT(JSON), 0, 0, NULL, 1, bench_help},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* What the command line said. */
struct arguments {
    const struct command *command;
    const char *values[OPTIONS]; /* the last of each; "" for those without an argument */
    size_t model_count;
    const char *models[];
};

/* ---- parsing ---- */

static int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int usage_error(const char *format, ...)
{
    va_list arguments;
    fputs("vitd: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("; see vitd --help\n", stderr);
    return EXIT_USAGE;
}

static int runtime_error(const struct config_error *error)
{
    char clean[4 * sizeof error->message];
    fprintf(stderr, "vitd: %s\n", log_clean(clean, sizeof clean, error->message));
    return EXIT_RUNTIME;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* getopt's list of the options in the mask. */
static void list_options(struct option *list, unsigned mask)
{
    size_t count = 0;
    for (int id = 0; id < OPTIONS; id++)
        if (mask & (1u << id))
            list[count++] = (struct option){option_table[id].name, option_table[id].has_argument, NULL, id};
    list[count] = (struct option){0};
}

static int bad_option(int problem, char **argv)
{
    const char *given = argv[optind - 1];
    if (problem == ':')
        return usage_error("option %s needs a value", given);
    if (strncmp(given, "--", 2) == 0)
        return usage_error("unknown option, or not one of this command: %s", given);
    return usage_error("unknown option: -%c", optopt);
}

/* Collects options; 0, or the exit status of an error. */
static int collect(struct arguments *given, int argc, char **argv, unsigned mask)
{
    struct option options[OPTIONS + 1];
    int id;
    list_options(options, mask);
    opterr = 0;
    while ((id = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (id < 0 || id >= OPTIONS)
            return bad_option(id, argv);
        if (id == OPTION_MODEL)
            given->models[given->model_count++] = optarg;
        given->values[id] = optarg != NULL ? optarg : "";
    }
    return 0;
}

static int check_operands(const struct command *command, char **operands, size_t count)
{
    if (count < command->min_operands)
        return usage_error("%s needs %s", command->name, command->operand);
    if (count > command->max_operands)
        return usage_error("unexpected argument: %s", operands[command->max_operands]);
    return 0;
}

static int check_models(const struct arguments *given)
{
    if (given->model_count > given->command->max_models)
        return usage_error("%s takes at most %zu --model", given->command->name, given->command->max_models);
    return 0;
}

/* ---- applying ---- */

static bool is_model(const char *folder)
{
    char path[PATH_MAX];
    const int length = snprintf(path, sizeof path, "%s/config.json", folder);
    return length > 0 && (size_t)length < sizeof path && access(path, R_OK) == 0;
}

/* The folder of this executable, or "". */
static void own_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
}

/* Beside the executable: under the prefix it was installed to, or in the source tree. */
static bool add_bundled_model(struct config *config, struct config_error *error)
{
    static const char *const places[] = {"../share/vitd/models", "../config/models"};
    char own[PATH_MAX], folder[PATH_MAX + 64];
    own_folder(own);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(folder, sizeof folder, "%s/%s/%s", own, places[i], BUNDLED_MODEL);
        if (is_model(folder))
            return config_add_model(config, folder, error);
    }
    snprintf(error->message, sizeof error->message,
             "no model is configured, and the bundled one is neither in %.120s/%s nor in ../config/models; "
             "give --model DIR", own, places[0]);
    return false;
}

static bool blame(struct config_error *error, const char *option, const char *value)
{
    char why[sizeof error->message];
    snprintf(why, sizeof why, "%s", error->message);
    snprintf(error->message, sizeof error->message, "--%s%s%.200s: %.250s", option, *value ? " " : "", value, why);
    return false;
}

static bool apply_options(struct config *config, const struct arguments *given, struct config_error *error)
{
    for (int id = 0; id < OPTIONS; id++) {
        const struct option_row *option = &option_table[id];
        if (option->key != NULL && given->values[id] != NULL &&
            !config_set(config, option->key, option->has_argument ? given->values[id] : "true", error))
            return blame(error, option->name, "");
    }
    for (size_t i = 0; i < config->model_count; i++) { /* the file's: options override them too */
        if (given->values[OPTION_DTYPE] != NULL)
            config->models[i].dtype = config->dtype;
        if (given->values[OPTION_IMAGE_SIZE] != NULL)
            config->models[i].image_size = config->image_size;
        if (given->values[OPTION_DRAFT] != NULL)
            config->models[i].draft = config->draft;
    }
    if (given->model_count > 0)
        config_clear_models(config);
    for (size_t i = 0; i < given->model_count; i++)
        if (!config_add_model(config, given->models[i], error))
            return blame(error, "model", given->models[i]);
    return true;
}

/* Defaults, file, options, in this order; 0, or the exit status of an error. *config is to be released. */
static int configure(struct config *config, const struct arguments *given, struct config_error *error)
{
    const char *file = given->values[OPTION_CONFIG];
    config_init(config);
    if (file != NULL && !config_load(config, file, error))
        return EXIT_RUNTIME;
    if (!apply_options(config, given, error))
        return EXIT_USAGE;
    if (given->command->max_models > 0 && config->model_count == 0 && !add_bundled_model(config, error))
        return EXIT_RUNTIME;
    return 0;
}

bool cli_configure(const struct cli *cli, struct config *config, struct config_error *error)
{
    struct config fresh;
    const bool sound = configure(&fresh, cli->arguments, error) == 0;
    if (sound)
        *config = fresh;
    else
        config_release(&fresh);
    return sound;
}

static int apply_choices(struct choices *choices, const struct arguments *given)
{
    *choices = choices_default();
    for (int id = 0; id < OPTIONS; id++) {
        const struct parameter *parameter = option_table[id].parameter;
        const char *value = given->values[id];
        if (parameter == NULL || value == NULL)
            continue;
        choices->given |= 1u << (parameter - parameters);
        if (!parameter->read(value, choices))
            return usage_error("--%s: '%s' is not allowed, it takes %s", option_table[id].name, value,
                               parameter->values);
    }
    return 0;
}

/* A picture goes with an explanation, and is of one image. */
static int check_output(const struct cli *cli)
{
    const bool explains = cli->choices.explain.method != VIT_ATTENTION_NONE;
    if (explains && cli->output == NULL)
        return usage_error("--attention draws a picture: --output FILE says where it goes");
    if (!explains && cli->output != NULL)
        return usage_error("--output is for a picture: --attention says of what");
    if (cli->output != NULL && cli->operand_count > 1)
        return usage_error("--output takes one IMAGE, not %zu", cli->operand_count);
    return 0;
}

static int apply(struct cli *cli, const struct arguments *given)
{
    struct config_error error = {""};
    cli->output = given->values[OPTION_OUTPUT];
    int status = apply_choices(&cli->choices, given);
    if (status == 0)
        status = check_output(cli);
    cli->command = given->command->run;
    cli->image = given->values[OPTION_IMAGE];
    cli->json = given->values[OPTION_JSON];
    cli->dtype_given = given->values[OPTION_DTYPE] != NULL;
    if (status != 0)
        return status;
    status = configure(&cli->config, given, &error);
    if (status == EXIT_USAGE)
        return usage_error("%s", error.message);
    return status == 0 ? 0 : runtime_error(&error);
}

/* The file, and the files of keys and certificates and the model folders that it names. */
static int check_config(const char *path)
{
    struct config config;
    struct config_error error = {""};
    struct http_error why = {""};
    config_init(&config);
    struct settings *settings = config_load(&config, path, &error) ? settings_create(&config, &error) : NULL;
    bool sound = settings != NULL;
    if (sound && !http_check(&config, &why)) {
        snprintf(error.message, sizeof error.message, "%s", why.message);
        sound = false;
    }
    for (size_t i = 0; sound && i < config.model_count; i++)
        if (!is_model(config.models[i].path)) {
            snprintf(error.message, sizeof error.message, "%.150s: models[%zu]: %.200s: there is no config.json to be read",
                     path, i, config.models[i].path);
            sound = false;
        }
    settings_unref(settings);
    config_release(&config);
    if (!sound)
        return runtime_error(&error);
    printf("%s: ok\n", path);
    return 0;
}

/* ---- the whole ---- */

/* Those answers that run no command; false if none was asked for. */
static bool answer(const struct arguments *given, bool named, int *status)
{
    *status = 0;
    if (given->values[OPTION_HELP] != NULL)
        fputs(named ? given->command->help : general_help, stdout);
    else if (given->values[OPTION_VERSION] != NULL)
        puts("vitd " VITD_VERSION);
    else if (given->values[OPTION_CHECK_CONFIG] != NULL)
        *status = check_config(given->values[OPTION_CHECK_CONFIG]);
    else
        return false;
    return true;
}

static bool parse(struct cli *cli, struct arguments *given, int argc, char **argv, int *status)
{
    const bool named = argc > 1 && argv[1][0] != '-';
    given->command = named ? find_command(argv[1]) : &commands[0];
    if (given->command == NULL) {
        *status = usage_error("unknown command: %s", argv[1]);
        return false;
    }
    const unsigned mask = given->command->options | (named ? 0 : BIT(VERSION) | BIT(CHECK_CONFIG));
    *status = collect(given, named ? argc - 1 : argc, named ? argv + 1 : argv, mask);
    if (*status != 0 || answer(given, named, status))
        return false;
    cli->operands = (const char *const *)(named ? argv + 1 : argv) + optind;
    cli->operand_count = (size_t)((named ? argc - 1 : argc) - optind);
    *status = check_operands(given->command, (char **)cli->operands, cli->operand_count);
    if (*status == 0)
        *status = check_models(given);
    if (*status == 0)
        *status = apply(cli, given);
    return *status == 0;
}

bool cli_parse(struct cli *cli, int argc, char **argv, int *status)
{
    *cli = (struct cli){0};
    cli->arguments = calloc(1, sizeof *cli->arguments + (size_t)argc * sizeof cli->arguments->models[0]);
    if (cli->arguments == NULL)
        *status = runtime_error(&(struct config_error){"out of memory"});
    bool run = cli->arguments != NULL && parse(cli, cli->arguments, argc, argv, status);
    if (!run)
        cli_release(cli);
    return run;
}

void cli_release(struct cli *cli)
{
    config_release(&cli->config);
    free(cli->arguments);
    cli->arguments = NULL;
}

/* The command `tweedie`: finds the subcommand and runs it. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/help.h"
#include "cli/progress.h"
#include "cli/signals.h"

static const cli_command *const commands[] = {
    &cli_info_command,   &cli_train_command,
    &cli_sample_command, &cli_diffuse_command,
    &cli_plot_command,   &cli_schedule_command,
    &cli_bench_command,  &cli_completion_command,
    &cli_help_command,   NULL,
};

const cli_command *cli_command_at(int index) {
    return commands[index];
}

const cli_command *cli_command_find(const char *name) {
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static void print_error(const char *format, va_list args) {
    char text[1280];
    vsnprintf(text, sizeof text, format, args);
    /* A value from the command line may hold newlines and controls; the line stays one line. */
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
    cli_progress_end_line();
    fprintf(stderr, "tweedie: %s\n", text);
}

int cli_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    return CLI_FAILED;
}

int cli_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_error(format, args);
    va_end(args);
    return CLI_USAGE;
}

int cli_fail_status(const tw_context *ctx, tw_status status) {
    if (status == TW_ERROR_CANCELLED) return CLI_INTERRUPTED;
    const char *text = tw_context_error(ctx);
    cli_fail("%s", text && *text ? text : tw_status_name(status));
    return CLI_FAILED;
}

int cli_fail_memory(const tw_context *ctx, tw_status status, const char *remedy) {
    if (status != TW_ERROR_MEMORY) return cli_fail_status(ctx, status);
    const char *text = tw_context_error(ctx);
    return cli_fail("%s; %s", text && *text ? text : tw_status_name(status), remedy);
}

static void log_line(void *user, tw_log_level level, const char *text) {
    (void)user;
    (void)level;
    cli_progress_end_line();
    fprintf(stderr, "tweedie: %s\n", text);
}

/* The bits of the words in `text`; 0 with `wrong` set for another word. */
static unsigned fusions(const char *text, const char **wrong) {
    unsigned bits = 0;
    *wrong = NULL;
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        const size_t length = strcspn(at, ",");
        unsigned bit = length == 3 && !strncmp(at, "all", 3) ? TW_FUSION_ALL : 0;
        const char *name;
        for (int i = 0; (name = tw_fusion_name(i)); i++)
            if (strlen(name) == length && !strncmp(name, at, length)) bit = 1u << i;
        if (!bit) *wrong = at;
        bits |= bit;
    }
    return *wrong ? 0 : bits;
}

int cli_context(const cli_args *args, tw_context **out) {
    static const tw_device devices[] = {TW_DEVICE_AUTO, TW_DEVICE_CPU, TW_DEVICE_CUDA};
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    options.provider = cli_text(args, "provider");
    if (cli_choice(args, "device") == 1 && cli_choice(args, "provider") != 0)
        return cli_usage("--provider: %s belongs to a GPU; expected auto with --device cpu",
                         options.provider);
    options.device = devices[cli_choice(args, "device")];
    const char *wrong;
    options.no_fusion = fusions(cli_text(args, "no-fusion"), &wrong);
    if (wrong)
        return cli_usage("--no-fusion: expected all, or names out of norm-silu, epilogue, "
                         "norm-statistics, concat, upsample, qkv, gradients, time, got \"%.*s\"",
                         (int)strcspn(wrong, ","), wrong);
    options.threads = (int)cli_int(args, "threads");
    options.log = log_line;
    options.log_level = TW_LOG_WARNING;
    const tw_status status = tw_context_create(&options, out);
    return status == TW_OK ? CLI_OK : cli_fail_status(NULL, status);
}

int cli_unknown_command(const char *word) {
    const char *closest = NULL;
    int best = CLI_NEAR;
    for (int i = 0; commands[i]; i++)
        if (cli_nearer(word, commands[i]->name, &best)) closest = commands[i]->name;
    if (closest) return cli_usage("unknown command \"%s\"; did you mean %s?", word, closest);
    return cli_usage("unknown command \"%s\"; `tweedie help` lists them", word);
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) return cli_usage("expected a command; `tweedie help` lists them");
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 && argc == 2) {
        printf("tweedie %s\n", tw_version());
        return CLI_OK;
    }
    const cli_command *command = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0
                                     ? &cli_help_command
                                     : cli_command_find(word);
    if (!command) return cli_unknown_command(word);
    cli_args args;
    const int rc = cli_parse(command, argc - 2, argv + 2, &args);
    if (rc) return rc;
    if (args.help) {
        cli_print_help(stdout, command);
        return CLI_OK;
    }
    return command->run(&args);
}

/* GNU OpenMP lets a waiting thread spin for a millisecond and more. With another program on the
 * processors, the threads waited for do not run meanwhile, and everything takes ten times as long.
 * It reads its settings before main, so the command starts itself again with a short spin, unless
 * the user has chosen. */
static void shorten_spinning(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", "10000", 1) != 0) return;
    path[length] = '\0';
    execv(path, argv); /* comes back only if it fails: then things go on as they are */
}

int main(int argc, char **argv) {
    shorten_spinning(argv);
    cli_signals_begin();
    /* Only the character set: numbers keep their points. */
    setlocale(LC_CTYPE, "");
    cli_progress_init(strcmp(nl_langinfo(CODESET), "UTF-8") == 0);
    /* A file-size limit then shows as a failed write with its reason. */
    signal(SIGXFSZ, SIG_IGN);
    int rc = dispatch(argc, argv);
    cli_progress_end_line();
    errno = 0;
    const bool unwritten = fflush(stdout) != 0 || ferror(stdout);
    if (unwritten && rc == CLI_OK)
        rc = cli_fail("standard output: cannot be written: %s", strerror(errno ? errno : EIO));
    return rc;
}

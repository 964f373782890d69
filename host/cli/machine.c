#include "cli/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "commit.h"
#include "core/threads.h"

const char *cli_commit(void) {
    return TW_COMMIT;
}

const char *cli_build_type(void) {
#if defined(__SANITIZE_ADDRESS__)
    return "with sanitizers";
#elif defined(NDEBUG)
    return "optimised";
#else
    return "with assertions";
#endif
}

json_t *cli_text_json(const char *text) {
    json_t *value = json_string(text);
    return value ? value : json_string("(not UTF-8)");
}

json_t *cli_providers_json(const tw_context *ctx) {
    json_t *providers = json_array();
    for (int i = 0; tw_context_provider(ctx, i); i++)
        json_array_append_new(providers, json_string(tw_context_provider(ctx, i)));
    return providers;
}

json_t *cli_call_json(const cli_args *args) {
    char when[32] = "", *folder = getcwd(NULL, 0);
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_t *words = json_array();
    json_array_append_new(words, json_string("tweedie"));
    json_array_append_new(words, json_string(args->command->name));
    for (int i = 0; i < args->word_count; i++)
        json_array_append_new(words, cli_text_json(args->words[i]));
    json_t *call = json_pack("{s:s, s:o, s:o, s:s, s:s, s:o}", "time", when, "command", words,
                             "folder", cli_text_json(folder ? folder : ""), "tweedie", tw_version(),
                             "commit", cli_commit(), "host", cli_host_json());
    free(folder);
    return call;
}

/* What follows `key` and its colon in a file of such lines, into out[size]; "" if there is none. */
static void value_in(const char *path, const char *key, char *out, size_t size) {
    char line[512];
    out[0] = '\0';
    FILE *file = fopen(path, "r");
    if (!file) return;
    while (!out[0] && fgets(line, sizeof line, file)) {
        const size_t n = strlen(key);
        if (strncmp(line, key, n) != 0) continue;
        const char *value = line + n + strspn(line + n, " \t:");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
    }
    fclose(file);
}

/* A number of bytes that is all of a file; 0 if it is none. */
static double bytes_in(const char *path) {
    char line[64] = "";
    FILE *file = fopen(path, "r");
    if (!file) return 0.0;
    if (!fgets(line, sizeof line, file)) line[0] = '\0';
    fclose(file);
    return strtod(line, NULL); /* "max": 0 */
}

void cli_memory(double *total, double *available) {
    char text[64];
    value_in("/proc/meminfo", "MemTotal", text, sizeof text);
    *total = 1024.0 * strtod(text, NULL);
    value_in("/proc/meminfo", "MemAvailable", text, sizeof text);
    *available = 1024.0 * strtod(text, NULL);
    const double most = bytes_in("/sys/fs/cgroup/memory.max");
    if (!(most > 0.0) || (*total > 0.0 && most >= *total)) return;
    const double left = most - bytes_in("/sys/fs/cgroup/memory.current");
    *total = most;
    if (left < *available) *available = left > 0.0 ? left : 0.0;
}

json_t *cli_host_json(void) {
    struct utsname names = {0};
    char cpu[128];
    double total, available;
    const int failed = uname(&names);
    value_in("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    cli_memory(&total, &available);
    json_t *name = cli_text_json(failed ? "" : names.nodename);
    json_t *model = cli_text_json(cpu[0] ? cpu : names.machine);
    return json_pack("{s:o, s:o, s:i, s:I}", "name", name, "cpu", model, "processors",
                     tw_threads_available(), "memory", (json_int_t)total);
}

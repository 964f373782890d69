#include "cli/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "commit.h"
#include "core/threads.h"

const char *cli_commit(void) {
    return TW_COMMIT;
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
    /* A name that is no UTF-8 would spoil the document. */
    json_t *name = json_string(failed ? "" : names.nodename);
    json_t *model = json_string(cpu[0] ? cpu : names.machine);
    return json_pack("{s:o, s:o, s:i, s:I}", "name", name ? name : json_string(""), "cpu",
                     model ? model : json_string(""), "processors", tw_threads_available(),
                     "memory", (json_int_t)total);
}

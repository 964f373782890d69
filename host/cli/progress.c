#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct { bool utf8, live, open; /* open: the live line is on the screen */ } progress;

void cli_progress_init(bool utf8) {
    progress.utf8 = utf8;
    progress.live = isatty(STDOUT_FILENO) == 1;
}

bool cli_progress_live(void) {
    return progress.live;
}

static int terminal_width(void) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

/* Cuts to `columns` characters, never inside a UTF-8 sequence. */
static void cut(char *text, int columns) {
    for (char *p = text; *p; p++) {
        if (((unsigned char)*p & 0xC0) == 0x80) continue;
        if (columns-- == 0) {
            *p = '\0';
            return;
        }
    }
}

bool cli_progress_fits(const char *text) {
    int columns = 0;
    for (const char *p = text; *p; p++) columns += ((unsigned char)*p & 0xC0) != 0x80;
    return columns < terminal_width();
}

void cli_progress_show(const char *format, ...) {
    if (!progress.live) return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cut(text, terminal_width() - 1);
    printf("\r%s\033[K", text);
    fflush(stdout);
    progress.open = true;
}

void cli_progress_end_line(void) {
    if (!progress.open) return;
    progress.open = false;
    putchar('\n');
    fflush(stdout);
}

void cli_progress_clear(void) {
    if (!progress.open) return;
    progress.open = false;
    fputs("\r\033[K", stdout);
}

const char *cli_separator(void) {
    return progress.utf8 ? " \u00b7 " : " | ";
}

cli_words cli_bar(double fraction) {
    enum { CELLS = 20 };
    cli_words w = {""};
    int full = (int)(fraction * CELLS + 0.5);
    if (full < 0) full = 0;
    if (full > CELLS) full = CELLS;
    for (int i = 0; i < CELLS; i++) {
        const char *cell = i < full ? (progress.utf8 ? "\u2501" : "=") : " ";
        strcat(w.text, cell); /* at most 20 x 3 bytes */
    }
    return w;
}

cli_words cli_grouped(int64_t value) {
    cli_words w;
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    size_t used = 0;
    const size_t n = strlen(digits), sign = digits[0] == '-';
    for (size_t i = 0; i < n; i++) {
        if (i > sign && (n - i) % 3 == 0) w.text[used++] = ',';
        w.text[used++] = digits[i];
    }
    w.text[used] = '\0';
    return w;
}

cli_words cli_bytes(double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    cli_words w;
    int unit = 0;
    while (bytes >= 1024.0 && unit < 4) {
        bytes /= 1024.0;
        unit++;
    }
    snprintf(w.text, sizeof w.text, unit == 0 || bytes >= 100.0 ? "%.0f %s" : "%.1f %s", bytes,
             units[unit]);
    return w;
}

cli_words cli_magnitude(double value) {
    cli_words w;
    if (value >= 1e9)
        snprintf(w.text, sizeof w.text, "%.1f G", value / 1e9);
    else if (value >= 1e5)
        snprintf(w.text, sizeof w.text, "%.1f M", value / 1e6);
    else if (value >= 1e3)
        snprintf(w.text, sizeof w.text, "%.1f k", value / 1e3);
    else
        snprintf(w.text, sizeof w.text, "%.0f", value);
    return w;
}

cli_words cli_duration(double seconds) {
    cli_words w;
    if (seconds < 60.0) {
        snprintf(w.text, sizeof w.text, seconds < 10.0 ? "%.2f s" : "%.1f s", seconds);
        return w;
    }
    const long long whole = seconds < 1e9 ? (long long)(seconds + 0.5) : 1000000000LL;
    if (whole < 3600)
        snprintf(w.text, sizeof w.text, "%lld:%02lld", whole / 60, whole % 60);
    else if (whole < 48 * 3600)
        snprintf(w.text, sizeof w.text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60,
                 whole % 60);
    else
        snprintf(w.text, sizeof w.text, "%lld days", (whole + 43200) / 86400);
    return w;
}

cli_words cli_rate(double per_second) {
    cli_words w;
    const char *format = per_second >= 100.0 ? "%.0f" : per_second >= 1.0 ? "%.1f" : "%.2f";
    snprintf(w.text, sizeof w.text, format, per_second);
    return w;
}

double cli_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double cli_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0.0;
    return 1024.0 * (double)usage.ru_maxrss;
}

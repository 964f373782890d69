#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/scatter.h"
#include "cli/signals.h"
#include "core/context.h"
#include "io/file.h"
#include "io/npy.h"
#include "io/png.h"

#define SCATTER_SIZE 512

cli_shape cli_shape_of(const tw_model_info *info) {
    cli_shape shape = {info->rank, {info->shape[0], info->shape[1], info->shape[2]}, 1};
    for (int i = 0; i < info->rank; i++) shape.count *= info->shape[i];
    return shape;
}

const char *cli_shape_noun(const cli_shape *shape, bool one) {
    if (shape->rank == 3) return one ? "image" : "images";
    if (shape->extents[0] == 2) return one ? "point" : "points";
    return one ? "sample" : "samples";
}

static bool drawable(const cli_shape *shape) {
    if (shape->rank == 3) return shape->extents[2] == 1 || shape->extents[2] == 3;
    return shape->rank == 1 && shape->extents[0] == 2;
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

/* The folder that holds `path`. */
static void parent_of(const char *path, char *out, size_t size) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(out, size, ".");
    else
        snprintf(out, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* A folder that is there, or the one that it will be made in: all above it may be missing too. */
static int check_folder(const char *option, const char *path) {
    struct stat st;
    char there[4096], parent[4096];
    if (strlen(path) >= 4000) return cli_fail("%s: the path is too long", option);
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        return cli_fail("%s: %s is a file; expected a path ending in .png or .npy, or a folder",
                        option, path);
    snprintf(there, sizeof there, "%s", path);
    while (stat(there, &st) != 0) {
        parent_of(there, parent, sizeof parent);
        if (strcmp(parent, there) == 0) break;
        snprintf(there, sizeof there, "%s", parent);
    }
    if (access(there, W_OK) != 0)
        return cli_fail("%s: the folder %s cannot be written to", option, there);
    return CLI_OK;
}

int cli_output_check_file(const char *option, const char *path) {
    struct stat st;
    if (strlen(path) >= 4000) return cli_fail("%s: the path is too long", option);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return cli_fail("%s: %s is a folder", option, path);
    char parent[4096];
    parent_of(path, parent, sizeof parent);
    if (stat(parent, &st) != 0 || !S_ISDIR(st.st_mode))
        return cli_fail("%s: there is no folder %s", option, parent);
    if (access(parent, W_OK) != 0)
        return cli_fail("%s: the folder %s cannot be written to", option, parent);
    return CLI_OK;
}

/* "ending in .png, .gif or .npy, or a folder" */
static void expected_ending(unsigned allowed, char *out, size_t size) {
    static const struct {
        unsigned kind;
        const char *ending;
    } endings[] = {{CLI_OUTPUT_PNG, ".png"},
                   {CLI_OUTPUT_GIF, ".gif"},
                   {CLI_OUTPUT_PLOT, ".svg"},
                   {CLI_OUTPUT_PLOT, ".pdf"},
                   {CLI_OUTPUT_NPY, ".npy"}};
    size_t used = (size_t)snprintf(out, size, "ending in ");
    const size_t last = sizeof endings / sizeof *endings - 1;
    bool begun = false;
    for (size_t i = 0; i <= last; i++) {
        if (!(allowed & endings[i].kind)) continue;
        const char *joint = !begun ? "" : i == last ? " or " : ", ";
        used += (size_t)snprintf(out + used, size - used, "%s%s", joint, endings[i].ending);
        begun = true;
    }
    snprintf(out + used, size - used, "%s", allowed & CLI_OUTPUT_FOLDER ? ", or a folder" : "");
}

static cli_output_kind kind_of(const char *path) {
    if (ends_with(path, ".png")) return CLI_OUTPUT_PNG;
    if (ends_with(path, ".gif")) return CLI_OUTPUT_GIF;
    if (ends_with(path, ".svg") || ends_with(path, ".pdf")) return CLI_OUTPUT_PLOT;
    if (ends_with(path, ".npy")) return CLI_OUTPUT_NPY;
    return CLI_OUTPUT_FOLDER;
}

int cli_output_check(const char *option, const char *path, unsigned allowed, const cli_shape *shape,
                     cli_output_kind *kind) {
    /* Nobody calls a folder so. */
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".bmp", ".tif",  ".tiff",
                                         ".npz", ".PNG",  ".NPY",  ".GIF", ".json", ".txt"};
    char expected[96];
    expected_ending(allowed, expected, sizeof expected);
    *kind = kind_of(path);
    bool known = (allowed & *kind) != 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        known &= !ends_with(path, others[i]);
    if (!known) return cli_usage("%s: expected a path %s, got \"%s\"", option, expected, path);
    if (*kind != CLI_OUTPUT_NPY && !drawable(shape))
        return cli_usage("%s: the samples are neither grey or RGB images nor points of the plane; "
                         "expected a path ending in .npy, got \"%s\"",
                         option, path);
    if (*kind == CLI_OUTPUT_FOLDER && shape->rank != 3)
        return cli_usage(
            "%s: a folder holds images, and the model's samples are points; expected a "
            "path ending in .png or .npy, got \"%s\"",
            option, path);
    return *kind == CLI_OUTPUT_FOLDER ? check_folder(option, path)
                                      : cli_output_check_file(option, path);
}

static tw_status write_png(tw_context *ctx, const char *path, const cli_shape *shape, int64_t n,
                           const float *values, int64_t columns) {
    tw_image image = {0};
    tw_status s;
    if (shape->rank == 3)
        s = tw_image_grid(ctx, values, n, shape->extents[0], shape->extents[1],
                          (int)shape->extents[2], columns, n > 1 ? 2 : 0, &image);
    else
        s = cli_scatter(ctx, values, 1, n, SCATTER_SIZE, cli_scatter_extent(values, n), &image);
    if (s == TW_OK) s = tw_png_write(ctx, path, &image);
    tw_image_free(ctx, &image);
    return s;
}

static void folder_name(char *out, size_t size, const char *folder, int64_t index) {
    snprintf(out, size, "%s/%05lld.png", folder, (long long)index);
}

/* Takes the folder for unfinished pictures out of the failure's text. */
static tw_status hide_scratch(tw_context *ctx, tw_status status, const char *scratch) {
    char text[1024];
    snprintf(text, sizeof text, "%s", tw_context_error(ctx));
    const char *inner = strrchr(scratch, '/');
    char *at = strstr(text, inner);
    if (!at) return status;
    memmove(at, at + strlen(inner), strlen(at + strlen(inner)) + 1);
    return tw_fail(ctx, status, "%s", text);
}

/* All pictures are written before the first takes its name, so that a full disk leaves what was
 * there. */
static tw_status write_folder(tw_context *ctx, const char *folder, const cli_shape *shape,
                              int64_t n, const float *values) {
    char scratch[4096], from[4200], to[4200];
    const bool fresh = !tw_directory_exists(folder);
    snprintf(scratch, sizeof scratch, "%s/.tweedie-%ld.tmp", folder, (long)getpid());
    tw_status s = tw_directory_make(ctx, folder);
    if (s == TW_OK) s = tw_directory_make(ctx, scratch);
    int64_t written = 0, named = 0;
    while (s == TW_OK && written < n) {
        folder_name(from, sizeof from, scratch, written);
        folder_name(to, sizeof to, folder, written);
        if (cli_signals_stop())
            s = tw_fail(ctx, TW_ERROR_CANCELLED, "interrupted");
        else if (tw_directory_exists(to))
            s = tw_fail(ctx, TW_ERROR_IO, "%s: is a directory, expected a file", to);
        else
            s = write_png(ctx, from, shape, 1, values + written * shape->count, 1);
        written += s == TW_OK;
    }
    while (s == TW_OK && named < n) {
        folder_name(from, sizeof from, scratch, named);
        folder_name(to, sizeof to, folder, named);
        if (rename(from, to) != 0)
            s = tw_fail(ctx, TW_ERROR_IO, "%s: cannot write: %s", to, strerror(errno));
        else
            named++;
    }
    for (int64_t i = named; i < written; i++) {
        folder_name(from, sizeof from, scratch, i);
        unlink(from);
    }
    rmdir(scratch);
    if (s != TW_OK && fresh) rmdir(folder);
    return s == TW_OK ? s : hide_scratch(ctx, s, scratch);
}

tw_status cli_output_write(tw_context *ctx, const char *path, cli_output_kind kind,
                           const cli_shape *shape, int64_t n, const float *values,
                           int64_t columns) {
    if (kind == CLI_OUTPUT_PNG) return write_png(ctx, path, shape, n, values, columns);
    if (kind == CLI_OUTPUT_FOLDER) return write_folder(ctx, path, shape, n, values);
    const int64_t extents[4] = {n, shape->extents[0], shape->extents[1], shape->extents[2]};
    return tw_npy_write(ctx, path, TW_F32, shape->rank + 1, extents, values);
}

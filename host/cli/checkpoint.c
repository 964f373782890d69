#include "cli/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/context.h"
#include "io/file.h"
#include "io/json.h"
#include "models/path.h"

/* What a checkpoint holds, the innermost first; "" is the checkpoint itself. */
static const struct {
    const char *folder;
    const char *files[3]; /* ends with null */
} layout[] = {{"unet", {"config.json", "diffusion_pytorch_model.safetensors", NULL}},
              {"scheduler", {"scheduler_config.json", NULL, NULL}},
              {"state", {"trainer.safetensors", NULL, NULL}},
              {"", {"model_index.json", "checkpoint.json", NULL}}};

enum { PARTS = sizeof layout / sizeof *layout };

static tw_status fail_errno(const char *path, const char *what) {
    return tw_fail(NULL, TW_ERROR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* A folder itself, not a link to one. */
static bool is_folder(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The name of a file that is being written; see io/file.h. */
static bool is_temporary(const char *name) {
    const size_t n = strlen(name);
    return strncmp(name, ".tweedie-", 9) == 0 && n > 4 && strcmp(name + n - 4, ".tmp") == 0;
}

static bool is_file_of(int part, const char *name) {
    for (const char *const *f = layout[part].files; *f; f++)
        if (strcmp(name, *f) == 0) return true;
    return is_temporary(name);
}

static bool is_folder_of(const char *checkpoint, int part, const char *name) {
    tw_path path;
    for (int i = 0; layout[part].folder[0] == '\0' && i < PARTS; i++)
        if (strcmp(name, layout[i].folder) == 0)
            return tw_path_join(NULL, checkpoint, name, &path) == TW_OK && is_folder(path.text);
    return false;
}

/* The next entry's name, or null. */
static const char *next_name(DIR *dir) {
    for (const struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return entry->d_name;
    return NULL;
}

/* Whether nothing is in a checkpoint but what is written there. */
static bool holds_only_ours(const char *checkpoint) {
    bool ours = is_folder(checkpoint);
    for (int part = 0; ours && part < PARTS; part++) {
        tw_path path;
        if (tw_path_join(NULL, checkpoint, layout[part].folder, &path) != TW_OK) return false;
        DIR *dir = opendir(path.text);
        if (!dir) {
            ours = errno == ENOENT;
            continue;
        }
        const char *name;
        while (ours && (name = next_name(dir)))
            ours = is_file_of(part, name) || is_folder_of(checkpoint, part, name);
        closedir(dir);
    }
    return ours;
}

/* Removes the files of a checkpoint that holds only ours, and then its folders. */
static tw_status remove_folder(const char *checkpoint) {
    for (int part = 0; part < PARTS; part++) {
        tw_path path, file;
        TW_TRY(tw_path_join(NULL, checkpoint, layout[part].folder, &path));
        DIR *dir = opendir(path.text);
        if (!dir) continue;
        const char *name;
        while ((name = next_name(dir)))
            if (is_file_of(part, name) && tw_path_join(NULL, path.text, name, &file) == TW_OK)
                unlink(file.text);
        closedir(dir);
        if (rmdir(path.text) != 0) return fail_errno(path.text, "remove the folder");
    }
    return TW_OK;
}

void cli_checkpoint_name(int64_t step, char out[32]) {
    snprintf(out, 32, "step-%06" PRId64, step);
}

/* The step of a checkpoint's name, or -1. */
static int64_t step_of_name(const char *name) {
    char again[32];
    if (strncmp(name, "step-", 5) != 0 || strlen(name) > 20) return -1;
    const int64_t step = strtoll(name + 5, NULL, 10);
    cli_checkpoint_name(step, again);
    return step >= 0 && strcmp(name, again) == 0 ? step : -1;
}

bool cli_checkpoint_read(const char *path, const char *run, int64_t *step, double *loss) {
    tw_path file;
    json_t *root = NULL;
    if (!is_folder(path) || tw_path_join(NULL, path, "checkpoint.json", &file) != TW_OK ||
        !tw_file_exists(file.text) || tw_json_load(NULL, file.text, &root) != TW_OK)
        return false;
    const char *owner = json_string_value(json_object_get(root, "run"));
    const json_t *measured = json_object_get(root, "validation_loss");
    const json_t *counted = json_object_get(root, "step");
    const bool is_ours = owner && strcmp(owner, run) == 0 && json_is_integer(counted);
    *step = json_integer_value(counted);
    *loss = json_is_number(measured) ? json_number_value(measured) : (double)NAN;
    json_decref(root);
    return is_ours;
}

/* Makes a folder's new names durable; not every file system can. */
static void sync_folder(const char *folder) {
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static tw_status write_mark(const cli_checkpoint *c, const char *folder) {
    tw_path path;
    TW_TRY(tw_path_join(NULL, folder, "checkpoint.json", &path));
    json_t *mark = json_pack("{s:s, s:I, s:o*}", "run", c->run, "step",
                             (json_int_t)tw_snapshot_step(c->snapshot), "validation_loss",
                             isfinite(c->loss) ? json_real(c->loss) : NULL);
    char *text = mark ? json_dumps(mark, JSON_INDENT(2)) : NULL;
    json_decref(mark);
    if (!text) return tw_fail(NULL, TW_ERROR_MEMORY, "%s: out of memory", path.text);
    const size_t length = strlen(text);
    text[length] = '\n'; /* the NUL is not written */
    const tw_status s = tw_file_write(NULL, path.text, text, length + 1);
    free(text);
    return s;
}

static tw_status write_parts(const cli_checkpoint *c, const char *folder) {
    tw_path state;
    TW_TRY(tw_path_join(NULL, folder, "state", &state));
    TW_TRY(tw_directory_make(NULL, folder));
    TW_TRY(tw_snapshot_save_model(c->snapshot, c->averaged, folder));
    if (c->state) TW_TRY(tw_snapshot_save_state(c->snapshot, state.text));
    return write_mark(c, folder);
}

/* Puts the finished `fresh` in the place of `target`, which is this run's checkpoint or absent. */
static tw_status put_in_place(const char *fresh, const char *target, const char *retired) {
    if (rename(fresh, target) == 0) return TW_OK; /* over nothing, or an empty folder */
    if (errno != EEXIST && errno != ENOTEMPTY) return fail_errno(target, "rename to it");
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, target, RENAME_EXCHANGE) == 0)
        return remove_folder(fresh);
    /* A file system without exchange: for a moment there is none. */
    if (rename(target, retired) != 0) return fail_errno(target, "rename it");
    if (rename(fresh, target) != 0) return fail_errno(target, "rename to it");
    return remove_folder(retired);
}

static tw_status join_dotted(const char *folder, const char *prefix, const char *name,
                             tw_path *out) {
    char dotted[64];
    snprintf(dotted, sizeof dotted, "%s%s", prefix, name);
    return tw_path_join(NULL, folder, dotted, out);
}

tw_status cli_checkpoint_write(const cli_checkpoint *c, const char *folder, const char *name) {
    tw_path target, fresh, retired;
    int64_t step;
    double loss;
    TW_TRY(tw_path_join(NULL, folder, name, &target));
    TW_TRY(join_dotted(folder, ".new-", name, &fresh));
    TW_TRY(join_dotted(folder, ".old-", name, &retired));
    struct stat st;
    if (lstat(target.text, &st) == 0 &&
        !(cli_checkpoint_read(target.text, c->run, &step, &loss) && holds_only_ours(target.text)))
        return tw_fail(NULL, TW_ERROR_IO,
                       "%s: it is there already and not this run's alone, will not replace it",
                       target.text);
    if (is_folder(fresh.text) && holds_only_ours(fresh.text)) TW_TRY(remove_folder(fresh.text));
    tw_status s = write_parts(c, fresh.text);
    if (s != TW_OK) {
        char text[TW_ERROR_TEXT]; /* of the failure that counts */
        snprintf(text, sizeof text, "%s", tw_context_error(NULL));
        if (holds_only_ours(fresh.text)) remove_folder(fresh.text);
        return tw_fail(NULL, s, "%s", text);
    }
    s = put_in_place(fresh.text, target.text, retired.text);
    sync_folder(folder);
    return s;
}

/* Collects the steps of this run's checkpoints up to `step`; freed with free. */
static tw_status list_steps(const char *folder, const char *run, int64_t step, int64_t **out,
                            size_t *count) {
    size_t n = 0, room = 0;
    int64_t *steps = NULL;
    DIR *dir = opendir(folder);
    *out = NULL;
    *count = 0;
    if (!dir) return errno == ENOENT ? TW_OK : fail_errno(folder, "read the folder");
    const char *name;
    while ((name = next_name(dir))) {
        tw_path path;
        int64_t marked;
        double loss;
        const int64_t named = step_of_name(name);
        if (named < 0 || named > step || tw_path_join(NULL, folder, name, &path) != TW_OK ||
            !cli_checkpoint_read(path.text, run, &marked, &loss) || marked != named ||
            !holds_only_ours(path.text))
            continue;
        if (n == room) {
            room = room ? 2 * room : 64;
            int64_t *more = realloc(steps, room * sizeof *steps);
            if (!more) break; /* the rest is found the next time */
            steps = more;
        }
        steps[n++] = named;
    }
    closedir(dir);
    *out = steps;
    *count = n;
    return TW_OK;
}

static int compare_steps(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A checkpoint that is being removed has another name: it never looks whole. */
static tw_status retire(const char *folder, int64_t step) {
    char name[32];
    tw_path path, retired;
    cli_checkpoint_name(step, name);
    TW_TRY(tw_path_join(NULL, folder, name, &path));
    TW_TRY(join_dotted(folder, ".old-", name, &retired));
    if (rename(path.text, retired.text) != 0) return fail_errno(path.text, "rename it");
    return remove_folder(retired.text);
}

tw_status cli_checkpoint_prune(const char *folder, const char *run, int64_t step, int64_t keep) {
    int64_t *steps;
    size_t count;
    TW_TRY(list_steps(folder, run, step, &steps, &count));
    if (count) qsort(steps, count, sizeof *steps, compare_steps);
    tw_status s = TW_OK;
    for (size_t i = 0; s == TW_OK && i < count && (int64_t)(count - i) > keep; i++)
        s = retire(folder, steps[i]);
    free(steps);
    return s;
}

void cli_checkpoint_clean(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    const char *name;
    while ((name = next_name(dir))) {
        tw_path path;
        if (tw_path_join(NULL, folder, name, &path) != TW_OK) continue;
        const bool moving = strncmp(name, ".new-", 5) == 0 || strncmp(name, ".old-", 5) == 0;
        if (is_temporary(name))
            unlink(path.text);
        else if (moving && (strcmp(name + 5, "best") == 0 || step_of_name(name + 5) >= 0) &&
                 holds_only_ours(path.text))
            remove_folder(path.text);
    }
    closedir(dir);
}

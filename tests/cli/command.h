// Runs the built command in a folder of its own and looks at what it leaves.
#ifndef TESTS_CLI_COMMAND_H
#define TESTS_CLI_COMMAND_H

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
#include <tweedie/tweedie.h>

#include "io/npy.h"
#include "io/png.h"
#include "models/model.h"
}

#ifndef TW_COMMAND
#define TW_COMMAND TW_BUILD_DIR "/host/tweedie"
#endif

struct Result {
    int status = -1; // exit status; 128 + number after a signal
    std::string out, err;
};

struct RunOptions {
    rlim_t file_limit = 0; // bytes; 0: none
    rlim_t address_limit = 0;
    std::string stdout_path; // instead of the pipe
    std::string search_path; // PATH, with "." in it for the test's folder; empty: as it is
    int terminal = -1;       // the slave of a pseudo-terminal for stdout
    // Called with all of stdout so far whenever more arrives, and every 20 ms.
    std::function<void(pid_t, const std::string &)> watch;
    std::function<void(pid_t)> started; // called once, as soon as the process is there
};

inline void exec_child(const std::vector<std::string> &args, const std::string &folder,
                       const RunOptions &options, int out, int err) {
    if (chdir(folder.c_str()) != 0) _exit(126);
    if (options.file_limit) {
        const struct rlimit limit = {options.file_limit, options.file_limit};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    if (options.address_limit) {
        const struct rlimit limit = {options.address_limit, options.address_limit};
        setrlimit(RLIMIT_AS, &limit);
    }
    if (!options.stdout_path.empty()) out = open(options.stdout_path.c_str(), O_WRONLY);
    if (options.terminal >= 0) out = options.terminal;
    if (!options.search_path.empty()) setenv("PATH", options.search_path.c_str(), 1);
    dup2(out, 1);
    dup2(err, 2);
    std::vector<char *> argv;
    static char program[] = TW_COMMAND;
    argv.push_back(program);
    for (const std::string &a : args) argv.push_back(const_cast<char *>(a.c_str()));
    argv.push_back(nullptr);
    execv(program, argv.data());
    _exit(127);
}

inline Result run_command(const std::vector<std::string> &args, const std::string &folder,
                          const RunOptions &options = {}) {
    Result r;
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return r;
    const pid_t pid = fork();
    if (pid == 0) exec_child(args, folder, options, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    if (options.started) options.started(pid);
    struct pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    std::string *texts[2] = {&r.out, &r.err};
    for (int open_ends = 2; open_ends > 0;) {
        poll(fds, 2, 20);
        for (int i = 0; i < 2; i++) {
            if (fds[i].fd < 0 || !fds[i].revents) continue;
            char buffer[4096];
            const ssize_t n = read(fds[i].fd, buffer, sizeof buffer);
            if (n > 0) {
                texts[i]->append(buffer, size_t(n));
            } else {
                fds[i].fd = -1;
                open_ends--;
            }
        }
        if (options.watch) options.watch(pid, r.out);
    }
    close(out[0]);
    close(err[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return r;
}

// A test with a temporary folder that goes with it.
class CommandTest : public testing::Test {
  protected:
    void SetUp() override {
        folder = place + "/tweedie-test-XXXXXX";
        ASSERT_NE(mkdtemp(folder.data()), nullptr);
        ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK);
    }
    void TearDown() override {
        tw_context_free(ctx);
        if (!folder.empty() && system(("rm -rf '" + folder + "'").c_str()) != 0) ADD_FAILURE();
    }

    Result run(const std::vector<std::string> &args, const RunOptions &options = {}) {
        return run_command(args, folder, options);
    }
    // The command must fail with `status` and one line on stderr that holds every word of `words`.
    Result fails(int status, const std::vector<std::string> &args,
                 const std::vector<std::string> &words, const RunOptions &options = {}) {
        const Result r = run(args, options);
        std::string line = "tweedie";
        for (const std::string &a : args) line += " " + a;
        SCOPED_TRACE(line);
        EXPECT_EQ(r.status, status) << r.err;
        EXPECT_EQ(r.err.rfind("tweedie: ", 0), 0u) << r.err;
        EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
        for (const std::string &w : words) EXPECT_NE(r.err.find(w), std::string::npos) << r.err;
        return r;
    }
    // The command must succeed; what a terminal with so many columns gets.
    std::string on_terminal(const std::vector<std::string> &args, unsigned short columns) {
        std::string shown;
        const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        const struct winsize size = {24, columns, 0, 0};
        RunOptions options;
        if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
            (options.terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 ||
            ioctl(options.terminal, TIOCSWINSZ, &size) != 0) {
            ADD_FAILURE() << "no terminal";
            return shown;
        }
        // A terminal holds some pages, so it is read all the while.
        const auto drain = [&] {
            char buffer[4096];
            for (ssize_t n; (n = ::read(master, buffer, sizeof buffer)) > 0;)
                shown.append(buffer, size_t(n));
        };
        options.watch = [&](pid_t, const std::string &) { drain(); };
        fcntl(master, F_SETFL, O_NONBLOCK);
        works(args, options);
        close(options.terminal);
        drain();
        close(master);
        return shown;
    }
    // The command must succeed quietly.
    Result works(const std::vector<std::string> &args, const RunOptions &options = {}) {
        const Result r = run(args, options);
        EXPECT_EQ(r.status, 0) << r.err;
        EXPECT_EQ(r.err, "");
        return r;
    }

    std::string path(const std::string &name) const { return folder + "/" + name; }
    bool exists(const std::string &name) const { return access(path(name).c_str(), F_OK) == 0; }
    std::string read(const std::string &name) const {
        std::ifstream file(path(name), std::ios::binary);
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    }
    void write(const std::string &name, const std::string &text) const {
        std::ofstream(path(name), std::ios::binary) << text;
    }
    // Names in a folder, hidden ones too.
    std::vector<std::string> list(const std::string &name) const {
        std::vector<std::string> names;
        DIR *dir = opendir(path(name).c_str());
        if (!dir) return names;
        while (const struct dirent *entry = readdir(dir))
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                names.push_back(entry->d_name);
        closedir(dir);
        return names;
    }

    // Writes a model with weights that are all at work: fresh ones hold zeros that hide the rest.
    void make_model(const std::string &name, const char *config, const char *scheduler) {
        tw_model *model = nullptr;
        ASSERT_EQ(tw_model_create(ctx, config, scheduler, nullptr, 0, 11, &model), TW_OK)
            << tw_context_error(ctx);
        for (int64_t i = 0; i < model->weights.count; i++) {
            const tw_weight &w = model->weights.items[i];
            if (w.init != TW_INIT_ZERO) continue;
            std::vector<float> values(size_t(w.count), 0.0f);
            for (size_t k = 0; k < values.size(); k++)
                values[k] = 0.2f * std::sin(float(i) + 0.7f * float(k));
            EXPECT_EQ(tw_model_set_weight(model, w.name, values.data(), w.count), TW_OK);
        }
        EXPECT_EQ(tw_model_save(model, path(name).c_str()), TW_OK) << tw_context_error(ctx);
        tw_model_free(model);
    }

    struct Array {
        std::vector<int64_t> shape;
        std::vector<float> values;
    };
    Array load(const std::string &name) {
        Array a;
        tw_npy npy;
        if (tw_npy_open(ctx, path(name).c_str(), &npy) != TW_OK) {
            ADD_FAILURE() << tw_context_error(ctx);
            return a;
        }
        EXPECT_EQ(npy.dtype, TW_F32);
        a.shape.assign(npy.shape, npy.shape + npy.rank);
        a.values.resize(size_t(npy.count));
        tw_npy_to_f32(&npy, 0, npy.count, a.values.data());
        tw_npy_close(&npy);
        return a;
    }
    void save(const std::string &name, const Array &a) {
        ASSERT_EQ(tw_npy_write(ctx, path(name).c_str(), TW_F32, int(a.shape.size()), a.shape.data(),
                               a.values.data()),
                  TW_OK);
    }
    // Width, height and channels of a PNG, after decoding it whole.
    std::vector<int64_t> picture(const std::string &name) {
        tw_image image = {};
        if (tw_png_read(ctx, path(name).c_str(), &image) != TW_OK) {
            ADD_FAILURE() << tw_context_error(ctx);
            return {};
        }
        const std::vector<int64_t> size = {image.width, image.height, image.channels};
        tw_image_free(ctx, &image);
        return size;
    }

    // The share of a PNG's channel values that are not white.
    double drawn(const std::string &name) {
        tw_image image = {};
        if (tw_png_read(ctx, path(name).c_str(), &image) != TW_OK) {
            ADD_FAILURE() << tw_context_error(ctx);
            return -1;
        }
        const int64_t n = image.width * image.height * image.channels;
        const double share =
            double(n - std::count(image.pixels, image.pixels + n, uint8_t(255))) / double(n);
        tw_image_free(ctx, &image);
        return share;
    }
    // Puts a program "gnuplot" of these shell commands into the test's folder.
    void make_gnuplot(const std::string &commands) {
        write("gnuplot", "#!/bin/sh\n" + commands + "\n");
        ASSERT_EQ(chmod(path("gnuplot").c_str(), 0755), 0);
    }

    std::string place = "/tmp"; // where the folder is made
    std::string folder;
    tw_context *ctx = nullptr;
};

inline const char *const kPoints = R"({"_class_name": "TweedieMLP", "in_features": 2,
    "hidden": 16, "layers": 2, "act_fn": "silu"})";
inline const char *const kImages = R"({"_class_name": "UNet2DModel", "sample_size": 8,
    "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": null,
    "norm_num_groups": 4})";
inline const char *const kClasses = R"({"_class_name": "UNet2DModel", "sample_size": 8,
    "in_channels": 3, "out_channels": 3, "block_out_channels": [8], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
    "norm_num_groups": 4, "num_class_embeds": 4})";
inline const char *const kSchedule = R"({"_class_name": "DDPMScheduler",
    "num_train_timesteps": 100, "beta_schedule": "linear", "beta_start": 0.001,
    "beta_end": 0.2, "clip_sample": false})";

#endif

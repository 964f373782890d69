// Runs that are broken off: by signals at chosen moments, or by a disk without room.
#ifndef TESTS_CLI_BROKEN_H
#define TESTS_CLI_BROKEN_H

#include "cli/train_runs.h"

#include <sys/inotify.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <thread>

// Everything takes several times as long under the sanitizers.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSlow = true;
#else
constexpr bool kSlow = false;
#endif

class Broken : public Train {
  protected:
    using Clock = std::chrono::steady_clock;

    void SetUp() override {
        // Hundreds of saves want no disk that is waited for.
        if (access("/dev/shm", W_OK) == 0) place = "/dev/shm";
        Train::SetUp();
        const char *given = getenv("TW_TEST_SEED");
        const unsigned seed =
            given ? unsigned(strtoul(given, nullptr, 10)) : std::random_device()();
        std::cout << "TW_TEST_SEED=" << seed << std::endl;
        random.seed(seed);
    }
    void TearDown() override {
        join();
        Train::TearDown();
    }
    void join() {
        if (sender.joinable()) sender.join();
    }

    // A run that saves, validates and draws much of the time.
    static std::vector<std::string> busy(const std::string &out, int steps = 80) {
        return with({"--out", out, "--steps", std::to_string(steps), "--save-every", "10",
                     "--preview-every", "40", "--holdout", "0.1", "--validate-every", "20",
                     "--keep-last", "2", "--keep-best", "--log-json"});
    }
    // The first call of a run, or a later one.
    std::vector<std::string> go_on(const std::string &out, int steps = 80) {
        if (!exists(out + "/run.json")) return busy(out, steps);
        return {"train", "--out", out, "--resume", "--steps", std::to_string(steps), "--log-json"};
    }
    double seconds_of(const std::vector<std::string> &args) {
        const auto before = Clock::now();
        works(args);
        return std::chrono::duration<double>(Clock::now() - before).count();
    }

    // Sends the signals, `gap` seconds apart, to a process that runs for `delay` seconds.
    RunOptions signals_after(double delay, std::vector<int> numbers, double gap = 0) {
        RunOptions options;
        options.started = [=](pid_t pid) {
            join();
            sender = std::thread([=] {
                double wait = delay;
                for (int number : numbers) {
                    std::this_thread::sleep_for(std::chrono::duration<double>(wait));
                    // It may have ended: it is still there to be waited for.
                    kill(pid, number);
                    wait = gap;
                }
            });
        };
        return options;
    }
    // Kills the process when it has given the n-th name to a file in the folders of a run.
    RunOptions kill_at_name(const std::string &out, int n) {
        RunOptions options;
        options.started = [=](pid_t pid) {
            join();
            const int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
            for (const char *inner : {"", "/state", "/unet", "/checkpoints", "/best"})
                inotify_add_watch(events, path(out + inner).c_str(), IN_MOVED_TO);
            sender = std::thread([=] {
                kill_at_event(pid, events, n);
                close(events);
            });
        };
        return options;
    }
    static void kill_at_event(pid_t pid, int events, int n) {
        alignas(struct inotify_event) char buffer[4096];
        for (int seen = 0;;) {
            struct pollfd fd = {events, POLLIN, 0};
            // Once it has ended it is a zombie until run_command() has read its last words.
            if (poll(&fd, 1, 50) == 0 && !running(pid)) return;
            const ssize_t got = ::read(events, buffer, sizeof buffer);
            for (ssize_t at = 0; at < got;) {
                const auto *e = reinterpret_cast<const struct inotify_event *>(buffer + at);
                at += ssize_t(sizeof *e) + e->len;
                if (++seen == n) {
                    kill(pid, SIGKILL);
                    return;
                }
            }
        }
    }
    static bool running(pid_t pid) {
        std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
        std::string text;
        std::getline(file, text);
        const size_t end = text.rfind(") ");
        return end != std::string::npos && text[end + 2] != 'Z' && text[end + 2] != 'X';
    }

    // Every file below a folder, with its content.
    std::map<std::string, std::string> files(const std::string &name) {
        std::map<std::string, std::string> found;
        std::error_code ignored;
        for (const auto &e : std::filesystem::recursive_directory_iterator(path(name), ignored))
            if (e.is_regular_file())
                found[e.path().string().substr(folder.size() + 1)] =
                    read(e.path().string().substr(folder.size() + 1));
        return found;
    }
    // Nothing under a name of its own that is not finished.
    void expect_no_temporaries(const std::string &name) {
        for (const auto &[file, content] : files(name)) {
            EXPECT_EQ(file.find(".tmp"), std::string::npos) << file;
            EXPECT_EQ(file.find(".new-"), std::string::npos) << file;
        }
    }
    void expect_one_line(const Result &r) {
        EXPECT_EQ(r.err.rfind("tweedie: ", 0), 0u) << r.err;
        EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
    }
    // What a signal may leave: the line of an interruption, or a run that stopped in order. Before
    // main() the process ends as the system has it.
    void expect_interrupted(const Result &r, int number) {
        if (r.status == 0) return;
        if (r.status == 128 + number && r.err.empty() && r.out.empty()) return;
        EXPECT_EQ(r.status, 130) << r.err;
        if (r.err.empty()) return; // a run says it on stdout
        expect_one_line(r);
        EXPECT_EQ(r.err.rfind("tweedie: interrupted", 0), 0u) << r.err;
    }
    double uniform(double high) { return std::uniform_real_distribution<>(0, high)(random); }

    std::mt19937 random;
    std::thread sender;
};

#endif

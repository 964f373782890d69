// A disk that is full at any byte: one line, status 1, earlier files as they were, nothing half
// done; with room again a run goes on to the same numbers.
#include "cli/broken.h"

#include <sched.h>
#include <sys/mount.h>

namespace {

class Full : public Broken {
  protected:
    // A disk of so many pages at folder/disk; false where this process may not mount.
    bool mount_disk(int pages, unsigned long flags = 0) {
        static const bool allowed = [] {
            return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                   mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        }();
        if (!allowed) return false;
        const std::string disk = path("disk");
        mkdir(disk.c_str(), 0777);
        const std::string size = "size=" + std::to_string(4096 * pages) + ",mode=0777";
        return mount("none", disk.c_str(), "tmpfs", flags, size.c_str()) == 0;
    }
    void unmount() { umount2(path("disk").c_str(), MNT_DETACH); }

    // Sizes up to the largest file's, closer where files are small.
    std::vector<rlim_t> sizes_up_to(const std::map<std::string, std::string> &all) {
        size_t largest = 0;
        for (const auto &[name, content] : all) largest = std::max(largest, content.size());
        std::vector<rlim_t> sizes;
        for (size_t n = 1; n < largest; n += 1 + n * (kSlow ? 2 : 1) / 2)
            sizes.push_back(rlim_t(n));
        sizes.push_back(rlim_t(largest - 1));
        return sizes;
    }
    void expect_refused(Result r, const std::string &where) {
        if (r.status == 0) return;
        // A picture that found no room ended nothing.
        if (r.err.find("there is no picture") < r.err.find('\n'))
            r.err.erase(0, r.err.find('\n') + 1);
        SCOPED_TRACE(where);
        EXPECT_EQ(r.status, 1) << r.err;
        expect_one_line(r);
        EXPECT_TRUE(r.err.find("cannot") != std::string::npos) << r.err;
        EXPECT_TRUE(r.err.find("File too large") != std::string::npos ||
                    r.err.find("No space left") != std::string::npos)
            << r.err;
    }
};

constexpr int kSteps = 20;

TEST_F(Full, TrainingWithALimitOnFiles) {
    works(busy("whole", kSteps));
    int refused = 0;
    for (rlim_t size : sizes_up_to(files("whole"))) {
        const std::string out = "run" + std::to_string(size);
        RunOptions options;
        options.file_limit = size;
        Result r = run(busy(out, kSteps), options);
        expect_refused(r, out);
        refused += r.status != 0;
        expect_no_temporaries(out);
        if (!exists(out + "/run.json")) {
            EXPECT_EQ(files(out).size(), 0u) << out;
            continue;
        }
        works(go_on(out, kSteps));
        expect_same_run(out, "whole");
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(refused, kSlow ? 5 : 8);
}

TEST_F(Full, ResumingWithALimitOnFiles) {
    works(busy("whole", 10));
    works(go_on("whole", kSteps));
    for (rlim_t size : {10, 1000, 2000, 3000, 4500}) {
        const std::string out = "run" + std::to_string(size);
        works(busy(out, 10));
        const auto before = files(out);
        RunOptions options;
        options.file_limit = size;
        const Result r = run(go_on(out, kSteps), options);
        expect_refused(r, out);
        const auto after = files(out);
        for (const auto &[name, content] : before) {
            ASSERT_TRUE(after.count(name)) << name;
            EXPECT_FALSE(after.at(name).empty()) << name;
        }
        expect_no_temporaries(out);
        works(go_on(out, kSteps));
        expect_same_run(out, "whole");
    }
}

TEST_F(Full, TrainingOnASmallDisk) {
    works(busy("whole", kSteps));
    int refused = 0, finished = 0;
    for (int pages = 1; finished == 0 && pages < 400; pages += 1 + pages / (kSlow ? 2 : 5)) {
        if (!mount_disk(pages)) GTEST_SKIP() << "no right to mount a small disk";
        const Result r = run(busy("disk/run", kSteps));
        expect_refused(r, std::to_string(pages) + " pages");
        refused += r.status != 0;
        finished += r.status == 0;
        expect_no_temporaries("disk/run");
        // Room again.
        if (r.status && exists("disk/run")) {
            ASSERT_TRUE(mount("none", path("disk").c_str(), "tmpfs", MS_REMOUNT, "size=4m") == 0);
            works(go_on("disk/run", kSteps));
        }
        if (exists("disk/run")) expect_same_run("disk/run", "whole");
        unmount();
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(refused, kSlow ? 2 : 5);
    EXPECT_EQ(finished, 1);
}

// It is known before the work is done.
TEST_F(Full, ADiskThatCannotBeWrittenTo) {
    make_model("images", kImages, kSchedule);
    if (!mount_disk(4, MS_RDONLY)) GTEST_SKIP() << "no right to mount a small disk";
    for (const std::string out : {"a.npy", "a.png", "", "folder", "folder/within"}) {
        const Result r = fails(
            1, {"sample", "--model", "images", "--n", "2", "--steps", "2", "--out", "disk/" + out},
            {"--out: ", "disk", "cannot be written to"});
        EXPECT_EQ(r.out, "") << out;
    }
    unmount();
}

TEST_F(Full, Sampling) {
    make_model("images", kImages, kSchedule);
    for (const std::string out : {"a.npy", "a.png", "folder"}) {
        auto args = [&](const std::string &place) {
            return std::vector<std::string>{
                "sample", "--model", "images",         "--n", "12", "--steps", "1", "--threads",
                "1",      "--out",   place + "/" + out};
        };
        ASSERT_EQ(mkdir(path("whole").c_str(), 0777), 0);
        works(args("whole"));
        const auto right = files("whole");
        for (rlim_t size : sizes_up_to(right)) {
            ASSERT_EQ(mkdir(path("new").c_str(), 0777), 0);
            RunOptions options;
            options.file_limit = size;
            const Result r = run(args("new"), options);
            expect_refused(r, out + " " + std::to_string(size));
            EXPECT_EQ(r.status, 1);
            EXPECT_EQ(files("new").size(), 0u);
            EXPECT_FALSE(exists("new/folder"));
            std::filesystem::remove_all(path("new"));
            if (testing::Test::HasFailure()) return;
        }
        std::filesystem::remove_all(path("whole"));
    }
}

// Every other command that writes files: of each the last option is the file's place.
TEST_F(Full, PicturesAndTables) {
    make_model("points", kPoints, kSchedule);
    works(busy("run", kSteps));
    const std::vector<std::string> strip = {"sample", "--model",     "points", "--n",
                                            "50",     "--steps",     "3",      "--out",
                                            "a.npy",  "--trajectory"};
    auto then = [](std::vector<std::string> args, const std::string &last) {
        args.push_back(last);
        return args;
    };
    const std::vector<std::vector<std::string>> commands = {
        {"schedule", "--training-steps", "20", "--out", "new/a.png"},
        {"schedule", "--training-steps", "20", "--out", "new/a.csv"},
        {"plot", "--run", "run", "--out", "new/a.svg"},
        {"diffuse", "--data", "scurve", "--out", "new/a.gif"},
        then(strip, "new/a.png"),
        then(strip, "new/a.gif"),
        then(strip, "new/a.svg"),
        then(strip, "new/a.npy")};
    for (const std::vector<std::string> &args : commands) {
        SCOPED_TRACE(args[0] + " " + args.back());
        std::filesystem::remove_all(path("new"));
        ASSERT_EQ(mkdir(path("new").c_str(), 0777), 0);
        works(args);
        const auto right = files("new");
        ASSERT_EQ(right.size(), 1u);
        const size_t size = right.begin()->second.size();
        for (const size_t limit : {size_t(1), size / 2, size - 1}) {
            write(args.back(), "old");
            RunOptions options;
            options.file_limit = rlim_t(limit);
            // Room for what comes before.
            const bool sample = args[0] == "sample";
            if (sample && limit < read("a.npy").size()) continue;
            const Result r = run(args, options);
            EXPECT_EQ(r.status, 1);
            expect_refused(r, std::to_string(limit));
            EXPECT_NE(r.err.find(args.back()), std::string::npos) << r.err;
            EXPECT_EQ(files("new").size(), 1u);
            EXPECT_EQ(read(args.back()), "old");
        }
        if (testing::Test::HasFailure()) return;
    }
}

// Twelve pictures need more than the disk has; those of an earlier run stay.
TEST_F(Full, AFolderOnASmallDiskKeepsItsPictures) {
    make_model("images", kImages, kSchedule);
    auto args = [&](const char *n, const char *seed) {
        return std::vector<std::string>{"sample", "--model", "images",     "--n",
                                        n,        "--steps", "1",          "--seed",
                                        seed,     "--out",   "disk/folder"};
    };
    if (!mount_disk(12)) GTEST_SKIP() << "no right to mount a small disk";
    works(args("4", "1"));
    const auto before = files("disk/folder");
    ASSERT_EQ(before.size(), 4u);
    const Result r = fails(1, args("12", "2"), {"disk/folder/", "No space left"});
    EXPECT_EQ(r.err.find(".tmp"), std::string::npos) << r.err;
    EXPECT_EQ(files("disk/folder"), before);
    EXPECT_EQ(list("disk/folder").size(), 4u);
    unmount();
}

} // namespace

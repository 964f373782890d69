// Folders and archives of pictures as data sets, and what is wrong with some of them.
#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <turbojpeg.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "data/dataset.h"
#include "io/png.h"
}
#include "support/tempdir.h"

using tw_test::read_file;
using tw_test::TempDir;
using tw_test::write_file;

namespace {

// A PNG of one grey level.
std::string png(int level, int64_t height = 4, int64_t width = 4, int channels = 3) {
    static std::map<std::vector<int64_t>, std::string> made; // writing waits for the disk
    std::string &bytes = made[{level, height, width, channels}];
    if (!bytes.empty()) return bytes;
    TempDir dir;
    std::vector<uint8_t> pixels(size_t(height * width * channels), uint8_t(level));
    const tw_image image = {width, height, channels, pixels.data()};
    EXPECT_EQ(tw_png_write(nullptr, dir.file("a.png").c_str(), &image), TW_OK);
    return bytes = read_file(dir.file("a.png"));
}

std::string jpeg(int level, int height = 4, int width = 4) {
    std::vector<uint8_t> pixels(size_t(height * width * 3), uint8_t(level));
    tjhandle h = tjInitCompress();
    unsigned char *bytes = nullptr;
    unsigned long size = 0;
    EXPECT_EQ(
        tjCompress2(h, pixels.data(), width, 0, height, TJPF_RGB, &bytes, &size, TJSAMP_444, 95, 0),
        0);
    std::string out(reinterpret_cast<char *>(bytes), size);
    tjFree(bytes);
    tjDestroy(h);
    return out;
}

void put(const TempDir &dir, const std::string &name, const std::string &bytes) {
    std::filesystem::create_directories(std::filesystem::path(dir.file(name)).parent_path());
    write_file(dir.file(name), bytes);
}

struct Entry {
    std::string name, bytes = {};
    int type = AE_IFREG;
    std::string link = {};
};

std::string tar(const std::vector<Entry> &entries, int filter = ARCHIVE_FILTER_NONE) {
    std::vector<char> buffer(1 << 20);
    size_t used = 0;
    archive *a = archive_write_new();
    archive_write_set_format_pax_restricted(a);
    archive_write_add_filter(a, filter);
    EXPECT_EQ(archive_write_open_memory(a, buffer.data(), buffer.size(), &used), ARCHIVE_OK);
    for (const Entry &e : entries) {
        archive_entry *h = archive_entry_new();
        archive_entry_set_pathname(h, e.name.c_str());
        archive_entry_set_filetype(h, unsigned(e.type));
        archive_entry_set_size(h, la_int64_t(e.bytes.size()));
        archive_entry_set_perm(h, 0644);
        if (e.type == AE_IFLNK)
            archive_entry_set_symlink(h, e.link.c_str());
        else if (!e.link.empty())
            archive_entry_set_hardlink(h, e.link.c_str());
        EXPECT_EQ(archive_write_header(a, h), ARCHIVE_OK) << archive_error_string(a);
        if (!e.bytes.empty()) archive_write_data(a, e.bytes.data(), e.bytes.size());
        archive_entry_free(h);
    }
    archive_write_close(a);
    archive_write_free(a);
    return std::string(buffer.data(), used);
}

class Pictures : public testing::Test {
  protected:
    void SetUp() override {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.threads = 2;
        o.log = [](void *user, tw_log_level, const char *text) {
            static_cast<Pictures *>(user)->log.push_back(text);
        };
        o.log_user = this;
        ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK);
    }
    void TearDown() override {
        tw_dataset_free(set);
        tw_context_free(ctx);
    }
    tw_status open(const std::string &source) {
        tw_dataset_free(set);
        log.clear();
        const tw_status s = tw_dataset_open(ctx, source.c_str(), &options, &set);
        EXPECT_EQ(set != nullptr, s == TW_OK);
        info = {};
        info.size = sizeof info;
        if (set) tw_dataset_get_info(set, &info);
        return s;
    }
    std::string error() const { return tw_context_error(ctx); }
    // The grey levels of all samples, and their labels.
    std::vector<int> levels() {
        std::vector<int> out;
        labels.clear();
        for (int64_t i = 0; i < info.count; i++) {
            std::vector<float> x(size_t(info.shape[0] * info.shape[1] * info.shape[2]), NAN);
            int32_t label = -9;
            EXPECT_EQ(tw_dataset_get(set, i, x.data(), &label), TW_OK) << tw_context_error(nullptr);
            for (float v : x) EXPECT_NEAR(v, x[0], 0.02);
            out.push_back(int(std::lround((double(x[0]) + 1) * 127.5)));
            labels.push_back(label);
        }
        return out;
    }
    std::vector<std::string> class_names() const {
        std::vector<std::string> names;
        for (int64_t i = 0; tw_dataset_class_name(set, i); i++)
            names.push_back(tw_dataset_class_name(set, i));
        return names;
    }
    tw_context *ctx = nullptr;
    tw_dataset *set = nullptr;
    tw_dataset_options options = TW_DATASET_OPTIONS_INIT;
    tw_dataset_info info{};
    std::vector<std::string> log;
    std::vector<int> labels;
};

using Labels = std::vector<int>;
using Names = std::vector<std::string>;

TEST_F(Pictures, SubFoldersAreClasses) {
    TempDir dir;
    put(dir, "zebra/1.png", png(10));
    put(dir, "ant/b/2.JPG", jpeg(20));
    put(dir, "ant/1.jpeg", jpeg(30));
    put(dir, "ant-eater/deep/er/x.png", png(40));
    put(dir, "ant/.hidden.png", "no picture");
    put(dir, ".git/x.png", "no picture");
    put(dir, "ant/notes.txt", "text");
    put(dir, "README", "text");
    std::filesystem::create_directories(dir.file("empty"));
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(levels(), (Labels{40, 30, 20, 10})); // by path, and '-' comes before '/'
    EXPECT_EQ(labels, (Labels{1, 0, 0, 2}));
    EXPECT_EQ(class_names(), (Names{"ant", "ant-eater", "zebra"}));
    EXPECT_EQ(info.classes, 3);
    EXPECT_EQ(info.skipped, 0);
    EXPECT_EQ(info.ignored, 2);
    EXPECT_EQ(info.rank, 3);
    EXPECT_EQ(info.shape[2], 3);
    EXPECT_TRUE(log.empty());
    EXPECT_EQ(tw_dataset_class_name(set, -1), nullptr);
    EXPECT_EQ(tw_dataset_class_name(nullptr, 0), nullptr);
}

TEST_F(Pictures, FoldersThatHoldEverythingAreNoClass) {
    TempDir dir;
    put(dir, "all/train/cat/1.png", png(1));
    put(dir, "all/train/dog/1.png", png(2));
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(class_names(), (Names{"cat", "dog"}));
    std::filesystem::remove_all(dir.file("all/train/dog"));
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(info.classes, 0);
    EXPECT_EQ(levels(), (Labels{1}));
    EXPECT_EQ(labels, (Labels{-1}));
    // Pictures beside the folders: none are classes, and a line says so.
    put(dir, "x/1.png", png(3));
    put(dir, "1.png", png(4));
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(info.classes, 0);
    EXPECT_EQ(info.count, 3);
    ASSERT_EQ(log.size(), 1u);
    EXPECT_NE(log[0].find("no classes"), std::string::npos) << log[0];
}

TEST_F(Pictures, NamesTheBrokenOnesAndGoesOn) {
    TempDir dir;
    put(dir, "00.png", png(50));
    put(dir, "01.png", png(50).substr(0, 60));
    put(dir, "02.jpg", jpeg(50).substr(0, 300));
    put(dir, "03.jpg", "");
    put(dir, "04.png", "text");
    std::filesystem::create_directories(dir.file("05.png"));
    ASSERT_EQ(mkfifo(dir.file("06.png").c_str(), 0600), 0);
    ASSERT_EQ(symlink("nowhere", dir.file("07.jpg").c_str()), 0);
    ASSERT_EQ(symlink("00.png", dir.file("08.png").c_str()), 0);
    ASSERT_EQ(symlink(".", dir.file("loop").c_str()), 0);
    put(dir, "09.jpg", png(70)); // the bytes tell, not the name
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(levels(), (Labels{50, 50, 70}));
    EXPECT_EQ(info.skipped, 6);
    ASSERT_EQ(log.size(), 6u);
    const char *const parts[] = {"01.png: PNG: the file is cut short; left out",
                                 "02.jpg: JPEG: ",
                                 "03.jpg: the file is empty",
                                 "04.png: neither a PNG nor a JPEG file",
                                 "06.png: not a regular",
                                 "07.jpg: cannot open"};
    for (size_t i = 0; i < 6; i++)
        EXPECT_EQ(log[i].rfind(dir.path() + "/" + parts[i], 0), 0u) << log[i];
    for (int i = 10; i < 30; i++) put(dir, std::to_string(i) + ".png", "text");
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(info.skipped, 26);
    ASSERT_EQ(log.size(), 11u);
    EXPECT_EQ(log[10], dir.path() + ": 16 more pictures cannot be read; left out");
}

TEST_F(Pictures, NoneLeftIsAnError) {
    TempDir dir;
    EXPECT_EQ(open(dir.path()), TW_ERROR_FORMAT);
    EXPECT_NE(error().find("no pictures: expected .png, .jpg or .jpeg files, found 0"),
              std::string::npos)
        << error();
    put(dir, "a.gif", "GIF89a");
    EXPECT_EQ(open(dir.path()), TW_ERROR_FORMAT);
    EXPECT_NE(error().find("found 1 of other kinds"), std::string::npos) << error();
    put(dir, "a.png", "text");
    put(dir, "b.png", "text");
    EXPECT_EQ(open(dir.path()), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), dir.path() + ": none of the 2 pictures can be read; the first: " +
                           dir.path() + "/a.png: neither a PNG nor a JPEG file");
    EXPECT_EQ(open(dir.file("none")), TW_ERROR_IO);
}

TEST_F(Pictures, SizesMustAgreeUnlessOneIsAskedFor) {
    TempDir dir;
    put(dir, "a.png", png(10, 8, 6));
    put(dir, "b.jpg", jpeg(20, 30, 40));
    EXPECT_EQ(open(dir.path()), TW_ERROR_ARGUMENT);
    EXPECT_NE(error().find("b.jpg: 40x30 pixels where others have 6x8"), std::string::npos)
        << error();
    options.height = 5;
    options.width = 7;
    for (int crop = TW_CROP_CENTER; crop <= TW_CROP_STRETCH; crop++) {
        options.crop = tw_crop(crop);
        options.channels = crop == TW_CROP_STRETCH ? 1 : 0;
        ASSERT_EQ(open(dir.path()), TW_OK) << error();
        EXPECT_EQ(levels(), (Labels{10, 20}));
        EXPECT_EQ(info.shape[0], 5);
        EXPECT_EQ(info.shape[1], 7);
        EXPECT_EQ(info.shape[2], crop == TW_CROP_STRETCH ? 1 : 3);
    }
}

TEST_F(Pictures, MoreThanTheLimitIsDecodedAnew) {
    TempDir dir;
    for (int i = 0; i < 300; i++)
        put(dir, std::string(i % 2 ? "odd/" : "even/") + std::to_string(1000 + i) + ".png",
            i == 7 ? "broken" : png(i % 10));
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    const Labels all = levels(), classes = labels;
    EXPECT_EQ(all.size(), 299u);
    options.memory_limit = 298 * 48;
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(levels(), all);
    EXPECT_EQ(labels, classes);
    EXPECT_EQ(set->bytes, nullptr);
    EXPECT_EQ(info.skipped, 1);
    // One that goes meanwhile is an error of that sample alone.
    std::filesystem::remove(dir.file("even/1000.png"));
    float x[48];
    EXPECT_EQ(tw_dataset_get(set, 0, x, nullptr), TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(nullptr)).find("even/1000.png: cannot open"),
              std::string::npos);
    EXPECT_EQ(tw_dataset_get(set, 1, x, nullptr), TW_OK);
    std::vector<Entry> entries;
    for (int i = 0; i < 10; i++) entries.push_back({std::to_string(i) + ".png", png(i)});
    put(dir, "x.tar", tar(entries));
    options.memory_limit = 480;
    ASSERT_EQ(open(dir.file("x.tar")), TW_OK) << error();
    options.memory_limit = 479;
    EXPECT_EQ(open(dir.file("x.tar")), TW_ERROR_UNSUPPORTED);
    EXPECT_NE(error().find("unpack the archive"), std::string::npos) << error();
}

TEST_F(Pictures, ALimitSpreadsOverTheFolder) {
    TempDir dir;
    for (int i = 0; i < 10; i++) put(dir, std::to_string(i) + ".png", png(10 * i));
    options.limit = 4;
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(levels(), (Labels{0, 20, 50, 70}));
    options.limit = 11;
    ASSERT_EQ(open(dir.path()), TW_OK) << error();
    EXPECT_EQ(info.count, 10);
}

TEST_F(Pictures, LabelFilesAreRefused) {
    TempDir dir;
    put(dir, "a.png", png(1));
    options.labels = "labels.npy";
    EXPECT_EQ(open(dir.path()), TW_ERROR_ARGUMENT);
    EXPECT_NE(error().find("the classes of a folder are its sub-folders"), std::string::npos);
    EXPECT_EQ(open("shapes"), TW_ERROR_ARGUMENT);
    EXPECT_EQ(open("scurve"), TW_ERROR_ARGUMENT);
}

const std::vector<Entry> kEntries = {
    {"./photos/", "", AE_IFDIR},
    {"./photos/dog/1.png", png(10)},
    {"photos//cat/../1.jpg", jpeg(20)},
    {"../photos/dog/2.png", png(30)},
    {"/photos/cat/3.png", "broken"},
    {"photos/cat/4.png", "", AE_IFLNK, "/etc/passwd"},
    {"photos/cat/5.png", "", AE_IFREG, "photos/dog/1.png"},
    {"photos/cat/._6.png", png(1)},
    {"photos/notes.txt", "text"},
};

TEST_F(Pictures, ArchivesOfEveryCompression) {
    TempDir dir;
    for (int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_BZIP2,
                       ARCHIVE_FILTER_XZ, ARCHIVE_FILTER_ZSTD}) {
        put(dir, "a", tar(kEntries, filter));
        ASSERT_EQ(open(dir.file("a")), TW_OK) << filter << ": " << error();
        EXPECT_EQ(levels(), (Labels{10, 20, 30}));
        EXPECT_EQ(labels, (Labels{1, 0, 1}));
        EXPECT_EQ(class_names(), (Names{"cat", "dog"}));
        EXPECT_EQ(info.skipped, 1);
        EXPECT_EQ(info.ignored, 3);
        ASSERT_EQ(log.size(), 1u);
        EXPECT_EQ(log[0],
                  dir.file("a") + ": photos/cat/3.png: neither a PNG nor a JPEG file; left out");
    }
    EXPECT_EQ(dir.entries(), 1u); // nothing was unpacked
    options.limit = 2;
    ASSERT_EQ(open(dir.file("a")), TW_OK);
    EXPECT_EQ(levels(), (Labels{10, 20}));
}

TEST_F(Pictures, ArchivesCutShortAreRefused) {
    TempDir dir;
    for (int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ}) {
        const std::string good = tar(kEntries, filter);
        const size_t whole = filter == ARCHIVE_FILTER_NONE ? 10 * 512 : good.size();
        for (size_t n = filter == ARCHIVE_FILTER_NONE ? 513 : 20; n < whole; n += 101) {
            put(dir, "a.tar", good.substr(0, n));
            // Between two entries of a plain tar there is nothing that tells.
            if (open(dir.file("a.tar")) == TW_OK) {
                EXPECT_EQ(filter, ARCHIVE_FILTER_NONE) << n;
            } else {
                EXPECT_NE(error().find(dir.file("a.tar")), std::string::npos) << error();
            }
        }
    }
    put(dir, "a.tar", tar({{"notes.txt", "text"}}));
    EXPECT_EQ(open(dir.file("a.tar")), TW_ERROR_FORMAT);
    EXPECT_NE(error().find("no pictures"), std::string::npos) << error();
}

// libarchive asks for another try for ever where the pieces of a sparse file are out of order.
TEST_F(Pictures, SparseEntriesOutOfOrderEnd) {
    EXPECT_EQ(open(TW_TEST_DIR "/fuzz/corpus/archive/found_sparse"), TW_ERROR_FORMAT);
    EXPECT_NE(error().find("found_sparse"), std::string::npos) << error();
}

TEST_F(Pictures, MutatedArchivesNeverBreakIt) {
    TempDir dir;
    tw_test::Random random(8);
    const std::string plain = tar(kEntries), packed = tar(kEntries, ARCHIVE_FILTER_GZIP);
    for (int i = 0; i < 300; i++) {
        put(dir, "a", tw_test::mutate(i % 2 ? plain : packed, random));
        open(dir.file("a"));
    }
}

// An allocator that fails from its n-th call on, and knows what is still out.
struct Failing {
    std::atomic<int> left, out;
    static void *take(void *user, size_t bytes, size_t alignment) {
        Failing *f = static_cast<Failing *>(user);
        if (f->left-- <= 0) return nullptr;
        f->out++;
        return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void give(void *user, void *memory) {
        static_cast<Failing *>(user)->out--;
        free(memory);
    }
};

TEST(PicturesMemory, EveryFailedAllocationIsAStatus) {
    TempDir dir;
    put(dir, "a.tar", tar(kEntries));
    put(dir, "f/x/1.png", png(1));
    put(dir, "f/y/1.jpg", jpeg(2));
    put(dir, "f/y/2.jpg", "broken");
    for (const char *name : {"a.tar", "f"})
        for (int64_t limit : {int64_t(0), int64_t(48)}) {
            Failing state = {{1 << 30}, {0}};
            const tw_allocator allocator = {Failing::take, Failing::give, &state};
            tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
            o.allocator = &allocator;
            o.threads = 1;
            tw_context *ctx = nullptr;
            ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK);
            const int before = state.out;
            tw_dataset_options options = TW_DATASET_OPTIONS_INIT;
            options.height = options.width = 4;
            if (*name == 'f') options.memory_limit = limit;
            tw_status s = TW_ERROR_MEMORY;
            int n = 0;
            for (; s != TW_OK && n < 2000; n++) {
                tw_dataset *set = nullptr;
                state.left = n;
                s = tw_dataset_open(ctx, dir.file(name).c_str(), &options, &set);
                EXPECT_TRUE(s == TW_OK || s == TW_ERROR_MEMORY) << n << tw_context_error(ctx);
                tw_dataset_free(set);
                EXPECT_EQ(state.out, before) << n;
            }
            EXPECT_EQ(s, TW_OK);
            EXPECT_GT(n, 20);
            state.left = 1 << 30;
            tw_context_free(ctx);
        }
}

TEST_F(Pictures, Cifar10InAnArchive) {
    const char *path = TW_TEST_DIR "/../../shared/data/cifar10/train.tar.xz";
    if (access(path, R_OK) != 0) GTEST_SKIP() << "there is no " << path;
    options.limit = 6000; // of 50,000: those of two classes
    ASSERT_EQ(open(path), TW_OK) << error();
    EXPECT_EQ(info.count, 6000);
    EXPECT_EQ(info.shape[0], 32);
    EXPECT_EQ(info.classes, 2);
    EXPECT_EQ(info.skipped + info.ignored, 0);
    EXPECT_STREQ(tw_dataset_class_name(set, 0), "bird");
}

} // namespace

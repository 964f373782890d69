#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

extern "C" {
#include "io/file.h"
}
#include "support/tempdir.h"

using tw_test::read_file;
using tw_test::TempDir;
using tw_test::write_file;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

// While it lives, files cannot grow past `bytes`, and trying fails with EFBIG.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) {
        old_handler_ = signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &old_);
        rlimit limit = old_;
        limit.rlim_cur = bytes;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FileSizeLimit() {
        setrlimit(RLIMIT_FSIZE, &old_);
        signal(SIGXFSZ, old_handler_);
    }

  private:
    rlimit old_;
    void (*old_handler_)(int);
};

TEST(File, MapsAndReadsWhole) {
    TempDir dir;
    const std::string path = dir.file("a"), text("one\0two", 7);
    write_file(path, text);
    tw_file_mapping m;
    ASSERT_EQ(tw_file_map(nullptr, path.c_str(), &m), TW_OK);
    EXPECT_EQ(std::string(reinterpret_cast<const char *>(m.data), m.size), text);
    tw_file_unmap(&m);
    EXPECT_EQ(m.data, nullptr);
    tw_file_unmap(&m);
    char *bytes;
    size_t size;
    ASSERT_EQ(tw_file_read(nullptr, path.c_str(), 7, &bytes, &size), TW_OK);
    EXPECT_EQ(std::string(bytes, size), text);
    EXPECT_EQ(bytes[size], '\0');
    tw_free(nullptr, bytes);
    EXPECT_EQ(tw_file_read(nullptr, path.c_str(), 6, &bytes, &size), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), path + ": 7 bytes, expected at most 6");
    EXPECT_EQ(bytes, nullptr);
}

TEST(File, SaysWhatIsWrongWithAFile) {
    TempDir dir;
    tw_file_mapping m;
    EXPECT_EQ(tw_file_map(nullptr, dir.file("no").c_str(), &m), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("no") + ": cannot open: No such file or directory");
    EXPECT_EQ(tw_file_map(nullptr, dir.path().c_str(), &m), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.path() + ": is a directory, expected a file");
    write_file(dir.file("empty"), "");
    EXPECT_EQ(tw_file_map(nullptr, dir.file("empty").c_str(), &m), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("empty") + ": the file is empty");
    ASSERT_EQ(mkfifo(dir.file("fifo").c_str(), 0600), 0);
    EXPECT_EQ(tw_file_map(nullptr, dir.file("fifo").c_str(), &m), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("fifo") + ": not a regular file");
    EXPECT_EQ(tw_file_map(nullptr, "", &m), TW_ERROR_ARGUMENT);
    EXPECT_EQ(m.data, nullptr);
}

TEST(File, WritesWholeAndKeepsPermissions) {
    TempDir dir;
    const std::string path = dir.file("out");
    ASSERT_EQ(tw_file_write(nullptr, path.c_str(), "first", 5), TW_OK) << error();
    EXPECT_EQ(read_file(path), "first");
    ASSERT_EQ(chmod(path.c_str(), 0640), 0);
    ASSERT_EQ(tw_file_write(nullptr, path.c_str(), "second", 6), TW_OK);
    EXPECT_EQ(read_file(path), "second");
    struct stat st;
    ASSERT_EQ(stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0640u);
    EXPECT_EQ(dir.entries(), 1u);
}

TEST(File, ANewFileFollowsTheUmask) {
    TempDir dir;
    const mode_t before = umask(027);
    const tw_status s = tw_file_write(nullptr, dir.file("x").c_str(), "x", 1);
    umask(before);
    ASSERT_EQ(s, TW_OK);
    struct stat st;
    ASSERT_EQ(stat(dir.file("x").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0640u);
}

TEST(File, WritesThroughASymbolicLink) {
    TempDir dir;
    write_file(dir.file("real"), "old");
    ASSERT_EQ(symlink("real", dir.file("link").c_str()), 0);
    ASSERT_EQ(tw_file_write(nullptr, dir.file("link").c_str(), "new", 3), TW_OK);
    EXPECT_EQ(read_file(dir.file("real")), "new");
    EXPECT_TRUE(std::filesystem::is_symlink(dir.file("link")));
}

TEST(File, StreamsMoreThanItsBuffer) {
    TempDir dir;
    const std::string path = dir.file("big");
    tw_file_writer *w;
    ASSERT_EQ(tw_file_writer_open(nullptr, path.c_str(), &w), TW_OK);
    std::string expected;
    for (size_t i = 0; i < 400; i++) {
        const std::string piece((i * 37) % 1500 + (i == 200 ? 200000 : 0), char('a' + i % 26));
        ASSERT_EQ(tw_file_writer_write(w, piece.data(), piece.size()), TW_OK);
        expected += piece;
    }
    EXPECT_FALSE(tw_file_exists(path.c_str())); // not before commit
    ASSERT_EQ(tw_file_writer_commit(w), TW_OK);
    EXPECT_TRUE(read_file(path) == expected);
}

TEST(File, AbortLeavesTheOldFile) {
    TempDir dir;
    const std::string path = dir.file("out");
    write_file(path, "old");
    tw_file_writer *w;
    ASSERT_EQ(tw_file_writer_open(nullptr, path.c_str(), &w), TW_OK);
    ASSERT_EQ(tw_file_writer_write(w, "new", 3), TW_OK);
    tw_file_writer_abort(w);
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(dir.entries(), 1u);
    tw_file_writer_abort(nullptr);
}

TEST(File, AFullDiskIsAnErrorAndLeavesTheOldFile) {
    TempDir dir;
    const std::string path = dir.file("out"), big(300000, 'x');
    write_file(path, "old");
    FileSizeLimit limit(100000);
    EXPECT_EQ(tw_file_write(nullptr, path.c_str(), big.data(), big.size()), TW_ERROR_IO);
    EXPECT_EQ(error(), path + ": cannot write: File too large");
    // Small pieces fail when the buffer is written, and go on failing.
    tw_file_writer *w;
    ASSERT_EQ(tw_file_writer_open(nullptr, path.c_str(), &w), TW_OK);
    tw_status s = TW_OK;
    for (int i = 0; i < 3000 && s == TW_OK; i++) s = tw_file_writer_write(w, big.data(), 100);
    EXPECT_EQ(s, TW_ERROR_IO);
    EXPECT_EQ(tw_file_writer_write(w, "x", 1), TW_ERROR_IO);
    EXPECT_EQ(tw_file_writer_commit(w), TW_ERROR_IO);
    EXPECT_EQ(error(), path + ": cannot write: File too large");
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(dir.entries(), 1u);
}

TEST(File, AFailureOnlySeenAtCommitIsCaught) {
    TempDir dir;
    const std::string path = dir.file("out");
    FileSizeLimit limit(10);
    tw_file_writer *w;
    ASSERT_EQ(tw_file_writer_open(nullptr, path.c_str(), &w), TW_OK);
    ASSERT_EQ(tw_file_writer_write(w, "twelve bytes", 12), TW_OK); // still in the buffer
    EXPECT_EQ(tw_file_writer_commit(w), TW_ERROR_IO);
    EXPECT_EQ(dir.entries(), 0u);
}

// As on a file system without nameless files.
TEST(File, TemporaryFilesAreTakenAway) {
    TempDir dir;
    const std::string path = dir.file("out"), big(300000, 'x');
    write_file(path, "old");
    tw_file_nameless = false;
    tw_file_writer *w;
    ASSERT_EQ(tw_file_writer_open(nullptr, path.c_str(), &w), TW_OK);
    EXPECT_EQ(dir.entries(), 2u);
    tw_file_writer_abort(w);
    EXPECT_EQ(dir.entries(), 1u);
    {
        FileSizeLimit limit(100000);
        EXPECT_EQ(tw_file_write(nullptr, path.c_str(), big.data(), big.size()), TW_ERROR_IO);
        EXPECT_EQ(error(), path + ": cannot write: File too large");
    }
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(tw_file_write(nullptr, path.c_str(), "new", 3), TW_OK);
    EXPECT_EQ(read_file(path), "new");
    EXPECT_EQ(dir.entries(), 1u);
    EXPECT_EQ(tw_file_write(nullptr, (dir.path() + "/none/out").c_str(), "x", 1), TW_ERROR_IO);
    EXPECT_NE(error().find("none/out: cannot create: No such file"), std::string::npos) << error();
    tw_file_nameless = true;
}

// However a process ends while it writes, no temporary file stays behind.
TEST(File, AKilledWriterLeavesNothing) {
    TempDir dir;
    const int probe = open(dir.path().c_str(), O_TMPFILE | O_WRONLY, 0666);
    if (probe < 0) GTEST_SKIP() << "this file system has no files without a name";
    close(probe);
    const pid_t child = fork();
    if (child == 0) {
        tw_file_writer *w;
        const std::string big(300000, 'x');
        if (tw_file_writer_open(nullptr, dir.file("out").c_str(), &w) != TW_OK ||
            tw_file_writer_write(w, big.data(), big.size()) != TW_OK)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(dir.entries(), 0u);
}

TEST(File, RefusesPlacesThatAreNoFiles) {
    TempDir dir;
    EXPECT_EQ(tw_file_write(nullptr, dir.path().c_str(), "x", 1), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.path() + ": is a directory, expected a file");
    EXPECT_EQ(tw_file_write(nullptr, dir.file("no/x").c_str(), "x", 1), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("no/x") + ": cannot create: No such file or directory");
    EXPECT_EQ(tw_file_write(nullptr, "/dev/full", "x", 1), TW_ERROR_IO);
    EXPECT_EQ(error(), "/dev/full: not a regular file, will not replace it");
    EXPECT_EQ(tw_file_write(nullptr, dir.file("new/").c_str(), "x", 1), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("new/") + ": is a directory, expected a file name");
    EXPECT_EQ(tw_file_write(nullptr, "", "x", 1), TW_ERROR_ARGUMENT);
}

TEST(File, LongNamesWork) {
    TempDir dir;
    const std::string path = dir.file(std::string(255, 'n')); // the longest that there is
    EXPECT_EQ(tw_file_write(nullptr, path.c_str(), "x", 1), TW_OK) << error();
    EXPECT_EQ(read_file(path), "x");
}

TEST(File, MakesDirectories) {
    TempDir dir;
    const std::string deep = dir.file("a/b//c/");
    ASSERT_EQ(tw_directory_make(nullptr, deep.c_str()), TW_OK) << error();
    EXPECT_TRUE(tw_directory_exists(dir.file("a/b/c").c_str()));
    EXPECT_EQ(tw_directory_make(nullptr, deep.c_str()), TW_OK);
    EXPECT_FALSE(tw_file_exists(dir.file("a").c_str()));
    write_file(dir.file("file"), "x");
    EXPECT_EQ(tw_directory_make(nullptr, dir.file("file/x").c_str()), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("file") + ": cannot make the directory: File exists");
    EXPECT_EQ(tw_directory_make(nullptr, "/"), TW_OK);
    EXPECT_EQ(tw_directory_make(nullptr, ""), TW_ERROR_ARGUMENT);
}

} // namespace

// The benchmark's measuring path without a GPU: the kernels emulated, the runtime stood in for,
// every row of the plan at a small shape.
#include "copy.h"
#include "job.h"
#include "measure.h"
#include "report.h"
#include "runtime.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

std::vector<bench_row> plan() {
    std::vector<bench_row> rows(BENCH_MAX_ROWS);
    rows.resize(bench_plan(rows.data()));
    return rows;
}

std::string label(const bench_row &r) {
    char shape[BENCH_SHAPE_TEXT];
    bench_shape_text(&r, shape);
    return std::string(r.name) + " " + shape + " " + bench_format_name(r.format);
}

// One row for each kernel and format, at its small shape.
std::vector<bench_row> small_rows() {
    std::map<std::string, bench_row> rows;
    for (const bench_row &r : plan()) {
        const bench_row small = bench_small_twin(&r);
        rows.emplace(label(small), small);
    }
    std::vector<bench_row> all;
    for (const auto &r : rows) all.push_back(r.second);
    return all;
}

// Libraries that would look for a GPU of their own are not there.
constexpr bench_library_files nowhere = {"/nonexistent/cudnn", "/nonexistent/cublaslt",
                                         "/nonexistent/driver"};

class Bench : public ::testing::Test {
  protected:
    void SetUp() override { live_ = runtime_live(); }
    void TearDown() override {
        runtime_fail_malloc(0);
        runtime_set_devices(1);
        EXPECT_EQ(runtime_live(), live_) << "something was not freed";
    }

  private:
    size_t live_ = 0;
};

struct Job {
    bench_job job = {};
    explicit Job(const bench_row &row) { made = bench_job_make(&row, 2, &job); }
    ~Job() {
        if (made) bench_job_free(&job);
    }
    bool made;
    bench_check check() {
        bench_check k = {};
        bench_job_check(&job, &k);
        return k;
    }
};

TEST_F(Bench, TheCheckHoldsForEveryRow) {
    for (const bench_row &row : small_rows()) {
        Job j(row);
        ASSERT_TRUE(j.made) << label(row);
        ASSERT_GE(j.job.sets, 2) << label(row);
        for (int set = 0; set < j.job.sets; set++)
            ASSERT_EQ(bench_job_run(&j.job, set, nullptr), TWK_OK)
                << label(row) << ": " << twk_error_text();
        const bench_check k = j.check();
        EXPECT_TRUE(bench_is_right(&k)) << label(row) << ": " << k.worst << " of the bound";
        EXPECT_GT(k.count, 0) << label(row);
    }
}

// Whatever the check says depends on the inputs and on the outputs: each block of memory in turn is
// spoilt at its start and at its end.
TEST_F(Bench, TheCheckNoticesSpoiltMemory) {
    for (const bench_row &row : small_rows()) {
        Job j(row);
        ASSERT_TRUE(j.made) << label(row);
        ASSERT_EQ(bench_job_run(&j.job, 0, nullptr), TWK_OK) << label(row);
        const size_t blocks = j.job.memory.count / 2; // of the first set
        int seen = 0;
        for (size_t i = 0; i < blocks; i++) {
            if (row.kind == BENCH_ADAMW && i > 12 && i + 24 < blocks)
                continue; // some of 300 tensors
            const bench_block b = j.job.memory.block[i];
            if (row.kind == BENCH_ADAMW && b.bytes == 300 * sizeof(twk_parameter)) continue;
            const size_t some = b.bytes < 64 ? b.bytes : 64;
            for (char *at :
                 {static_cast<char *>(b.data), static_cast<char *>(b.data) + b.bytes - some}) {
                char before[64];
                memcpy(before, at, some);
                for (size_t k = 0; k < some; k++) at[k] = (char)(0x35 ^ at[k]);
                const bench_check spoilt = j.check();
                seen += !bench_is_right(&spoilt);
                memcpy(at, before, some);
            }
        }
        // An output and an input, at the least.
        EXPECT_GE(seen, row.kind == BENCH_NOISE ? 1 : 2) << label(row);
        const bench_check again = j.check();
        EXPECT_TRUE(bench_is_right(&again)) << label(row);
    }
}

TEST_F(Bench, NaNIsWrong) {
    bench_check k = {};
    bench_compare(&k, TWK_F32, NAN, bench_value{1, 1}, 8);
    bench_compare(&k, TWK_F32, 1, bench_value{1, 1}, 8);
    EXPECT_TRUE(std::isnan(k.worst));
    EXPECT_FALSE(bench_is_right(&k));
    bench_check none = {};
    EXPECT_FALSE(bench_is_right(&none)) << "nothing was compared";
}

TEST_F(Bench, EndsMeetButNeverOverlap) {
    bench_range range[2];
    EXPECT_EQ(bench_ends(5, 3, range), 1);
    EXPECT_EQ(range[0].count, 5);
    EXPECT_EQ(bench_ends(2, 3, range), 1);
    EXPECT_EQ(range[0].count, 2);
    EXPECT_EQ(bench_ends(6, 3, range), 2);
    EXPECT_EQ(range[1].first, 3);
    EXPECT_EQ(range[1].count, 3);
}

// One call after the other finds no memory: refused, and everything is given back.
TEST_F(Bench, MemoryThatRunsOut) {
    for (const bench_row &row : small_rows()) {
        if (row.kind == BENCH_ADAMW) continue; // thousands of allocations, all by one function
        for (size_t n = 1;; n++) {
            runtime_fail_malloc(n);
            Job j(row);
            if (j.made) break;
            ASSERT_LT(n, 64u) << label(row);
        }
        runtime_fail_malloc(0);
    }
    bench_device_copy copy;
    runtime_fail_malloc(3);
    EXPECT_FALSE(bench_device_copy_make(1e4, 2, &copy));
}

TEST_F(Bench, MeasuresEveryRow) {
    const std::vector<bench_row> rows = small_rows();
    const std::string path = ::testing::TempDir() + "bench_rows.jsonl";
    bench_options options = {};
    options.files = nowhere;
    options.filter = "";
    options.json = path.c_str();
    options.small = true;
    ::testing::internal::CaptureStdout();
    const int status = bench_measure(rows.data(), rows.size(), &options);
    const std::string text = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(status, 0) << text;
    EXPECT_EQ(text.find("failed"), std::string::npos) << text;
    EXPECT_EQ(text.find("WRONG"), std::string::npos) << text;
    EXPECT_NE(text.find("peer two cudaMemcpy2DAsync"), std::string::npos) << text;
    std::ifstream file(path);
    std::string line;
    size_t lines = 0;
    while (std::getline(file, line)) {
        EXPECT_EQ(line.front(), '{');
        EXPECT_EQ(line.back(), '}');
        if (lines++) {
            EXPECT_NE(line.find("\"right\":true"), std::string::npos) << line;
        }
    }
    EXPECT_EQ(lines, rows.size() + 1);
    remove(path.c_str());
}

TEST_F(Bench, SaysWhatItCannotDo) {
    const std::vector<bench_row> rows = plan();
    bench_options options = {};
    options.files = nowhere;
    options.small = true;
    options.json = "/nonexistent/file";
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(bench_measure(rows.data(), 1, &options), 1);
    runtime_set_devices(0);
    EXPECT_EQ(bench_measure(rows.data(), 1, &options), 2);
    const std::string text = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(text.find("--json: cannot write /nonexistent/file"), std::string::npos) << text;
    EXPECT_NE(text.find("no CUDA device"), std::string::npos) << text;
    runtime_set_devices(1);
    // A row for which there is no memory is reported and the others go on.
    options.json = nullptr;
    ::testing::internal::CaptureStdout();
    runtime_fail_malloc(12);
    EXPECT_EQ(bench_measure(rows.data(), 2, &options), 1);
    const std::string out = ::testing::internal::GetCapturedStdout();
    EXPECT_NE(out.find("failed"), std::string::npos) << out;
    EXPECT_NE(out.find("of bound"), std::string::npos) << out;
}

TEST_F(Bench, GoesOnFromARow) {
    const std::vector<bench_row> rows = plan();
    const std::string path = ::testing::TempDir() + "tweedie_bench_from.jsonl";
    bench_options options = {};
    options.files = nowhere;
    options.small = options.alone = true;
    options.json = path.c_str();
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(bench_measure(rows.data(), 1, &options), 0);
    options.from = 1;
    options.row_seconds = 600;
    EXPECT_EQ(bench_measure(rows.data(), 2, &options), 0);
    // A row that loses the device is the last of its process.
    runtime_lose_device(1);
    EXPECT_EQ(bench_measure(rows.data(), 3, &options), BENCH_STOPPED);
    runtime_lose_device(0);
    const std::string out = ::testing::internal::GetCapturedStdout();
    EXPECT_NE(out.find("kernel_bench: row 1 lost the device"), std::string::npos) << out;
    EXPECT_EQ(out.find("row 2"), std::string::npos) << out;
    std::ifstream file(path);
    std::string line;
    std::vector<bool> of_a_row;
    while (std::getline(file, line))
        of_a_row.push_back(line.find("\"right\"") != std::string::npos);
    EXPECT_EQ(of_a_row, (std::vector<bool>{false, true, true})) << "the machine, the two rows";
    remove(path.c_str());
}

TEST_F(Bench, ARowThatDoesNotEnd) {
    const std::vector<bench_row> rows = plan();
    bench_options options = {};
    options.files = nowhere;
    options.small = options.alone = true;
    options.row_seconds = 1;
    options.from = 1;
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            runtime_hang();
            dup2(STDERR_FILENO, STDOUT_FILENO);
            bench_measure(rows.data(), 2, &options);
        },
        ::testing::ExitedWithCode(BENCH_STOPPED), "row 1 does not end");
}

// Every row of the plan fits the types that the launchers take, without running it.
TEST_F(Bench, ThePlanIsInOrder) {
    for (const bench_row &r : plan()) {
        EXPECT_GT(r.percent, 0);
        // Of the floor by nominal FLOPs, of which a folded convolution executes a part.
        const double part = r.executed > 0 && r.executed < 1 ? r.executed : 1;
        EXPECT_LT(r.percent * part, 100) << label(r);
        EXPECT_GT(bench_bytes(&r), 2e5) << label(r);
        EXPECT_LT(bench_floor_seconds(&r) * part, bench_predicted_seconds(&r)) << label(r);
    }
}

} // namespace

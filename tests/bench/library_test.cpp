// The libraries' side of the benchmark, over libraries that stand in for cuDNN and cuBLASLt.
#include "library.h"
#include "measure.h"
#include "report.h"
#include "runtime.h"
#include "vendor/fake/fake.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

extern "C" fake::State *fake_state();

namespace {

constexpr bench_library_files stand_ins = {FAKE_CUDNN, FAKE_CUBLASLT, FAKE_DRIVER};
constexpr bench_library_files nowhere = {"/nonexistent/cudnn", "/nonexistent/cublaslt",
                                         "/nonexistent/driver"};

std::string label(const bench_row &r) {
    char shape[BENCH_SHAPE_TEXT];
    bench_shape_text(&r, shape);
    return std::string(r.name) + " " + shape + " " + bench_format_name(r.format);
}

// One row for each kernel and format that a library may have, at its small shape.
std::vector<bench_row> small_rows() {
    std::vector<bench_row> all(BENCH_MAX_ROWS), some;
    all.resize(bench_plan(all.data()));
    std::map<std::string, bench_row> rows;
    for (const bench_row &r : all) {
        const bench_row small = bench_small_twin(&r);
        if (bench_has_library(r.kind)) rows.emplace(label(small), small);
    }
    for (const auto &r : rows) some.push_back(r.second);
    return some;
}

fake::Engine engine(int64_t index, float milliseconds, size_t workspace) {
    fake::Engine e;
    e.index = index;
    e.milliseconds = milliseconds;
    e.workspace = workspace;
    return e;
}

class Library : public ::testing::Test {
  protected:
    bench_libraries libraries = {};
    bench_peer peer = {};
    void SetUp() override {
        live_ = runtime_live();
        *fake_state() = fake::State();
        engines({engine(1, 3, 0), engine(2, 1, 512)});
    }
    void TearDown() override {
        bench_libraries_close(&libraries);
        EXPECT_EQ(runtime_live(), live_) << "something was not freed";
        EXPECT_EQ(fake_state()->live, 0);
    }
    static void engines(const std::vector<fake::Engine> &e) {
        fake_state()->n_engines = static_cast<int>(e.size());
        for (size_t i = 0; i < e.size(); i++) fake_state()->engines[i] = e[i];
    }
    bool make(const bench_row &row) { return bench_peer_make(&libraries, &row, 2, nullptr, &peer); }

  private:
    size_t live_ = 0;
};

TEST_F(Library, EveryRowHasAPeerOrAReason) {
    ASSERT_TRUE(bench_libraries_open(&stand_ins, false, &libraries));
    for (const bench_row &row : small_rows()) {
        if (!make(row)) {
            // Exact fp32 attention has none; of its gradient there may be none at all.
            EXPECT_TRUE(row.kind == BENCH_ATTENTION_BACKWARD ||
                        (row.kind == BENCH_ATTENTION && row.format == TWK_F32))
                << label(row) << ": " << peer.text;
            EXPECT_EQ(std::string(peer.text).rfind("none: ", 0), 0u) << peer.text;
            EXPECT_GT(strlen(peer.text), 10u);
            continue;
        }
        EXPECT_NE(std::string(peer.text).find(row.kind >= BENCH_GEMM && row.kind < BENCH_ATTENTION
                                                  ? "algorithm 2, "
                                                  : "engine 2, "),
                  std::string::npos)
            << peer.text;
        EXPECT_NE(std::string(peer.text).find("quickest of 2"), std::string::npos) << peer.text;
        EXPECT_TRUE(bench_peer_run(&peer, 0, nullptr)) << label(row) << ": " << tw_vendor_text();
        bench_check k = {};
        bench_peer_check(&peer, &k);
        EXPECT_TRUE(bench_is_right(&k)) << label(row) << ": " << k.worst << " of the bound";
        bench_peer_free(&peer);
    }
}

TEST_F(Library, IsGivenOneImage) {
    bench_row row = {};
    row.h = 6;
    row.w = 5;
    row.c = 64;
    row.second = 24;
    row.upsampled = true;
    const bench_row given = bench_library_row(&row);
    EXPECT_EQ(given.h, 12);
    EXPECT_EQ(given.w, 10);
    EXPECT_EQ(given.c, 64);
    EXPECT_EQ(given.second, 0);
    EXPECT_FALSE(given.upsampled);
}

int times(const std::string &text, const std::string &part) {
    int n = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at++) n++;
    return n;
}

// What is measured of the first convolution and of the first product, as lines of JSON.
std::string measure(const bench_library_files &files, int standings) {
    std::vector<bench_row> rows;
    for (const bench_row &r : small_rows())
        if (r.kind == (rows.empty() ? BENCH_CONV : BENCH_GEMM) && rows.size() < 2)
            rows.push_back(r);
    EXPECT_EQ(rows.size(), 2u);
    const std::string path = ::testing::TempDir() + "bench_library.jsonl";
    bench_options options = {};
    options.json = path.c_str();
    options.small = true;
    options.files = files;
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(bench_measure(rows.data(), rows.size(), &options), 0);
    std::string text = ::testing::internal::GetCapturedStdout();
    EXPECT_EQ(text.find("failed"), std::string::npos) << text;
    EXPECT_EQ(times(text, "beside the libraries' best: "), standings) << text;
    std::ifstream file(path);
    text.assign(std::istreambuf_iterator<char>(file), {});
    remove(path.c_str());
    return text;
}

TEST_F(Library, IsMeasuredInTurn) {
    const std::string text = measure(stand_ins, 2);
    EXPECT_EQ(times(text, "quickest of 2\""), 2) << text;
    EXPECT_EQ(times(text, "\"peer_error_of_bound\":"), 2) << text;
    EXPECT_EQ(times(text, "\"predicted_ratio\":"), 2) << text;
    EXPECT_EQ(times(text, "\"peer_ratio\":null"), 0) << text;
}

TEST_F(Library, ThatIsNotThereIsNoFailure) {
    const std::string text = measure(nowhere, 0);
    EXPECT_EQ(times(text, "\"peer\":\"none: "), 2) << text;
    EXPECT_EQ(times(text, "/nonexistent/cudnn"), 1) << text;
    EXPECT_EQ(times(text, "\"peer_ratio\":null"), 2) << text;
}

TEST_F(Library, ThatIsWrongIsNotTimed) {
    fake::Engine e = engine(1, 1, 0);
    e.wrong = true;
    engines({e});
    const std::string text = measure(stand_ins, 0);
    EXPECT_EQ(times(text, "\"peer\":\"none: wrong, "), 2) << text;
    EXPECT_EQ(times(text, "\"peer_ratio\":null"), 2) << text;
}

TEST_F(Library, ThatBreaksIsNotTimed) {
    fake::Engine e = engine(1, 1, 0);
    e.breaks = true;
    engines({e});
    EXPECT_EQ(times(measure(stand_ins, 0), "\"peer\":\"none: "), 2);
}

TEST_F(Library, StandingsAreByName) {
    bench_row row = {};
    row.name = "a";
    row.n = row.h = row.w = 1;
    bench_result result = {};
    bench_standing all[BENCH_STANDINGS] = {};
    const auto add = [&](const char *name, int64_t c, double ratio) {
        row.name = name;
        row.c = c;
        result.peer_cold.median = ratio;
        result.beside_peer.median = 1;
        bench_count_row(&row, &result, all);
    };
    add("a", 1, 2); // no peer
    result.has_peer = true;
    add("a", 2, 2); // not a library
    result.peer_check.count = 1;
    add("a", 3, 0.5);
    add("b", 4, 3);
    add("a", 5, 0.25);
    add("a", 6, 1);
    EXPECT_EQ(all[0].rows, 3);
    EXPECT_EQ(all[0].least, 0.25);
    EXPECT_STREQ(all[0].where, "1x1x1x5");
    EXPECT_NEAR(std::exp(all[0].logarithms / 3), 0.5, 1e-12);
    EXPECT_EQ(all[1].rows, 1);
    EXPECT_EQ(all[2].name, nullptr);
    const std::string names[] = {"c", "d", "e", "f", "g", "h", "i", "j",
                                 "k", "l", "m", "n", "o", "p", "q", "r"};
    for (const std::string &name : names) add(name.c_str(), 7, 1); // more than there is room for
    EXPECT_STREQ(all[BENCH_STANDINGS - 1].name, "p");
}

TEST_F(Library, MemoryThatRunsOut) {
    ASSERT_TRUE(bench_libraries_open(&stand_ins, false, &libraries));
    const bench_row row = small_rows().front();
    for (size_t n = 1;; n++) {
        runtime_fail_malloc(n);
        if (make(row)) break;
        EXPECT_NE(std::string(peer.text).find("no memory"), std::string::npos) << peer.text;
        ASSERT_LT(n, 64u);
    }
    runtime_fail_malloc(0);
    bench_peer_free(&peer);
}

} // namespace

// A directory that goes with the test, and small helpers on files and bytes.
#ifndef TW_TESTS_SUPPORT_TEMPDIR_H
#define TW_TESTS_SUPPORT_TEMPDIR_H

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>

namespace tw_test {

class TempDir {
  public:
    TempDir() {
        std::string pattern = (std::filesystem::temp_directory_path() / "tweedie-XXXXXX").string();
        if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
        path_ = pattern;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir &) = delete;
    TempDir &operator=(const TempDir &) = delete;

    const std::string &path() const { return path_; }
    std::string file(const std::string &name) const { return path_ + "/" + name; }
    // Number of files and directories in it, the hidden ones included.
    size_t entries() const {
        return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_),
                                                 std::filesystem::directory_iterator()));
    }

  private:
    std::string path_;
};

inline void write_file(const std::string &path, const std::string &bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

inline std::string read_file(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + path);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

// The bytes of a number in memory (little-endian here).
template <typename T> std::string bytes_of(const T &value) {
    return std::string(reinterpret_cast<const char *>(&value), sizeof value);
}

// A fixed sequence of numbers (xorshift64*): the same on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed ? seed : 1) {}
    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1DULL;
    }
    uint64_t below(uint64_t n) { return (next() >> 11) % n; }

  private:
    uint64_t state_;
};

// `bytes` with one to four bytes changed, removed or inserted.
inline std::string mutate(std::string bytes, Random &random) {
    for (uint64_t edits = 1 + random.below(4); edits; edits--) {
        const size_t at = bytes.empty() ? 0 : random.below(bytes.size());
        const char byte = static_cast<char>(random.next() >> 32);
        const uint64_t kind = bytes.empty() ? 2 : random.below(4);
        if (kind == 0)
            bytes.erase(at, 1);
        else if (kind == 2)
            bytes.insert(at, 1, byte);
        else
            bytes[at] = byte;
    }
    return bytes;
}

} // namespace tw_test

#endif

// A corpus of bad files, described rather than kept, with the expected answer to each: the status
// and words of the one line. None may ask for much more memory than the file has bytes.
#include <zlib.h>

#include "support/scarce.h"
#include "support/tempdir.h"

extern "C" {
#include "data/dataset.h"
#include "io/image.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "models/model.h"
}

namespace {

using tw_test::bytes_of;
using tw_test::Scarce;

struct Bad {
    std::string bytes;
    tw_status status;
    std::vector<std::string> words;
};

using Reader = std::function<tw_status(tw_context *, const std::string &)>;

void refuse(const std::vector<Bad> &files, const Reader &read) {
    Scarce scarce;
    const int64_t before = scarce.held();
    for (size_t i = 0; i < files.size(); i++) {
        const Bad &bad = files[i];
        SCOPED_TRACE("file " + std::to_string(i) + ": " + bad.bytes.substr(0, 160));
        EXPECT_EQ(read(scarce.ctx(), bad.bytes), bad.status) << tw_context_error(scarce.ctx());
        const std::string line = tw_context_error(scarce.ctx());
        for (const std::string &word : bad.words)
            EXPECT_NE(line.find(word), std::string::npos) << line;
        for (const char c : line) EXPECT_TRUE((unsigned char)c >= 0x20 && c != 0x7f) << line;
        EXPECT_LT(line.size(), 500u) << line;
        EXPECT_EQ(scarce.held(), before);
        EXPECT_LT(scarce.largest(), (size_t)64 << 20) << line;
    }
}

// --- Safetensors ---

std::string with_header(const std::string &header, const std::string &data = "",
                        uint64_t length = UINT64_MAX) {
    return bytes_of<uint64_t>(length == UINT64_MAX ? header.size() : length) + header + data;
}
std::string entry(const std::string &name, const std::string &dtype, const std::string &shape,
                  const std::string &offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
}

tw_status read_safetensors(tw_context *ctx, const std::string &bytes) {
    tw_safetensors *st = nullptr;
    const tw_status s = tw_safetensors_parse(ctx, bytes.data(), bytes.size(), "m.st", &st);
    EXPECT_EQ(st != nullptr, s == TW_OK);
    tw_safetensors_close(st);
    return s;
}

TEST(HardFiles, Safetensors) {
    const std::string big = "1152921504606846976"; // 2^60
    const std::string deep(5000, '['), closing(5000, ']');
    const tw_status F = TW_ERROR_FORMAT;
    refuse(
        {
            // Sizes beyond everything.
            {with_header("{" + entry("x", "U8", "[" + big + "]", "[0," + big + "]") + "}", "a"),
             F,
             {"m.st: tensor \"x\"", "ends at byte " + big}},
            {with_header("{" + entry("x", "F32", "[" + big + "]", "[0,4]") + "}", "abcd"),
             F,
             {"4 bytes do not hold " + big}},
            {with_header("{" + entry("x", "F32", "[" + big + ",16]", "[0,0]") + "}"),
             F,
             {"\"shape\"", "63 bits"}},
            {with_header("{" + entry("x", "F32", "[" + big + ",16,0]", "[0,0]") + "}"),
             F,
             {"\"shape\"", "63 bits"}},
            {with_header("{" + entry("x", "U8", "[18446744073709551617]", "[0,1]") + "}", "a"),
             F,
             {"m.st: the header"}},
            {with_header("{" + entry("x", "U8", "[1]", "[0,18446744073709551617]") + "}", "a"),
             F,
             {"m.st: the header"}},
            {with_header("{" + entry("x", "U8", "[1e2]", "[0,100]") + "}", std::string(100, 'a')),
             F,
             {"\"shape\": expected whole numbers"}},
            // Overlaps and holes, also of empty tensors.
            {with_header("{" + entry("a", "U8", "[4]", "[0,4]") + "," +
                             entry("b", "U8", "[2]", "[1,3]") + "}",
                         "abcd"),
             F,
             {"tensor \"b\"", "overlap"}},
            {with_header("{" + entry("a", "U8", "[2]", "[0,2]") + "," +
                             entry("b", "U8", "[0]", "[1,1]") + "}",
                         "ab"),
             F,
             {"tensor \"b\"", "overlap"}},
            {with_header("{" + entry("a", "U8", "[0]", "[1,1]") + "}", "a"),
             F,
             {"tensor \"a\"", "hole"}},
            // Types.
            {with_header("{\"x\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,1]}}", "a"),
             F,
             {"\"dtype\": expected a string"}},
            {with_header("{\"x\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,1]}}", "a"),
             F,
             {"\"dtype\": expected a string"}},
            {with_header("{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", "a"),
             F,
             {"\"shape\": expected an array"}},
            {with_header("{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", "a"),
             F,
             {"\"data_offsets\": expected [begin, end]"}},
            {with_header("{" + entry("x", "U8", "[true]", "[0,1]") + "}", "a"),
             F,
             {"\"shape\": expected whole numbers"}},
            {with_header("{" + entry("x", "U8", "[1]", "{\"0\":1}") + "}", "a"),
             F,
             {"\"data_offsets\": expected [begin, end]"}},
            {with_header("{\"x\":[]}"), F, {"tensor \"x\": expected a JSON object"}},
            {with_header("{" + entry("x", "F4", "[2]", "[0,1]") + "}", "a"),
             F,
             {"unknown dtype \"F4\""}},
            // Text that is no header.
            {with_header("{\"x\":" + deep + closing + "}"), F, {"m.st: the header: "}},
            {with_header("{\"x\":" + deep), F, {"m.st: the header: "}},
            {with_header("{\"\xff\xfe\":1}"), F, {"m.st: the header: "}},
            {with_header(std::string("{\"a\0b\":1}", 9)), F, {"m.st: the header: "}},
            {with_header("{\"a\\u0000b\":1}"), F, {"m.st: the header: "}},
            {with_header("{\"x\":NaN}"), F, {"m.st: the header: "}},
            {with_header("{}{}"), F, {"m.st: the header: "}},
            {with_header("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"),
             F,
             {"duplicate object key"}},
            {with_header("{\"__metadata__\":null}"), F, {"__metadata__: expected a JSON object"}},
            {with_header("{\"__metadata__\":{\"a\":{}}}"), F, {"__metadata__", "string"}},
            {with_header(""), F, {"the header is no JSON object"}},
            // Lengths.
            {std::string(7, '\0'), F, {"7 bytes, too short"}},
            {with_header("{}", "", uint64_t(1) << 60), F, {"a header of " + big + " bytes"}},
            {with_header("{}", "", uint64_t(1) << 63), F, {"9223372036854775808"}},
            {with_header("{}", "", 100000000), F, {"cut short"}},
            {with_header("{}", "", 1), F, {"the header is no JSON object"}},
        },
        read_safetensors);
}

// --- Configurations ---

tw_status read_config(tw_context *ctx, const std::string &text) {
    tw_model *m = nullptr;
    const tw_status s = tw_model_create(ctx, text.c_str(), nullptr, nullptr, 0, 1, &m);
    EXPECT_EQ(m != nullptr, s == TW_OK);
    tw_model_free(m);
    return s;
}

// A small UNet's configuration with some keys added or replaced.
std::string unet(const std::string &changed) {
    return R"({"_class_name": "UNet2DModel", )" + changed + R"(, "in_channels": 1,
        "out_channels": 1, "norm_num_groups": 4})";
}
std::string mlp(const std::string &changed) {
    return R"({"_class_name": "TweedieMLP", )" + changed + "}";
}
const std::string kTwo = R"("block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"])";

TEST(HardFiles, ModelConfigurations) {
    const tw_status F = TW_ERROR_FORMAT, U = TW_ERROR_UNSUPPORTED;
    const std::string big = "1152921504606846976";
    refuse(
        {
            {"", F, {"config.json"}},
            {"null", F, {"config.json"}},
            {"[]", F, {"config.json", "JSON object"}},
            {"{}", F, {"config.json: \"_class_name\" is missing"}},
            {R"({"_class_name": null})", F, {"\"_class_name\": expected a string, got null"}},
            {R"({"_class_name": 7})", F, {"\"_class_name\": expected a string, got 7"}},
            {R"({"_class_name": ""})", U, {"_class_name: \"\" is not supported"}},
            {R"({"_class_name": "UNet2DConditionModel"})", U, {"UNet2DConditionModel", "expected"}},
            {R"({"_class_name": ")" + std::string(100000, 'a') + "\"}", U, {"is not supported"}},
            {"{\"_class_name\": \"Unet\\u001b[31m\\n\"}", U, {"Unet [31m"}},
            {std::string("{\"a\":") + std::string(100000, '[') + "}", F, {"config.json: line 1"}},
            // Sizes.
            {unet(kTwo), U, {"sample_size", "missing"}},
            {unet(kTwo + R"(, "sample_size": null)"), U, {"sample_size", "missing or null"}},
            {unet(kTwo + R"(, "sample_size": 0)"), F, {"sample_size", "from 1 to 65536, got 0"}},
            {unet(kTwo + R"(, "sample_size": 7)"), F, {"sample_size: 7 x 7", "multiples of 2"}},
            {unet(kTwo + R"(, "sample_size": [8])"), F, {"sample_size", "[height, width]"}},
            {unet(kTwo + R"(, "sample_size": [8, 8, 8])"), F, {"sample_size", "at most 2"}},
            {unet(kTwo + R"(, "sample_size": "8")"), F, {"sample_size", "got \"8\""}},
            {unet(kTwo + R"(, "sample_size": )" + big), F, {"sample_size", "got " + big}},
            {unet(kTwo + R"(, "sample_size": 8.5)"), F, {"sample_size", "got 8.5"}},
            {unet(kTwo + R"(, "sample_size": NaN)"), U, {"sample_size"}},
            {unet(kTwo + R"(, "sample_size": -8)"), F, {"sample_size", "got -8"}},
            {unet(kTwo + R"(, "sample_size": 99999999999999999999)"), F, {"config.json: line"}},
            // Lists.
            {unet(R"("sample_size": 8, "block_out_channels": [])"), F, {"0, 4 and 4 entries"}},
            {unet(R"("sample_size": 8, "block_out_channels": [8, "16"])"),
             F,
             {"\"block_out_channels\"[1]", "got \"16\""}},
            {unet(R"("sample_size": 8, "block_out_channels": [8, 6], "down_block_types":
                ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"])"),
             F,
             {"block_out_channels[1]: 6 channels do not divide", "4"}},
            {unet(
                 R"("sample_size": 8, "block_out_channels": [8], "down_block_types": ["DownBlock2D"],
                "up_block_types": ["UpBlock3D"])"),
             U,
             {"up_block_types[0]", "UpBlock3D", "expected"}},
            {unet(
                 R"("sample_size": 8, "block_out_channels": [8], "down_block_types": "DownBlock2D")"),
             F,
             {"down_block_types", "an array"}},
            // Numbers.
            {unet(kTwo + R"(, "sample_size": 8, "layers_per_block": 1e9)"),
             F,
             {"layers_per_block"}},
            {unet(kTwo + R"(, "sample_size": 8, "layers_per_block": 2147483647)"),
             F,
             {"layers_per_block", "got 2147483647"}},
            {unet(kTwo + R"(, "sample_size": 8, "norm_eps": -1e-5)"), F, {"norm_eps", "above 0"}},
            {unet(kTwo + R"(, "sample_size": 8, "norm_eps": Infinity)"), F, {"norm_eps"}},
            {unet(kTwo + R"(, "sample_size": 8, "dropout": 1)"), F, {"dropout", "below 1"}},
            {unet(kTwo + R"(, "sample_size": 8, "dropout": "0.1")"), F, {"dropout", "got \"0.1\""}},
            {unet(kTwo + R"(, "sample_size": 8, "freq_shift": 1e300)"), F, {"freq_shift"}},
            {unet(kTwo + R"(, "sample_size": 8, "attention_head_dim": 0)"),
             F,
             {"attention_head_dim", "got 0"}},
            {unet(kTwo + R"(, "sample_size": 8, "num_class_embeds": -1)"),
             F,
             {"num_class_embeds", "got -1"}},
            {unet(kTwo + R"(, "sample_size": 8, "act_fn": "swoosh")"), U, {"act_fn", "swoosh"}},
            {unet(kTwo + R"(, "sample_size": 8, "time_embedding_type": "learned")"),
             F,
             {"num_train_timesteps"}},
            {unet(kTwo + R"(, "sample_size": 8, "image_size": 8)"),
             U,
             {"image_size", "sample_size"}},
            {R"({"_class_name": "UNet2DModel", "sample_size": 8, "sample_size": 16})",
             F,
             {"duplicate object key"}},
            {mlp(R"("in_features": 0)"), F, {"in_features", "got 0"}},
            {mlp(R"("hidden": 1)"), F, {"hidden", "got 1"}},
            {mlp(R"("hidden": true)"), F, {"hidden", "got true"}},
            {mlp(R"("layers": 65)"), F, {"layers", "from 1 to 64, got 65"}},
            {mlp(R"("act_fn": null)"), F, {"act_fn", "got null"}},
            {mlp(R"("num_class_embeds": 1.5)"), F, {"num_class_embeds", "got 1.5"}},
        },
        read_config);
}

tw_status read_scheduler(tw_context *ctx, const std::string &text) {
    tw_model *m = nullptr;
    const tw_status s = tw_model_create(ctx, R"({"_class_name": "TweedieMLP", "hidden": 4})",
                                        text.c_str(), nullptr, 0, 1, &m);
    tw_model_free(m);
    return s;
}

TEST(HardFiles, SchedulerConfigurations) {
    const tw_status F = TW_ERROR_FORMAT, U = TW_ERROR_UNSUPPORTED, A = TW_ERROR_ARGUMENT;
    const std::string name = "scheduler_config.json";
    refuse(
        {
            {"", F, {name}},
            {"7", F, {name, "JSON"}},
            {R"({"_class_name": "FlowMatchEulerDiscreteScheduler"})", U, {name, "FlowMatch"}},
            {R"({"_class_name": ["DDPMScheduler"]})", F, {name, "expected a string"}},
            {R"({"num_train_timesteps": 0})", F, {name, "num_train_timesteps", "got 0"}},
            {R"({"num_train_timesteps": 1152921504606846976})", F, {"num_train_timesteps"}},
            {R"({"num_train_timesteps": 1e3})", F, {"num_train_timesteps", "got 1000"}},
            {R"({"num_train_timesteps": null})", F, {"num_train_timesteps", "got null"}},
            {R"({"beta_start": "0.1"})", F, {"beta_start", "got \"0.1\""}},
            {R"({"beta_start": NaN})", F, {"beta_start", "got null"}},
            {R"({"beta_start": 1e999})", F, {name}},
            {R"({"beta_start": 0})", A, {name, "betas from 0"}},
            {R"({"beta_start": 0.5, "beta_end": 0.1})", A, {name, "start <= end"}},
            {R"({"beta_start": 0.9, "beta_end": 0.99})", A, {name, "signal is gone"}},
            {R"({"beta_schedule": "geometric"})", U, {name, "beta_schedule", "expected one of"}},
            {R"({"beta_schedule": 3})", F, {name, "beta_schedule"}},
            {R"({"trained_betas": []})", F, {name, "trained_betas"}},
            {R"({"trained_betas": {"0": 1}})", F, {name, "trained_betas"}},
            {R"({"trained_betas": [0.1, "0.2"]})", F, {name, "trained_betas", "[1]"}},
            {R"({"trained_betas": [0.1, 2]})", A, {name, "beta[1] is 2"}},
            {R"({"trained_betas": [0.1], "num_train_timesteps": 2})", F, {"1 trained_betas"}},
            {R"({"prediction_type": "flow"})", U, {name, "prediction_type"}},
            {R"({"timestep_spacing": "log"})", U, {name, "timestep_spacing"}},
            {R"({"clip_sample": 1})", F, {name, "clip_sample", "true or false, got 1"}},
            {R"({"clip_sample_range": -1})", F, {name, "clip_sample_range"}},
            {R"({"thresholding": true, "dynamic_thresholding_ratio": 2})", F, {"ratio"}},
            {R"({"thresholding": true, "sample_max_value": 0})", F, {"sample_max_value"}},
            {R"({"rescale_betas_zero_snr": "yes"})", F, {"rescale_betas_zero_snr"}},
            {R"({"steps_offset": -1})", F, {name, "steps_offset"}},
        },
        read_scheduler);
}

// --- Data ---

std::string npy(const std::string &header, const std::string &data, int version = 1) {
    std::string length = bytes_of<uint32_t>(uint32_t(header.size()));
    if (version == 1) length.resize(2);
    return std::string("\x93NUMPY") + char(version) + std::string(1, '\0') + length + header + data;
}
std::string npy_of(const std::string &descr, const std::string &shape, const std::string &data,
                   const std::string &order = "False") {
    return npy("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + "}",
               data);
}

tw_status read_npy(tw_context *ctx, const std::string &bytes) {
    tw_dataset *d = nullptr;
    const tw_status s = tw_dataset_open_npy(
        ctx, "x.npy", reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size(), &d);
    EXPECT_EQ(d != nullptr, s == TW_OK);
    tw_dataset_free(d);
    return s;
}

TEST(HardFiles, Arrays) {
    const tw_status F = TW_ERROR_FORMAT, U = TW_ERROR_UNSUPPORTED;
    const std::string eight(8, '\0'), big = "1152921504606846976";
    refuse(
        {
            {npy_of("'<f4'", "(1, 2)", eight, "True"),
             U,
             {"x.npy", "Fortran", "ascontiguousarray"}},
            {npy_of("'>f4'", "(1, 2)", eight), U, {"dtype \">f4\"", "expected <f4"}},
            {npy_of("'|O'", "(1, 1)", eight), U, {"dtype \"|O\""}},
            {npy_of("'<U2'", "(1, 1)", eight), U, {"dtype \"<U2\""}},
            {npy_of("'<c8'", "(1, 1)", eight), U, {"dtype \"<c8\""}},
            {npy_of("[('a', '<f4'), ('b', '<f4')]", "(1,)", eight), U, {"not a simple one"}},
            {npy_of("'<f2'", "(2, 2)", eight), U, {"dtype \"<f2\""}},
            {npy_of("'|b1'", "(4, 2)", eight), U, {"dtype \"|b1\""}},
            {npy_of("'<f4'", "(2)", eight), F, {"expected a tuple"}},
            {npy_of("'<f4'", "2, 1", eight), F, {"expected a tuple"}},
            {npy_of("'<f4'", "(2, -1)", eight), F, {"whole numbers"}},
            {npy_of("'<f4'", "(2, 1.0)", eight), F, {"x.npy: the .npy header"}},
            {npy_of("'<f4'", "(2L, 1L)", eight), F, {"x.npy: the .npy header"}},
            {npy_of("'<f4'", "(" + big + ", 16)", eight), F, {"63 bits"}},
            {npy_of("'<f8'", "(" + big + ", 1)", eight), F, {"63 bits"}},
            {npy_of("'<f4'", "(" + big + ", 1)", eight), F, {"8 bytes of data, expected 46"}},
            {npy_of("'<f4'", "(99999999999999999999, 1)", eight), F, {"below 2^63"}},
            {npy_of("'<f4'", "(1,1,1,1,1,1,1,1,2)", eight), U, {"more than 8 dimensions"}},
            {npy_of("'<f4'", "(2,)", eight), U, {"with 1 dimensions", "N,D or N,H,W,C"}},
            {npy_of("'<f4'", "(1, 2, 1)", eight), U, {"with 3 dimensions"}},
            {npy_of("'<i8'", "(1, 1)", eight), U, {"expected float32 or float64"}},
            {npy_of("'<f4'", "(0, 2)", ""), TW_ERROR_ARGUMENT, {"1 to 2^32 - 1 samples"}},
            {npy_of("'<f4'", "(2, 0)", ""), TW_ERROR_ARGUMENT, {"extents of at least 1"}},
            {npy_of("'<f4'", "(1, 2)", bytes_of(std::nanf("")) + "abcd"),
             TW_ERROR_NUMERIC,
             {"sample 0", "finite"}},
            {npy("{'descr': '<f4', 'shape': (1, 2)}", eight), F, {"missing"}},
            {npy("{'descr': '<f4', 'descr': '<f4'}", eight), F, {"comes twice"}},
            {npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), 'x': 1}", eight),
             F,
             {"unknown"}},
            {npy("os.system('true')", eight), F, {"expected a dictionary"}},
            {npy(std::string(3, '\0'), eight), F, {"expected a dictionary"}},
            {npy("{}", eight, 4), U, {"version 4.0, expected 1.0 to 3.0"}},
            {npy(std::string(70000, ' '), "", 3),
             F,
             {"header of 70000 bytes, expected at most 65536"}},
            {std::string("\x93NUMPY\x01\0\xff\xff{", 11), F, {"cut short within its header"}},
            {std::string("\x93NUMPY\x03\0\xff\xff\xff\xff", 12), F, {"header of 4294967295 bytes"}},
            {std::string("PK\x03\x04", 4), F, {"not an .npy file"}},
        },
        read_npy);
    // Versions 2 and 3 are read.
    for (int version : {2, 3}) {
        Scarce scarce;
        EXPECT_EQ(
            read_npy(scarce.ctx(), npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}",
                                       eight, version)),
            TW_OK);
    }
}

std::string idx(const std::vector<uint32_t> &shape, const std::string &data, uint8_t type = 8) {
    std::string out = std::string(2, '\0') + char(type) + char(shape.size());
    for (uint32_t n : shape)
        for (int k = 24; k >= 0; k -= 8) out += char(n >> k);
    return out + data;
}
std::string gzip(const std::string &plain) {
    std::string out(plain.size() + 200, '\0');
    z_stream z = {};
    EXPECT_EQ(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(plain.data()));
    z.avail_in = uInt(plain.size());
    z.next_out = reinterpret_cast<Bytef *>(out.data());
    z.avail_out = uInt(out.size());
    EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.resize(z.total_out);
    deflateEnd(&z);
    return out;
}

tw_status read_idx(tw_context *ctx, const std::string &bytes) {
    tw_dataset *d = nullptr;
    const tw_status s = tw_dataset_open_idx(
        ctx, "x.idx", reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size(), &d);
    EXPECT_EQ(d != nullptr, s == TW_OK);
    tw_dataset_free(d);
    return s;
}

TEST(HardFiles, IdxFiles) {
    const tw_status F = TW_ERROR_FORMAT, U = TW_ERROR_UNSUPPORTED;
    const uint32_t most = 0xffffffff;
    std::string wrong_sum = gzip(idx({1, 1, 1}, "a")), wrong_length = wrong_sum;
    wrong_sum[wrong_sum.size() - 8] ^= 1;
    wrong_length[wrong_length.size() - 1] ^= 1;
    std::string named = gzip(idx({1, 1, 1}, "a"));
    named[3] = 0x08; // a file name follows, it says
    refuse(
        {
            {idx({most, most, most}, "abc"), F, {"x.idx", "63 bits"}},
            {idx({most, most, 1}, "abc"), F, {"63 bits"}},
            {idx({most, 10, 1}, "abc"), F, {"3 bytes of data, expected 42949672950"}},
            {idx({1, 0, 1}, ""), F, {"dimension 1 is 0"}},
            {idx({2, 1, 1}, "a"), F, {"1 bytes of data, expected 2"}},
            {idx({1, 1, 1}, "ab"), F, {"2 bytes of data, expected 1"}},
            {idx({3, 3}, "abcdefghi"), F, {"2 dimensions, expected 3 (images)"}},
            {idx({9}, "abcdefghi"), F, {"1 dimensions, expected 3 (images)"}},
            {idx({1, 1, 1, 1}, "a"), F, {"4 dimensions, expected 3 (images)"}},
            {idx({1, 1, 1}, std::string(4, 'a'), 0x0d), U, {"type 0x0d, expected 0x08"}},
            {idx({1, 1, 1}, "a", 0x09), U, {"type 0x09, expected 0x08"}},
            {std::string(5, '\0'), F, {"cut short within its header"}},
            {gzip(idx({most, 1000, 1000}, "abc")), F, {"cannot hold"}},
            {gzip(idx({4, 1, 1}, "abc")), F, {"x.idx"}},
            {gzip(idx({2, 1, 1}, "abc")), F, {"more data than the 2 bytes"}},
            {gzip(std::string(2, '\0')), F, {"cut short within its header"}},
            {gzip(""), F, {"cut short within its header"}},
            {gzip(idx({1, 1, 1}, "a")) + "x", F, {"1 bytes after the end"}},
            {wrong_sum, F, {"damaged gzip data: incorrect data check"}},
            {wrong_length, F, {"damaged gzip data: incorrect length check"}},
            {named, F, {"x.idx"}},
            {std::string("\x1f\x8b\x09\0", 4), F, {"x.idx"}},
            {std::string("\x1f\x8b"), F, {"x.idx", "cut short"}},
        },
        read_idx);
}

// --- Pictures ---

std::string chunk(const std::string &kind, const std::string &data) {
    auto word = [](uint32_t n) {
        std::string out;
        for (int k = 24; k >= 0; k -= 8) out += char(n >> k);
        return out;
    };
    const std::string body = kind + data;
    return word(uint32_t(data.size())) + body +
           word(
               uint32_t(crc32(0, reinterpret_cast<const Bytef *>(body.data()), uInt(body.size()))));
}
std::string deflated(const std::string &plain) {
    uLongf size = compressBound(uLong(plain.size()));
    std::string out(size, '\0');
    EXPECT_EQ(compress2(reinterpret_cast<Bytef *>(out.data()), &size,
                        reinterpret_cast<const Bytef *>(plain.data()), uLong(plain.size()), 9),
              Z_OK);
    out.resize(size);
    return out;
}
std::string header(uint32_t width, uint32_t height, int depth = 8, int colour = 0) {
    std::string out;
    for (uint32_t n : {width, height})
        for (int k = 24; k >= 0; k -= 8) out += char(n >> k);
    return chunk("IHDR", out + char(depth) + char(colour) + std::string(3, '\0'));
}
std::string png(const std::string &chunks) {
    return "\x89PNG\r\n\x1a\n" + chunks;
}

tw_status read_image(tw_context *ctx, const std::string &bytes) {
    tw_image image;
    const tw_status s = tw_image_decode(ctx, "a.png", bytes.data(), bytes.size(), &image);
    EXPECT_EQ(image.pixels != nullptr, s == TW_OK);
    tw_image_free(ctx, &image);
    return s;
}

TEST(HardFiles, Pictures) {
    const tw_status F = TW_ERROR_FORMAT, U = TW_ERROR_UNSUPPORTED;
    const std::string row("\0a", 2), end = chunk("IEND", "");
    std::string wrong_sum = chunk("IDAT", deflated(row));
    wrong_sum.back() ^= 1;
    refuse(
        {
            {"", F, {"a.png: neither a PNG nor a JPEG"}},
            {"GIF89a", F, {"a.png: neither a PNG nor a JPEG"}},
            {png(""), F, {"a.png: PNG: "}},
            {png(header(1, 1)), F, {"a.png: PNG: "}},
            {png(header(1, 1) + end), F, {"a.png: PNG: "}},
            {png(header(1, 1) + wrong_sum + end), F, {"a.png: PNG: "}},
            {png(header(0, 1) + chunk("IDAT", deflated(row)) + end), F, {"a.png: PNG: "}},
            {png(header(1u << 31, 1) + end), F, {"a.png: PNG: "}},
            {png(header(1 << 20, 1 << 20) + chunk("IDAT", deflated(row)) + end), U, {"2^30 bytes"}},
            {png(header((1 << 20) + 1, 1) + chunk("IDAT", deflated(row)) + end),
             F,
             {"a.png: PNG: "}},
            {png(header(30000, 30000) + chunk("IDAT", deflated(row)) + end), F, {"a.png: PNG: "}},
            {png(header(1, 1, 3) + chunk("IDAT", deflated(row)) + end), F, {"a.png: PNG: "}},
            {png(header(1, 1, 8, 3) + chunk("IDAT", deflated(row)) + end), F, {"a.png: PNG: "}},
            {png(header(1, 1) + chunk("IDAT", "abcdefgh") + end), F, {"a.png: PNG: "}},
            {png(header(1, 2) + chunk("IDAT", deflated(row)) + end), F, {"a.png: PNG: "}},
            {png(header(1, 1) + chunk("CRIT", "") + chunk("IDAT", deflated(row)) + end),
             F,
             {"a.png: PNG: "}},
            {"\xff\xd8\xff", F, {"a.png: JPEG: "}},
            {"\xff\xd8\xff\xd9", F, {"a.png: JPEG: "}},
            {std::string("\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0", 15) +
                 std::string("\xff\xda\0\x08\1\1\0\0\x3f\0", 10),
             F,
             {"a.png: JPEG: "}},
        },
        read_image);
}

} // namespace

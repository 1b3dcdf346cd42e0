#include "model/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string FileOf(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  StoreLittleEndian<uint64_t>(header.size(), bytes.data());
  return absl::StrCat(bytes, header, data);
}

std::string ParseError(std::string bytes) {
  const auto file = SafetensorsFile::Parse(std::move(bytes), "x.safetensors");
  EXPECT_FALSE(file.ok());
  return std::string(file.status().message());
}

std::unique_ptr<SafetensorsFile> ParseOk(std::string bytes) {
  auto file = SafetensorsFile::Parse(std::move(bytes), "x.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

TEST(SafetensorsTest, GivesEntriesInTheOrderOfTheData) {
  const auto file = ParseOk(FileOf(
      R"({"__metadata__": {"format": "pt"},
          "b": {"dtype": "I32", "shape": [1], "data_offsets": [8, 12]},
          "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}   )",
      std::string("\0\0\x80\x3f\0\0\0\x40\x07\0\0\0", 12)));
  ASSERT_EQ(file->entries().size(), 2u);
  EXPECT_EQ(file->entries()[0].name, "a");
  EXPECT_THAT(file->entries()[0].shape, ElementsAre(1, 2));
  EXPECT_EQ(file->entries()[1].dtype, "I32");
  ASSERT_NE(file->Find("b"), nullptr);
  EXPECT_EQ(file->Find("b")->bytes.size(), 4u);
  EXPECT_EQ(file->Find("c"), nullptr);

  Buffer storage;
  const auto tensor = FloatTensor(*file->Find("a"), &storage);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->At(0, 0), 1.0f);
  EXPECT_EQ(tensor->At(0, 1), 2.0f);
}

TEST(SafetensorsTest, AcceptsNoTensorsAndEmptyTensors) {
  EXPECT_THAT(ParseOk(FileOf("{}", ""))->entries(), IsEmpty());
  const auto file = ParseOk(FileOf(
      R"({"z": {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]},
          "s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})",
      "1234"));
  EXPECT_EQ(file->entries().size(), 2u);
}

struct Hostile {
  const char* header;
  size_t data_bytes;
  const char* message;
};

class SafetensorsRefusesTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(SafetensorsRefusesTest, NamingFileAndReason) {
  const std::string message = ParseError(
      FileOf(GetParam().header, std::string(GetParam().data_bytes, 'x')));
  EXPECT_THAT(message, HasSubstr("x.safetensors"));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, SafetensorsRefusesTest,
    ::testing::Values(
        Hostile{"", 0, "header"}, Hostile{"[]", 0, "an object"},
        Hostile{"{\"a\": 1}", 0, "\"a\""},
        Hostile{"{\"a\": [[[[[[[[1]]]]]]]]}", 0, "deep"},
        Hostile{"{\"a\": {}, \"a\": {}}", 0, "duplicate key"},
        Hostile{R"({"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}})",
                4, "dtype"},
        Hostile{
            R"({"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}})",
            4, "Q4"},
        Hostile{R"({"a": {"dtype": "F32", "data_offsets": [0, 4]}})", 4,
                "shape"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})",
            4, "-1"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}})",
            4, "dimension"},
        Hostile{R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296],
                    "data_offsets": [0, 0]}})",
                0, "overflows"},
        Hostile{R"({"a": {"dtype": "F32", "shape": [9223372036854775807, 2],
                    "data_offsets": [0, 0]}})",
                0, "overflows"},
        Hostile{R"({"a": {"dtype": "F32", "shape": [4611686018427387904, 0],
                    "data_offsets": [0, 0]}})",
                0, "overflows"},
        Hostile{R"({"a": {"dtype": "F32",
                    "shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],
                    "data_offsets": [0, 4]}})",
                4, "dimensions"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}})",
            4, "bytes"},
        Hostile{R"({"a": {"dtype": "F32", "shape": [1]}})", 4, "data_offsets"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})",
            4, "data_offsets"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})",
            4, "data_offsets"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
            3, "cut"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
            5, "only 4"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
            8, "gap"},
        Hostile{
            R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
            8, "overlap"},
        Hostile{R"({"a": {"dtype": "F32", "shape": [1],
                    "data_offsets": [0, 99999999999999999999]}})",
                4, "data_offsets"}));

TEST(SafetensorsTest, RefusesLengthsThatLie) {
  std::string bytes(8, '\0');
  StoreLittleEndian<uint64_t>(99, bytes.data());
  EXPECT_THAT(ParseError(bytes + "{}"), HasSubstr("cut"));
  StoreLittleEndian<uint64_t>(~uint64_t{0}, bytes.data());
  EXPECT_THAT(ParseError(bytes + "{}"), HasSubstr("limit"));
  EXPECT_THAT(ParseError("1234"), HasSubstr("less than a header"));
  EXPECT_THAT(ParseError(""), HasSubstr("less than a header"));
}

TEST(SafetensorsTest, EscapesNamesInMessages) {
  const std::string message =
      ParseError(FileOf("{\"\\u001b[31m\": {\"dtype\": \"F9\", \"shape\": [], "
                        "\"data_offsets\": [0, 0]}}",
                        ""));
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
}

TEST(SafetensorsTest, ReadsUnalignedDataThroughACopy) {
  // A header of every length, so that the data has every alignment.
  for (size_t spaces = 0; spaces < 8; ++spaces) {
    const float value = 3.5f;
    std::string data(4, '\0');
    std::memcpy(data.data(), &value, 4);
    const auto file = ParseOk(FileOf(
        R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})" +
            std::string(spaces, ' '),
        data));
    Buffer storage;
    const auto tensor = FloatTensor(*file->Find("a"), &storage);
    ASSERT_TRUE(tensor.ok());
    EXPECT_EQ(tensor->rows, 1);
    EXPECT_EQ(tensor->At(0, 0), 3.5f);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data) % 4, 0u);
  }
}

TEST(SafetensorsTest, FloatTensorRefusesOtherTypesAndRanks) {
  SafetensorsEntry entry{"t", "I8", {2}, "ab"};
  Buffer storage;
  EXPECT_THAT(std::string(FloatTensor(entry, &storage).status().message()),
              HasSubstr("I8"));
  entry = {"t", "F16", {1, 1, 1}, "ab"};
  EXPECT_THAT(std::string(FloatTensor(entry, &storage).status().message()),
              HasSubstr("3 dimensions"));
}

TEST(SafetensorsTest, FindsTheFirstNonFiniteValueOfEveryType) {
  constexpr int64_t kRows = 3, kCols = 5001;
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const float bad : {inf, -inf, nan, -nan}) {
      const Buffer buffer(kRows * kCols * SizeBytes(dtype));
      const ConstTensor t(buffer.data(), dtype, kRows, kCols, kCols);
      for (int64_t i = 0; i < kRows * kCols; ++i) {
        StoreElement(dtype, buffer.data(), i, i % 2 == 0 ? 65504.0f : -0.0f);
      }
      EXPECT_EQ(FirstNonFinite(t), "");
      StoreElement(dtype, buffer.data(), 2 * kCols + 4999, bad);
      EXPECT_EQ(FirstNonFinite(t), "[2, 4999]");
      StoreElement(dtype, buffer.data(), 1 * kCols + 5000, bad);
      EXPECT_EQ(FirstNonFinite(t), "[1, 5000]");
    }
  }
}

TEST(SafetensorsTest, OpenNamesTheMissingFile) {
  PosixFileSystem fs;
  const auto file = SafetensorsFile::Open(
      fs, ::testing::TempDir() + "/no-such-file", "model.safetensors");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(file.status().message()),
              HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace lorikeet

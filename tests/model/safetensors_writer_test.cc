#include "model/safetensors_writer.h"

#include <gtest/gtest.h>

#include "model/safetensors.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

TEST(SafetensorsWriterTest, WritesWhatIsReadBack) {
  PosixFileSystem fs;
  const std::string path = testing::FreshTempDir("writer") + "/x.safetensors";
  auto writer = SafetensorsWriter::Create(
      fs, path, {{"b", "F32", {2, 1}, 8}, {"a", "BF16", {3}, 6}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append("12345678ab").ok());
  ASSERT_TRUE((*writer)->Append("cdef").ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto file = SafetensorsFile::Open(fs, path, "x");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->entries().size(), 2u);
  EXPECT_EQ((*file)->Find("b")->bytes, "12345678");
  EXPECT_EQ((*file)->Find("b")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ((*file)->Find("a")->bytes, "abcdef");
  EXPECT_EQ((*file)->Find("a")->dtype, "BF16");
}

TEST(SafetensorsWriterTest, TheDataIsAlignedAndTheFormatNamed) {
  PosixFileSystem fs;
  const std::string path = testing::FreshTempDir("writer2") + "/x.safetensors";
  const auto writer = SafetensorsWriter::Create(fs, path, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Finish().ok());
  const std::string bytes = *fs.ReadFile(path, 1000);
  EXPECT_EQ(bytes.size() % 8, 0u);
  EXPECT_EQ(static_cast<size_t>(bytes[0]), bytes.size() - 8);
  EXPECT_NE(bytes.find("\"format\": \"pt\""), std::string::npos) << bytes;
}

}  // namespace
}  // namespace lorikeet

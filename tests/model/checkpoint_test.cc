#include "model/checkpoint.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

// A file of tensors called `names`, one byte each.
std::string FileOf(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    absl::StrAppend(&header, i > 0 ? ", " : "", "\"", names[i],
                    R"(": {"dtype": "U8", "shape": [1], "data_offsets": [)", i,
                    ", ", i + 1, "]}");
  }
  header += "}";
  std::string bytes(8, '\0');
  StoreLittleEndian<uint64_t>(header.size(), bytes.data());
  return absl::StrCat(bytes, header, std::string(names.size(), 'x'));
}

class CheckpointTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    auto file = fs_.Create(JoinPath(dir_, name));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append(bytes).ok());
  }
  void WriteIndex(const std::string& map) {
    Write("model.safetensors.index.json",
          absl::StrCat(R"({"metadata": {"total_size": 1}, "weight_map": {)",
                       map, "}}"));
  }
  std::string OpenError() {
    const auto checkpoint = Checkpoint::Open(fs_, dir_);
    EXPECT_FALSE(checkpoint.ok());
    return std::string(checkpoint.status().message());
  }

  PosixFileSystem fs_;
  const std::string dir_ = testing::FreshTempDir("checkpoint_test");
};

TEST_F(CheckpointTest, SingleFileIsSortedByName) {
  Write("model.safetensors", FileOf({"b", "a", "c"}));
  const auto checkpoint = Checkpoint::Open(fs_, dir_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ((*checkpoint)->tensors().size(), 3u);
  EXPECT_EQ((*checkpoint)->tensors()[0].entry->name, "a");
  EXPECT_EQ(*(*checkpoint)->Find("c")->file, "model.safetensors");
  EXPECT_EQ((*checkpoint)->Find("d"), nullptr);
}

TEST_F(CheckpointTest, ShardsAreOneSetOfTensors) {
  Write("m-1.safetensors", FileOf({"b", "x.rotary_emb.inv_freq"}));
  Write("m-2.safetensors", FileOf({"a"}));
  WriteIndex(R"("a": "m-2.safetensors", "b": "m-1.safetensors")");
  const auto checkpoint = Checkpoint::Open(fs_, dir_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(*(*checkpoint)->Find("a")->file, "m-2.safetensors");
  EXPECT_EQ(*(*checkpoint)->Find("b")->file, "m-1.safetensors");
}

TEST_F(CheckpointTest, SingleFileWinsOverTheIndex) {
  Write("model.safetensors", FileOf({"a"}));
  Write("model.safetensors.index.json", "nonsense");
  EXPECT_TRUE(Checkpoint::Open(fs_, dir_).ok());
}

TEST_F(CheckpointTest, NamesThePickleNobodyReads) {
  Write("pytorch_model.bin", "x");
  EXPECT_THAT(OpenError(), HasSubstr("pytorch_model.bin is not supported"));
}

TEST_F(CheckpointTest, RefusesShardsOutsideOfTheDirectory) {
  for (const char* const name :
       {"../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "passwd",
        "", ".safetensors", "..\\\\x.safetensors", "x\\u0000.safetensors"}) {
    WriteIndex(absl::StrCat("\"a\": \"", name, "\""));
    EXPECT_THAT(OpenError(), HasSubstr("puts tensor \"a\" into")) << name;
  }
  WriteIndex(R"("a": 3)");
  EXPECT_THAT(OpenError(), HasSubstr("an integer"));
}

TEST_F(CheckpointTest, RefusesAnIndexThatIsWrong) {
  Write("m.safetensors", FileOf({"a", "b"}));
  WriteIndex(R"("a": "m.safetensors")");
  EXPECT_THAT(OpenError(), HasSubstr("does not list tensor \"b\""));
  WriteIndex(
      R"("a": "m.safetensors", "b": "m.safetensors", "c": "m.safetensors")");
  EXPECT_THAT(OpenError(), HasSubstr("\"c\""));
  WriteIndex(R"("a": "m.safetensors", "b": "n.safetensors")");
  EXPECT_THAT(OpenError(), HasSubstr("\"b\""));
  WriteIndex("");
  EXPECT_THAT(OpenError(), HasSubstr("names 0 files"));
  Write("model.safetensors.index.json", "{}");
  EXPECT_THAT(OpenError(), HasSubstr("weight_map"));
  Write("model.safetensors.index.json", "nonsense");
  EXPECT_THAT(OpenError(), HasSubstr("model.safetensors.index.json"));
}

}  // namespace
}  // namespace lorikeet

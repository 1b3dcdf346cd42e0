#include "base/file_system.h"

#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileSystemTest : public ::testing::Test {
 protected:
  FileSystemTest() {
    std::string name = ::testing::TempDir() + "/lorikeet-fs-XXXXXX";
    dir_ = mkdtemp(name.data());
  }
  ~FileSystemTest() override { (void)fs_.RemoveTree(dir_); }

  std::string Path(const std::string& name) const {
    return JoinPath(dir_, name);
  }
  void Write(const std::string& name, const std::string& bytes) {
    ASSERT_TRUE(WriteFileDurably(fs_, Path(name), bytes).ok());
  }

  PosixFileSystem fs_;
  std::string dir_;
};

TEST_F(FileSystemTest, ReadsBackWhatWasWritten) {
  const std::string bytes("a\0b\n", 4);
  Write("f", bytes);
  EXPECT_EQ(fs_.ReadFile(Path("f"), 4).value(), bytes);
  EXPECT_EQ(fs_.FileSize(Path("f")).value(), 4u);
  EXPECT_THAT(fs_.List(dir_).value(), ElementsAre("f"));
}

TEST_F(FileSystemTest, RefusesAFileBeyondTheLimit) {
  Write("f", "12345");
  const absl::Status status = fs_.ReadFile(Path("f"), 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("5 bytes, the limit is 4"));
}

TEST_F(FileSystemTest, NamesThePathOfAMissingFile) {
  const absl::Status status = fs_.ReadFile(Path("gone"), 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("gone"));
  EXPECT_EQ(fs_.Map(Path("gone")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fs_.List(Path("gone")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(FileSystemTest, RefusesWhatIsNoRegularFile) {
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(fs_.ReadFile(Path("fifo"), 10).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(fs_.Map(Path("fifo")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(fs_.ReadFile(dir_, 10).ok());
}

TEST_F(FileSystemTest, MapsAFileAlsoAnEmptyOne) {
  Write("f", "mapped");
  Write("empty", "");
  EXPECT_EQ(fs_.Map(Path("f")).value()->bytes(), "mapped");
  EXPECT_EQ(fs_.Map(Path("empty")).value()->bytes(), "");
}

TEST_F(FileSystemTest, AMappingOutlivesTheName) {
  Write("f", "still here");
  const std::unique_ptr<MappedFile> file = fs_.Map(Path("f")).value();
  ASSERT_TRUE(fs_.RemoveFile(Path("f")).ok());
  EXPECT_EQ(file->bytes(), "still here");
}

TEST_F(FileSystemTest, CreateEmptiesAFile) {
  Write("f", "old content");
  {
    auto file = fs_.Create(Path("f")).value();
    ASSERT_TRUE(file->Append("new").ok());
    ASSERT_TRUE(file->Append("er").ok());
  }
  EXPECT_EQ(fs_.ReadFile(Path("f"), 100).value(), "newer");
}

TEST_F(FileSystemTest, CreatesAndRemovesTrees) {
  ASSERT_TRUE(fs_.CreateDirectories(Path("a/b/c")).ok());
  ASSERT_TRUE(fs_.CreateDirectories(Path("a/b/c")).ok());
  EXPECT_TRUE(fs_.IsDirectory(Path("a/b/c")));
  ASSERT_TRUE(fs_.RemoveTree(Path("a")).ok());
  EXPECT_FALSE(fs_.FileExists(Path("a")));
  EXPECT_TRUE(fs_.RemoveTree(Path("a")).ok());
}

TEST_F(FileSystemTest, RenameReplacesTheTarget) {
  Write("from", "new");
  Write("to", "old");
  ASSERT_TRUE(fs_.Rename(Path("from"), Path("to")).ok());
  EXPECT_THAT(fs_.List(dir_).value(), ElementsAre("to"));
  EXPECT_EQ(fs_.ReadFile(Path("to"), 10).value(), "new");
}

TEST_F(FileSystemTest, CanonicalFollowsLinksAndDots) {
  ASSERT_TRUE(fs_.CreateDirectories(Path("real/sub")).ok());
  ASSERT_EQ(symlink(Path("real").c_str(), Path("link").c_str()), 0);
  const std::string real = fs_.Canonical(Path("real")).value();
  EXPECT_EQ(fs_.Canonical(Path("link/sub/..")).value(), real);
  EXPECT_EQ(fs_.Canonical(Path("gone")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(FileSystemTest, ADurableWriteLeavesNoTemporaryFile) {
  Write("f", "1");
  Write("f", "2");
  EXPECT_THAT(fs_.List(dir_).value(), ElementsAre("f"));
}

// Fails every Sync, as a disk does that has filled up.
class FullFile final : public WritableFile {
 public:
  explicit FullFile(std::unique_ptr<WritableFile> file)
      : file_(std::move(file)) {}
  absl::Status Append(absl::string_view bytes) override {
    return file_->Append(bytes);
  }
  absl::Status Sync() override {
    return absl::ResourceExhaustedError("no space");
  }

 private:
  const std::unique_ptr<WritableFile> file_;
};

class FullFileSystem final : public FileSystem {
 public:
  explicit FullFileSystem(FileSystem& fs) : fs_(fs) {}
  absl::StatusOr<std::string> ReadFile(const std::string& path,
                                       uint64_t max_bytes) override {
    return fs_.ReadFile(path, max_bytes);
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(
      const std::string& path) override {
    return fs_.Map(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(
      const std::string& path) override {
    ASSIGN_OR_RETURN(auto file, fs_.Create(path));
    return std::unique_ptr<WritableFile>(
        std::make_unique<FullFile>(std::move(file)));
  }
  bool FileExists(const std::string& path) override {
    return fs_.FileExists(path);
  }
  bool IsDirectory(const std::string& path) override {
    return fs_.IsDirectory(path);
  }
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override {
    return fs_.FileSize(path);
  }
  absl::StatusOr<std::vector<std::string>> List(
      const std::string& dir) override {
    return fs_.List(dir);
  }
  absl::Status CreateDirectories(const std::string& dir) override {
    return fs_.CreateDirectories(dir);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return fs_.Rename(from, to);
  }
  absl::Status SyncDirectory(const std::string& dir) override {
    return fs_.SyncDirectory(dir);
  }
  absl::Status RemoveFile(const std::string& path) override {
    return fs_.RemoveFile(path);
  }
  absl::Status RemoveTree(const std::string& dir) override {
    return fs_.RemoveTree(dir);
  }
  absl::StatusOr<std::string> Canonical(const std::string& path) override {
    return fs_.Canonical(path);
  }

 private:
  FileSystem& fs_;
};

TEST_F(FileSystemTest, AFailedDurableWriteKeepsTheOldContent) {
  Write("f", "old");
  FullFileSystem full(fs_);
  EXPECT_EQ(WriteFileDurably(full, Path("f"), "new").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fs_.ReadFile(Path("f"), 10).value(), "old");
}

TEST(JoinPathTest, PutsOneSlashBetween) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

}  // namespace
}  // namespace lorikeet

#include "base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

absl::Status ErrnoStatus(const std::string& path, int error) {
  const std::string message =
      absl::StrCat(Escape(path, 1000), ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

// Closes a descriptor on the way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// Opens a regular file for reading; a FIFO or a device would block or lie.
absl::StatusOr<int> OpenRegular(const std::string& path, struct stat* info) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(path, errno);
  if (::fstat(fd, info) != 0) {
    const int error = errno;
    ::close(fd);
    return ErrnoStatus(path, error);
  }
  if (!S_ISREG(info->st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(
        absl::StrCat(Escape(path, 1000), " is not a regular file"));
  }
  return fd;
}

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(std::string path, int fd)
      : path_(std::move(path)), fd_(fd) {}

  absl::Status Append(absl::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus(path_, errno);
      }
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (::fsync(fd_.get()) != 0) return ErrnoStatus(path_, errno);
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const Descriptor fd_;
};

}  // namespace

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(data_, size_);
}

absl::StatusOr<std::string> PosixFileSystem::ReadFile(const std::string& path,
                                                      uint64_t max_bytes) {
  struct stat info;
  ASSIGN_OR_RETURN(const int raw, OpenRegular(path, &info));
  const Descriptor fd(raw);
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(Escape(path, 1000), " has ", info.st_size,
                     " bytes, the limit is ", max_bytes));
  }
  std::string content(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n =
        ::read(fd.get(), content.data() + done, content.size() - done);
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(path, errno);
    }
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  content.resize(done);
  return content;
}

absl::StatusOr<std::unique_ptr<MappedFile>> PosixFileSystem::Map(
    const std::string& path) {
  struct stat info;
  ASSIGN_OR_RETURN(const int raw, OpenRegular(path, &info));
  const Descriptor fd(raw);
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (data == MAP_FAILED) return ErrnoStatus(path, errno);
  }
  return std::unique_ptr<MappedFile>(new MappedFile(path, data, size));
}

absl::StatusOr<std::unique_ptr<WritableFile>> PosixFileSystem::Create(
    const std::string& path) {
  const int fd =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(path, errno);
  return std::unique_ptr<WritableFile>(
      std::make_unique<PosixWritableFile>(path, fd));
}

bool PosixFileSystem::FileExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

bool PosixFileSystem::IsDirectory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<uint64_t> PosixFileSystem::FileSize(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(path, errno);
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<std::vector<std::string>> PosixFileSystem::List(
    const std::string& dir) {
  DIR* handle = ::opendir(dir.c_str());
  if (handle == nullptr) return ErrnoStatus(dir, errno);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(handle)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(handle);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status PosixFileSystem::CreateDirectories(const std::string& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return ErrnoStatus(dir, error.value());
  return absl::OkStatus();
}

absl::Status PosixFileSystem::Rename(const std::string& from,
                                     const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus(to, errno);
  return absl::OkStatus();
}

absl::Status PosixFileSystem::SyncDirectory(const std::string& dir) {
  const Descriptor fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return ErrnoStatus(dir, errno);
  return absl::OkStatus();
}

absl::Status PosixFileSystem::RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return ErrnoStatus(path, errno);
  return absl::OkStatus();
}

absl::Status PosixFileSystem::RemoveTree(const std::string& dir) {
  std::error_code error;
  std::filesystem::remove_all(dir, error);
  if (error) return ErrnoStatus(dir, error.value());
  return absl::OkStatus();
}

absl::StatusOr<std::string> PosixFileSystem::Canonical(
    const std::string& path) {
  std::error_code error;
  const std::filesystem::path result = std::filesystem::canonical(path, error);
  if (error) return ErrnoStatus(path, error.value());
  return result.string();
}

std::string JoinPath(absl::string_view dir, absl::string_view name) {
  if (dir.empty() || dir.back() == '/') return absl::StrCat(dir, name);
  return absl::StrCat(dir, "/", name);
}

absl::Status WriteFileDurably(FileSystem& fs, const std::string& path,
                              absl::string_view bytes) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  {
    ASSIGN_OR_RETURN(auto file, fs.Create(temporary));
    RETURN_IF_ERROR(file->Append(bytes));
    RETURN_IF_ERROR(file->Sync());
  }
  RETURN_IF_ERROR(fs.Rename(temporary, path));
  const size_t slash = path.rfind('/');
  return fs.SyncDirectory(
      slash == std::string::npos ? "." : path.substr(0, slash + 1));
}

}  // namespace lorikeet

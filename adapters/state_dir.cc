#include "adapters/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

absl::StatusOr<std::string> MakePrivateDir() {
  const char* base = std::getenv("TMPDIR");
  std::string path = JoinPath(base != nullptr && *base != '\0' ? base : "/tmp",
                              "lorikeet-XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) {
    return absl::InternalError(absl::StrCat("temporary directory ",
                                            Escape(path, 1000), ": ",
                                            std::strerror(errno)));
  }
  return path;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateDir>> StateDir::Open(
    FileSystem& fs, const std::string& path) {
  const bool is_private = path.empty();
  std::string dir = path;
  if (is_private) {
    ASSIGN_OR_RETURN(dir, MakePrivateDir());
  } else {
    RETURN_IF_ERROR(fs.CreateDirectories(dir));
  }
  const std::string file = JoinPath(dir, "lock");
  const int fd =
      ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) {
    const int error = errno;
    const std::string message =
        absl::StrCat(Escape(file, 1000), ": ", std::strerror(error));
    if (error == ENOSPC) return absl::ResourceExhaustedError(message);
    if (error == EROFS || error == EACCES || error == EPERM) {
      return WithReason(absl::FailedPreconditionError(absl::StrCat(
                            "state directory ", Escape(dir, 1000),
                            " cannot be written: ", std::strerror(error))),
                        "STATE_DIR_READ_ONLY");
    }
    return absl::InternalError(message);
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("state directory ", Escape(dir, 1000),
                                       " is in use by another process")),
                      "STATE_DIR_IN_USE");
  }
  return std::unique_ptr<StateDir>(
      new StateDir(fs, std::move(dir), is_private, fd));
}

StateDir::~StateDir() {
  if (is_private_) fs_.RemoveTree(path_).IgnoreError();
  ::close(lock_);
}

}  // namespace lorikeet

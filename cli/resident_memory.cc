#include "cli/resident_memory.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Counted, but small.
constexpr int64_t kKvBytes = int64_t{16} << 20;

// A child process whose standard output is read.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments) {
    int ends[2];
    if (::pipe(ends) != 0) return;
    std::vector<char*> argv;
    for (const std::string& a : arguments) {
      argv.push_back(const_cast<char*>(a.c_str()));
    }
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execv("/proc/self/exe", argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    out_ = ::fdopen(ends[0], "r");
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGTERM);
      ::waitpid(pid_, nullptr, 0);
    }
    if (out_ != nullptr) std::fclose(out_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // Empty at the end.
  std::string ReadLine() {
    char line[256];
    if (out_ == nullptr || std::fgets(line, sizeof(line), out_) == nullptr) {
      return "";
    }
    return line;
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

absl::StatusOr<int64_t> ResidentBytes(pid_t pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/statm");
  FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return absl::InternalError(absl::StrCat("no ", path));
  long long size = 0;
  long long resident = 0;
  const int fields = std::fscanf(file, "%lld %lld", &size, &resident);
  std::fclose(file);
  if (fields != 2) return absl::InternalError(absl::StrCat(path, " is odd"));
  return resident * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

absl::StatusOr<int64_t> ResidentBytesOfIdleServer(
    const ServerOptions& options) {
  std::string state = "/tmp/lorikeet-idle-XXXXXX";
  if (::mkdtemp(state.data()) == nullptr) {
    return absl::InternalError("no temporary directory in /tmp");
  }
  absl::StatusOr<int64_t> resident;
  {
    Child server({"lorikeet", "serve", "--model", options.model_dir, "--dtype",
                  options.dtype, "--load-format", options.load_format,
                  "--grpc-port", "0", "--state-dir", state, "--log-level",
                  "error", "--kv-cache-bytes", absl::StrCat(kKvBytes)});
    const std::string line = server.ReadLine();
    resident = absl::StartsWith(line, "ready")
                   ? ResidentBytes(server.pid())
                   : absl::InternalError("the server does not get ready");
  }
  PosixFileSystem().RemoveTree(state).IgnoreError();
  RETURN_IF_ERROR(resident.status());
  return *resident;
}

}  // namespace lorikeet

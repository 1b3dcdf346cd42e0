#include "tests/testing/subprocess.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/check.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

SubprocessResult RunSubprocess(const std::vector<std::string>& args,
                               const std::string& in) {
  // Files rather than pipes: no deadlock whoever writes how much.
  const std::string dir = FreshTempDir("subprocess");
  const std::string paths[3] = {dir + "/in", dir + "/out", dir + "/err"};
  std::ofstream(paths[0], std::ios::binary) << in;
  // The child must not write out again what waits in our buffers.
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (std::freopen(paths[0].c_str(), "r", stdin) == nullptr ||
        std::freopen(paths[1].c_str(), "w", stdout) == nullptr ||
        std::freopen(paths[2].c_str(), "w", stderr) == nullptr) {
      _exit(126);
    }
    std::vector<char*> argv;
    for (const std::string& arg : args) {
      argv.push_back(const_cast<char*>(arg.c_str()));
    }
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  SubprocessResult result;
  result.exit_code =
      WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  result.out = ReadAll(paths[1]);
  result.err = ReadAll(paths[2]);
  return result;
}

std::string LorikeetBinary() {
  const char* dir = std::getenv("LORIKEET_BINARY_DIR");
  return std::string(dir == nullptr ? "build/release" : dir) + "/lorikeet";
}

}  // namespace lorikeet::testing

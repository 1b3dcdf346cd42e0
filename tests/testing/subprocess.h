// Runs a program to its end, with text on its stdin.

#ifndef LORIKEET_TESTS_TESTING_SUBPROCESS_H_
#define LORIKEET_TESTS_TESTING_SUBPROCESS_H_

#include <string>
#include <vector>

namespace lorikeet::testing {

struct SubprocessResult {
  int exit_code = -1;  // -signal if it was killed
  std::string out;
  std::string err;
};

// REQUIRES: args[0] is the path of the program.
SubprocessResult RunSubprocess(const std::vector<std::string>& args,
                               const std::string& in = "");

// Returns the path of the `lorikeet` binary of this build.
std::string LorikeetBinary();

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_TESTING_SUBPROCESS_H_

// What machine code the compiler made of every kernel, for sm_80 and sm_90,
// against kernels/cuda/instructions.txt: the wide loads, the asynchronous
// copies and the tensor core instructions that the design counts on, and no
// access to local memory anywhere.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/kernel_name.h"

namespace lorikeet::testing {
namespace {

using Kernel = std::pair<std::string, std::string>;  // name, architecture
using Instructions = std::map<Kernel, std::set<std::string>>;

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string OutputOf(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  std::string out;
  char part[4096];
  while (const size_t n = fread(part, 1, sizeof part, pipe)) {
    out.append(part, n);
  }
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

// "HMMA.16816.F32.BF16" of "  /*0a20*/  @!P0 HMMA.16816.F32.BF16 R4, ... ;", or
// "" if the line is none of an instruction.
std::string InstructionOf(const std::string& line) {
  const size_t comment = line.find("*/");
  if (line.find("/*") == std::string::npos || comment == std::string::npos ||
      line.find(';') == std::string::npos) {
    return "";
  }
  std::istringstream words(line.substr(comment + 2));
  std::string word;
  words >> word;
  if (!word.empty() && word[0] == '@') words >> word;
  return word;
}

void AddInstructions(const std::string& sass, Instructions* all) {
  std::istringstream lines(sass);
  std::string line, arch;
  std::set<std::string>* kernel = nullptr;
  while (std::getline(lines, line)) {
    const std::string arch_is = "arch = ", function_is = "Function : ";
    size_t at = line.find(arch_is);
    if (at != std::string::npos) {
      arch = line.substr(at + arch_is.size());
      continue;
    }
    at = line.find(function_is);
    if (at != std::string::npos) {
      kernel =
          &(*all)[{KernelName(line.substr(at + function_is.size())), arch}];
      continue;
    }
    const std::string instruction = InstructionOf(line);
    if (kernel != nullptr && !instruction.empty()) kernel->insert(instruction);
  }
}

bool HasPrefix(const std::set<std::string>& words, const std::string& prefix) {
  const auto it = words.lower_bound(prefix);
  return it != words.end() && it->compare(0, prefix.size(), prefix) == 0;
}

// Kernels whose whole name, or what stands before its "<", is `name`.
bool IsNamed(const std::string& kernel, const std::string& name) {
  return kernel == name || kernel.substr(0, kernel.find('<')) == name;
}

TEST(CudaInstructionsTest, KernelsAreMadeOfWhatTheDesignCountsOn) {
  const std::string disassembler = Environment("LORIKEET_CUOBJDUMP");
  Instructions all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           Environment("LORIKEET_CUDA_REPORTS"))) {
    // Objects of kernels have a report beside them.
    std::filesystem::path object = entry.path();
    if (object.extension() != ".ptxas") continue;
    object.replace_extension();
    AddInstructions(OutputOf("PATH=\"$(dirname " + disassembler + "):$PATH\" " +
                             disassembler + " -sass " + object.string()),
                    &all);
  }
  ASSERT_GE(all.size(), 40u);
  for (const auto& [kernel, instructions] : all) {
    for (const char* const local : {"LDL", "STL"}) {
      EXPECT_FALSE(HasPrefix(instructions, local))
          << kernel.first << " " << kernel.second << " uses local memory";
    }
  }

  std::ifstream file(Environment("LORIKEET_SOURCE_DIR") +
                     "/kernels/cuda/instructions.txt");
  std::string line;
  int expected = 0;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string name, instruction;
    words >> name;
    std::vector<std::string> wanted;
    while (words >> instruction) wanted.push_back(instruction);
    int found = 0;
    for (const auto& [kernel, instructions] : all) {
      if (!IsNamed(kernel.first, name)) continue;
      ++found;
      for (const std::string& prefix : wanted) {
        EXPECT_TRUE(HasPrefix(instructions, prefix))
            << kernel.first << " " << kernel.second << " has no " << prefix;
      }
    }
    EXPECT_GE(found, 2) << name << " of instructions.txt is no kernel";
    ++expected;
  }
  EXPECT_GE(expected, 8);
}

}  // namespace
}  // namespace lorikeet::testing

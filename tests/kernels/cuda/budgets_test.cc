// What ptxas says of every kernel on sm_80 and sm_90, against
// kernels/cuda/budgets.txt: registers, no stack, no spills, and how many blocks
// fit on a multiprocessor.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/kernel_name.h"

namespace lorikeet::testing {
namespace {

// What a kernel uses on one architecture.
struct Usage {
  int registers = -1;
  int stack = 0, spill_stores = 0, spill_loads = 0;  // bytes
  int shared = 0;                                    // static bytes
};
using Kernel = std::pair<std::string, int>;  // name, architecture

// What it may use.
struct Budget {
  int threads = 0;
  int dynamic_shared = 0;  // bytes
  int registers = 0;
  int blocks = 0;  // at least so many on a multiprocessor
};

// A multiprocessor of sm_80 or sm_90 (CUDA C++ Programming Guide, table of
// technical specifications).
constexpr int kRegisters = 65536;
constexpr int kRegistersPerWarpUnit = 256;
constexpr int kMaxWarps = 64;
constexpr int kMaxBlocks = 32;
constexpr int kReservedShared = 1024;  // per block
int SharedPerMultiprocessor(int arch) { return (arch == 80 ? 164 : 228) << 10; }

int BlocksPerMultiprocessor(const Usage& usage, const Budget& budget,
                            int arch) {
  const int warps = (budget.threads + 31) / 32;
  const int per_warp = (usage.registers * 32 + kRegistersPerWarpUnit - 1) /
                       kRegistersPerWarpUnit * kRegistersPerWarpUnit;
  const int shared = usage.shared + budget.dynamic_shared + kReservedShared;
  return std::min({kMaxBlocks, kMaxWarps / warps,
                   kRegisters / (per_warp * warps),
                   SharedPerMultiprocessor(arch) / shared});
}

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int NumberBefore(const std::string& line, const std::string& words) {
  const size_t at = line.find(words);
  if (at == std::string::npos) return 0;
  size_t begin = at;
  while (begin > 0 && (std::isdigit(line[begin - 1]) != 0)) --begin;
  return std::atoi(line.substr(begin, at - begin).c_str());
}

void ReadReport(const std::filesystem::path& path,
                std::map<Kernel, Usage>* all) {
  std::ifstream file(path);
  std::string line;
  Kernel kernel;
  while (std::getline(file, line)) {
    const std::string entry = "Compiling entry function '";
    const size_t at = line.find(entry);
    if (at != std::string::npos) {
      const size_t begin = at + entry.size();
      const std::string name =
          KernelName(line.substr(begin, line.find('\'', begin) - begin));
      kernel = {name, std::atoi(line.c_str() + line.find("sm_") + 3)};
      (*all)[kernel] = Usage();
      continue;
    }
    if (kernel.first.empty()) continue;
    Usage& usage = (*all)[kernel];
    if (line.find("bytes stack frame") != std::string::npos) {
      usage.stack = NumberBefore(line, " bytes stack frame");
      usage.spill_stores = NumberBefore(line, " bytes spill stores");
      usage.spill_loads = NumberBefore(line, " bytes spill loads");
    } else if (line.find("Used ") != std::string::npos) {
      usage.registers = NumberBefore(line, " registers");
      usage.shared = NumberBefore(line, " bytes smem");
    }
  }
}

std::map<Kernel, Budget> ReadBudgets(const std::string& path) {
  std::map<Kernel, Budget> budgets;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Kernel kernel;
    Budget b;
    words >> kernel.first >> kernel.second >> b.threads >> b.dynamic_shared >>
        b.registers >> b.blocks;
    EXPECT_FALSE(words.fail()) << line;
    budgets[kernel] = b;
  }
  return budgets;
}

TEST(CudaBudgetsTest, KernelsKeepToTheirBudgets) {
  std::map<Kernel, Usage> usage;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           Environment("LORIKEET_CUDA_REPORTS"))) {
    if (entry.path().extension() == ".ptxas") ReadReport(entry.path(), &usage);
  }
  ASSERT_GE(usage.size(), 40u);
  std::map<Kernel, Budget> budgets = ReadBudgets(
      Environment("LORIKEET_SOURCE_DIR") + "/kernels/cuda/budgets.txt");
  for (const auto& [kernel, u] : usage) {
    SCOPED_TRACE(kernel.first + " sm_" + std::to_string(kernel.second));
    const auto it = budgets.find(kernel);
    if (it == budgets.end()) {
      ADD_FAILURE() << "has no line in budgets.txt; uses " << u.registers
                    << " registers, " << u.shared << " bytes shared";
      continue;
    }
    EXPECT_LE(u.registers, it->second.registers);
    EXPECT_EQ(u.stack, 0);
    EXPECT_EQ(u.spill_stores, 0);
    EXPECT_EQ(u.spill_loads, 0);
    EXPECT_GE(BlocksPerMultiprocessor(u, it->second, kernel.second),
              it->second.blocks);
    budgets.erase(it);
  }
  for (const auto& [kernel, budget] : budgets) {
    ADD_FAILURE() << kernel.first << " sm_" << kernel.second
                  << " of budgets.txt is no kernel";
  }
}

}  // namespace
}  // namespace lorikeet::testing

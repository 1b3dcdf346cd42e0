#include "tests/cuda_on_host/findings.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace cuda_on_host {
namespace {

struct Ordered {
  size_t order = 0;
  Finding finding;
};
std::map<std::pair<std::string, std::string>, Ordered>& All() {
  static auto* const all =
      new std::map<std::pair<std::string, std::string>, Ordered>();
  return *all;
}

// What nobody took makes the process fail: `lorikeet run` knows nothing of the
// emulator, and its exit code has to.
struct AtExit {
  ~AtExit() {
    const std::vector<Finding> left = TakeFindings();
    for (const Finding& f : left) {
      std::fprintf(stderr, "cuda-on-host: %s: %s (%d times)\n", f.kind.c_str(),
                   f.text.c_str(), f.count);
    }
    std::fflush(nullptr);
    if (!left.empty()) _exit(97);
  }
} at_exit;

std::string BaseName(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

struct Symbol {
  std::string function;
  std::string line;
};

const Symbol& SymbolOf(const void* pc) {
  static auto* const cache = new std::unordered_map<const void*, Symbol>();
  const auto [it, is_new] = cache->try_emplace(pc);
  if (!is_new) return it->second;
  Dl_info info{};
  if (dladdr(pc, &info) == 0) return it->second;
  char command[600], function[1024] = "", line[1024] = "";
  std::snprintf(command, sizeof command, "addr2line -f -C -e '%s' 0x%zx",
                info.dli_fname,
                static_cast<size_t>(static_cast<const char*>(pc) -
                                    static_cast<const char*>(info.dli_fbase)));
  if (FILE* const pipe = popen(command, "r")) {
    if (std::fgets(function, sizeof function, pipe) == nullptr ||
        std::fgets(line, sizeof line, pipe) == nullptr) {
      line[0] = 0;
    }
    pclose(pipe);
  }
  function[std::strcspn(function, "\n")] = 0;
  line[std::strcspn(line, "\n ")] = 0;
  it->second = {function, BaseName(line)};
  return it->second;
}

}  // namespace

void ReportFinding(const char* kind, const std::string& text,
                   const std::string& place) {
  Ordered& o = All()[{kind, place}];
  if (o.finding.count++ > 0) return;
  o.order = All().size();
  o.finding.kind = kind;
  o.finding.text = text;
  if (std::getenv("CUDA_ON_HOST_VERBOSE") != nullptr) {
    std::fprintf(stderr, "cuda-on-host: %s: %s\n", kind, text.c_str());
  }
}

std::vector<Finding> TakeFindings() {
  std::map<size_t, Finding> in_order;
  for (const auto& [key, o] : All()) in_order[o.order] = o.finding;
  All().clear();
  std::vector<Finding> findings;
  for (auto& [order, f] : in_order) findings.push_back(std::move(f));
  return findings;
}

std::string Where(const Loc& loc) {
  return BaseName(loc.file_name()) + ":" + std::to_string(loc.line());
}

std::string Symbolize(const void* pc) {
  const Symbol& symbol = SymbolOf(pc);
  return symbol.line;
}

std::string FunctionName(const void* function) {
  std::string name = SymbolOf(function).function;
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t i; (i = name.find(anonymous)) != std::string::npos;) {
    name.erase(i, anonymous.size());
  }
  name = name.substr(0, name.find('('));
  const size_t space = name.rfind(' ');
  if (space != std::string::npos && name.find('<') > space) {
    name = name.substr(space + 1);
  }
  const std::string prefix = "void ";
  if (name.starts_with(prefix)) name = name.substr(prefix.size());
  const size_t scope = name.substr(0, name.find('<')).rfind("::");
  return scope == std::string::npos ? name : name.substr(scope + 2);
}

}  // namespace cuda_on_host

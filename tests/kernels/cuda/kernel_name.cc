#include "tests/kernels/cuda/kernel_name.h"

#include <cxxabi.h>

#include <cstdlib>

namespace lorikeet::testing {

std::string KernelName(const std::string& mangled) {
  int status = 0;
  char* const text =
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : mangled;
  std::free(text);
  const std::string anonymous = "(anonymous namespace)::";
  for (size_t i; (i = name.find(anonymous)) != std::string::npos;) {
    name.erase(i, anonymous.size());
  }
  name = name.substr(0, name.find('('));
  const size_t end = name.find('<');
  const size_t scope = name.rfind("::", end);
  const size_t begin = scope == std::string::npos ? 0 : scope + 2;
  std::string arguments = end == std::string::npos ? "" : name.substr(end);
  // "<(int)64>", "<4, true>" and "<lorikeet::cuda::Shape<64> >" of the
  // demangler.
  for (const std::string cast : {"(int)", "(bool)", "lorikeet::cuda::", " "}) {
    for (size_t i; (i = arguments.find(cast)) != std::string::npos;) {
      arguments.erase(i, cast.size());
    }
  }
  return name.substr(begin, end == std::string::npos ? end : end - begin) +
         arguments;
}

}  // namespace lorikeet::testing

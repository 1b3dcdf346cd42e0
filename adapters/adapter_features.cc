#include "adapters/adapter_features.h"

#include <algorithm>

namespace lorikeet {

size_t FindInvocation(std::span<const Token> prompt,
                      std::span<const Token> invocation) {
  const auto found = std::ranges::find_end(prompt, invocation);
  return static_cast<size_t>(found.begin() - prompt.begin());
}

}  // namespace lorikeet

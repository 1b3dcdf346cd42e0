// TokenCounts is which tokens a candidate has seen and how often it has
// produced them, for the penalties. One entry per distinct token.
//
// Thread-compatible.

#ifndef LORIKEET_SERVER_ENGINE_TOKEN_COUNTS_H_
#define LORIKEET_SERVER_ENGINE_TOKEN_COUNTS_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/token.h"

namespace lorikeet {

class TokenCounts {
 public:
  // Adds tokens of the prompt, with count 0.
  void AddPrompt(std::span<const Token> tokens);
  // Counts a token of the output.
  void AddOutput(Token token);

  // In the order of first appearance.
  std::span<const std::pair<Token, int32_t>> counts() const { return counts_; }

 private:
  std::pair<Token, int32_t>& Entry(Token token);

  std::vector<std::pair<Token, int32_t>> counts_;
  absl::flat_hash_map<Token, size_t> index_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_TOKEN_COUNTS_H_

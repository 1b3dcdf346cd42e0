#include "server/engine/token_counts.h"

namespace lorikeet {

void TokenCounts::AddPrompt(std::span<const Token> tokens) {
  for (const Token token : tokens) Entry(token);
}

void TokenCounts::AddOutput(Token token) { ++Entry(token).second; }

std::pair<Token, int32_t>& TokenCounts::Entry(Token token) {
  const auto [it, is_new] = index_.emplace(token, counts_.size());
  if (is_new) counts_.emplace_back(token, 0);
  return counts_[it->second];
}

}  // namespace lorikeet

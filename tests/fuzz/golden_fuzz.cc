// Any bytes as golden.jsonl: a status, or cases that can be compared.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "server/frontend/golden_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  const auto cases = ParseGoldenFile(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!cases.ok()) return 0;
  CHECK(cases->size() <= kMaxGoldenCases);
  for (const GoldenCase& c : *cases) {
    CHECK(c.prompt.has_value() == c.token_ids.empty());
    CHECK(CompareTokens(c, c.tokens).ok());
    CompareLogits(c, c.logits).IgnoreError();
  }
  return 0;
}

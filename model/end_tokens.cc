#include "model/end_tokens.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxEndTokens = 1024;

bool IsToken(const Json& value) {
  return value.is_int() && value.AsInt() >= 0 &&
         value.AsInt() <= std::numeric_limits<Token>::max();
}

}  // namespace

absl::StatusOr<std::optional<std::vector<Token>>> ReadEndTokens(
    JsonReader& reader) {
  constexpr absl::string_view kKey = "eos_token_id";
  const Json* value = reader.Get(kKey);
  if (value == nullptr) return std::nullopt;
  std::vector<Token> tokens;
  bool is_valid = true;
  const auto add = [&](const Json& item) {
    is_valid = is_valid && IsToken(item);
    if (is_valid) tokens.push_back(static_cast<Token>(item.AsInt()));
  };
  if (value->is_array()) {
    for (const Json& item : value->items()) add(item);
  } else {
    add(*value);
  }
  if (!is_valid || tokens.size() > kMaxEndTokens) {
    return reader.Error(kKey,
                        absl::StrCat("is ", Escape(value->Dump(), 80),
                                     ", expected a token or a list of at most ",
                                     kMaxEndTokens, " tokens"));
  }
  return tokens;
}

}  // namespace lorikeet

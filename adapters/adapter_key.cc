#include "adapters/adapter_key.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxIdBytes = 63;
// 48 bits: enough that a prefix means one version, short enough to type.
constexpr size_t kMinDigestDigits = 12;

absl::Status RefError(absl::string_view text, absl::string_view rest) {
  return WithReason(
      absl::InvalidArgumentError(absl::StrCat(
          "adapter ", Quote(text), " ", rest,
          "; the form is [tenant/]name[@version | @sha256:<hex>]")),
      "INVALID_NAME");
}

// ASCII, whatever the locale.
bool IsIdChar(char c) {
  const auto u = static_cast<unsigned char>(c);
  return absl::ascii_isalnum(u) || c == '.' || c == '_' || c == '-';
}

}  // namespace

absl::Status CheckId(absl::string_view what, absl::string_view id) {
  const bool ok = !id.empty() && id.size() <= kMaxIdBytes &&
                  absl::ascii_isalnum(static_cast<unsigned char>(id[0])) &&
                  std::all_of(id.begin(), id.end(), IsIdChar);
  if (ok) return absl::OkStatus();
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        what, " ", Quote(id, 80),
                        " does not match [A-Za-z0-9][A-Za-z0-9._-]{0,62}")),
                    "INVALID_NAME");
}

absl::StatusOr<AdapterRef> AdapterRef::Parse(absl::string_view text) {
  AdapterRef ref;
  absl::string_view name = text;
  const size_t at = text.find('@');
  if (at != absl::string_view::npos) {
    absl::string_view version = text.substr(at + 1);
    name = text.substr(0, at);
    if (absl::ConsumePrefix(&version, "sha256:")) {
      const bool hex =
          version.size() >= kMinDigestDigits &&
          version.size() <= 2 * Digest::kSizeBytes &&
          std::all_of(version.begin(), version.end(), [](char c) {
            return absl::ascii_isxdigit(static_cast<unsigned char>(c));
          });
      if (!hex) {
        return RefError(
            text, absl::StrCat("has a digest that is not ", kMinDigestDigits,
                               " to 64 hexadecimal digits"));
      }
      ref.digest = absl::AsciiStrToLower(version);
    } else {
      uint32_t number = 0;
      const bool digits =
          !version.empty() && version[0] != '0' &&
          std::all_of(version.begin(), version.end(), [](char c) {
            return absl::ascii_isdigit(static_cast<unsigned char>(c));
          });
      if (!digits || !absl::SimpleAtoi(version, &number)) {
        return RefError(text, "has a version that is no number from 1");
      }
      ref.version = number;
    }
  }
  const size_t slash = name.find('/');
  if (slash != absl::string_view::npos) {
    ref.tenant = std::string(name.substr(0, slash));
    name = name.substr(slash + 1);
    RETURN_IF_ERROR(CheckId("tenant id", ref.tenant));
  }
  ref.name = std::string(name);
  RETURN_IF_ERROR(CheckId("adapter id", ref.name));
  return ref;
}

std::string AdapterKey::ToString() const {
  if (tenant == kDefaultTenant) return absl::StrCat(name, "@", version);
  return absl::StrCat(tenant, "/", name, "@", version);
}

}  // namespace lorikeet

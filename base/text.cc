#include "base/text.h"

#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace lorikeet {
namespace {

// Length of the well-formed code point at the start of `s`, or 0.
size_t CodePointLength(absl::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const auto tail = [&](size_t i, uint8_t low, uint8_t high) {
    return i < s.size() && byte(i) >= low && byte(i) <= high;
  };
  const uint8_t b = byte(0);
  if (b < 0x80) return 1;
  if (b >= 0xC2 && b <= 0xDF) return tail(1, 0x80, 0xBF) ? 2 : 0;
  if (b >= 0xE0 && b <= 0xEF) {
    const uint8_t low = b == 0xE0 ? 0xA0 : 0x80;
    const uint8_t high = b == 0xED ? 0x9F : 0xBF;
    return tail(1, low, high) && tail(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (b >= 0xF0 && b <= 0xF4) {
    const uint8_t low = b == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = b == 0xF4 ? 0x8F : 0xBF;
    return tail(1, low, high) && tail(2, 0x80, 0xBF) && tail(3, 0x80, 0xBF) ? 4
                                                                            : 0;
  }
  return 0;
}

}  // namespace

std::string Escape(absl::string_view text, size_t max_chars) {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    if (i >= max_chars) {
      absl::StrAppend(&out, "...");
      break;
    }
    const size_t length = CodePointLength(text.substr(i));
    const uint8_t b = static_cast<uint8_t>(text[i]);
    // U+0080..U+009F are control characters too (C2 80..9F).
    const bool c1 =
        length == 2 && b == 0xC2 && static_cast<uint8_t>(text[i + 1]) < 0xA0;
    if (length == 0 || c1 || b < 0x20 || b == 0x7F) {
      absl::StrAppendFormat(&out, "\\x%02x", b);
      i += 1;
    } else if (b == '"' || b == '\\') {
      out += '\\';
      out += static_cast<char>(b);
      i += 1;
    } else {
      out.append(text.data() + i, length);
      i += length;
    }
  }
  return out;
}

std::string Quote(absl::string_view text, size_t max_chars) {
  return absl::StrCat("\"", Escape(text, max_chars), "\"");
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = CodePointLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string HumanBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return absl::StrCat(bytes, " B");
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  absl::string_view rest = absl::StripAsciiWhitespace(text);
  if (!absl::ConsumeSuffix(&rest, "iB")) absl::ConsumeSuffix(&rest, "B");
  double factor = 1;
  if (!rest.empty()) {
    switch (absl::ascii_toupper(static_cast<unsigned char>(rest.back()))) {
      case 'K':
        factor = 1024.0;
        break;
      case 'M':
        factor = 1024.0 * 1024;
        break;
      case 'G':
        factor = 1024.0 * 1024 * 1024;
        break;
      case 'T':
        factor = 1024.0 * 1024 * 1024 * 1024;
        break;
      default:
        break;
    }
    if (factor != 1) rest.remove_suffix(1);
  }
  double value = 0;
  if (!absl::SimpleAtod(rest, &value) || !std::isfinite(value) || value < 0 ||
      value * factor >= 9.0e18) {
    return absl::InvalidArgumentError(absl::StrCat(
        Quote(text),
        " is no size in bytes (examples: 1073741824, 512MiB, 4GiB)"));
  }
  return static_cast<uint64_t>(value * factor);
}

}  // namespace lorikeet

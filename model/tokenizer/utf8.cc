#include "model/tokenizer/utf8.h"

#include <cstdint>

namespace lorikeet {
namespace {

// Table 3-7 of the Unicode standard: what may follow a lead byte. Only the
// second byte has limits of its own; the others are 80..BF.
struct Lead {
  size_t length;  // 0: no lead byte
  uint8_t second_low;
  uint8_t second_high;
};

Lead ClassifyLead(uint8_t b) {
  if (b >= 0xC2 && b <= 0xDF) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b >= 0xE1 && b <= 0xEF) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b >= 0xF1 && b <= 0xF3) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

char32_t CodePointAt(absl::string_view text, size_t offset) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<uint8_t>(text[offset + i]));
  };
  const char32_t b = byte(0);
  switch (Utf8Length(text[offset])) {
    case 1:
      return b;
    case 2:
      return (b & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (b & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (b & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

void AppendUtf8(char32_t c, std::string* out) {
  const auto tail = [&](int shift) {
    *out += static_cast<char>(0x80 | ((c >> shift) & 0x3F));
  };
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += static_cast<char>(0xC0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    *out += static_cast<char>(0xE0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    *out += static_cast<char>(0xF0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t CountCodePoints(absl::string_view text) {
  size_t count = 0;
  for (const char c : text) {
    count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  }
  return count;
}

Utf8Prefix ClassifyUtf8Prefix(absl::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (byte(0) < 0x80) return {.length = 1, .well_formed = true};
  const Lead lead = ClassifyLead(byte(0));
  if (lead.length == 0) return {.length = 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {.length = i, .unfinished = true};
    const uint8_t low = i == 1 ? lead.second_low : 0x80;
    const uint8_t high = i == 1 ? lead.second_high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {.length = i};
  }
  return {.length = lead.length, .well_formed = true};
}

size_t DecodeLossy(absl::string_view bytes, bool more, std::string* out) {
  size_t done = 0;
  while (done < bytes.size()) {
    const Utf8Prefix prefix = ClassifyUtf8Prefix(bytes.substr(done));
    if (prefix.unfinished && more) break;
    if (prefix.well_formed) {
      out->append(bytes.data() + done, prefix.length);
    } else {
      out->append(kReplacementCharacter.data(), kReplacementCharacter.size());
    }
    done += prefix.length;
  }
  return done;
}

}  // namespace lorikeet

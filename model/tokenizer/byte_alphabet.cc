#include "model/tokenizer/byte_alphabet.h"

#include <array>

#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

constexpr size_t kLimit = 256 + 68;  // one past the last code point

struct Table {
  std::array<char[2], 256> text = {};
  std::array<uint8_t, 256> length = {};
  std::array<int16_t, kLimit> byte = {};  // -1: not of the alphabet
};

constexpr bool StandsForItself(int b) {
  return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

constexpr Table MakeTable() {
  Table table;
  for (int16_t& b : table.byte) b = -1;
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const int c = StandsForItself(b) ? b : next++;
    const auto i = static_cast<size_t>(b);
    table.byte[static_cast<size_t>(c)] = static_cast<int16_t>(b);
    table.length[i] = c < 0x80 ? 1 : 2;
    table.text[i][0] = static_cast<char>(c < 0x80 ? c : 0xC0 | (c >> 6));
    table.text[i][1] = static_cast<char>(0x80 | (c & 0x3F));
  }
  return table;
}

constexpr Table kTable = MakeTable();

}  // namespace

absl::string_view ByteAlphabetCharacter(uint8_t byte) {
  return absl::string_view(kTable.text[byte], kTable.length[byte]);
}

std::string ToByteAlphabet(absl::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const absl::string_view text =
        ByteAlphabetCharacter(static_cast<uint8_t>(c));
    out.append(text.data(), text.size());
  }
  return out;
}

std::string FromByteAlphabet(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += Utf8Length(text[i])) {
    const char32_t c = CodePointAt(text, i);
    if (c >= kLimit || kTable.byte[c] < 0) return std::string(text);
    out += static_cast<char>(kTable.byte[c]);
  }
  return out;
}

}  // namespace lorikeet

// The byte alphabet of byte-level BPE: one printable code point for each byte.
//
// GPT-2's table: 33-126, 161-172 and 174-255 stand for themselves, the other
// 68 bytes in ascending order are U+0100, U+0101, ... Vocabulary and merges of
// a byte-level tokenizer are written in it. Pure.

#ifndef LORIKEET_MODEL_TOKENIZER_BYTE_ALPHABET_H_
#define LORIKEET_MODEL_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace lorikeet {

// Returns the UTF-8 text of the code point that stands for `byte`.
absl::string_view ByteAlphabetCharacter(uint8_t byte);

// Returns `bytes`, each as its code point.
std::string ToByteAlphabet(absl::string_view bytes);

// Returns the bytes that `text` stands for; if one code point is not of the
// alphabet, `text` itself. REQUIRES: `text` is UTF-8.
std::string FromByteAlphabet(absl::string_view text);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_BYTE_ALPHABET_H_

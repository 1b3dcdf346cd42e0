// Any bytes as a tokenizer.json: a status, or a tokenizer that encodes and
// decodes without a fault. And any bytes as a text for a fixed tokenizer: what
// a stream gives out is what decoding at once gives.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/json.h"
#include "base/text.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/incremental_decoder.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet {
namespace {

std::unique_ptr<Tokenizer> MakeByteLevel() {
  Json vocabulary = Json::Object();
  for (int b = 0; b < 256; ++b) {
    vocabulary.Set(ByteAlphabetCharacter(static_cast<uint8_t>(b)), b);
  }
  vocabulary.Set("aa", 256);
  return *Tokenizer::FromJson(absl::StrCat(
      R"({"model": {"vocab": )", vocabulary.Dump(),
      R"(, "merges": ["a a"]}, "normalizer": null, "added_tokens": [
         {"id": 257, "content": "<s>", "special": true}], "pre_tokenizer":
         {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
         "decoder": {"type": "ByteLevel"}})"));
}

void CheckText(const Tokenizer& tokenizer, absl::string_view text,
               bool gives_back) {
  const auto ids = tokenizer.Encode(text);
  if (!ids.ok()) return;
  const std::string decoded = tokenizer.Decode(*ids, false);
  CHECK(IsValidUtf8(decoded));
  if (gives_back) CHECK(decoded == text);
  IncrementalDecoder decoder(tokenizer, false);
  std::string streamed;
  for (const Token id : *ids) {
    CHECK(id >= 0 && id < tokenizer.vocab_size());
    const std::string part = decoder.Append(id);
    CHECK(IsValidUtf8(part));
    streamed += part;
  }
  streamed += decoder.Finish();
  if (gives_back) CHECK(streamed == text);
}

}  // namespace
}  // namespace lorikeet

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  static const Tokenizer* const byte_level = MakeByteLevel().release();
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  CheckText(*byte_level, text, /*gives_back=*/true);
  // A hostile pattern may use all its steps at every place: keep texts short.
  const auto tokenizer = Tokenizer::FromJson(text);
  if (!tokenizer.ok()) return 0;
  for (const char* sample :
       {"", " a  b1\xC3\xA9\n", "<s>ab <0x41>\xE2\x96\x81"}) {
    CheckText(**tokenizer, sample, /*gives_back=*/false);
  }
  std::vector<Token> ids;
  for (Token id = 0; id < 300; ++id) ids.push_back(id);
  CHECK(IsValidUtf8((*tokenizer)->Decode(ids, true)));
  return 0;
}

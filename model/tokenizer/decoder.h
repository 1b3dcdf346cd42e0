// A Decoder turns token strings back into text: the component "decoder" of a
// tokenizer.json.
//
// Known are ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip and
// Sequence. One state machine serves a whole text and a stream: in a stream,
// text comes out as soon as later tokens cannot change it, and never half a
// code point. They differ in one case: a run of byte tokens ("<0xE4>") that
// turns ill-formed after a part of it has been given out.
//
// A Decoder is thread-safe; a State belongs to one text.

#ifndef LORIKEET_MODEL_TOKENIZER_DECODER_H_
#define LORIKEET_MODEL_TOKENIZER_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace lorikeet {

class Decoder {
 public:
  static constexpr size_t kMaxSteps = 32;
  // Limits what a file can make of a token.
  static constexpr size_t kMaxGrowth = 4096;

  struct StateOptions {
    bool streaming = false;
    // False = the text continues another: a leading space is kept.
    bool at_start_of_text = true;
  };
  // What each step remembers of a text. A value: copy it to fork a stream.
  class State {
   private:
    friend class Decoder;
    struct StepState {
      std::string held;     // bytes that cannot be given out yet
      int64_t count = 0;    // tokens seen, or characters stripped
      bool broken = false;  // ByteFallback: the run is ill-formed
    };
    bool streaming_ = false;
    std::vector<StepState> steps_;
  };

  Decoder();  // tokens with a space between them

  // Errors: INVALID_ARGUMENT naming field and value; UNIMPLEMENTED naming the
  // type or the order of the steps.
  static absl::StatusOr<Decoder> FromJson(const Json& decoder);

  State Start(const StateOptions& options) const;
  // Appends to `out` what the token lets out.
  void Append(absl::string_view token, State* state, std::string* out) const;
  // Appends what was held back; the state is then used up.
  void Finish(State* state, std::string* out) const;

  // Returns the bytes of one token, as far as they do not depend on others.
  std::string TokenBytes(absl::string_view token) const;

 private:
  enum class Kind {
    kJoin,          // a space between tokens; no decoder at all
    kByteLevel,     // the byte alphabet back to bytes; joins
    kByteFallback,  // runs of <0xNN>
    kFuse,          // joins
    kMetaspace,     // "▁" to space, none at the start
    kReplace,       // in each token
    kReplaceFused,  // in the joined text
    kStrip,         // in each token
    kStripFused,    // in the joined text
  };
  struct Step {
    Kind kind = Kind::kFuse;
    std::string from;   // Replace, Metaspace; Strip: the character
    std::string to;     // Replace
    int64_t start = 0;  // Strip: how many; Metaspace: 1 = none at the start
    int64_t stop = 0;
  };

  absl::Status Add(const Json& json, const std::string& what);
  absl::StatusOr<Step> ReadReplace(const Json& json, const std::string& what);
  absl::StatusOr<Step> ReadStrip(const Json& json, const std::string& what);
  absl::StatusOr<Step> ReadMetaspace(const Json& json, const std::string& what);

  // Each feeds one token (or, behind a join, a part of the text) to step `i`
  // and what comes out to the step behind it.
  void Feed(size_t i, absl::string_view token, State* state,
            std::string* out) const;
  void FeedByteLevel(size_t i, absl::string_view token, State* state,
                     std::string* out) const;
  void FeedByteFallback(size_t i, absl::string_view token, State* state,
                        std::string* out) const;
  void EndByteRun(size_t i, State* state, std::string* out) const;
  void FeedReplaceFused(size_t i, absl::string_view text, State* state,
                        std::string* out) const;
  void FeedStripFused(size_t i, absl::string_view text, State* state,
                      std::string* out) const;

  std::vector<Step> steps_;
  bool fused_ = false;  // while reading: the steps so far join the tokens
  size_t growth_ = 1;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_DECODER_H_

// A PostProcessor puts special tokens around the ids of a text: the component
// "post_processor" of a tokenizer.json.
//
// Known are ByteLevel (which changes no id), TemplateProcessing,
// BertProcessing, RobertaProcessing and Sequence, with one template at most.
// Only the form for a single text is used. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_POST_PROCESSOR_H_
#define LORIKEET_MODEL_TOKENIZER_POST_PROCESSOR_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"
#include "base/token.h"

namespace lorikeet {

class PostProcessor {
 public:
  // Many times what a real template has, and it bounds how long ids can get.
  static constexpr size_t kMaxTemplatePieces = 64;

  PostProcessor() = default;  // adds nothing

  // `is_known` says which ids exist.
  //
  // Errors: INVALID_ARGUMENT naming field and value; UNIMPLEMENTED naming the
  // type.
  static absl::StatusOr<PostProcessor> FromJson(
      const Json& post_processor, absl::FunctionRef<bool(Token)> is_known);

  // Returns `ids` with the special tokens around them, or as they are with
  // `add_special_tokens` false.
  std::vector<Token> Process(std::vector<Token> ids,
                             bool add_special_tokens) const;

 private:
  // Part of a template: the text, or special tokens.
  struct TemplatePiece {
    bool is_text = false;
    std::vector<Token> ids;
  };

  absl::Status Add(const Json& json, const std::string& what,
                   absl::FunctionRef<bool(Token)> is_known);
  absl::Status AddTemplate(const Json& json, const std::string& what,
                           absl::FunctionRef<bool(Token)> is_known);
  absl::Status AddPair(const Json& json, const std::string& what,
                       absl::FunctionRef<bool(Token)> is_known);

  std::vector<TemplatePiece> pieces_;  // empty: no template
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_POST_PROCESSOR_H_

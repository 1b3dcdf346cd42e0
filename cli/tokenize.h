// `lorikeet tokenize`: text to token ids and back, a line at a time.
//
//   --tokenizer DIR            lines of text to {"ids": [...]}
//   ... --jsonl                {"text", "add_special_tokens"?,
//                              "special_as_text"?} to {"ids": [...]}
//   ... --detokenize           {"ids", "skip_special_tokens"?, "prefixes"?} to
//                              {"text": ..., "prefixes"?: [...]}
//
// Each input line gives one output line, in order; results are written before
// more input is waited for. The first bad line ends the run.

#ifndef LORIKEET_CLI_TOKENIZE_H_
#define LORIKEET_CLI_TOKENIZE_H_

#include <string>

#include <CLI/CLI.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet {

struct TokenizeOptions {
  bool jsonl = false;
  bool detokenize = false;
  // For lines of text; a JSON line says it itself.
  EncodeOptions encode;
};

// Returns the answer to one input line, without a line end.
//
// Errors: INVALID_ARGUMENT naming the field.
absl::StatusOr<std::string> TokenizeLine(const Tokenizer& tokenizer,
                                         const TokenizeOptions& options,
                                         absl::string_view line);

// Adds the subcommand; its callback sets *exit_code (0, or 1 after an error,
// which it has written to stderr). `exit_code` must outlive `app`.
void AddTokenizeCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_TOKENIZE_H_

#include "train/dataset.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

// Reads one line; `where` is "train.jsonl line 3".
class LineReader {
 public:
  LineReader(const DatasetOptions& options, std::string where)
      : options_(options), where_(std::move(where)) {}

  absl::StatusOr<TrainSequence> Read(absl::string_view line) const {
    absl::StatusOr<Json> json = Json::Parse(line);
    if (!json.ok()) return Error(json.status().message());
    if (!json->is_object()) {
      return Error(absl::StrCat("is ", json->TypeName(),
                                ", expected an object with \"prompt\" and "
                                "\"completion\" or with \"token_ids\" and "
                                "\"loss_mask\""));
    }
    JsonReader reader(*json, where_);
    TrainSequence sequence;
    if (json->Find("token_ids") != nullptr) {
      RETURN_IF_ERROR(ReadTokens(reader, &sequence));
    } else {
      RETURN_IF_ERROR(ReadText(reader, &sequence));
    }
    const std::vector<std::string> unknown = reader.UnknownKeys();
    if (!unknown.empty()) {
      return Error(absl::StrCat("has the unknown field ", Quote(unknown[0])));
    }
    RETURN_IF_ERROR(Check(&sequence));
    return sequence;
  }

 private:
  absl::Status Error(absl::string_view rest) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", rest));
  }

  absl::Status ReadTokens(JsonReader& reader, TrainSequence* sequence) const {
    const Json* ids = reader.Get("token_ids");
    const Json* mask = reader.Get("loss_mask");
    if (ids == nullptr || !ids->is_array()) {
      return reader.Error("token_ids", "is no list of token ids");
    }
    if (mask == nullptr || !mask->is_array() ||
        mask->items().size() != ids->items().size()) {
      return reader.Error("loss_mask",
                          absl::StrCat("is no list of ", ids->items().size(),
                                       " numbers, one for each token"));
    }
    for (const Json& id : ids->items()) {
      if (!id.is_int() || id.AsInt() < 0 || id.AsInt() >= options_.vocab_size) {
        return reader.Error("token_ids",
                            absl::StrCat("has ", Escape(id.Dump(), 40),
                                         ", expected an integer in [0, ",
                                         options_.vocab_size - 1, "]"));
      }
      sequence->tokens.push_back(static_cast<Token>(id.AsInt()));
    }
    for (const Json& m : mask->items()) {
      if (!m.is_int() || m.AsInt() < 0 || m.AsInt() > 1) {
        return reader.Error(
            "loss_mask",
            absl::StrCat("has ", Escape(m.Dump(), 40), ", expected 0 or 1"));
      }
      sequence->is_target.push_back(m.AsInt() == 1);
    }
    if (!sequence->is_target.empty() && sequence->is_target[0]) {
      return reader.Error("loss_mask",
                          "begins with 1, but nothing predicts the first "
                          "token");
    }
    return absl::OkStatus();
  }

  absl::Status ReadText(JsonReader& reader, TrainSequence* sequence) const {
    RETURN_IF_ERROR(reader.Require("prompt"));
    RETURN_IF_ERROR(reader.Require("completion"));
    ASSIGN_OR_RETURN(const std::string prompt, reader.String("prompt", ""));
    ASSIGN_OR_RETURN(const std::string completion,
                     reader.String("completion", ""));
    if (options_.tokenizer == nullptr) {
      return Error(
          "is text, but the model has no tokenizer.json; use "
          "\"token_ids\" and \"loss_mask\"");
    }
    absl::StatusOr<std::vector<Token>> before =
        options_.tokenizer->Encode(prompt);
    if (!before.ok()) return Error(before.status().message());
    absl::StatusOr<std::vector<Token>> after = options_.tokenizer->Encode(
        completion, {/*add_special_tokens=*/false, /*special_as_text=*/false});
    if (!after.ok()) return Error(after.status().message());
    if (before->empty()) {
      return reader.Error("prompt",
                          "has no token, so nothing predicts the "
                          "first token of the completion");
    }
    if (options_.end_token >= 0) after->push_back(options_.end_token);
    sequence->tokens = *before;
    sequence->tokens.insert(sequence->tokens.end(), after->begin(),
                            after->end());
    sequence->is_target.assign(sequence->tokens.size(), true);
    std::fill_n(sequence->is_target.begin(), before->size(), false);
    return absl::OkStatus();
  }

  absl::Status Check(TrainSequence* sequence) const {
    if (sequence->size() > options_.max_tokens) {
      return Error(absl::StrCat("has ", sequence->size(), " tokens, more than ",
                                options_.max_tokens_of, " ",
                                options_.max_tokens));
    }
    if (options_.learn_all && !sequence->is_target.empty()) {
      sequence->is_target.assign(sequence->is_target.size(), true);
      sequence->is_target[0] = false;
    }
    if (sequence->num_targets() == 0) return Error("has nothing to learn");
    return absl::OkStatus();
  }

  const DatasetOptions& options_;
  const std::string where_;
};

}  // namespace

absl::StatusOr<Dataset> Dataset::Read(FileSystem& fs, const std::string& path,
                                      const DatasetOptions& options) {
  ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path, kMaxFileBytes));
  return Parse(text, Escape(path, 1000), options);
}

absl::StatusOr<Dataset> Dataset::Parse(absl::string_view text,
                                       absl::string_view name,
                                       const DatasetOptions& options) {
  Dataset dataset;
  dataset.digest_ = DigestOf(text);
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    const absl::string_view line =
        absl::StripAsciiWhitespace(text.substr(0, end));
    text.remove_prefix(end == absl::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const LineReader reader(options, absl::StrCat(name, " line ", number));
    ASSIGN_OR_RETURN(TrainSequence sequence, reader.Read(line));
    sequence.line = number;
    dataset.sequences_.push_back(std::move(sequence));
  }
  if (dataset.sequences_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has no example"));
  }
  return dataset;
}

int64_t Dataset::num_tokens() const {
  int64_t sum = 0;
  for (const TrainSequence& s : sequences_) sum += s.size();
  return sum;
}

}  // namespace lorikeet

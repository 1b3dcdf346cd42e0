#include "cli/tokenize.h"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/incremental_decoder.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxLineBytes = size_t{256} << 20;
constexpr size_t kReadBytes = size_t{1} << 16;

absl::StatusOr<std::string> EncodeToJson(const Tokenizer& tokenizer,
                                         absl::string_view text,
                                         const EncodeOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<Token> ids,
                   tokenizer.Encode(text, options));
  std::string out = "{\"ids\": [";
  for (size_t i = 0; i < ids.size(); ++i) {
    absl::StrAppend(&out, i > 0 ? ", " : "", ids[i]);
  }
  out += "]}";
  return out;
}

absl::StatusOr<std::string> EncodeLine(const Tokenizer& tokenizer,
                                       JsonReader& reader) {
  const Json* text = reader.Get("text");
  if (text == nullptr) return reader.Error("text", "is missing");
  if (!text->is_string()) {
    return reader.Error(
        "text", absl::StrCat("is ", text->TypeName(), ", expected a string"));
  }
  EncodeOptions options;
  ASSIGN_OR_RETURN(options.add_special_tokens,
                   reader.Bool("add_special_tokens", true));
  ASSIGN_OR_RETURN(options.special_as_text,
                   reader.Bool("special_as_text", false));
  return EncodeToJson(tokenizer, text->AsString(), options);
}

absl::StatusOr<std::vector<Token>> ReadIds(JsonReader& reader) {
  const Json* list = reader.Get("ids");
  if (list == nullptr) return reader.Error("ids", "is missing");
  if (!list->is_array()) {
    return reader.Error(
        "ids", absl::StrCat("is ", list->TypeName(), ", expected a list"));
  }
  std::vector<Token> ids;
  ids.reserve(list->items().size());
  for (const Json& id : list->items()) {
    constexpr int64_t kMax = std::numeric_limits<uint32_t>::max();
    if (!id.is_int() || id.AsInt() < 0 || id.AsInt() > kMax) {
      return reader.Error(
          absl::StrCat("ids[", ids.size(), "]"),
          absl::StrCat("is ", Escape(id.Dump(), 40),
                       ", expected an integer in [0, ", kMax, "]"));
    }
    // Beyond int32 there is no token: like any id that nobody has.
    const bool fits = id.AsInt() <= std::numeric_limits<Token>::max();
    ids.push_back(fits ? static_cast<Token>(id.AsInt()) : Token{-1});
  }
  return ids;
}

absl::StatusOr<std::string> DecodeLine(const Tokenizer& tokenizer,
                                       JsonReader& reader) {
  ASSIGN_OR_RETURN(const std::vector<Token> ids, ReadIds(reader));
  ASSIGN_OR_RETURN(const bool skip, reader.Bool("skip_special_tokens", false));
  // A golden file's list of prefixes asks for them as well as true does.
  const Json* prefixes = reader.Get("prefixes");
  bool with_prefixes = prefixes != nullptr && prefixes->is_array();
  if (!with_prefixes) {
    ASSIGN_OR_RETURN(with_prefixes, reader.Bool("prefixes", false));
  }
  Json out = Json::Object();
  out.Set("text", tokenizer.Decode(ids, skip));
  if (with_prefixes) {
    Json list = Json::Array();
    IncrementalDecoder decoder(tokenizer, skip);
    std::string text;
    for (const Token id : ids) {
      text += decoder.Append(id);
      list.Append(text);
    }
    out.Set("prefixes", std::move(list));
  }
  return out.Dump();
}

absl::Status WriteOut(std::string* out) {
  const bool ok =
      std::fwrite(out->data(), 1, out->size(), stdout) == out->size() &&
      std::fflush(stdout) == 0;
  out->clear();
  return ok ? absl::OkStatus()
            : absl::UnavailableError("cannot write the output");
}

// Reads lines from a descriptor. A line can be taken without waiting, or
// more input has to be read.
class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}

  // Takes a line, without its line end, that lies in the buffer already; at
  // the end of the input also one without a line end.
  bool Take(absl::string_view* line) {
    const char* begin = buffer_.data() + done_;
    const size_t size = buffer_.size() - done_;
    const void* end = std::memchr(begin + scanned_, '\n', size - scanned_);
    if (end != nullptr) {
      const auto length =
          static_cast<size_t>(static_cast<const char*>(end) - begin);
      *line = absl::string_view(begin, length);
      done_ += length + 1;
    } else if (at_end_ && size > 0) {
      *line = absl::string_view(begin, size);
      done_ = buffer_.size();
    } else {
      scanned_ = size;
      return false;
    }
    scanned_ = 0;
    return true;
  }

  // Reads more. Invalidates lines taken before. Returns false at the end.
  absl::StatusOr<bool> Fill() {
    if (at_end_) return false;
    buffer_.erase(0, done_);
    done_ = 0;
    if (buffer_.size() > kMaxLineBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("the line has more than ", kMaxLineBytes, " bytes"));
    }
    const size_t size = buffer_.size();
    buffer_.resize(size + kReadBytes);
    ssize_t count = 0;
    do {
      count = read(descriptor_, buffer_.data() + size, kReadBytes);
    } while (count < 0 && errno == EINTR);
    buffer_.resize(size + static_cast<size_t>(count > 0 ? count : 0));
    if (count < 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot read the input: ", std::strerror(errno)));
    }
    at_end_ = count == 0;
    return true;
  }

 private:
  const int descriptor_;
  std::string buffer_;
  size_t done_ = 0;     // bytes of lines taken
  size_t scanned_ = 0;  // bytes behind them without a line end
  bool at_end_ = false;
};

absl::Status RunLines(const Tokenizer& tokenizer,
                      const TokenizeOptions& options, std::string* out) {
  LineReader reader(STDIN_FILENO);
  int64_t line_number = 0;
  for (bool more = true; more;) {
    absl::string_view line;
    while (reader.Take(&line)) {
      ++line_number;
      if (options.jsonl && absl::StripAsciiWhitespace(line).empty()) continue;
      const auto answer = TokenizeLine(tokenizer, options, line);
      if (!answer.ok()) {
        return Annotate(answer.status(), absl::StrCat("line ", line_number));
      }
      absl::StrAppend(out, *answer, "\n");
      if (out->size() >= kReadBytes) RETURN_IF_ERROR(WriteOut(out));
    }
    RETURN_IF_ERROR(WriteOut(out));
    absl::StatusOr<bool> filled = reader.Fill();
    if (!filled.ok()) {
      return Annotate(filled.status(), absl::StrCat("line ", line_number + 1));
    }
    more = *filled;
  }
  return absl::OkStatus();
}

absl::Status Run(const std::string& dir, const TokenizeOptions& options) {
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::Load(fs, dir));
  std::string out;
  const absl::Status status = RunLines(*tokenizer, options, &out);
  // What was right before a bad line comes out.
  const absl::Status written = WriteOut(&out);
  return status.ok() ? written : status;
}

constexpr const char* kHelp =
    "Turns lines on standard input into token ids, or ids into text.\n"
    "\n"
    "Without --jsonl a line is a text. With it, a line is an object with\n"
    "\"text\" and, if wanted, \"add_special_tokens\" (default true) and\n"
    "\"special_as_text\" (default false). Both give {\"ids\": [...]}.\n"
    "With --detokenize a line is an object with \"ids\" and, if wanted,\n"
    "\"skip_special_tokens\" (default false) and \"prefixes\" (true: also "
    "what\n"
    "a stream would have given out after each token). It gives\n"
    "{\"text\": ...}.\n"
    "The first bad line ends the run with exit code 1.";

constexpr const char* kExample =
    "Example:\n"
    "  $ echo 'Hello world' | lorikeet tokenize --tokenizer models/smollm2\n"
    "  {\"ids\": [19556, 905]}\n"
    "  $ echo '{\"ids\": [19556, 905]}' |\n"
    "      lorikeet tokenize --tokenizer models/smollm2 --detokenize\n"
    "  {\"text\": \"Hello world\"}";

}  // namespace

absl::StatusOr<std::string> TokenizeLine(const Tokenizer& tokenizer,
                                         const TokenizeOptions& options,
                                         absl::string_view line) {
  if (!options.jsonl && !options.detokenize) {
    return EncodeToJson(tokenizer, line, options.encode);
  }
  ASSIGN_OR_RETURN(const Json json, Json::Parse(line));
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("is ", json.TypeName(), ", expected an object"));
  }
  JsonReader reader(json, "request");
  return options.detokenize ? DecodeLine(tokenizer, reader)
                            : EncodeLine(tokenizer, reader);
}

void AddTokenizeCommand(CLI::App& app, int* exit_code) {
  struct Flags {
    std::string dir;
    bool no_special_tokens = false;
    TokenizeOptions options;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("tokenize", kHelp);
  command->footer(kExample);
  command
      ->add_option("--tokenizer", flags->dir,
                   "Directory of the model, with its tokenizer.json")
      ->required()
      ->type_name("DIR");
  command->add_flag("--jsonl", flags->options.jsonl,
                    "Input lines are JSON objects, not text");
  command->add_flag("--detokenize", flags->options.detokenize,
                    "From ids to text; implies --jsonl");
  command->add_flag("--no-special-tokens", flags->no_special_tokens,
                    "Lines of text: add no BOS and the like");
  command->add_flag("--special-as-text", flags->options.encode.special_as_text,
                    "Lines of text: a special token in them is text");
  command->callback([flags, exit_code] {
    TokenizeOptions options = flags->options;
    options.jsonl = options.jsonl || options.detokenize;
    options.encode.add_special_tokens = !flags->no_special_tokens;
    const absl::Status status = Run(flags->dir, options);
    *exit_code = status.ok() ? 0 : 1;
    if (!status.ok()) {
      std::fprintf(stderr, "lorikeet tokenize: %s\n",
                   std::string(status.message()).c_str());
    }
  });
}

}  // namespace lorikeet

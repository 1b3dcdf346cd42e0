#include "cli/generate.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/adapter_format.h"
#include "cli/channel.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxPromptBytes = size_t{64} << 20;

constexpr char kFooter[] =
    "The prompt is --prompt, --token-ids, or what comes on stdin without its "
    "last line end.\nSampling flags that are not given are the server's "
    "defaults (the model's generation_config).\nThe answer goes to stdout; "
    "--verbose tells on stderr who answered and how fast.\n"
    "\nExamples:\n"
    "  lorikeet generate --task reverse --prompt $'Word: apple\\nAnswer:'\n"
    "  lorikeet generate --task support < question.txt\n"
    "  lorikeet generate --task story@2 --prompt 'Once' --temperature 0.8 "
    "--seed 7 --stream\n"
    "  lorikeet generate --task base --prompt 'Once' --logprobs 2 --output "
    "json\n"
    "  lorikeet generate --adapter story=0.7 --adapter rhyme=0.5 --prompt "
    "'Once'\n";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
  std::string task;
  std::vector<std::string> adapters;  // NAME[=SCALE]
  std::optional<std::string> prompt;
  std::vector<uint32_t> token_ids;
  bool stream = false;
  bool verbose = false;
  std::string request_id;
  int priority = 0;
  std::string routing_key;
  bool parse_special_tokens = false;
  bool omit_special_tokens = false;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> frequency_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> repetition_penalty;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> n;
  std::vector<std::string> logit_bias;
  std::optional<uint32_t> max_tokens;
  std::optional<uint32_t> min_tokens;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
  std::optional<uint32_t> logprobs;
  std::optional<uint32_t> prompt_logprobs;
  bool echo = false;
  bool keep_special_tokens = false;
};

void AddPromptFlags(CLI::App& command, Flags* flags) {
  CLI::Option_group* who = command.add_option_group("Who answers");
  who->require_option(1);
  who->add_option("--task", flags->task,
                  "Base model, adapter or alias, as NAME[@VERSION]")
      ->type_name("NAME");
  who->add_option("--adapter", flags->adapters,
                  "Instead: an adapter and its strength, by default 1; may be "
                  "given many times, they are summed")
      ->type_name("NAME[=SCALE]")
      ->allow_extra_args(false);
  CLI::Option* prompt =
      command.add_option("--prompt", flags->prompt, "The prompt");
  command
      .add_option("--token-ids", flags->token_ids,
                  "The prompt as token ids, separated by commas")
      ->type_name("ID,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->excludes(prompt);
  command.add_flag("--parse-special-tokens", flags->parse_special_tokens,
                   "Recognize special tokens that are written in the prompt");
  command.add_flag("--omit-special-tokens", flags->omit_special_tokens,
                   "Do not add begin and end tokens to the prompt");
  command.add_option("--request-id", flags->request_id,
                     "Name of the request in the server's log");
  command.add_option("--priority", flags->priority, "Smaller runs first");
  command.add_option("--routing-key", flags->routing_key,
                     "Who asks: a splitting alias gives the same key the same "
                     "version");
}

void AddSamplingFlags(CLI::App& command, Flags* flags) {
  const std::string group = "Sampling";
  command
      .add_option("--temperature", flags->temperature,
                  "Softmax temperature; 0 = always the likeliest token")
      ->group(group);
  command
      .add_option("--top-p", flags->top_p, "Nucleus mass in (0, 1]; 1 = off")
      ->group(group);
  command.add_option("--top-k", flags->top_k, "Only the k likeliest; 0 = off")
      ->group(group);
  command
      .add_option("--min-p", flags->min_p,
                  "Drop tokens below this share of the best; 0 = off")
      ->group(group);
  command
      .add_option("--frequency-penalty", flags->frequency_penalty,
                  "Per occurrence in the output, in [-2, 2]")
      ->group(group);
  command
      .add_option("--presence-penalty", flags->presence_penalty,
                  "Once per token of the output, in [-2, 2]")
      ->group(group);
  command
      .add_option("--repetition-penalty", flags->repetition_penalty,
                  "On tokens of prompt and output, > 0; 1 = off")
      ->group(group);
  command
      .add_option("--seed", flags->seed,
                  "The same seed and prompt give the same answer")
      ->group(group);
  command.add_option("--n", flags->n, "Number of answers")->group(group);
  command
      .add_option("--logit-bias", flags->logit_bias,
                  "Added to the logit of a token; may be given many times")
      ->type_name("ID=BIAS")
      ->allow_extra_args(false)
      ->group(group);
}

void AddStopFlags(CLI::App& command, Flags* flags) {
  const std::string group = "Stopping";
  command
      .add_option("--max-tokens", flags->max_tokens, "Most tokens of an answer")
      ->group(group);
  command
      .add_option("--min-tokens", flags->min_tokens,
                  "Fewest tokens before it may stop")
      ->group(group);
  command
      .add_option("--stop", flags->stop,
                  "Text that ends the answer; may be given many times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--stop-token-id", flags->stop_token_ids,
                  "Token that ends the answer; may be given many times")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_flag("--ignore-eos", flags->ignore_eos,
                "Go on after the end-of-sequence token")
      ->group(group);
  command
      .add_flag("--include-stop", flags->include_stop,
                "Keep the matched --stop in the answer")
      ->group(group);
}

void AddAnswerFlags(CLI::App& command, Flags* flags) {
  const std::string group = "Answer";
  command
      .add_flag("--stream", flags->stream,
                "Print the answer as it comes; with --output json an event "
                "per line")
      ->group(group);
  command
      .add_flag("--verbose,-v", flags->verbose,
                "Tell on stderr who answered and how fast")
      ->group(group);
  command
      .add_option("--logprobs", flags->logprobs,
                  "Alternatives per token, 0 = only the chosen one "
                  "(--output json)")
      ->type_name("N")
      ->group(group);
  command
      .add_option("--prompt-logprobs", flags->prompt_logprobs,
                  "The same for the prompt")
      ->type_name("N")
      ->group(group);
  command.add_flag("--echo", flags->echo, "The answer starts with the prompt")
      ->group(group);
  command
      .add_flag("--keep-special-tokens", flags->keep_special_tokens,
                "Show special tokens in the answer")
      ->group(group);
}

absl::StatusOr<std::string> ReadPrompt() {
  std::string text;
  char buffer[1 << 16];
  size_t read = 0;
  while ((read = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
    text.append(buffer, read);
    if (text.size() > kMaxPromptBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the prompt on stdin is longer than ", HumanBytes(kMaxPromptBytes)));
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

absl::Status FillSampling(const Flags& flags, v1::SamplingParams* out) {
  if (flags.temperature) out->set_temperature(*flags.temperature);
  if (flags.top_p) out->set_top_p(*flags.top_p);
  if (flags.top_k) out->set_top_k(*flags.top_k);
  if (flags.min_p) out->set_min_p(*flags.min_p);
  if (flags.frequency_penalty) {
    out->set_frequency_penalty(*flags.frequency_penalty);
  }
  if (flags.presence_penalty) {
    out->set_presence_penalty(*flags.presence_penalty);
  }
  if (flags.repetition_penalty) {
    out->set_repetition_penalty(*flags.repetition_penalty);
  }
  if (flags.seed) out->set_seed(*flags.seed);
  if (flags.n) out->set_n(*flags.n);
  for (const std::string& entry : flags.logit_bias) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    uint32_t id = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(parts.first, &id) ||
        !absl::SimpleAtof(parts.second, &bias)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--logit-bias ", Quote(entry), " is not of the form ID=BIAS"));
    }
    (*out->mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

void FillStop(const Flags& flags, v1::StopConditions* out) {
  if (flags.max_tokens) out->set_max_tokens(*flags.max_tokens);
  if (flags.min_tokens) out->set_min_tokens(*flags.min_tokens);
  for (const std::string& stop : flags.stop) out->add_stop(stop);
  for (const uint32_t id : flags.stop_token_ids) out->add_stop_token_ids(id);
  out->set_ignore_eos(flags.ignore_eos);
  out->set_include_stop_str_in_output(flags.include_stop);
}

absl::Status AddPart(const std::string& text, v1::GenerateRequest* out) {
  const size_t equals = text.rfind('=');
  v1::AdapterPart& part = *out->add_adapters();
  part.set_name(text.substr(0, equals));
  if (equals == std::string::npos) return absl::OkStatus();
  float scale = 0;
  if (!absl::SimpleAtof(text.substr(equals + 1), &scale)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--adapter ", Quote(text), " is not of the form NAME=SCALE"));
  }
  part.set_scale(scale);
  return absl::OkStatus();
}

absl::StatusOr<v1::GenerateRequest> RequestFromFlags(const Flags& flags) {
  v1::GenerateRequest request;
  request.set_task(flags.task);
  for (const std::string& text : flags.adapters) {
    RETURN_IF_ERROR(AddPart(text, &request));
  }
  request.set_request_id(flags.request_id);
  request.set_priority(flags.priority);
  request.set_routing_key(flags.routing_key);
  request.set_parse_special_tokens(flags.parse_special_tokens);
  request.set_omit_special_tokens(flags.omit_special_tokens);
  if (!flags.token_ids.empty()) {
    for (const uint32_t id : flags.token_ids) {
      request.mutable_token_ids()->add_ids(id);
    }
  } else if (flags.prompt) {
    request.set_text(*flags.prompt);
  } else {
    ASSIGN_OR_RETURN(*request.mutable_text(), ReadPrompt());
  }
  if (!IsValidUtf8(request.text())) {
    return absl::InvalidArgumentError("the prompt is not valid UTF-8");
  }
  RETURN_IF_ERROR(FillSampling(flags, request.mutable_sampling()));
  FillStop(flags, request.mutable_stop());
  v1::OutputOptions& output = *request.mutable_output();
  if (flags.logprobs) output.set_logprobs(*flags.logprobs);
  if (flags.prompt_logprobs) output.set_prompt_logprobs(*flags.prompt_logprobs);
  output.set_echo(flags.echo);
  output.set_keep_special_tokens(flags.keep_special_tokens);
  return request;
}

std::string FinishText(v1::FinishReason reason) {
  const std::string name = v1::FinishReason_Name(reason);
  return absl::AsciiStrToLower(
      absl::StripPrefix(absl::string_view(name), "FINISH_REASON_"));
}

absl::Duration FromProto(const google::protobuf::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

std::string AdapterText(const std::string& name, uint32_t version,
                        const std::string& revision) {
  return absl::StrCat(Printable(ShortName(name)), "@", version, " (",
                      revision.substr(0, 12), ")");
}

// Who answers.
std::string AdaptersText(const v1::GenerationStarted& started) {
  std::string text;
  for (const v1::ResolvedAdapter& part : started.adapters()) {
    absl::StrAppend(
        &text, text.empty() ? "" : " + ", part.scale(), " x ",
        AdapterText(part.adapter(), part.version(), part.revision()));
  }
  if (!text.empty()) return text;
  if (started.adapter().empty()) return "base model";
  return AdapterText(started.adapter(), started.adapter_version(),
                     started.adapter_revision());
}

void PrintStarted(const v1::GenerationStarted& started) {
  std::fprintf(stderr, "[%s] %s  prompt %u tokens, %u cached\n",
               Printable(started.request_id()).c_str(),
               AdaptersText(started).c_str(), started.prompt_tokens(),
               started.cached_tokens());
}

void PrintFinished(const v1::GenerationFinished& finished) {
  const v1::Timings& timings = finished.timings();
  const uint32_t tokens = finished.usage().completion_tokens();
  const double decode_s = absl::ToDoubleSeconds(FromProto(timings.decode()));
  std::fprintf(stderr, "[%u] %u tokens, %s; first after %s%s\n",
               finished.index(), tokens,
               FinishText(finished.finish_reason()).c_str(),
               HumanDuration(FromProto(timings.time_to_first_token())).c_str(),
               tokens > 1 && decode_s > 0
                   ? absl::StrCat(", then ", Fixed((tokens - 1) / decode_s, 1),
                                  " tokens/s")
                         .c_str()
                   : "");
}

// Prints text of several candidates so that they can be told apart.
class CandidatePrinter {
 public:
  explicit CandidatePrinter(bool with_titles) : with_titles_(with_titles) {}

  void Add(uint32_t index, absl::string_view text) {
    if (with_titles_ && index != last_) {
      EndLine();
      Print(absl::StrCat("--- ", index, "\n"));
    }
    last_ = index;
    if (text.empty()) return;
    Print(text);
    at_line_start_ = text.back() == '\n';
  }
  void EndLine() {
    if (!at_line_start_) Print("\n");
    at_line_start_ = true;
  }

 private:
  const bool with_titles_;
  int64_t last_ = -1;
  bool at_line_start_ = true;
};

absl::Status Stream(const Flags& flags, RpcClient& client,
                    const v1::GenerateRequest& request) {
  const bool json = flags.output == OutputFormat::kJson;
  CandidatePrinter printer(flags.n.value_or(1) > 1);
  const absl::Status status =
      client.Generate(request, [&](const v1::GenerateResponse& event) {
        if (json) {
          Print(MessageToJson(event, /*one_line=*/true));
          return true;
        }
        if (event.has_delta()) {
          printer.Add(event.delta().index(), event.delta().text());
        } else if (flags.verbose && event.has_started()) {
          PrintStarted(event.started());
        } else if (flags.verbose && event.has_finished()) {
          printer.EndLine();
          PrintFinished(event.finished());
        }
        return true;
      });
  printer.EndLine();
  return status;
}

absl::Status Whole(const Flags& flags, RpcClient& client,
                   const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(const v1::GenerateUnaryResponse response,
                   client.GenerateUnary(request));
  if (flags.output == OutputFormat::kJson) {
    Print(MessageToJson(response));
    return absl::OkStatus();
  }
  if (flags.verbose) PrintStarted(response.started());
  CandidatePrinter printer(response.candidates_size() > 1);
  for (const v1::Candidate& candidate : response.candidates()) {
    printer.Add(candidate.finished().index(), candidate.output().text());
  }
  printer.EndLine();
  if (flags.verbose) {
    for (const v1::Candidate& candidate : response.candidates()) {
      PrintFinished(candidate.finished());
    }
  }
  return absl::OkStatus();
}

absl::Status RunGenerate(const Flags& flags) {
  ASSIGN_OR_RETURN(const v1::GenerateRequest request, RequestFromFlags(flags));
  RpcClient client(flags.server);
  return flags.stream ? Stream(flags, client, request)
                      : Whole(flags, client, request);
}

}  // namespace

void AddGenerateCommand(CLI::App& app, int* exit_code) {
  CLI::App* command =
      app.add_subcommand("generate", "Send a prompt and print the answer");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  AddPromptFlags(*command, flags.get());
  AddSamplingFlags(*command, flags.get());
  AddStopFlags(*command, flags.get());
  AddAnswerFlags(*command, flags.get());
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->callback(
      [flags, exit_code] { *exit_code = ReportError(RunGenerate(*flags)); });
}

}  // namespace lorikeet

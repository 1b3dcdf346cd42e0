// Three acts: register the adapters, ask all of them and the base at once, and
// swap one adapter while a stream runs on its old version.
//
// The swap is proven and not only shown: the old stream must have tokens left
// when the update has returned, and its whole text must equal that of an
// undisturbed run on the old version. If it was too quick for the disk that the
// swap waits for, all is done once more with a stream of more candidates.

#include "cli/demo.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/adapter_format.h"
#include "cli/channel.h"
#include "cli/demo_manifest.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "The server must serve the demo's base model and, without --upload, allow "
    "the demo's\ndirectory: lorikeet serve --model demo/base --adapter-root "
    "demo\nThe exit code is 0 only if every answer is right.\n"
    "\nExamples:\n"
    "  lorikeet demo --demo-dir demo\n"
    "  lorikeet demo --demo-dir demo --server 10.0.0.7:8001 --upload\n";

// Candidates of the stream that must outlive the swap, try by try: more of them
// make longer steps.
constexpr uint32_t kSwapCandidates[] = {8, 16, 32};
// Left of the context for the prompt.
constexpr uint32_t kPromptRoom = 64;

struct Flags {
  ServerFlags server;
  std::string demo_dir = "demo";
  bool upload = false;
  uint32_t words = 2;
};

// One streamed answer; of several candidates the first.
struct Answer {
  absl::Status status;
  v1::GenerationStarted started;
  std::string text;
  uint32_t tokens = 0;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  // Since the call.
  absl::Duration first_token = absl::ZeroDuration();
  absl::Duration last_token = absl::ZeroDuration();
};

// A stream that runs on a thread of its own and can be looked at meanwhile.
class Stream {
 public:
  Stream(RpcClient* client, v1::GenerateRequest request)
      : client_(*client),
        request_(std::move(request)),
        thread_("demo", [this] { Run(); }) {}

  // Waits for the end.
  Answer Wait() {
    MutexLock lock(&mu_);
    while (!done_) changed_.Wait(&mu_);
    return answer_;
  }
  // Waits until `text` has come, or for the end.
  void WaitForText(absl::string_view text) {
    MutexLock lock(&mu_);
    while (!done_ && !absl::StrContains(answer_.text, text)) {
      changed_.Wait(&mu_);
    }
  }
  uint32_t tokens() {
    MutexLock lock(&mu_);
    return answer_.tokens;
  }
  bool done() {
    MutexLock lock(&mu_);
    return done_;
  }

 private:
  void Run() {
    const absl::Duration start = clock_.Now();
    const absl::Status status =
        client_.Generate(request_, [&](const v1::GenerateResponse& event) {
          const absl::Duration elapsed = clock_.Now() - start;
          MutexLock lock(&mu_);
          Take(event, elapsed);
          changed_.SignalAll();
          return true;
        });
    MutexLock lock(&mu_);
    answer_.status = status;
    done_ = true;
    changed_.SignalAll();
  }

  void Take(const v1::GenerateResponse& event, absl::Duration elapsed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (event.has_started()) answer_.started = event.started();
    if (event.has_finished()) {
      answer_.finish_reason = event.finished().finish_reason();
    }
    if (!event.has_delta() || event.delta().index() != 0) return;
    answer_.text += event.delta().text();
    if (event.delta().token_ids().empty()) return;
    if (answer_.tokens == 0) answer_.first_token = elapsed;
    answer_.last_token = elapsed;
    answer_.tokens += static_cast<uint32_t>(event.delta().token_ids_size());
  }

  SystemClock clock_;
  RpcClient& client_;
  const v1::GenerateRequest request_;
  Mutex mu_;
  CondVar changed_;
  Answer answer_ ABSL_GUARDED_BY(mu_);
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  BackgroundThread thread_;  // last: uses the others
};

v1::GenerateRequest GreedyRequest(const std::string& task,
                                  const DemoPrompt& prompt) {
  v1::GenerateRequest request;
  request.set_task(task);
  request.set_text(prompt.prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(prompt.max_tokens);
  return request;
}

std::string VersionText(const v1::GenerationStarted& started) {
  if (started.adapter().empty()) return "";
  return absl::StrCat(ShortName(started.adapter()), "@",
                      started.adapter_version(), " ",
                      started.adapter_revision().substr(0, 8));
}

// For a column of a table.
std::string Stripped(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(text));
}

std::string TokensPerSecond(const Answer& answer) {
  const double seconds =
      absl::ToDoubleSeconds(answer.last_token - answer.first_token);
  if (answer.tokens < 2 || seconds <= 0) return "";
  return Fixed((answer.tokens - 1) / seconds, 0);
}

class Demo {
 public:
  Demo(const Flags& flags, DemoManifest manifest)
      : flags_(flags), manifest_(std::move(manifest)), client_(flags.server) {}

  // Returns true if all went as it should.
  absl::StatusOr<bool> Run() {
    ASSIGN_OR_RETURN(const v1::GetServerInfoResponse info,
                     client_.GetServerInfo());
    base_ = info.base_model();
    max_model_len_ = info.max_model_len();
    Print(absl::StrCat("Server ", flags_.server.server, " serves ",
                       Printable(base_), " (", info.dtype(), ") on ",
                       info.backend(), " ", info.device(), ".\n\n"));
    RETURN_IF_ERROR(RegisterAll());
    ASSIGN_OR_RETURN(const bool right, AskAll());
    bool swaps_right = true;
    for (const DemoAdapter& update : manifest_.updates) {
      ASSIGN_OR_RETURN(const bool swapped, Swap(update));
      swaps_right = swaps_right && swapped;
    }
    return right && swaps_right;
  }

 private:
  absl::StatusOr<v1::Adapter> Send(v1::UploadAdapterRequest first,
                                   const std::string& dir) {
    if (flags_.upload) return client_.UploadAdapter(first, dir);
    PosixFileSystem fs;
    ASSIGN_OR_RETURN(const std::string path, fs.Canonical(dir));
    if (first.has_header()) {
      first.mutable_header()
          ->mutable_adapter()
          ->mutable_source()
          ->set_local_path(path);
      return client_.CreateAdapter(first.header());
    }
    first.mutable_update()->mutable_adapter()->mutable_source()->set_local_path(
        path);
    return client_.UpdateAdapter(first.update());
  }

  absl::StatusOr<v1::Adapter> Register(const DemoAdapter& adapter) {
    v1::UploadAdapterRequest first;
    v1::CreateAdapterRequest& request = *first.mutable_header();
    request.set_parent(ParentOf(adapter.name));
    request.set_adapter_id(adapter.name);
    request.mutable_adapter()->set_display_name(adapter.description);
    return Send(first, JoinPath(flags_.demo_dir, adapter.dir));
  }

  // Gives an adapter that is there the files of `adapter`; the same files make
  // no new version.
  absl::StatusOr<v1::Adapter> Update(const DemoAdapter& adapter) {
    v1::UploadAdapterRequest first;
    v1::Adapter& changed = *first.mutable_update()->mutable_adapter();
    changed.set_name(ResourceName(adapter.name, "adapters"));
    changed.set_display_name(adapter.description);
    return Send(first, JoinPath(flags_.demo_dir, adapter.dir));
  }

  absl::Status RegisterAll() {
    const absl::Duration start = clock_.Now();
    Table table({{"ADAPTER"},
                 {"VERSION", Table::Align::kRight},
                 {"RANK", Table::Align::kRight},
                 {"MODULES"},
                 {"SIZE", Table::Align::kRight},
                 {"REVISION"},
                 {"WHAT IT DOES"}});
    for (const DemoAdapter& adapter : manifest_.adapters) {
      absl::StatusOr<v1::Adapter> result = Register(adapter);
      if (absl::IsAlreadyExists(result.status())) result = Update(adapter);
      if (!result.ok()) return Annotate(result.status(), adapter.name);
      std::string modules;
      for (const std::string& module : result->lora().target_modules()) {
        absl::StrAppend(&modules, modules.empty() ? "" : ",",
                        module.substr(0, module.rfind("_proj")));
      }
      table.AddRow({adapter.name, absl::StrCat(result->version()),
                    absl::StrCat(result->lora().rank()), modules,
                    HumanBytes(result->size_bytes()),
                    result->revision().substr(0, 8), adapter.description});
    }
    Print(absl::StrCat("Registered ", manifest_.adapters.size(),
                       " adapters over the admin API in ",
                       HumanDuration(clock_.Now() - start), ":\n\n",
                       table.ToString(), "\n"));
    return absl::OkStatus();
  }

  struct Question {
    std::string task;
    DemoPrompt prompt;
    std::unique_ptr<Stream> stream = nullptr;
  };

  // The first prompts of the base and of every adapter: the same words for
  // all.
  std::vector<Question> Questions() const {
    std::vector<Question> questions;
    for (uint32_t word = 0; word < flags_.words; ++word) {
      if (word < manifest_.base_prompts.size()) {
        questions.push_back({base_, manifest_.base_prompts[word]});
      }
      for (const DemoAdapter& adapter : manifest_.adapters) {
        if (word >= adapter.prompts.size()) continue;
        questions.push_back({adapter.name, adapter.prompts[word]});
      }
    }
    std::stable_sort(questions.begin(), questions.end(),
                     [this](const Question& a, const Question& b) {
                       return Order(a.task) < Order(b.task);
                     });
    return questions;
  }

  // The base first, then as in the manifest.
  size_t Order(const std::string& task) const {
    for (size_t i = 0; i < manifest_.adapters.size(); ++i) {
      if (manifest_.adapters[i].name == task) return i + 1;
    }
    return 0;
  }

  // An adapter's answer ends by itself; a story of the base may be cut.
  bool IsRight(const Question& question, const Answer& answer) const {
    if (!answer.status.ok()) return false;
    if (answer.finish_reason == v1::FINISH_REASON_STOP) {
      return answer.text == question.prompt.expected;
    }
    return question.task == base_ &&
           absl::StartsWith(answer.text, question.prompt.expected);
  }

  absl::StatusOr<bool> AskAll() {
    std::vector<Question> questions = Questions();
    const absl::Duration start = clock_.Now();
    for (Question& question : questions) {
      question.stream = std::make_unique<Stream>(
          &client_, GreedyRequest(question.task, question.prompt));
    }
    Table table({{"TASK"},
                 {"ADAPTER VERSION"},
                 {"PROMPT"},
                 {"ANSWER"},
                 {"VERDICT"},
                 {"FIRST TOKEN", Table::Align::kRight},
                 {"TOKENS/S", Table::Align::kRight}});
    size_t right = 0;
    uint64_t tokens = 0;
    for (Question& question : questions) {
      const Answer answer = question.stream->Wait();
      const bool is_right = IsRight(question, answer);
      right += is_right ? 1 : 0;
      tokens += answer.tokens;
      table.AddRow(
          {question.task, VersionText(answer.started), question.prompt.prompt,
           answer.status.ok() ? answer.text : DescribeError(answer.status),
           is_right ? "right" : "WRONG", HumanDuration(answer.first_token),
           TokensPerSecond(answer)});
    }
    const absl::Duration elapsed = clock_.Now() - start;
    Print(absl::StrCat(
        "Asked the base and all adapters at once, ", questions.size(),
        " streams:\n\n", table.ToString(), "\n", right, " of ",
        questions.size(), " answers are right. ", tokens, " tokens in ",
        HumanDuration(elapsed), ", ",
        Fixed(static_cast<double>(tokens) / absl::ToDoubleSeconds(elapsed), 0),
        " tokens/s over all streams.\n\n"));
    return right == questions.size();
  }

  // Goes on after the answer, special tokens shown.
  v1::GenerateRequest LongRequest(const std::string& task,
                                  const DemoPrompt& prompt,
                                  uint32_t candidates) const {
    v1::GenerateRequest request = GreedyRequest(task, prompt);
    request.mutable_sampling()->set_n(candidates);
    request.mutable_stop()->set_max_tokens(
        max_model_len_ > kPromptRoom ? max_model_len_ - kPromptRoom : 1);
    request.mutable_stop()->set_ignore_eos(true);
    request.mutable_output()->set_keep_special_tokens(true);
    return request;
  }

  // What stands before the end token of a long answer.
  std::string Head(const std::string& text) const {
    return text.substr(0, text.find(manifest_.stop));
  }

  struct SwapResult {
    Answer undisturbed;
    Answer old_stream;
    Answer new_request;
    uint32_t tokens_before = 0;
    uint32_t tokens_after = 0;
    absl::Duration swap_time = absl::ZeroDuration();
    bool was_running = false;
  };

  absl::StatusOr<SwapResult> TrySwap(const DemoAdapter& before,
                                     const DemoAdapter& update,
                                     uint32_t candidates) {
    SwapResult result;
    const v1::GenerateRequest request =
        LongRequest(before.name, before.prompts[0], candidates);
    result.undisturbed = Stream(&client_, request).Wait();
    RETURN_IF_ERROR(result.undisturbed.status);

    Stream stream(&client_, request);
    stream.WaitForText(manifest_.stop);
    const absl::Duration start = clock_.Now();
    result.tokens_before = stream.tokens();
    RETURN_IF_ERROR(Update(update).status());
    result.swap_time = clock_.Now() - start;
    result.tokens_after = stream.tokens();
    result.was_running = !stream.done();
    result.new_request =
        Stream(&client_, GreedyRequest(update.name, update.prompts[0])).Wait();
    result.old_stream = stream.Wait();
    RETURN_IF_ERROR(result.old_stream.status);
    return result;
  }

  absl::StatusOr<bool> Swap(const DemoAdapter& update) {
    const DemoAdapter* before = manifest_.FindAdapter(update.name);
    if (before == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "demo manifest updates ", Quote(update.name), ", which it lacks"));
    }
    for (const uint32_t candidates : kSwapCandidates) {
      ASSIGN_OR_RETURN(const SwapResult result,
                       TrySwap(*before, update, candidates));
      const bool is_last = candidates == *std::rbegin(kSwapCandidates);
      if (result.was_running || is_last) {
        return ReportSwap(*before, update, result);
      }
      Print(
          "The old stream ended before the update did; once more with a "
          "slower one.\n");
      RETURN_IF_ERROR(Update(*before).status());
    }
    return false;
  }

  bool ReportSwap(const DemoAdapter& before, const DemoAdapter& update,
                  const SwapResult& result) const {
    const Answer& old_stream = result.old_stream;
    const Answer& fresh = result.new_request;
    const bool undisturbed = old_stream.text == result.undisturbed.text;
    const bool old_right =
        Head(old_stream.text) == before.prompts[0].expected && undisturbed &&
        result.was_running &&
        old_stream.started.adapter_revision() ==
            result.undisturbed.started.adapter_revision();
    const bool new_right = fresh.status.ok() &&
                           fresh.text == update.prompts[0].expected &&
                           fresh.started.adapter_revision() !=
                               old_stream.started.adapter_revision();
    Table table({{"STREAM"},
                 {"ADAPTER VERSION"},
                 {"PROMPT"},
                 {"ANSWER"},
                 {"TOKENS", Table::Align::kRight},
                 {"VERDICT"}});
    table.AddRow(
        {"old, started before the swap", VersionText(old_stream.started),
         before.prompts[0].prompt, Stripped(Head(old_stream.text)),
         absl::StrCat(old_stream.tokens), old_right ? "right" : "WRONG"});
    table.AddRow(
        {"new, started after the swap", VersionText(fresh.started),
         update.prompts[0].prompt,
         fresh.status.ok() ? Stripped(fresh.text) : DescribeError(fresh.status),
         absl::StrCat(fresh.tokens), new_right ? "right" : "WRONG"});
    Print(absl::StrCat(
        "Swapped ", update.name, " to ", update.version, " (",
        update.description, ") in ", HumanDuration(result.swap_time),
        " while a stream ran on the old version:\n\n", table.ToString(),
        "\nThe old stream had ", result.tokens_before,
        " tokens when the swap began, ", result.tokens_after,
        " when it was done, and ", old_stream.tokens, " at its end",
        result.was_running ? "" : " (it had ENDED before the swap)", ".\n",
        "Its text is ", undisturbed ? "the same" : "NOT the same",
        " as without a swap.\n\n"));
    return old_right && new_right;
  }

  const Flags flags_;
  const DemoManifest manifest_;
  RpcClient client_;
  SystemClock clock_;
  std::string base_;
  uint32_t max_model_len_ = 0;
};

absl::StatusOr<bool> RunDemo(const Flags& flags) {
  ASSIGN_OR_RETURN(DemoManifest manifest, ReadDemoManifest(flags.demo_dir));
  return Demo(flags, std::move(manifest)).Run();
}

}  // namespace

void AddDemoCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand(
      "demo",
      "Register the demo adapters, ask them all at once, swap one under load");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  command
      ->add_option("--demo-dir", flags->demo_dir,
                   "Directory with manifest.json and the adapters")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_flag("--upload", flags->upload,
                    "Send the adapters' files instead of naming their "
                    "directories");
  command->add_option("--words", flags->words, "Prompts per task")
      ->type_name("N")
      ->check(CLI::Range(1, 20))
      ->capture_default_str();
  AddServerFlags(*command, &flags->server);
  command->callback([flags, exit_code] {
    const absl::StatusOr<bool> right = RunDemo(*flags);
    *exit_code = right.ok() ? (*right ? 0 : 1) : ReportError(right.status());
    if (right.ok()) Print(*right ? "All as expected.\n" : "NOT as expected.\n");
  });
}

}  // namespace lorikeet

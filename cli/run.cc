#include "cli/run.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/run_request.h"
#include "cli/run_session.h"
#include "server/options.h"
#include "server/runtime.h"

namespace lorikeet {
namespace {

struct RunOptions {
  ServerOptions server;
  std::vector<std::string> adapters;  // NAME=PATH
  std::optional<uint64_t> admit_seed;
};

constexpr char kFooter[] =
    "A line of input is a request:\n"
    "  {\"id\": 1, \"prompt\": \"Word: apple\\nAnswer:\", \"adapter\": "
    "\"reverse\", \"max_tokens\": 20}\n"
    "with token_ids instead of prompt, temperature, top_p, top_k, min_p, seed, "
    "n, stop, stop_token_ids,\nignore_eos, min_tokens, penalties, logit_bias, "
    "logprobs, prompt_logprobs, echo, return_logits\n(absent = greedy); "
    "several adapters, exactly summed, instead of adapter:\n"
    "  \"adapters\": [{\"name\": \"reverse\", \"scale\": 0.5}, "
    "{\"name\": \"upper\"}]\nor an operation between requests:\n"
    "  {\"op\": \"load\", \"adapter\": \"reverse\", \"path\": \"DIR\"}   also "
    "update, unload, barrier\n\nExample:\n"
    "  lorikeet run --model demo/base --adapter reverse=demo/adapters/reverse "
    "< requests.jsonl";

void PrintError(absl::string_view message) {
  std::fprintf(stderr, "lorikeet run: %s\n", std::string(message).c_str());
}

// Feeds every line of stdin to the session. Returns the number of lines that
// could not be read, each already named on stderr.
absl::StatusOr<int> ReadLines(RunSession& session) {
  int num_bad = 0;
  int64_t number = 0;
  std::string line;
  while (std::getline(std::cin, line)) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<RunLine> parsed = ParseRunLine(line);
    if (!parsed.ok()) {
      PrintError(
          absl::StrCat("line ", number, ": ", parsed.status().message()));
      ++num_bad;
      continue;
    }
    RETURN_IF_ERROR(session.Add(number, *std::move(parsed)));
  }
  return num_bad;
}

// Returns true if every line was answered.
absl::StatusOr<bool> Run(RunOptions options) {
  RETURN_IF_ERROR(CheckOptions(options.server));
  RETURN_IF_ERROR(ApplyLogFlags(options.server));
  ASSIGN_OR_RETURN(const std::unique_ptr<Runtime> runtime,
                   Runtime::Create(options.server));
  RunSession session(*runtime, options.admit_seed, stdout);
  for (const std::string& text : options.adapters) {
    ASSIGN_OR_RETURN(const auto name_and_path,
                     SplitNameAndPath("--adapter", text));
    RETURN_IF_ERROR(
        session.AddAdapter(name_and_path.first, name_and_path.second));
  }
  const absl::StatusOr<int> num_bad = ReadLines(session);
  // What came before a failed operation is answered all the same.
  session.Finish();
  for (const auto& [line, message] : session.errors()) PrintError(message);
  RETURN_IF_ERROR(num_bad.status());
  return *num_bad == 0 && session.errors().empty();
}

}  // namespace

void AddRunCommand(CLI::App& parent, int* exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* app = parent.add_subcommand(
      "run",
      "Answer a file of requests offline: JSON lines on stdin, results on "
      "stdout in the same order; all requests share batches");
  options->server.log_level = "warning";
  options->server.max_waiting_requests = 100000;
  AddModelFlags(*app, &options->server);
  app->add_option("--adapter", options->adapters,
                  "NAME=PATH of an adapter directory (repeatable)");
  app->add_option("--admit-seed", options->admit_seed,
                  "Shuffle the order of admission (results stay in order)");
  app->footer(kFooter);
  app->callback([app, options, exit_code] {
    const absl::Status config = ApplyConfigFile(*app, options->server);
    const absl::StatusOr<bool> ok =
        config.ok() ? Run(*options) : absl::StatusOr<bool>(config);
    if (!ok.ok()) PrintError(ok.status().message());
    if (!ok.ok() || !*ok) *exit_code = 1;
  });
}

}  // namespace lorikeet

#include "server/options.h"

#include <yaml-cpp/yaml.h>
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// A flag whose value is a size such as "512MiB".
CLI::Option* AddBytes(CLI::App& app, const std::string& flag, int64_t* value,
                      const std::string& help) {
  return app
      .add_option_function<std::string>(
          flag,
          [flag, value](const std::string& text) {
            const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
            if (!bytes.ok()) {
              throw CLI::ValidationError(flag,
                                         std::string(bytes.status().message()));
            }
            *value = static_cast<int64_t>(*bytes);
          },
          help)
      ->type_name("BYTES");
}

// One scalar of the file as the text that a flag would have had.
absl::Status ApplyYamlValue(CLI::Option& option, const std::string& key,
                            const YAML::Node& value) {
  std::vector<std::string> texts;
  if (value.IsSequence()) {
    for (const YAML::Node& item : value) texts.push_back(item.Scalar());
  } else if (value.IsScalar()) {
    texts.push_back(value.Scalar());
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "config field ", Quote(key), " is neither a scalar nor a list"));
  }
  try {
    for (const std::string& text : texts) option.add_result(text);
    option.run_callback();
  } catch (const CLI::Error& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("config field ", Quote(key), ": ", e.what()));
  }
  return absl::OkStatus();
}

absl::Status ApplyYaml(CLI::App& app, const YAML::Node& root) {
  if (!root.IsMap()) {
    return absl::InvalidArgumentError("config file is not a map of flags");
  }
  for (const auto& entry : root) {
    const std::string key = entry.first.Scalar();
    CLI::Option* option = app.get_option_no_throw("--" + key);
    if (option == nullptr || key == "config" || key == "help") {
      return absl::InvalidArgumentError(absl::StrCat(
          "config field ", Quote(key), " is no flag of this command"));
    }
    if (option->count() > 0) continue;  // the command line beats the file
    RETURN_IF_ERROR(ApplyYamlValue(*option, key, entry.second));
  }
  return absl::OkStatus();
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" ||
         host.rfind("127.", 0) == 0;
}

}  // namespace

DeviceOptions ServerOptions::Device() const {
  return {.device = device,
          .int8_weights = dtype == "int8",
          .compute_dtype = ParseDType(compute_dtype).value_or(DType::kF32),
          .cuda = {.batch_invariant = batch_invariant,
                   .memory_bytes = device_memory_bytes,
                   .graphs = cuda_graphs}};
}

void AddModelFlags(CLI::App& app, ServerOptions* o) {
  app.add_option("--model,model", o->model_dir,
                 "Directory of the base model (Hugging Face layout)");
  app.add_option("--device", o->device, "Where to compute")
      ->check(CLI::IsMember(DeviceNames()))
      ->capture_default_str();
  app.add_option("--dtype", o->dtype,
                 "Storage of the base weights; auto = as in the file; int8 = "
                 "quantized by blocks of 32 at load")
      ->check(CLI::IsMember({"auto", "bf16", "f16", "f32", "int8"}))
      ->capture_default_str();
  app.add_option(
         "--compute-dtype", o->compute_dtype,
         "bf16 = round inputs of bf16 weights to bf16 and use the CPU's "
         "bf16 dot products: faster prefill, less exact")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--load-format", o->load_format,
                 "dummy = random weights from config.json alone, for timing")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  app.add_option("--kv-cache-dtype", o->kv_cache_dtype,
                 "Storage of K and V; auto = f32 on the CPU, bf16 on CUDA")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--adapter-dtype", o->adapter_dtype,
                 "Storage of A and B; auto = as in the file; int8 = in 8 bits "
                 "where they compute, about half of bf16's bytes; the error is "
                 "told at registration")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16", "int8"}))
      ->capture_default_str();
  app.add_option("--threads", o->threads, "Compute threads; 0 = all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("--batch-invariant", o->batch_invariant,
               "On CUDA: a row's bits do not depend on the batch, for slower "
               "products; on the CPU they never do");
  AddBytes(
      app, "--device-memory-bytes", &o->device_memory_bytes,
      "On CUDA: memory for weights, KV cache, adapters and steps together; "
      "default: nine tenths of what is free");
  app.add_flag("--cuda-graphs,!--no-cuda-graphs", o->cuda_graphs,
               "On CUDA: steps of one shape become a single launch (default "
               "on); no influence on answers");
  app.add_flag("--pin-threads", o->pin_threads,
               "Keep each compute thread on a core of its own");
  app.add_flag("--huge-pages,!--no-huge-pages", o->huge_pages,
               "Ask for huge pages for weights and the KV cache (default on)");
  app.add_option("--max-model-len", o->max_model_len,
                 "Longest sequence in tokens; 0 = as model and KV cache allow")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--max-num-seqs", o->max_num_seqs,
                 "Most candidates in one step")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  app.add_option("--max-num-batched-tokens", o->max_num_batched_tokens,
                 "Most rows in one step (token budget)")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}))
      ->capture_default_str();
  app.add_option("--max-waiting-requests", o->max_waiting_requests,
                 "Requests that may wait; more are refused")
      ->check(CLI::Range(int64_t{1}, int64_t{1000000}))
      ->capture_default_str();
  AddBytes(app, "--kv-cache-bytes", &o->kv_cache_bytes,
           "Memory for K and V; default: a quarter of the free memory");
  app.add_flag("--prefix-caching,!--no-prefix-caching", o->prefix_caching,
               "Reuse K and V of equal prefixes (default on)");
  app.add_option("--max-loras", o->max_loras, "Adapters on the device at once")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--max-lora-rank", o->max_lora_rank, "Largest rank accepted")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  AddBytes(app, "--adapter-host-bytes", &o->adapter_host_bytes,
           "Memory for adapters on the host (default 2 GiB)");
  AddBytes(app, "--adapter-device-bytes", &o->adapter_device_bytes,
           "Memory for adapters on the device (default 2 GiB)");
  app.add_option("--merge", o->merge,
                 "Whether requests of one adapter get merged weights: never, "
                 "always, or auto = while measured costs say so")
      ->check(CLI::IsMember({"never", "always", "auto"}))
      ->capture_default_str();
  app.add_option("--max-merged", o->max_merged,
                 "Merged adapters in memory at once, each as large as the "
                 "linears of the base; 0 = none, also on request; default 1, "
                 "on a GPU 0 unless --merge is given, and the KV cache gets "
                 "the rest")
      ->check(CLI::Range(0, 1000));
  app.add_option("--adapter-loader-threads", o->loader_threads,
                 "Threads that read and pack adapters")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--adapter-version-retention", o->adapter_version_retention,
                 "Newest versions of an adapter that are kept, besides those "
                 "that an alias names or a request uses; 0 = all")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--state-dir", o->state_dir,
                 "Directory of the registry and the adapters' files");
  app.add_option("--log-level", o->log_level, "What is logged to stderr")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  app.add_flag("--log-json", o->log_json, "Log lines as JSON");
  app.add_option("--config", o->config_file,
                 "YAML file of flags (keys without dashes); a flag given here "
                 "beats the file");
}

void AddServeFlags(CLI::App& app, ServerOptions* o) {
  app.add_option("--served-model-name", o->served_model_name,
                 "Task tag of the base model; default: last part of --model");
  app.add_option("--host", o->host,
                 "Address to listen on; beyond loopback needs --insecure")
      ->capture_default_str();
  app.add_option("--grpc-port", o->grpc_port, "Port of gRPC; 0 = any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  app.add_flag("--insecure", o->insecure,
               "Allow plain text connections from other machines");
  app.add_option("--adapter-root", o->adapter_roots,
                 "Directory whose adapters may be registered by path "
                 "(repeatable)")
      ->allow_extra_args(false);
  app.add_option("--train-share", o->train_share,
                 "Most of the compute time that training jobs take while "
                 "requests are served, for example 0.2; when none are, jobs "
                 "take all of it; 0 = no jobs")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  AddBytes(app, "--train-device-bytes", &o->train_device_bytes,
           "On CUDA with --train-share: memory that is left for jobs; default: "
           "3/2 of the weights");
  app.add_option("--training-root", o->training_roots,
                 "Directory whose files may be named as data of a training job "
                 "(repeatable)")
      ->allow_extra_args(false);
  app.add_option("--lora-modules", o->lora_modules,
                 "name=path of adapters to register at start (repeatable)");
  app.add_option("--shutdown-timeout", o->shutdown_timeout_seconds,
                 "Seconds for running requests after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_option("--verify-base-interval", o->verify_base_interval_seconds,
                 "Seconds between checks that the base weights in memory are "
                 "those that were loaded; 0 = only when asked")
      ->check(CLI::Range(0.0, 1e7))
      ->capture_default_str();
  app.add_option("--slow-reader-timeout", o->slow_reader_timeout_seconds,
                 "Seconds until a reader that does not read is dropped")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
}

absl::Status ApplyConfigFile(CLI::App& app, const ServerOptions& options) {
  if (options.config_file.empty()) return absl::OkStatus();
  constexpr uint64_t kMaxConfigBytes = 1 << 20;
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const std::string text,
                   fs.ReadFile(options.config_file, kMaxConfigBytes));
  try {
    return Annotate(ApplyYaml(app, YAML::Load(text)), options.config_file);
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.config_file, ": ", e.what()));
  }
}

absl::Status ApplyLogFlags(const ServerOptions& options) {
  ASSIGN_OR_RETURN(const LogLevel level, ParseLogLevel(options.log_level));
  SetLogLevel(level);
  SetLogJson(options.log_json);
  return absl::OkStatus();
}

absl::Status CheckOptions(const ServerOptions& o) {
  if (o.model_dir.empty()) {
    return absl::InvalidArgumentError("--model is missing");
  }
  if (!o.insecure && !IsLoopback(o.host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host ", Quote(o.host),
                     " is reachable from other machines in plain text; add "
                     "--insecure if that is meant"));
  }
  if (o.max_merged == 0 && o.merge != "never") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--merge ", o.merge, " needs --max-merged of at least 1, is 0"));
  }
  for (const std::string& text : o.lora_modules) {
    RETURN_IF_ERROR(SplitNameAndPath("--lora-modules", text).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::pair<std::string, std::string>> SplitNameAndPath(
    absl::string_view flag, absl::string_view text) {
  const size_t equal = text.find('=');
  if (equal == absl::string_view::npos || equal == 0 ||
      equal + 1 == text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " ", Quote(text), " is not NAME=PATH"));
  }
  return std::make_pair(std::string(text.substr(0, equal)),
                        std::string(text.substr(equal + 1)));
}

std::string DefaultStateDir() {
  const auto env = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string dir = env("STATE_DIRECTORY"); !dir.empty()) return dir;
  if (const std::string dir = env("XDG_STATE_HOME"); !dir.empty()) {
    return JoinPath(dir, "lorikeet");
  }
  if (const std::string dir = env("HOME"); !dir.empty()) {
    return JoinPath(dir, ".local/state/lorikeet");
  }
  return "lorikeet-state";
}

}  // namespace lorikeet

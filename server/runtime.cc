#include "server/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "adapters/base_weights.h"
#include "adapters/merged_variant.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "base/text.h"
#include "kernels/device/open_device.h"

namespace lorikeet {
namespace {

// Share of the free memory that the KV cache takes if nobody says otherwise:
// other processes live here too, and pages are taken only when used.
constexpr int64_t kKvShareOfFreeMemory = 4;
// What a step's activations take at most of a device.
constexpr int64_t kStepShareOfDevice = 10;
constexpr int64_t kMinKvBytes = int64_t{64} << 20;

int64_t FreeMemoryBytes() {
  const int64_t pages = sysconf(_SC_AVPHYS_PAGES);
  const int64_t page_size = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_size > 0 ? pages * page_size : 0;
}

// Of the bf16 dot products only bf16 weights have any use.
absl::Status CheckComputeDType(const ServerOptions& options,
                               const Model& model) {
  if (options.compute_dtype != "bf16" || model.dtype() == DType::kBF16) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--compute-dtype bf16 needs bf16 weights, these are ",
                   Name(model.dtype()), "; add --dtype bf16"));
}

std::function<void(int64_t, int64_t)> ProgressLogger(const Clock& clock) {
  return [&clock, last = clock.Now()](int64_t done, int64_t all) mutable {
    const absl::Duration now = clock.Now();
    if (now - last < absl::Seconds(1) && done < all) return;
    last = now;
    Log(LogLevel::kInfo, "reading weights",
        {{"done", HumanBytes(static_cast<uint64_t>(done))},
         {"of", HumanBytes(static_cast<uint64_t>(all))}});
  };
}

absl::Status LoadModel(const ServerOptions& options, Runtime* r) {
  const int threads = options.threads > 0 ? options.threads : AvailableCores();
  if (threads > AvailableCores()) {
    Log(LogLevel::kWarning, "more threads than cores: each waits for others",
        {{"threads", absl::StrCat(threads)},
         {"cores", absl::StrCat(AvailableCores())}});
  }
  SetHugePages(options.huge_pages);
  r->pool = std::make_unique<ThreadPool>(threads, options.pin_threads);
  ASSIGN_OR_RETURN(r->ops, OpenDevice(options.Device(), *r->pool));
  r->device_bytes = r->ops->free_bytes();
  const absl::Duration start = r->clock.Now();
  ModelOptions model_options;
  model_options.dtype = ParseDType(options.dtype);
  model_options.dummy_weights = options.load_format == "dummy";
  if (!options.state_dir.empty()) {
    model_options.cache_dir = JoinPath(options.state_dir, "packed");
  }
  model_options.progress = ProgressLogger(r->clock);
  ASSIGN_OR_RETURN(
      r->model, Model::Load(r->fs, options.model_dir, *r->ops, model_options));
  RETURN_IF_ERROR(r->ops->status());
  RETURN_IF_ERROR(CheckComputeDType(options, *r->model));
  const std::string& stored = r->model->config().dtype;
  if (!r->ops->is_on_host() && (stored == "float32" || stored == "float16")) {
    Log(LogLevel::kWarning, "weights are rounded to bf16",
        {{"dir", options.model_dir}, {"dtype", stored}});
  }
  Log(LogLevel::kInfo, "base model loaded",
      {{"dir", options.model_dir},
       {"architecture", r->model->config().architecture},
       {"weights", HumanBytes(static_cast<uint64_t>(r->model->weight_bytes()))},
       {"dtype", Name(r->model->dtype())},
       {"device", absl::StrCat(r->ops->Name(), "/", r->ops->Target())},
       {"threads", absl::StrCat(threads)},
       {"seconds", absl::StrFormat("%.2f", absl::ToDoubleSeconds(
                                               r->clock.Now() - start))}});
  return absl::OkStatus();
}

absl::Status LoadTokenizer(const ServerOptions& options, Runtime* r) {
  const std::string path = JoinPath(options.model_dir, "tokenizer.json");
  if (!r->fs.FileExists(path)) {
    Log(LogLevel::kInfo, "no tokenizer.json: prompts must be token ids",
        {{"dir", options.model_dir}});
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(r->tokenizer, Tokenizer::Load(r->fs, options.model_dir));
  return absl::OkStatus();
}

AdapterStoreOptions StoreOptions(const ServerOptions& options) {
  AdapterStoreOptions o;
  o.state_dir = options.state_dir;
  o.roots = options.adapter_roots;
  o.host_bytes = options.adapter_host_bytes;
  o.device_bytes = options.adapter_device_bytes;
  o.max_device_adapters = options.max_loras;
  o.limits.max_rank = options.max_lora_rank;
  o.dtype = ParseDType(options.adapter_dtype);
  o.loader_threads = options.loader_threads;
  o.version_retention = options.adapter_version_retention;
  return o;
}

// A device's memory is the KV cache's where nobody asked for merging.
int MaxMerged(const ServerOptions& options, const Ops& ops) {
  if (options.max_merged.has_value()) return *options.max_merged;
  return ops.is_on_host() || options.merge != "never" ? 1 : 0;
}

// What a device's memory is for.
struct DevicePlan {
  int64_t all = 0;
  int64_t weights = 0, adapters = 0, merged = 0, training = 0, kv = 0;
  int64_t steps = 0;  // activations, and what is left

  std::string ToString() const {
    return absl::StrCat("weights ", weights, ", adapters ", adapters,
                        " (--adapter-device-bytes), merged adapters ", merged,
                        " (--max-merged), training jobs ", training,
                        " (--train-device-bytes)");
  }
};

// What jobs of the server need beside the base: tapes of 5/8 of its size, and
// their inputs, logits and optimizer.
int64_t TrainingBytes(const ServerOptions& options, const Model& model) {
  if (options.train_share == 0) return 0;
  return options.train_device_bytes > 0 ? options.train_device_bytes
                                        : model.weight_bytes() * 3 / 2;
}

// The KV cache gets what the others leave, or what it was given.
absl::StatusOr<DevicePlan> PlanDevice(const ServerOptions& options,
                                      const Runtime& r) {
  DevicePlan plan;
  plan.all = r.device_bytes;
  plan.weights = r.device_bytes - r.ops->free_bytes();
  plan.adapters = options.adapter_device_bytes;
  plan.merged = MaxMerged(options, *r.ops) *
                MaxMergedBytes(BaseWeights(*r.model, *r.ops));
  plan.training = TrainingBytes(options, *r.model);
  const int64_t left =
      plan.all - plan.weights - plan.adapters - plan.merged - plan.training;
  plan.kv = options.kv_cache_bytes > 0
                ? options.kv_cache_bytes
                : left - std::max<int64_t>(left, 0) / kStepShareOfDevice;
  plan.steps = left - plan.kv;
  if (options.kv_cache_bytes > 0 || plan.kv >= kMinKvBytes) return plan;
  return absl::ResourceExhaustedError(absl::StrCat(
      "the device's memory, ", plan.all,
      " bytes, is too small: ", plan.ToString(), " and steps ", plan.steps,
      " leave ", plan.kv, " for the KV cache, which needs ", kMinKvBytes,
      " or a given --kv-cache-bytes"));
}

void LogDevicePlan(const DevicePlan& plan) {
  const auto bytes = [](int64_t n) {
    return HumanBytes(static_cast<uint64_t>(std::max<int64_t>(n, 0)));
  };
  Log(LogLevel::kInfo, "device memory",
      {{"all", bytes(plan.all)},
       {"weights", bytes(plan.weights)},
       {"kv_cache", bytes(plan.kv)},
       {"adapters", bytes(plan.adapters)},
       {"merged", bytes(plan.merged)},
       {"training", bytes(plan.training)},
       {"steps", bytes(plan.steps)}});
}

// The host's memory is shared with other processes; a device is ours.
absl::StatusOr<int64_t> KvBytes(const ServerOptions& options,
                                const Runtime& r) {
  if (!r.ops->is_on_host()) {
    ASSIGN_OR_RETURN(const DevicePlan plan, PlanDevice(options, r));
    LogDevicePlan(plan);
    return plan.kv;
  }
  if (options.kv_cache_bytes > 0) return options.kv_cache_bytes;
  return std::max(kMinKvBytes, FreeMemoryBytes() / kKvShareOfFreeMemory);
}

// The engine resolves and checks the rest; only the machine is unknown to it.
EngineOptions EngineOptionsOf(const ServerOptions& options, const Runtime& r,
                              int64_t kv_cache_bytes) {
  EngineOptions e;
  e.kv_dtype = KvDType(options, *r.ops);
  e.max_model_len = options.max_model_len;
  e.max_num_seqs = options.max_num_seqs;
  e.max_num_batched_tokens =
      std::max(options.max_num_batched_tokens, options.max_num_seqs);
  e.max_waiting_requests = options.max_waiting_requests;
  e.prefix_caching = options.prefix_caching;
  e.merge = ParseMergePolicy(options.merge).value_or(MergePolicy::kNever);
  e.max_merged = MaxMerged(options, *r.ops);
  e.slow_reader_timeout = absl::Seconds(options.slow_reader_timeout_seconds);
  e.kv_cache_bytes = kv_cache_bytes;
  return e;
}

// Tells how long a sequence may be where that is less than the model allows.
void LogModelLength(const ServerOptions& options, const Runtime& r) {
  const int64_t max_model_len = r.engine->options().max_model_len;
  if (options.max_model_len > 0 ||
      max_model_len >= r.model->config().max_position) {
    return;
  }
  Log(LogLevel::kWarning, "max_model_len reduced to what the KV cache holds",
      {{"max_model_len", absl::StrCat(max_model_len)},
       {"kv_cache", HumanBytes(static_cast<uint64_t>(
                        r.engine->options().kv_cache_bytes))}});
}

}  // namespace

DType KvDType(const ServerOptions& options, const Ops& ops) {
  return ParseDType(options.kv_cache_dtype)
      .value_or(ops.is_on_host() ? DType::kF32 : DType::kBF16);
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::CreateModelOnly(
    const ServerOptions& options) {
  auto r = std::make_unique<Runtime>();
  RETURN_IF_ERROR(LoadModel(options, r.get()));
  return r;
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create(
    const ServerOptions& options) {
  auto r = std::make_unique<Runtime>();
  RETURN_IF_ERROR(LoadModel(options, r.get()));
  RETURN_IF_ERROR(LoadTokenizer(options, r.get()));
  if (options.adapter_dtype == "int8" && !r->ops->has_int8_lora()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--adapter-dtype int8 is not there for the device ",
                     r->ops->Name(), ", only for the CPU"));
  }
  r->max_loras = options.max_loras;
  r->max_lora_rank = options.max_lora_rank;
  ASSIGN_OR_RETURN(r->adapters,
                   AdapterStore::Open(r->fs, r->clock, *r->model, *r->ops,
                                      StoreOptions(options)));
  ASSIGN_OR_RETURN(const int64_t kv_bytes, KvBytes(options, *r));
  ASSIGN_OR_RETURN(
      r->engine,
      Engine::Create(*r->model, r->tokenizer.get(), *r->ops, *r->adapters,
                     r->clock, EngineOptionsOf(options, *r, kv_bytes)));
  LogModelLength(options, *r);
  return r;
}

absl::Status RegisterFromCommandLine(AdapterStore& adapters, GoldenGate* gate,
                                     const std::string& name,
                                     const std::string& path) {
  AdapterStore::RegisterRequest request;
  request.name = name;
  request.path = path;
  request.trusted_path = true;
  if (gate != nullptr) {
    request.gate = [gate](const VersionRef& version, absl::string_view golden) {
      return gate->Check(version, golden);
    };
  }
  request.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
  return adapters.Register(request).status();
}

}  // namespace lorikeet

// Order of work: config.json, then the headers of the checkpoint, then every
// check that needs no weight, then the weights. The mapping lives as long as
// LoadCheckpoint; afterwards the packed copy is the only one.

#include "model/model_loader.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/background_queue.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "kernels/block_int8.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr float kDummyDeviation = 0.02f;  // transformers' initializer_range
// More threads than this wait for memory.
constexpr int kMaxLoadThreads = 16;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The bytes of memory of this machine, or 0 if unknown.
uint64_t PhysicalMemoryBytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return 0;
  return static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
}

// The sizes of a linear in the words of config.json.
absl::string_view OutField(Projection p) {
  switch (p) {
    case Projection::kQ:
      return "num_attention_heads * head_dim";
    case Projection::kK:
    case Projection::kV:
      return "num_key_value_heads * head_dim";
    case Projection::kGate:
    case Projection::kUp:
      return "intermediate_size";
    default:
      return "hidden_size";
  }
}

absl::string_view InField(Projection p) {
  if (p == Projection::kO) return "num_attention_heads * head_dim";
  return p == Projection::kDown ? "intermediate_size" : "hidden_size";
}

// Whether int8 can hold the numbers: the scale of a block is an f16.
absl::Status CheckRange(const std::string& name, ConstTensor tensor) {
  for (int64_t i = 0; i < tensor.rows; ++i) {
    for (int64_t j = 0; j < tensor.cols; ++j) {
      const float value = tensor.At(i, j);
      if (std::abs(value) <= kInt8MaxWeight) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quote(name), " has ", value, " at [", i, ", ", j,
          "]; --dtype int8 holds magnitudes up to ", kInt8MaxWeight));
    }
  }
  return absl::OkStatus();
}

std::string BytesOfShape(const std::vector<int64_t>& shape) {
  std::string bytes;
  for (int64_t dim : shape) {
    bytes.append(reinterpret_cast<const char*>(&dim), sizeof(dim));
  }
  return bytes;
}

}  // namespace

// Random weights for speed tests, made once: a stretch of normal numbers,
// repeated to the size of the largest matrix. Each tensor reads it from another
// place, so that no two are alike.
class ModelLoader::DummySource {
 public:
  DummySource(DType dtype, int64_t max_elements, uint64_t seed)
      : dtype_(dtype),
        seed_(seed),
        data_((max_elements + kPeriod) * SizeBytes(dtype)) {
    Rng rng(seed);
    for (int64_t i = 0; i < kPeriod; ++i) {
      StoreElement(dtype, data_.data(), i,
                   static_cast<float>(rng.Normal()) * kDummyDeviation);
    }
    const int64_t period_bytes = kPeriod * SizeBytes(dtype);
    for (int64_t at = period_bytes; at < data_.size_bytes();
         at += period_bytes) {
      std::memcpy(
          data_.data() + at, data_.data(),
          static_cast<size_t>(std::min(period_bytes, data_.size_bytes() - at)));
    }
  }

  ConstTensor Matrix(const std::vector<int64_t>& shape, uint64_t index) const {
    return ConstTensor(data_.data() + Offset(index) * SizeBytes(dtype_), dtype_,
                       shape[0], shape[1], shape[1]);
  }

 private:
  // A prime, so that rows of any length begin at different places of it.
  static constexpr int64_t kPeriod = 262'139;

  int64_t Offset(uint64_t index) const {
    Rng rng(seed_ + 1 + index);
    return static_cast<int64_t>(rng.Below(kPeriod));
  }

  const DType dtype_;
  const uint64_t seed_;
  const Buffer data_;
};

int64_t ModelLoader::Target::size() const {
  int64_t size = 1;
  for (int64_t dim : shape) size *= dim;
  return size;
}

int64_t ModelLoader::Target::StoredBytes(DType dtype) const {
  if (dtype == DType::kI8) return Int8Bytes(shape[0], shape[1]);
  return size() * SizeBytes(dtype);
}

bool ModelLoader::Target::is_norm() const {
  return absl::EndsWith(name, "norm.weight");
}

ModelLoader::ModelLoader(FileSystem& fs, const std::string& dir, Ops& ops,
                         const ModelOptions& options)
    : fs_(fs), dir_(dir), ops_(ops), options_(options), model_(new Model()) {}

absl::StatusOr<std::unique_ptr<Model>> ModelLoader::Load() {
  RETURN_IF_ERROR(ReadConfigs());
  ListTargets();
  if (options_.dummy_weights) {
    RETURN_IF_ERROR(CheckMemory());
    RETURN_IF_ERROR(LoadDummy());
  } else {
    RETURN_IF_ERROR(LoadCheckpoint());
  }
  CountBytes();
  return std::move(model_);
}

absl::Status ModelLoader::ReadConfigs() {
  if (!fs_.IsDirectory(dir_)) {
    return absl::NotFoundError(
        absl::StrCat("there is no model directory ", Escape(dir_, 1000)));
  }
  const std::string config_path = JoinPath(dir_, "config.json");
  if (!fs_.FileExists(config_path)) {
    return absl::NotFoundError(
        absl::StrCat("there is no config.json in ", Escape(dir_, 1000)));
  }
  ASSIGN_OR_RETURN(config_text_, fs_.ReadFile(config_path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(model_->config_, ModelConfig::Parse(config_text_));
  const std::string generation_path = JoinPath(dir_, "generation_config.json");
  if (fs_.FileExists(generation_path)) {
    ASSIGN_OR_RETURN(const std::string text,
                     fs_.ReadFile(generation_path, kMaxConfigBytes));
    ASSIGN_OR_RETURN(model_->generation_, GenerationConfig::Parse(text));
  }
  model_->eos_tokens_ =
      model_->generation_.eos_tokens.value_or(model_->config_.eos_tokens);
  model_->dir_ = dir_;
  return absl::OkStatus();
}

void ModelLoader::ListTargets() {
  const ModelConfig& config = model_->config_;
  model_->layers_.resize(static_cast<size_t>(config.num_layers));
  targets_.push_back({"model.embed_tokens.weight",
                      {config.vocab_size, config.hidden_size},
                      "[vocab_size, hidden_size]",
                      &model_->embedding_,
                      nullptr});
  for (int64_t i = 0; i < config.num_layers; ++i) ListLayer(i);
  targets_.push_back({"model.norm.weight",
                      {config.hidden_size},
                      "[hidden_size]",
                      nullptr,
                      &model_->final_norm_});
  if (!config.tie_word_embeddings) {
    targets_.push_back({"lm_head.weight",
                        {config.vocab_size, config.hidden_size},
                        "[vocab_size, hidden_size]",
                        &model_->lm_head_,
                        nullptr});
  }
  std::sort(targets_.begin(), targets_.end(),
            [](const Target& a, const Target& b) { return a.name < b.name; });
}

void ModelLoader::ListLayer(int64_t layer) {
  const ModelConfig& config = model_->config_;
  LayerWeights& w = model_->layers_[static_cast<size_t>(layer)];
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const auto add_vector = [&](absl::string_view name, int64_t size,
                              absl::string_view field,
                              std::vector<float>* out) {
    targets_.push_back({absl::StrCat(prefix, name),
                        {size},
                        absl::StrCat("[", field, "]"),
                        nullptr,
                        out});
  };
  add_vector("input_layernorm.weight", config.hidden_size, "hidden_size",
             &w.input_norm);
  add_vector("post_attention_layernorm.weight", config.hidden_size,
             "hidden_size", &w.post_norm);
  if (config.qk_norm) {
    add_vector("self_attn.q_norm.weight", config.head_dim, "head_dim",
               &w.q_norm);
    add_vector("self_attn.k_norm.weight", config.head_dim, "head_dim",
               &w.k_norm);
  }
  for (size_t i = 0; i < kNumProjections; ++i) {
    const Projection p = static_cast<Projection>(i);
    const bool is_mlp = p == Projection::kGate || p == Projection::kUp ||
                        p == Projection::kDown;
    const bool has_bias = is_mlp                ? config.mlp_bias
                          : p == Projection::kO ? config.o_bias
                                                : config.qkv_bias;
    const std::string module =
        absl::StrCat(is_mlp ? "mlp." : "self_attn.", kProjectionNames[i]);
    targets_.push_back({absl::StrCat(prefix, module, ".weight"),
                        {model_->out_dim(p), model_->in_dim(p)},
                        absl::StrCat("[", OutField(p), ", ", InField(p), "]"),
                        &w.linears[i],
                        nullptr});
    if (has_bias) {
      add_vector(absl::StrCat(module, ".bias"), model_->out_dim(p), OutField(p),
                 &w.biases[i]);
    }
  }
}

absl::Status ModelLoader::FindSources(const Checkpoint& checkpoint) {
  for (Target& target : targets_) {
    target.source = checkpoint.Find(target.name);
    if (target.source == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quote(target.name), " is missing in the checkpoint"));
    }
    const SafetensorsEntry& entry = *target.source->entry;
    RETURN_IF_ERROR(Annotate(FloatDType(entry).status(), *target.source->file));
    if (entry.shape != target.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          *target.source->file, ": tensor ", Quote(target.name), " has shape ",
          ShapeText(entry.shape), ", config.json asks for ",
          ShapeText(target.shape), " = ", target.fields));
    }
  }
  return absl::OkStatus();
}

absl::Status ModelLoader::RefuseUnexpected(const Checkpoint& checkpoint) const {
  absl::flat_hash_set<absl::string_view> known;
  for (const Target& target : targets_) known.insert(target.name);
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const std::string& name = tensor.entry->name;
    if (known.contains(name) || IsIgnoredTensor(name)) continue;
    if (name == "lm_head.weight") {
      // Only left over if tied; transformers does not read it either.
      Log(LogLevel::kWarning,
          "lm_head.weight is ignored: tie_word_embeddings is true",
          {{"file", *tensor.file}});
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        *tensor.file, ": unexpected tensor ", Quote(name), ": a ",
        model_->config_.architecture, " of this config.json has none"));
  }
  return absl::OkStatus();
}

// Rather a message now than to be killed half-way.
absl::Status ModelLoader::CheckMemory() const {
  uint64_t needed = 0;
  for (const Target& target : targets_) {
    needed += static_cast<uint64_t>(target.StoredBytes(StorageOf(target)));
  }
  const uint64_t available = PhysicalMemoryBytes();
  if (available == 0 || needed <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the weights need ", HumanBytes(needed),
                   ", this machine has ", HumanBytes(available), " of memory"));
}

DType ModelLoader::StorageOf(const Target& target) const {
  if (target.vector != nullptr) return DType::kF32;
  if (options_.dtype.has_value()) return *options_.dtype;
  if (target.source != nullptr) return *FloatDType(*target.source->entry);
  if (model_->config_.dtype == "float32") return DType::kF32;
  if (model_->config_.dtype == "float16") return DType::kF16;
  return DType::kBF16;
}

absl::Status ModelLoader::LoadCheckpoint() {
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                   Checkpoint::Open(fs_, dir_));
  RETURN_IF_ERROR(FindSources(*checkpoint));
  RETURN_IF_ERROR(RefuseUnexpected(*checkpoint));
  RETURN_IF_ERROR(CheckMemory());
  absl::Status status;
  if (options_.dtype != DType::kI8 || options_.cache_dir.empty() ||
      ops_.PackedLayout().empty()) {
    status = LoadSources();
  } else {
    WeightCache cache(fs_, options_.cache_dir, *options_.dtype,
                      ops_.PackedLayout());
    status = LoadCached(cache);
    if (!status.ok()) {
      status = LoadSources();
      if (status.ok()) WriteCache(cache);
    }
  }
  for (Target& target : targets_) target.source = nullptr;
  return status;
}

absl::Status ModelLoader::LoadCached(WeightCache& cache) {
  if (!cache.HasAny()) return absl::NotFoundError("nothing is cached");
  model_->fingerprint_ = HashSources();
  absl::Status status = cache.Open(model_->fingerprint_);
  if (absl::IsNotFound(status)) return status;
  if (status.ok()) {
    status = ForEachTarget([&](const Target& target) {
      return target.matrix == nullptr ? LoadTarget(target)
                                      : RestoreTarget(target, cache);
    });
  }
  if (!status.ok()) {
    has_failed_ = false;
    Log(LogLevel::kWarning, "cached weights are not used; quantizing again",
        {{"reason", std::string(status.message())}});
  }
  return status;
}

absl::Status ModelLoader::RestoreTarget(const Target& target,
                                        const WeightCache& cache) const {
  ASSIGN_OR_RETURN(const absl::string_view bytes,
                   cache.Find(target.name, target.shape[0], target.shape[1]));
  *target.matrix = ops_.RestoreWeight(target.shape[0], target.shape[1],
                                      StorageOf(target), bytes);
  if (*target.matrix != nullptr) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor ", Quote(target.name),
                                          " has ", bytes.size(), " bytes"));
}

// A cache that cannot be written is no reason not to serve.
void ModelLoader::WriteCache(WeightCache& cache) const {
  std::vector<WeightCache::Entry> entries;
  for (const Target& target : targets_) {
    if (target.matrix != nullptr) {
      entries.push_back({target.name, target.matrix->get()});
    }
  }
  const absl::Status status = cache.Write(model_->fingerprint_, entries);
  if (status.ok()) return;
  Log(LogLevel::kWarning, "quantized weights are not kept for the next start",
      {{"reason", std::string(status.message())}});
}

absl::Status ModelLoader::LoadSources() {
  // SHA-256 is one chain: it has a thread for itself beside the packing, which
  // reads the same pages in the same order.
  const BackgroundThread hasher("hash",
                                [&] { model_->fingerprint_ = HashSources(); });
  return ForEachTarget(
      [this](const Target& target) { return LoadTarget(target); });
}

absl::Status ModelLoader::NoDeviceMemory(const Target& target) const {
  return absl::ResourceExhaustedError(
      absl::StrCat("tensor ", Quote(target.name), " of ", target.size(),
                   " elements does not fit into the device's memory, of which ",
                   ops_.free_bytes(), " bytes are free"));
}

absl::Status ModelLoader::LoadTarget(const Target& target) const {
  const std::string& file = *target.source->file;
  Buffer storage;
  absl::StatusOr<ConstTensor> tensor =
      FloatTensor(*target.source->entry, &storage);
  if (!tensor.ok()) return Annotate(tensor.status(), file);
  const std::string place = FirstNonFinite(*tensor);
  if (!place.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": tensor ", Quote(target.name),
                     " is NaN or infinite at ", place));
  }
  if (target.matrix != nullptr) {
    const DType dtype = StorageOf(target);
    if (dtype == DType::kI8) {
      RETURN_IF_ERROR(Annotate(CheckRange(target.name, *tensor), file));
    }
    *target.matrix = ops_.PackWeight(*tensor, dtype);
    return *target.matrix == nullptr ? NoDeviceMemory(target)
                                     : absl::OkStatus();
  }
  target.vector->resize(static_cast<size_t>(tensor->cols));
  for (int64_t i = 0; i < tensor->cols; ++i) {
    (*target.vector)[static_cast<size_t>(i)] = tensor->At(0, i);
  }
  return absl::OkStatus();
}

absl::Status ModelLoader::LoadDummy() {
  int64_t largest = 0;
  DType dtype = DType::kBF16;
  for (const Target& target : targets_) {
    if (target.matrix == nullptr) continue;
    largest = std::max(largest, target.size());
    dtype = StorageOf(target);
  }
  const DType source_dtype = dtype == DType::kI8 ? DType::kBF16 : dtype;
  const DummySource source(source_dtype, largest, options_.dummy_seed);
  const absl::Status status = ForEachTarget([&](const Target& target) {
    if (target.matrix == nullptr) {
      target.vector->assign(static_cast<size_t>(target.size()),
                            target.is_norm() ? 1.0f : 0.0f);
      return absl::OkStatus();
    }
    const uint64_t index = static_cast<uint64_t>(&target - targets_.data());
    *target.matrix = ops_.PackWeight(source.Matrix(target.shape, index), dtype);
    return *target.matrix == nullptr ? NoDeviceMemory(target)
                                     : absl::OkStatus();
  });
  RETURN_IF_ERROR(status);

  Sha256 sha;
  sha.UpdateField(absl::StrCat("dummy ", options_.dummy_seed));
  sha.UpdateField(config_text_);
  for (const Target& target : targets_) {
    sha.UpdateField(target.name);
    sha.UpdateField(BytesOfShape(target.shape));
  }
  model_->fingerprint_ = sha.Finish();
  return absl::OkStatus();
}

absl::Status ModelLoader::ForEachTarget(
    const std::function<absl::Status(const Target&)>& load) {
  int64_t total_bytes = 0;
  for (const Target& target : targets_) {
    total_bytes += target.StoredBytes(StorageOf(target));
  }
  std::vector<absl::Status> results(targets_.size());
  std::atomic<size_t> next = 0;
  Mutex progress_mutex;
  int64_t done_bytes = 0;
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < targets_.size();) {
      if (has_failed_) return;
      results[i] = load(targets_[i]);
      if (!results[i].ok()) has_failed_ = true;
      if (options_.progress == nullptr) continue;
      const MutexLock lock(&progress_mutex);
      done_bytes += targets_[i].StoredBytes(StorageOf(targets_[i]));
      options_.progress(done_bytes, total_bytes);
    }
  };
  {
    std::vector<std::unique_ptr<BackgroundThread>> threads;
    for (int i = 1; i < std::min(AvailableCores(), kMaxLoadThreads); ++i) {
      threads.push_back(std::make_unique<BackgroundThread>("load", work));
    }
    work();
  }
  for (const absl::Status& result : results) RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

Digest ModelLoader::HashSources() const {
  Sha256 sha;
  sha.UpdateField(config_text_);
  for (const Target& target : targets_) {
    if (has_failed_) break;  // nobody will want the digest
    const SafetensorsEntry& entry = *target.source->entry;
    sha.UpdateField(entry.name);
    sha.UpdateField(entry.dtype);
    sha.UpdateField(BytesOfShape(entry.shape));
    sha.UpdateField(entry.bytes);
  }
  return sha.Finish();
}

void ModelLoader::CountBytes() {
  int64_t by_dtype[4] = {};
  for (const Target& target : targets_) {
    if (target.matrix != nullptr) {
      const PackedWeight& w = **target.matrix;
      by_dtype[static_cast<size_t>(w.dtype())] += w.size_bytes();
    } else {
      by_dtype[static_cast<size_t>(DType::kF32)] +=
          target.size() * SizeBytes(DType::kF32);
    }
  }
  model_->weight_bytes_ = std::accumulate(by_dtype, by_dtype + 4, int64_t{0});
  model_->dtype_ =
      static_cast<DType>(std::max_element(by_dtype, by_dtype + 4) - by_dtype);
}

}  // namespace lorikeet

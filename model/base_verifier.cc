#include "model/base_verifier.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "base/digest.h"
#include "base/log.h"

namespace lorikeet {
namespace {

// A pass of the background is made of pieces with pauses between.
constexpr size_t kPieceBytes = 1 << 20;
constexpr absl::Duration kPause = absl::Milliseconds(10);

absl::string_view BytesOf(const std::vector<float>& v) {
  return absl::string_view(reinterpret_cast<const char*>(v.data()),
                           v.size() * sizeof(float));
}

// What a checksum goes over, in its order.
std::vector<absl::string_view> PartsOf(const Model& model) {
  std::vector<absl::string_view> parts = {model.embedding().packed_bytes(),
                                          model.lm_head().packed_bytes(),
                                          BytesOf(model.final_norm())};
  if (&model.lm_head() == &model.embedding()) parts[1] = {};
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const LayerWeights& layer = model.layer(i);
    for (int p = 0; p < kNumProjections; ++p) {
      parts.push_back(layer.linears[p]->packed_bytes());
      parts.push_back(BytesOf(layer.biases[p]));
    }
    for (const auto* norm :
         {&layer.input_norm, &layer.post_norm, &layer.q_norm, &layer.k_norm}) {
      parts.push_back(BytesOf(*norm));
    }
  }
  return parts;
}

// The sums of pieces, in order, summed once more: a pass may stop between.
class PieceSum {
 public:
  void Add(absl::string_view piece) {
    const uint32_t sums[] = {sum_, Crc32c(piece)};
    sum_ = Crc32c(
        absl::string_view(reinterpret_cast<const char*>(sums), sizeof(sums)));
  }
  uint32_t sum() const { return sum_; }

 private:
  uint32_t sum_ = 0;
};

// Calls `before` ahead of each piece; false ends the pass.
template <typename Before>
std::optional<uint32_t> Sum(const std::vector<absl::string_view>& parts,
                            Before before) {
  PieceSum sum;
  for (absl::string_view part : parts) {
    for (; !part.empty();
         part.remove_prefix(std::min(kPieceBytes, part.size()))) {
      if (!before()) return std::nullopt;
      sum.Add(part.substr(0, kPieceBytes));
    }
  }
  return sum.sum();
}

}  // namespace

uint32_t BaseChecksum(const Model& model) {
  return *Sum(PartsOf(model), [] { return true; });
}

BaseVerifier::BaseVerifier(const Model& model, const Clock& clock,
                           absl::Duration interval)
    : model_(model),
      clock_(clock),
      interval_(interval),
      parts_(PartsOf(model)) {
  for (const absl::string_view part : parts_) {
    bytes_ += static_cast<int64_t>(part.size());
  }
  if (model_.embedding().packed_bytes().empty()) return;
  thread_ =
      std::make_unique<BackgroundThread>("base-verifier", [this] { Loop(); });
}

BaseVerifier::~BaseVerifier() {
  {
    MutexLock lock(&mu_);
    is_ending_ = true;
    changed_.SignalAll();
  }
  thread_.reset();
}

bool BaseVerifier::Pause(absl::Duration time) {
  const absl::Duration end = clock_.Now() + time;
  MutexLock lock(&mu_);
  while (!is_ending_) {
    const absl::Duration left = end - clock_.Now();
    if (left <= absl::ZeroDuration() || changed_.WaitFor(&mu_, left)) break;
  }
  return !is_ending_;
}

void BaseVerifier::Loop() {
  while (true) {
    const std::optional<uint32_t> found =
        Sum(parts_, [this] { return Pause(kPause); });
    if (!found.has_value()) return;
    Report report;
    Note(*found, &report);
    if (interval_ <= absl::ZeroDuration() || !Pause(interval_)) return;
  }
}

void BaseVerifier::Note(uint32_t found, Report* report) {
  MutexLock lock(&mu_);
  if (!expected_.has_value()) expected_ = found;
  report->expected = *expected_;
  report->found = found;
  report->is_intact = found == *expected_;
  report->passes = ++passes_;
  report->failures = failures_ += report->is_intact ? 0 : 1;
  if (report->is_intact) return;
  Log(LogLevel::kError, "base weights in memory have changed",
      {{"expected", absl::StrFormat("%08x", report->expected)},
       {"found", absl::StrFormat("%08x", found)}});
}

absl::StatusOr<BaseVerifier::Report> BaseVerifier::Verify() {
  if (model_.embedding().packed_bytes().empty()) {
    return absl::UnimplementedError(
        "the backend keeps its weights where the host cannot read them");
  }
  const absl::Duration start = clock_.Now();
  const uint32_t found = *Sum(parts_, [] { return true; });
  Report report;
  Note(found, &report);
  report.bytes = bytes_;
  report.took = clock_.Now() - start;
  return report;
}

}  // namespace lorikeet

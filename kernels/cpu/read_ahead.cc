// With few rows a step is as long as its weights take to read, and memory idles
// whenever threads meet: at the end of a region, in norms, RoPE and a short
// attention. A worker that waits there brings the begin of its part of the next
// weights into its cache.

#include <algorithm>

#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {
namespace {

// With more rows a step computes instead of waiting for memory.
constexpr int64_t kReadAheadRows = 16;
// A part of a core's second-level cache.
constexpr int64_t kReadAheadBytes = 128 << 10;

}  // namespace

void CpuOps::WillRead(std::span<const LinearPart> parts) {
  will_read_.clear();
  for (const LinearPart& part : parts) {
    will_read_.push_back(&static_cast<const Weight&>(*part.weight).panels);
  }
}

void CpuOps::ReadAhead(int64_t rows) {
  if (rows > kReadAheadRows) return;
  const auto announce = [&](int worker, const Panels& panels, int64_t panel) {
    const int64_t rest = (panels.count() - panel) * panels.panel_bytes();
    pool_.ReadAhead(worker, panels.panel(panel),
                    std::min(kReadAheadBytes, rest));
  };
  // Two parts are gate and up, which are read side by side; others one after
  // the other.
  const bool paired = will_read_.size() == 2;
  int64_t total = 0;
  for (const Panels* panels : will_read_) total += panels->count();
  for (int worker = 0; worker < pool_.num_threads(); ++worker) {
    int64_t panel = total * worker / pool_.num_threads();
    if (paired) {
      announce(worker, *will_read_[0], panel / 2);
      announce(worker, *will_read_[1], panel / 2);
      continue;
    }
    for (const Panels* panels : will_read_) {
      if (panel < panels->count()) {
        announce(worker, *panels, panel);
        break;
      }
      panel -= panels->count();
    }
  }
  will_read_.clear();
}

}  // namespace lorikeet::cpu

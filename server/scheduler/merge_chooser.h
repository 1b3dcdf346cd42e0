// A MergeChooser decides whether new requests of an adapter get its merged
// variant. A step reads each set of weights once for all its rows: rows of a
// merged variant save their low-rank part and cost a pass over weights of their
// own, unless nobody else reads the base's.
//
//   unmerged   Linears(rows + others) + Lora(rows)
//   merged     Linears(rows) + Linears(others)
//
// Rows are those of the last second or so, smoothed, so that a choice outlives
// a request; a choice changes only for a gain beyond kMargin, for kHorizon
// after a change only beyond kFreshMargin, and a variant that has to be made
// first must earn its making within kHorizon.
//
// Pure: time comes in with each step.

#ifndef LORIKEET_SERVER_SCHEDULER_MERGE_CHOOSER_H_
#define LORIKEET_SERVER_SCHEDULER_MERGE_CHOOSER_H_

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "adapters/adapter_key.h"

namespace lorikeet {

// What steps cost on this machine, measured. In seconds.
struct StepCosts {
  struct Pass {
    int64_t rows = 0;
    double seconds = 0;
  };
  // One pass over the linears of all layers, ascending rows, the first is 1.
  // Empty: not measured yet.
  std::vector<Pass> passes;
  // A low-rank part adds, per byte of it: once, and for each row.
  double lora_per_byte = 0;
  double lora_per_byte_and_row = 0;
  double merge = 0;  // making one variant

  // Interpolated. Below one row: that share of the steps has one.
  double Linears(double rows) const;
  double Lora(int64_t bytes, double rows) const;
};

// Rows of a step, as smoothed.
struct MergeLoad {
  double rows = 0;    // of the adapter, merged or not
  double others = 0;  // that read the base's weights
  int64_t adapter_bytes = 0;
};

enum class MergeReason {
  kNotMeasured,  // no costs yet
  kIdle,         // nothing ran lately
  kCheaper,      // merged wins
  kDearer,       // it loses
  kNoGain,       // the difference is within the margin: as before
  kTooShort,     // would win, but not what it costs to make
};
const char* Name(MergeReason reason);  // "cheaper", ...

struct MergeChoice {
  bool merge = false;
  MergeReason reason = MergeReason::kIdle;
  double unmerged_seconds = 0;  // of the linears of a step
  double merged_seconds = 0;
};

// The rule itself. `was_merged` is the choice before, `is_made` whether the
// variant is there, `margin` what a change has to gain.
MergeChoice ChooseMerge(const StepCosts& costs, const MergeLoad& load,
                        bool was_merged, bool is_made, double margin);

class MergeChooser {
 public:
  static constexpr double kMargin = 0.02;
  static constexpr double kFreshMargin = 0.2;
  static constexpr absl::Duration kMemory = absl::Seconds(1);
  static constexpr absl::Duration kHorizon = absl::Seconds(10);

  void SetCosts(const StepCosts& costs) { costs_ = costs; }
  const StepCosts& costs() const { return costs_; }

  // Tells how many rows a step had, by adapter; base rows apart.
  using Rows = std::pair<const AdapterKey*, int64_t>;
  void Observe(absl::Duration now, std::span<const Rows> adapters,
               int64_t base_rows);
  // Decides for requests that come now.
  MergeChoice Choose(const AdapterKey& key, int64_t adapter_bytes,
                     bool is_made);
  // The last choice and the load it would see now, without deciding.
  struct Known {
    MergeChoice choice;
    MergeLoad load;
  };
  std::map<AdapterKey, Known> Explain() const;

 private:
  struct Adapter {
    double rows = 0;
    int64_t bytes = 0;
    MergeChoice choice;
    absl::Duration changed = -absl::InfiniteDuration();  // the choice, last
  };
  double OthersOf(const AdapterKey& key) const;

  StepCosts costs_;
  std::map<AdapterKey, Adapter> adapters_;
  double base_rows_ = 0;
  absl::Duration last_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_MERGE_CHOOSER_H_

// A TrainSequence is one example as tokens, with the positions that are
// learned.
//
// Plain data.

#ifndef LORIKEET_TRAIN_TRAIN_SEQUENCE_H_
#define LORIKEET_TRAIN_TRAIN_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/token.h"

namespace lorikeet {

struct TrainSequence {
  std::vector<Token> tokens;
  // Of each token: is it a target, given those before it? The first never is.
  std::vector<bool> is_target;
  int64_t line = 0;  // of its file, from 1

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_targets() const {
    return std::count(is_target.begin(), is_target.end(), true);
  }
};

// Sequences of one pass, packed one after the other; they never see each other.
using TrainBatch = std::vector<const TrainSequence*>;

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAIN_SEQUENCE_H_

// A bar of characters for a share that is done.

#ifndef LORIKEET_CLI_PROGRESS_BAR_H_
#define LORIKEET_CLI_PROGRESS_BAR_H_

#include <algorithm>
#include <string>

namespace lorikeet {

// "######..................", for a share in [0, 1].
inline std::string ProgressBar(double share) {
  constexpr size_t kWidth = 24;
  const size_t full =
      static_cast<size_t>(std::clamp(share, 0.0, 1.0) * double{kWidth});
  return std::string(full, '#') + std::string(kWidth - full, '.');
}

}  // namespace lorikeet

#endif  // LORIKEET_CLI_PROGRESS_BAR_H_

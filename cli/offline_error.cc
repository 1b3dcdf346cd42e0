#include "cli/offline_error.h"

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "cli/table.h"

namespace lorikeet {

void ReportOfflineError(const absl::Status& status, int* exit_code) {
  if (status.ok()) return;
  const std::string reason = ReasonOf(status);
  std::fprintf(stderr, "lorikeet: %s%s\n", Printable(status.message()).c_str(),
               reason.empty() ? "" : absl::StrCat(" (", reason, ")").c_str());
  *exit_code = 1;
}

}  // namespace lorikeet

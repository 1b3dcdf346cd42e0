// `lorikeet adapter alias` and `lorikeet adapter audit`: what a task tag means,
// and who changed it.

#ifndef LORIKEET_CLI_ADAPTER_ALIAS_H_
#define LORIKEET_CLI_ADAPTER_ALIAS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lorikeet/v1/adapters.pb.h"

namespace CLI {
class App;
}

namespace lorikeet {

// Adds both to "adapter"; their callbacks set *exit_code.
void AddAliasCommands(CLI::App& adapter, int* exit_code);

// Parses "caesar@2=5". Errors: INVALID_ARGUMENT naming flag and text.
struct TargetAndNumber {
  std::string target;
  double number = 0;
};
absl::StatusOr<TargetAndNumber> ParseTargetAndNumber(absl::string_view flag,
                                                     absl::string_view text);

// Returns a table of one line per target.
std::string AliasTable(const v1::ListAliasesResponse& list);
// Returns a table of one line per entry, newest first.
std::string AuditTable(const v1::ListAuditEntriesResponse& list);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ADAPTER_ALIAS_H_

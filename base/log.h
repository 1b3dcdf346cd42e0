// The log: one line per event on stderr, text for people or JSON for machines.
//
//   Log(LogLevel::kInfo, "adapter loaded", {{"adapter", name}, {"ms", "12"}});
//
// Prompts, completions and keys are never logged. Thread-safe.

#ifndef LORIKEET_BASE_LOG_H_
#define LORIKEET_BASE_LOG_H_

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Parses "debug", "info", "warning", "error", "off".
// Errors: INVALID_ARGUMENT naming the text and the choices.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text);

// Sets what is printed, from now on. Default kInfo as text.
void SetLogLevel(LogLevel level);
void SetLogJson(bool json);

struct LogField {
  absl::string_view key;
  std::string value;
};

// Prints one line if `level` is enabled.
void Log(LogLevel level, absl::string_view message,
         std::initializer_list<LogField> fields = {});

}  // namespace lorikeet

#endif  // LORIKEET_BASE_LOG_H_

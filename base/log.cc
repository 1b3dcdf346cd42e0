#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/text.h"

namespace lorikeet {
namespace {

std::atomic<bool> json_lines{false};
std::atomic<int> threshold{static_cast<int>(LogLevel::kInfo)};

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto l = std::make_shared<spdlog::logger>(
        "lorikeet", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_level(spdlog::level::trace);
    l->set_pattern("%v");
    return l;
  }();
  return *logger;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
    case LogLevel::kOff:
      return "off";
  }
  return "?";
}

std::string Timestamp() {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                          absl::UTCTimeZone());
}

std::string JsonLine(LogLevel level, absl::string_view message,
                     std::initializer_list<LogField> fields) {
  Json line = Json::Object();
  line.Set("ts", Timestamp());
  line.Set("level", LevelName(level));
  line.Set("msg", message);
  for (const LogField& f : fields) line.Set(f.key, f.value);
  return line.Dump();
}

std::string TextLine(LogLevel level, absl::string_view message,
                     std::initializer_list<LogField> fields) {
  std::string line =
      absl::StrCat(Timestamp(), " ", LevelName(level), " ", message);
  for (const LogField& f : fields) {
    absl::StrAppend(&line, " ", f.key, "=", Quote(f.value, 500));
  }
  return line;
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text) {
  for (const LogLevel level :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError,
        LogLevel::kOff}) {
    if (text == LevelName(level)) return level;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level ", Quote(text),
                   " is none of debug, info, warning, error, off"));
}

void SetLogLevel(LogLevel level) { threshold = static_cast<int>(level); }
void SetLogJson(bool json) { json_lines = json; }

void Log(LogLevel level, absl::string_view message,
         std::initializer_list<LogField> fields) {
  if (static_cast<int>(level) < threshold) return;
  const std::string line = json_lines ? JsonLine(level, message, fields)
                                      : TextLine(level, message, fields);
  Logger().info("{}", line);
}

}  // namespace lorikeet

// A LoadReport is what a load cost, summed up for people and for machines.
//
// Pure.

#ifndef LORIKEET_LOADGEN_REPORT_H_
#define LORIKEET_LOADGEN_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/json.h"
#include "loadgen/load_client.h"
#include "loadgen/percentiles.h"

namespace lorikeet {

// Over requests that ended well. Times in seconds.
struct LoadFigures {
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t output_tokens = 0;
  // Due until the first token.
  Summary ttft_s;
  // Between messages with tokens of one answer.
  Summary itl_s;
  // (last token - first token) / (tokens - 1), per answer.
  Summary tpot_s;
  // Due until the end.
  Summary e2e_s;
};

struct LoadReport {
  // First due until last end.
  absl::Duration duration = absl::ZeroDuration();
  LoadFigures all;
  // [tasks]
  std::vector<LoadFigures> per_task;
  // Due until sent, seconds: the client's own lateness, and the wait for room.
  Summary send_delay_s;
  uint32_t peak_in_flight = 0;
  // "CODE [REASON]" and how often; and an example of each.
  std::map<std::string, uint64_t> errors;
  std::map<std::string, std::string> error_examples;

  double PerSecond(uint64_t count) const {
    const double seconds = absl::ToDoubleSeconds(duration);
    return seconds > 0 ? static_cast<double>(count) / seconds : 0;
  }
};

LoadReport MakeReport(const std::vector<LoadResult>& results, size_t num_tasks);

// `task_names` has one per task. Times in milliseconds.
Json ReportToJson(const LoadReport& report,
                  const std::vector<std::string>& task_names);

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_REPORT_H_

#include "tests/testing/golden.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "base/status.h"
#include "base/text.h"
#include "gtest/gtest.h"

namespace lorikeet::testing {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string IfDirectory(const std::string& path) {
  PosixFileSystem fs;
  return fs.IsDirectory(path) ? path : "";
}

template <typename T>
absl::StatusOr<std::vector<T>> ReadValues(const SafetensorsFile& file,
                                          absl::string_view name,
                                          absl::string_view dtype) {
  const SafetensorsEntry* entry = file.Find(name);
  if (entry == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(file.name(), " has no tensor ", Quote(name)));
  }
  if (entry->dtype != dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.name(), ": tensor ", Quote(name), " is ",
                     entry->dtype, ", expected ", dtype));
  }
  std::vector<T> values(entry->bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), entry->bytes.data(), entry->bytes.size());
  }
  return values;
}

absl::Status ReadPrompt(const SafetensorsFile& file, const std::string& prefix,
                        GoldenPrompt* out) {
  const auto name = [&](absl::string_view rest) {
    return absl::StrCat(prefix, rest);
  };
  const auto has = [&](absl::string_view rest) {
    return file.Find(name(rest)) != nullptr;
  };
  ASSIGN_OR_RETURN(out->ids, ReadI32(file, name("ids")));
  ASSIGN_OR_RETURN(const std::vector<int32_t> first_pos,
                   ReadI32(file, name("first_pos")));
  out->first_pos = first_pos.at(0);
  out->logit_rows = static_cast<int64_t>(out->ids.size()) - out->first_pos;
  ASSIGN_OR_RETURN(out->logits, ReadF32(file, name("logits")));
  ASSIGN_OR_RETURN(out->greedy_ids, ReadI32(file, name("greedy_ids")));
  if (has("greedy_margins")) {
    ASSIGN_OR_RETURN(out->greedy_margins,
                     ReadF32(file, name("greedy_margins")));
  }
  out->safe_steps = static_cast<int64_t>(out->greedy_ids.size());
  if (has("safe_steps")) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> safe_steps,
                     ReadI32(file, name("safe_steps")));
    out->safe_steps = safe_steps.at(0);
  }
  if (has("decode_logits")) {
    ASSIGN_OR_RETURN(out->decode_logits, ReadF32(file, name("decode_logits")));
  }
  if (has("merged_logits")) {
    ASSIGN_OR_RETURN(out->merged_logits, ReadF32(file, name("merged_logits")));
  }
  if (has("top_ids")) {
    ASSIGN_OR_RETURN(out->top_ids, ReadI32(file, name("top_ids")));
    ASSIGN_OR_RETURN(out->top_logprobs, ReadF32(file, name("top_logprobs")));
    out->top_count = file.Find(name("top_ids"))->shape.back();
  }
  if (has("prompt_logprobs")) {
    ASSIGN_OR_RETURN(out->prompt_logprobs,
                     ReadF32(file, name("prompt_logprobs")));
  }
  if (has("prompt_top_ids")) {
    ASSIGN_OR_RETURN(out->prompt_top_ids,
                     ReadI32(file, name("prompt_top_ids")));
    ASSIGN_OR_RETURN(out->prompt_top_logprobs,
                     ReadF32(file, name("prompt_top_logprobs")));
  }
  return absl::OkStatus();
}

}  // namespace

std::string SourceDir() {
  const std::string dir = Environment("LORIKEET_SOURCE_DIR");
  return dir.empty() ? "." : dir;
}

std::string SharedDir() {
  const std::string dir = Environment("LORIKEET_SHARED");
  return IfDirectory(dir.empty() ? absl::StrCat(SourceDir(), "/../shared")
                                 : dir);
}

std::string TinyDir() {
  const std::string shared = SharedDir();
  return shared.empty() ? "" : IfDirectory(JoinPath(shared, "golden/tiny"));
}

std::string ModelsDir() {
  const std::string dir = Environment("LORIKEET_MODELS");
  return IfDirectory(
      dir.empty() ? absl::StrCat(Environment("HOME"), "/.cache/lorikeet/models")
                  : dir);
}

namespace {

// Goes with the process that made it, not with its children.
struct TempDir {
  explicit TempDir(std::string d) : dir(std::move(d)) {}
  ~TempDir() {
    if (::getpid() == owner) PosixFileSystem().RemoveTree(dir).IgnoreError();
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string dir;
  const pid_t owner = ::getpid();
};

}  // namespace

std::string FreshTempDir(absl::string_view name) {
  static std::map<std::string, std::unique_ptr<TempDir>> dirs;
  const std::string dir =
      JoinPath(::testing::TempDir(), absl::StrCat(name, "-", ::getpid()));
  PosixFileSystem fs;
  CHECK(fs.RemoveTree(dir).ok());
  CHECK(fs.CreateDirectories(dir).ok());
  if (!dirs.contains(dir)) dirs[dir] = std::make_unique<TempDir>(dir);
  return dir;
}

absl::StatusOr<std::vector<float>> ReadF32(const SafetensorsFile& file,
                                           absl::string_view name) {
  return ReadValues<float>(file, name, "F32");
}

absl::StatusOr<std::vector<int32_t>> ReadI32(const SafetensorsFile& file,
                                             absl::string_view name) {
  return ReadValues<int32_t>(file, name, "I32");
}

absl::StatusOr<Golden> ReadGolden(const std::string& path) {
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(fs, path, path));
  Golden golden;
  ASSIGN_OR_RETURN(const std::vector<int32_t> count,
                   ReadI32(*file, "n_prompts"));
  ASSIGN_OR_RETURN(const std::vector<float> rms, ReadF32(*file, "logits_rms"));
  golden.logits_rms = static_cast<double>(rms.at(0));
  for (int32_t i = 0; i < count.at(0); ++i) {
    GoldenPrompt prompt;
    RETURN_IF_ERROR(ReadPrompt(*file, absl::StrCat("p", i, "."), &prompt));
    if (prompt.logit_rows < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": prompt ", i, " has no logits"));
    }
    golden.vocab =
        static_cast<int64_t>(prompt.logits.size()) / prompt.logit_rows;
    golden.prompts.push_back(std::move(prompt));
  }
  return golden;
}

double LogitError::rms() const {
  return count == 0 ? 0
                    : std::sqrt(sum_of_squares / static_cast<double>(count));
}

void LogitError::Add(const float* actual, const float* expected, int64_t n,
                     double logits_rms) {
  for (int64_t i = 0; i < n; ++i) {
    double error = std::abs(static_cast<double>(actual[i]) -
                            static_cast<double>(expected[i])) /
                   logits_rms;
    // std::max would drop a NaN.
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    max = std::max(max, error);
    sum_of_squares += error * error;
  }
  count += n;
}

}  // namespace lorikeet::testing

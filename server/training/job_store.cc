#include "server/training/job_store.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/status.h"
#include "train/checkpoint_store.h"

namespace lorikeet {
namespace {

constexpr char kPrefix[] = "job-";
constexpr int64_t kMaxRecordBytes = 1 << 20;

// The number of "job-17", 0 of any other name.
int64_t NumberOf(absl::string_view name) {
  int64_t number = 0;
  if (!absl::ConsumePrefix(&name, kPrefix) ||
      !absl::SimpleAtoi(name, &number)) {
    return 0;
  }
  return number;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(FileSystem& fs,
                                                         std::string dir) {
  RETURN_IF_ERROR(fs.CreateDirectories(dir));
  std::unique_ptr<JobStore> store(new JobStore(fs, std::move(dir)));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(store->dir_));
  for (const std::string& name : names) {
    const int64_t number = NumberOf(name);
    store->last_number_ = std::max(store->last_number_, number);
    if (number > 0 &&
        !fs.FileExists(JoinPath(store->PathOf(name), "record.json"))) {
      store->Remove(name);
    }
  }
  return store;
}

std::vector<JobRecord> JobStore::ReadAll() {
  std::vector<JobRecord> records;
  const absl::StatusOr<std::vector<std::string>> names = fs_.List(dir_);
  if (!names.ok()) return records;
  for (const std::string& name : *names) {
    if (NumberOf(name) == 0) continue;
    const std::string path = JoinPath(PathOf(name), "record.json");
    absl::StatusOr<std::string> text = fs_.ReadFile(path, kMaxRecordBytes);
    absl::StatusOr<Json> json = text.ok() ? Json::Parse(*text) : text.status();
    absl::StatusOr<JobRecord> record =
        json.ok() ? JobRecord::FromJson(*json) : json.status();
    if (record.ok() && record->id == name) {
      records.push_back(*std::move(record));
      continue;
    }
    Log(LogLevel::kError, "training job is left alone, its record is damaged",
        {{"path", path}, {"why", std::string(record.status().message())}});
  }
  std::ranges::sort(records, std::less<>(),
                    [](const JobRecord& r) { return NumberOf(r.id); });
  return records;
}

absl::Status JobStore::Create(absl::string_view data, absl::string_view eval,
                              JobRecord* record) {
  record->id = absl::StrCat(kPrefix, ++last_number_);
  record->has_eval = !eval.empty();
  const auto write = [&]() -> absl::Status {
    RETURN_IF_ERROR(fs_.CreateDirectories(PathOf(record->id)));
    RETURN_IF_ERROR(WriteFileDurably(fs_, DataPath(record->id), data));
    if (record->has_eval) {
      RETURN_IF_ERROR(WriteFileDurably(fs_, EvalPath(record->id), eval));
    }
    RETURN_IF_ERROR(Update(*record));
    return fs_.SyncDirectory(dir_);
  };
  const absl::Status status = write();
  if (!status.ok()) Remove(record->id);
  return status;
}

absl::Status JobStore::Update(const JobRecord& record) {
  return WriteFileDurably(fs_, JoinPath(PathOf(record.id), "record.json"),
                          record.ToJson().Dump(2) + "\n");
}

void JobStore::RemoveFiles(const std::string& id) {
  const std::string output = OutputPath(id);
  for (const std::string& dir :
       {output, output + ".partial", output + ".training"}) {
    fs_.RemoveTree(dir).IgnoreError();
  }
  for (const std::string& file : {DataPath(id), EvalPath(id)}) {
    if (fs_.FileExists(file)) fs_.RemoveFile(file).IgnoreError();
  }
}

void JobStore::Remove(const std::string& id) {
  fs_.RemoveTree(PathOf(id)).IgnoreError();
}

std::string JobStore::PathOf(const std::string& id) const {
  return JoinPath(dir_, id);
}

std::string JobStore::DataPath(const std::string& id) const {
  return JoinPath(PathOf(id), "data.jsonl");
}

std::string JobStore::EvalPath(const std::string& id) const {
  return JoinPath(PathOf(id), "eval.jsonl");
}

std::string JobStore::OutputPath(const std::string& id) const {
  return JoinPath(PathOf(id), "output");
}

bool JobStore::HasOutput(const std::string& id) const {
  return fs_.IsDirectory(OutputPath(id));
}

bool JobStore::HasCheckpoint(const std::string& id) const {
  const std::string dir = OutputPath(id) + ".training";
  if (!fs_.IsDirectory(dir)) return false;
  const auto latest = CheckpointStore(fs_, dir).Latest();
  return latest.ok() && latest->has_value();
}

}  // namespace lorikeet

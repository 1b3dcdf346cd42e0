#include "adapters/adapter_source.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/content_store.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

bool IsBelow(absl::string_view path, absl::string_view dir) {
  if (dir == "/") return true;
  return path == dir ||
         (absl::StartsWith(path, dir) && path[dir.size()] == '/');
}

// Returns `path` without links. `given` is what the caller wrote, for messages.
absl::StatusOr<std::string> AllowedPath(FileSystem& fs, const std::string& path,
                                        const std::string& given,
                                        const AdapterSource::Options& options) {
  const absl::Status denied = WithReason(
      absl::PermissionDeniedError(absl::StrCat(
          "path ", Quote(given), " is not below an allowed directory")),
      "PATH_NOT_ALLOWED");
  absl::StatusOr<std::string> canonical = fs.Canonical(path);
  if (!canonical.ok()) {
    // What does not exist elsewhere is nobody's business.
    const bool visible =
        options.trusted_path ||
        (!absl::StrContains(path, "..") &&
         std::any_of(
             options.roots.begin(), options.roots.end(),
             [&](const std::string& root) { return IsBelow(path, root); }));
    if (!visible) return denied;
    return WithReason(absl::NotFoundError(absl::StrCat(
                          "directory ", Quote(given), " does not exist")),
                      "ADAPTER_INVALID");
  }
  if (options.trusted_path) return canonical;
  for (const std::string& root : options.roots) {
    const absl::StatusOr<std::string> allowed = fs.Canonical(root);
    if (allowed.ok() && IsBelow(*canonical, *allowed)) return canonical;
  }
  return denied;
}

// The files in `dir`. Errors: NOT_FOUND, also of a pickle that is there
// instead.
absl::StatusOr<AdapterSource> FilesIn(FileSystem& fs, const std::string& dir,
                                      const PeftLimits& limits) {
  AdapterSource source{JoinPath(dir, kAdapterConfigFile),
                       JoinPath(dir, kAdapterModelFile),
                       JoinPath(dir, kGoldenFile)};
  if (!fs.FileExists(source.golden_path)) source.golden_path.clear();
  for (const std::string& file : {source.config_path, source.model_path}) {
    if (fs.FileExists(file)) continue;
    RETURN_IF_ERROR(DigestOfAdapter(fs, dir, limits).status());
  }
  return source;
}

}  // namespace

absl::StatusOr<AdapterSource> AdapterSource::FromPath(FileSystem& fs,
                                                      const std::string& path,
                                                      const Options& options) {
  if (path.empty()) {
    return WithReason(absl::InvalidArgumentError("path is empty"),
                      "ADAPTER_INVALID");
  }
  ASSIGN_OR_RETURN(const std::string dir, AllowedPath(fs, path, path, options));
  ASSIGN_OR_RETURN(AdapterSource source, FilesIn(fs, dir, options.limits));
  // A link in an allowed directory may lead out of it.
  for (std::string* file :
       {&source.config_path, &source.model_path, &source.golden_path}) {
    if (file->empty()) continue;
    ASSIGN_OR_RETURN(*file, AllowedPath(fs, *file, path, options));
  }
  return source;
}

absl::StatusOr<AdapterSource> AdapterSource::FromUpload(
    FileSystem& fs, const std::string& dir, const PeftLimits& limits) {
  return FilesIn(fs, dir, limits);
}

}  // namespace lorikeet

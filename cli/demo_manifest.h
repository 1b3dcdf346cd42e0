// What demo/manifest.json says: which adapters there are, and prompts with
// their right answers.
//
// Value types.

#ifndef LORIKEET_CLI_DEMO_MANIFEST_H_
#define LORIKEET_CLI_DEMO_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

struct DemoPrompt {
  std::string prompt;
  // The whole answer; for the base, whose stories go on, its beginning.
  std::string expected;
  uint32_t max_tokens = 0;
};

struct DemoAdapter {
  std::string name;
  // Of the manifest, for example "v1"; the server counts its own.
  std::string version;
  // Relative to the demo's directory.
  std::string dir;
  std::string description;
  std::vector<DemoPrompt> prompts;
};

struct DemoManifest {
  // Special token that ends an answer.
  std::string stop;
  std::vector<DemoPrompt> base_prompts;
  std::vector<DemoAdapter> adapters;
  // New versions of some of them.
  std::vector<DemoAdapter> updates;

  // Returns nullptr if there is none.
  const DemoAdapter* FindAdapter(absl::string_view name) const;
};

// Errors: INVALID_ARGUMENT naming the field.
absl::StatusOr<DemoManifest> ParseDemoManifest(absl::string_view text);

// Reads `demo_dir`/manifest.json.
absl::StatusOr<DemoManifest> ReadDemoManifest(const std::string& demo_dir);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_DEMO_MANIFEST_H_

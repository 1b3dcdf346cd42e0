// A flag whose value is one of a few words.
//
//   AddChoice(app, "--tier", &tier, {{"host", kHost}, {"disk", kDisk}},
//   "Where")
//       ->default_str("disk");
//
// Pure.

#ifndef LORIKEET_CLI_CHOICE_H_
#define LORIKEET_CLI_CHOICE_H_

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet {

// Another word is refused with the list of them. `value` must outlive `app`.
template <typename T>
CLI::Option* AddChoice(CLI::App& app, const std::string& flag, T* value,
                       std::vector<std::pair<std::string, T>> choices,
                       const std::string& description) {
  std::vector<std::string> words;
  for (const auto& [word, meaning] : choices) words.push_back(word);
  return app
      .add_option_function<std::string>(
          flag,
          [value, choices](const std::string& word) {
            for (const auto& [known, meaning] : choices) {
              if (known == word) *value = meaning;
            }
          },
          description)
      ->check(CLI::IsMember(words).description(""));
}

}  // namespace lorikeet

#endif  // LORIKEET_CLI_CHOICE_H_

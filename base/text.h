// Text for people: quoting of untrusted strings, sizes, UTF-8 checks.
//
// Pure.

#ifndef LORIKEET_BASE_TEXT_H_
#define LORIKEET_BASE_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

// Returns `text` in double quotes with control characters, quotes and bytes
// that are no UTF-8 escaped, cut to `max_chars` bytes with "..." behind. Every
// name from a file or a request goes through here on its way to a message.
std::string Quote(absl::string_view text, size_t max_chars = 200);

// The same without the quotes around.
std::string Escape(absl::string_view text, size_t max_chars = 200);

// Returns true if `text` is well-formed UTF-8 (Unicode 15, table 3-7).
bool IsValidUtf8(absl::string_view text);

// Returns for example "1.5 GiB".
std::string HumanBytes(uint64_t bytes);

// Parses "1073741824", "512MiB", "4G", "1.5GiB" (K, M, G, T are powers of
// 1024). Errors: INVALID_ARGUMENT naming the text.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

}  // namespace lorikeet

#endif  // LORIKEET_BASE_TEXT_H_

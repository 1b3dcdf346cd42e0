// A Digest is the SHA-256 of some content; its text is lower-case hex.
//
// Value type. Hashing is incremental by Sha256.

#ifndef LORIKEET_BASE_DIGEST_H_
#define LORIKEET_BASE_DIGEST_H_

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

class Digest {
 public:
  static constexpr size_t kSizeBytes = 32;

  constexpr Digest() = default;
  explicit constexpr Digest(const std::array<uint8_t, kSizeBytes>& bytes)
      : bytes_(bytes) {}
  // Errors: INVALID_ARGUMENT unless `hex` is 64 hexadecimal digits.
  static absl::StatusOr<Digest> FromHex(absl::string_view hex);

  const std::array<uint8_t, kSizeBytes>& bytes() const { return bytes_; }
  // 64 lower-case digits.
  std::string ToHex() const;
  // The first 12 digits, for people.
  std::string ToShortHex() const { return ToHex().substr(0, 12); }
  bool IsZero() const { return *this == Digest(); }

  friend auto operator<=>(const Digest&, const Digest&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    return H::combine(std::move(h), d.bytes_);
  }

 private:
  std::array<uint8_t, kSizeBytes> bytes_{};
};

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);
  // Adds the length of `field` and then its bytes, so that a list of fields
  // has one reading only.
  void UpdateField(absl::string_view field);
  // REQUIRES: called once, at the end.
  Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Returns the digest of `bytes`.
Digest DigestOf(absl::string_view bytes);

// CRC-32C (Castagnoli, RFC 3720), as in the upload protocol.
uint32_t Crc32c(absl::string_view bytes);

}  // namespace lorikeet

#endif  // LORIKEET_BASE_DIGEST_H_

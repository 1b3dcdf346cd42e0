#include "base/digest.h"

#include <openssl/evp.h>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/text.h"

namespace lorikeet {

absl::StatusOr<Digest> Digest::FromHex(absl::string_view hex) {
  const auto is_hex = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
           (c >= 'A' && c <= 'F');
  };
  bool ok = hex.size() == 2 * kSizeBytes;
  for (const char c : hex) ok = ok && is_hex(c);
  if (!ok) {
    return absl::InvalidArgumentError(
        absl::StrCat("digest ", Quote(hex), " is not 64 hexadecimal digits"));
  }
  const std::string raw = absl::HexStringToBytes(hex);
  std::array<uint8_t, kSizeBytes> bytes;
  std::memcpy(bytes.data(), raw.data(), kSizeBytes);
  return Digest(bytes);
}

std::string Digest::ToHex() const {
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(bytes_.data()), bytes_.size()));
}

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::string_view bytes) {
  CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

void Sha256::UpdateField(absl::string_view field) {
  char size[8];
  StoreLittleEndian<uint64_t>(field.size(), size);
  Update(absl::string_view(size, sizeof(size)));
  Update(field);
}

Digest Sha256::Finish() {
  std::array<uint8_t, Digest::kSizeBytes> bytes;
  unsigned int size = 0;
  CHECK(EVP_DigestFinal_ex(context_->evp, bytes.data(), &size) == 1);
  CHECK_EQ(size, Digest::kSizeBytes);
  return Digest(bytes);
}

Digest DigestOf(absl::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

uint32_t Crc32c(absl::string_view bytes) {
  // Reflected polynomial of Castagnoli.
  constexpr uint32_t kPolynomial = 0x82F63B78;
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) {
        crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
      }
      t[i] = crc;
    }
    return t;
  }();
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  }
  return ~crc;
}

}  // namespace lorikeet

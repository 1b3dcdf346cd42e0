#include "server/engine/kv_domain.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"

namespace lorikeet {
namespace {

absl::string_view BytesOf(const Digest& digest) {
  return absl::string_view(reinterpret_cast<const char*>(digest.bytes().data()),
                           digest.bytes().size());
}

}  // namespace

KvDomain MakeKvDomain(absl::string_view tenant, const Digest& base_fingerprint,
                      std::span<const KvAdapter> adapters, int32_t from,
                      DType kv_dtype) {
  Sha256 hash;
  hash.UpdateField("lorikeet kv domain 1");
  hash.UpdateField(tenant);
  hash.UpdateField(BytesOf(base_fingerprint));
  for (const KvAdapter& adapter : adapters) {
#ifndef LORIKEET_SEED_KV_KEY_WITHOUT_DIGEST  // right_adapter_test
    hash.UpdateField(BytesOf(adapter.digest));
#endif
    // The bits: no two scales print alike.
    hash.UpdateField(
        absl::StrCat("scale ", std::bit_cast<uint32_t>(adapter.scale)));
  }
  if (!adapters.empty()) {
    hash.UpdateField("unmerged");
    hash.UpdateField(absl::StrCat("from ", from));
  }
  hash.UpdateField(Name(kv_dtype));
  const Digest digest = hash.Finish();
  KvDomain domain;
  domain.value[0] = LoadLittleEndian<uint64_t>(digest.bytes().data());
  domain.value[1] = LoadLittleEndian<uint64_t>(digest.bytes().data() + 8);
  return domain;
}

}  // namespace lorikeet

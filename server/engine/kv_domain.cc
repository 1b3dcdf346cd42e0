#include "server/engine/kv_domain.h"

#include "base/bytes.h"

namespace lorikeet {
namespace {

absl::string_view BytesOf(const Digest& digest) {
  return absl::string_view(reinterpret_cast<const char*>(digest.bytes().data()),
                           digest.bytes().size());
}

}  // namespace

KvDomain MakeKvDomain(absl::string_view tenant, const Digest& base_fingerprint,
                      const Digest* adapter, DType kv_dtype) {
  Sha256 hash;
  hash.UpdateField("lorikeet kv domain 1");
  hash.UpdateField(tenant);
  hash.UpdateField(BytesOf(base_fingerprint));
  if (adapter != nullptr) {
#ifndef LORIKEET_SEED_KV_KEY_WITHOUT_DIGEST  // right_adapter_test
    hash.UpdateField(BytesOf(*adapter));
#endif
    hash.UpdateField("scale 1");
    hash.UpdateField("unmerged");
  }
  hash.UpdateField(Name(kv_dtype));
  const Digest digest = hash.Finish();
  KvDomain domain;
  domain.value[0] = LoadLittleEndian<uint64_t>(digest.bytes().data());
  domain.value[1] = LoadLittleEndian<uint64_t>(digest.bytes().data() + 8);
  return domain;
}

}  // namespace lorikeet

// Which sequences may share KV entries: those of one tenant, base model,
// adapter content, variant and KV type.
//
// Pure.

#ifndef LORIKEET_SERVER_ENGINE_KV_DOMAIN_H_
#define LORIKEET_SERVER_ENGINE_KV_DOMAIN_H_

#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "kernels/dtype.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

// One adapter of a composition.
struct KvAdapter {
  Digest digest;
  float scale = 1;
};

// Returns the first 128 bits of a SHA-256 over all that makes KV entries
// differ. No `adapters` = the base model; else they act from position `from`
// on.
KvDomain MakeKvDomain(absl::string_view tenant, const Digest& base_fingerprint,
                      std::span<const KvAdapter> adapters, int32_t from,
                      DType kv_dtype);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_KV_DOMAIN_H_

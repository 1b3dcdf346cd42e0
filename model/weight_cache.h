// A WeightCache keeps the packed form of quantized base weights in one file, so
// that the next start does not quantize again. It is named by what it was made
// from, DIR/<fingerprint>-<dtype>-<layout>.weights; each tensor carries a
// CRC-32C.
//
//   "LKWEIGHT"  u64 bytes of the header  u32 its CRC-32C
//   header: JSON {"tensors": [{"name", "out_dim", "in_dim", "bytes",
//   "crc32c"}]} the tensors in that order, each at a multiple of 64 bytes
//
// Losing the file costs time only: whatever is wrong with it, the caller
// quantizes and writes it anew.
//
// Thread-compatible; Find is thread-safe after Open.

#ifndef LORIKEET_MODEL_WEIGHT_CACHE_H_
#define LORIKEET_MODEL_WEIGHT_CACHE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "kernels/ops.h"

namespace lorikeet {

class WeightCache {
 public:
  struct Entry {
    std::string name;
    const PackedWeight* weight = nullptr;
  };

  // `fs` outlives this. `layout` is Ops::PackedLayout().
  WeightCache(FileSystem& fs, std::string dir, DType dtype,
              const std::string& layout);

  // Whether there is a file of this dtype and layout for some base. If not, a
  // loader need not know the fingerprint before it packs.
  bool HasAny() const;

  // Maps the file of `fingerprint`. Errors: NOT_FOUND; DATA_LOSS naming it.
  absl::Status Open(const Digest& fingerprint);
  // The packed bytes of a tensor. Errors: DATA_LOSS if it is missing, of
  // another shape, or damaged.
  absl::StatusOr<absl::string_view> Find(const std::string& name,
                                         int64_t out_dim, int64_t in_dim) const;

  // Writes the file of `fingerprint`, all or nothing.
  absl::Status Write(const Digest& fingerprint,
                     const std::vector<Entry>& entries);

  std::string PathOf(const Digest& fingerprint) const;

 private:
  struct Tensor {
    int64_t out_dim = 0;
    int64_t in_dim = 0;
    uint32_t crc = 0;
    absl::string_view bytes;
  };
  absl::Status ReadHeader(absl::string_view file);

  FileSystem& fs_;
  const std::string dir_;
  const std::string suffix_;  // "-int8-LAYOUT.weights"
  std::string path_;
  std::unique_ptr<MappedFile> file_;
  absl::flat_hash_map<std::string, Tensor> tensors_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_WEIGHT_CACHE_H_

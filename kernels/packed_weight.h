// A PackedWeight is a matrix W [out_dim, in_dim] as a backend keeps it, in its
// own dtype; a PackedLora is A and B of one linear. Opaque outside of backends.
//
// Immutable.

#ifndef LORIKEET_KERNELS_PACKED_WEIGHT_H_
#define LORIKEET_KERNELS_PACKED_WEIGHT_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace lorikeet {

class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual int64_t out_dim() const = 0;
  virtual int64_t in_dim() const = 0;
  virtual DType dtype() const = 0;
  virtual int64_t size_bytes() const = 0;
  // The packed form, for Ops::RestoreWeight of the same backend and build.
  // Empty if the backend does not offer that.
  virtual absl::string_view packed_bytes() const { return {}; }
};

class PackedLora {
 public:
  virtual ~PackedLora() = default;
  virtual int64_t rank() const = 0;  // > 0
  virtual int64_t in_dim() const = 0;
  virtual int64_t out_dim() const = 0;
  virtual int64_t size_bytes() const = 0;  // of device memory
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_PACKED_WEIGHT_H_

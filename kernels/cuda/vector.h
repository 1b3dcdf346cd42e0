// Reading and writing kWidth neighbouring floats of global memory at once: 4
// where rows are aligned to 16 bytes, else 1.

#ifndef LORIKEET_KERNELS_CUDA_VECTOR_H_
#define LORIKEET_KERNELS_CUDA_VECTOR_H_

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

DEVICE void LoadFloats(const float* p, float (&f)[1]) { f[0] = Load(p); }
DEVICE void LoadFloats(const float* p, float (&f)[4]) {
  const float4 v = Load(reinterpret_cast<const float4*>(p));
  f[0] = v.x;
  f[1] = v.y;
  f[2] = v.z;
  f[3] = v.w;
}
DEVICE void LoadFloatsReadOnly(const float* p, float (&f)[1]) {
  f[0] = LoadReadOnly(p);
}
DEVICE void LoadFloatsReadOnly(const float* p, float (&f)[4]) {
  const float4 v = LoadReadOnly(reinterpret_cast<const float4*>(p));
  f[0] = v.x;
  f[1] = v.y;
  f[2] = v.z;
  f[3] = v.w;
}
DEVICE void StoreFloats(float* p, const float (&f)[1]) { Store(p, f[0]); }
DEVICE void StoreFloats(float* p, const float (&f)[4]) {
  StoreGlobal16(reinterpret_cast<float4*>(p),
                make_float4(f[0], f[1], f[2], f[3]));
}

// Eight bf16 of one 16-byte word as f32.
DEVICE void UnpackBf16(const uint4& packed, float (&f)[8]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(BitCast<__nv_bfloat162>(words[i]));
    f[2 * i] = pair.x;
    f[2 * i + 1] = pair.y;
  }
}
DEVICE uint4 PackBf16x8(const float (&f)[8]) {
  return make_uint4(PackBf16(f[0], f[1]), PackBf16(f[2], f[3]),
                    PackBf16(f[4], f[5]), PackBf16(f[6], f[7]));
}

inline bool IsVectorAligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0;
}

// Whether rows can be read 16 bytes at a time.
template <typename T>
bool IsVectorRows(const Rows<T>& m) {
  return IsVectorAligned(m.data) &&
         m.stride * static_cast<int64_t>(sizeof(T)) % kVectorBytes == 0 &&
         m.cols * static_cast<int64_t>(sizeof(T)) % kVectorBytes == 0;
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_VECTOR_H_

// Vector types and loads shared by the kernels of one target. Included once
// per target, inside of Highway's foreach_target.

#if defined(LORIKEET_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LORIKEET_KERNELS_CPU_SIMD_INL_H_
#undef LORIKEET_KERNELS_CPU_SIMD_INL_H_
#else
#define LORIKEET_KERNELS_CPU_SIMD_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/packed.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<FloatTag>;
using WordTag = hn::RebindToUnsigned<FloatTag>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
// A group of 32 is this many pairs of vectors: lanes i and i + 16.
inline constexpr int kUnits = 16 / kLanes;

// Of LoRA in 8 bits. Widens numbers `first`, ... of a vector; exact.
HWY_INLINE FloatVec LoadInt8(const char* vector, int first) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<int8_t, FloatTag> d8;
  const FloatVec scale =
      hn::Set(d, FloatFromBF16(*reinterpret_cast<const uint16_t*>(vector)));
  const auto q = hn::LoadU(
      d8, reinterpret_cast<const int8_t*>(vector + sizeof(uint16_t)) + first);
  return hn::Mul(scale, hn::ConvertTo(d, hn::PromoteTo(di, q)));
}

// Of rank blocks. Widens unit `unit` of a group of 32: `low` gets elements unit
// * kLanes + 0, 1, ..., `high` those 16 further.
template <DType kType>
HWY_INLINE void LoadPair(const char* group, int unit, FloatVec& low,
                         FloatVec& high) {
  const FloatTag d;
  if constexpr (kType == DType::kF32) {
    const float* p = reinterpret_cast<const float*>(group) + unit * kLanes;
    low = hn::Load(d, p);
    high = hn::Load(d, p + 16);
  } else if constexpr (kType == DType::kBF16) {
    const WordTag dw;
    const auto both =
        hn::Load(dw, reinterpret_cast<const uint32_t*>(group) + unit * kLanes);
    low = hn::BitCast(d, hn::ShiftLeft<16>(both));
    high = hn::BitCast(d, hn::And(both, hn::Set(dw, 0xFFFF0000u)));
  } else if constexpr (kType == DType::kI8) {
    low = LoadInt8(group, unit * kLanes);
    high = LoadInt8(group, unit * kLanes + 16);
  } else {
    const hn::Rebind<hwy::float16_t, FloatTag> dh;
    const auto* p =
        reinterpret_cast<const hwy::float16_t*>(group) + unit * kLanes;
    low = hn::PromoteTo(d, hn::Load(dh, p));
    high = hn::PromoteTo(d, hn::Load(dh, p + 16));
  }
}

// The columns of a panel that lie interleaved; in 8 bits those of LoRA. Load
// widens vector `index` of column `column` of them: outputs index * kLanes, +
// 1, ...
template <DType kType>
struct PanelColumns {
  static constexpr int kCount = 1;
  static constexpr int64_t kBytes = LoraVectorBytes(kType);  // of a column
  static HWY_INLINE FloatVec Load(const char* group, int index, int) {
    const FloatTag d;
    if constexpr (kType == DType::kF32) {
      return hn::Load(d,
                      reinterpret_cast<const float*>(group) + index * kLanes);
    } else if constexpr (kType == DType::kI8) {
      return LoadInt8(group, index * kLanes);
    } else {
      const hn::Rebind<hwy::float16_t, FloatTag> dh;
      return hn::PromoteTo(
          d, hn::Load(dh, reinterpret_cast<const hwy::float16_t*>(group) +
                              index * kLanes));
    }
  }
  static HWY_INLINE FloatVec LoadLast(const char* group, int index) {
    return Load(group, index, 0);
  }
};

template <>
struct PanelColumns<DType::kBF16> {
  static constexpr int kCount = 2;
  static constexpr int64_t kBytes = LoraVectorBytes(DType::kBF16);
  static HWY_INLINE FloatVec Load(const char* group, int index, int column) {
    const FloatTag d;
    const WordTag dw;
    const auto both =
        hn::Load(dw, reinterpret_cast<const uint32_t*>(group) + index * kLanes);
    return hn::BitCast(d, column == 0
                              ? hn::ShiftLeft<16>(both)
                              : hn::And(both, hn::Set(dw, 0xFFFF0000u)));
  }
  // An odd last column, not interleaved.
  static HWY_INLINE FloatVec LoadLast(const char* group, int index) {
    const hn::Rebind<uint16_t, FloatTag> dh;
    const WordTag dw;
    const auto bits =
        hn::Load(dh, reinterpret_cast<const uint16_t*>(group) + index * kLanes);
    return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(dw, bits)));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#endif  // once per target

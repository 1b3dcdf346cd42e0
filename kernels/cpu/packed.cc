#include "kernels/cpu/packed.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace lorikeet::cpu {
namespace {

// One element, narrowed or widened only if the types differ: a copy keeps the
// bits.
template <typename T>
T Convert(const ConstTensor& from, DType to, int64_t row, int64_t col) {
  if (from.dtype == to) {
    return static_cast<const T*>(from.data)[row * from.stride + col];
  }
  T value;
  StoreElement(to, &value, 0, from.At(row, col));
  return value;
}

// [k][32], one column after the other.
template <typename T>
void PackColumns(ConstTensor w, DType dtype, T* to) {
  for (int64_t first = 0; first < w.rows; first += kGroup) {
    const int64_t rows = std::min(kGroup, w.rows - first);
    T* panel = to + first * w.cols;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < w.cols; ++k) {
        panel[k * kGroup + i] = Convert<T>(w, dtype, first + i, k);
      }
    }
  }
}

// Where column k of output i is in a panel of bf16.
int64_t PairPlace(int64_t i, int64_t k, int64_t cols) {
  if (k == cols - 1 && cols % 2 == 1) return k * kGroup + i;
  return (k / 2 * kGroup + i) * 2 + k % 2;
}

void PackPairs(ConstTensor w, uint16_t* to) {
  for (int64_t first = 0; first < w.rows; first += kGroup) {
    const int64_t rows = std::min(kGroup, w.rows - first);
    uint16_t* panel = to + first * w.cols;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t k = 0; k < w.cols; ++k) {
        panel[PairPlace(i, k, w.cols)] =
            Convert<uint16_t>(w, DType::kBF16, first + i, k);
      }
    }
  }
}

// Where column k of output i is in a block of an int8 panel.
int64_t Int8Place(int64_t i, int64_t k) {
  return kGroup * 2 + (k % kGroup / 4 * kGroup + i) * 4 + k % 4;
}

// Of output i in panel `panel`: quantizes its row block by block.
void PackInt8Row(ConstTensor w, int64_t row, char* panel) {
  const int64_t i = row % kGroup;
  float block[kInt8Block];
  int8_t q[kInt8Block];
  for (int64_t k = 0; k < w.cols; k += kInt8Block) {
    const int64_t count = std::min(kInt8Block, w.cols - k);
    for (int64_t j = 0; j < count; ++j) block[j] = w.At(row, k + j);
    char* to = panel + k / kInt8Block * kInt8PanelBlockBytes;
    const uint16_t scale = QuantizeWeightBlock(block, count, q);
    std::memcpy(to + 2 * i, &scale, sizeof(scale));
    for (int64_t j = 0; j < kInt8Block; ++j) {
      to[Int8Place(i, j)] = static_cast<char>(q[j] + 128);
    }
  }
}

void PackInt8(ConstTensor w, char* to) {
  const int64_t panel_bytes = PanelBytes(DType::kI8, w.cols);
  const int64_t padded = GroupsOf(w.rows) * kGroup;
  for (int64_t row = 0; row < w.rows; ++row) {
    PackInt8Row(w, row, to + row / kGroup * panel_bytes);
  }
  // Missing rows: scale 0, and numbers that mean 0.
  for (int64_t row = w.rows; row < padded; ++row) {
    char* panel = to + row / kGroup * panel_bytes;
    for (int64_t k = 0; k < w.cols; k += kInt8Block) {
      char* block = panel + k / kInt8Block * kInt8PanelBlockBytes;
      for (int64_t j = 0; j < kInt8Block; ++j) {
        block[Int8Place(row % kGroup, j)] = static_cast<char>(128);
      }
    }
  }
}

// `w`: 32 numbers or fewer.
void PackInt8Vector(const float* w, int64_t count, char* to) {
  int8_t q[kLoraVector];
  const uint16_t scale = QuantizeLoraVector(w, count, q);
  std::memcpy(to, &scale, sizeof(scale));
  std::memcpy(to + sizeof(scale), q, sizeof(q));
}

void PackInt8Ranks(ConstTensor a, char* to) {
  const int64_t groups = GroupsOf(a.cols);
  float w[kGroup];
  for (int64_t first = 0; first < a.rows;) {
    const int64_t size = RankBlocks::BlockSize(a.rows - first);
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t count = std::min(kGroup, a.cols - group * kGroup);
      for (int64_t r = first; r < first + size; ++r) {
        for (int64_t i = 0; i < count; ++i) w[i] = a.At(r, group * kGroup + i);
        PackInt8Vector(w, count, to);
        to += kLoraInt8VectorBytes;
      }
    }
    first += size;
  }
}

template <typename T>
void PackRanks(ConstTensor a, T* to) {
  const int64_t groups = GroupsOf(a.cols);
  for (int64_t first = 0; first < a.rows;) {
    const int64_t size = RankBlocks::BlockSize(a.rows - first);
    T* block = to + first * groups * kGroup;
    for (int64_t r = 0; r < size; ++r) {
      for (int64_t k = 0; k < a.cols; ++k) {
        block[((k / kGroup) * size + r) * kGroup +
              PlaceInGroup(a.dtype, k % kGroup)] =
            Convert<T>(a, a.dtype, first + r, k);
      }
    }
    first += size;
  }
}

Buffer NewBytes(int64_t size, Arena* arena) {
  return arena != nullptr ? arena->Allocate(size) : Buffer(size);
}

}  // namespace

Panels::Panels(ConstTensor w, DType dtype, Arena* arena)
    : rows_(w.rows),
      cols_(w.cols),
      dtype_(dtype),
      bytes_(NewBytes(GroupsOf(w.rows) * PanelBytes(dtype, w.cols), arena)) {
  CHECK(w.rows > 0 && w.cols > 0);
  switch (dtype) {
    case DType::kF32:
      PackColumns(w, dtype, bytes_.as<float>());
      break;
    case DType::kF16:
      PackColumns(w, dtype, bytes_.as<uint16_t>());
      break;
    case DType::kBF16:
      PackPairs(w, bytes_.as<uint16_t>());
      break;
    case DType::kI8:
      PackInt8(w, bytes_.data());
      break;
  }
}

Panels::Panels(int64_t rows, int64_t cols, DType dtype, absl::string_view bytes,
               Arena* arena)
    : rows_(rows),
      cols_(cols),
      dtype_(dtype),
      bytes_(NewBytes(GroupsOf(rows) * PanelBytes(dtype, cols), arena)) {
  CHECK_EQ(bytes_.size_bytes(), static_cast<int64_t>(bytes.size()));
  std::memcpy(bytes_.data(), bytes.data(), bytes.size());
}

Panels::Panels(int64_t rows, int64_t cols, DType dtype, Arena* arena)
    : rows_(rows),
      cols_(cols),
      dtype_(dtype),
      bytes_(NewBytes(GroupsOf(rows) * PanelBytes(dtype, cols), arena)) {}

Panels::Panels(int64_t rows, int64_t cols, DType dtype, bool is_lora_int8,
               Buffer bytes)
    : rows_(rows),
      cols_(cols),
      dtype_(dtype),
      is_lora_int8_(is_lora_int8),
      bytes_(std::move(bytes)) {}

Panels Panels::Int8Columns(ConstTensor b) {
  Buffer bytes(GroupsOf(b.rows) * b.cols * kLoraInt8VectorBytes);
  char* to = bytes.data();
  float w[kGroup];
  for (int64_t first = 0; first < b.rows; first += kGroup) {
    const int64_t count = std::min(kGroup, b.rows - first);
    for (int64_t r = 0; r < b.cols; ++r) {
      for (int64_t i = 0; i < count; ++i) w[i] = b.At(first + i, r);
      PackInt8Vector(w, count, to);
      to += kLoraInt8VectorBytes;
    }
  }
  return Panels(b.rows, b.cols, DType::kI8, /*is_lora_int8=*/true,
                std::move(bytes));
}

float Panels::At(int64_t row, int64_t col) const {
  const char* from = panel(row / kGroup);
  const int64_t i = row % kGroup;
  if (is_lora_int8_) {
    return LoraInt8Element(from + col * kLoraInt8VectorBytes, i);
  }
  if (dtype_ == DType::kBF16) {
    return LoadElement(dtype_, from, PairPlace(i, col, cols_));
  }
  if (dtype_ != DType::kI8) return LoadElement(dtype_, from, col * kGroup + i);
  const char* block = from + col / kInt8Block * kInt8PanelBlockBytes;
  const int q = static_cast<uint8_t>(block[Int8Place(i, col)]) - 128;
  return LoadElement(DType::kF16, block, i) * static_cast<float>(q);
}

void Panels::Row(int64_t row, float* out) const {
  for (int64_t k = 0; k < cols_; ++k) out[k] = At(row, k);
}

RankBlocks::RankBlocks(ConstTensor a, DType dtype)
    : ranks_(a.rows),
      in_dim_(a.cols),
      dtype_(dtype),
      bytes_(a.rows * GroupsOf(a.cols) * LoraVectorBytes(dtype)) {
  CHECK(a.rows > 0 && a.cols > 0);
  CHECK(dtype == a.dtype || dtype == DType::kI8);
  if (dtype_ == DType::kI8) {
    PackInt8Ranks(a, bytes_.data());
  } else if (dtype_ == DType::kF32) {
    PackRanks(a, bytes_.as<float>());
  } else {
    PackRanks(a, bytes_.as<uint16_t>());
  }
}

}  // namespace lorikeet::cpu

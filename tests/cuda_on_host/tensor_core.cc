// ldmatrix and mma.sync.
//
// Three arithmetics: plain f32 sums, and what was measured on A100 and H100
// (arXiv 2511.10909, 2512.07004): exact products and the addend are aligned to
// the largest exponent, cut to F fraction bits, summed exactly, and the sum is
// rounded towards zero. Ampere: F = 24, k in two chunks of 8. Hopper: F = 25,
// one chunk of 16.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/cuda_on_host/checker.h"
#include "tests/cuda_on_host/counters.h"
#include "tests/cuda_on_host/meeting.h"

namespace cuda_on_host {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kAmpereFractionBits = 24;
constexpr int kHopperFractionBits = 25;

struct LdMatrixPayload {
  uint32_t* r;
  const void* row;
};

struct MmaPayload {
  float* d;
  const uint32_t* a;
  uint32_t b0, b1;
};

float Bf16Half(uint32_t word, int half) {
  const uint32_t bits = half != 0 ? word & 0xffff0000u : word << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// Operands of all lanes put together.
struct Operands {
  float a[16][16];
  float b[16][8];
};

void Gather(void* const* payloads, Operands* o) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto* const p = static_cast<const MmaPayload*>(payloads[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int j = 0; j < 2; ++j) {
      o->a[g][t + j] = Bf16Half(p->a[0], j);
      o->a[g + 8][t + j] = Bf16Half(p->a[1], j);
      o->a[g][t + 8 + j] = Bf16Half(p->a[2], j);
      o->a[g + 8][t + 8 + j] = Bf16Half(p->a[3], j);
      o->b[t + j][g] = Bf16Half(p->b0, j);
      o->b[t + 8 + j][g] = Bf16Half(p->b1, j);
    }
  }
}

// x . y + c, with y a column of stride 8.
float FusedDotAdd(const float* x, const float* y, int n, float c,
                  int fraction_bits) {
  double terms[17];
  int exponents[17];
  double plain = c;
  int largest = -1000;
  for (int i = 0; i <= n; ++i) {
    int ex = 0, ey = 0;
    const double sx = std::frexp(i < n ? x[i] : c, &ex) * 2;
    const double sy = i < n ? std::frexp(y[i * 8], &ey) * 2 : 1.0;
    terms[i] = sx * sy;
    exponents[i] = terms[i] == 0 ? -126 : i < n ? ex + ey - 2 : ex - 1;
    largest = std::max(largest, exponents[i]);
    if (i < n) plain += double{x[i]} * y[i * 8];
  }
  if (!std::isfinite(plain)) return static_cast<float>(plain);
  double sum = 0;
  for (int i = 0; i <= n; ++i) {
    sum += std::trunc(
        std::ldexp(terms[i], exponents[i] - largest + fraction_bits));
  }
  sum = std::ldexp(sum, largest - fraction_bits);
  const float f = static_cast<float>(sum);
  return std::fabs(double{f}) > std::fabs(sum) ? std::nextafter(f, 0.0f) : f;
}

float DotAdd(const Operands& o, int row, int col, float c) {
  const float* const x = o.a[row];
  const float* const y = &o.b[0][col];
  if (options().mma == Options::Mma::kHopper) {
    return FusedDotAdd(x, y, 16, c, kHopperFractionBits);
  }
  c = FusedDotAdd(x, y, 8, c, kAmpereFractionBits);
  return FusedDotAdd(x + 8, y + 8 * 8, 8, c, kAmpereFractionBits);
}

void PerformMma(void* const* payloads) {
  Operands o;
  Gather(payloads, &o);
  const bool is_plain = options().mma == Options::Mma::kPlain;
  float sums[16][8] = {};
  if (is_plain) {
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) {
        for (int j = 0; j < 8; ++j) sums[i][j] += o.a[i][k] * o.b[k][j];
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* const d = static_cast<const MmaPayload*>(payloads[lane])->d;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
      d[i] = is_plain ? d[i] + sums[row][col] : DotAdd(o, row, col, d[i]);
    }
  }
}

uint32_t MatrixElements(void* const* rows, int matrix, int lane,
                        bool transposed) {
  if (!transposed) {
    uint32_t word;
    std::memcpy(
        &word,
        static_cast<const char*>(rows[matrix * 8 + lane / 4]) + lane % 4 * 4,
        sizeof word);
    return word;
  }
  uint16_t pair[2];
  for (int j = 0; j < 2; ++j) {
    std::memcpy(&pair[j],
                static_cast<const char*>(rows[matrix * 8 + lane % 4 * 2 + j]) +
                    lane / 4 * 2,
                sizeof pair[j]);
  }
  return uint32_t{pair[0]} | uint32_t{pair[1]} << 16;
}

}  // namespace

void LdMatrix(uint32_t* r, bool transposed, const void* row, Loc loc) {
  CheckShared(row, 16, "ldmatrix row", loc);
  OnMatrixRow(row, loc);
  LdMatrixPayload mine{r, row};
  Meet("ldmatrix", kAllLanes, &mine, loc, [&](void** payloads) {
    void* rows[32];
    for (int i = 0; i < 32; ++i) {
      rows[i] = const_cast<void*>(
          static_cast<const LdMatrixPayload*>(payloads[i])->row);
    }
    for (int lane = 0; lane < 32; ++lane) {
      auto* const p = static_cast<LdMatrixPayload*>(payloads[lane]);
      for (int m = 0; m < 4; ++m) {
        p->r[m] = MatrixElements(rows, m, lane, transposed);
      }
    }
    if (Self()->block->kernel->counters != nullptr) {
      CountMatrixRows(*Self(), rows, loc);
    }
  });
}

void Mma16816(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, Loc loc) {
  MmaPayload mine{d, a, b0, b1};
  Meet("mma.sync", kAllLanes, &mine, loc, [&](void** payloads) {
    PerformMma(payloads);
    KernelCounters* const counters = Self()->block->kernel->counters;
    if (counters != nullptr) ++counters->mma;
  });
}

float Perturb(float value, float ulps) {
  if (!options().perturb || value == 0 || !std::isfinite(value)) return value;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t hash =
      bits * 2654435761u ^ static_cast<uint32_t>(options().seed * 40503);
  const float unit = static_cast<float>(static_cast<int32_t>(hash)) * 0x1p-31f;
  return value + value * (unit * ulps * 0x1p-23f);
}

}  // namespace cuda_on_host

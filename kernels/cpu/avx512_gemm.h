// GEMM and merge kernels for instructions that Highway's targets do not cover:
// 8-bit and bf16 dot products of AVX-512. Each may be called only where its
// feature is.
//
// Pure.

#ifndef LORIKEET_KERNELS_CPU_AVX512_GEMM_H_
#define LORIKEET_KERNELS_CPU_AVX512_GEMM_H_

#include "kernels/cpu/kernel_table.h"

namespace lorikeet::cpu {

// AVX512_VNNI. Gives the same bits as every other int8 kernel of a target with
// fused multiply-add.
bool HasAvx512Vnni();
void Int8GemmAvx512(const Int8GemmArgs& args);

// AVX512_BF16.
bool HasAvx512Bf16();
void Bf16GemmAvx512(const Bf16GemmArgs& args);
void Bf16MergeAvx512(const Bf16MergeArgs& args);
// Runs independent chains of dot products and nothing else, for the peak;
// returns the number of floating-point operations.
int64_t Bf16DotChains(int64_t rounds, float* sink);

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_AVX512_GEMM_H_

// The part of cuBLASLt that the backend uses, in f32 on the host.
//
// It demands what the library demands and what a GPU would punish: shapes,
// leading dimensions, alignment of pointers and rows, device pointers,
// workspace. The library's order of summation is unknown, so in random
// schedules K is cut into 1, 2 or 4 pieces, and the workspace is overwritten.

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cstring>
#include <vector>

#include "tests/cuda_on_host/checker.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/scheduler.h"
#include "tests/cuda_on_host/stream_order.h"
#include "tests/cuda_on_host/streams.h"

namespace cuda_on_host {
namespace {

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
};
struct Layout {
  cudaDataType_t type;
  uint64_t rows, cols;
  int64_t ld;
};
struct Preference {
  uint64_t workspace = 0;
};

// The structure that a handle's opaque memory points to.
template <typename T, typename Handle>
T*& Behind(Handle handle) {
  return *reinterpret_cast<T**>(handle);
}

size_t SizeOf(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

float Read(const void* p, cudaDataType_t type, size_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(p)[i];
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(p)[i]} << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// As the vector unit would: 16 partial sums.
float Dot(const float* a, const float* b, size_t n) {
  float s[16] = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = 0; j < 16; ++j) s[j] += a[i + j] * b[i + j];
  }
  float sum = 0;
  for (const float v : s) sum += v;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// D [m, n] = op(A) B (+ D) (+ bias of each of the m rows), column-major.
struct Matmul {
  bool a_is_transposed;
  bool accumulates;
  const void* a;
  const void* b;
  void* d;
  Layout la, lb, ld;
  const float* bias;
  void* workspace;
  size_t workspace_bytes;

  uint64_t k() const { return lb.rows; }
  // Element p of row i of op(A).
  float A(uint64_t i, uint64_t p) const {
    return a_is_transposed ? Read(Column(a, la, i), la.type, p)
                           : Read(Column(a, la, p), la.type, i);
  }

  void Touch() const {
    for (uint64_t i = 0; i < la.cols; ++i) {
      OnStreamAccess(Column(a, la, i), la.rows * SizeOf(la.type), false,
                     "operand A of a matmul");
    }
    for (uint64_t j = 0; j < lb.cols; ++j) {
      OnStreamAccess(Column(b, lb, j), lb.rows * SizeOf(lb.type), false,
                     "operand B of a matmul");
    }
    if (bias != nullptr) {
      OnStreamAccess(bias, ld.rows * sizeof(float), false,
                     "the bias of a matmul");
    }
    for (uint64_t j = 0; j < ld.cols && accumulates; ++j) {
      OnStreamAccess(Column(d, ld, j), ld.rows * SizeOf(ld.type), false,
                     "what a matmul adds to");
    }
    for (uint64_t j = 0; j < ld.cols; ++j) {
      OnStreamAccess(Column(d, ld, j), ld.rows * SizeOf(ld.type), true,
                     "the result of a matmul");
    }
  }

  void Run() const {
    NewOperationId();
    Touch();
    const bool is_random = options().schedule == Options::Schedule::kRandom;
    const uint64_t pieces =
        is_random && k() % 32 == 0 ? 1u << ((options().seed + ld.rows) % 3) : 1;
    const size_t piece = k() / pieces;
    std::vector<float> columns(lb.cols * k()), row(k());
    for (uint64_t j = 0; j < lb.cols; ++j) {
      for (uint64_t i = 0; i < k(); ++i) {
        columns[j * k() + i] = Read(Column(b, lb, j), lb.type, i);
      }
    }
    for (uint64_t i = 0; i < ld.rows; ++i) {
      for (uint64_t p = 0; p < k(); ++p) {
        row[p] = A(i, p);
      }
      for (uint64_t j = 0; j < ld.cols; ++j) {
        float sum = 0;
        for (uint64_t p = 0; p < pieces; ++p) {
          sum += Dot(&row[p * piece], &columns[j * k() + p * piece], piece);
        }
        if (bias != nullptr) sum += bias[i];
        if (accumulates) sum += Read(Column(d, ld, j), ld.type, i);
        Write(i, j, sum);
      }
    }
    if (is_random && workspace_bytes != 0) {
      std::memset(workspace, 0xFF, workspace_bytes);
    }
  }

  void Write(uint64_t i, uint64_t j, float value) const {
    const size_t at = static_cast<size_t>(ld.ld) * j + i;
    if (ld.type == CUDA_R_32F) {
      static_cast<float*>(d)[at] = value;
    } else {
      static_cast<__nv_bfloat16*>(d)[at] = __float2bfloat16(value);
    }
  }

  static const char* Column(const void* p, const Layout& l, uint64_t j) {
    return static_cast<const char*>(p) +
           static_cast<size_t>(l.ld) * j * SizeOf(l.type);
  }
};

bool IsAligned(const void* p, const Layout& l) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 &&
         static_cast<size_t>(l.ld) * SizeOf(l.type) % 16 == 0;
}

}  // namespace
}  // namespace cuda_on_host

using namespace cuda_on_host;  // NOLINT: what follows is their C interface

#define LT_API extern "C" cublasStatus_t

LT_API cublasLtCreate(cublasLtHandle_t* handle) {
  const ApiLock lock;
  *handle = reinterpret_cast<cublasLtHandle_t>(new int);
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtDestroy(cublasLtHandle_t handle) {
  const ApiLock lock;
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d,
                                cublasComputeType_t compute,
                                cudaDataType_t scale) {
  const ApiLock lock;
  *d = new cublasLtMatmulDescOpaque_t;
  Behind<Description>(*d) = new Description{compute, scale};
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  const ApiLock lock;
  delete Behind<Description>(d);
  delete d;
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                      cublasLtMatmulDescAttributes_t attribute,
                                      const void* value, size_t n) {
  const ApiLock lock;
  Description& description = *Behind<Description>(d);
  const auto set = [&](void* to, size_t size) {
    if (n != size) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(&description.op_a, sizeof description.op_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(&description.op_b, sizeof description.op_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(&description.epilogue, sizeof description.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(&description.bias, sizeof description.bias);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
LT_API cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type,
                                  uint64_t rows, uint64_t cols, int64_t ld) {
  const ApiLock lock;
  *l = new cublasLtMatrixLayoutOpaque_t;
  Behind<Layout>(*l) = new Layout{type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  const ApiLock lock;
  delete Behind<Layout>(l);
  delete l;
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  const ApiLock lock;
  *p = new cublasLtMatmulPreferenceOpaque_t;
  Behind<Preference>(*p) = new Preference;
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  const ApiLock lock;
  delete Behind<Preference>(p);
  delete p;
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p,
    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t n) {
  const ApiLock lock;
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && n == 8) {
    std::memcpy(&Behind<Preference>(p)->workspace, value, n);
  }
  return CUBLAS_STATUS_SUCCESS;
}
LT_API cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
    cublasLtMatmulPreference_t p, int wanted,
    cublasLtMatmulHeuristicResult_t* results, int* found) {
  const ApiLock lock;
  *found = wanted > 0 ? 1 : 0;
  if (*found == 0) return CUBLAS_STATUS_INVALID_VALUE;
  results[0] = {};
  results[0].algo.data[0] = 1;
  results[0].workspaceSize = Behind<Preference>(p)->workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1.0f;
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                      const void* alpha, const void* a,
                      cublasLtMatrixLayout_t layout_a, const void* b,
                      cublasLtMatrixLayout_t layout_b, const void* beta,
                      const void* c, cublasLtMatrixLayout_t layout_c, void* d,
                      cublasLtMatrixLayout_t layout_d,
                      const cublasLtMatmulAlgo_t* algo, void* workspace,
                      size_t workspace_bytes, cudaStream_t stream) {
  const ApiLock lock;
  const Description desc = *Behind<Description>(description);
  const bool a_is_transposed = desc.op_a == CUBLAS_OP_T;
  const float add = *static_cast<const float*>(beta);
  const Matmul matmul{
      a_is_transposed,
      add == 1,
      a,
      b,
      d,
      *Behind<Layout>(layout_a),
      *Behind<Layout>(layout_b),
      *Behind<Layout>(layout_d),
      desc.epilogue == CUBLASLT_EPILOGUE_BIAS ? desc.bias : nullptr,
      workspace,
      workspace_bytes};
  const Layout& la = matmul.la;
  const Layout& lb = matmul.lb;
  const Layout& ld = matmul.ld;
  const Layout& lc = *Behind<Layout>(layout_c);
  if ((a_is_transposed ? la.rows : la.cols) != lb.rows ||
      (a_is_transposed ? la.cols : la.rows) != ld.rows || lb.cols != ld.cols ||
      lc.rows != ld.rows || lc.cols != ld.cols ||
      la.ld < static_cast<int64_t>(la.rows) ||
      lb.ld < static_cast<int64_t>(lb.rows) ||
      ld.ld < static_cast<int64_t>(ld.rows) || algo == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool is_known =
      desc.op_b == CUBLAS_OP_N && desc.compute == CUBLAS_COMPUTE_32F &&
      desc.scale == CUDA_R_32F && la.type == CUDA_R_16BF &&
      lb.type == CUDA_R_16BF && *static_cast<const float*>(alpha) == 1 &&
      (add == 0 || (add == 1 && c == d));
  if (!is_known || !IsAligned(a, la) || !IsAligned(b, lb) ||
      !IsAligned(d, ld) || !IsAligned(c, lc)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (const void* p : {a, b, c, static_cast<const void*>(d)}) {
    if (!IsDevicePointer(p)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (workspace_bytes != 0 && !IsDevicePointer(workspace)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return Enqueue(stream, [matmul] { matmul.Run(); }) == cudaSuccess
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}

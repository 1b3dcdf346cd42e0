#include "kernels/cuda/merger.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/error.h"

namespace lorikeet::cuda {
namespace {

constexpr int64_t kSliceBytes = int64_t{4} << 20;

// Where the rows begin in a slice: after the terms.
int64_t RowsAt(size_t terms) {
  return RoundUp(static_cast<int64_t>(terms * sizeof(MergeTermArgs)),
                 kVectorBytes);
}

}  // namespace

std::vector<MergeTermArgs> MergeArgsOf(std::span<const MergeTerm> terms,
                                       int64_t row_begin) {
  std::vector<MergeTermArgs> args;
  for (const MergeTerm& term : terms) {
    const CudaLora& lora = static_cast<const CudaLora&>(*term.weights);
    args.push_back({lora.a(), lora.b() + row_begin * lora.b_stride(),
                    static_cast<int32_t>(lora.rank()),
                    static_cast<int32_t>(lora.a_stride()),
                    static_cast<int32_t>(lora.b_stride()), term.scale});
  }
  return args;
}

absl::StatusOr<std::unique_ptr<Merger>> Merger::Create(MemoryPool& pool) {
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
               "a stream for merging"));
  std::unique_ptr<Merger> merger(new Merger(stream));
  MutexLock lock(&merger->mu_);
  ASSIGN_OR_RETURN(merger->device_, DeviceBuffer::Allocate(pool, kSliceBytes));
  ASSIGN_OR_RETURN(merger->pinned_, PinnedBuffer::Allocate(kSliceBytes));
  return merger;
}

Merger::~Merger() { cudaStreamDestroy(stream_); }

absl::Status Merger::Run(const CudaWeight& w, std::span<const MergeTerm> terms,
                         int64_t row_begin, Tensor out) {
  CHECK_EQ(out.cols, w.in_dim());
  CHECK_LE(row_begin + out.rows, w.out_dim());
  const int64_t row_bytes = w.rows().stride * int64_t{sizeof(float)};
  const int64_t at_once = (kSliceBytes - RowsAt(terms.size())) / row_bytes;
  CHECK_GT(at_once, 0);
  MutexLock lock(&mu_);
  for (int64_t first = 0; first < out.rows; first += at_once) {
    RETURN_IF_ERROR(
        RunSlice(w, terms, row_begin + first,
                 out.Rows(first, std::min(at_once, out.rows - first))));
  }
  return absl::OkStatus();
}

absl::Status Merger::RunSlice(const CudaWeight& w,
                              std::span<const MergeTerm> terms,
                              int64_t row_begin, Tensor out) {
  const std::vector<MergeTermArgs> args = MergeArgsOf(terms, row_begin);
  const int64_t term_bytes =
      static_cast<int64_t>(args.size() * sizeof(MergeTermArgs));
  const int64_t rows_at = RowsAt(terms.size());
  const Rows<const Bf16> from = w.rows(row_begin, row_begin + out.rows);
  const int64_t row_bytes = from.stride * int64_t{sizeof(float)};
  if (term_bytes > 0) {
    std::memcpy(pinned_.data(), args.data(), static_cast<size_t>(term_bytes));
    RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(device_.data(), pinned_.data(),
                                             static_cast<size_t>(term_bytes),
                                             cudaMemcpyHostToDevice, stream_),
                             "terms of a merge"));
  }
  const Rows<float> merged{reinterpret_cast<float*>(device_.data() + rows_at),
                           out.rows, from.cols, from.stride};
  RETURN_IF_ERROR(
      ToStatus(cuda::MergeRows(
                   from, reinterpret_cast<const MergeTermArgs*>(device_.data()),
                   static_cast<int32_t>(args.size()), nullptr, merged, stream_),
               "a merge"));
  RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(pinned_.data() + rows_at, merged.data,
                               static_cast<size_t>(out.rows * row_bytes),
                               cudaMemcpyDeviceToHost, stream_),
               "merged rows"));
  RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "a merge"));
  for (int64_t i = 0; i < out.rows; ++i) {
    std::memcpy(out.f32(i), pinned_.data() + rows_at + i * row_bytes,
                static_cast<size_t>(out.cols) * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace lorikeet::cuda

#include "tests/kernels/staged_call.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace lorikeet::testing {
namespace {

int64_t SpanBytes(const ConstTensor& t) {
  return ((t.rows - 1) * t.stride + t.cols) * SizeBytes(t.dtype);
}

}  // namespace

StagedCall::~StagedCall() {
  for (const Back& back : back_) {
    device_.CopyOut(back.from, back.to, back.size_bytes, stream_);
  }
  const absl::Status status = stream_.Sync();
  after_call_();  // first: findings say why a device failed
  CHECK(status.ok());
}

// Only the columns are copied: what lies between rows is not to be read.
ConstTensor StagedCall::In(ConstTensor t) {
  if (t.rows == 0) return t;
  char* const to = Place(t.data, SpanBytes(t));
  const int64_t element = SizeBytes(t.dtype);
  for (int64_t i = 0; i < t.rows; ++i) {
    device_.CopyIn(static_cast<const char*>(t.data) + i * t.stride * element,
                   to + i * t.stride * element, t.cols * element, stream_);
  }
  t.data = to;
  return t;
}

const float* StagedCall::In(const float* p, int64_t count) {
  if (p == nullptr) return nullptr;
  return static_cast<const float*>(
      In(ConstTensor(p, DType::kF32, 1, count, count)).data);
}

float* StagedCall::InOut(float* p, int64_t count) {
  return p == nullptr ? nullptr : InOut(Tensor::F32(p, 1, count)).f32(0);
}

PagedKvView StagedCall::Cache(PagedKvView kv, int64_t blocks) {
  const int64_t bytes = blocks * kv.block_stride * SizeBytes(kv.dtype);
  kv.k = Both(kv.k, bytes);
  kv.v = Both(kv.v, bytes);
  return kv;
}

Tensor StagedCall::Out(Tensor t, bool poison) {
  if (t.rows == 0) return t;
  const int64_t element = SizeBytes(t.dtype);
  for (int64_t i = 0; i < t.rows && poison; ++i) {
    std::memset(static_cast<char*>(t.data) + i * t.stride * element, 0xFF,
                static_cast<size_t>(t.cols * element));
  }
  t.data = Both(t.data, SpanBytes(t));
  return t;
}

void* StagedCall::Both(void* host, int64_t bytes) {
  char* const to = Place(host, bytes);
  device_.CopyIn(host, to, bytes, stream_);
  back_.push_back({to, host, bytes});
  return to;
}

char* StagedCall::Place(const void* host, int64_t bytes) {
  const int64_t offset =
      static_cast<int64_t>(reinterpret_cast<uintptr_t>(host) % 16);
  auto memory = device_.Allocate(bytes + offset);
  CHECK(memory.ok());
  memory_.push_back(*std::move(memory));
  return static_cast<char*>(memory_.back()->data()) + offset;
}

}  // namespace lorikeet::testing

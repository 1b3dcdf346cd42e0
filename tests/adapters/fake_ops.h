// FakeOps packs adapters and computes nothing: for tests of residency.
//
// Packing can be held at a gate, so that a test decides when a load goes on.
// Counts live slots, so that a test sees what was freed. Thread-safe.

#ifndef LORIKEET_TESTS_ADAPTERS_FAKE_OPS_H_
#define LORIKEET_TESTS_ADAPTERS_FAKE_OPS_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "kernels/ops.h"

namespace lorikeet::testing {

class FakeOps final : public Ops {
 public:
  // Keeps the values, so that use after free is seen by ASan.
  class Packed final : public PackedLora {
   public:
    Packed(FakeOps& ops, ConstTensor a, ConstTensor b)
        : ops_(ops),
          a_(Copy(a)),
          b_(Copy(b)),
          rank_(a.rows),
          in_(a.cols),
          out_(b.rows) {
      ++ops_.live;
    }
    ~Packed() override { --ops_.live; }
    int64_t rank() const override { return rank_; }
    int64_t in_dim() const override { return in_; }
    int64_t out_dim() const override { return out_; }
    int64_t size_bytes() const override {
      return static_cast<int64_t>((a_.size() + b_.size()) * sizeof(float));
    }
    const std::vector<float>& a() const { return a_; }

   private:
    static std::vector<float> Copy(ConstTensor t) {
      std::vector<float> values;
      for (int64_t i = 0; i < t.rows; ++i) {
        for (int64_t j = 0; j < t.cols; ++j) values.push_back(t.At(i, j));
      }
      return values;
    }
    FakeOps& ops_;
    const std::vector<float> a_, b_;
    const int64_t rank_, in_, out_;
  };

  std::atomic<int64_t> live{0};   // matrices pairs that are not freed
  std::atomic<int64_t> packs{0};  // PackLora calls

  void CloseGate() {
    MutexLock lock(&mu_);
    closed_ = true;
  }
  void OpenGate() {
    MutexLock lock(&mu_);
    closed_ = false;
    changed_.SignalAll();
  }
  // Waits until somebody packs and is held.
  void AwaitPacker() {
    MutexLock lock(&mu_);
    while (held_ == 0) changed_.Wait(&mu_);
  }

  std::unique_ptr<PackedLora> PackLora(ConstTensor a, ConstTensor b) override {
    ++packs;
    {
      MutexLock lock(&mu_);
      ++held_;
      changed_.SignalAll();
      while (closed_) changed_.Wait(&mu_);
      --held_;
    }
    return std::make_unique<Packed>(*this, a, b);
  }

  std::string Name() const override { return "fake"; }
  std::string Target() const override { return "none"; }
  std::unique_ptr<Stream> NewStream() override { return nullptr; }
  std::unique_ptr<PackedWeight> PackWeight(ConstTensor, DType) override {
    return nullptr;
  }
  void MergeRows(const PackedWeight&, std::span<const MergeTerm>, int64_t,
                 Tensor) const override {}
  void LoraLookup(LinearId, const LoraBatch&, std::span<const Token>, float*,
                  Stream&) override {}
  void ScaleColumns(const float*, const float*, Tensor, Stream&) override {}
  void ScatterColumns(ConstTensor, std::span<const int32_t>, Tensor,
                      Stream&) override {}
  void Embed(const PackedWeight&, std::span<const Token>, Tensor,
             Stream&) override {}
  void Gemm(ConstTensor, const PackedWeight&, const float*, Tensor,
            Stream&) override {}
  void RmsNorm(ConstTensor, const float*, float, Tensor, Stream&) override {}
  void Rope(Tensor, int64_t, const float*, const float*, Stream&) override {}
  void KvAppend(ConstTensor, ConstTensor, const PagedKvView&,
                std::span<const SequenceRows>, Stream&) override {}
  void KvCopy(const PagedKvView&, std::span<const std::pair<int32_t, int32_t>>,
              Stream&) override {}
  void GatherRows(ConstTensor, std::span<const int32_t>, Tensor,
                  Stream&) override {}
  void PagedAttention(ConstTensor, const PagedKvView&,
                      std::span<const SequenceRows>, float, int64_t, Tensor,
                      Stream&) override {}
  void SiluMul(ConstTensor, ConstTensor, Tensor, Stream&) override {}
  void ResidualAdd(ConstTensor, Tensor, Stream&) override {}
  void LoraShrink(LinearId, const LoraBatch&, ConstTensor, float*,
                  Stream&) override {}
  void LoraExpand(LinearId, const LoraBatch&, const float*, Tensor,
                  Stream&) override {}
  void Sample(Tensor, std::span<const SamplingRow>, std::span<SampledRow>,
              Stream&) override {}
  void Logprobs(ConstTensor, std::span<const Token>, int32_t,
                std::span<SampledRow>, Stream&) override {}

 private:
  Mutex mu_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  int held_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_ADAPTERS_FAKE_OPS_H_

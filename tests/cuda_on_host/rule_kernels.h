// One small kernel (or piece of host code) per rule of CUDA, right or with the
// fault that the rule forbids.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_RULE_KERNELS_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_RULE_KERNELS_H_

#include <string>
#include <vector>

namespace cuda_on_host {

struct Rule {
  std::string name;
  // Of the finding; a|b = which one depends on the schedule; "" = no finding
  // but an error code or wrong data.
  std::string kind;
  bool (*run)(bool is_faulty);  // whether all calls and the data were good
  bool needs_random_streams = false;
};

const std::vector<Rule>& Rules();

// Functions of device.h on known input; the answers of all lanes.
std::vector<float> RunMma(const std::vector<float>& a,
                          const std::vector<float>& b, float c);
std::vector<int> RunShuffles();  // [4 kinds][32 lanes], width 8
std::vector<int> RunTransposedLoad();

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_RULE_KERNELS_H_

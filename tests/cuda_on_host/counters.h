// Counts what a launch moves: the analytic model of its cost.
//
// Accesses of lanes are joined to requests of warps by (place in the source,
// occurrence), and each request is counted in sectors or wavefronts. Checked
// build only, and only with options().count.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_COUNTERS_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_COUNTERS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/cuda_on_host/scheduler.h"

namespace cuda_on_host {

// Null unless counting.
KernelCounters* CountersOf(const void* function);

void CountAccess(const Thread& t, uintptr_t address, size_t size, bool is_store,
                 bool is_shared, uint32_t site);
// The 32 row addresses of an ldmatrix.x4.
void CountMatrixRows(const Thread& t, void* const* rows, const Loc& loc);
void CountBlockEnd(const Block& block);
void CountLaunchEnd(const Kernel& kernel);

// The text of a site number (checker.cc).
std::string SiteName(uint32_t site);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_COUNTERS_H_

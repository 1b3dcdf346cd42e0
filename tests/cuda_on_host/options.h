// What a test can ask of the emulated device, and what the device answers:
// options, findings, counters.
//
// The device lives in a plug-in of its own, so that its runtime never shadows a
// real one; a test gets at it through Control. Not thread-safe.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_OPTIONS_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_OPTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cuda_on_host {

struct Options {
  // Which ready thread of a block runs next, and which block.
  enum class Schedule { kInOrder, kReverse, kRandom };
  // kEager: an operation runs when it is enqueued. kRandom: nothing runs until
  // the host waits, and then in a random order that streams and events allow.
  enum class Streams { kEager, kRandom };
  // Arithmetic of mma.sync: f32 sums, or as measured on A100 and H100.
  enum class Mma { kPlain, kAmpere, kHopper };

  Schedule schedule = Schedule::kInOrder;
  Streams streams = Streams::kEager;
  Mma mma = Mma::kPlain;
  uint64_t seed = 1;
  // Approximate intrinsics are off by up to their documented error.
  bool perturb = false;
  bool check_races = true;
  // Only the checked build can count.
  bool count = false;
  // What the device says of itself.
  int device_count = 1;
  int compute_capability = 90;
  int64_t memory_bytes = int64_t{12} << 30;
  // The launch after so many more fails as a fault of the device does; < 0 =
  // never.
  int64_t fault_after_launches = -1;
};

// A broken rule. `text` says what, where (file:line) and which threads.
struct Finding {
  std::string kind;
  std::string text;  // of the first time
  int count = 0;
};

// Accesses of one kind. A unit is a 32-byte sector of global memory or a
// wavefront (one pass over the 32 banks) of shared memory; `ideal` is the least
// number of units for the same bytes.
struct AccessCounters {
  uint64_t requests = 0;  // of warps
  uint64_t bytes = 0;
  uint64_t units = 0;
  uint64_t ideal = 0;
};

// All launches of one kernel since TakeCounters.
struct KernelCounters {
  uint64_t launches = 0;
  uint64_t blocks = 0;
  uint64_t barriers = 0;
  uint64_t mma = 0;
  uint64_t max_shared_bytes = 0;
  AccessCounters global_load, global_store, shared_load, shared_store;
  // Distinct 32-byte sectors per launch: what DRAM has to move.
  uint64_t footprint_load_bytes = 0;
  uint64_t footprint_store_bytes = 0;
  std::map<std::string, AccessCounters> sites;  // "global load 16B x.cu:17"
};

// What the plug-in exports under this name.
inline constexpr char kControlSymbol[] = "lorikeet_cuda_on_host_control";

struct Control {
  Options* options = nullptr;
  bool is_checked = false;
  std::vector<Finding> (*take_findings)() = nullptr;
  std::map<std::string, KernelCounters> (*take_counters)() = nullptr;
  // Forgets a fault, as a new process would.
  void (*reset_device)() = nullptr;
};

// Reads "schedule=random,seed=3,streams=random,mma=hopper,perturb=1", the value
// of $CUDA_ON_HOST. Unknown words end the program: a typo must not look like a
// passed test.
void ParseOptions(const char* text, Options* options);

Options& options();
std::vector<Finding> TakeFindings();
std::map<std::string, KernelCounters> TakeCounters();
void ResetDevice();

// For sub-allocators: a poisoned range of an allocation is out of bounds.
void MarkDeviceRange(const void* p, size_t size_bytes, bool is_poisoned);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_OPTIONS_H_

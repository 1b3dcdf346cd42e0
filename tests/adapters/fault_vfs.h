// A FaultVfs stands between SQLite and the disk as FaultFileSystem does for the
// rest: it counts writes, syncs and truncations, and at a chosen count it says
// that the disk is full, or ends the process.
//
// Becomes SQLite's default on Install, for the whole process. Thread-safe.

#ifndef LORIKEET_TESTS_ADAPTERS_FAULT_VFS_H_
#define LORIKEET_TESTS_ADAPTERS_FAULT_VFS_H_

#include <cstdint>

namespace lorikeet::testing {

class FaultVfs {
 public:
  static constexpr int64_t kNever = -1;
  enum class Fault { kFailOnce, kFailOnward, kExit };
  static constexpr int kExitStatus = 77;

  // May be called again.
  static void Install();
  // Starts to count anew.
  static void Arm(Fault fault, int64_t at);
  static void Disarm() { Arm(Fault::kFailOnce, kNever); }
  static int64_t count();
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_ADAPTERS_FAULT_VFS_H_

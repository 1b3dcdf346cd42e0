// CHECK ends the program with file, line and condition if a programmer broke a
// contract. Never for bytes that come from outside: those give a Status.
//
// Thread-safe.

#ifndef LORIKEET_BASE_CHECK_H_
#define LORIKEET_BASE_CHECK_H_

#include "absl/base/optimization.h"

namespace lorikeet {

// Prints "CHECK failed: `condition` at `file`:`line`" and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file,
                              int line);

}  // namespace lorikeet

#define CHECK(condition)                                       \
  do {                                                         \
    if (ABSL_PREDICT_FALSE(!(condition))) {                    \
      ::lorikeet::CheckFailed(#condition, __FILE__, __LINE__); \
    }                                                          \
  } while (false)
#define CHECK_EQ(a, b) CHECK((a) == (b))
#define CHECK_NE(a, b) CHECK((a) != (b))
#define CHECK_LT(a, b) CHECK((a) < (b))
#define CHECK_LE(a, b) CHECK((a) <= (b))
#define CHECK_GT(a, b) CHECK((a) > (b))
#define CHECK_GE(a, b) CHECK((a) >= (b))

#endif  // LORIKEET_BASE_CHECK_H_

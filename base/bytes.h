// Little-endian reads and writes of plain integers in byte arrays.
//
// Pure.

#ifndef LORIKEET_BASE_BYTES_H_
#define LORIKEET_BASE_BYTES_H_

#include <cstdint>
#include <cstring>

namespace lorikeet {

// The formats we read are little-endian, and so are the machines we build for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

template <typename T>
T LoadLittleEndian(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void StoreLittleEndian(T value, void* to) {
  std::memcpy(to, &value, sizeof(T));
}

}  // namespace lorikeet

#endif  // LORIKEET_BASE_BYTES_H_

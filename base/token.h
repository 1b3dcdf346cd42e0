// A Token is an index into the model's vocabulary, in [0, vocab_size).

#ifndef LORIKEET_BASE_TOKEN_H_
#define LORIKEET_BASE_TOKEN_H_

#include <cstdint>

namespace lorikeet {

using Token = int32_t;

}  // namespace lorikeet

#endif  // LORIKEET_BASE_TOKEN_H_

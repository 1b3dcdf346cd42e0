// Fills in what the use cases know of the base model from a loaded Runtime.

#ifndef LORIKEET_SERVER_MODEL_INFO_H_
#define LORIKEET_SERVER_MODEL_INFO_H_

#include <string>

#include "server/frontend/model_info.h"
#include "server/runtime.h"

namespace lorikeet {

// `id` is the task tag of the base model. REQUIRES: runtime has an engine.
ModelInfo MakeModelInfo(const Runtime& runtime, const std::string& id);

// The last part of the model's directory: the task tag if none is given.
std::string DefaultModelName(const std::string& dir);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_MODEL_INFO_H_

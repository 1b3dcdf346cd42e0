#include "adapters/adapter_info.h"

namespace lorikeet {

const char* Name(Tier tier) {
  switch (tier) {
    case Tier::kDisk:
      return "disk";
    case Tier::kHost:
      return "host";
    case Tier::kDevice:
      return "device";
  }
  return "unknown";
}

const char* Name(AdapterState state) {
  switch (state) {
    case AdapterState::kLoading:
      return "loading";
    case AdapterState::kActive:
      return "active";
    case AdapterState::kDraining:
      return "draining";
    case AdapterState::kFailed:
      return "failed";
    case AdapterState::kIncompatible:
      return "incompatible";
  }
  return "unknown";
}

}  // namespace lorikeet

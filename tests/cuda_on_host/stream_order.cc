#include "tests/cuda_on_host/stream_order.h"

#include <algorithm>

namespace cuda_on_host {
namespace {

struct Place {
  size_t stream;
  uint32_t number;
};

struct Order {
  RunningOperation running;
  std::vector<Place> places = std::vector<Place>(1);  // by id; 0 = nobody
};

Order& O() {
  static auto* const order = new Order();
  return *order;
}

}  // namespace

void Join(const StreamClock& from, StreamClock* to) {
  if (to->size() < from.size()) to->resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    (*to)[i] = std::max((*to)[i], from[i]);
  }
}

void BeginOperation(const RunningOperation& operation) {
  O().running = operation;
}

uint32_t NewOperationId() {
  Order& o = O();
  o.places.push_back({o.running.stream, o.running.number});
  return static_cast<uint32_t>(o.places.size() - 1);
}

uint32_t CurrentOperationId() {
  return static_cast<uint32_t>(O().places.size() - 1);
}

bool IsOperationBefore(uint32_t past) {
  const Order& o = O();
  const Place& place = o.places[past];
  if (past == 0) return true;
  if (place.stream == o.running.stream) return true;  // of one stream: in order
  return place.stream < o.running.before.size() &&
         place.number <= o.running.before[place.stream];
}

}  // namespace cuda_on_host

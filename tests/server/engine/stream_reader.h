// Reads a whole stream, waiting for it through its callback.
//
// Thread-compatible.

#ifndef LORIKEET_TESTS_SERVER_ENGINE_STREAM_READER_H_
#define LORIKEET_TESTS_SERVER_ENGINE_STREAM_READER_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/mutex.h"
#include "server/engine/engine.h"

namespace lorikeet::testing {

// All that a stream said, by candidate.
struct Answer {
  StartedEvent started;
  std::map<int32_t, std::string> text;
  std::map<int32_t, std::vector<Token>> tokens;
  std::map<int32_t, std::vector<TokenLogprobs>> logprobs;
  std::map<int32_t, FinishedEvent> finished;
  absl::Status status;

  void Add(StreamEvent event) {
    if (auto* s = std::get_if<StartedEvent>(&event)) {
      started = std::move(*s);
    } else if (auto* d = std::get_if<DeltaEvent>(&event)) {
      text[d->candidate] += d->text;
      auto& t = tokens[d->candidate];
      t.insert(t.end(), d->tokens.begin(), d->tokens.end());
      for (auto& l : d->logprobs) logprobs[d->candidate].push_back(l);
    } else {
      auto& f = std::get<FinishedEvent>(event);
      finished[f.candidate] = f;
    }
  }
};

// Waits until `stream` is done.
inline Answer ReadAll(const std::shared_ptr<TokenStream>& stream) {
  Mutex mu;
  CondVar changed;
  bool has_news = false;
  stream->SetCallback([&] {
    MutexLock lock(&mu);
    has_news = true;
    changed.Signal();
  });
  Answer answer;
  while (true) {
    while (auto event = stream->Next()) answer.Add(std::move(*event));
    if (stream->done()) break;
    MutexLock lock(&mu);
    while (!has_news) changed.Wait(&mu);
    has_news = false;
  }
  stream->SetCallback(nullptr);
  answer.status = stream->status();
  return answer;
}

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_SERVER_ENGINE_STREAM_READER_H_

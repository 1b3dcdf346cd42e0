#include "adapters/event_log.h"

#include <gtest/gtest.h>

#include "base/background_queue.h"

namespace lorikeet {
namespace {

using Kind = AdapterEvent::Kind;

AdapterInfo Named(const std::string& name) {
  AdapterInfo info;
  info.name = name;
  return info;
}

TEST(EventLogTest, GivesEventsAfterASequence) {
  EventLog log(100, 10);
  EXPECT_EQ(log.last(), 100u);
  log.Add(Kind::kAdded, Named("a"));
  log.Add(Kind::kModified, Named("b"));
  const auto events = log.Wait(101, absl::ZeroDuration());
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 1u);
  EXPECT_EQ((*events)[0].sequence, 102u);
  EXPECT_EQ((*events)[0].adapter.name, "b");
  EXPECT_TRUE(log.Wait(102, absl::ZeroDuration())->empty());
  EXPECT_EQ(log.Wait(0, absl::ZeroDuration())->size(), 2u);
}

TEST(EventLogTest, SaysWhenItHasForgotten) {
  EventLog log(0, 2);
  for (int i = 0; i < 5; ++i) log.Add(Kind::kAdded, Named("a"));
  EXPECT_EQ(log.Wait(2, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(log.Wait(0, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(log.Wait(3, absl::ZeroDuration())->size(), 2u);
  // Of another process, or invented.
  EXPECT_EQ(log.Wait(6, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST(EventLogTest, WakesWhoWaits) {
  EventLog log(0, 10);
  absl::StatusOr<std::vector<AdapterEvent>> events;
  {
    BackgroundThread waiter("waiter", [&] {
      do {  // a wait may end early
        events = log.Wait(0, absl::Seconds(60));
      } while (events.ok() && events->empty());
    });
    log.Add(Kind::kDeleted, Named("a"));
  }
  ASSERT_TRUE(events.ok());
  EXPECT_EQ((*events)[0].kind, Kind::kDeleted);
}

}  // namespace
}  // namespace lorikeet

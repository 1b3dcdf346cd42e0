#include "server/engine/adapter_residency.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/engine/fake_adapter_store.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class AdapterResidencyTest : public ::testing::Test {
 protected:
  AdapterResidencyTest() { store_.SetLoadOnPrefetch(false); }

  testing::FakeAdapterStore store_{2};
  const AdapterKey a_ = store_.AddAdapter("a")->key;
  const AdapterKey b_ = store_.AddAdapter("b")->key;
  const AdapterKey c_ = store_.AddAdapter("c")->key;
  AdapterResidency residency_{store_};
};

TEST_F(AdapterResidencyTest, LeasesWhatItSaysIsResident) {
  store_.Load(a_);
  EXPECT_TRUE(residency_.IsResident(a_));
  EXPECT_FALSE(residency_.IsResident(b_));
  EXPECT_TRUE(residency_.IsLeased(a_));
  EXPECT_EQ(store_.num_leased(), 1);
}

TEST_F(AdapterResidencyTest, KeepsTheLeasesOfWhatIsInUseOnly) {
  store_.Load(a_);
  store_.Load(b_);
  residency_.IsResident(a_);
  residency_.IsResident(b_);
  residency_.Finish(std::vector{a_}, {});
  EXPECT_TRUE(residency_.IsLeased(a_));
  EXPECT_FALSE(residency_.IsLeased(b_));
  EXPECT_EQ(store_.num_leased(), 1);
}

TEST_F(AdapterResidencyTest, HasRoomWhileASlotIsNotInUse) {
  store_.Load(a_);
  store_.Load(b_);
  residency_.IsResident(a_);
  residency_.IsResident(b_);
  residency_.Begin(std::vector{a_});
  EXPECT_TRUE(residency_.HasRoomFor(std::vector{c_}));
  residency_.Begin(std::vector{a_, b_});
  EXPECT_FALSE(residency_.HasRoomFor(std::vector{c_}));
  EXPECT_TRUE(residency_.HasRoomFor(std::vector{b_}));
}

TEST_F(AdapterResidencyTest, HasRoomForAllOfACompositionOrForNone) {
  store_.Load(a_);
  residency_.IsResident(a_);
  residency_.Begin(std::vector{a_});
  EXPECT_TRUE(residency_.HasRoomFor(std::vector{a_, c_}));
  EXPECT_FALSE(residency_.HasRoomFor(std::vector{b_, c_}));
  residency_.Begin({});
  EXPECT_TRUE(residency_.HasRoomFor(std::vector{b_, c_}));
  EXPECT_FALSE(residency_.HasRoomFor(std::vector{a_, b_, c_}));
}

TEST_F(AdapterResidencyTest, AsksForWhatFitsBesideWhatIsInUse) {
  store_.Load(a_);
  residency_.IsResident(a_);
  EXPECT_THAT(residency_.Finish(std::vector{a_}, std::vector{c_, b_}),
              IsEmpty());
  EXPECT_THAT(store_.prefetched(), ElementsAre("c"));
}

// A request of both waits: the load of one must not push out the other.
TEST_F(AdapterResidencyTest, KeepsTheLeaseOfWhatWaitsForALessUrgentOne) {
  store_.Load(a_);
  residency_.IsResident(a_);
  residency_.Finish({}, std::vector{a_, c_});
  EXPECT_TRUE(residency_.IsLeased(a_));
  EXPECT_THAT(store_.prefetched(), ElementsAre("c"));
  residency_.Finish({}, {});  // nobody wants it any more
  EXPECT_FALSE(residency_.IsLeased(a_));
  EXPECT_EQ(store_.num_leased(), 0);
}

TEST_F(AdapterResidencyTest, LetsGoWhatIsLessUrgentThanWhatIsMissing) {
  store_.Load(a_);
  residency_.IsResident(a_);
  residency_.Finish({}, std::vector{c_, a_});
  EXPECT_FALSE(residency_.IsLeased(a_));
}

TEST_F(AdapterResidencyTest, HintsAtWhatComesAfterThat) {
  store_.Load(a_);
  residency_.IsResident(a_);
  residency_.Finish(std::vector{a_}, std::vector{c_, b_});
  EXPECT_THAT(store_.hinted(), ElementsAre("b"));
}

TEST_F(AdapterResidencyTest, TellsOfAFailedLoad) {
  EXPECT_THAT(residency_.Finish({}, std::vector{a_}), IsEmpty());
  store_.FailLoad(a_, absl::DataLossError("damaged"));
  const auto failed = residency_.Finish({}, std::vector{a_});
  ASSERT_THAT(failed, SizeIs(1));
  EXPECT_EQ(failed[0].first, a_);
  EXPECT_EQ(failed[0].second, absl::DataLossError("damaged"));
}

}  // namespace
}  // namespace lorikeet

#include "base/status.h"

#include <string>

#include "base/reason.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

absl::Status Fails() { return absl::NotFoundError("no such thing"); }
absl::StatusOr<std::string> Gives(bool ok) {
  if (!ok) return Fails();
  return std::string("thing");
}

absl::StatusOr<size_t> Uses(bool ok) {
  ASSIGN_OR_RETURN(const std::string thing, Gives(ok));
  RETURN_IF_ERROR(absl::OkStatus());
  return thing.size();
}

TEST(StatusTest, MacrosPassErrorsOn) {
  EXPECT_EQ(Uses(true).value(), 5u);
  EXPECT_EQ(Uses(false).status(), Fails());
}

TEST(StatusTest, AnnotateKeepsCodeAndPayloads) {
  const absl::Status status =
      Annotate(WithReason(Fails(), "THING_NOT_FOUND"), "adapter \"x\"");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "adapter \"x\": no such thing");
  EXPECT_EQ(ReasonOf(status), "THING_NOT_FOUND");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(ReasonTest, AReasonReplacesAnEarlierOneAndADefaultDoesNot) {
  const absl::Status status = WithReason(Fails(), "FIRST");
  EXPECT_EQ(ReasonOf(WithReason(status, "SECOND")), "SECOND");
  EXPECT_EQ(ReasonOf(WithDefaultReason(status, "SECOND")), "FIRST");
  EXPECT_EQ(ReasonOf(WithDefaultReason(Fails(), "SECOND")), "SECOND");
  EXPECT_EQ(ReasonOf(Fails()), "");
  EXPECT_TRUE(WithReason(absl::OkStatus(), "ANY").ok());
}

}  // namespace
}  // namespace lorikeet

#include "server/training/job_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet {
namespace {

JobRecord Full() {
  JobRecord r;
  r.id = "job-17";
  r.tenant = "default";
  r.adapter = "dates";
  r.options.rank = 3;
  r.options.alpha = 6.5;
  r.options.target_modules = {"q_proj", "v_proj"};
  r.options.use_dora = true;
  r.options.dropout = 0.1;
  r.options.decay = Schedule::Decay::kCosine;
  r.options.epochs = 2;
  r.options.token_budget = 96;
  r.options.seed = ~uint64_t{0} >> 1;
  r.options.learn_all = true;
  r.has_eval = true;
  r.canary = JobCanary{"when", 5};
  r.state = JobState::kFailed;
  r.error = absl::AbortedError("loss is NaN");
  r.version = 4;
  r.create_time = absl::FromUnixMicros(1234567);
  r.end_time = absl::FromUnixMicros(2345678);
  r.examples = 9;
  r.num_steps = 8;
  r.steps_done = 7;
  r.loss = 0.125;
  r.eval_loss = 0.25;
  r.eval_exact_match = 0.5;
  return r;
}

TEST(JobRecordTest, WhatIsWrittenIsReadAgain) {
  JobRecord plain;
  plain.id = "job-1";
  plain.options.steps = 5;
  for (const JobRecord& record : {Full(), plain}) {
    const Json json = record.ToJson();
    const auto text = Json::Parse(json.Dump(2));
    ASSERT_TRUE(text.ok());
    const auto read = JobRecord::FromJson(*text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->ToJson(), json);
    EXPECT_EQ(read->error, record.error);
    EXPECT_EQ(read->options.seed, record.options.seed);
  }
}

TEST(JobRecordTest, AWrongMemberIsNamed) {
  Json json = Full().ToJson();
  json.Set("state", "sleeping");
  EXPECT_THAT(std::string(JobRecord::FromJson(json).status().message()),
              ::testing::HasSubstr("\"state\""));
  json = Full().ToJson();
  json.Set("steps_done", "many");
  EXPECT_THAT(std::string(JobRecord::FromJson(json).status().message()),
              ::testing::HasSubstr("\"steps_done\""));
  EXPECT_FALSE(JobRecord::FromJson(Json(3)).ok());
}

}  // namespace
}  // namespace lorikeet

// Defaults and limits of a request; what each bad field answers over the wire
// is in tests/server/grpc/generate_rpc_test.cc.

#include "server/frontend/generate_request.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

ModelInfo TestModel() {
  ModelInfo model;
  model.id = "base";
  model.vocab_size = 100;
  model.max_model_len = 32;
  model.max_num_seqs = 8;
  model.eos_tokens = {2};
  model.sampling.temperature = 0.5f;
  model.sampling.top_k = 40;
  return model;
}

absl::StatusOr<EngineRequest> Build(const GenerateInput& input,
                                    size_t prompt_tokens = 4) {
  return BuildEngineRequest(input, std::vector<Token>(prompt_tokens, 7),
                            TestModel());
}

TEST(BuildEngineRequest, FillsInTheModelsDefaults) {
  const auto request = Build(GenerateInput());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0.5f);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.n, 1);
  EXPECT_EQ(request->stop.max_tokens, 28) << "all that is left";
  EXPECT_EQ(request->stop.min_tokens, 0);
  EXPECT_EQ(request->stop.eos_tokens, (std::vector<Token>{2}));
  EXPECT_EQ(request->output.num_logprobs, -1);
  EXPECT_TRUE(request->output.text);
  // Without a seed two requests differ.
  EXPECT_NE(request->sampling.seed, Build(GenerateInput())->sampling.seed);
}

TEST(BuildEngineRequest, TakesWhatIsGiven) {
  GenerateInput input;
  input.sampling.temperature = 0;
  input.sampling.top_k = -1;
  input.sampling.seed = 9;
  input.sampling.n = 8;
  input.sampling.logit_bias = {{5, 1.0f}, {3, -100.0f}};
  input.stop.max_tokens = 28;
  input.stop.min_tokens = 28;
  input.stop.ignore_eos = true;
  input.output.logprobs = 0;
  const auto request = Build(input);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.top_k, 0) << "off";
  EXPECT_EQ(request->sampling.seed, 9u);
  EXPECT_EQ(request->sampling.n, 8);
  EXPECT_EQ(request->sampling.logit_bias.front().first, 3) << "sorted";
  EXPECT_EQ(request->stop.max_tokens, 28);
  EXPECT_TRUE(request->stop.eos_tokens.empty());
  EXPECT_EQ(request->output.num_logprobs, 0);
}

TEST(BuildEngineRequest, BoundsCandidatesByTheServer) {
  GenerateInput input;
  input.sampling.n = 9;
  const absl::Status status = Build(input).status();
  EXPECT_EQ(status.message(), "sampling.n 9 is not in [1, 8]");
  EXPECT_EQ(FieldOf(status), "sampling.n");
}

TEST(BuildEngineRequest, TellsHowMuchDoesNotFit) {
  GenerateInput input;
  EXPECT_EQ(ReasonOf(Build(input, 32).status()), "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_EQ(ReasonOf(Build(input, 33).status()), "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_TRUE(Build(input, 31).ok());
  input.stop.max_tokens = 29;
  const absl::Status status = Build(input).status();
  EXPECT_EQ(status.message(),
            "stop.max_tokens does not fit: the prompt's 4 tokens and "
            "stop.max_tokens 29 exceed max_model_len 32");
  input.stop.max_tokens = UINT32_MAX;
  EXPECT_EQ(ReasonOf(Build(input).status()), "CONTEXT_LENGTH_EXCEEDED");
}

TEST(BuildEngineRequest, RefusesAnEmptyPrompt) {
  EXPECT_EQ(ReasonOf(Build(GenerateInput(), 0).status()), "PROMPT_EMPTY");
}

TEST(CheckLabels, BoundsCountAndLength) {
  EXPECT_TRUE(CheckLabels("labels", {{"a", "b"}}).ok());
  EXPECT_FALSE(CheckLabels("labels", {{"", "b"}}).ok());
  EXPECT_FALSE(CheckLabels("labels", {{std::string(64, 'k'), "b"}}).ok());
  EXPECT_FALSE(CheckLabels("labels", {{"a", std::string(256, 'v')}}).ok());
  EXPECT_FALSE(CheckLabels("labels", {{"a", "\xff"}}).ok());
}

}  // namespace
}  // namespace lorikeet

// Generate, GenerateUnary, Tokenize, Detokenize and ListModels against a server
// with the demo model.

#include <future>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/grpc/demo_server.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kVocabSize = 350;
constexpr uint32_t kMaxModelLen = 1024;

void ExpectMatches(const DemoCase& expected, const Answer& answer) {
  ASSERT_TRUE(answer.status.ok())
      << expected.task << ": " << answer.status.error_message();
  ASSERT_EQ(answer.candidates.size(), 1u);
  EXPECT_EQ(answer.text(), expected.text) << expected.task;
  EXPECT_EQ(answer.ids(), expected.ids) << expected.task;
  EXPECT_EQ(answer.reason(), expected.reason) << expected.task;
  if (expected.task == "base") {
    EXPECT_EQ(answer.started.adapter(), "");
    EXPECT_EQ(answer.started.adapter_version(), 0u);
    EXPECT_EQ(answer.started.adapter_revision(), "");
  } else {
    EXPECT_EQ(answer.started.adapter(),
              absl::StrCat("tenants/default/adapters/", expected.task));
    EXPECT_EQ(answer.started.adapter_version(), 1u);
    EXPECT_EQ(answer.started.adapter_revision().size(), 64u);
  }
  const v1::Usage& usage = answer.candidates[0].finished().usage();
  EXPECT_EQ(usage.prompt_tokens(), answer.started.prompt_tokens());
  EXPECT_GE(usage.completion_tokens(), expected.ids.size());
}

TEST(GenerateRpc, AllTasksAtOnceMatchTheGoldens) {
  DemoServer demo;
  demo.RegisterAll();
  const std::vector<DemoCase> cases = DemoCases(4);
  ASSERT_GE(cases.size(), 20u);
  std::vector<std::future<Answer>> streams, unaries;
  for (const DemoCase& c : cases) {
    streams.push_back(std::async(std::launch::async, [&] {
      return demo.Stream(TextRequest(c.task, c.prompt, c.max_tokens));
    }));
    unaries.push_back(std::async(std::launch::async, [&] {
      return demo.Unary(TextRequest(c.task, c.prompt, c.max_tokens));
    }));
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    ExpectMatches(cases[i], streams[i].get());
    ExpectMatches(cases[i], unaries[i].get());
  }
  EXPECT_TRUE(demo.BecomesIdle());
}

TEST(GenerateRpc, ASwapLeavesARunningStreamOnItsVersion) {
  DemoServer demo;
  demo.RegisterAll();
  const v1::GenerateRequest request = LongRequest("caesar", 200);
  const Answer undisturbed = demo.Stream(request);
  ASSERT_TRUE(undisturbed.status.ok()) << undisturbed.status.error_message();

  // A stream that has begun, then the update, then the rest of the stream.
  grpc::ClientContext context;
  const auto reader = demo.inference().Generate(&context, request);
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const v1::GenerationStarted started = event.started();
  ASSERT_TRUE(reader->Read(&event));
  std::string text = event.delta().text();

  v1::UpdateAdapterRequest update;
  update.mutable_adapter()->set_name("tenants/default/adapters/caesar");
  update.mutable_adapter()->mutable_source()->set_local_path(
      DemoDir() + "/adapters-v2/caesar");
  grpc::ClientContext update_context;
  v1::Adapter updated;
  const grpc::Status status =
      demo.adapters().UpdateAdapter(&update_context, update, &updated);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(updated.version(), 2u);
  EXPECT_NE(updated.revision(), started.adapter_revision());

  for (const DemoCase& c : CaesarUpdateCases()) {
    const Answer answer =
        demo.Stream(TextRequest("caesar", c.prompt, c.max_tokens));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.text(), c.text);
    EXPECT_EQ(answer.started.adapter_revision(), updated.revision());
    EXPECT_EQ(answer.started.adapter_version(), 2u);
  }

  while (reader->Read(&event)) text += event.delta().text();
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, undisturbed.text());
  EXPECT_EQ(started.adapter_revision(), undisturbed.started.adapter_revision());

  // The old version has a name, and so has its content.
  for (const std::string& task :
       {std::string("caesar@1"),
        absl::StrCat("default/caesar@sha256:", started.adapter_revision())}) {
    const Answer old = demo.Stream(TextRequest(task, "Word: parrot\nAnswer:"));
    ASSERT_TRUE(old.status.ok()) << task << ": " << old.status.error_message();
    EXPECT_EQ(old.text(), " sduurw") << task;
    EXPECT_EQ(old.started.adapter_revision(), started.adapter_revision());
  }
}

v1::GenerateRequest PartsRequest(
    const std::vector<std::pair<std::string, float>>& parts) {
  v1::GenerateRequest request = TextRequest("", "Word: parrot\nAnswer:");
  for (const auto& [name, scale] : parts) {
    v1::AdapterPart& part = *request.add_adapters();
    part.set_name(name);
    part.set_scale(scale);
  }
  return request;
}

TEST(GenerateRpc, AdaptersAreSummedAndNamedInTheAnswer) {
  DemoServer demo;
  demo.RegisterAll();
  const Answer sum = demo.Stream(PartsRequest({{"reverse", 0}, {"upper", 1}}));
  ASSERT_TRUE(sum.status.ok()) << sum.status.error_message();
  EXPECT_EQ(sum.text(), " PARROT") << "at scale 0 an adapter adds nothing";
  EXPECT_EQ(sum.started.adapter(), "");
  ASSERT_EQ(sum.started.adapters_size(), 2);
  EXPECT_EQ(sum.started.adapters(0).adapter(),
            "tenants/default/adapters/reverse");
  EXPECT_EQ(sum.started.adapters(0).scale(), 0);
  EXPECT_EQ(sum.started.adapters(1).version(), 1u);
  EXPECT_EQ(sum.started.adapters(1).revision().size(), 64u);

  // One part without a scale is the adapter itself, cache and all.
  const Answer alone =
      demo.Stream(TextRequest("upper", "Word: parrot\nAnswer:"));
  v1::GenerateRequest one = PartsRequest({});
  one.add_adapters()->set_name("upper@1");
  const Answer part = demo.Unary(one);
  ASSERT_TRUE(part.status.ok()) << part.status.error_message();
  EXPECT_EQ(part.ids(), alone.ids());
  EXPECT_EQ(part.started.adapter(), alone.started.adapter());
  EXPECT_EQ(part.started.adapters_size(), 1);
  EXPECT_EQ(alone.started.adapters_size(), 0);
}

TEST(GenerateRpc, CompositionsThatCannotBeAreRefusedByField) {
  DemoServer demo([](ServerOptions* o) { o->max_lora_rank = 20; });
  demo.RegisterAll();
  const auto details = [&](const v1::GenerateRequest& request) {
    const Answer answer = demo.Stream(request);
    EXPECT_FALSE(answer.status.ok());
    return DetailsOf(answer.status);
  };
  EXPECT_EQ(details(PartsRequest({{"upper", 1}, {"nobody", 1}})).field,
            "adapters[1].name");
  EXPECT_EQ(details(PartsRequest({{"upper", 1}, {"nobody", 1}})).reason,
            "ADAPTER_NOT_FOUND");
  EXPECT_EQ(details(PartsRequest({{"base", 1}})).field, "adapters[0].name");
  EXPECT_EQ(details(PartsRequest({{"upper", 1e9f}})).field,
            "adapters[0].scale");
  // sort has rank 16, reverse 8.
  EXPECT_EQ(details(PartsRequest({{"sort", 1}, {"reverse", 1}})).reason,
            "COMPOSITION_TOO_LARGE");
  v1::GenerateRequest both = PartsRequest({{"upper", 1}});
  both.set_task("upper");
  EXPECT_EQ(details(both).field, "task");
  EXPECT_EQ(details(PartsRequest({})).reason, "TASK_MISSING");
}

TEST(GenerateRpc, SamplesTheSameForTheSameSeedWhateverElseRuns) {
  DemoServer demo;
  v1::GenerateRequest request = LongRequest("base", 40);
  request.mutable_sampling()->set_temperature(1.5);
  request.mutable_sampling()->set_seed(7);
  request.mutable_sampling()->set_n(3);
  const Answer alone = demo.Unary(request);
  ASSERT_TRUE(alone.status.ok()) << alone.status.error_message();
  ASSERT_EQ(alone.candidates.size(), 3u);
  std::set<std::string> texts;
  for (const v1::Candidate& candidate : alone.candidates) {
    texts.insert(candidate.output().text());
    EXPECT_EQ(candidate.finished().usage().completion_tokens(), 40u);
  }
  EXPECT_GT(texts.size(), 1u) << "candidates differ";
  std::vector<std::future<Answer>> others;
  for (int i = 0; i < 4; ++i) {
    others.push_back(
        std::async(std::launch::async, [&] { return demo.Stream(request); }));
  }
  for (std::future<Answer>& other : others) {
    const Answer answer = other.get();
    ASSERT_EQ(answer.candidates.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(answer.candidates[i].output().text(),
                alone.candidates[i].output().text());
    }
  }
}

TEST(GenerateRpc, SendsLogprobsAndPromptLogprobs) {
  DemoServer demo;
  v1::GenerateRequest request = TextRequest("base", "Word: fox\nAnswer:");
  request.mutable_output()->set_logprobs(2);
  request.mutable_output()->set_prompt_logprobs(0);
  const Answer answer = demo.Unary(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.started.prompt_logprobs_size(),
            static_cast<int>(answer.started.prompt_tokens()) - 1);
  const v1::TokenDelta& output = answer.candidates[0].output();
  ASSERT_EQ(output.logprobs_size(), output.token_ids_size());
  for (int i = 0; i < output.logprobs_size(); ++i) {
    const v1::TokenLogprob& logprob = output.logprobs(i);
    EXPECT_EQ(logprob.token_id(), output.token_ids(i));
    EXPECT_LE(logprob.logprob(), 0);
    ASSERT_EQ(logprob.top_size(), 2);
    EXPECT_EQ(logprob.top(0).token_id(), logprob.token_id()) << "greedy";
    EXPECT_GE(logprob.top(0).logprob(), logprob.top(1).logprob());
    EXPECT_FALSE(logprob.token_bytes().empty());
  }
}

TEST(GenerateRpc, StopsWhereItIsToldTo) {
  DemoServer demo;
  v1::GenerateRequest request = LongRequest("base", 60);
  request.set_text("The rainbow lorikeet");
  request.mutable_stop()->add_stop("bright");
  Answer answer = demo.Stream(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text(), " is a small parrot with a ");
  EXPECT_EQ(answer.reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.candidates[0].finished().matched_stop_str(), "bright");

  request.mutable_stop()->set_include_stop_str_in_output(true);
  EXPECT_EQ(demo.Stream(request).text(), " is a small parrot with a bright");

  request.mutable_stop()->clear_stop();
  request.mutable_stop()->set_max_tokens(3);
  request.mutable_output()->set_omit_text(true);
  answer = demo.Stream(request);
  EXPECT_EQ(answer.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.text(), "");
  EXPECT_EQ(answer.ids().size(), 3u);
}

TEST(GenerateRpc, DefaultsComeFromTheModel) {
  DemoServer demo;
  v1::GenerateRequest request;  // no sampling, no stop
  request.set_task("base");
  request.set_text("Word: fox\nAnswer:");
  const Answer answer = demo.Unary(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text(), " Unknown.") << "greedy, up to the end token";
}

TEST(GenerateRpc, EchoesTheRequestId) {
  DemoServer demo;
  v1::GenerateRequest request = TextRequest("base", "Word: fox\nAnswer:");
  request.set_request_id("abc-1");
  Answer answer = demo.Stream(request);
  EXPECT_EQ(answer.request_id, "abc-1");
  EXPECT_EQ(answer.started.request_id(), "abc-1");
  request.clear_request_id();
  answer = demo.Unary(request);
  EXPECT_NE(answer.request_id, "");
  EXPECT_EQ(answer.started.request_id(), answer.request_id);
  request.set_request_id("two words");
  answer = demo.Unary(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(answer.status).field, "request_id");
}

TEST(GenerateRpc, ServesAnAdapterThatWasNeverLoadedBefore) {
  DemoServer demo([](ServerOptions* options) { options->max_loras = 2; });
  demo.RegisterAll();
  // More adapters at once than there are slots: they take turns.
  const std::vector<DemoCase> cases = DemoCases(1);
  std::vector<std::future<Answer>> answers;
  for (const DemoCase& c : cases) {
    answers.push_back(std::async(std::launch::async, [&] {
      return demo.Stream(TextRequest(c.task, c.prompt, c.max_tokens));
    }));
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    ExpectMatches(cases[i], answers[i].get());
  }
  EXPECT_GT(demo.Load().adapter_evictions(), 0u);
}

// ---- what is refused -------------------------------------------------------

struct BadRequestCase {
  const char* what;
  std::function<void(v1::GenerateRequest*)> change;
  grpc::StatusCode code;
  const char* reason;
  const char* field;
  std::vector<std::string> message;  // parts of it: field, value, limit
};

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

std::vector<BadRequestCase> BadRequests() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto sampling = [](auto set) {
    return [set](v1::GenerateRequest* r) { set(r->mutable_sampling()); };
  };
  const auto stop = [](auto set) {
    return [set](v1::GenerateRequest* r) { set(r->mutable_stop()); };
  };
  const auto output = [](auto set) {
    return [set](v1::GenerateRequest* r) { set(r->mutable_output()); };
  };
  const auto task = [](const char* name) {
    return [name](v1::GenerateRequest* r) { r->set_task(name); };
  };
  return {
      {"unknown task",
       task("nobody"),
       grpc::StatusCode::NOT_FOUND,
       "ADAPTER_NOT_FOUND",
       "task",
       {"nobody"}},
      {"unknown version",
       task("reverse@9"),
       grpc::StatusCode::NOT_FOUND,
       "ADAPTER_NOT_FOUND",
       "task",
       {"reverse@9"}},
      {"other tenant",
       task("acme/reverse"),
       grpc::StatusCode::NOT_FOUND,
       "ADAPTER_NOT_FOUND",
       "task",
       {"acme/reverse"}},
      {"base with version",
       task("base@1"),
       grpc::StatusCode::NOT_FOUND,
       "ADAPTER_NOT_FOUND",
       "task",
       {"base@1"}},
      {"empty task", task(""), kInvalid, "TASK_MISSING", "task", {"task"}},
      {"bad task", task("a b"), kInvalid, "INVALID_TASK", "task", {"a b"}},
      {"empty text",
       [](v1::GenerateRequest* r) { r->set_text(""); },
       kInvalid,
       "PROMPT_EMPTY",
       "text",
       {"text", "empty"}},
      {"no prompt",
       [](v1::GenerateRequest* r) { r->clear_prompt(); },
       kInvalid,
       "PROMPT_EMPTY",
       "prompt",
       {"prompt", "empty"}},
      {"no ids",
       [](v1::GenerateRequest* r) { r->mutable_token_ids(); },
       kInvalid,
       "PROMPT_EMPTY",
       "prompt",
       {"prompt", "empty"}},
      {"id past the vocabulary",
       [](v1::GenerateRequest* r) {
         r->mutable_token_ids()->add_ids(3);
         r->mutable_token_ids()->add_ids(kVocabSize);
       },
       kInvalid,
       "INVALID_FIELD",
       "token_ids.ids[1]",
       {"token_ids.ids[1]", "350", "vocab_size"}},
      {"huge id",
       [](v1::GenerateRequest* r) {
         r->mutable_token_ids()->add_ids(4294967295u);
       },
       kInvalid,
       "INVALID_FIELD",
       "token_ids.ids[0]",
       {"4294967295"}},
      {"prompt longer than the context",
       [](v1::GenerateRequest* r) {
         for (uint32_t i = 0; i < kMaxModelLen; ++i) {
           r->mutable_token_ids()->add_ids(65);
         }
         r->clear_stop();
       },
       kInvalid,
       "CONTEXT_LENGTH_EXCEEDED",
       "prompt",
       {"1024"}},
      {"text longer than the context",
       [](v1::GenerateRequest* r) { r->set_text(std::string(4000, 'q')); },
       kInvalid,
       "CONTEXT_LENGTH_EXCEEDED",
       nullptr,
       {"1024"}},
      {"text of megabytes",
       [](v1::GenerateRequest* r) { r->set_text(std::string(5 << 20, 'q')); },
       kInvalid,
       "CONTEXT_LENGTH_EXCEEDED",
       "text",
       {"5242880", "1024"}},
      {"max_tokens beyond the context",
       stop([](v1::StopConditions* s) { s->set_max_tokens(1024); }),
       kInvalid,
       "CONTEXT_LENGTH_EXCEEDED",
       "stop.max_tokens",
       {"stop.max_tokens", "1024"}},
      {"max_tokens 0",
       stop([](v1::StopConditions* s) { s->set_max_tokens(0); }),
       kInvalid,
       "INVALID_FIELD",
       "stop.max_tokens",
       {"stop.max_tokens", "0"}},
      {"min_tokens over max_tokens",
       stop([](v1::StopConditions* s) { s->set_min_tokens(21); }),
       kInvalid,
       "INVALID_FIELD",
       "stop.min_tokens",
       {"stop.min_tokens", "21", "20"}},
      {"17 stop strings",
       stop([](v1::StopConditions* s) {
         for (int i = 0; i < 17; ++i) s->add_stop("x");
       }),
       kInvalid,
       "INVALID_FIELD",
       "stop.stop",
       {"stop.stop", "17", "16"}},
      {"long stop string",
       stop([](v1::StopConditions* s) { s->add_stop(std::string(257, 'x')); }),
       kInvalid,
       "INVALID_FIELD",
       nullptr,
       {"stop.stop[0]", "257", "256"}},
      {"empty stop string",
       stop([](v1::StopConditions* s) { s->add_stop(""); }),
       kInvalid,
       "INVALID_FIELD",
       nullptr,
       {"stop.stop[0]", "0"}},
      {"65 stop ids",
       stop([](v1::StopConditions* s) {
         for (int i = 0; i < 65; ++i) s->add_stop_token_ids(1);
       }),
       kInvalid,
       "INVALID_FIELD",
       "stop.stop_token_ids",
       {"65", "64"}},
      {"stop id past the vocabulary",
       stop([](v1::StopConditions* s) { s->add_stop_token_ids(999); }),
       kInvalid,
       "INVALID_FIELD",
       "stop.stop_token_ids[0]",
       {"999", "350"}},
      {"n 0",
       sampling([](v1::SamplingParams* s) { s->set_n(0); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.n",
       {"sampling.n", "0", "[1, 64]"}},
      {"n 65",
       sampling([](v1::SamplingParams* s) { s->set_n(65); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.n",
       {"sampling.n", "65", "[1, 64]"}},
      {"n of four billion",
       sampling([](v1::SamplingParams* s) { s->set_n(4294967295u); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.n",
       {"4294967295"}},
      {"temperature -1",
       sampling([](v1::SamplingParams* s) { s->set_temperature(-1); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.temperature",
       {"-1"}},
      {"temperature NaN",
       sampling([nan](v1::SamplingParams* s) { s->set_temperature(nan); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.temperature",
       {"nan"}},
      {"temperature infinite",
       sampling([](v1::SamplingParams* s) {
         s->set_temperature(std::numeric_limits<float>::infinity());
       }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.temperature",
       {"inf"}},
      {"top_p 0",
       sampling([](v1::SamplingParams* s) { s->set_top_p(0); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.top_p",
       {"(0, 1]"}},
      {"top_p 1.5",
       sampling([](v1::SamplingParams* s) { s->set_top_p(1.5); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.top_p",
       {"1.5", "(0, 1]"}},
      {"top_k -2",
       sampling([](v1::SamplingParams* s) { s->set_top_k(-2); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.top_k",
       {"-2"}},
      {"min_p 2",
       sampling([](v1::SamplingParams* s) { s->set_min_p(2); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.min_p",
       {"2", "[0, 1]"}},
      {"presence 3",
       sampling([](v1::SamplingParams* s) { s->set_presence_penalty(3); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.presence_penalty",
       {"[-2, 2]"}},
      {"frequency -3",
       sampling([](v1::SamplingParams* s) { s->set_frequency_penalty(-3); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.frequency_penalty",
       {"[-2, 2]"}},
      {"repetition 0",
       sampling([](v1::SamplingParams* s) { s->set_repetition_penalty(0); }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.repetition_penalty",
       {"0"}},
      {"bias 101",
       sampling(
           [](v1::SamplingParams* s) { (*s->mutable_logit_bias())[5] = 101; }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.logit_bias[5]",
       {"101", "[-100, 100]"}},
      {"bias of an unknown id",
       sampling(
           [](v1::SamplingParams* s) { (*s->mutable_logit_bias())[5000] = 1; }),
       kInvalid,
       "INVALID_FIELD",
       nullptr,
       {"logit_bias", "5000", "350"}},
      {"1025 biases",
       sampling([](v1::SamplingParams* s) {
         for (uint32_t i = 0; i < 1025; ++i) (*s->mutable_logit_bias())[i] = 1;
       }),
       kInvalid,
       "INVALID_FIELD",
       "sampling.logit_bias",
       {"1025", "1024"}},
      {"33 logprobs",
       output([](v1::OutputOptions* o) { o->set_logprobs(33); }),
       kInvalid,
       "INVALID_FIELD",
       "output.logprobs",
       {"33", "[0, 32]"}},
      {"33 prompt logprobs",
       output([](v1::OutputOptions* o) { o->set_prompt_logprobs(33); }),
       kInvalid,
       "INVALID_FIELD",
       "output.prompt_logprobs",
       {"33", "[0, 32]"}},
      {"nothing to send",
       output([](v1::OutputOptions* o) {
         o->set_omit_text(true);
         o->set_omit_token_ids(true);
       }),
       kInvalid,
       "INVALID_FIELD",
       "output.omit_token_ids",
       {"omit_text"}},
      {"17 labels",
       [](v1::GenerateRequest* r) {
         for (int i = 0; i < 17; ++i) {
           (*r->mutable_labels())[absl::StrCat(i)] = "x";
         }
       },
       kInvalid,
       "INVALID_FIELD",
       "labels",
       {"17", "16"}},
      {"text that is no UTF-8",
       [](v1::GenerateRequest* r) { r->set_text("\xff\xfe"); },
       kInvalid,
       "INVALID_UTF8",
       "text",
       {"text", "UTF-8"}},
      {"stop string that is no UTF-8",
       stop([](v1::StopConditions* s) { s->add_stop("\xc3"); }),
       kInvalid,
       "INVALID_UTF8",
       "stop.stop",
       {"stop.stop", "UTF-8"}},
      {"task that is no UTF-8",
       task("\xed\xa0\x80"),
       kInvalid,
       "INVALID_UTF8",
       "task",
       {"task", "UTF-8"}},
  };
}

TEST(GenerateRpc, RefusesBadRequestsByFieldValueAndLimit) {
  DemoServer demo;
  ASSERT_TRUE(demo.Register("reverse").ok());
  // Others never notice.
  std::future<Answer> bystander = std::async(std::launch::async, [&] {
    return demo.Stream(LongRequest("reverse", 400));
  });
  for (const BadRequestCase& c : BadRequests()) {
    SCOPED_TRACE(c.what);
    v1::GenerateRequest request =
        TextRequest("reverse", "Word: parrot\nAnswer:");
    c.change(&request);
    const Answer stream = demo.Stream(request);
    const Answer unary = demo.Unary(request);
    for (const grpc::Status& status : {stream.status, unary.status}) {
      EXPECT_EQ(status.error_code(), c.code);
      const ErrorDetails details = DetailsOf(status);
      EXPECT_EQ(details.reason, c.reason);
      EXPECT_EQ(details.domain, "lorikeet");
      EXPECT_FALSE(details.has_retry);
      for (const std::string& part : c.message) {
        EXPECT_THAT(status.error_message(), HasSubstr(part));
      }
    }
    // GenerateUnary wraps the request, so paths that protobuf found differ.
    if (c.field != nullptr) {
      EXPECT_EQ(DetailsOf(stream.status).field, c.field);
    }
    EXPECT_TRUE(stream.candidates.empty());
  }
  const ErrorDetails unknown =
      DetailsOf(demo.Stream(TextRequest("nobody", "x")).status);
  EXPECT_EQ(unknown.resource_type, "adapter");
  EXPECT_EQ(unknown.resource_name, "nobody");
  const Answer undisturbed = bystander.get();
  ASSERT_TRUE(undisturbed.status.ok()) << undisturbed.status.error_message();
  EXPECT_EQ(undisturbed.candidates[0].finished().usage().completion_tokens(),
            400u);
}

TEST(GenerateRpc, AFullQueueRefusesWithAHint) {
  DemoServer demo([](ServerOptions* options) {
    options->max_waiting_requests = 1;
    options->max_num_seqs = 1;
  });
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 12; ++i) {
    answers.push_back(std::async(std::launch::async, [&] {
      return demo.Stream(LongRequest("base", 300));
    }));
  }
  int refused = 0;
  for (std::future<Answer>& future : answers) {
    const Answer answer = future.get();
    if (answer.status.ok()) continue;
    ++refused;
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(DetailsOf(answer.status).reason, "QUEUE_FULL");
    EXPECT_TRUE(DetailsOf(answer.status).has_retry);
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 12);
}

// ---- ends before its time --------------------------------------------------

TEST(GenerateRpc, CancelStopsTheWork) {
  DemoServer demo;
  ASSERT_TRUE(demo.Register("reverse").ok());
  grpc::ClientContext context;
  v1::GenerateRequest request = LongRequest("reverse", 900);
  request.mutable_sampling()->set_n(8);
  const auto reader = demo.inference().Generate(&context, request);
  v1::GenerateResponse event;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&event));
  EXPECT_GT(demo.ActiveRequests("reverse"), 0u);
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(demo.BecomesIdle());
  EXPECT_EQ(demo.ActiveRequests("reverse"), 0u);
  EXPECT_LT(demo.Load().generated_tokens(), 8u * 900u);
}

TEST(GenerateRpc, ADeadlineStopsTheWork) {
  DemoServer demo;
  v1::GenerateRequest request = LongRequest("base", 1000);
  request.mutable_sampling()->set_n(32);
  request.mutable_sampling()->set_temperature(1);
  {
    grpc::ClientContext context;
    context.set_deadline(
        absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
    const auto reader = demo.inference().Generate(&context, request);
    v1::GenerateResponse event;
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  {
    grpc::ClientContext context;
    context.set_deadline(
        absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
    v1::GenerateUnaryRequest unary;
    *unary.mutable_request() = request;
    v1::GenerateUnaryResponse response;
    EXPECT_EQ(
        demo.inference().GenerateUnary(&context, unary, &response).error_code(),
        grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(demo.BecomesIdle());
  EXPECT_LT(demo.Load().generated_tokens(), 2u * 32u * 1000u);
}

TEST(GenerateRpc, ACallerThatGoesAwayStopsTheWork) {
  DemoServer demo;
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    const auto reader =
        demo.inference().Generate(&context, LongRequest("base", 900));
    if (i % 2 == 0) {
      v1::GenerateResponse event;
      reader->Read(&event);
    }
    context.TryCancel();
    reader->Finish();
  }
  EXPECT_TRUE(demo.BecomesIdle());
}

TEST(GenerateRpc, AReaderThatDoesNotReadIsDroppedAndBlocksNobody) {
  DemoServer demo([](ServerOptions* options) {
    options->slow_reader_timeout_seconds = 0.5;
  });
  ASSERT_TRUE(demo.Register("reverse").ok());
  // Some megabytes that nobody reads.
  v1::GenerateRequest request = LongRequest("base", 1000);
  request.mutable_sampling()->set_n(8);
  request.mutable_output()->set_logprobs(32);
  grpc::ClientContext context;
  const auto slow = demo.inference().Generate(&context, request);
  v1::GenerateResponse event;
  ASSERT_TRUE(slow->Read(&event));

  for (int i = 0; i < 5; ++i) {
    const Answer answer =
        demo.Stream(TextRequest("reverse", "Word: parrot\nAnswer:"));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.text(), " torrap");
  }
  EXPECT_TRUE(demo.BecomesIdle()) << "the stalled request has ended";
  while (slow->Read(&event)) {
  }
  const grpc::Status status = slow->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
      << status.error_message();
  EXPECT_EQ(DetailsOf(status).reason, "SLOW_READER");
}

// ---- small calls -----------------------------------------------------------

TEST(InferenceRpc, TokenizesAndDetokenizes) {
  DemoServer demo;
  v1::TokenizeRequest request;
  request.set_task("base");
  request.set_text("Word: fox\nAnswer:<|end|>");
  request.set_parse_special_tokens(true);
  v1::TokenizeResponse tokens;
  {
    grpc::ClientContext context;
    const grpc::Status status =
        demo.inference().Tokenize(&context, request, &tokens);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_EQ(tokens.token_ids_size(), tokens.token_bytes_size());
  EXPECT_EQ(tokens.max_model_len(), kMaxModelLen);
  EXPECT_EQ(tokens.token_ids(tokens.token_ids_size() - 1), 339u);

  v1::DetokenizeRequest back;
  back.set_task("base");
  *back.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(demo.inference().Detokenize(&context, back, &text).ok());
  }
  EXPECT_EQ(text.text(), request.text());
  back.set_skip_special_tokens(true);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(demo.inference().Detokenize(&context, back, &text).ok());
  }
  EXPECT_EQ(text.text(), "Word: fox\nAnswer:");

  back.add_token_ids(kVocabSize);
  grpc::ClientContext context;
  const grpc::Status status =
      demo.inference().Detokenize(&context, back, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("350"));
}

TEST(InferenceRpc, SpecialTokensInTextAreTextUnlessAsked) {
  DemoServer demo;
  v1::TokenizeRequest request;
  request.set_task("base");
  request.set_text("<|end|>");
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  ASSERT_TRUE(demo.inference().Tokenize(&context, request, &tokens).ok());
  EXPECT_GT(tokens.token_ids_size(), 1);
}

TEST(InferenceRpc, ListsModelsPageByPage) {
  DemoServer demo;
  demo.RegisterAll();
  std::vector<std::string> ids;
  v1::ListModelsRequest request;
  request.set_page_size(4);
  do {
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    const grpc::Status status =
        demo.inference().ListModels(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LE(response.models_size(), 4);
    for (const v1::Model& model : response.models()) {
      ids.push_back(model.id());
      EXPECT_EQ(model.parent(), model.id() == "base" ? "" : "base");
      EXPECT_EQ(model.max_model_len(), kMaxModelLen);
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(
      ids, ::testing::ElementsAre("base", "caesar", "double", "ends", "length",
                                  "reverse", "sort", "upper", "vowels"));
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  request.set_page_size(-1);
  EXPECT_EQ(
      demo.inference().ListModels(&context, request, &response).error_code(),
      grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace lorikeet::testing

#include "adapters/peft_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/reason.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using testing::FreshTempDir;
using ::testing::HasSubstr;
using testing::MakeConstantTensor;
using testing::SafetensorsBytes;
using testing::SmallConfig;
using testing::SmallModel;
using testing::SmallTensors;
using testing::TestTensor;
using testing::WriteTestFile;

using Result = absl::StatusOr<std::shared_ptr<const AdapterWeights>>;

Json ParseFile(const std::string& path) {
  PosixFileSystem fs;
  const auto text = fs.ReadFile(path, 64 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto json = Json::Parse(*text);
  EXPECT_TRUE(json.ok()) << json.status();
  return *json;
}

ModelConfig TinyModel(const std::string& name) {
  PosixFileSystem fs;
  const auto text = fs.ReadFile(
      testing::TinyDir() + "/models/" + name + "/config.json", 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto config = ModelConfig::Parse(*text);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

Result ReadDir(const std::string& dir, const ModelConfig& model,
               std::optional<DType> dtype = std::nullopt,
               PeftLimits limits = PeftLimits()) {
  PosixFileSystem fs;
  return ReadPeftAdapter(fs, dir, model, limits, dtype);
}

// Writes files, reads them as an adapter of the small model.
class PeftReaderTest : public ::testing::Test {
 protected:
  Result Read(absl::string_view config, const std::vector<TestTensor>& tensors,
              std::optional<DType> dtype = std::nullopt,
              PeftLimits limits = PeftLimits()) {
    WriteTestFile(dir_ + "/adapter_config.json", config);
    WriteTestFile(dir_ + "/adapter_model.safetensors",
                  SafetensorsBytes(tensors));
    return ReadDir(dir_, SmallModel(), dtype, limits);
  }
  const std::string dir_ = FreshTempDir("peft_reader");
};

// ---- golden data ------------------------------------------------------------

TEST(PeftReaderGoldenTest, LoadsEveryAdapterWithItsFeatures) {
  if (testing::TinyDir().empty()) {
    GTEST_SKIP() << "skipped: no shared golden data";
  }
  const Json manifest = ParseFile(testing::TinyDir() + "/manifest.json");
  int plain = 0, others = 0;
  for (const Json& model : manifest.Find("models")->items()) {
    const ModelConfig config = TinyModel(model.Find("name")->AsString());
    for (const Json& adapter : model.Find("adapters")->items()) {
      const std::string dir =
          testing::TinyDir() + "/" + adapter.Find("dir")->AsString();
      SCOPED_TRACE(dir);
      const Result result = ReadDir(dir, config);
      ASSERT_TRUE(result.ok()) << result.status();
      // The others are low-rank parts like those of the layers.
      bool is_plain = true;
      for (const Json& feature : adapter.Find("features")->items()) {
        for (const char* other : {"dora", "bias", "lora_bias", "alora",
                                  "modules_to_save", "trainable_tokens"}) {
          is_plain = is_plain && feature.AsString() != other;
        }
      }
      EXPECT_EQ((*result)->features.is_plain(), is_plain);
      (is_plain ? plain : others) += 1;
    }
  }
  EXPECT_GT(plain, 30);
  EXPECT_GT(others, 15);
}

TEST(PeftReaderGoldenTest, RefusesEveryBadAdapterNamingTheCause) {
  if (testing::TinyDir().empty()) {
    GTEST_SKIP() << "skipped: no shared golden data";
  }
  const Json cases = ParseFile(testing::TinyDir() + "/bad_adapters/cases.json");
  int refused = 0;
  for (const Json& c : cases.Find("cases")->items()) {
    const std::string dir =
        testing::TinyDir() + "/" + c.Find("dir")->AsString();
    SCOPED_TRACE(dir);
    const Result result = ReadDir(dir, TinyModel(c.Find("model")->AsString()));
    if (c.Find("policy")->AsString() == "refuse_or_correct" && result.ok()) {
      // Served right, as its golden says; then people are told.
      EXPECT_FALSE((*result)->warnings.empty());
      continue;
    }
    ASSERT_FALSE(result.ok());
    ++refused;
    const std::string message(result.status().message());
    EXPECT_THAT(message, ::testing::Not(HasSubstr(dir)));
    EXPECT_NE(ReasonOf(result.status()), "");
    for (const Json& pattern : c.Find("must_match")->items()) {
      EXPECT_TRUE(std::regex_search(
          message, std::regex(pattern.AsString(), std::regex::icase)))
          << message << " against " << pattern.AsString();
    }
    if (const Json* no = c.Find("must_not_contain")) {
      for (const Json& text : no->items()) {
        EXPECT_THAT(message, ::testing::Not(HasSubstr(text.AsString())));
      }
    }
  }
  EXPECT_GT(refused, 90);
}

// Modules, ranks and scalings against an independent reading of the rules:
// what the tensors of the file say of the ranks, and these of the scalings.
TEST(PeftReaderGoldenTest, FindsScalingsOfPatternsInFileOrder) {
  if (testing::TinyDir().empty()) {
    GTEST_SKIP() << "skipped: no shared golden data";
  }
  const Result result = ReadDir(
      testing::TinyDir() + "/adapters/llama-gqa-tied/patterns-file-order",
      TinyModel("llama-gqa-tied"));
  ASSERT_TRUE(result.ok()) << result.status();
  for (const LoraModule& m : (*result)->modules) {
    SCOPED_TRACE(m.name);
    const bool is_q = m.id.projection == Projection::kQ;
    EXPECT_EQ(m.rank, is_q ? 4 : 6);
    const double alpha = is_q ? 24 : m.id.layer == 1 ? 5 : 8;
    EXPECT_DOUBLE_EQ(m.scaling, alpha / static_cast<double>(m.rank));
  }
}

// ---- one thing at a time ----------------------------------------------------

TEST_F(PeftReaderTest, ReadsModulesInOrderWithValues) {
  const Result result = Read(SmallConfig(), SmallTensors(0.5f));
  ASSERT_TRUE(result.ok()) << result.status();
  const AdapterWeights& w = **result;
  ASSERT_EQ(w.modules.size(), 2u);
  EXPECT_EQ(w.modules[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(w.modules[1].id, (LinearId{1, Projection::kQ}));
  EXPECT_EQ(w.modules[1].rank, 2);
  EXPECT_DOUBLE_EQ(w.modules[1].scaling, 2.0);
  EXPECT_EQ(w.modules[1].a.rows, 2);
  EXPECT_EQ(w.modules[1].b.rows, 8);
  EXPECT_EQ(w.modules[1].a.At(1, 7), 0.5f);
  EXPECT_EQ(w.num_parameters, 2 * (16 + 16));
  EXPECT_EQ(w.size_bytes, 64 * 4);
  EXPECT_EQ(w.max_rank, 2);
  EXPECT_THAT(w.warnings, ElementsAre());
}

TEST_F(PeftReaderTest, KeepsTheDtypeOfTheFileOrTheOneAskedFor) {
  const auto as_stored = Read(SmallConfig(), SmallTensors(0.1f, DType::kBF16));
  ASSERT_TRUE(as_stored.ok());
  EXPECT_EQ((*as_stored)->modules[0].a.dtype, DType::kBF16);
  const auto narrow = Read(SmallConfig(), SmallTensors(0.1f), DType::kBF16);
  ASSERT_TRUE(narrow.ok());
  EXPECT_EQ((*narrow)->modules[0].a.dtype, DType::kBF16);
  EXPECT_EQ((*narrow)->modules[0].a.At(0, 0),
            (*as_stored)->modules[0].a.At(0, 0));
  EXPECT_EQ((*narrow)->size_bytes, 64 * 2);
}

TEST_F(PeftReaderTest, RefusesValuesThatDoNotFitTheDtypeAskedFor) {
  const Result result = Read(SmallConfig(), SmallTensors(1e6f), DType::kF16);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("does not fit f16"));
}

TEST_F(PeftReaderTest, RefusesRanksBeyondTheLimit) {
  PeftLimits limits;
  limits.max_rank = 1;
  const Result result =
      Read(SmallConfig(), SmallTensors(1), std::nullopt, limits);
  ASSERT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("exceeds max_lora_rank 1"));
}

TEST_F(PeftReaderTest, RefusesFilesBeyondTheLimits) {
  PeftLimits limits;
  limits.max_model_bytes = 100;
  EXPECT_FALSE(Read(SmallConfig(), SmallTensors(1), std::nullopt, limits).ok());
  limits = PeftLimits();
  limits.max_config_bytes = 10;
  const Result result =
      Read(SmallConfig(), SmallTensors(1), std::nullopt, limits);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("adapter_config.json has"));
}

TEST_F(PeftReaderTest, IgnoresTensorsOfTrainingOnlyMethodsIfConfigured) {
  std::vector<TestTensor> tensors = SmallTensors(1);
  tensors.push_back(MakeConstantTensor(
      "base_model.model.model.layers.0.self_attn.q_proj.lora_velora_basis",
      DType::kF32, {4}, 1));
  EXPECT_FALSE(Read(SmallConfig(), tensors).ok());
  const Result result =
      Read(SmallConfig(R"("velora_config": {"x": 1})"), tensors);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT((*result)->warnings,
              ElementsAre(HasSubstr("velora_config is ignored")));
}

// ---- beyond plain LoRA ------------------------------------------------------

TestTensor Named(absl::string_view name, const std::vector<int64_t>& shape,
                 float value = 1) {
  return MakeConstantTensor(absl::StrCat("base_model.model.", name),
                            DType::kF32, shape, value);
}

std::vector<TestTensor> With(std::vector<TestTensor> more) {
  std::vector<TestTensor> tensors = SmallTensors(1);
  for (TestTensor& t : more) tensors.push_back(std::move(t));
  return tensors;
}

std::string Message(const Result& result) {
  return result.ok() ? "OK" : std::string(result.status().message());
}

TEST_F(PeftReaderTest, ReadsMagnitudesOfEveryModuleOrRefuses) {
  constexpr char kFirst[] = "model.layers.0.self_attn.q_proj";
  constexpr char kSecond[] = "model.layers.1.self_attn.q_proj";
  const auto magnitude = [](const char* module, int64_t size) {
    return Named(absl::StrCat(module, ".lora_magnitude_vector"), {size}, 3);
  };
  const std::string config = SmallConfig(R"("use_dora": true)");
  const Result both =
      Read(config, With({magnitude(kFirst, 8), magnitude(kSecond, 8)}));
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ((*both)->modules[1].magnitude.f32(0)[7], 3);
  EXPECT_THAT((*both)->features.keys, ElementsAre("use_dora"));
  EXPECT_EQ((*both)->size_bytes, (64 + 2 * 8) * 4);
  EXPECT_THAT(Message(Read(config, With({magnitude(kFirst, 8)}))),
              HasSubstr("layers.1.self_attn.q_proj.lora_magnitude_vector\" is "
                        "missing"));
  EXPECT_THAT(Message(Read(
                  config, With({magnitude(kFirst, 8), magnitude(kSecond, 7)}))),
              HasSubstr("is [7], expected [8] (out)"));
}

TEST_F(PeftReaderTest, ReadsSavedModulesWhole) {
  const std::string config =
      SmallConfig(R"("modules_to_save": ["layers.1.mlp", "norm"])");
  std::vector<TestTensor> tensors =
      With({Named("model.layers.1.mlp.gate_proj.weight", {12, 8}),
            Named("model.layers.1.mlp.up_proj.weight", {12, 8}),
            Named("model.layers.1.mlp.down_proj.weight", {8, 12}, 5),
            Named("model.norm.weight", {8})});
  for (const char* layer : {"0", "1"}) {
    for (const char* norm : {"input", "post_attention"}) {
      tensors.push_back(Named(
          absl::StrCat("model.layers.", layer, ".", norm, "_layernorm.weight"),
          {8}, 2));
    }
  }
  const Result result = Read(config, tensors);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ((*result)->saved.size(), 8u);
  for (const SavedParameter& saved : (*result)->saved) {
    if (saved.parameter.linear != LinearId{1, Projection::kDown}) continue;
    EXPECT_EQ(saved.values.cols, 12);
    EXPECT_EQ(saved.values.At(7, 11), 5);
  }
  tensors.pop_back();
  EXPECT_THAT(Message(Read(config, tensors)), HasSubstr("is missing"));
}

TEST_F(PeftReaderTest, RefusesTrainedTokensOfNoTableOrOfAChangedOne) {
  const auto message = [&](absl::string_view config) {
    return Message(Read(SmallConfig(config), SmallTensors(1)));
  };
  EXPECT_THAT(message(R"("trainable_token_indices": [16])"),
              HasSubstr("has 16, the model's vocabulary is 16"));
  EXPECT_THAT(message(R"("trainable_token_indices": {"q_proj": [1]})"),
              HasSubstr("expected embed_tokens or lm_head"));
  EXPECT_THAT(message(R"("trainable_token_indices": {"wte": [1]})"),
              HasSubstr("names \"wte\""));
  EXPECT_THAT(message(R"("trainable_token_indices": [1],
                         "modules_to_save": ["embed_tokens"])"),
              HasSubstr("which modules_to_save takes too"));
  EXPECT_THAT(message(R"("alora_invocation_tokens": [16])"),
              HasSubstr("\"alora_invocation_tokens\" has 16"));
}

TEST_F(PeftReaderTest, ReadsReplacedRowsInTheOrderOfTheFile) {
  const Result result = Read(
      SmallConfig(R"("trainable_token_indices": {"lm_head": [9, 2]})"),
      With({Named("lm_head.token_adapter.trainable_tokens_delta", {2, 8}, 4)}));
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ((*result)->replaced_rows.size(), 1u);
  EXPECT_EQ((*result)->replaced_rows[0].id, LinearId::LmHead());
  EXPECT_THAT((*result)->replaced_rows[0].tokens, ElementsAre(9, 2));
  EXPECT_EQ((*result)->replaced_rows[0].rows.At(1, 7), 4);
}

TEST_F(PeftReaderTest, WarnsOfACopyOfTheBaseThatItCannotCompare) {
  const auto tensors = [](float copy) {
    return std::vector<TestTensor>{
        Named("lm_head.lora_A.weight", {2, 8}),
        Named("lm_head.lora_B.weight", {16, 2}),
        Named("lm_head.base_layer.weight", {16, 8}, copy)};
  };
  const std::string config =
      R"({"peft_type": "LORA", "r": 2, "target_modules": ["lm_head"]})";
  const Result result = Read(config, tensors(1));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT((*result)->warnings,
              ElementsAre(HasSubstr("is not compared with the base")));
  EXPECT_THAT(Message(Read(config, tensors(std::nanf("")))), HasSubstr("NaN"));
}

TEST_F(PeftReaderTest, SaysWhichFileIsMissing) {
  const std::string dir = FreshTempDir("peft_missing");
  Result result = ReadDir(dir, SmallModel());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(result.status().message(), "adapter_config.json is missing");
  WriteTestFile(dir + "/adapter_config.json", SmallConfig());
  WriteTestFile(dir + "/adapter_model.bin", "pickle");
  result = ReadDir(dir, SmallModel());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("pickle"));
}

TEST_F(PeftReaderTest, DigestIsThatOfTheFilesAlone) {
  const Result a = Read(SmallConfig(), SmallTensors(1));
  WriteTestFile(dir_ + "/README.md", "hello");
  const Result same = Read(SmallConfig(), SmallTensors(1));
  const Result other = Read(SmallConfig(), SmallTensors(2));
  ASSERT_TRUE(a.ok() && same.ok() && other.ok());
  EXPECT_EQ((*a)->digest, (*same)->digest);
  EXPECT_NE((*a)->digest, (*other)->digest);
  PosixFileSystem fs;
  EXPECT_EQ(*DigestOfAdapter(fs, dir_, PeftLimits()), (*other)->digest);
}

TEST_F(PeftReaderTest, DigestCanBeRecomputedWithOrdinaryTools) {
  EXPECT_EQ(
      DigestOfAdapterFiles("c", "m"),
      DigestOf(absl::StrCat("adapter_config.json 1 ", DigestOf("c").ToHex(),
                            "\nadapter_model.safetensors 1 ",
                            DigestOf("m").ToHex(), "\n")));
}

}  // namespace
}  // namespace lorikeet

// What loads, what does not, and what it says then.

#include "model/model_loader.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/json.h"
#include "base/regex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_runner.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeConstantTensor;
using testing::TestTensor;

// One layer, hidden 8: a checkpoint to break in one place at a time.
class ModelLoaderTest : public ::testing::Test {
 protected:
  ModelLoaderTest() {
    const auto add = [&](absl::string_view name, std::vector<int64_t> shape) {
      tensors_.push_back(
          MakeConstantTensor(name, DType::kBF16, std::move(shape), 0.5f));
    };
    const std::string layer = "model.layers.0.";
    add("model.embed_tokens.weight", {10, 8});
    add("model.norm.weight", {8});
    add("lm_head.weight", {10, 8});
    add(layer + "input_layernorm.weight", {8});
    add(layer + "post_attention_layernorm.weight", {8});
    add(layer + "self_attn.q_proj.weight", {8, 8});
    add(layer + "self_attn.k_proj.weight", {4, 8});
    add(layer + "self_attn.v_proj.weight", {4, 8});
    add(layer + "self_attn.o_proj.weight", {8, 8});
    add(layer + "mlp.gate_proj.weight", {12, 8});
    add(layer + "mlp.up_proj.weight", {12, 8});
    add(layer + "mlp.down_proj.weight", {8, 12});
  }

  TestTensor& Tensor(absl::string_view name) {
    return *std::find_if(tensors_.begin(), tensors_.end(),
                         [&](const TestTensor& t) { return t.name == name; });
  }

  absl::StatusOr<std::unique_ptr<Model>> Load(
      const ModelOptions& options = {}) {
    testing::WriteTestFile(dir_ + "/config.json", config_);
    testing::WriteTestFile(dir_ + "/model.safetensors",
                           testing::SafetensorsBytes(tensors_));
    return Model::Load(fs_, dir_, *backend_.ops, options);
  }
  std::unique_ptr<Model> LoadOk(const ModelOptions& options = {}) {
    auto model = Load(options);
    CHECK(model.ok());
    return *std::move(model);
  }
  std::string LoadError(const ModelOptions& options = {}) {
    const auto model = Load(options);
    EXPECT_FALSE(model.ok());
    return std::string(model.status().message());
  }

  PosixFileSystem fs_;
  testing::Backend backend_ = testing::NewBackend("reference");
  const std::string dir_ = testing::FreshTempDir("model_loader_test");
  std::string config_ = R"({"architectures": ["LlamaForCausalLM"],
      "model_type": "llama", "vocab_size": 10, "hidden_size": 8,
      "intermediate_size": 12, "num_hidden_layers": 1,
      "num_attention_heads": 4, "num_key_value_heads": 2,
      "eos_token_id": 9, "tie_word_embeddings": false})";
  std::vector<TestTensor> tensors_;
};

TEST_F(ModelLoaderTest, LoadsWhatTheConfigAsksFor) {
  const auto model = LoadOk();
  EXPECT_EQ(model->dtype(), DType::kBF16);
  EXPECT_EQ(model->dir(), dir_);
  EXPECT_EQ(model->embedding().out_dim(), 10);
  EXPECT_NE(&model->lm_head(), &model->embedding());
  EXPECT_EQ(
      model->layer(0).linears[static_cast<size_t>(Projection::kDown)]->in_dim(),
      12);
  EXPECT_THAT(model->final_norm(), ::testing::Each(0.5f));
  EXPECT_THAT(model->eos_tokens(), ElementsAre(9));
  EXPECT_GE(model->weight_bytes(), 2 * (10 * 8 * 2 + 8 * 8 * 2));
  EXPECT_EQ(model->in_dim(Projection::kO), 8);
  EXPECT_EQ(model->out_dim(Projection::kV), 4);
}

TEST_F(ModelLoaderTest, EndTokensOfTheGenerationConfigWin) {
  testing::WriteTestFile(dir_ + "/generation_config.json",
                         R"({"eos_token_id": [3, 4]})");
  EXPECT_THAT(LoadOk()->eos_tokens(), ElementsAre(3, 4));
}

TEST_F(ModelLoaderTest, EachDtypeStaysAsInTheFile) {
  for (TestTensor& t : tensors_) {
    t = MakeConstantTensor(t.name, DType::kF16, t.shape, 0.5f);
  }
  Tensor("lm_head.weight") =
      MakeConstantTensor("lm_head.weight", DType::kF32, {10, 8}, 0.5f);
  const auto model = LoadOk();
  EXPECT_EQ(model->lm_head().dtype(), DType::kF32);
  EXPECT_EQ(model->embedding().dtype(), DType::kF16);
}

TEST_F(ModelLoaderTest, OptionConvertsTheDtype) {
  ModelOptions options;
  options.dtype = DType::kF32;
  const auto model = LoadOk(options);
  EXPECT_EQ(model->dtype(), DType::kF32);
  EXPECT_EQ(model->embedding().dtype(), DType::kF32);
}

TEST_F(ModelLoaderTest, Int8TakesAboutOneByteAWeight) {
  ModelOptions options;
  options.dtype = DType::kI8;
  const auto model = LoadOk(options);
  EXPECT_EQ(model->dtype(), DType::kI8);
  EXPECT_EQ(model->embedding().dtype(), DType::kI8);
  EXPECT_THAT(model->final_norm(), ::testing::Each(0.5f));
}

TEST_F(ModelLoaderTest, Int8RefusesAnAbsurdRangeByName) {
  Tensor("lm_head.weight") =
      MakeConstantTensor("lm_head.weight", DType::kF32, {10, 8}, 1e7f);
  ModelOptions options;
  options.dtype = DType::kI8;
  const std::string error = LoadError(options);
  EXPECT_THAT(error, HasSubstr("lm_head.weight"));
  EXPECT_THAT(error, HasSubstr("int8"));
}

// What a start finds in the cache are the bits that quantizing gives, and a
// damaged cache is made anew.
TEST_F(ModelLoaderTest, CachedInt8WeightsAreThoseOfQuantizing) {
  backend_ = testing::NewBackend("cpu");
  ModelOptions options;
  options.dtype = DType::kI8;
  options.cache_dir = dir_ + "/packed";
  const auto first = LoadOk(options);
  const auto names = fs_.List(options.cache_dir);
  ASSERT_TRUE(names.ok());
  ASSERT_EQ(names->size(), 1u);
  const std::string path = options.cache_dir + "/" + names->front();
  const std::string written = fs_.ReadFile(path, 1 << 20).value();
  const auto expect_same = [&](const Model& other) {
    EXPECT_EQ(other.fingerprint(), first->fingerprint());
    EXPECT_EQ(other.lm_head().packed_bytes(), first->lm_head().packed_bytes());
  };
  expect_same(*LoadOk(options));
  std::string damaged = written;
  damaged.back() ^= 1;
  testing::WriteTestFile(path, damaged);
  expect_same(*LoadOk(options));
  EXPECT_EQ(fs_.ReadFile(path, 1 << 20).value(), written);
}

TEST_F(ModelLoaderTest, ACacheThatCannotBeWrittenIsNoError) {
  backend_ = testing::NewBackend("cpu");
  testing::WriteTestFile(dir_ + "/file", "no directory");
  ModelOptions options;
  options.dtype = DType::kI8;
  options.cache_dir = dir_ + "/file";
  EXPECT_EQ(LoadOk(options)->dtype(), DType::kI8);
}

TEST_F(ModelLoaderTest, IgnoresRotaryBuffers) {
  tensors_.push_back(MakeConstantTensor(
      "model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {1}, 1));
  EXPECT_TRUE(Load().ok());
}

TEST_F(ModelLoaderTest, RefusesUnexpectedTensorsByName) {
  for (const std::string name : {"model.layers.1.input_layernorm.weight",
                                 "model.layers.0.self_attn.q_proj.bias",
                                 "model.visual.weight", "score.weight"}) {
    tensors_.push_back(MakeConstantTensor(name, DType::kF32, {8}, 1));
    EXPECT_THAT(LoadError(), HasSubstr(name));
    tensors_.pop_back();
  }
}

TEST_F(ModelLoaderTest, RefusesEveryMissingTensorByName) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TestTensor removed = tensors_[i];
    tensors_.erase(tensors_.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_THAT(LoadError(), HasSubstr(removed.name));
    tensors_.insert(tensors_.begin() + static_cast<std::ptrdiff_t>(i), removed);
  }
}

TEST_F(ModelLoaderTest, RefusesEveryWrongShapeByName) {
  for (TestTensor& t : tensors_) {
    const TestTensor right = t;
    std::vector<int64_t> shape = right.shape;
    shape.back() += 1;
    t = MakeConstantTensor(right.name, DType::kBF16, shape, 0.5f);
    EXPECT_THAT(LoadError(), HasSubstr(right.name));
    shape = right.shape;
    shape.push_back(1);
    t = MakeConstantTensor(right.name, DType::kBF16, shape, 0.5f);
    EXPECT_THAT(LoadError(), HasSubstr(right.name));
    t = right;
  }
}

TEST_F(ModelLoaderTest, RefusesNonFiniteValuesByName) {
  for (TestTensor& t : tensors_) {
    const TestTensor right = t;
    StoreElement(DType::kBF16, t.bytes.data(), 3,
                 std::numeric_limits<float>::infinity());
    EXPECT_THAT(LoadError(), HasSubstr(right.name));
    t = right;
  }
}

TEST_F(ModelLoaderTest, TiedLmHeadIsIgnored) {
  config_ = absl::StrReplaceAll(config_, {{"\"tie_word_embeddings\": false",
                                           "\"tie_word_embeddings\": true"}});
  const auto with = LoadOk();
  EXPECT_EQ(&with->lm_head(), &with->embedding());
  tensors_.erase(tensors_.begin() + 2);
  const auto without = LoadOk();
  EXPECT_EQ(&without->lm_head(), &without->embedding());
  EXPECT_EQ(without->fingerprint(), with->fingerprint());
}

TEST_F(ModelLoaderTest, FingerprintIsOfTheContentAlone) {
  const Digest first = LoadOk()->fingerprint();
  EXPECT_FALSE(first.IsZero());
  std::reverse(tensors_.begin(), tensors_.end());
  EXPECT_EQ(LoadOk()->fingerprint(), first) << "order in the file";
  ModelOptions options;
  options.dtype = DType::kF32;
  EXPECT_EQ(LoadOk(options)->fingerprint(), first) << "storage";

  Tensor("model.norm.weight").bytes[0] ^= 1;
  EXPECT_NE(LoadOk()->fingerprint(), first);
  Tensor("model.norm.weight").bytes[0] ^= 1;
  config_ += " ";
  EXPECT_NE(LoadOk()->fingerprint(), first);
}

TEST_F(ModelLoaderTest, ReportsProgressToTheEnd) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  ModelOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    calls.emplace_back(done, total);
  };
  LoadOk(options);
  ASSERT_EQ(calls.size(), tensors_.size());
  EXPECT_TRUE(std::is_sorted(calls.begin(), calls.end()));
  EXPECT_EQ(calls.back().first, calls.back().second);
}

TEST_F(ModelLoaderTest, NamesTheDirectoryThatIsNotThere) {
  const auto model =
      Model::Load(fs_, dir_ + "/nowhere", *backend_.ops, ModelOptions());
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("nowhere"));
}

TEST_F(ModelLoaderTest, DummyWeightsNeedTheConfigAlone) {
  ModelOptions options;
  options.dummy_weights = true;
  tensors_.clear();
  const auto a = LoadOk(options);
  const auto b = LoadOk(options);
  EXPECT_EQ(a->fingerprint(), b->fingerprint());
  options.dummy_seed = 1;
  EXPECT_NE(LoadOk(options)->fingerprint(), a->fingerprint());
  EXPECT_THAT(a->final_norm(), ::testing::Each(1.0f));

  testing::TestRunner runner(dir_, testing::NewBackend("reference"), options);
  testing::TestSequence sequence = runner.NewSequence(32);
  const std::vector<float> logits = runner.Feed(sequence, {1, 2, 3});
  EXPECT_THAT(logits, ::testing::Contains(::testing::Ne(0.0f)));
  EXPECT_THAT(logits, ::testing::Each(::testing::Lt(10.0f)));
}

TEST_F(ModelLoaderTest, DummyWeightsBeyondMemoryAreRefused) {
  config_ = absl::StrReplaceAll(
      config_,
      {{"\"num_hidden_layers\": 1", "\"num_hidden_layers\": 10000"},
       {"\"hidden_size\": 8", "\"hidden_size\": 65536, \"head_dim\": 64"},
       {"\"intermediate_size\": 12", "\"intermediate_size\": 1000000"}});
  ModelOptions options;
  options.dummy_weights = true;
  const auto model = Load(options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("memory"));
}

// Every base model of the golden data that has to be refused.
TEST(BadModelsTest, AreRefusedWithAReason) {
  const std::string tiny = testing::TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  PosixFileSystem fs;
  const auto text = fs.ReadFile(tiny + "/bad_models/cases.json", 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto cases = Json::Parse(*text);
  ASSERT_TRUE(cases.ok()) << cases.status();
  const testing::Backend backend = testing::NewBackend("reference");
  for (const Json& item : cases->Find("cases")->items()) {
    const std::string name = item.Find("name")->AsString();
    SCOPED_TRACE(name);
    const std::string dir = tiny + "/" + item.Find("dir")->AsString();
    const auto model = Model::Load(fs, dir, *backend.ops, ModelOptions());
    ASSERT_FALSE(model.ok());
    const std::string message = absl::StrReplaceAll(
        std::string(model.status().message()), {{dir, "DIR"}});
    for (const Json& pattern : item.Find("must_match")->items()) {
      const auto regex = Regex::Compile("(?i)" + pattern.AsString());
      ASSERT_TRUE(regex.ok()) << regex.status();
      const auto found = regex->Search(message);
      EXPECT_TRUE(found.ok() && found->has_value())
          << pattern.AsString() << "\n"
          << message;
    }
  }
}

}  // namespace
}  // namespace lorikeet

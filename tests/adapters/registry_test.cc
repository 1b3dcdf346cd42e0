#include "adapters/registry.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "base/file_system.h"
#include "base/reason.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

class RegistryTest : public ::testing::Test {
 protected:
  std::unique_ptr<Registry> Open() {
    auto registry = Registry::Open(path_);
    EXPECT_TRUE(registry.ok()) << registry.status();
    return *std::move(registry);
  }
  void Sql(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr),
              SQLITE_OK)
        << sqlite3_errmsg(db);
    sqlite3_close(db);
  }
  static Registry::Adapter Row(const std::string& tenant,
                               const std::string& name) {
    Registry::Adapter row;
    row.tenant = tenant;
    row.name = name;
    row.uid = "uid-" + name;
    row.display_name = "A \"name\"\n\xc3\xa9";
    row.source_path = "/some/where";
    row.labels = {{"team", "x"}, {"b", ""}};
    row.create_time = absl::FromUnixMicros(1234567);
    row.update_time = absl::FromUnixMicros(2345678);
    return row;
  }
  static AdapterVersionInfo VersionOf(const Registry::Adapter& row,
                                      uint32_t number) {
    AdapterVersionInfo v;
    v.key = {row.tenant, row.name, number, DigestOf(absl::StrCat(number))};
    v.base_fingerprint = DigestOf("base");
    v.create_time = absl::FromUnixMicros(99);
    v.max_rank = 16;
    v.alpha = 0.1;
    v.use_rslora = true;
    v.target_modules = {"q_proj", "v_proj"};
    v.warnings = {"something"};
    v.modules = {{"model.layers.0.self_attn.q_proj", 16, 0.1 / 3}};
    v.features = {{"alora_invocation_tokens"}, {7, 7}};
    v.size_bytes = int64_t{5} << 32;
    return v;
  }
  const std::string path_ = testing::FreshTempDir("registry") + "/registry.db";
};

TEST_F(RegistryTest, SurvivesReopen) {
  const Registry::Adapter row = Row("default", "a");
  {
    const auto registry = Open();
    const auto created = registry->CreateAdapter(row, VersionOf(row, 1));
    ASSERT_TRUE(created.ok()) << created.status();
    const auto added = registry->AddVersion(row, VersionOf(row, 2));
    ASSERT_TRUE(added.ok()) << added.status();
    EXPECT_NE(*created, *added);
    ASSERT_TRUE(registry->PutAlias({"default", "task", "a", 1, 0}).ok());
  }
  const auto contents = Open()->ReadAll();
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_EQ(contents->adapters.size(), 1u);
  const Registry::Adapter& a = contents->adapters[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.uid, row.uid);
  EXPECT_EQ(a.display_name, row.display_name);
  EXPECT_EQ(a.source_path, row.source_path);
  EXPECT_EQ(a.labels, row.labels);
  EXPECT_EQ(a.create_time, row.create_time);
  EXPECT_EQ(a.update_time, row.update_time);
  ASSERT_EQ(contents->versions.size(), 2u);
  const AdapterVersionInfo expected = VersionOf(row, 2);
  const AdapterVersionInfo& v = contents->versions[1];
  EXPECT_EQ(v.key, expected.key);
  EXPECT_EQ(v.base_fingerprint, expected.base_fingerprint);
  EXPECT_EQ(v.create_time, expected.create_time);
  EXPECT_EQ(v.max_rank, expected.max_rank);
  EXPECT_EQ(v.alpha, expected.alpha);
  EXPECT_TRUE(v.use_rslora);
  EXPECT_EQ(v.target_modules, expected.target_modules);
  EXPECT_EQ(v.warnings, expected.warnings);
  ASSERT_EQ(v.modules.size(), 1u);
  EXPECT_EQ(v.modules[0].name, expected.modules[0].name);
  EXPECT_EQ(v.modules[0].scaling, expected.modules[0].scaling);
  EXPECT_EQ(v.size_bytes, expected.size_bytes);
  EXPECT_EQ(v.features, expected.features);
  ASSERT_EQ(contents->aliases.size(), 1u);
  EXPECT_EQ(contents->aliases[0].target, "a");
  EXPECT_EQ(contents->aliases[0].version, 1u);
}

TEST_F(RegistryTest, IsWrittenWithAWriteAheadLog) {
  Open();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  std::string mode;
  sqlite3_exec(
      db, "PRAGMA journal_mode",
      [](void* out, int, char** values, char**) {
        *static_cast<std::string*>(out) = values[0];
        return 0;
      },
      &mode, nullptr);
  sqlite3_close(db);
  EXPECT_EQ(mode, "wal");
}

TEST_F(RegistryTest, RefusesNamesThatAreTaken) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a"), b = Row("default", "b");
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1)).ok());
  EXPECT_EQ(registry->CreateAdapter(a, VersionOf(a, 1)).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry->AddVersion(a, VersionOf(a, 1)).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry->PutAlias({"default", "a", "a", 1, 0}).status().code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(registry->PutAlias({"default", "b", "a", 1, 0}).ok());
  EXPECT_EQ(registry->CreateAdapter(b, VersionOf(b, 1)).status().code(),
            absl::StatusCode::kAlreadyExists);
  // Another tenant has names of its own.
  const Registry::Adapter other = Row("acme", "a");
  EXPECT_TRUE(registry->CreateAdapter(other, VersionOf(other, 1)).ok());
}

TEST_F(RegistryTest, NeverGivesAnEtagTwice) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  const uint64_t first = *registry->CreateAdapter(a, VersionOf(a, 1));
  ASSERT_TRUE(registry->DeleteAdapter("default", "a").ok());
  EXPECT_GT(*registry->CreateAdapter(a, VersionOf(a, 1)), first);
}

TEST_F(RegistryTest, RefusesAliasesToNothing) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1)).ok());
  for (const Registry::Alias& alias :
       {Registry::Alias{"default", "x", "a", 2, 0},
        Registry::Alias{"default", "x", "b", 1, 0},
        Registry::Alias{"acme", "x", "a", 1, 0}}) {
    EXPECT_EQ(registry->PutAlias(alias).status().code(),
              absl::StatusCode::kNotFound);
  }
  EXPECT_EQ(registry->UpdateAdapter(Row("default", "b")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, DeletesAnAdapterWithVersionsAndAliases) {
  const auto registry = Open();
  for (const char* name : {"a", "b"}) {
    const Registry::Adapter row = Row("default", name);
    ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1)).ok());
    ASSERT_TRUE(
        registry->PutAlias({"default", std::string("to-") + name, name, 1, 0})
            .ok());
  }
  ASSERT_TRUE(registry->DeleteAdapter("default", "a").ok());
  const auto contents = registry->ReadAll();
  ASSERT_TRUE(contents.ok());
  EXPECT_EQ(contents->adapters.size(), 1u);
  EXPECT_EQ(contents->versions.size(), 1u);
  ASSERT_EQ(contents->aliases.size(), 1u);
  EXPECT_EQ(contents->aliases[0].name, "to-b");
}

TEST_F(RegistryTest, VersionsOfTheFirstSchemaArePlainLora) {
  const Registry::Adapter row = Row("default", "a");
  {
    const auto registry = Open();
    ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1)).ok());
  }
  Sql("ALTER TABLE versions DROP COLUMN features; PRAGMA user_version = 1");
  const auto contents = Open()->ReadAll();
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_EQ(contents->versions.size(), 1u);
  EXPECT_TRUE(contents->versions[0].features.is_plain());
  EXPECT_EQ(contents->versions[0].max_rank, 16);
}

TEST_F(RegistryTest, RefusesANewerSchema) {
  Open();
  Sql("PRAGMA user_version = 999");
  const auto registry = Registry::Open(path_);
  EXPECT_EQ(registry.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(registry.status()), "REGISTRY_NEWER");
}

TEST_F(RegistryTest, RefusesTheFileOfAnotherProgram) {
  Sql("PRAGMA application_id = 5; CREATE TABLE t (x)");
  EXPECT_EQ(Registry::Open(path_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(RegistryTest, SaysThatADamagedFileIsDamaged) {
  testing::WriteTestFile(path_, std::string(5000, 'x'));
  const auto registry = Registry::Open(path_);
  EXPECT_EQ(registry.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(registry.status()), "REGISTRY_DAMAGED");
}

TEST_F(RegistryTest, SaysThatAFileWithAHoleIsDamaged) {
  {
    const auto registry = Open();
    for (int i = 0; i < 50; ++i) {
      const Registry::Adapter row = Row("default", absl::StrCat("a", i));
      ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1)).ok());
    }
  }
  PosixFileSystem fs;
  std::string bytes = *fs.ReadFile(path_, 1 << 24);
  ASSERT_GT(bytes.size(), 3 * 4096u);
  // Keeps the first page, which has the schema.
  std::fill(bytes.begin() + 4096, bytes.end(), '\x55');
  testing::WriteTestFile(path_, bytes);
  EXPECT_EQ(Registry::Open(path_).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace lorikeet

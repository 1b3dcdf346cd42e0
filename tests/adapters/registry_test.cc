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
  static Alias To(const std::string& tenant, const std::string& alias,
                  const std::string& adapter, uint32_t version) {
    Alias a;
    a.tenant = tenant;
    a.name = alias;
    a.targets = {{adapter, version, 1}};
    return a;
  }
  const std::string path_ = testing::FreshTempDir("registry") + "/registry.db";
};

TEST_F(RegistryTest, SurvivesReopen) {
  const Registry::Adapter row = Row("default", "a");
  {
    const auto registry = Open();
    const auto created = registry->CreateAdapter(row, VersionOf(row, 1), {});
    ASSERT_TRUE(created.ok()) << created.status();
    const auto added = registry->AddVersion(row, VersionOf(row, 2), {}, {});
    ASSERT_TRUE(added.ok()) << added.status();
    EXPECT_NE(*created, *added);
    ASSERT_TRUE(registry->PutAlias(To("default", "task", "a", 1), {}).ok());
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
  EXPECT_EQ(contents->aliases[0].DescribeTargets(), "a@1");
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
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1), {}).ok());
  EXPECT_EQ(registry->CreateAdapter(a, VersionOf(a, 1), {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry->AddVersion(a, VersionOf(a, 1), {}, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry->PutAlias(To("default", "a", "a", 1), {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(registry->PutAlias(To("default", "b", "a", 1), {}).ok());
  EXPECT_EQ(registry->CreateAdapter(b, VersionOf(b, 1), {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  // Another tenant has names of its own.
  const Registry::Adapter other = Row("acme", "a");
  EXPECT_TRUE(registry->CreateAdapter(other, VersionOf(other, 1), {}).ok());
}

TEST_F(RegistryTest, NeverGivesAnEtagTwice) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  const uint64_t first = *registry->CreateAdapter(a, VersionOf(a, 1), {});
  ASSERT_TRUE(registry->DeleteAdapter("default", "a", {}).ok());
  EXPECT_GT(*registry->CreateAdapter(a, VersionOf(a, 1), {}), first);
}

TEST_F(RegistryTest, RefusesAliasesToNothing) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1), {}).ok());
  for (const Alias& alias :
       {To("default", "x", "a", 2), To("default", "x", "b", 1),
        To("acme", "x", "a", 1)}) {
    EXPECT_EQ(registry->PutAlias(alias, {}).status().code(),
              absl::StatusCode::kNotFound);
  }
  EXPECT_EQ(registry->UpdateAdapter(Row("default", "b")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RegistryTest, DeletesAnAdapterWithVersionsAndAliases) {
  const auto registry = Open();
  for (const char* name : {"a", "b"}) {
    const Registry::Adapter row = Row("default", name);
    ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1), {}).ok());
    ASSERT_TRUE(
        registry
            ->PutAlias(To("default", std::string("to-") + name, name, 1), {})
            .ok());
  }
  ASSERT_TRUE(registry->DeleteAdapter("default", "a", {}).ok());
  const auto contents = registry->ReadAll();
  ASSERT_TRUE(contents.ok());
  EXPECT_EQ(contents->adapters.size(), 1u);
  EXPECT_EQ(contents->versions.size(), 1u);
  ASSERT_EQ(contents->aliases.size(), 1u);
  EXPECT_EQ(contents->aliases[0].name, "to-b");
}

TEST_F(RegistryTest, VersionsOfTheSecondSchemaArePlainLora) {
  const Registry::Adapter row = Row("default", "a");
  {
    const auto registry = Open();
    ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1), {}).ok());
  }
  Sql("ALTER TABLE adapters DROP COLUMN merge_policy; "
      "ALTER TABLE versions DROP COLUMN features; PRAGMA user_version = 2");
  const auto contents = Open()->ReadAll();
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_EQ(contents->versions.size(), 1u);
  EXPECT_TRUE(contents->versions[0].features.is_plain());
  EXPECT_EQ(contents->versions[0].max_rank, 16);
}

TEST_F(RegistryTest, KeepsAMergePolicyAndHasNoneInTheThirdSchema) {
  Registry::Adapter row = Row("default", "a");
  row.merge_policy = MergePolicy::kAuto;
  ASSERT_TRUE(Open()->CreateAdapter(row, VersionOf(row, 1), {}).ok());
  EXPECT_EQ(Open()->ReadAll()->adapters[0].merge_policy, MergePolicy::kAuto);
  row.merge_policy = std::nullopt;
  ASSERT_TRUE(Open()->UpdateAdapter(row).ok());
  EXPECT_EQ(Open()->ReadAll()->adapters[0].merge_policy, std::nullopt);
  Sql("ALTER TABLE adapters DROP COLUMN merge_policy; PRAGMA user_version = 3");
  EXPECT_EQ(Open()->ReadAll()->adapters[0].merge_policy, std::nullopt);
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
      ASSERT_TRUE(registry->CreateAdapter(row, VersionOf(row, 1), {}).ok());
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

// ---- schemas ----------------------------------------------------------------

// What the first program wrote.
constexpr char kSchema1[] = R"sql(
      CREATE TABLE adapters (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT NOT NULL,
        display_name TEXT NOT NULL,
        source_path TEXT NOT NULL,
        labels TEXT NOT NULL,
        pinned INTEGER NOT NULL,
        etag INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE versions (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL CHECK (version >= 1),
        digest TEXT NOT NULL,
        base_fingerprint TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        max_rank INTEGER NOT NULL,
        alpha REAL NOT NULL,
        use_rslora INTEGER NOT NULL,
        target_modules TEXT NOT NULL,
        warnings TEXT NOT NULL,
        modules TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant, name, version),
        FOREIGN KEY (tenant, name) REFERENCES adapters ON DELETE CASCADE
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE aliases (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        target TEXT NOT NULL,
        version INTEGER NOT NULL,
        etag INTEGER NOT NULL,
        PRIMARY KEY (tenant, name),
        FOREIGN KEY (tenant, target, version) REFERENCES versions
          ON DELETE CASCADE
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX aliases_by_target ON aliases (tenant, target, version);
      CREATE TABLE etags (last INTEGER NOT NULL) STRICT;
      INSERT INTO etags VALUES (0);
      PRAGMA user_version = 1;
  PRAGMA application_id = 1282372161;
)sql";

TEST_F(RegistryTest, BringsAliasesOfTheFirstSchemaUpToDate) {
  Sql(kSchema1);
  Sql("INSERT INTO adapters VALUES ('default', 'a', 'u', '', '', '[]', 0, 7, "
      "1, 1)");
  Sql(absl::StrCat("INSERT INTO versions VALUES ('default', 'a', 1, '",
                   std::string(64, 'a'), "', '", std::string(64, 'b'),
                   "', 1, 4, 8.0, 0, '[]', '[]', '[]', 10)"));
  Sql("INSERT INTO aliases VALUES ('default', 'task', 'a', 1, 9)");
  Sql("UPDATE etags SET last = 9");
  for (int start = 0; start < 2; ++start) {  // also when it is done
    const auto contents = Open()->ReadAll();
    ASSERT_TRUE(contents.ok()) << contents.status();
    ASSERT_EQ(contents->aliases.size(), 1u);
    EXPECT_EQ(contents->aliases[0].name, "task");
    EXPECT_EQ(contents->aliases[0].DescribeTargets(), "a@1");
    EXPECT_EQ(contents->aliases[0].etag, 9u);
    EXPECT_FALSE(contents->aliases[0].rule.has_value());
  }
  // And the foreign keys still hold.
  const auto registry = Open();
  ASSERT_TRUE(registry->DeleteAdapter("default", "a", {}).ok());
  EXPECT_TRUE(registry->ReadAll()->aliases.empty());
  EXPECT_GT(*registry->CreateAdapter(Row("default", "b"),
                                     VersionOf(Row("default", "b"), 1), {}),
            9u);
}

TEST_F(RegistryTest, NamesBothNumbersOfANewerSchema) {
  Open();
  Sql("PRAGMA user_version = 999");
  const auto registry = Registry::Open(path_);
  EXPECT_EQ(registry.status().message(),
            "registry has schema 999, this program knows up to 4: it was "
            "written by a newer one");
}

TEST_F(RegistryTest, SaysThatAFileCannotBeWritten) {
  Open();
  // As root every file can be written, but not a directory as a file.
  EXPECT_EQ(
      ReasonOf(Registry::Open(testing::FreshTempDir("registry_dir")).status()),
      "STATE_DIR_READ_ONLY");
}

// ---- splits -----------------------------------------------------------------

TEST_F(RegistryTest, KeepsEverythingOfAnAlias) {
  Alias alias = To("default", "t", "a", 1);
  alias.targets.push_back({"a", 2, 5});
  alias.targets[0].weight = 95;
  alias.shadow = AliasShadow{"b", 1, 0.25};
  alias.previous = AliasTarget{"b", 1, 1};
  alias.rule = RollbackRule{0.1, absl::Milliseconds(250), absl::Minutes(2), 7};
  {
    const auto registry = Open();
    const Registry::Adapter a = Row("default", "a"), b = Row("default", "b");
    ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1), {}).ok());
    ASSERT_TRUE(registry->AddVersion(a, VersionOf(a, 2), {}, {}).ok());
    ASSERT_TRUE(registry->CreateAdapter(b, VersionOf(b, 1), {}).ok());
    ASSERT_TRUE(registry->PutAlias(alias, {}).ok());
  }
  const auto registry = Open();
  {
    const auto contents = registry->ReadAll();
    ASSERT_EQ(contents->aliases.size(), 1u);
    const Alias& found = contents->aliases[0];
    EXPECT_EQ(found.targets, alias.targets);
    EXPECT_EQ(found.shadow, alias.shadow);
    EXPECT_EQ(found.previous, alias.previous);
    EXPECT_EQ(found.rule, alias.rule);
  }
  // A rule without a bound for the latency is another case in the table.
  alias.rule->max_latency = absl::InfiniteDuration();
  ASSERT_TRUE(registry->PutAlias(alias, {}).ok());
  EXPECT_EQ(registry->ReadAll()->aliases[0].rule, alias.rule);
  // What goes is taken out, the rest stays.
  ASSERT_TRUE(registry->DeleteAdapter("default", "b", {}).ok());
  const Alias left = registry->ReadAll()->aliases[0];
  EXPECT_EQ(left.DescribeTargets(), "a@1:95 a@2:5");
  EXPECT_FALSE(left.previous.has_value());
  ASSERT_TRUE(registry->DeleteAdapter("default", "a", {}).ok());
  EXPECT_TRUE(registry->ReadAll()->aliases.empty());
}

// ---- audit ------------------------------------------------------------------

TEST_F(RegistryTest, WritesTheTrailWithTheChangeOrNotAtAll) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  AuditEntry entry;
  entry.time = absl::FromUnixMicros(5);
  entry.actor = "ipv4:10.0.0.1:99";
  entry.action = "register";
  entry.tenant = "default";
  entry.name = "a";
  entry.new_target = "a@1";
  entry.reason = "why";
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1), entry).ok());
  EXPECT_FALSE(registry->CreateAdapter(a, VersionOf(a, 1), entry).ok());
  entry.action = "update";
  ASSERT_TRUE(registry->AddVersion(a, VersionOf(a, 2), {1}, entry).ok());
  const auto trail = registry->ReadAudit({"default", "", 0, 100});
  ASSERT_TRUE(trail.ok()) << trail.status();
  ASSERT_EQ(trail->size(), 3u);  // newest first
  EXPECT_EQ((*trail)[0].action, "update");
  EXPECT_EQ((*trail)[1].action, "retire");
  EXPECT_EQ((*trail)[1].old_target, "a@1");
  EXPECT_EQ((*trail)[2].action, "register");
  EXPECT_EQ((*trail)[2].time, entry.time);
  EXPECT_EQ((*trail)[2].actor, entry.actor);
  EXPECT_EQ((*trail)[2].new_target, "a@1");
  EXPECT_EQ((*trail)[2].reason, "why");
  // Page by page, and by name.
  EXPECT_EQ(registry->ReadAudit({"default", "", (*trail)[1].id, 100})->size(),
            1u);
  EXPECT_EQ(registry->ReadAudit({"default", "", 0, 2})->size(), 2u);
  EXPECT_TRUE(registry->ReadAudit({"default", "b", 0, 100})->empty());
  EXPECT_TRUE(registry->ReadAudit({"acme", "", 0, 100})->empty());
}

TEST_F(RegistryTest, TheTrailCannotBeAltered) {
  const auto registry = Open();
  const Registry::Adapter a = Row("default", "a");
  AuditEntry entry;
  entry.tenant = "default";
  ASSERT_TRUE(registry->CreateAdapter(a, VersionOf(a, 1), entry).ok());
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  for (const char* sql :
       {"DELETE FROM audit", "UPDATE audit SET actor = 'x'"}) {
    EXPECT_NE(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    EXPECT_STREQ(sqlite3_errmsg(db), "the audit trail is append-only");
  }
  sqlite3_close(db);
}

}  // namespace
}  // namespace lorikeet

// A store on a small base in a fresh directory, for tests.

#ifndef LORIKEET_TESTS_ADAPTERS_STORE_FIXTURE_H_
#define LORIKEET_TESTS_ADAPTERS_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_store.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {

class StoreFixture : public ::testing::Test {
 protected:
  using Mode = AdapterStore::RegisterRequest::Mode;

  StoreFixture() {
    options_.state_dir = root_ + "/state";
    options_.roots = {root_ + "/allowed"};
    options_.host_bytes = 1 << 20;
    options_.device_bytes = 1 << 20;
    options_.max_device_adapters = 2;
    std::filesystem::create_directories(options_.roots[0]);
    Open();
  }

  void Open(int base = 1) {
    store_.reset();
    auto store =
        AdapterStore::Open(fs_, clock_, SmallBase(base), ops_, options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::string Source(const std::string& name, float value) {
    return WriteAdapter(options_.roots[0] + "/" + name, value);
  }
  absl::StatusOr<AdapterInfo> Register(const std::string& name, float value,
                                       Mode mode = Mode::kCreate) {
    AdapterStore::RegisterRequest r;
    r.name = name;
    r.path = Source(absl::StrCat(name, "-", value), value);
    r.mode = mode;
    return store_->Register(r);
  }
  absl::StatusOr<VersionRef> Resolve(absl::string_view text) {
    const auto ref = AdapterRef::Parse(text);
    if (!ref.ok()) return ref.status();
    return store_->Resolve(*ref);
  }
  // The files under the state directory, for leaks.
  std::vector<std::string> Stored() {
    return *fs_.List(options_.state_dir + "/adapters");
  }
  absl::Status Delete(const std::string& name) {
    const absl::Status status = store_->BeginDelete("default", name, {});
    return status.ok() ? store_->FinishDelete("default", name) : status;
  }

  PosixFileSystem fs_;
  ManualClock clock_;
  FakeOps ops_;
  const std::string root_ =
      FreshTempDir(absl::StrCat("store_", ::testing::UnitTest::GetInstance()
                                              ->current_test_info()
                                              ->test_suite_name()));
  AdapterStoreOptions options_;
  std::unique_ptr<AdapterStore> store_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_ADAPTERS_STORE_FIXTURE_H_

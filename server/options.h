// The options of the server and of the offline commands, one field a flag.
//
// A flag on the command line beats the YAML file of --config, which beats the
// default. YAML keys are the flags without the leading dashes.
// Plain data.

#ifndef LORIKEET_SERVER_OPTIONS_H_
#define LORIKEET_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device/open_device.h"

namespace CLI {
class App;
}

namespace lorikeet {

struct ServerOptions {
  // Model and device: serve, run, bench engine.
  std::string model_dir;
  std::string device = "auto";          // one of DeviceNames()
  std::string dtype = "auto";           // auto | bf16 | f16 | f32 | int8
  std::string compute_dtype = "f32";    // f32 | bf16
  std::string load_format = "auto";     // auto | dummy
  std::string kv_cache_dtype = "auto";  // auto | f32 | bf16
  std::string adapter_dtype = "auto";   // auto | f32 | bf16 | f16 | int8
  int threads = 0;                      // 0 = all cores
  bool batch_invariant = false;         // of CUDA; the CPU always is
  int64_t device_memory_bytes = 0;      // of CUDA; 0 = 9 tenths of the free
  bool cuda_graphs = true;
  bool pin_threads = false;
  bool huge_pages = true;
  int64_t max_model_len = 0;  // 0 = as the model and the KV cache allow
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  int64_t max_waiting_requests = 1024;
  int64_t kv_cache_bytes = 0;  // 0 = a quarter of the free memory
  bool prefix_caching = true;
  int max_loras = 64;  // adapters on the device at once
  int64_t max_lora_rank = 256;
  int64_t adapter_host_bytes = int64_t{2} << 30;
  int64_t adapter_device_bytes = int64_t{2} << 30;
  std::string merge = "never";  // never | always | auto
  // Merged variants at once; 0 = none. Not given: 1, on a device 0 unless
  // something is merged.
  std::optional<int> max_merged;
  int loader_threads = 1;
  int adapter_version_retention = 0;  // newest versions kept; 0 = all
  std::string state_dir;              // "" = the command's default
  std::string log_level = "info";
  bool log_json = false;
  std::string config_file;

  // serve only.
  std::string served_model_name;  // "" = last part of the model's path
  std::string host = "127.0.0.1";
  int grpc_port = 8001;   // 0 = any free port
  bool insecure = false;  // allow a host beyond loopback
  // Training jobs: of the engine thread's time while it serves; 0 = no jobs.
  double train_share = 0;
  int64_t train_device_bytes = 0;  // of a device; 0 = 3/2 of the weights
  std::vector<std::string> training_roots;
  std::vector<std::string> adapter_roots;
  std::vector<std::string> lora_modules;  // name=path
  double shutdown_timeout_seconds = 30;
  double slow_reader_timeout_seconds = 30;
  double verify_base_interval_seconds = 600;  // 0 = only when asked

  // What OpenDevice wants to know.
  DeviceOptions Device() const;
};

// Adds the flags of the first group to a subcommand, bound to `options`.
void AddModelFlags(CLI::App& app, ServerOptions* options);
// Adds the flags of the second group.
void AddServeFlags(CLI::App& app, ServerOptions* options);

// Applies the YAML file of --config to every flag of `app` that the command
// line did not give.
// Errors: NOT_FOUND or INVALID_ARGUMENT naming file, key and value.
absl::Status ApplyConfigFile(CLI::App& app, const ServerOptions& options);

// Makes the log what --log-level and --log-json say.
// Errors: INVALID_ARGUMENT naming the level.
absl::Status ApplyLogFlags(const ServerOptions& options);

// Checks what flags alone cannot.
// Errors: INVALID_ARGUMENT naming flag, value and limit.
absl::Status CheckOptions(const ServerOptions& options);

// Splits "name=path".
absl::StatusOr<std::pair<std::string, std::string>> SplitNameAndPath(
    absl::string_view flag, absl::string_view text);

// Where `serve` keeps its state if no --state-dir is given: $STATE_DIRECTORY
// (systemd), else $XDG_STATE_HOME/lorikeet, else ~/.local/state/lorikeet.
std::string DefaultStateDir();

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_OPTIONS_H_

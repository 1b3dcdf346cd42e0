// `lorikeet adapter merge`: writes a base model with adapters merged in as a
// Hugging Face checkpoint of its own, without a server.

#ifndef LORIKEET_CLI_ADAPTER_MERGE_H_
#define LORIKEET_CLI_ADAPTER_MERGE_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds "merge" to `adapter_app`; its callback sets *exit_code.
void AddAdapterMergeCommand(CLI::App& adapter_app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ADAPTER_MERGE_H_

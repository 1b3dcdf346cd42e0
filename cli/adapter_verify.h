// `lorikeet adapter verify`: checks a PEFT directory against a base model, as
// the server would at registration, without a server and without reading the
// base's weights.

#ifndef LORIKEET_CLI_ADAPTER_VERIFY_H_
#define LORIKEET_CLI_ADAPTER_VERIFY_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds "verify" to `adapter_app`; its callback sets *exit_code.
void AddAdapterVerifyCommand(CLI::App& adapter_app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ADAPTER_VERIFY_H_

# The subcommands that talk to a running server.
lorikeet_cc_library(NAME cli_client
  HDRS adapter.h adapter_alias.h adapter_format.h bench_serve.h channel.h choice.h
       demo.h demo_manifest.h generate.h job.h merged.h models.h progress_bar.h
       rpc_client.h table.h
  SRCS adapter.cc adapter_alias.cc adapter_format.cc bench_serve.cc channel.cc demo.cc
       demo_manifest.cc generate.cc job.cc merged.cc models.cc rpc_client.cc table.cc
  DEPS lorikeet::proto lorikeet::loadgen lorikeet::base CLI11::CLI11
       absl::status absl::statusor absl::strings absl::str_format absl::time
       absl::function_ref)

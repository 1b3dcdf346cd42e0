// Findings: rules of CUDA that a kernel or its host code broke.
//
// One finding per kind and place, however often it happens. Thread-compatible.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_FINDINGS_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_FINDINGS_H_

#include <source_location>
#include <string>

#include "tests/cuda_on_host/options.h"

namespace cuda_on_host {

using Loc = std::source_location;

// `place` tells findings of one kind apart.
void ReportFinding(const char* kind, const std::string& text,
                   const std::string& place);

// "rms_norm.cu:17".
std::string Where(const Loc& loc);
// "function (file:line)" of an address of this program, by addr2line.
std::string Symbolize(const void* pc);
// The name of the function at an address, without templates and arguments.
std::string FunctionName(const void* function);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_FINDINGS_H_

// The check behind every access of a kernel.
//
// In this order: own stack, built-ins and parameters (fine); natural alignment;
// bounds of the allocation or of the block's shared memory; cp.async that has
// not been waited for; initialisation; the read-only path; races, by
// happens-before, between threads of a block, between blocks, and between
// operations of streams. An access out of bounds or misaligned is a fault: it
// ends the launch and breaks the context, as in CUDA.
//
// Kernels are compiled with -fsanitize=thread but without its runtime, so each
// plain load and store calls in here (hooks.cc). Without CUDA_ON_HOST_CHECKED
// all of this is empty, but for CheckShared.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_CHECKER_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_CHECKER_H_

#include <cstddef>
#include <cstdint>

#include "tests/cuda_on_host/findings.h"

namespace cuda_on_host {

enum class AccessKind : uint8_t { kRead, kReadOnly, kWrite, kAtomic };

void OnLoad(const void* p, size_t size, bool read_only, const Loc& loc);
void OnStore(const void* p, size_t size, const Loc& loc);
void OnAtomic(const void* p, size_t size, const Loc& loc);
// From the compiler; `pc` is where the call returns to.
void OnPlainAccess(const void* p, size_t size, AccessKind kind, const void* pc);
void OnMatrixRow(const void* row, const Loc& loc);
// A cp.async of 16 bytes; `global` is null where zeros are written.
void OnCopyBegin(const void* shared, const void* global, const Loc& loc);
void OnCopyEnd(const void* shared, const Loc& loc);

// 16 bytes, aligned, in the block's shared memory, else a fault.
void CheckShared(const void* p, size_t size, const char* what, const Loc& loc);

// An operation of a stream (copy, memset, GEMM) reads or writes a range. Host
// memory is not looked at.
void OnStreamAccess(const void* p, size_t size, bool is_write,
                    const char* what);

void ForgetShadow(const void* p, size_t size);
void ForgetSharedState(size_t size);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_CHECKER_H_

# Where CUDA is, and what can be built of it. Everything here is optional.
#
# LORIKEET_CUDA_HEADERS: the headers of CUDA 13 with cuBLASLt are there, enough
# for the emulated device of tests/cuda_on_host.
# LORIKEET_CUDA_INCLUDE: their folder.
# LORIKEET_NVCC: the compiler, enough for the plug-in.
find_program(LORIKEET_NVCC nvcc HINTS /usr/local/cuda/bin)
set(hints /usr/local/cuda/include)
if(LORIKEET_NVCC)
  get_filename_component(nvcc ${LORIKEET_NVCC} REALPATH)
  get_filename_component(toolkit ${nvcc} DIRECTORY)
  list(APPEND hints ${toolkit}/../include)
endif()
find_path(LORIKEET_CUDA_INCLUDE cublasLt.h HINTS ${hints})
set(LORIKEET_CUDA_HEADERS OFF)
if(LORIKEET_CUDA_INCLUDE AND EXISTS ${LORIKEET_CUDA_INCLUDE}/cuda_runtime.h)
  file(STRINGS ${LORIKEET_CUDA_INCLUDE}/cuda_runtime_api.h version
       REGEX "#define CUDART_VERSION +13")
  if(version)
    set(LORIKEET_CUDA_HEADERS ON)
  endif()
endif()
# LORIKEET_CUDA_ON_HOST: the emulated device and `--device cuda-on-host`.
set(LORIKEET_CUDA_ON_HOST OFF)
if(LORIKEET_CUDA_HEADERS AND LORIKEET_BUILD_TESTS AND
   NOT LORIKEET_SANITIZER AND  # the checked build borrows TSan's hooks
   CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(LORIKEET_CUDA_ON_HOST ON)
endif()
if(NOT LORIKEET_CUDA_HEADERS)
  message(STATUS "skipped: no CUDA headers")
endif()
find_library(LORIKEET_CUDART libcudart_static.a HINTS
  ${LORIKEET_CUDA_INCLUDE}/../lib64 ${LORIKEET_CUDA_INCLUDE}/../lib)
find_library(LORIKEET_CUBLASLT cublasLt HINTS
  ${LORIKEET_CUDA_INCLUDE}/../lib64 ${LORIKEET_CUDA_INCLUDE}/../lib)

# What the program and the plug-in have to agree on: the headers that both
# compile, and the compiler.
set(LORIKEET_OPS_ABI "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
foreach(header
    base/strong_int.h base/token.h kernels/cuda_plugin.h kernels/dtype.h
    kernels/linear_id.h kernels/lora_batch.h kernels/memory.h kernels/ops.h
    kernels/packed_weight.h kernels/paged_kv.h kernels/sampling.h kernels/stream.h
    kernels/tensor.h kernels/train_ops.h)
  file(SHA256 ${PROJECT_SOURCE_DIR}/${header} digest)
  string(APPEND LORIKEET_OPS_ABI " ${digest}")
  set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY
    CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${header})
endforeach()
string(SHA256 LORIKEET_OPS_ABI "${LORIKEET_OPS_ABI}")

# The disassembler, of the toolkit or of scripts/get_disassembler.sh.
file(GLOB wheels ${PROJECT_SOURCE_DIR}/build/disassembler/nvidia/*/bin)
find_program(LORIKEET_CUOBJDUMP cuobjdump HINTS /usr/local/cuda/bin ${wheels})

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
if(NOT LORIKEET_CUDA_HEADERS)
  message(STATUS "skipped: no CUDA headers")
endif()

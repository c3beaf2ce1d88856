# For which GPUs code is built. By default for those of this machine; where it has none, intermediate code for compute capability
# 8.0 that the driver of any later GPU compiles when it first loads the module, so that a build without a GPU stays quick.
# Wheels name theirs: -C cmake.define.KINOSPLAT_CUDA_ARCHITECTURES="75;80;86;89;90;100;120", which takes nvcc 12.8.
set(KINOSPLAT_CUDA_ARCHITECTURES "auto" CACHE STRING "List of compute capabilities, or auto")
if(DEFINED CMAKE_CUDA_ARCHITECTURES)
  # Asked for by the builder, also through the environment variable CUDAARCHS.
elseif(NOT KINOSPLAT_CUDA_ARCHITECTURES STREQUAL "auto")
  set(CMAKE_CUDA_ARCHITECTURES "${KINOSPLAT_CUDA_ARCHITECTURES}")
else()
  find_program(KINOSPLAT_NVIDIA_SMI nvidia-smi)
  set(gpus "")
  if(KINOSPLAT_NVIDIA_SMI)
    execute_process(COMMAND "${KINOSPLAT_NVIDIA_SMI}" --query-gpu=compute_cap --format=csv,noheader
                    OUTPUT_VARIABLE gpus OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  if(gpus)
    set(CMAKE_CUDA_ARCHITECTURES native)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual)
  endif()
endif()

# Said here, because a compiler that does not know an architecture only says "Unsupported gpu architecture".
execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE nvcc_says ERROR_QUIET)
if(nvcc_says MATCHES "release ([0-9]+[.][0-9]+)")
  set(nvcc_version "${CMAKE_MATCH_1}")
  if(nvcc_version VERSION_LESS 12.4)
    message(WARNING "kinosplat: nvcc ${nvcc_version} is older than 12.4, the oldest the CUDA backend is meant for; install a newer "
                    "CUDA toolkit, or leave the backend out with -C cmake.define.KINOSPLAT_CUDA=OFF.")
  endif()
  if(nvcc_version VERSION_LESS 12.8 AND CMAKE_CUDA_ARCHITECTURES MATCHES "(^|;)1[0-9][0-9]")
    message(FATAL_ERROR "kinosplat: compute capabilities from 10.0 on need nvcc 12.8 or newer, but this is ${nvcc_version}; install a "
                        "newer CUDA toolkit, or leave them out of the list \"${CMAKE_CUDA_ARCHITECTURES}\".")
  endif()
endif()
message(STATUS "kinosplat: building the CUDA backend for ${CMAKE_CUDA_ARCHITECTURES}")

# Sources of the native module. The CPU backend is always built; the CUDA one when its files, a compiler and KINOSPLAT_CUDA are there.
set(KINOSPLAT_CPU_SOURCES
  cpu/adam.cpp
  cpu/alpha_difference.cpp
  cpu/bin.cpp
  cpu/blend_backward.cpp
  cpu/blend_forward.cpp
  cpu/composite.cpp
  cpu/directions.cpp
  cpu/exposure.cpp
  cpu/field_heads.cpp
  cpu/fused_field.cpp
  cpu/hash_grid.cpp
  cpu/march.cpp
  cpu/march_blocks.cpp
  cpu/mcmc.cpp
  cpu/mlp.cpp
  cpu/occupancy.cpp
  cpu/pixel_draw.cpp
  cpu/project_backward.cpp
  cpu/project_forward.cpp
  cpu/ray_difference.cpp
  cpu/ssim.cpp
  cpu/statistics.cpp
  cpu/target.cpp
  cpu/threads.cpp
  cpu/tiles.cpp
)

# One pair of .cu files a pass, under gpu/, like the CPU's.
set(KINOSPLAT_GPU_SOURCES
  gpu/adam.cu
  gpu/alpha_difference.cu
  gpu/bin.cu
  gpu/bindings.cpp
  gpu/blend_backward.cu
  gpu/blend_forward.cu
  gpu/channels.cu
  gpu/compact.cu
  gpu/composite.cu
  gpu/directions.cu
  gpu/exposure.cu
  gpu/field_bindings.cpp
  gpu/field_heads.cu
  gpu/field_step_bindings.cpp
  gpu/fused_field.cu
  gpu/hash_grid.cu
  gpu/march.cu
  gpu/march_blocks.cu
  gpu/march_buffer.cu
  gpu/mcmc.cu
  gpu/mlp.cu
  gpu/occupancy.cu
  gpu/pixel_draw.cu
  gpu/project_backward.cu
  gpu/project_forward.cu
  gpu/radix_sort.cu
  gpu/ray_difference.cu
  gpu/ssim.cu
  gpu/target.cu
  gpu/training_bindings.cpp
  gpu/visible.cu
)

find_package(Threads REQUIRED)
nanobind_add_module(_native NB_STATIC bindings.cpp field_bindings.cpp field_step_bindings.cpp fused_field_bindings.cpp mlp_bindings.cpp training_bindings.cpp ${KINOSPLAT_CPU_SOURCES})
target_include_directories(_native PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_link_libraries(_native PRIVATE Threads::Threads)

# No errno and no trapping, so that loops vectorise; NaN and infinity keep their meaning (no -ffinite-math-only). -fopenmp-simd reads the
# simd pragmas and links no OpenMP runtime.
add_library(kinosplat_cpu_flags INTERFACE)
target_compile_options(kinosplat_cpu_flags INTERFACE
  $<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:-O3 -fno-math-errno -fno-trapping-math -fopenmp-simd>
  # GCC's own AVX-512 headers set these two off.
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized -Wno-uninitialized>)
include(CheckCXXCompilerFlag)
if(KINOSPLAT_NATIVE_ARCH)
  check_cxx_compiler_flag(-march=native KINOSPLAT_HAS_MARCH_NATIVE)
  if(KINOSPLAT_HAS_MARCH_NATIVE)
    target_compile_options(kinosplat_cpu_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # AVX2 and FMA, which every x86 processor sold since 2015 has; blending takes half the time it takes with SSE2.
  check_cxx_compiler_flag(-march=x86-64-v3 KINOSPLAT_HAS_MARCH_V3)
  if(KINOSPLAT_HAS_MARCH_V3)
    target_compile_options(kinosplat_cpu_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=x86-64-v3>)
  endif()
endif()
target_link_libraries(_native PRIVATE kinosplat_cpu_flags)

set(KINOSPLAT_HAS_CUDA 0)
if(KINOSPLAT_CUDA AND KINOSPLAT_GPU_SOURCES)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(KINOSPLAT_HAS_CUDA 1)
    include(cmake/cuda_architectures.cmake)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    target_sources(_native PRIVATE ${KINOSPLAT_GPU_SOURCES})
    target_link_libraries(_native PRIVATE CUDA::cudart_static)
    # The target is older than the language, so it has not picked the architectures up by itself.
    set_target_properties(_native PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
                          CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  else()
    message(STATUS "kinosplat: no CUDA compiler found, building the CPU backend only")
  endif()
endif()
target_compile_definitions(_native PRIVATE KINOSPLAT_HAS_CUDA=${KINOSPLAT_HAS_CUDA})

install(TARGETS _native LIBRARY DESTINATION kinosplat)

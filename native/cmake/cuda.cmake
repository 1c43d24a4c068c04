# The CUDA backend, libmla_cuda.so: built where an nvcc of 12.4 or later is found, in the environment variables CUDACXX or
# CUDA_HOME, in build/nvcc (src/cuda/get-nvcc.sh) or on the PATH. A compiler that CUDACXX names must work; without any,
# one line says that there is none.
#
# nvcc is called by plain commands: CMake's own CUDA support wants the folders of an installed toolkit, which NVIDIA's
# wheels do not have.

function(mla_find_nvcc result)
  if(DEFINED ENV{CUDACXX})
    if(NOT EXISTS "$ENV{CUDACXX}")
      message(FATAL_ERROR "CUDACXX names $ENV{CUDACXX}, which is not there")
    endif()
    set(found $ENV{CUDACXX})
  else()
    find_program(found nvcc NO_CACHE NO_DEFAULT_PATH
      PATHS $ENV{CUDA_HOME}/bin ${CMAKE_CURRENT_SOURCE_DIR}/build/nvcc/nvidia/cu13/bin ENV PATH)
  endif()
  if(NOT found)
    message(NOTICE "No nvcc: this build has no CUDA backend. native/src/cuda/get-nvcc.sh brings one.")
    return()
  endif()
  execute_process(COMMAND ${found} --version OUTPUT_VARIABLE words RESULT_VARIABLE status)
  string(REGEX MATCH "release ([0-9.]+)" _ "${words}")
  if(NOT status EQUAL 0 OR CMAKE_MATCH_1 VERSION_LESS 12.4)
    if(DEFINED ENV{CUDACXX})
      message(FATAL_ERROR "${found} is no nvcc of 12.4 or later")
    endif()
    message(NOTICE "${found} is no nvcc of 12.4 or later: this build has no CUDA backend")
    return()
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

# Compiles every source below src/cuda into an object; the caller gets their paths.
function(mla_compile_cuda nvcc result)
  file(GLOB sources CONFIGURE_DEPENDS src/cuda/*.cu)
  set(objects)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    # ptxas tells of every place where it orders products by itself: what it says is shown when it fails. Warnings fail.
    add_custom_command(OUTPUT ${object}
      COMMAND sh -c "\"$@\" > ${object}.log 2>&1 || { cat ${object}.log; exit 1; }" nvcc
              ${nvcc} -std=c++17 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a
              -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra -Werror all-warnings
              -I${CMAKE_CURRENT_SOURCE_DIR}/include -I${CMAKE_CURRENT_SOURCE_DIR}/src
              -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d
      COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(${result} ${objects} PARENT_SCOPE)
endfunction()

mla_find_nvcc(nvcc)
if(nvcc)
  get_filename_component(real_nvcc ${nvcc} REALPATH)
  get_filename_component(toolkit ${real_nvcc}/../.. ABSOLUTE)
  find_library(MLA_CUDART cudart_static REQUIRED
    HINTS ${toolkit}/lib64 ${toolkit}/lib ${toolkit}/targets/x86_64-linux/lib)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda)
  mla_compile_cuda(${nvcc} cuda_objects)
  add_library(mla_cuda SHARED ${cuda_objects})
  set_target_properties(mla_cuda PROPERTIES LINKER_LANGUAGE CXX
    LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/libmla_cuda.map)
  # The driver's library is looked up at run time, so that this one loads where there is none.
  target_link_libraries(mla_cuda PRIVATE ${MLA_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
  target_link_options(mla_cuda PRIVATE -static-libstdc++ -static-libgcc -Wl,--no-undefined
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/libmla_cuda.map)
endif()

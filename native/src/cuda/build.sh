#!/usr/bin/env bash
# Compiles the attention kernels and the matrix products for CUDA and their test and benchmark programs with plain nvcc (12.4 or later).
#
#   native/src/cuda/build.sh OUT_DIR [nvcc options]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
native=$(cd "$here/../.." && pwd)
out=$1; shift
mkdir -p "$out"
nvcc=$(command -v nvcc) || { echo "build.sh: no nvcc on the PATH; install a CUDA toolkit of 12.4 or later" >&2; exit 1; }
# NVIDIA's pip wheels keep the libraries beside the compiler, where nvcc does not look by itself.
libraries=$(dirname "$(dirname "$nvcc")")/lib
options=(-std=c++17 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -cudart static -Xcompiler -Wall,-Wextra
         -Werror all-warnings -I"$native/include" -I"$here" "$@")
decode=(decode decode_cluster decode_team decode_plan decode_plan_order decode_plan_rule)
for unit in "${decode[@]}" decode_fp8 prefill prefill_plan gemm gemm_library; do
  "$nvcc" "${options[@]}" -c "$here/$unit.cu" -o "$out/$unit.o"
done
for unit in decode_cases decode_test prefill_test fp8_test gemm_cases gemm_test; do
  "$nvcc" "${options[@]}" -c "$native/test/cuda/$unit.cu" -o "$out/$unit.o"
done
link() {  # PROGRAM UNIT...
  local objects=("${@:2}")
  "$nvcc" "${options[@]}" -L"$libraries" "${objects[@]/#/$out/}" -o "$out/$1"
}
link decode_test "${decode[@]/%/.o}" decode_cases.o decode_test.o
link prefill_test prefill.o prefill_plan.o prefill_test.o
link fp8_test decode_fp8.o "${decode[@]/%/.o}" decode_cases.o fp8_test.o
link gemm_test gemm.o gemm_library.o gemm_cases.o gemm_test.o

// mla_gemm, mla_batched_gemm and mla_moe_gemm on Hopper: the entry points behind mla.h's. Arguments have been checked by
// api.cc; what is checked here is what only this backend cannot do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

#include "mla.h"

namespace mla::cuda {

/*
 * The matrix products of one device: a kernel of our own, and cuBLASLt for the products without experts where it is
 * installed. Belongs to the thread of its context. All calls only put work on `stream`, allocate no device memory, and may
 * be captured in a graph. Each returns MLA_OK, MLA_UNSUPPORTED (nothing was done) or MLA_DEVICE_ERROR, with the reason in
 * `error`.
 */
class Gemm {
 public:
  // Uses the current device. MLA_OUT_OF_MEMORY or MLA_DEVICE_ERROR with the reason in `error`.
  static mla_status create(std::unique_ptr<Gemm> &out, std::string &error);
  ~Gemm();

  // Whether a row's result must not depend on the other rows of a call; off at first. Then our own kernel does it all.
  void set_deterministic(bool on);
  bool has_library() const;  // cuBLASLt is there

  mla_status gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out,
                  cudaStream_t stream, std::string &error);
  mla_status batched_gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor &out, cudaStream_t stream,
                          std::string &error);
  mla_status moe_gemm(const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets, const mla_tensor *weights,
                      int32_t num_experts, mla_activation activation, const mla_tensor &out, cudaStream_t stream,
                      std::string &error);

 private:
  struct State;
  explicit Gemm(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mla::cuda

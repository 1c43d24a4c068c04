// mla_prefill on Hopper: the entry point behind mla.h's. Arguments have been checked by api.cc; what is checked here is
// what only this backend cannot do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "mla.h"

namespace mla::cuda {

// Bytes of device memory, 32-byte aligned, that a call of at most so many queries (tokens of all sequences together) and
// sequences works in. Its contents need not survive between calls.
int64_t prefill_workspace_bytes(int64_t tokens, int64_t heads, int64_t batch);

// Puts the work on the stream; may be captured in a graph. MLA_OK, MLA_UNSUPPORTED (nothing was done) or MLA_DEVICE_ERROR,
// with the reason in `error`.
// Takes BF16, latent 512 + rope 64, any number of heads; rows of q evenly spaced (tokens and heads merge) and, like those of
// the cache, 16-byte aligned; out contiguous; tokens x heads below 2^31 and at most kMaxPlanBatch sequences.
mla_status prefill(const mla_prefill_args &args, void *workspace, int multiprocessors, cudaStream_t stream,
                   std::string &error);

}  // namespace mla::cuda

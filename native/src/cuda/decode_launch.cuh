// What the entry points of the decode kernels share (decode.cu).
#pragma once

#include "decode.h"
#include "decode_common.cuh"

namespace mla::cuda {

DecodeParams decode_params(const mla_decode_args &args, const DecodeShape &shape);

// Joins the partial results of the decode kernel before it on the stream.
cudaError_t launch_combine(const DecodeShape &shape, const DecodeParams &params, cudaStream_t stream);

}  // namespace mla::cuda

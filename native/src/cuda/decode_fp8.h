// MLA attention over a cache of FP8 latents: append and decode. 656 bytes a token: 512 e4m3 values, the first of the key;
// four float32 scales, one for each 128 of them; 64 rotated key dimensions in BF16.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "decode.h"
#include "mla.h"

namespace mla::cuda {

constexpr int kFp8TokenBytes = 656;

// All of these only put work on the stream and may be captured in a graph. They return MLA_OK, MLA_UNSUPPORTED (nothing was
// done) or MLA_DEVICE_ERROR, with the reason in `error`.

// Writes keys into the cache. Values are divided by their group's scale, max |x| / 448, and rounded to nearest.
//   latent  BF16 [T, 512]
//   k_rope  BF16 [T, 64]    rotated already
//   slots   I64 [T]         block * 64 + offset in the block
//   cache   e4m3 [blocks, 64, 656], counted in bytes, contiguous
mla_status append_fp8(const mla_tensor &latent, const mla_tensor &k_rope, const mla_tensor &slots, const mla_tensor &cache,
                      cudaStream_t stream, std::string &error);

// How a call is laid out; goes to launch_plan and workspace_floats of decode.h as the one of mla_decode does.
DecodeShape decode_fp8_shape(const mla_plan_args &args, int multiprocessors);

// mla_decode with the cache in this layout (shape and dtype as above). Made for few query rows (s_q x heads up to 32), where
// the cache's bytes decide; more are right, in tiles of 32 that each read the cache.
mla_status decode_fp8(const mla_decode_args &args, int multiprocessors, cudaStream_t stream, std::string &error);

}  // namespace mla::cuda

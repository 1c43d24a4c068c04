// The tile plan of a decode call: which blocks of which sequences each worker takes. See docs/kernels.md.
#pragma once

#include <cstdint>

namespace mla::cuda {

constexpr int kBlockTokens = 64;
constexpr int kStepTokens = 32;  // the kernels work and the plan counts in steps of so many keys
constexpr int kTileRows = 64;  // query rows (s_q x heads) of one thread block
constexpr int kHeadDim = 576;  // latent and rope part of a key
constexpr int kValueDim = 512;

// One row of `tiles`: the work of one worker (the thread blocks that share a part), from (first_seq, first_step) to
// (last_seq, end_step); first_seq > last_seq when there is none. Beside it, and not connected with it, row j holds the
// j-th sequence that has been cut (combine_seq, or -1 when there are fewer), in how many splits, and the part that has
// the first of them.
struct alignas(16) PlanPart {
  int32_t first_seq, first_step, last_seq, end_step;
  int32_t combine_seq, combine_splits, combine_part;
  int32_t first_len;  // length of first_seq: saves the kernel's start one dependent load
};
static_assert(sizeof(PlanPart) == 32, "a row of tiles is eight int32");

// A part writes at most two partial results: of a sequence that came from the part before, and of one that goes on in
// the next. Their places in the workspace:
__host__ __device__ constexpr int continued_slot(int part) { return 2 * part; }
__host__ __device__ constexpr int starting_slot(int part) { return 2 * part + 1; }

}  // namespace mla::cuda

// rope_and_append_kv: a token a block rotates its queries and writes its key into the paged cache.
#include "kernel.cuh"
#include "ops.h"
#include "rows.cuh"

namespace mla::cuda {
namespace {

constexpr int kThreads = 256;

struct Rope {
  const bf16 *q;
  bf16 *q_out;
  const bf16 *latent;
  const float *k;
  const float *cos_sin;
  const int32_t *positions;
  const int64_t *slots;
  bf16 *cache;
  int64_t q_token, q_head, out_token, out_head, latent_token, k_token, angle_row, block_stride, slot_stride;
  int heads, rope, latent_dim;
};

// kPairs pairs of a row, from pair `first` on; `from` may be `to`.
template <int kPairs, bool kInterleaved, class From>
__device__ __forceinline__ void rotate(const From *from, const float *cos_sin, int rope, int first, bf16 *to) {
  const int half = rope / 2;
  const Piece<kPairs> cosines = load<kPairs>(cos_sin + first);
  const Piece<kPairs> sines = load<kPairs>(cos_sin + half + first);
  Piece<kPairs> a, b;
  if constexpr (kInterleaved) {
    Piece<2 * kPairs> both;
    if constexpr (kPairs == 1) {  // a pair need not be aligned
      both = {{widen(from[2 * first]), widen(from[2 * first + 1])}};
    } else {
      both = load<2 * kPairs>(from + 2 * first);
    }
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      a.v[i] = both.v[2 * i] * cosines.v[i] - both.v[2 * i + 1] * sines.v[i];
      b.v[i] = both.v[2 * i] * sines.v[i] + both.v[2 * i + 1] * cosines.v[i];
      both.v[2 * i] = a.v[i];
      both.v[2 * i + 1] = b.v[i];
    }
    if constexpr (kPairs == 1) {
      to[2 * first] = narrow<bf16>(both.v[0]);
      to[2 * first + 1] = narrow<bf16>(both.v[1]);
    } else {
      store(to + 2 * first, both);
    }
  } else {
    a = load<kPairs>(from + first);
    b = load<kPairs>(from + half + first);
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      const float first_value = a.v[i];
      a.v[i] = first_value * cosines.v[i] - b.v[i] * sines.v[i];
      b.v[i] = first_value * sines.v[i] + b.v[i] * cosines.v[i];
    }
    store(to + first, a);
    store(to + half + first, b);
  }
}

// kPairs 4: rows come in 16 bytes. kPairs 1: one by one, wherever they lie.
template <int kPairs, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rope_kernel(Rope p) {
  constexpr int kCopy = kPairs == 1 ? 1 : kPiece;
  begin_kernel();
  const int64_t t = blockIdx.x;
  const float *cos_sin = p.cos_sin + p.positions[t] * p.angle_row;
  const int64_t slot = p.slots[t];
  bf16 *key = p.cache + slot / MLA_BLOCK_TOKENS * p.block_stride + slot % MLA_BLOCK_TOKENS * p.slot_stride;
  const int row_pieces = p.rope / 2 / kPairs;
  const int query_pieces = p.heads * row_pieces;
  const int latent_pieces = p.latent_dim / kCopy;
  for (int i = threadIdx.x; i < query_pieces + latent_pieces + row_pieces; i += kThreads) {
    if (i < query_pieces) {
      const int head = i / row_pieces;
      rotate<kPairs, kInterleaved>(p.q + t * p.q_token + head * p.q_head, cos_sin, p.rope, i % row_pieces * kPairs,
                                   p.q_out + t * p.out_token + head * p.out_head);
    } else if (i < query_pieces + latent_pieces) {
      const int at = (i - query_pieces) * kCopy;
      store(key + at, load<kCopy>(p.latent + t * p.latent_token + at));
    } else {
      rotate<kPairs, kInterleaved>(p.k + t * p.k_token, cos_sin, p.rope,
                                   (i - query_pieces - latent_pieces) * kPairs, key + p.latent_dim);
    }
  }
}

}  // namespace

void rope_and_append_kv(const Device &device, const mla_rope_args &args) {
  require("mla_rope_and_append_kv", "q_rope", args.q_rope, MLA_BF16);
  require("mla_rope_and_append_kv", "k_rope", args.k_rope, MLA_F32);
  Rope p = {};
  p.q = static_cast<const bf16 *>(args.q_rope.data);
  p.q_out = static_cast<bf16 *>(args.q_out.data);
  p.latent = static_cast<const bf16 *>(args.latent.data);
  p.k = static_cast<const float *>(args.k_rope.data);
  p.cos_sin = static_cast<const float *>(args.cos_sin.data);
  p.positions = static_cast<const int32_t *>(args.positions.data);
  p.slots = static_cast<const int64_t *>(args.slots.data);
  p.cache = static_cast<bf16 *>(args.cache.data);
  p.q_token = args.q_rope.stride[0];
  p.q_head = args.q_rope.stride[1];
  p.out_token = args.q_out.stride[0];
  p.out_head = args.q_out.stride[1];
  p.latent_token = args.latent.stride[0];
  p.k_token = args.k_rope.stride[0];
  p.angle_row = args.cos_sin.stride[0];
  p.block_stride = args.cache.stride[0];
  p.slot_stride = args.cache.stride[1];
  p.heads = static_cast<int>(args.q_rope.shape[1]);
  p.rope = static_cast<int>(args.q_rope.shape[2]);
  p.latent_dim = static_cast<int>(args.latent.shape[1]);
  const bool wide = in_pieces(args.q_rope, kPiece) && in_pieces(args.q_out, kPiece) && in_pieces(args.latent, kPiece) &&
                    in_pieces(args.k_rope, kPiece) && in_pieces(args.cos_sin, 4) && in_pieces(args.cache, kPiece);
  const bool interleaved = args.interleaved != 0;
  launch(device, "mla_rope_and_append_kv", {args.q_rope.shape[0], kThreads},
         wide ? (interleaved ? rope_kernel<4, true> : rope_kernel<4, false>)
              : (interleaved ? rope_kernel<1, true> : rope_kernel<1, false>),
         p);
}

}  // namespace mla::cuda

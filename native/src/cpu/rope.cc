#include "cpu.h"

#include <cstring>

namespace mla::cpu {
namespace {

float read(const uint16_t *x) {
  const uint32_t bits = static_cast<uint32_t>(*x) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
float read(const float *x) { return *x; }
void write(const Kernels &kernels, float value, uint16_t *out) { kernels.narrow(&value, 1, out); }
void write(const Kernels &, float value, float *out) { *out = value; }

// from may be to: a pair is read before it is written.
template <class From, class T>
void rotate(const Kernels &kernels, const From *from, const float *cos_sin, int64_t rope, bool interleaved, T *to) {
  const int64_t half = rope / 2;
  for (int64_t i = 0; i < half; i++) {
    const int64_t first = interleaved ? 2 * i : i;
    const int64_t second = interleaved ? 2 * i + 1 : i + half;
    const float a = read(from + first);
    const float b = read(from + second);
    const float cosine = cos_sin[i];
    const float sine = cos_sin[half + i];
    write(kernels, a * cosine - b * sine, to + first);
    write(kernels, a * sine + b * cosine, to + second);
  }
}

template <class T>
void rope_token(const Kernels &kernels, const mla_rope_args &args, int64_t t) {
  const int64_t rope = args.q_rope.shape[2];
  const int64_t latent = args.latent.shape[1];
  const float *cos_sin = at<float>(args.cos_sin, *at<int32_t>(args.positions, t));
  for (int64_t head = 0; head < args.q_rope.shape[1]; head++) {
    const T *from = at<T>(args.q_rope, t, head);
    rotate(kernels, from, cos_sin, rope, args.interleaved != 0, at<T>(args.q_out, t, head));
  }
  const int64_t slot = *at<int64_t>(args.slots, t);
  T *key = at<T>(args.cache, slot / MLA_BLOCK_TOKENS, slot % MLA_BLOCK_TOKENS);
  memcpy(key, at<T>(args.latent, t), latent * sizeof(T));
  if (is_bf16(args.k_rope)) {
    rotate(kernels, at<uint16_t>(args.k_rope, t), cos_sin, rope, args.interleaved != 0, key + latent);
  } else {
    rotate(kernels, at<float>(args.k_rope, t), cos_sin, rope, args.interleaved != 0, key + latent);
  }
}

}  // namespace

void rope_and_append_kv(Cpu &cpu, const mla_rope_args &args) {
  const int64_t tokens = args.q_rope.shape[0];
  for (int64_t t = 0; t < tokens; t++) {
    check_index("positions", t, *at<int32_t>(args.positions, t), 0, args.cos_sin.shape[0] - 1);
    check_index("slots", t, *at<int64_t>(args.slots, t), 0, args.cache.shape[0] * MLA_BLOCK_TOKENS - 1);
  }
  const int64_t flops = 6 * args.q_rope.shape[1] * args.q_rope.shape[2] + args.cache.shape[2];
  parallel_rows(cpu, tokens, flops, [&](int64_t t, int) {
    if (is_bf16(args.cache)) {
      rope_token<uint16_t>(cpu.kernels, args, t);
    } else {
      rope_token<float>(cpu.kernels, args, t);
    }
  });
}

}  // namespace mla::cpu

// The operations of mla.h that no other header has: each puts its work on the device's stream, allocates nothing and may be
// captured in a graph. Arguments have been checked by api.cc; what a kernel cannot take throws MLA_UNSUPPORTED.
#pragma once

#include "device.h"

namespace mla::cuda {

void convert(const Device &device, const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out);
void fill_normal(const Device &device, const mla_tensor &out, float std, int64_t seed);
void embedding(const Device &device, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out);
void rms_norm(const Device &device, const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
              const mla_tensor &out);
void silu_mul(const Device &device, const mla_tensor &gate_up, const mla_tensor &out);
void rope_and_append_kv(const Device &device, const mla_rope_args &args);
void moe_route(const Device &device, const mla_route_args &args);
void moe_sort(const Device &device, const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
              const mla_tensor &offsets);
void moe_combine(const Device &device, const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                 const mla_tensor *base, const mla_tensor &out);
void sample(const Device &device, const mla_sample_args &args);
void log_softmax_top_k(const Device &device, const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                       const mla_tensor *top_ids, const mla_tensor *top);

}  // namespace mla::cuda

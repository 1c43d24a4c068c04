// The seam between the C API and the code that computes. The CPU backend is linked in; the CUDA backend is a shared
// library of its own that context.cc opens and asks for one symbol, mla_backend_open_v1.
#ifndef MLA_BACKEND_H
#define MLA_BACKEND_H

#include "mla.h"

namespace mla {

/*
 * A device, its stream and its scratch memory. Every call gets arguments that api.cc has checked (mla.h is the
 * contract), but index values live in device memory: a backend checks them if it can read them, or trusts them.
 *
 * No exception crosses a shared library's edge, for each library may carry a C++ runtime of its own: a call returns a
 * status and leaves its words in last_error(). The CPU backend alone may throw, mla::Error or std::bad_alloc.
 */
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const char *last_error() const = 0; /* of the last call that did not return MLA_OK */
  virtual bool host_memory() const = 0;       /* whether the host can read what allocate() gives */

  virtual mla_status device_info(int64_t *free_bytes, int64_t *total_bytes, char *name, int32_t name_bytes) = 0;
  virtual mla_status allocate(int64_t bytes, void **out) = 0; /* 256-byte aligned */
  virtual void release(void *data) = 0;
  virtual mla_status copy_from_host(void *dst, const void *src, int64_t bytes) = 0;
  virtual mla_status copy_to_host(void *dst, const void *src, int64_t bytes) = 0;
  virtual mla_status synchronize() = 0;

  virtual mla_status allocate_host(int64_t bytes, void **out) = 0; /* for the async copies */
  virtual void release_host(void *data) = 0;
  virtual mla_status copy_from_host_async(void *dst, const void *src, int64_t bytes) = 0;
  virtual mla_status copy_to_host_async(void *dst, const void *src, int64_t bytes) = 0;
  virtual mla_status set_deterministic(bool on) = 0;

  virtual mla_status create_event(void **out) = 0;
  virtual void destroy_event(void *event) = 0;
  virtual mla_status record_event(void *event) = 0;
  virtual mla_status synchronize_event(void *event) = 0;
  virtual mla_status elapsed(void *from, void *to, float *milliseconds) = 0; /* of recorded events */

  virtual mla_status begin_capture() = 0;
  virtual mla_status end_capture(void **graph) = 0;
  virtual void abandon_capture() = 0; /* after a call that failed; does nothing where nothing is captured */
  virtual mla_status launch_graph(void *graph) = 0;
  virtual void destroy_graph(void *graph) = 0;

  /* The operations of mla.h, in its order and with its words. */
  virtual mla_status convert(const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out) = 0;
  virtual mla_status fill_normal(const mla_tensor &out, float std, int64_t seed) = 0;
  virtual mla_status embedding(const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) = 0;
  virtual mla_status rms_norm(const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
                              const mla_tensor &out) = 0;
  virtual int64_t packed_bytes(const mla_tensor &) { return 0; } /* 0: the backend reads weights as they are */
  virtual mla_status pack(const mla_tensor &, const mla_tensor &) { return MLA_UNSUPPORTED; }
  virtual mla_status gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out) = 0;
  virtual mla_status batched_gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor &out) = 0;
  virtual mla_status silu_mul(const mla_tensor &gate_up, const mla_tensor &out) = 0;
  virtual mla_status rope_and_append_kv(const mla_rope_args &args) = 0;
  virtual mla_status plan_size(const mla_plan_args &args, int64_t *parts, int64_t *workspace_bytes) = 0;
  virtual mla_status plan(const mla_plan_args &args, const mla_tensor &seq_lens, const mla_tensor &tiles,
                          const mla_tensor &splits) = 0;
  virtual mla_status decode(const mla_decode_args &args) = 0;
  virtual mla_status prefill(const mla_prefill_args &args) = 0;
  virtual mla_status moe_route(const mla_route_args &args) = 0;
  virtual mla_status moe_sort(const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
                              const mla_tensor &offsets) = 0;
  virtual mla_status moe_gemm(const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
                              const mla_tensor *weights, int32_t num_experts, mla_activation activation,
                              const mla_tensor &out) = 0;
  virtual mla_status moe_combine(const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                                 const mla_tensor *base, const mla_tensor &out) = 0;
  virtual mla_status sample(const mla_sample_args &args) = 0;
  virtual mla_status log_softmax_top_k(const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                                       const mla_tensor *top_ids, const mla_tensor *top) = 0;
};

/* What a backend's library exports, with C linkage: opens device `ordinal` or leaves words in message. */
using OpenBackend = mla_status (*)(int32_t ordinal, Backend **out, char *message, int64_t message_bytes);
constexpr const char *kOpenBackendSymbol = "mla_backend_open_v1";

Backend *open_cpu_backend(int32_t threads);

}  // namespace mla

#endif

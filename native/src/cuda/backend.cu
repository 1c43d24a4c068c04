// The CUDA backend behind backend.h: memory, copies, events and graphs of one device, and each operation handed to its
// file. The one symbol of this library, mla_backend_open_v1, is at the end.
#include "backend.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "decode.h"
#include "gemm.h"
#include "ops.h"
#include "prefill.h"
#include "staging.h"
#include "workspace.h"

namespace mla::cuda {
namespace {

// Runs a body that may throw; what it throws becomes a status and words.
template <class Body>
mla_status caught(std::string &words, Body body) {
  try {
    body();
    return MLA_OK;
  } catch (const Error &error) {
    words = error.words;
    return error.status;
  } catch (const std::bad_alloc &) {
    words = "out of host memory";
    return MLA_OUT_OF_MEMORY;
  } catch (const std::exception &error) {
    words = error.what();
    return MLA_INTERNAL;
  }
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int ordinal) : device_(open_device(ordinal)), staging_(device_.stream) {
    std::string error;
    require(Gemm::create(gemm_, error), error);
  }

  ~CudaBackend() override {
    cudaSetDevice(device_.ordinal);
    abandon_capture();
    cudaStreamSynchronize(device_.stream);
    cudaStreamDestroy(device_.stream);
  }

  const char *last_error() const override { return words_.c_str(); }
  bool host_memory() const override { return false; }

  mla_status device_info(int64_t *free_bytes, int64_t *total_bytes, char *name, int32_t name_bytes) override {
    return run([&] {
      size_t free = 0;
      size_t total = 0;
      check(cudaMemGetInfo(&free, &total), "asking for free memory");
      *free_bytes = static_cast<int64_t>(free);
      *total_bytes = static_cast<int64_t>(total);
      snprintf(name, name_bytes, "%s, CUDA device %d", device_.name.c_str(), device_.ordinal);
    });
  }

  // ---- memory, copies ----------------------------------------------------------------------------------------------

  mla_status allocate(int64_t bytes, void **out) override {
    return run([&] {
      refuse_in_capture("allocating device memory");
      const std::string what = "allocating " + std::to_string(bytes) + " bytes";
      check(cudaMalloc(out, bytes), what.c_str());
    });
  }

  void release(void *data) override {
    cudaSetDevice(device_.ordinal);
    cudaFree(data);  // waits for the work that may use it
  }

  mla_status allocate_host(int64_t bytes, void **out) override {
    return run([&] {
      refuse_in_capture("allocating page-locked memory");
      const std::string what = "allocating " + std::to_string(bytes) + " bytes of page-locked host memory";
      check(cudaMallocHost(out, bytes), what.c_str());
    });
  }

  void release_host(void *data) override {
    cudaSetDevice(device_.ordinal);
    cudaStreamSynchronize(device_.stream);
    cudaFreeHost(data);
  }

  mla_status copy_from_host(void *dst, const void *src, int64_t bytes) override {
    return run([&] {
      refuse_in_capture("a copy from plain host memory");
      staging_.copy(dst, src, bytes);
    });
  }

  mla_status copy_to_host(void *dst, const void *src, int64_t bytes) override {
    return run([&] {
      refuse_in_capture("a copy to plain host memory");
      check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, device_.stream), "copying to the host");
      check(cudaStreamSynchronize(device_.stream), "copying to the host");
    });
  }

  mla_status copy_from_host_async(void *dst, const void *src, int64_t bytes) override {
    return run([&] {
      check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, device_.stream), "copying to the device");
    });
  }

  mla_status copy_to_host_async(void *dst, const void *src, int64_t bytes) override {
    return run([&] {
      check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, device_.stream), "copying to the host");
    });
  }

  mla_status synchronize() override {
    return run([&] {
      refuse_in_capture("waiting");
      check(cudaStreamSynchronize(device_.stream), "waiting for the device");
    });
  }

  mla_status set_deterministic(bool on) override {
    return run([&] {
      deterministic_ = on;
      gemm_->set_deterministic(on);
    });
  }

  // ---- events, graphs ----------------------------------------------------------------------------------------------

  mla_status create_event(void **out) override {
    return run([&] { check(cudaEventCreate(reinterpret_cast<cudaEvent_t *>(out)), "creating an event"); });
  }

  void destroy_event(void *event) override { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

  mla_status record_event(void *event) override {
    return run([&] {
      // In a graph it becomes a node of its own, recorded anew by every replay.
      const unsigned flags = capturing_ ? cudaEventRecordExternal : cudaEventRecordDefault;
      check(cudaEventRecordWithFlags(static_cast<cudaEvent_t>(event), device_.stream, flags), "recording an event");
    });
  }

  mla_status synchronize_event(void *event) override {
    return run([&] {
      refuse_in_capture("waiting for an event");
      check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for an event");
    });
  }

  mla_status elapsed(void *from, void *to, float *milliseconds) override {
    return run([&] {
      check(cudaEventElapsedTime(milliseconds, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)),
            "reading the time between two events");
    });
  }

  mla_status begin_capture() override {
    return run([&] {
      if (capturing_) {
        fail(MLA_INVALID_ARGUMENT, "a capture was begun before and had not ended; it has ended now, without a graph");
      }
      // Thread-local: other threads of the process, another library's among them, go on allocating meanwhile.
      check(cudaStreamBeginCapture(device_.stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
      capturing_ = true;
    });
  }

  mla_status end_capture(void **graph) override {
    return run([&] {
      if (!capturing_) {
        fail(MLA_INVALID_ARGUMENT, "nothing is being captured: begin was not called, or a call that failed ended it");
      }
      capturing_ = false;
      cudaGraph_t captured = nullptr;
      check(cudaStreamEndCapture(device_.stream, &captured), "ending a capture");
      const cudaError_t status = cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t *>(graph), captured, 0);
      cudaGraphDestroy(captured);
      check(status, "making a captured graph ready");
      check(cudaGraphUpload(static_cast<cudaGraphExec_t>(*graph), device_.stream), "uploading a graph");
    });
  }

  void abandon_capture() override {
    if (capturing_) {
      capturing_ = false;
      cudaGraph_t captured = nullptr;
      cudaStreamEndCapture(device_.stream, &captured);
      if (captured != nullptr) {
        cudaGraphDestroy(captured);
      }
      cudaGetLastError();
    }
  }

  mla_status launch_graph(void *graph) override {
    return run([&] {
      refuse_in_capture("launching a graph");
      check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), device_.stream), "launching a graph");
    });
  }

  void destroy_graph(void *graph) override { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

  // ---- operations --------------------------------------------------------------------------------------------------

  mla_status convert(const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out) override {
    return run([&] { cuda::convert(device_, x, scale, block, out); });
  }

  mla_status fill_normal(const mla_tensor &out, float std, int64_t seed) override {
    return run([&] { cuda::fill_normal(device_, out, std, seed); });
  }

  mla_status embedding(const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) override {
    return run([&] { cuda::embedding(device_, table, ids, out); });
  }

  mla_status rms_norm(const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
                      const mla_tensor &out) override {
    return run([&] { cuda::rms_norm(device_, x, residual, weight, eps, out); });
  }

  mla_status gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out) override {
    return forward([&](std::string &error) { return gemm_->gemm(x, w, bias, out, device_.stream, error); });
  }

  mla_status batched_gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor &out) override {
    return forward([&](std::string &error) { return gemm_->batched_gemm(x, w, out, device_.stream, error); });
  }

  mla_status silu_mul(const mla_tensor &gate_up, const mla_tensor &out) override {
    return run([&] { cuda::silu_mul(device_, gate_up, out); });
  }

  mla_status rope_and_append_kv(const mla_rope_args &args) override {
    return run([&] { cuda::rope_and_append_kv(device_, args); });
  }

  mla_status plan_size(const mla_plan_args &args, int64_t *parts, int64_t *workspace_bytes) override {
    return run([&] {
      const DecodeShape shape = decode_shape(flagged(args), device_.multiprocessors);
      *parts = shape.plan_rows();
      *workspace_bytes = workspace_floats(shape) * static_cast<int64_t>(sizeof(float));
    });
  }

  mla_status plan(const mla_plan_args &args, const mla_tensor &seq_lens, const mla_tensor &tiles,
                  const mla_tensor &splits) override {
    mla_tensor tiles_out = tiles;
    mla_tensor splits_out = splits;
    return forward([&](std::string &error) {
      return cuda::plan(flagged(args), seq_lens, tiles_out, splits_out, device_.multiprocessors, device_.stream, error);
    });
  }

  mla_status decode(const mla_decode_args &args) override {
    mla_decode_args flagged_args = args;
    flagged_args.plan = flagged(args.plan);
    return forward([&](std::string &error) {
      return cuda::decode(flagged_args, device_.multiprocessors, device_.stream, error);
    });
  }

  mla_status prefill(const mla_prefill_args &args) override {
    return forward([&](std::string &error) {
      const int64_t bytes =
          prefill_workspace_bytes(args.q.shape[0], args.q.shape[1], args.seq_lens.shape[0]);
      return cuda::prefill(args, workspace_.of(bytes, capturing_), device_.multiprocessors, device_.stream, error);
    });
  }

  mla_status moe_route(const mla_route_args &args) override {
    return run([&] { cuda::moe_route(device_, args); });
  }

  mla_status moe_sort(const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
                      const mla_tensor &offsets) override {
    return run([&] { cuda::moe_sort(device_, experts, rows, places, offsets); });
  }

  mla_status moe_gemm(const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
                      const mla_tensor *weights, int32_t num_experts, mla_activation activation,
                      const mla_tensor &out) override {
    return forward([&](std::string &error) {
      return gemm_->moe_gemm(x, rows, offsets, weights, num_experts, activation, out, device_.stream, error);
    });
  }

  mla_status moe_combine(const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                         const mla_tensor *base, const mla_tensor &out) override {
    return run([&] { cuda::moe_combine(device_, y, places, weights, base, out); });
  }

  mla_status sample(const mla_sample_args &args) override {
    return run([&] { cuda::sample(device_, args); });
  }

  mla_status log_softmax_top_k(const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                               const mla_tensor *top_ids, const mla_tensor *top) override {
    return run([&] { cuda::log_softmax_top_k(device_, logits, ids, chosen, top_ids, top); });
  }

 private:
  // Another library of the process may have chosen another device on this thread.
  template <class Body>
  mla_status run(Body body) {
    return caught(words_, [&] {
      check(cudaSetDevice(device_.ordinal), "choosing the device");
      body();
    });
  }

  // A call that returns its status and words by itself.
  template <class Call>
  mla_status forward(Call call) {
    return run([&] {
      std::string error;
      const mla_status status = call(error);
      require(status, error);
    });
  }

  static void require(mla_status status, const std::string &error) {
    if (status == MLA_DEVICE_ERROR) {
      const cudaError_t last = cudaPeekAtLastError();
      check(last == cudaSuccess ? cudaErrorUnknown : last, error.c_str());  // tells whether the device is lost
    }
    if (status != MLA_OK) {
      throw Error{status, error};
    }
  }

  void refuse_in_capture(const char *what) const {
    if (capturing_) {
      fail(MLA_INVALID_ARGUMENT, "%s cannot be captured in a graph; the capture has ended", what);
    }
  }

  mla_plan_args flagged(mla_plan_args args) const {
    args.flags |= deterministic_ ? MLA_PLAN_DETERMINISTIC : 0;
    return args;
  }

  Device device_;
  Staging staging_;
  Workspace workspace_;
  std::unique_ptr<Gemm> gemm_;
  std::string words_;
  bool deterministic_ = false;
  bool capturing_ = false;
};

}  // namespace
}  // namespace mla::cuda

extern "C" __attribute__((visibility("default"))) mla_status mla_backend_open_v1(int32_t ordinal, mla::Backend **out,
                                                                                 char *message, int64_t message_bytes) {
  std::string words;
  const mla_status status = mla::cuda::caught(words, [&] { *out = new mla::cuda::CudaBackend(ordinal); });
  snprintf(message, message_bytes, "%s", words.c_str());
  return status;
}

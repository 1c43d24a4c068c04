// The CPU backend: memory of the host, and each operation handed to its file.
#include "../backend.h"
#include "cpu.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace mla::cpu {

namespace {

struct InstructionSet {
  const char *name;
  bool there;
  const Kernels *kernels;
};

// The best set that this machine has, or the one that MLA_CPU_ISA names: results differ in their last bits between
// sets.
InstructionSet choose_instruction_set() {
  const InstructionSet sets[] = {
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq"),
       &avx512::kernels},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &avx2::kernels},
      {"baseline", true, &baseline::kernels},
  };
  const char *wanted = getenv("MLA_CPU_ISA");
  for (const InstructionSet &set : sets) {
    if (wanted == nullptr ? set.there : strcmp(wanted, set.name) == 0) {
      if (!set.there) {
        fail(MLA_INVALID_ARGUMENT, "MLA_CPU_ISA is %s, which this machine does not have", wanted);
      }
      return set;
    }
  }
  fail(MLA_INVALID_ARGUMENT, "MLA_CPU_ISA is %s; it must be avx512, avx2 or baseline", wanted);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : set_(choose_instruction_set()), cpu_(*set_.kernels, threads) {}

  const char *last_error() const override { return ""; }  // it throws
  bool host_memory() const override { return true; }

  mla_status device_info(int64_t *free_bytes, int64_t *total_bytes, char *name, int32_t name_bytes) override {
    const int64_t page = sysconf(_SC_PAGESIZE);
    *free_bytes = available_bytes(sysconf(_SC_AVPHYS_PAGES) * page);
    *total_bytes = sysconf(_SC_PHYS_PAGES) * page;
    snprintf(name, name_bytes, "CPU, %s, %d threads", set_.name, cpu_.pool.threads());
    return MLA_OK;
  }

  mla_status allocate(int64_t bytes, void **out) override {
    // Large buffers on huge pages: attention walks the cache in random order of blocks.
    constexpr int64_t kHuge = int64_t{2} << 20;
    const int64_t alignment = bytes >= 2 * kHuge ? kHuge : 256;
    const int64_t whole = bytes > INT64_MAX - alignment ? 0 : (bytes + alignment - 1) / alignment * alignment;
    *out = whole == 0 ? nullptr : aligned_alloc(alignment, whole);
    if (*out == nullptr) {
      fail(MLA_OUT_OF_MEMORY, "out of host memory: %lld bytes wanted", static_cast<long long>(bytes));
    }
    if (alignment == kHuge) {
      madvise(*out, whole, MADV_HUGEPAGE);  // a wish; without it all works, slower
    }
    return MLA_OK;
  }

  void release(void *data) override { free(data); }

  mla_status copy_from_host(void *dst, const void *src, int64_t bytes) override {
    if (bytes > 0) {
      memmove(dst, src, bytes);
    }
    return MLA_OK;
  }

  mla_status copy_to_host(void *dst, const void *src, int64_t bytes) override {
    return copy_from_host(dst, src, bytes);
  }

  mla_status synchronize() override { return MLA_OK; }

  mla_status allocate_host(int64_t bytes, void **out) override { return allocate(bytes, out); }
  void release_host(void *data) override { release(data); }
  mla_status copy_from_host_async(void *dst, const void *src, int64_t bytes) override {
    return copy_from_host(dst, src, bytes);
  }
  mla_status copy_to_host_async(void *dst, const void *src, int64_t bytes) override {
    return copy_from_host(dst, src, bytes);
  }
  mla_status set_deterministic(bool) override { return MLA_OK; }  // it always is

  // All work is done when a call returns: an event is the time of its record.
  mla_status create_event(void **out) override {
    *out = new Clock::time_point();
    return MLA_OK;
  }
  void destroy_event(void *event) override { delete static_cast<Clock::time_point *>(event); }
  mla_status record_event(void *event) override {
    *static_cast<Clock::time_point *>(event) = Clock::now();
    return MLA_OK;
  }
  mla_status synchronize_event(void *) override { return MLA_OK; }
  mla_status elapsed(void *from, void *to, float *milliseconds) override {
    const Clock::duration time = *static_cast<Clock::time_point *>(to) - *static_cast<Clock::time_point *>(from);
    *milliseconds = std::chrono::duration<float, std::milli>(time).count();
    return MLA_OK;
  }

  mla_status begin_capture() override { no_graphs(); }
  mla_status end_capture(void **) override { no_graphs(); }
  void abandon_capture() override {}
  mla_status launch_graph(void *) override { no_graphs(); }
  void destroy_graph(void *) override {}

  mla_status convert(const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out) override {
    cpu::convert(cpu_, x, scale, block, out);
    return MLA_OK;
  }

  mla_status fill_normal(const mla_tensor &out, float std, int64_t seed) override {
    cpu::fill_normal(cpu_, out, std, seed);
    return MLA_OK;
  }

  mla_status embedding(const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out) override {
    cpu::embedding(cpu_, table, ids, out);
    return MLA_OK;
  }

  mla_status rms_norm(const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
                      const mla_tensor &out) override {
    cpu::rms_norm(cpu_, x, residual, weight, eps, out);
    return MLA_OK;
  }

  int64_t packed_bytes(const mla_tensor &w) override { return cpu::packed_bytes(cpu_, w); }

  mla_status pack(const mla_tensor &w, const mla_tensor &out) override {
    cpu::pack(cpu_, w, out);
    return MLA_OK;
  }

  mla_status gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out) override {
    cpu::gemm(cpu_, x, w, bias, out);
    return MLA_OK;
  }

  mla_status batched_gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor &out) override {
    cpu::batched_gemm(cpu_, x, w, out);
    return MLA_OK;
  }

  mla_status silu_mul(const mla_tensor &gate_up, const mla_tensor &out) override {
    cpu::silu_mul(cpu_, gate_up, out);
    return MLA_OK;
  }

  mla_status rope_and_append_kv(const mla_rope_args &args) override {
    cpu::rope_and_append_kv(cpu_, args);
    return MLA_OK;
  }

  // A decode on the CPU needs no plan: its tasks are queries and heads. One part, one split a sequence, no workspace.
  mla_status plan_size(const mla_plan_args &, int64_t *parts, int64_t *workspace_bytes) override {
    *parts = 1;
    *workspace_bytes = 0;
    return MLA_OK;
  }

  mla_status plan(const mla_plan_args &args, const mla_tensor &, const mla_tensor &tiles,
                  const mla_tensor &splits) override {
    for (int column = 0; column < 8; column++) {
      *at<int32_t>(tiles, 0, column) = column == 2 ? args.batch : 0;
    }
    for (int32_t sequence = 0; sequence <= args.batch; sequence++) {
      *at<int32_t>(splits, sequence) = sequence;
    }
    return MLA_OK;
  }

  mla_status decode(const mla_decode_args &args) override {
    cpu::decode(cpu_, args);
    return MLA_OK;
  }

  mla_status prefill(const mla_prefill_args &args) override {
    cpu::prefill(cpu_, args);
    return MLA_OK;
  }

  mla_status moe_route(const mla_route_args &args) override {
    cpu::moe_route(cpu_, args);
    return MLA_OK;
  }

  mla_status moe_sort(const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
                      const mla_tensor &offsets) override {
    cpu::moe_sort(cpu_, experts, rows, places, offsets);
    return MLA_OK;
  }

  mla_status moe_gemm(const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
                      const mla_tensor *weights, int32_t num_experts, mla_activation activation,
                      const mla_tensor &out) override {
    cpu::moe_gemm(cpu_, x, rows, offsets, weights, num_experts, activation, out);
    return MLA_OK;
  }

  mla_status moe_combine(const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                         const mla_tensor *base, const mla_tensor &out) override {
    cpu::moe_combine(cpu_, y, places, weights, base, out);
    return MLA_OK;
  }

  mla_status sample(const mla_sample_args &args) override {
    cpu::sample(cpu_, args);
    return MLA_OK;
  }

  mla_status log_softmax_top_k(const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                               const mla_tensor *top_ids, const mla_tensor *top) override {
    cpu::log_softmax_top_k(cpu_, logits, ids, chosen, top_ids, top);
    return MLA_OK;
  }

 private:
  using Clock = std::chrono::steady_clock;

  [[noreturn]] static void no_graphs() { fail(MLA_UNSUPPORTED, "the cpu backend has no graphs; run the calls one by one"); }

  // What the kernel believes can be had without swapping, page cache included; `fallback` where it does not tell.
  static int64_t available_bytes(int64_t fallback) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == nullptr) {
      return fallback;
    }
    char line[256];
    long long kilobytes = -1;
    while (kilobytes < 0 && fgets(line, sizeof line, file) != nullptr) {
      if (sscanf(line, "MemAvailable: %lld kB", &kilobytes) != 1) {
        kilobytes = -1;
      }
    }
    fclose(file);
    return kilobytes < 0 ? fallback : kilobytes * 1024;
  }

  InstructionSet set_;
  Cpu cpu_;
};

}  // namespace
}  // namespace mla::cpu

mla::Backend *mla::open_cpu_backend(int32_t threads) { return new cpu::CpuBackend(threads); }

// What the CPU operations share: the inner loops for this machine, the threads, scratch memory.
#ifndef MLA_CPU_CPU_H
#define MLA_CPU_CPU_H

#include "../error.h"
#include "../tensor.h"
#include "parallel.h"
#include "vector/kernels.h"

#include <algorithm>
#include <memory>
#include <new>

namespace mla::cpu {

// Memory that grows to the largest use and stays, on whole cache lines. Contents are lost between uses.
template <class T>
class Scratch {
 public:
  T *of(int64_t count) {
    if (count > count_) {
      memory_.reset();
      count_ = 0;
      memory_.reset(static_cast<T *>(operator new(count * sizeof(T), std::align_val_t(64))));
      count_ = count;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(T *memory) const { operator delete(memory, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t count_ = 0;
};

struct Cpu {
  Cpu(const Kernels &kernels_, int threads) : kernels(kernels_), pool(threads) {}

  const Kernels &kernels;
  ThreadPool pool;
  Scratch<float> thread_scratch;  // see PerThread
  Scratch<float> wide;            // operands widened from BF16
  Scratch<float> gate_up;         // products before their activation, in the type of out
  Scratch<const float *> rows;    // addresses of rows
  Scratch<int64_t> tasks;
};

// Floats for each thread, apart by a cache line. Taken before the tasks run, for a task must not fail.
class PerThread {
 public:
  PerThread(Cpu &cpu, int64_t floats)
      : stride_((floats + 15) / 16 * 16), data_(cpu.thread_scratch.of(stride_ * cpu.pool.threads())) {}

  float *of(int thread) const { return data_ + thread * stride_; }

 private:
  int64_t stride_;
  float *data_;
};

// Below this much work a second thread costs more than it brings.
constexpr int64_t kSerialFlops = 50'000;

// Runs tasks of the given size, in the caller alone if all of them are too little for more.
template <class Body>
void parallel(Cpu &cpu, int64_t tasks, int64_t flops_a_task, const Body &body) {
  if (tasks * flops_a_task < kSerialFlops) {
    for (int64_t task = 0; task < tasks; task++) {
      body(task, 0);
    }
  } else {
    cpu.pool.run(tasks, body);
  }
}

// Splits rows into tasks of about kSerialFlops / 2 and calls body(row, thread).
template <class Body>
void parallel_rows(Cpu &cpu, int64_t rows, int64_t flops_a_row, const Body &body) {
  const int64_t group = std::max<int64_t>(1, kSerialFlops / 2 / std::max<int64_t>(1, flops_a_row));
  parallel(cpu, (rows + group - 1) / group, group * flops_a_row, [&](int64_t task, int thread) {
    const int64_t end = std::min(rows, (task + 1) * group);
    for (int64_t row = task * group; row < end; row++) {
      body(row, thread);
    }
  });
}

inline bool is_bf16(const mla_tensor &t) { return t.dtype == MLA_BF16; }

// A row of floats: where it lies if F32, else widened into the scratch given.
inline const float *read_row(const Kernels &kernels, const mla_tensor &t, const void *row, int64_t n, float *scratch) {
  if (!is_bf16(t)) {
    return static_cast<const float *>(row);
  }
  kernels.widen(static_cast<const uint16_t *>(row), n, scratch);
  return scratch;
}

// The row to compute into: the output itself if F32, else scratch that write_row narrows.
inline float *result_row(const mla_tensor &out, void *row, float *scratch) {
  return is_bf16(out) ? scratch : static_cast<float *>(row);
}

inline void write_row(const Kernels &kernels, const mla_tensor &out, const float *result, int64_t n, void *row) {
  if (is_bf16(out)) {
    kernels.narrow(result, n, static_cast<uint16_t *>(row));
  }
}

// Checks what only the CPU can read: an index must be in [low, high].
inline void check_index(const char *name, int64_t at, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    fail(MLA_INVALID_ARGUMENT, "%s[%lld] is %lld; it must be in [%lld, %lld]", name, static_cast<long long>(at),
         static_cast<long long>(value), static_cast<long long>(low), static_cast<long long>(high));
  }
}

// The rows of a matrix as float32: their addresses, after widening all of them if it is BF16.
const float *const *float_rows(Cpu &cpu, const mla_tensor &x, const mla_tensor *gather = nullptr);

// ---- the operations, as in mla.h ------------------------------------------------------------------------------------

void convert(Cpu &cpu, const mla_tensor &x, const mla_tensor *scale, int32_t block, const mla_tensor &out);
void fill_normal(Cpu &cpu, const mla_tensor &out, float std, int64_t seed);
void embedding(Cpu &cpu, const mla_tensor &table, const mla_tensor &ids, const mla_tensor &out);
void rms_norm(Cpu &cpu, const mla_tensor &x, const mla_tensor *residual, const mla_tensor &weight, float eps,
              const mla_tensor &out);
int64_t packed_bytes(const Cpu &cpu, const mla_tensor &w);
void pack(Cpu &cpu, const mla_tensor &w, const mla_tensor &out);
void gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out);
void batched_gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor &w, const mla_tensor &out);
void silu_mul(Cpu &cpu, const mla_tensor &gate_up, const mla_tensor &out);
void rope_and_append_kv(Cpu &cpu, const mla_rope_args &args);
void decode(Cpu &cpu, const mla_decode_args &args);
void prefill(Cpu &cpu, const mla_prefill_args &args);
void moe_route(Cpu &cpu, const mla_route_args &args);
void moe_sort(Cpu &cpu, const mla_tensor &experts, const mla_tensor &rows, const mla_tensor &places,
              const mla_tensor &offsets);
void moe_gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
              const mla_tensor *weights, int32_t num_experts, mla_activation activation, const mla_tensor &out);
void moe_combine(Cpu &cpu, const mla_tensor &y, const mla_tensor &places, const mla_tensor &weights,
                 const mla_tensor *base, const mla_tensor &out);
void sample(Cpu &cpu, const mla_sample_args &args);
void log_softmax_top_k(Cpu &cpu, const mla_tensor &logits, const mla_tensor &ids, const mla_tensor &chosen,
                       const mla_tensor *top_ids, const mla_tensor *top);

}  // namespace mla::cpu

#endif

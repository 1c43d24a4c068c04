// The three matrix products. Each is cut into blocks of rows x columns, a task a block; a block is the kernels'
// business.
#include "cpu.h"

namespace mla::cpu {
namespace {

constexpr int64_t kBlockRows = 64;
constexpr int64_t kMostBlockColumns = 64;

// Columns of a block: as many as keep every thread fed, a multiple of the widest kernel's panel.
int64_t block_columns(const Cpu &cpu, int64_t row_blocks, int64_t columns) {
  const int64_t wanted_tasks = 4 * cpu.pool.threads();
  const int64_t even = columns * row_blocks / wanted_tasks;
  return std::clamp<int64_t>(even / 32 * 32, 32, kMostBlockColumns);
}

bool is_packed(const mla_tensor &w) { return w.dtype == MLA_BF16_PANELS || w.dtype == MLA_F32_PANELS; }
bool has_bf16(const mla_tensor &w) { return w.dtype == MLA_BF16 || w.dtype == MLA_BF16_PANELS; }

// Bytes of the panels of one matrix [.., N, K].
int64_t matrix_bytes(const Kernels &kernels, const mla_tensor &w) {
  const int64_t panels = (w.shape[w.rank - 2] + kernels.panel_columns - 1) / kernels.panel_columns;
  return panels * panel_bytes(kernels.panel_columns, w.shape[w.rank - 1], has_bf16(w));
}

// Floats of scratch that panels_of needs.
int64_t panel_scratch(const mla_tensor &w) {
  return is_packed(w) ? 0 : kMostBlockColumns * (w.shape[w.rank - 1] + 1);
}

// The panels of columns [j, j + n) of a product, j a multiple of 32 and so of a panel: of matrix b where w is a batch. They
// are where mla_pack has put them, or laid out now in the scratch given.
Panels panels_of(const Kernels &kernels, const mla_tensor &w, int64_t b, int64_t j, int64_t n, float *scratch) {
  const int64_t k = w.shape[w.rank - 1];
  if (is_packed(w)) {
    const int64_t before = j / kernels.panel_columns * panel_bytes(kernels.panel_columns, k, has_bf16(w));
    return {static_cast<const char *>(w.data) + b * matrix_bytes(kernels, w) + before, has_bf16(w)};
  }
  const void *first = w.rank == 3 ? address(w, b, j) : address(w, j);
  kernels.pack(first, w.stride[w.rank - 2], w.stride[w.rank - 1], n, k, is_bf16(w), scratch);
  return {scratch, is_bf16(w)};
}

// A block of the result: computed where it belongs if that is float32, else beside it and narrowed.
struct Block {
  float *data;
  int64_t stride;
};

Block block_of(const mla_tensor &out, void *corner, int64_t row_stride, float *scratch) {
  return is_bf16(out) ? Block{scratch, kMostBlockColumns} : Block{static_cast<float *>(corner), row_stride};
}

void write_block(const Kernels &kernels, const mla_tensor &out, const Block &block, int64_t rows, int64_t columns,
                 void *corner, int64_t row_stride) {
  for (int64_t i = 0; i < rows; i++) {
    write_row(kernels, out, block.data + i * block.stride, columns,
              static_cast<char *>(corner) + i * row_stride * element_bytes(out.dtype));
  }
}

}  // namespace

const float *const *float_rows(Cpu &cpu, const mla_tensor &x, const mla_tensor *gather) {
  const int64_t columns = x.shape[1];
  if (is_bf16(x)) {
    float *wide = cpu.wide.of(x.shape[0] * columns);
    parallel_rows(cpu, x.shape[0], columns, [&](int64_t row, int) {
      cpu.kernels.widen(at<uint16_t>(x, row), columns, wide + row * columns);
    });
  }
  const int64_t count = gather == nullptr ? x.shape[0] : gather->shape[0];
  const float **rows = cpu.rows.of(count);
  const float *base = is_bf16(x) ? cpu.wide.of(0) : at<float>(x, 0);
  const int64_t stride = is_bf16(x) ? columns : x.stride[0];
  for (int64_t i = 0; i < count; i++) {
    rows[i] = base + (gather == nullptr ? i : *at<int32_t>(*gather, i)) * stride;
  }
  return rows;
}

int64_t packed_bytes(const Cpu &cpu, const mla_tensor &w) {
  return (w.rank == 3 ? w.shape[0] : 1) * matrix_bytes(cpu.kernels, w);
}

void pack(Cpu &cpu, const mla_tensor &w, const mla_tensor &out) {
  const Kernels &kernels = cpu.kernels;
  const int64_t columns = w.shape[w.rank - 2];
  const int64_t depth = w.shape[w.rank - 1];
  const int64_t panels = (columns + kernels.panel_columns - 1) / kernels.panel_columns;
  const int64_t bytes = panel_bytes(kernels.panel_columns, depth, is_bf16(w));
  parallel(cpu, (w.rank == 3 ? w.shape[0] : 1) * panels, kernels.panel_columns * depth, [&](int64_t task, int) {
    const int64_t j = task % panels * kernels.panel_columns;
    const void *first = w.rank == 3 ? address(w, task / panels, j) : address(w, j);
    kernels.pack(first, w.stride[w.rank - 2], w.stride[w.rank - 1], std::min(kernels.panel_columns, columns - j), depth,
                 is_bf16(w), static_cast<char *>(out.data) + task * bytes);
  });
}

void gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out) {
  const int64_t rows = out.shape[0];
  const int64_t columns = out.shape[1];
  const int64_t depth = x.shape[1];
  const float *const *inputs = float_rows(cpu, x);
  const int64_t row_blocks = (rows + kBlockRows - 1) / kBlockRows;
  const int64_t width = block_columns(cpu, row_blocks, columns);
  const int64_t column_blocks = (columns + width - 1) / width;
  constexpr int64_t kBlock = kBlockRows * kMostBlockColumns;
  const PerThread scratch(cpu, kBlock + kMostBlockColumns + panel_scratch(w));
  const int64_t flops = 2 * std::min(rows, kBlockRows) * width * depth;
  parallel(cpu, row_blocks * column_blocks, flops, [&](int64_t task, int thread) {
    const int64_t i = task % row_blocks * kBlockRows;
    const int64_t j = task / row_blocks * width;
    const int64_t m = std::min(kBlockRows, rows - i);
    const int64_t n = std::min(width, columns - j);
    const Block block = block_of(out, address(out, i, j), out.stride[0], scratch.of(thread));
    float *const beside = scratch.of(thread) + kBlock;
    const Panels panels = panels_of(cpu.kernels, w, 0, j, n, beside + kMostBlockColumns);
    cpu.kernels.linear(inputs + i, m, panels, n, depth, block.data, block.stride);
    if (bias != nullptr) {
      const float *terms = read_row(cpu.kernels, *bias, address(*bias, j), n, beside);
      for (int64_t row = 0; row < m; row++) {
        cpu.kernels.add_scaled(terms, 1.0f, n, block.data + row * block.stride);
      }
    }
    write_block(cpu.kernels, out, block, m, n, address(out, i, j), out.stride[0]);
  });
}

void batched_gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor &w, const mla_tensor &out) {
  const int64_t batch = x.shape[0];
  const int64_t rows = x.shape[1];
  const int64_t depth = x.shape[2];
  const int64_t columns = w.shape[1];
  const int64_t row_blocks = (rows + kBlockRows - 1) / kBlockRows;
  const int64_t width = block_columns(cpu, batch * row_blocks, columns);
  const int64_t column_blocks = (columns + width - 1) / width;
  const int64_t blocks = row_blocks * column_blocks;
  // Each task gathers its own rows: their addresses and, from BF16, their values.
  const PerThread scratch(cpu, kBlockRows * (kMostBlockColumns + depth) + panel_scratch(w));
  const float **addresses = cpu.rows.of(cpu.pool.threads() * kBlockRows);
  parallel(cpu, batch * blocks, 2 * std::min(rows, kBlockRows) * width * depth, [&](int64_t task, int thread) {
    const int64_t b = task / blocks;
    const int64_t i = task % row_blocks * kBlockRows;
    const int64_t j = task % blocks / row_blocks * width;
    const int64_t m = std::min(kBlockRows, rows - i);
    const int64_t n = std::min(width, columns - j);
    float *wide = scratch.of(thread) + kBlockRows * kMostBlockColumns;
    const float **inputs = addresses + thread * kBlockRows;
    for (int64_t row = 0; row < m; row++) {
      inputs[row] = read_row(cpu.kernels, x, address(x, b, i + row), depth, wide + row * depth);
    }
    const Block block = block_of(out, address(out, b, i, j), out.stride[1], scratch.of(thread));
    const Panels panels = panels_of(cpu.kernels, w, b, j, n, wide + kBlockRows * depth);
    cpu.kernels.linear(inputs, m, panels, n, depth, block.data, block.stride);
    write_block(cpu.kernels, out, block, m, n, address(out, b, i, j), out.stride[1]);
  });
}

void moe_gemm(Cpu &cpu, const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
              const mla_tensor *weights, int32_t num_experts, mla_activation activation, const mla_tensor &out) {
  if (activation == MLA_SILU_MUL) {
    mla_tensor gate_up = out;
    gate_up.shape[1] = gate_up.stride[0] = weights[0].shape[0];
    gate_up.data = cpu.gate_up.of(gate_up.shape[0] * gate_up.shape[1]);
    moe_gemm(cpu, x, rows, offsets, weights, num_experts, MLA_IDENTITY, gate_up);
    silu_mul(cpu, gate_up, out);
    return;
  }
  const int64_t pairs = out.shape[0];
  const int64_t columns = out.shape[1];
  const int64_t depth = x.shape[1];
  for (int32_t e = 0; e <= num_experts; e++) {
    check_index("offsets", e, *at<int32_t>(offsets, e), e == 0 ? 0 : *at<int32_t>(offsets, e - 1), pairs);
  }
  for (int64_t i = 0; rows != nullptr && i < pairs; i++) {
    check_index("rows", i, *at<int32_t>(*rows, i), 0, x.shape[0] - 1);
  }
  const float *const *inputs = float_rows(cpu, x, rows);

  // Blocks of rows that share an expert: [expert, first row].
  int64_t *blocks = cpu.tasks.of(2 * (pairs / kBlockRows + num_experts));
  int64_t row_blocks = 0;
  for (int32_t e = 0; e < num_experts; e++) {
    for (int64_t i = *at<int32_t>(offsets, e); i < *at<int32_t>(offsets, e + 1); i += kBlockRows) {
      blocks[2 * row_blocks] = e;
      blocks[2 * row_blocks + 1] = i;
      row_blocks++;
    }
  }
  if (row_blocks == 0) {
    return;
  }
  const int64_t width = block_columns(cpu, row_blocks, columns);
  const int64_t column_blocks = (columns + width - 1) / width;
  constexpr int64_t kBlock = kBlockRows * kMostBlockColumns;
  const PerThread scratch(cpu, kBlock + panel_scratch(weights[0]));
  const int64_t flops = 2 * pairs * columns * depth / (row_blocks * column_blocks);
  parallel(cpu, row_blocks * column_blocks, flops, [&](int64_t task, int thread) {
    const int64_t e = blocks[2 * (task / column_blocks)];
    const int64_t i = blocks[2 * (task / column_blocks) + 1];
    const int64_t j = task % column_blocks * width;
    const int64_t m = std::min<int64_t>(kBlockRows, *at<int32_t>(offsets, e + 1) - i);
    const int64_t n = std::min(width, columns - j);
    const Block block = block_of(out, address(out, i, j), out.stride[0], scratch.of(thread));
    const Panels panels = panels_of(cpu.kernels, weights[e], 0, j, n, scratch.of(thread) + kBlock);
    cpu.kernels.linear(inputs + i, m, panels, n, depth, block.data, block.stride);
    write_block(cpu.kernels, out, block, m, n, address(out, i, j), out.stride[0]);
  });
}

}  // namespace mla::cpu

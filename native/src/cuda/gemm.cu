// The host side of the matrix products: what is supported, tensor maps, the choice of a tile, launches.

#include "gemm.h"

#include <algorithm>
#include <cmath>

#include "gemm_kernel.cuh"
#include "gemm_library.h"
#include "launch.h"

namespace mla::cuda {
namespace {

// Weight rows x tokens, stages, blocks a multiprocessor, blocks that share the weights.
using SmallTile = GemmTile<64, 32, 8, 2>;
using SmallDeepTile = GemmTile<64, 32, 16, 1>;
using NarrowTile = GemmTile<64, 128, 4, 2>;
using NarrowDeepTile = GemmTile<64, 128, 8, 1>;
using MiddleTile = GemmTile<128, 128, 6, 1>;
using WideTile = GemmTile<128, 256, 4, 1>;
using PairTile = GemmTile<256, 128, 4, 1, 2>;

// A product as the kernel takes it: weights [groups, weight_rows, depth], strides in elements, one of the last two 1.
struct Product {
  GemmParams params;
  void *weights;
  int64_t weight_rows;  // of a group: columns of out, or with silu twice as many
  int64_t group_stride, column_stride, depth_stride;
  bool float_out, silu;
  // What tiles are chosen by: rows of a group with rows, and how many such; the most rows that one can have.
  int64_t expected_rows, expected_groups, most_rows;
};

template <class Kind>
bool encode_weights(CUtensorMap &map, const Product &product) {
  const GemmParams &p = product.params;
  if (Kind::kOut == GemmOut::kSiluMul) {
    return encode_map(map, product.weights, p.depth, p.columns, product.column_stride, 2 * int64_t{p.groups},
                      product.group_stride / 2, Kind::kBlockColumns, 2);
  }
  return Kind::kAcross ? encode_map(map, product.weights, p.columns, p.depth, product.depth_stride, p.groups,
                                    product.group_stride, kStepDepth)
                       : encode_map(map, product.weights, p.depth, p.columns, product.column_stride, p.groups,
                                    product.group_stride, Kind::kBoxRows);
}

// Of tokens that lie in order, for the tiles that have them by TMA.
bool encode_tokens(CUtensorMap &map, const GemmParams &p, int tile_tokens) {
  const int64_t stride = std::max<int64_t>(p.x_stride, p.depth), groups = p.offsets ? 1 : p.groups;
  return encode_map(map, const_cast<__nv_bfloat16 *>(p.x), p.depth, p.group_rows, stride, groups,
                    groups > 1 ? p.x_group_stride : p.group_rows * stride, tile_tokens);
}

// A dimension's stride, which is of no meaning where there is at most one step of it.
int64_t stride_of(const mla_tensor &t, int dimension, int64_t otherwise) {
  return t.shape[dimension] > 1 ? t.stride[dimension] : otherwise;
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The distance of the weights' matrices; where there is one only, any that the driver takes.
int64_t matrix_distance(int64_t distance, const Product &product) {
  const GemmParams &p = product.params;
  if (p.groups > 1) return distance;
  return round_up(std::max(product.weight_rows * product.column_stride, p.depth * product.depth_stride), 8);
}

bool by_columns(const Product &product) { return product.column_stride == 1 && product.depth_stride != 1; }
int64_t tiles_of(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

// What the kernel cannot take; empty when it can.
std::string unsupported(const char *what, const mla_tensor &x, const mla_tensor &w, const mla_tensor &out,
                        const Product &product) {
  const std::string where = std::string(what) + " on CUDA ";
  const GemmParams &p = product.params;
  if (x.dtype != MLA_BF16 || w.dtype != MLA_BF16) return where + "takes BF16 activations and weights only";
  const int64_t unit = product.float_out ? 4 : 8;
  if (p.depth == 0 || p.depth % 8 != 0 || p.columns % unit != 0) {
    return where + "takes depths K of a multiple of 8, not 0, and columns N of a multiple of 8 (4 for F32 out) only, not K " +
           std::to_string(p.depth) + ", N " + std::to_string(p.columns);
  }
  const int64_t column_stride = product.column_stride == 1 ? product.depth_stride : product.column_stride;
  if (!aligned16(x.data) || p.x_stride % 8 != 0 || p.x_group_stride % 8 != 0 || !aligned16(product.weights) ||
      column_stride % 8 != 0 || product.group_stride % 8 != 0 || !aligned16(out.data) || p.out_stride % unit != 0 ||
      p.out_group_stride % unit != 0) {
    return where + "takes rows that are 16-byte aligned only, in x, w and out";
  }
  return "";
}

template <class Kind>
cudaError_t launch(const Product &product, int multiprocessors, cudaStream_t stream) {
  const GemmParams &p = product.params;
  CUtensorMap weights, tokens = {};
  if (!encode_weights<Kind>(weights, product)) return cudaErrorInvalidValue;
  if (Kind::kCluster > 1 && !p.rows && !encode_tokens(tokens, p, Kind::kTokens)) return cudaErrorInvalidValue;
  auto kernel = gemm_kernel<Kind>;
  const size_t smem = sizeof(typename Kind::Smem) + (p.offsets ? sizeof(int32_t) * p.groups : 0);
  cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem));
  if (status != cudaSuccess) return status;
  const int64_t columns = tiles_of(p.columns, Kind::kColumns);
  // An upper bound of the tiles: with offsets, each group with rows has at most one tile of tokens that is not full.
  const int64_t row_tiles = p.offsets ? std::min<int64_t>(p.groups, p.group_rows) + p.group_rows / Kind::kSpan
                                      : p.groups * tiles_of(p.group_rows, Kind::kSpan);
  const int64_t clusters =
      std::min<int64_t>(columns * row_tiles, multiprocessors / Kind::kCluster * Kind::kBlocksPerMultiprocessor);
  Launch launch(dim3(static_cast<unsigned>(clusters * Kind::kCluster)), Kind::kThreads, smem, stream);
  if (Kind::kCluster > 1) launch.set_cluster(Kind::kCluster);
  return cudaLaunchKernelEx(&launch.config, kernel, weights, tokens, p);
}

// Tiles of tokens of a group, on average. Experts' numbers of rows vary, by their root if tokens choose them evenly.
double mean_row_tiles(const Product &product, int tokens) {
  const int64_t rows = product.expected_rows;
  if (!product.params.offsets) return static_cast<double>(tiles_of(rows, tokens));
  const auto spread = static_cast<int64_t>(std::sqrt(static_cast<double>(rows)));
  return (tiles_of(rows - spread, tokens) + tiles_of(rows, tokens) + tiles_of(rows + spread, tokens)) / 3.0;
}

// About what a product takes with a tile, in cycles of a multiprocessor.
template <class Tile>
double cost(const Product &product, int multiprocessors) {
  constexpr double kRingCycles = 1800;  // from a stage's release to its next use
  constexpr double kCacheBytes = 44;    // from L2 in a cycle, when all multiprocessors read
  constexpr double kMemoryBytes = 13;   // from memory
  constexpr double kGatherCost = 1.5;   // of a byte of a gathered row
  constexpr double kSharedWeights = 1.3;  // tiles that read the same weights at once fetch them so many times
  constexpr double kTileCycles = 3000;  // to start a tile and to write its results
  const GemmParams &p = product.params;
  const double row_tiles = std::max(1.0, mean_row_tiles(product, Tile::kSpan)) * Tile::kCluster;
  const double share = static_cast<double>(product.expected_rows) / row_tiles;
  const double tokens = std::min<double>(Tile::kTokens, std::ceil(share / Tile::kTokenUnit) * Tile::kTokenUnit);
  const double tiles =
      row_tiles * static_cast<double>(product.expected_groups * tiles_of(product.weight_rows, Tile::kRows));
  const double resident = std::clamp(std::ceil(tiles / multiprocessors), 1.0, double{Tile::kBlocksPerMultiprocessor});
  const double rounds = std::ceil(tiles / (multiprocessors * resident));
  const double bytes = 128 * (Tile::kRows / Tile::kCluster + (p.rows ? kGatherCost : 1.0) * tokens);
  const double crowd = std::min(1.0, tiles / multiprocessors);  // the part of the multiprocessors that share L2
  const double step = std::max({resident * (Tile::kRows / kBlockRows) * 2 * tokens,
                                resident * crowd * bytes / kCacheBytes, kRingCycles / Tile::kStages});
  const double tile = static_cast<double>(tiles_of(p.depth, kStepDepth)) * step + kTileCycles;
  const double memory = 2.0 * static_cast<double>(product.expected_groups * product.weight_rows) * p.depth *
                        (row_tiles > Tile::kCluster ? kSharedWeights : 1.0) / (kMemoryBytes * multiprocessors);
  // Where the memory sets the pace, small tiles leave the shortest tail.
  return std::max(rounds * tile, memory) + tile / 2;
}

// Launches with the first of the tiles unless another is clearly cheaper.
template <bool kAcross, GemmOut kOut, class First, class... Others>
cudaError_t launch_cheapest(const Product &product, int multiprocessors, cudaStream_t stream) {
  if constexpr (sizeof...(Others) > 0) {
    const double cheapest = std::min({cost<Others>(product, multiprocessors)...});
    if (cheapest < 0.992 * cost<First>(product, multiprocessors)) {
      return launch_cheapest<kAcross, kOut, Others...>(product, multiprocessors, stream);
    }
  }
  return launch<GemmKind<First, kAcross, kOut>>(product, multiprocessors, stream);
}

template <bool kAcross, GemmOut kOut>
cudaError_t launch(const Product &product, int multiprocessors, cudaStream_t stream) {
  if (product.most_rows <= SmallTile::kTokens) {
    return launch_cheapest<kAcross, kOut, SmallDeepTile, SmallTile>(product, multiprocessors, stream);
  }
  if (product.expected_rows > PairTile::kTokens) {  // else one block of a pair would do all the work
    return launch_cheapest<kAcross, kOut, WideTile, PairTile, MiddleTile, NarrowDeepTile, NarrowTile>(
        product, multiprocessors, stream);
  }
  return launch_cheapest<kAcross, kOut, WideTile, MiddleTile, NarrowDeepTile, NarrowTile>(product, multiprocessors, stream);
}

}  // namespace

struct Gemm::State {
  int multiprocessors = 0;
  bool deterministic = false;
  std::unique_ptr<GemmLibrary> library;  // null where it is not installed

  // By the library, where it may and can: it is faster for most shapes, but cuts the depth differently for different rows.
  bool run_by_library(const Product &product, cudaStream_t stream) {
    const GemmParams &p = product.params;
    if (!library || deterministic || p.bias) return false;
    const bool across = by_columns(product);
    LibraryProduct wanted = {};
    wanted.batch = p.groups;
    wanted.rows = p.group_rows;
    wanted.columns = p.columns;
    wanted.depth = p.depth;
    wanted.x_stride = p.group_rows > 1 ? p.x_stride : p.depth;
    wanted.x_batch_stride = p.x_group_stride;
    wanted.w_stride = across ? product.depth_stride : product.column_stride;
    wanted.w_batch_stride = product.group_stride;
    wanted.out_stride = p.group_rows > 1 ? p.out_stride : p.columns;
    wanted.out_batch_stride = p.out_group_stride;
    wanted.across = across;
    wanted.float_out = product.float_out;
    const auto addresses = reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(product.weights) |
                           reinterpret_cast<uintptr_t>(p.out);
    wanted.alignment = addresses % 256 == 0 ? 256 : 16;
    return library->run(wanted, p.x, product.weights, p.out, stream);
  }

  mla_status run(const char *what, Product &product, cudaStream_t stream, std::string &error) {
    const GemmParams &p = product.params;
    if (p.columns == 0 || p.group_rows == 0 || p.groups == 0) return MLA_OK;
    if (!p.offsets && run_by_library(product, stream)) return MLA_OK;
    constexpr int64_t kKeptBytes = int64_t{12} << 20;  // of L2's 50 MB: more would be written to memory all the same
    const int64_t out_rows = p.offsets ? p.group_rows : int64_t{p.groups} * p.group_rows;
    product.params.keep_out = out_rows * p.columns * 2 <= kKeptBytes;
    cudaError_t status;
    if (by_columns(product)) {
      status = launch<true, GemmOut::kBf16>(product, multiprocessors, stream);
    } else if (product.silu) {
      status = launch<false, GemmOut::kSiluMul>(product, multiprocessors, stream);
    } else if (product.float_out) {
      status = launch<false, GemmOut::kFloat>(product, multiprocessors, stream);
    } else {
      status = launch<false, GemmOut::kBf16>(product, multiprocessors, stream);
    }
    return device_status(status, what, error);
  }
};

Gemm::Gemm(std::unique_ptr<State> state) : state_(std::move(state)) {}
Gemm::~Gemm() = default;

void Gemm::set_deterministic(bool on) { state_->deterministic = on; }
bool Gemm::has_library() const { return state_->library != nullptr; }

mla_status Gemm::create(std::unique_ptr<Gemm> &out, std::string &error) {
  auto state = std::make_unique<State>();
  int device = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&state->multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (status != cudaSuccess) return device_status(status, "the matrix products", error);
  std::string reason;  // the kernel does without
  state->library = GemmLibrary::open(reason);
  out.reset(new Gemm(std::move(state)));
  return MLA_OK;
}

mla_status Gemm::gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor *bias, const mla_tensor &out,
                      cudaStream_t stream, std::string &error) {
  Product product = {};
  GemmParams &p = product.params;
  p.x = static_cast<const __nv_bfloat16 *>(x.data);
  p.x_stride = stride_of(x, 0, 0);
  p.out = out.data;
  p.out_stride = stride_of(out, 0, 0);
  p.groups = 1;
  p.group_rows = static_cast<int>(x.shape[0]);
  p.columns = static_cast<int>(w.shape[0]);
  p.depth = static_cast<int>(w.shape[1]);
  product.weight_rows = p.columns;
  product.weights = w.data;
  product.column_stride = stride_of(w, 0, round_up(p.depth, 8));
  product.depth_stride = 1;
  product.group_stride = matrix_distance(0, product);
  product.float_out = out.dtype == MLA_F32;
  product.expected_rows = product.most_rows = p.group_rows;
  product.expected_groups = 1;
  error = unsupported("mla_gemm", x, w, out, product);
  if (error.empty() && bias != nullptr && bias->dtype != MLA_BF16) error = "mla_gemm on CUDA takes a BF16 bias only";
  if (!error.empty()) return MLA_UNSUPPORTED;
  if (bias != nullptr) p.bias = static_cast<const __nv_bfloat16 *>(bias->data);
  return state_->run("mla_gemm", product, stream, error);
}

mla_status Gemm::batched_gemm(const mla_tensor &x, const mla_tensor &w, const mla_tensor &out, cudaStream_t stream,
                              std::string &error) {
  Product product = {};
  GemmParams &p = product.params;
  p.x = static_cast<const __nv_bfloat16 *>(x.data);
  p.x_stride = stride_of(x, 1, 0);
  p.x_group_stride = stride_of(x, 0, 0);
  p.out = out.data;
  p.out_stride = stride_of(out, 1, 0);
  p.out_group_stride = stride_of(out, 0, 0);
  p.groups = static_cast<int>(x.shape[0]);
  p.group_rows = static_cast<int>(x.shape[1]);
  p.columns = static_cast<int>(w.shape[1]);
  p.depth = static_cast<int>(w.shape[2]);
  product.weight_rows = p.columns;
  product.weights = w.data;
  product.column_stride = stride_of(w, 1, 1);
  product.depth_stride = stride_of(w, 2, 1);
  product.group_stride = matrix_distance(w.stride[0], product);
  product.float_out = out.dtype == MLA_F32;
  product.expected_rows = product.most_rows = p.group_rows;
  product.expected_groups = p.groups;
  error = unsupported("mla_batched_gemm", x, w, out, product);
  if (!error.empty()) return MLA_UNSUPPORTED;
  return state_->run("mla_batched_gemm", product, stream, error);
}

mla_status Gemm::moe_gemm(const mla_tensor &x, const mla_tensor *rows, const mla_tensor &offsets,
                          const mla_tensor *weights, int32_t num_experts, mla_activation activation,
                          const mla_tensor &out, cudaStream_t stream, std::string &error) {
  Product product = {};
  GemmParams &p = product.params;
  p.x = static_cast<const __nv_bfloat16 *>(x.data);
  p.x_stride = stride_of(x, 0, 0);
  p.rows = rows ? static_cast<const int32_t *>(rows->data) : nullptr;
  p.offsets = static_cast<const int32_t *>(offsets.data);
  p.out = out.data;
  p.out_stride = stride_of(out, 0, 0);
  p.groups = num_experts;
  p.group_rows = static_cast<int>(out.shape[0]);  // all of them together
  p.columns = static_cast<int>(out.shape[1]);
  p.depth = static_cast<int>(x.shape[1]);
  product.weights = weights[0].data;
  product.weight_rows = weights[0].shape[0];
  product.silu = activation == MLA_SILU_MUL;
  product.column_stride = stride_of(weights[0], 0, round_up(p.depth, 8));
  product.depth_stride = 1;
  auto address = [&](int e) { return reinterpret_cast<intptr_t>(weights[e].data); };
  const int64_t distance = num_experts > 1 ? address(1) - address(0) : 0;
  product.group_stride = matrix_distance(distance / 2, product);
  product.float_out = out.dtype == MLA_F32;
  product.expected_groups = std::min<int64_t>(num_experts, p.group_rows);
  product.expected_rows = tiles_of(p.group_rows, num_experts);
  product.most_rows = std::min(x.shape[0], out.shape[0]);  // a token goes to an expert once
  error = unsupported("mla_moe_gemm", x, weights[0], out, product);
  for (int e = 1; e < num_experts && error.empty(); ++e) {
    if (address(e) - address(e - 1) != distance || distance <= 0 ||
        stride_of(weights[e], 0, product.column_stride) != product.column_stride) {
      error = "mla_moe_gemm on CUDA takes the experts' weights at equal distances only, as [experts, N, K] in one "
              "allocation; weights[" + std::to_string(e) + "] is out of line";
    }
  }
  if (product.silu && num_experts > 1 && product.group_stride != product.weight_rows * product.column_stride) {
    error = "mla_moe_gemm with MLA_SILU_MUL on CUDA takes experts' weights with nothing between them only";
  }
  if (num_experts > kMostGroups) {
    error = "mla_moe_gemm on CUDA takes at most " + std::to_string(kMostGroups) + " experts, not " +
            std::to_string(num_experts);
  }
  if (!error.empty()) return MLA_UNSUPPORTED;
  return state_->run("mla_moe_gemm", product, stream, error);
}

}  // namespace mla::cuda

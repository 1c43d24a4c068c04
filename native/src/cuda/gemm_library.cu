#include "gemm_library.h"

#include <dlfcn.h>

#include <tuple>
#include <type_traits>

namespace mla::cuda {
namespace {

// The little of cublasLt.h that is needed. The numbers are its binary interface, the same in versions 12 and 13.
constexpr int kCompute32F = 68, kTypeF32 = 0, kTypeBF16 = 14, kTranspose = 1;
constexpr int kOperationTransA = 3;
constexpr int kLayoutBatchCount = 5, kLayoutBatchStride = 6;
constexpr int kPreferWorkspace = 1, kPreferAlignmentA = 5, kPreferAlignmentD = 8;  // A, B, C, D are neighbours
constexpr uint64_t kWorkspaceBytes = uint64_t{32} << 20;

struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

}  // namespace

struct GemmLibrary::Functions {
  int (*create)(void **handle);
  int (*destroy)(void *handle);
  int (*operation_create)(void **operation, int compute_type, int scale_type);
  int (*operation_set)(void *operation, int attribute, const void *value, size_t bytes);
  int (*operation_destroy)(void *operation);
  int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading_dimension);
  int (*layout_set)(void *layout, int attribute, const void *value, size_t bytes);
  int (*layout_destroy)(void *layout);
  int (*preference_create)(void **preference);
  int (*preference_set)(void *preference, int attribute, const void *value, size_t bytes);
  int (*preference_destroy)(void *preference);
  int (*heuristic)(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference, int wanted,
                   Heuristic *results, int *found);
  int (*matmul)(void *handle, void *operation, const void *alpha, const void *a, void *a_layout, const void *b,
                void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                const void *algorithm, void *workspace, size_t workspace_bytes, cudaStream_t stream);

  bool find_all(void *file) {
    bool complete = true;
    auto find = [&](auto &function, const char *name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
      complete = complete && function != nullptr;
    };
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(operation_create, "cublasLtMatmulDescCreate");
    find(operation_set, "cublasLtMatmulDescSetAttribute");
    find(operation_destroy, "cublasLtMatmulDescDestroy");
    find(layout_create, "cublasLtMatrixLayoutCreate");
    find(layout_set, "cublasLtMatrixLayoutSetAttribute");
    find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(matmul, "cublasLtMatmul");
    return complete;
  }
};

bool LibraryProduct::operator<(const LibraryProduct &other) const {
  auto key = [](const LibraryProduct &p) {
    return std::tie(p.batch, p.rows, p.columns, p.depth, p.x_stride, p.x_batch_stride, p.w_stride, p.w_batch_stride,
                    p.out_stride, p.out_batch_stride, p.across, p.float_out, p.alignment);
  };
  return key(*this) < key(other);
}

GemmLibrary::GemmLibrary() : functions_(std::make_unique<Functions>()) {}

std::unique_ptr<GemmLibrary> GemmLibrary::open(std::string &reason) {
  void *file = nullptr;
  // Where the linker looks, then where NVIDIA's toolkit installs itself.
  for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.13",
                           "/usr/local/cuda/lib64/libcublasLt.so.12"}) {
    if (file == nullptr) file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (file == nullptr) {
    reason = "no libcublasLt.so.13, nor 12, on the library path or in /usr/local/cuda/lib64";
    return nullptr;
  }
  std::unique_ptr<GemmLibrary> library(new GemmLibrary());  // the file stays open: others may use it, too
  if (!library->functions_->find_all(file)) {
    reason = "the cuBLASLt that is installed lacks a function of versions 12 and 13";
    return nullptr;
  }
  const int status = library->functions_->create(&library->handle_);
  if (status != 0) {
    reason = "cublasLtCreate gives status " + std::to_string(status);
    return nullptr;
  }
  if (cudaMalloc(&library->workspace_, kWorkspaceBytes) != cudaSuccess) {
    cudaGetLastError();
    reason = "no 32 MB of device memory left for cuBLASLt's workspace";
    return nullptr;
  }
  return library;
}

GemmLibrary::~GemmLibrary() {
  for (auto &[product, plan] : plans_) {
    if (plan.operation) functions_->operation_destroy(plan.operation);
    for (void *layout : {plan.x, plan.w, plan.out}) {
      if (layout) functions_->layout_destroy(layout);
    }
  }
  if (workspace_) cudaFree(workspace_);
  if (handle_) functions_->destroy(handle_);
}

// The library's matrices lie by columns: it computes out^T [columns, rows] = w x^T.
GemmLibrary::Plan GemmLibrary::make_plan(const LibraryProduct &p) const {
  Plan plan;
  bool good = functions_->operation_create(&plan.operation, kCompute32F, kTypeF32) == 0;
  if (good && !p.across) {
    good = functions_->operation_set(plan.operation, kOperationTransA, &kTranspose, sizeof kTranspose) == 0;
  }
  auto layout = [&](void *&made, int type, int64_t rows, int64_t columns, int64_t stride, int64_t batch_stride) {
    const int32_t count = static_cast<int32_t>(p.batch);
    good = good && functions_->layout_create(&made, type, rows, columns, stride) == 0 &&
           functions_->layout_set(made, kLayoutBatchCount, &count, sizeof count) == 0 &&
           functions_->layout_set(made, kLayoutBatchStride, &batch_stride, sizeof batch_stride) == 0;
  };
  layout(plan.w, kTypeBF16, p.across ? p.columns : p.depth, p.across ? p.depth : p.columns, p.w_stride,
         p.w_batch_stride);
  layout(plan.x, kTypeBF16, p.depth, p.rows, p.x_stride, p.x_batch_stride);
  layout(plan.out, p.float_out ? kTypeF32 : kTypeBF16, p.columns, p.rows, p.out_stride, p.out_batch_stride);
  void *preference = nullptr;
  good = good && functions_->preference_create(&preference) == 0 &&
         functions_->preference_set(preference, kPreferWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes) == 0;
  for (int i = kPreferAlignmentA; i <= kPreferAlignmentD && good; ++i) {
    good = functions_->preference_set(preference, i, &p.alignment, sizeof p.alignment) == 0;
  }
  Heuristic best = {};
  int found = 0;
  good = good && functions_->heuristic(handle_, plan.operation, plan.w, plan.x, plan.out, plan.out, preference, 1, &best,
                                       &found) == 0;
  if (preference) functions_->preference_destroy(preference);
  plan.usable = good && found == 1 && best.status == 0;
  for (int i = 0; i < 8; ++i) plan.algorithm[i] = best.algorithm[i];
  return plan;
}

bool GemmLibrary::run(const LibraryProduct &product, const void *x, const void *w, void *out, cudaStream_t stream) {
  auto found = plans_.find(product);
  if (found == plans_.end()) found = plans_.emplace(product, make_plan(product)).first;
  const Plan &plan = found->second;
  if (!plan.usable) return false;
  const float one = 1.0f, zero = 0.0f;
  return functions_->matmul(handle_, plan.operation, &one, w, plan.w, x, plan.x, &zero, out, plan.out, out, plan.out,
                            plan.algorithm, workspace_, kWorkspaceBytes, stream) == 0;
}

}  // namespace mla::cuda

#include "gemm_library.h"

#include <dlfcn.h>

#include <cstdio>
#include <initializer_list>

#include "gemm_cases.h"

namespace mla::test {
namespace {

// The little of cublasLt.h that is needed; the numbers are the library's interface and the same in versions 12 and 13.
constexpr int kCompute32F = 68, kF32 = 0, kBF16 = 14, kTranspose = 1;
constexpr int kDescriptionTransA = 3, kLayoutBatch = 5, kLayoutBatchStride = 6, kPreferenceWorkspace = 1;
struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

struct Library {
  int (*create)(void **handle);
  int (*description_create)(void **, int compute, int scale);
  int (*description_set)(void *, int, const void *, size_t);
  int (*layout_create)(void **, int type, uint64_t rows, uint64_t columns, int64_t leading);
  int (*layout_set)(void *, int, const void *, size_t);
  int (*preference_create)(void **);
  int (*preference_set)(void *, int, const void *, size_t);
  int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int, Heuristic *, int *);
  int (*matmul)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *,
                void *, void *, void *, const void *, void *, size_t, cudaStream_t);
  void *handle = nullptr, *workspace = nullptr;
};
constexpr size_t kWorkspace = size_t{32} << 20;

Library *open_library() {
  void *file = nullptr;
  for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (file == nullptr) file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (file == nullptr) {
    std::printf("no cuBLASLt to compare with: %s\n", dlerror());
    return nullptr;
  }
  static Library library;
  bool complete = true;
  auto find = [&](auto &function, const char *name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
    complete = complete && function != nullptr;
  };
  find(library.create, "cublasLtCreate");
  find(library.description_create, "cublasLtMatmulDescCreate");
  find(library.description_set, "cublasLtMatmulDescSetAttribute");
  find(library.layout_create, "cublasLtMatrixLayoutCreate");
  find(library.layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(library.preference_create, "cublasLtMatmulPreferenceCreate");
  find(library.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(library.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(library.matmul, "cublasLtMatmul");
  if (!complete || library.create(&library.handle) != 0 || cudaMalloc(&library.workspace, kWorkspace) != cudaSuccess) {
    std::printf("no cuBLASLt to compare with: it does not open\n");
    return nullptr;
  }
  return &library;
}

Library *library() {
  static Library *opened = open_library();
  return opened;
}

void *layout(int type, int64_t rows, int64_t columns, int64_t leading, int64_t batch, int64_t batch_stride) {
  void *made = nullptr;
  const int count = static_cast<int>(batch);
  library()->layout_create(&made, type, rows, columns, leading);
  library()->layout_set(made, kLayoutBatch, &count, sizeof count);
  library()->layout_set(made, kLayoutBatchStride, &batch_stride, sizeof batch_stride);
  return made;
}

}  // namespace

bool library_available() { return library() != nullptr; }

// The library's matrices are by columns: it computes out^T [columns, rows] = w x^T.
LibraryPlan::LibraryPlan(const LibraryProduct &p) {
  if (library() == nullptr) return;
  library()->description_create(&description_, kCompute32F, kF32);
  if (!p.across) library()->description_set(description_, kDescriptionTransA, &kTranspose, sizeof kTranspose);
  w_ = p.across ? layout(kBF16, p.columns, p.depth, p.w_stride, p.batch, p.w_batch_stride)
                : layout(kBF16, p.depth, p.columns, p.w_stride, p.batch, p.w_batch_stride);
  x_ = layout(kBF16, p.depth, p.rows, p.x_stride, p.batch, p.x_batch_stride);
  out_ = layout(p.float_out ? kF32 : kBF16, p.columns, p.rows, p.out_stride, p.batch, p.out_batch_stride);
  void *preference = nullptr;
  library()->preference_create(&preference);
  library()->preference_set(preference, kPreferenceWorkspace, &kWorkspace, sizeof kWorkspace);
  Heuristic best = {};
  int found = 0;
  const int status = library()->heuristic(library()->handle, description_, w_, x_, out_, out_, preference, 1, &best,
                                          &found);
  usable_ = status == 0 && found == 1 && best.state == 0;
  for (int i = 0; i < 8; ++i) algorithm_[i] = best.algorithm[i];
}

void LibraryPlan::run(const void *x, const void *w, void *out, cudaStream_t stream) const {
  const float one = 1.0f, zero = 0.0f;
  const int status =
      library()->matmul(library()->handle, description_, &one, w, w_, x, x_, &zero, out, out_, out, out_, algorithm_,
                        library()->workspace, kWorkspace, stream);
  if (status != 0) {
    std::fprintf(stderr, "cublasLtMatmul: status %d\n", status);
    std::exit(1);
  }
}

}  // namespace mla::test

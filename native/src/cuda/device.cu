#include "device.h"

namespace mla::cuda {
namespace {

std::string version_words(int version) {  // 13000 is 13.0
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) {
    return count;
  }
  cudaGetLastError();
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    fail(MLA_NO_DEVICE, "this machine has no NVIDIA driver");
  }
  if (status == cudaErrorInsufficientDriver) {
    fail(MLA_NO_DEVICE, "the NVIDIA driver is too old: it speaks CUDA %s, this library needs %s or later",
         version_words(driver).c_str(), version_words(CUDART_VERSION / 1000 * 1000).c_str());
  }
  if (status == cudaErrorNoDevice || status == cudaSuccess) {
    fail(MLA_NO_DEVICE, "the NVIDIA driver sees no GPU; does CUDA_VISIBLE_DEVICES hide it?");
  }
  fail(MLA_NO_DEVICE, "cannot count the GPUs: %s (%s)", cudaGetErrorName(status), cudaGetErrorString(status));
}

}  // namespace

void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) {
    return;
  }
  cudaGetLastError();  // forgets it, unless it is one that stays
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const cudaError_t now = cudaMemGetInfo(&free_bytes, &total_bytes);
  int ordinal = -1;
  cudaGetDevice(&ordinal);
  if (now != cudaSuccess) {
    fail(MLA_DEVICE_ERROR, "%s: CUDA device %d is lost to this process: %s (%s); end the process", what, ordinal,
         cudaGetErrorName(status), cudaGetErrorString(status));
  }
  if (status == cudaErrorMemoryAllocation) {
    fail(MLA_OUT_OF_MEMORY, "%s: out of memory on CUDA device %d, which has %.2f of %.2f GB free", what, ordinal,
         static_cast<double>(free_bytes) * 1e-9, static_cast<double>(total_bytes) * 1e-9);
  }
  fail(MLA_INTERNAL, "%s: %s (%s) on CUDA device %d", what, cudaGetErrorName(status), cudaGetErrorString(status),
       ordinal);
}

Device open_device(int ordinal) {
  const int count = device_count();
  if (ordinal >= count) {
    fail(MLA_NO_DEVICE, "there is no CUDA device %d; this process sees %d, from 0", ordinal, count);
  }
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, ordinal), "reading the device's properties");
  if (properties.major != 9 || properties.minor != 0) {
    fail(MLA_NO_DEVICE, "CUDA device %d, %s, has compute capability %d.%d; this library has code for 9.0 (Hopper) alone",
         ordinal, properties.name, properties.major, properties.minor);
  }
  Device device;
  device.ordinal = ordinal;
  device.multiprocessors = properties.multiProcessorCount;
  device.name = properties.name;
  check(cudaSetDevice(ordinal), "opening the device");
  check(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "creating the stream");
  return device;
}

}  // namespace mla::cuda

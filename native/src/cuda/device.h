// What the host side of every operation shares: the device and its stream, and CUDA's errors as exceptions. Inside of this
// library errors are thrown (error.h); backend.cu turns them into status codes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "error.h"
#include "mla.h"

namespace mla::cuda {

struct Device {
  int ordinal = 0;
  int multiprocessors = 0;
  std::string name;
  cudaStream_t stream = nullptr;
};

/*
 * Throws unless status is cudaSuccess: MLA_OUT_OF_MEMORY, or MLA_DEVICE_ERROR when the device works no more, or
 * MLA_INTERNAL. `what` says what was being done.
 */
void check(cudaError_t status, const char *what);

// Opens device `ordinal`: MLA_NO_DEVICE with the reason when that is no Hopper GPU with a driver that fits.
Device open_device(int ordinal);

}  // namespace mla::cuda

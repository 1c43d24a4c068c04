// Contexts, buffers, maps, copies.
#include "harness.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace mla::test {
namespace {

void require_status(mla_status status, mla_status want, const char *words) {
  if (status != want || std::string(mla_last_error()).find(words) == std::string::npos) {
    fail("status %d \"%s\" instead of %d with \"%s\"", status, mla_last_error(), want, words);
  }
}

// A file of 10,000 known bytes, gone with the object.
class File {
 public:
  File() {
    const int file = mkstemp(path);
    for (size_t i = 0; i < bytes.size(); i++) {
      bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
    }
    if (file < 0 || write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      fail("cannot write %s", path);
    }
    close(file);
  }
  ~File() { unlink(path); }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  char path[32] = "/tmp/mla-test-XXXXXX";
  std::vector<uint8_t> bytes = std::vector<uint8_t>(10000);
};

void contexts(Lab &, Random &) {
  mla_context *context = nullptr;
  require_status(mla_context_create("tpu", 0, 0, nullptr, &context), MLA_INVALID_ARGUMENT, "\"tpu\"");
  require_status(mla_context_create(nullptr, 0, 0, nullptr, &context), MLA_INVALID_ARGUMENT, "device is NULL");
  require_status(mla_context_create("cpu", 1, 0, nullptr, &context), MLA_INVALID_ARGUMENT, "ordinal 0");
  require_status(mla_context_create("cpu", 0, -1, nullptr, &context), MLA_INVALID_ARGUMENT, "threads -1");
  require_status(mla_context_create("cpu", 0, 0, nullptr, nullptr), MLA_INVALID_ARGUMENT, "out is NULL");
  require_status(mla_context_create("cuda", 0, 0, nullptr, &context), MLA_NO_DEVICE, "no cuda backend library");
  require_status(mla_context_create("cuda", 0, 0, "/no/such.so", &context), MLA_NO_DEVICE, "/no/such.so");
  require_status(mla_context_create("cuda", 0, 0, "libm.so.6", &context), MLA_NO_DEVICE, "no symbol");
  if (context != nullptr) {
    fail("a context that could not be created is not NULL");
  }
  mla_context_destroy(nullptr);
  for (int i = 0; i < 20; i++) {
    require_ok(mla_context_create("cpu", 0, 1 + i % 4, nullptr, &context));
    mla_context_destroy(context);
  }
  require_ok(mla_context_create("cpu", 0, 0, nullptr, &context));
  mla_context_destroy(context);
}

void instruction_sets(Lab &, Random &) {
  const char *before = getenv("MLA_CPU_ISA");
  const std::string kept = before == nullptr ? "" : before;
  mla_context *context = nullptr;
  setenv("MLA_CPU_ISA", "mmx", 1);
  const mla_status status = mla_context_create("cpu", 0, 0, nullptr, &context);
  before == nullptr ? unsetenv("MLA_CPU_ISA") : setenv("MLA_CPU_ISA", kept.c_str(), 1);
  require_status(status, MLA_INVALID_ARGUMENT, "mmx");
}

void buffers(Lab &lab, Random &) {
  mla_buffer *buffer = nullptr;
  require_status(mla_buffer_create(lab.context, 0, &buffer), MLA_INVALID_ARGUMENT, "bytes is 0");
  require_status(mla_buffer_create(lab.context, -5, &buffer), MLA_INVALID_ARGUMENT, "bytes is -5");
  require_status(mla_buffer_create(nullptr, 5, &buffer), MLA_INVALID_ARGUMENT, "context is NULL");
  require_status(mla_buffer_create(lab.context, int64_t{1} << 60, &buffer), MLA_OUT_OF_MEMORY, "memory");
  for (const int64_t bytes : {1, 255, 256, 257, 100000}) {
    require_ok(mla_buffer_create(lab.context, bytes, &buffer));
    if (reinterpret_cast<uintptr_t>(mla_buffer_data(buffer)) % 256 != 0 || mla_buffer_bytes(buffer) != bytes) {
      fail("a buffer of %ld bytes: %ld at %p", bytes, mla_buffer_bytes(buffer), mla_buffer_data(buffer));
    }
    const std::vector<uint8_t> there(bytes, 0x5A);
    std::vector<uint8_t> back(bytes);
    require_ok(mla_copy_from_host(lab.context, mla_buffer_data(buffer), there.data(), bytes));
    require_ok(mla_copy_to_host(lab.context, back.data(), mla_buffer_data(buffer), bytes));
    require_status(mla_copy_to_host(lab.context, nullptr, mla_buffer_data(buffer), bytes), MLA_INVALID_ARGUMENT,
                   "NULL");
    require_status(mla_copy_from_host(lab.context, mla_buffer_data(buffer), there.data(), -1), MLA_INVALID_ARGUMENT,
                   "bytes is -1");
    require_ok(mla_synchronize(lab.context));
    if (back != there) {
      fail("what was copied to a buffer of %ld bytes came back different", bytes);
    }
    mla_buffer_destroy(buffer);
  }
  mla_buffer_destroy(nullptr);
}

void maps(Lab &lab, Random &) {
  const File file;
  const int64_t ranges[][2] = {{0, 10000}, {0, 1}, {9999, 1}, {3, 4097}, {4096, 100}, {5000, 5000}};
  for (const auto &range : ranges) {
    mla_buffer *buffer = nullptr;
    require_ok(mla_buffer_map(lab.context, file.path, range[0], range[1], &buffer));
    std::vector<uint8_t> back(range[1]);
    require_ok(mla_copy_to_host(lab.context, back.data(), mla_buffer_data(buffer), range[1]));
    if (mla_buffer_bytes(buffer) != range[1] || !std::equal(back.begin(), back.end(), &file.bytes[range[0]])) {
      fail("[%ld, +%ld) maps other bytes", range[0], range[1]);
    }
    mla_buffer_destroy(buffer);
  }
  mla_buffer *buffer = nullptr;
  require_status(mla_buffer_map(lab.context, file.path, 1, 10000, &buffer), MLA_IO_ERROR, file.path);
  require_status(mla_buffer_map(lab.context, file.path, 1, 10000, &buffer), MLA_IO_ERROR, "10000 bytes at offset 1");
  require_status(mla_buffer_map(lab.context, file.path, 20000, 1, &buffer), MLA_IO_ERROR, "of 10000 bytes");
  require_status(mla_buffer_map(lab.context, file.path, 1, INT64_MAX, &buffer), MLA_IO_ERROR, "cannot map");
  require_status(mla_buffer_map(lab.context, "/no/such/file", 0, 1, &buffer), MLA_IO_ERROR, "/no/such/file");
  require_status(mla_buffer_map(lab.context, "/tmp", 0, 1, &buffer), MLA_IO_ERROR, "not a regular file");
  require_status(mla_buffer_map(lab.context, file.path, -1, 1, &buffer), MLA_INVALID_ARGUMENT, "offset -1");
  require_status(mla_buffer_map(lab.context, file.path, 0, 0, &buffer), MLA_INVALID_ARGUMENT, "bytes 0");
  require_status(mla_buffer_map(lab.context, nullptr, 0, 1, &buffer), MLA_INVALID_ARGUMENT, "path is NULL");
}

}  // namespace

std::vector<Case> memory_cases() {
  return {check_case("contexts", contexts), check_case("instruction sets", instruction_sets),
          check_case("buffers", buffers), check_case("maps", maps)};
}

}  // namespace mla::test

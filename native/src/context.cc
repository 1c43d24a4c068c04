// Contexts, buffers and copies: mla.h's first part.
#include "context.h"

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <exception>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mla {
namespace {

thread_local std::string last_error;

// The file's mapping, page-aligned as mmap wants it; data is where the asked range begins.
struct Mapping {
  void *start;
  int64_t bytes;
  void *data;
};

Mapping map_file(const char *path, int64_t offset, int64_t bytes) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    fail(MLA_IO_ERROR, "cannot open %s: %s", path, strerror(errno));
  }
  struct stat info;
  const bool known = fstat(file, &info) == 0;
  const int64_t file_bytes = known ? static_cast<int64_t>(info.st_size) : 0;
  if (!known || !S_ISREG(info.st_mode) || offset > file_bytes || bytes > file_bytes - offset) {
    close(file);
    fail(MLA_IO_ERROR, "%s: cannot map %lld bytes at offset %lld: %s of %lld bytes", path,
         static_cast<long long>(bytes), static_cast<long long>(offset),
         known && !S_ISREG(info.st_mode) ? "not a regular file, and" : "the file is one",
         static_cast<long long>(file_bytes));
  }
  const int64_t lead = offset % sysconf(_SC_PAGESIZE);
  void *start = mmap(nullptr, bytes + lead, PROT_READ, MAP_SHARED, file, offset - lead);
  const int error = errno;
  close(file);
  if (start == MAP_FAILED) {
    fail(MLA_IO_ERROR, "%s: mmap of %lld bytes at offset %lld: %s", path, static_cast<long long>(bytes),
         static_cast<long long>(offset), strerror(error));
  }
  return {start, bytes + lead, static_cast<char *>(start) + lead};
}

Backend *open_library_backend(const char *library, int32_t ordinal) {
  // Local: two backends, or two C++ runtimes, must not see each other's symbols. Never closed: a device's runtime
  // does not survive that.
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    fail(MLA_NO_DEVICE, "cannot load the cuda backend: %s", dlerror());
  }
  const auto open_backend = reinterpret_cast<OpenBackend>(dlsym(handle, kOpenBackendSymbol));
  if (open_backend == nullptr) {
    fail(MLA_NO_DEVICE, "%s is no backend of this version: it has no symbol %s", library, kOpenBackendSymbol);
  }
  Backend *backend = nullptr;
  char message[1024] = "";
  const mla_status status = open_backend(ordinal, &backend, message, sizeof message);
  if (status != MLA_OK) {
    throw Error{status, message};
  }
  return backend;
}

Backend *open_backend(const char *device, int32_t ordinal, int32_t threads, const char *library) {
  if (device == nullptr) {
    fail(MLA_INVALID_ARGUMENT, "device is NULL; it must be \"cpu\" or \"cuda\"");
  }
  if (ordinal < 0 || threads < 0) {
    fail(MLA_INVALID_ARGUMENT, "ordinal %d and threads %d must not be negative", ordinal, threads);
  }
  if (strcmp(device, "cpu") == 0) {
    if (ordinal != 0) {
      fail(MLA_INVALID_ARGUMENT, "device cpu has ordinal 0 only, not %d", ordinal);
    }
    return open_cpu_backend(threads);
  }
  if (strcmp(device, "cuda") == 0) {
    if (library == nullptr) {
      fail(MLA_NO_DEVICE, "device cuda was asked for, but this build brings no cuda backend library");
    }
    return open_library_backend(library, ordinal);
  }
  fail(MLA_INVALID_ARGUMENT, "device \"%s\" is neither \"cpu\" nor \"cuda\"", device);
}

void check_copy(const void *dst, const void *src, int64_t bytes) {
  if (bytes < 0 || (bytes > 0 && (dst == nullptr || src == nullptr))) {
    fail(MLA_INVALID_ARGUMENT, "bytes is %lld, dst %p, src %p: a size must not be negative, an address not NULL",
         static_cast<long long>(bytes), dst, src);
  }
}

}  // namespace

void set_last_error(const char *where, const char *words) { last_error = std::string(where) + ": " + words; }

}  // namespace mla

using namespace mla;

const char *mla_last_error(void) { return last_error.c_str(); }

mla_status mla_context_create(const char *device, int32_t ordinal, int32_t threads, const char *library,
                              mla_context **out) {
  return guarded(__func__, nullptr, [&] {
    if (out == nullptr) {
      fail(MLA_INVALID_ARGUMENT, "out is NULL");
    }
    *out = nullptr;
    auto context = std::make_unique<mla_context>();
    context->backend.reset(open_backend(device, ordinal, threads, library));
    *out = context.release();
  });
}

void mla_context_destroy(mla_context *ctx) { delete ctx; }

mla_status mla_device_info(mla_context *ctx, int64_t *free_bytes, int64_t *total_bytes, char *name,
                           int32_t name_bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (free_bytes == nullptr || total_bytes == nullptr || name == nullptr || name_bytes < 1) {
      fail(MLA_INVALID_ARGUMENT, "free_bytes, total_bytes and name must not be NULL, name_bytes (%d) at least 1",
           name_bytes);
    }
    require_ok(backend, backend.device_info(free_bytes, total_bytes, name, name_bytes));
  });
}

mla_status mla_buffer_create(mla_context *ctx, int64_t bytes, mla_buffer **out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (out == nullptr || bytes <= 0) {
      fail(MLA_INVALID_ARGUMENT, "bytes is %lld: it must be positive, and out not NULL", static_cast<long long>(bytes));
    }
    *out = nullptr;
    auto buffer = std::make_unique<mla_buffer>(mla_buffer{&backend, nullptr, bytes, nullptr, 0, false});
    require_ok(backend, backend.allocate(bytes, &buffer->data));
    *out = buffer.release();
  });
}

mla_status mla_buffer_map(mla_context *ctx, const char *path, int64_t offset, int64_t bytes, mla_buffer **out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (out == nullptr || path == nullptr || offset < 0 || bytes <= 0) {
      fail(MLA_INVALID_ARGUMENT, "%s: bytes %lld must be positive, offset %lld not negative, path and out not NULL",
           path == nullptr ? "path is NULL" : path, static_cast<long long>(bytes), static_cast<long long>(offset));
    }
    *out = nullptr;
    auto buffer = std::make_unique<mla_buffer>(mla_buffer{&backend, nullptr, bytes, nullptr, 0, false});
    const Mapping mapping = map_file(path, offset, bytes);
    if (backend.host_memory()) {
      buffer->data = mapping.data;
      buffer->mapping = mapping.start;
      buffer->mapping_bytes = mapping.bytes;
    } else {
      mla_status status = backend.allocate(bytes, &buffer->data);
      if (status == MLA_OK) {
        status = backend.copy_from_host(buffer->data, mapping.data, bytes);
        if (status != MLA_OK) {
          backend.release(buffer->data);
        }
      }
      munmap(mapping.start, mapping.bytes);
      require_ok(backend, status);
    }
    *out = buffer.release();
  });
}

mla_status mla_host_buffer_create(mla_context *ctx, int64_t bytes, mla_buffer **out) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    if (out == nullptr || bytes <= 0) {
      fail(MLA_INVALID_ARGUMENT, "bytes is %lld: it must be positive, and out not NULL", static_cast<long long>(bytes));
    }
    *out = nullptr;
    auto buffer = std::make_unique<mla_buffer>(mla_buffer{&backend, nullptr, bytes, nullptr, 0, true});
    require_ok(backend, backend.allocate_host(bytes, &buffer->data));
    *out = buffer.release();
  });
}

void *mla_buffer_data(const mla_buffer *buffer) { return buffer->data; }

int64_t mla_buffer_bytes(const mla_buffer *buffer) { return buffer->bytes; }

void mla_buffer_destroy(mla_buffer *buffer) {
  if (buffer == nullptr) {
    return;
  }
  if (buffer->mapping != nullptr) {
    munmap(buffer->mapping, buffer->mapping_bytes);
  } else if (buffer->on_host) {
    buffer->backend->release_host(buffer->data);
  } else {
    buffer->backend->release(buffer->data);
  }
  delete buffer;
}

mla_status mla_copy_from_host(mla_context *ctx, void *dst, const void *src, int64_t bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    check_copy(dst, src, bytes);
    require_ok(backend, backend.copy_from_host(dst, src, bytes));
  });
}

mla_status mla_copy_to_host(mla_context *ctx, void *dst, const void *src, int64_t bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    check_copy(dst, src, bytes);
    require_ok(backend, backend.copy_to_host(dst, src, bytes));
  });
}

mla_status mla_copy_from_host_async(mla_context *ctx, void *dst, const void *src, int64_t bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    check_copy(dst, src, bytes);
    require_ok(backend, backend.copy_from_host_async(dst, src, bytes));
  });
}

mla_status mla_copy_to_host_async(mla_context *ctx, void *dst, const void *src, int64_t bytes) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    check_copy(dst, src, bytes);
    require_ok(backend, backend.copy_to_host_async(dst, src, bytes));
  });
}

mla_status mla_synchronize(mla_context *ctx) {
  return guarded(__func__, ctx, [&] {
    Backend &backend = backend_of(ctx);
    require_ok(backend, backend.synchronize());
  });
}

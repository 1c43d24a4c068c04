// What goes wrong inside the library, on its way to a status code.
#ifndef MLA_ERROR_H
#define MLA_ERROR_H

#include "mla.h"

#include <cstdarg>
#include <cstdio>
#include <string>

namespace mla {

struct Error {
  mla_status status;
  std::string words;
};

[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(mla_status status, const char *format, ...) {
  char words[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  throw Error{status, words};
}

}  // namespace mla

#endif

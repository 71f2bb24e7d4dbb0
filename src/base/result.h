#pragma once

// A wrong world is a Result: what can go wrong outside the program comes back as a value.

#include <expected>
#include <string>
#include <utility>

#include "base/error_table.h"

namespace lockstep {

/// code     decides what a caller does (base/error_table.h)
/// message  a whole sentence for people: the field, the value and the limit
/// pointer  JSON pointer of the place in the input, empty when there is none
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  std::string pointer;

  friend bool operator==(const Error&, const Error&) = default;
};

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
  using Base = std::expected<T, Error>;

 public:
  using Base::Base;
  Result(Base base) : Base(std::move(base)) {}                    // NOLINT: implicit on purpose
  Result(Error error) : Base(std::unexpect, std::move(error)) {}  // NOLINT: implicit on purpose
};
using Status = Result<void>;

inline Error fail(ErrorCode code, std::string message, std::string pointer = {}) {
  return Error{code, std::move(message), std::move(pointer)};
}

}  // namespace lockstep

/// The value of a Result, or return its error upward. The only control-flow macro.
#define LOCKSTEP_TRY(expression)                                                        \
  __extension__({                                                                       \
    auto lockstep_result = (expression);                                                \
    if (!lockstep_result) return ::lockstep::Error{std::move(lockstep_result).error()}; \
    *std::move(lockstep_result);                                                        \
  })

/// The same for a Status.
#define LOCKSTEP_TRY_STATUS(expression)                                                 \
  do {                                                                                  \
    auto lockstep_result = (expression);                                                \
    if (!lockstep_result) return ::lockstep::Error{std::move(lockstep_result).error()}; \
  } while (false)

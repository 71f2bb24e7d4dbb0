#pragma once

#include <string>
#include <string_view>

namespace lockstep::server {

/// One line for a log: control characters, and bytes that are no UTF-8, stand as \xNN. What others say is quoted in it.
std::string printable(std::string_view text);

}  // namespace lockstep::server

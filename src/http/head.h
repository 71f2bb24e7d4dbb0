#pragma once

// The first lines of an answer, up to the empty one.

#include <string>

#include "http/shapes.h"

namespace lockstep::http {

/// "HTTP/1.1 200 OK" with its end of line.
std::string head_line(int status);
/// Now, as HTTP writes it: "Tue, 24 Nov 2026 17:00:00 GMT".
std::string http_date();
/// Everything before the body of an answer.
std::string head_text(const Answer& answer, bool keep_alive);

}  // namespace lockstep::http

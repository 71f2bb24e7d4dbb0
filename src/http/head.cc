#include "http/head.h"

#include <chrono>
#include <ctime>

#include <boost/beast/http/status.hpp>

#include "base/text.h"

namespace lockstep::http {

namespace beast = boost::beast;

std::string http_date() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[64];
  const std::size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text, length);
}

std::string head_line(int status) {
  const auto known = beast::http::int_to_status(static_cast<unsigned>(status));
  const beast::string_view reason = beast::http::obsolete_reason(known);
  return cat("HTTP/1.1 ", status, " ", std::string_view(reason.data(), reason.size()), "\r\n");
}

std::string head_text(const Answer& answer, bool keep_alive) {
  std::string out = head_line(answer.status);
  out += cat("Date: ", http_date(), "\r\nX-Content-Type-Options: nosniff\r\n");
  if (answer.status != 304) {
    out += cat("Content-Type: ", answer.content_type, "\r\nContent-Length: ", answer.body.size(), "\r\n");
  }
  if (answer.status == 429 || answer.status == 503) out += "Retry-After: 1\r\n";
  for (const auto& [name, value] : answer.headers) out += cat(name, ": ", value, "\r\n");
  out += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

}  // namespace lockstep::http

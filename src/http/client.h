#pragma once

// A small blocking HTTP client for the command line: one request, or one event stream that is read line by line.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace lockstep::http {

struct Address {
  std::string host = "127.0.0.1";
  std::uint16_t port = 7420;
};
/// "http://127.0.0.1:7420"; invalid_argument otherwise.
Result<Address> address_from_url(const std::string& url);

struct Response {
  int status = 0;
  std::string body;
  std::map<std::string, std::string> headers;  // names in lower case
};

/// unavailable when nobody answers at the address (the sentence says so and names it).
Result<Response> request(const Address& address, const std::string& method, const std::string& target,
                         const std::string& body = {}, const std::map<std::string, std::string>& headers = {});

/// What a response that is no success says: the code and the sentence of its error body, or of its status.
Error error_from(const Response& response);

struct ServerSentEvent {
  std::string id;
  std::string type;
  std::string data;
};

/// An open stream; next() blocks for at most timeout_ms and returns nothing then, or when a signal interrupts it;
/// unavailable when the stream ended.
class EventStream {
 public:
  static Result<std::unique_ptr<EventStream>> open(const Address& address, const std::string& target,
                                                   const std::map<std::string, std::string>& headers = {});
  ~EventStream();
  Result<std::optional<ServerSentEvent>> next(int timeout_ms);
  /// What to send as Last-Event-ID to go on here: nothing that next() returned comes again, and nothing is left out.
  std::string last_id() const;

 private:
  struct State;
  explicit EventStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::http

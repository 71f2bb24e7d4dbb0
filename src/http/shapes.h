#pragma once

// The bodies that this room shapes itself: answers, errors, image lists, event lines; and which route a target is.
// Pure functions over text, so that hostile input is tested without a socket. docs/formats/http_api.md.

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/image_header.h"
#include "base/result.h"
#include "events/json_write.h"
#include "orchestrator/effect.h"
#include "propagation/event_facts.h"

namespace lockstep::http {

/// What goes back for one request. HTTP's own fields (length, connection) are added when it is written.
struct Answer {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers{};
};

/// The error body of the OpenAI shape; param is null when `pointer` is empty.
Answer error_answer(int status, std::string_view code, std::string_view message, std::string_view pointer = {});
/// With the status and the name of base/error_table.h.
Answer error_answer(const Error& error);

/// A target that is known, and what it names.
struct Route {
  enum class Kind {
    livez,
    view,
    generate,
    check,
    cancel,
    output,
    events,
    restart_worker,
    calibrate_device,
    worker_log,
    metrics,
    models,
    model,
    load_model,
    unload_model,
    verify_model,
    setting,
    command,
    journal
  };
  Kind kind = Kind::livez;
  /// view, setting, command, journal: its path; cancel: the request id; output: the hash; of a worker: its id
  std::string name;
  std::string query;  // without the question mark
  const ImageFormat* format = nullptr;  // output: what the path's suffix says, if it has one
};
/// The route without the ids in it: one of a bounded set of names.
std::string class_of(const Route& route);
/// Only these exact paths exist; nothing is decoded or normalised, so no spelling of ".." or "/" can reach a file.
/// Refuses with 404, or 405 and Allow.
std::expected<Route, Answer> route_of(std::string_view method, std::string_view target);

/// The decoded keys and values of a query. invalid_argument names a key that is not one of `known`, comes twice, or is
/// badly encoded: a typing error must not be a default.
Result<std::map<std::string, std::string>> query_values(std::string_view query,
                                                        std::initializer_list<std::string_view> known);

/// An Idempotency-Key: 1 to 255 visible ASCII characters; invalid_argument names the header and the limit.
Status check_key(std::string_view key);

/// A value of a query or header; invalid_argument names `where` and the text.
Result<std::uint64_t> whole_number(std::string_view where, std::string_view text);

/// The body of a generation; 400 names the place. An unknown key is refused: a typing error must not be a default.
Result<GenerateBody> read_generate_body(std::string_view text);

/// The body of POST /api/v1/models. `mode` is "copy" (default) or "link".
struct AddModelBody {
  std::string path;
  std::optional<std::string> name;
  std::optional<std::string> mode;
};
BOOST_DESCRIBE_STRUCT(AddModelBody, (), (path, name, mode))
/// The input that it asks for; without a name, that of the file or folder.
Result<in::AddModel> read_add_model(std::string_view text);

/// The file that a copy of the journal goes to; invalid_argument unless it is a path from the root.
Result<std::string> read_backup(std::string_view text);

/// What the body of a load or unload names; an empty body names nothing.
struct LoadChoice {
  std::optional<WorkerId> worker;
  std::optional<AllocationPriority> priority;  // of loads: which are taken first
};
BOOST_DESCRIBE_STRUCT(LoadChoice, (), (worker, priority))
Result<LoadChoice> read_load_choice(std::string_view text);

/// Whether a comma-separated header has this word, whatever its case.
bool has_token(std::string_view header, std::string_view token);
/// Whether a page of this `origin` may use the server at `host`; a request without an origin is no page's.
/// on_loopback: then the host must be a loopback name as well, or a page could rebind its own name to us.
bool origin_allowed(std::string_view origin, std::string_view host, bool on_loopback);

std::string base64(std::string_view bytes);

/// The answer of a completed request. as_url: links below `base_url`; otherwise `files` has one file per image.
std::string images_text(const out::ReplyImages& reply, const std::string& base_url,
                        const std::vector<std::string>& files);

/// What an event stream says about one event; the data line of the stream.
struct EventLine {
  std::optional<Rev> rev;  // absent for progress, which is not durable
  std::string time;
  std::string type;
  std::string subject;
  RawJson body{"{}"};
  std::optional<Urgency> urgency;  // absent for a note of the stream itself, as is the domain
  std::optional<Domain> domain;
  std::optional<std::string> session;  // whose work it tells of
};
BOOST_DESCRIBE_STRUCT(EventLine, (), (rev, time, type, subject, body, urgency, domain, session))

/// One server-sent event, with its closing empty line. `id` is there for a durable event that is the last of its rev.
std::string event_text(Rev rev, WallTime time, const CommitEvent& event, bool last_of_rev = true);
/// The events of one commit, to be sent as one text. Only the last has the id: a reader that was cut in the middle
/// comes back with the rev before and gets this one whole.
std::string events_text(Rev rev, WallTime time, const std::vector<CommitEvent>& events);

}  // namespace lockstep::http

#include "http/shapes.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <openssl/evp.h>

#include "base/digest.h"
#include "base/image_header.h"
#include "base/text.h"
#include "events/json_read.h"
#include "http/journal_shapes.h"

namespace lockstep::http {

namespace {

struct ErrorBody {
  std::string message;
  std::string type;
  RawJson param;
  std::string code;
};
BOOST_DESCRIBE_STRUCT(ErrorBody, (), (message, type, param, code))

struct ErrorEnvelope {
  ErrorBody error;
};
BOOST_DESCRIBE_STRUCT(ErrorEnvelope, (), (error))

struct ImageEntry {
  std::optional<std::string> b64_json;
  std::optional<std::string> url;
};
BOOST_DESCRIBE_STRUCT(ImageEntry, (), (b64_json, url))

struct ImageFacts {
  std::string sha256;
  std::uint64_t seed = 0;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};
BOOST_DESCRIBE_STRUCT(ImageFacts, (), (sha256, seed, width, height))

struct OwnPart {
  RequestId request_id;
  std::vector<ImageFacts> images;
};
BOOST_DESCRIBE_STRUCT(OwnPart, (), (request_id, images))

struct ImagesBody {
  std::int64_t created = 0;  // seconds since 1970
  std::vector<ImageEntry> data;
  std::string output_format = "png";
  std::string size;
  OwnPart lockstep;
};
BOOST_DESCRIBE_STRUCT(ImagesBody, (), (created, data, output_format, size, lockstep))

bool same_letters(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// The pieces of `text` between separators, empty ones too.
template <class F>
void each_piece(std::string_view text, char separator, F&& f) {
  while (true) {
    const std::size_t end = text.find(separator);
    f(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const char* const digits = text.data() + i + 1;
    const auto parsed = std::from_chars(digits, digits + 2, value, 16);
    if (parsed.ec != std::errc{} || parsed.ptr != digits + 2) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

/// The name between a prefix and a suffix, when it is a plain one.
std::optional<std::string> name_between(std::string_view path, std::string_view prefix, std::string_view suffix) {
  if (path.size() < prefix.size() + suffix.size() || !path.starts_with(prefix) || !path.ends_with(suffix)) {
    return std::nullopt;
  }
  const std::string_view name = path.substr(prefix.size(), path.size() - prefix.size() - suffix.size());
  if (!is_plain_name(name)) return std::nullopt;
  return std::string(name);
}

/// What the path names, whatever the method.
std::optional<Route> place_of(std::string_view path) {
  using Kind = Route::Kind;
  constexpr std::string_view requests = "/api/v1/requests/";
  constexpr std::string_view outputs = "/api/v1/outputs/";
  constexpr std::string_view workers = "/api/v1/workers/";
  constexpr std::string_view devices = "/api/v1/devices/";
  constexpr std::string_view workflows = "/api/v1/workflows/";
  constexpr std::string_view sessions = "/api/v1/sessions/";
  constexpr std::string_view transactions = "/api/v1/transactions/";
  if (path == "/livez") return Route{Kind::livez, {}, {}};
  if (path == "/metrics") return Route{Kind::metrics, {}, {}};
  if (path == "/readyz") return Route{Kind::view, "readyz", {}};
  if (path == "/v1/models") return Route{Kind::view, "v1/models", {}};
  if (path == "/v1/images/generations") return Route{Kind::generate, {}, {}};
  if (path == "/api/v1/checks") return Route{Kind::check, {}, {}};
  if (path == "/api/v1/events") return Route{Kind::events, {}, {}};
  constexpr std::string_view models = "/api/v1/models/";
  if (path == "/api/v1/models") return Route{Kind::models, "models", {}};
  if (const auto id = name_between(path, models, "/load")) return Route{Kind::load_model, *id, {}};
  if (const auto id = name_between(path, models, "/unload")) return Route{Kind::unload_model, *id, {}};
  if (const auto id = name_between(path, models, "/verify")) return Route{Kind::verify_model, *id, {}};
  if (const auto id = name_between(path, models, "/config")) {
    return Route{Kind::setting, cat("models/", *id, "/config"), {}};
  }
  if (const auto id = name_between(path, models, "")) return Route{Kind::model, *id, {}};
  for (const std::string_view view : {"status", "devices", "requests", "workers", "sessions", "workflows",
                                      "policies/safety", "outputs", "propagation", "loads", "transactions"}) {
    if (path == cat("/api/v1/", view)) return Route{Kind::view, std::string(view), {}};
  }
  if (path == "/api/v1/memory") return Route{Kind::view, "memory", {}};
  if (path == "/api/v1/memory/history") return Route{Kind::view, "memory/history", {}};
  if (path == "/api/v1/memory/policy") return Route{Kind::setting, "memory/policy", {}};
  for (const std::string_view word : {"snapshot", "backup"}) {
    if (path == cat("/api/v1/journal/", word)) return Route{Kind::journal, cat("journal/", word), {}};
  }
  if (path == "/api/v1/routing") return Route{Kind::setting, "routing", {}};
  if (const auto id = name_between(path, devices, "/config")) {
    return Route{Kind::setting, cat("devices/", *id, "/config"), {}};
  }
  if (const auto id = name_between(path, devices, "/calibrate")) return Route{Kind::calibrate_device, *id, {}};
  if (const auto id = name_between(path, devices, "")) return Route{Kind::view, cat("devices/", *id), {}};
  if (const auto id = name_between(path, "/api/v1/propagation/", "")) {
    return Route{Kind::view, cat("propagation/", *id), {}};
  }
  if (const auto id = name_between(path, requests, "/cancel")) return Route{Kind::cancel, *id, {}};
  if (const auto id = name_between(path, workers, "/restart")) return Route{Kind::restart_worker, *id, {}};
  for (const std::string_view word : {"pause", "resume", "complete", "cancel"}) {
    const auto id = name_between(path, sessions, cat("/", word));
    if (id) return Route{Kind::command, cat("sessions/", *id, "/", word), {}};
  }
  if (const auto id = name_between(path, transactions, "/resolve")) {
    return Route{Kind::command, cat("transactions/", *id, "/resolve"), {}};
  }
  if (const auto id = name_between(path, transactions, "")) return Route{Kind::view, cat("transactions/", *id), {}};
  for (const std::string_view word : {"run", "remove"}) {
    const auto name = name_between(path, workflows, cat("/", word));
    if (name) return Route{Kind::command, cat("workflows/", *name, "/", word), {}};
  }
  if (const auto name = name_between(path, workflows, "")) return Route{Kind::view, cat("workflows/", *name), {}};
  if (const auto hash = name_between(path, outputs, "/tags"); hash && is_sha256_hex(*hash)) {
    return Route{Kind::command, cat("outputs/", *hash, "/tags"), {}};
  }
  if (const auto id = name_between(path, sessions, "")) return Route{Kind::view, cat("sessions/", *id), {}};
  if (const auto id = name_between(path, workers, "/logs")) return Route{Kind::worker_log, *id, {}};
  if (const auto id = name_between(path, workers, "")) return Route{Kind::view, cat("workers/", *id), {}};
  if (const auto id = name_between(path, requests, "")) return Route{Kind::view, cat("requests/", *id), {}};
  for (const ImageFormat& format : image_formats) {
    const auto hash = name_between(path, outputs, format.suffix);
    if (hash && is_sha256_hex(*hash)) return Route{Kind::output, *hash, {}, &format};
  }
  const auto hash = name_between(path, outputs, "");
  return hash && is_sha256_hex(*hash) ? std::optional(Route{Kind::output, *hash, {}}) : std::nullopt;
}

std::string_view methods_of(Route::Kind kind) {
  switch (kind) {
    case Route::Kind::generate:
    case Route::Kind::check:
    case Route::Kind::restart_worker:
    case Route::Kind::calibrate_device:
    case Route::Kind::load_model:
    case Route::Kind::unload_model:
    case Route::Kind::verify_model:
    case Route::Kind::command:
    case Route::Kind::journal:
    case Route::Kind::cancel: return "POST";
    case Route::Kind::models: return "GET, HEAD, POST";
    case Route::Kind::model: return "GET, HEAD, DELETE";
    case Route::Kind::events: return "GET";
    case Route::Kind::setting: return "GET, HEAD, PUT, PATCH";
    case Route::Kind::livez:
    case Route::Kind::metrics:
    case Route::Kind::view:
    case Route::Kind::worker_log:
    case Route::Kind::output: return "GET, HEAD";
  }
  return "GET";
}

/// "127.0.0.1:7420" and "[::1]:7420" without their port.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.rfind(':'));
}

bool is_loopback_name(std::string_view name) {
  // Digits and dots only: "127.example.org" is somebody's name.
  const bool numeric = name.find_first_not_of("0123456789.") == std::string_view::npos;
  return name == "[::1]" || (name.starts_with("127.") && numeric) || same_letters(name, "localhost");
}

}  // namespace

Answer error_answer(int status, std::string_view code, std::string_view message, std::string_view pointer) {
  ErrorEnvelope body;
  body.error = {std::string(message), status < 500 ? "invalid_request_error" : "server_error", {}, std::string(code)};
  if (pointer.size() > 1) body.error.param.text = json::to_text(std::string(pointer.substr(1)));
  Answer answer;
  answer.status = status;
  answer.body = json::to_text(body);
  return answer;
}

Answer error_answer(const Error& error) {
  const ErrorFacts facts = error_facts(error.code);
  return error_answer(facts.http_status, facts.name, error.message, error.pointer);
}

std::string class_of(const Route& route) {
  switch (route.kind) {
    case Route::Kind::livez: return "livez";
    case Route::Kind::view: return route.name == "v1/models" ? route.name : route.name.substr(0, route.name.find('/'));
    case Route::Kind::generate: return "generate";
    case Route::Kind::check: return "check";
    case Route::Kind::cancel: return "cancel";
    case Route::Kind::output: return "output";
    case Route::Kind::events: return "events";
    case Route::Kind::restart_worker: return "restart_worker";
    case Route::Kind::calibrate_device: return "calibrate_device";
    case Route::Kind::worker_log: return "worker_log";
    case Route::Kind::metrics: return "metrics";
    case Route::Kind::models: return "models";
    case Route::Kind::model: return "model";
    case Route::Kind::load_model: return "load_model";
    case Route::Kind::unload_model: return "unload_model";
    case Route::Kind::verify_model: return "verify_model";
    case Route::Kind::setting: return "setting";
    case Route::Kind::command:
    case Route::Kind::journal: return route.name.substr(0, route.name.find('/'));
  }
  return "unknown";
}

std::expected<Route, Answer> route_of(std::string_view method, std::string_view target) {
  // The absolute form is what a client sends to a proxy; every server has to take it (RFC 9112, 3.2.2).
  if (target.starts_with("http://")) {
    const std::size_t path = target.find('/', 7);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  const std::size_t question = target.find('?');
  const std::string_view path = target.substr(0, question);
  auto route = place_of(path);
  // A collection is listed and added to at one path.
  const bool added_to = route && route->kind == Route::Kind::view &&
                        (route->name == "sessions" || route->name == "workflows" || route->name == "policies/safety");
  if (added_to && method == "POST") route->kind = Route::Kind::command;
  if (!route) {
    return std::unexpected(error_answer(404, "not_found", cat("there is nothing at ", shortened(path, 100))));
  }
  const std::string_view allowed = added_to ? "GET, HEAD, POST" : methods_of(route->kind);
  if (!has_token(allowed, method)) {
    Answer answer =
        error_answer(405, "method_not_allowed",
                     cat(shortened(method, 20), " is not possible at ", shortened(path, 100), "; use ", allowed));
    answer.headers.emplace_back("Allow", allowed);
    return std::unexpected(std::move(answer));
  }
  if (question != std::string_view::npos) route->query = target.substr(question + 1);
  return *std::move(route);
}

Result<std::map<std::string, std::string>> query_values(std::string_view query,
                                                        std::initializer_list<std::string_view> known) {
  std::map<std::string, std::string> out;
  Status status;
  each_piece(query, '&', [&](std::string_view piece) {
    if (piece.empty() || !status) return;
    const std::size_t equals = piece.find('=');
    const std::string key(piece.substr(0, equals));
    const auto refuse = [&](std::string_view why) {
      status =
          fail(ErrorCode::invalid_argument, cat("the query's ", shortened(key), " ", why), cat("/", shortened(key)));
    };
    if (std::ranges::find(known, key) == known.end()) {
      std::string names;
      for (const std::string_view name : known) names += cat(names.empty() ? "" : ", ", name);
      return refuse(cat("is unknown; known are ", names));
    }
    const auto value = equals == std::string_view::npos ? std::nullopt : percent_decoded(piece.substr(equals + 1));
    if (!value) return refuse("has no value, or one that is badly encoded");
    if (!out.emplace(key, *value).second) return refuse("is there twice");
  });
  LOCKSTEP_TRY_STATUS(status);
  return out;
}

Status check_key(std::string_view key) {
  const bool visible = std::ranges::all_of(key, [](char c) { return c > ' ' && c <= '~'; });
  if (!key.empty() && key.size() <= 255 && visible) return {};
  return fail(ErrorCode::invalid_argument,
              cat("Idempotency-Key is \"", shortened(key), "\"; it must be 1 to 255 visible ASCII characters"),
              "/Idempotency-Key");
}

Result<std::uint64_t> whole_number(std::string_view where, std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (!text.empty() && parsed.ec == std::errc{} && parsed.ptr == end) return number;
  return fail(ErrorCode::invalid_argument, cat(where, " is \"", shortened(text), "\"; it must be a whole number"),
              cat("/", where));
}

Result<GenerateBody> read_generate_body(std::string_view text) {
  json::ReadNotes notes;
  GenerateBody body = LOCKSTEP_TRY(json::from_text<GenerateBody>(text, &notes));
  if (notes.unknown_keys == 0) return body;
  const std::string_view key = std::string_view(notes.first_unknown).substr(notes.first_unknown.empty() ? 0 : 1);
  return fail(ErrorCode::invalid_argument, cat("the key \"", shortened(key), "\" is unknown; nothing was made"),
              notes.first_unknown);
}

namespace {

template <class Body>
Result<Body> read_strictly(std::string_view text) {
  json::ReadNotes notes;
  Body body = LOCKSTEP_TRY(json::from_text<Body>(text, &notes));
  if (notes.unknown_keys == 0) return body;
  return fail(ErrorCode::invalid_argument, cat("the key \"", shortened(notes.first_unknown), "\" is unknown"),
              notes.first_unknown);
}

}  // namespace

Result<std::string> read_backup(std::string_view text) {
  BackupBody body = LOCKSTEP_TRY(read_strictly<BackupBody>(text));
  const bool is_path =
      body.file.starts_with('/') && !body.file.ends_with('/') && body.file.size() <= 4000 && !body.file.contains('\0');
  if (is_path) return std::move(body.file);
  return fail(ErrorCode::invalid_argument,
              cat("file is \"", shortened(body.file), "\"; it must be a path from the root, of at most 4000 bytes"),
              "/file");
}

Result<in::AddModel> read_add_model(std::string_view text) {
  const AddModelBody body = LOCKSTEP_TRY(read_strictly<AddModelBody>(text));
  in::AddModel out{0, body.path, body.name.value_or(""), body.mode == "link"};
  if (body.mode && *body.mode != "link" && *body.mode != "copy") {
    return fail(ErrorCode::invalid_argument, cat("mode is \"", shortened(*body.mode), "\"; it must be copy or link"),
                "/mode");
  }
  if (out.path.contains('\0') || out.path.size() > 4096) {
    return fail(ErrorCode::invalid_argument, "path is no path: it must be at most 4096 bytes without a zero", "/path");
  }
  if (!body.name) {
    std::string_view last = out.path;
    while (last.ends_with('/')) last.remove_suffix(1);
    last = last.substr(last.rfind('/') + 1);
    if (last.ends_with(".safetensors")) last.remove_suffix(std::string_view(".safetensors").size());
    out.name = last;
  }
  if (is_plain_name(out.name)) return out;
  return fail(
      ErrorCode::invalid_argument,
      cat("name is \"", shortened(out.name), "\"; it must be 1 to 128 of a-z A-Z 0-9 . _ - and not begin with a dot"),
      "/name");
}

Result<LoadChoice> read_load_choice(std::string_view text) {
  if (text.empty()) return LoadChoice{};
  return read_strictly<LoadChoice>(text);
}

bool has_token(std::string_view header, std::string_view token) {
  bool found = false;
  each_piece(header, ',', [&](std::string_view piece) { found = found || same_letters(trimmed(piece), token); });
  return found;
}

bool origin_allowed(std::string_view origin, std::string_view host, bool on_loopback) {
  constexpr std::string_view scheme = "://";
  const std::size_t at = origin.find(scheme);
  if (at == std::string_view::npos) return false;  // "null": a sandboxed page or a file
  if (!same_letters(origin.substr(at + scheme.size()), host)) return false;
  return !on_loopback || is_loopback_name(without_port(host));
}

std::string base64(std::string_view bytes) {
  // EVP_EncodeBlock counts in int; pieces of a multiple of three bytes join without padding between them.
  constexpr std::size_t piece_max = 3u << 24;
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4 + 1);
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, piece_max);
    const std::size_t before = out.size();
    const std::size_t length = (piece.size() + 2) / 3 * 4;
    out.resize(before + length + 1);  // it writes a final zero
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data() + before),
                    reinterpret_cast<const unsigned char*>(piece.data()), static_cast<int>(piece.size()));
    out.resize(before + length);
    bytes.remove_prefix(piece.size());
  }
  return out;
}

std::string images_text(const out::ReplyImages& reply, const std::string& base_url,
                        const std::vector<std::string>& files) {
  ImagesBody body;
  body.created = reply.created.ms / 1000;
  body.lockstep.request_id = reply.request_id;
  for (std::size_t i = 0; i < reply.images.size(); ++i) {
    const out::ImageReply& each = reply.images[i];
    ImageEntry entry;
    if (reply.as_url) {
      const ImageFormat* const format = image_format(each.image.format);
      entry.url =
          cat(base_url, "/api/v1/outputs/", each.image.sha256, format == nullptr ? std::string_view() : format->suffix);
    } else {
      entry.b64_json = base64(files.at(i));
    }
    body.data.push_back(std::move(entry));
    body.lockstep.images.push_back({each.image.sha256, each.seed, each.image.width, each.image.height});
  }
  if (!reply.images.empty()) {
    body.output_format = reply.images.front().image.format;
    body.size = cat(reply.images.front().image.width, "x", reply.images.front().image.height);
  }
  return json::to_text(body);
}

std::string event_text(Rev rev, WallTime time, const CommitEvent& event, bool last_of_rev) {
  EventLine line{std::nullopt, to_rfc3339(time), event.type, event.subject, event.body, {}, {}, event.session};
  if (const EventFacts facts = event_facts(event.type, event.body.text); facts.domain) {
    line.urgency = facts.urgency;
    line.domain = facts.domain;
  }
  std::string out;
  if (rev.value > 0) {
    line.rev = rev;
    if (last_of_rev) out = cat("id: ", rev.value, "\n");
  }
  out += cat("event: ", event.type, "\ndata: ");
  json::write(out, line);
  out += "\n\n";
  return out;
}

std::string events_text(Rev rev, WallTime time, const std::vector<CommitEvent>& events) {
  std::string out;
  for (const CommitEvent& event : events) out += event_text(rev, time, event, &event == &events.back());
  return out;
}

}  // namespace lockstep::http

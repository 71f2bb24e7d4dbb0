#include "cli/generate.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/image_header.h"
#include "base/text.h"
#include "cli/answer.h"
#include "cli/progress.h"
#include "cli/show.h"
#include "events/json_read.h"
#include "http/shapes.h"

namespace lockstep::cli {

namespace {

using std::chrono::steady_clock;

constexpr int look_every_ms = 1000;              // the safety net beside the event stream
constexpr std::chrono::seconds silence_max{60};  // of a server that restarts, say
struct Accepted {
  RequestId request_id;
  std::string state;
};
BOOST_DESCRIBE_STRUCT(Accepted, (), (request_id, state))

struct SavedImage {
  std::string file;
  std::string sha256;
  std::uint64_t seed = 0;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};
BOOST_DESCRIBE_STRUCT(SavedImage, (), (file, sha256, seed, width, height))

struct Summary {
  RequestId request_id;
  std::vector<SavedImage> images;
  double seconds = 0;
};
BOOST_DESCRIBE_STRUCT(Summary, (), (request_id, images, seconds))

/// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t interrupts = 0;

/// While it lives, the first Ctrl-C is only counted; the second ends the program as usual.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupts = 0;
    struct sigaction action{};
    action.sa_handler = [](int) { interrupts = interrupts + 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // and no SA_RESTART: a wait has to end
    ::sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { ::sigaction(SIGINT, &before_, nullptr); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_{};
};

Result<std::string> get(const http::Address& address, const std::string& target) {
  http::Response response = LOCKSTEP_TRY(http::request(address, "GET", target));
  if (response.status != 200) return http::error_from(response);
  return std::move(response.body);
}

Result<RequestView> look(const http::Address& address, const RequestId& request) {
  const std::string text = LOCKSTEP_TRY(get(address, cat("/api/v1/requests/", request.str())));
  return json::from_text<RequestView>(text, nullptr, view_limits);
}

/// The file appears whole or not at all.
Status write_file(const std::string& file, std::string_view bytes) {
  const std::string part = cat(file, ".part-", ::getpid());
  const auto failed = [&] {
    const int error = errno;
    ::unlink(part.c_str());
    return fail(ErrorCode::internal, cat("cannot write ", file, ": ", std::strerror(error)));
  };
  const int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return failed();
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      ::close(fd);
      return failed();
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::close(fd) != 0 || ::rename(part.c_str(), file.c_str()) != 0) return failed();
  return {};
}

/// Minutes of work must not end at a folder that is not there.
Status writable_folder(const std::string& file) {
  const std::filesystem::path parent = std::filesystem::path(file).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return {};
  return fail(ErrorCode::invalid_argument, cat("cannot write into ", folder, ": ", std::strerror(errno)));
}

/// Follows one request until it ended.
class Watch {
 public:
  Watch(const http::Address& address, Progress& progress, std::uint32_t n)
      : address_(address), progress_(progress), n_(n) {
    reopen();
  }

  /// unavailable when the server stays silent; cancelled after Ctrl-C, once the server was told.
  Result<RequestView> until_the_end(const RequestId& request) {
    auto heard = steady_clock::now();
    auto looked = heard;
    while (true) {
      if (interrupts > 0) return cancel(request);
      const bool ended = listen(request);
      const auto now = steady_clock::now();
      if (!ended && now - looked < std::chrono::milliseconds(look_every_ms)) continue;
      looked = now;
      auto view = look(address_, request);
      if (view) {
        heard = now;
        told_silence_ = false;
        if (view->state != "accepted") return *std::move(view);
        show_jobs(*view);
        continue;
      }
      if (view.error().code != ErrorCode::unavailable) return view.error();
      if (now - heard > silence_max) {
        return fail(ErrorCode::unavailable, cat(view.error().message, "; the request goes on when the server does: ",
                                                "lockstep requests ", request.str()));
      }
      if (!std::exchange(told_silence_, true)) progress_.say("the server is away; the request is kept, waiting for it");
    }
  }

 private:
  void reopen() {
    auto opened = http::EventStream::open(address_, "/api/v1/events");
    if (opened) stream_ = *std::move(opened);
  }

  /// Waits for the next event or a second. True when the request may have ended.
  bool listen(const RequestId& request) {
    if (!stream_) {
      ::poll(nullptr, 0, look_every_ms);
      if (interrupts == 0) reopen();
      return true;
    }
    auto next = stream_->next(look_every_ms);
    if (!next) {
      stream_.reset();
      return true;
    }
    if (!*next) return true;
    const auto event = json::from_text<http::EventLine>((*next)->data, nullptr, view_limits);
    if (!event || event->subject != request.str()) return false;
    if (const auto step = step_of(*event, n_)) progress_.show(*step);
    return event->type == "request_completed" || event->type == "request_failed";
  }

  void show_jobs(const RequestView& view) {
    for (const JobView& job : view.jobs) {
      if (job.waits_for.find("set aside") != std::string::npos) progress_.show({cat("waiting: ", job.waits_for)});
      if (!stream_ && !job.doing.empty())
        progress_.show({cat(job.doing, " ", static_cast<int>(job.percent), " %"), job.percent});
    }
  }

  Error cancel(const RequestId& request) {
    progress_.clear();
    const auto response = http::request(address_, "POST", cat("/api/v1/requests/", request.str(), "/cancel"));
    if (!response) {
      return fail(ErrorCode::cancelled, cat("interrupted, but the request may go on: ", response.error().message));
    }
    const bool done = response->status == 200;
    return fail(ErrorCode::cancelled,
                cat("interrupted: ", done ? cat(request.str(), " is cancelled") : http::error_from(*response).message));
  }

  const http::Address address_;
  Progress& progress_;
  const std::uint32_t n_;
  std::unique_ptr<http::EventStream> stream_;
  bool told_silence_ = false;
};

Result<SavedImage> save(const http::Address& address, const JobView& job, const std::string& file) {
  const std::string& sha256 = job.output->sha256;
  const std::string bytes = LOCKSTEP_TRY(get(address, cat("/api/v1/outputs/", sha256)));
  if (sha256_hex(bytes) != sha256) {
    return fail(ErrorCode::data_loss, cat("image ", job.index, " did not arrive as it was stored; it is not written"));
  }
  LOCKSTEP_TRY_STATUS(write_file(file, bytes));
  return SavedImage{file, sha256, job.seed, job.output->width, job.output->height};
}

std::string workers_of(const JobView& job) {
  std::string out = job.inference_worker.str();
  if (!job.postprocessing_worker.empty() && job.postprocessing_worker != job.inference_worker) {
    out += cat(out.empty() ? "" : ", ", job.postprocessing_worker.str());
  }
  return out.empty() ? "" : cat(", by ", harmless(out));
}

std::string seconds_text(double seconds) {
  char text[32];
  const int length = std::snprintf(text, sizeof text, "%.1f s", seconds);
  return std::string(text, static_cast<std::size_t>(length));
}

Result<Accepted> ask(const http::Address& address, const GenerateOptions& options) {
  std::map<std::string, std::string> headers{{"Content-Type", "application/json"}, {"Prefer", "respond-async"}};
  if (!options.key.empty()) headers.emplace("Idempotency-Key", options.key);
  const http::Response response = LOCKSTEP_TRY(
      http::request(address, "POST", "/v1/images/generations", json::to_text(options.body), std::move(headers)));
  if (response.status != 202) return http::error_from(response);
  return json::from_text<Accepted>(response.body);
}

ExitCode code_of_failure(const processing::Failure& failure) {
  // It was accepted and ran: "unavailable" would send people to look for the server.
  const ExitCode code = exit_code_of(error_code_named(failure.code));
  const bool told_apart = code == ExitCode::blocked || code == ExitCode::exhausted;
  return told_apart ? code : ExitCode::failed;
}

}  // namespace

Result<std::optional<std::string>> format_to_ask(const std::optional<std::string>& named, const std::string& file) {
  std::string extension = std::filesystem::path(file).extension().string();
  for (char& letter : extension) letter = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
  if (extension == ".jpeg") extension = ".jpg";
  const auto* const meant = std::ranges::find(image_formats, extension, &ImageFormat::suffix);
  if (meant == std::end(image_formats) || meant->name == named) return named;
  if (!named) return std::optional(std::string(meant->name));
  return fail(ErrorCode::invalid_argument,
              cat("--format is ", shortened(*named), ", and ", file, " would be ", meant->name, " by its name"));
}

std::string file_name(const std::string& file, const RequestId& request, std::uint32_t index, std::uint32_t n,
                      std::string_view format) {
  if (file.empty()) {
    const ImageFormat* const known = image_format(format);
    return cat("lockstep-", request.str(), "-", index, known == nullptr ? std::string_view() : known->suffix);
  }
  if (n <= 1) return file;
  const std::filesystem::path path(file);
  std::filesystem::path out = path.parent_path() / path.stem();
  out += cat("-", index);
  out += path.extension();
  return out.string();
}

ExitCode generate(const http::Address& address, GenerateOptions options) {
  auto format = format_to_ask(options.body.output_format, options.file);
  if (!format) return tell(format.error());
  // PNG is what comes anyhow; a server of an earlier release does not know the key.
  if (options.body.output_format || *format != "png") options.body.output_format = *std::move(format);
  if (!options.no_wait) {
    if (const Status good = writable_folder(options.file); !good) return tell(good.error());
  }
  const auto started = steady_clock::now();
  if (options.no_wait) {
    const auto accepted = ask(address, options);
    if (!accepted) return tell(accepted.error());
    if (options.json) {
      std::puts(json::to_text(*accepted).c_str());
    } else {
      std::puts(cat("accepted: lockstep requests ", accepted->request_id.str()).c_str());
    }
    return ExitCode::done;
  }

  const InterruptGuard guard;
  Progress progress(stderr_screen());
  const std::uint32_t n = options.body.n.value_or(1);
  Watch watch(address, progress, n);  // before asking, so that nothing is missed
  const auto accepted = ask(address, options);
  if (!accepted) {
    progress.clear();
    return tell(accepted.error());
  }
  if (!is_plain_name(accepted->request_id.str())) {
    return tell(fail(ErrorCode::internal, "the server's request id is no plain name"));
  }
  const auto view = watch.until_the_end(accepted->request_id);
  progress.clear();
  if (!view) {
    const ExitCode code = tell(view.error());
    return view.error().code == ErrorCode::cancelled ? ExitCode::interrupted : code;
  }
  if (view->state != "completed") {
    const auto failure = view->failure.value_or(processing::Failure{"internal", "it failed"});
    tell(fail(error_code_named(failure.code), failure.message));
    return code_of_failure(failure);
  }

  Summary summary{accepted->request_id, {}, 0};
  for (const JobView& job : view->jobs) {
    if (!job.output) continue;
    const std::string file = file_name(options.file, accepted->request_id, job.index, n, job.output->format);
    auto saved = save(address, job, file);
    if (!saved) return tell(saved.error());
    summary.images.push_back(*std::move(saved));
  }
  summary.seconds = std::chrono::duration<double>(steady_clock::now() - started).count();
  if (options.json) {
    std::puts(json::to_text(summary).c_str());
    return ExitCode::done;
  }
  std::size_t at = 0;
  for (const JobView& job : view->jobs) {
    if (!job.output) continue;
    const SavedImage& image = summary.images[at++];
    std::puts(cat(image.file, "  ", image.width, "x", image.height, "  seed ", image.seed, "  ",
                  seconds_text(summary.seconds), workers_of(job))
                  .c_str());
  }
  return ExitCode::done;
}

}  // namespace lockstep::cli

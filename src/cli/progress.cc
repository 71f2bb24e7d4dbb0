#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/text.h"

namespace lockstep::cli {

namespace {

constexpr std::size_t bar_columns = 24;

void put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

Screen stderr_screen() {
  Screen screen;
  const char* const terminal = std::getenv("TERM");
  screen.terminal = ::isatty(STDERR_FILENO) != 0 && terminal != nullptr && std::string_view(terminal) != "dumb";
  const char* const no_color = std::getenv("NO_COLOR");  // any value that is not empty: no-color.org
  screen.color = screen.terminal && (no_color == nullptr || *no_color == '\0');
  winsize window{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) screen.width = window.ws_col;
  return screen;
}

std::string bar_text(const Step& step, const Screen& screen) {
  const std::string words = harmless(step.words);
  // The last column stays empty: some terminals wrap when it is written.
  const std::size_t room = screen.width > 1 ? screen.width - 1 : 1;
  if (step.percent < 0 || room < bar_columns + 20) return words.substr(0, room);
  const double share = std::clamp(step.percent / 100, 0.0, 1.0);
  const auto full = static_cast<std::size_t>(share * bar_columns + 0.5);
  const std::string done(full, '=');
  const std::string open(bar_columns - full, ' ');
  const std::string_view on = screen.color ? "\x1b[32m" : "";
  const std::string_view off = screen.color ? "\x1b[0m" : "";
  return cat("[", on, done, off, open, "] ", words.substr(0, room - bar_columns - 3));
}

void Progress::show(const Step& step) {
  if (step == last_) return;
  last_ = step;
  if (!screen_.terminal) return put(harmless(step.words) + "\n");
  put(cat("\r", bar_text(step, screen_), "\x1b[K"));
  drawn_ = true;
}

void Progress::say(const std::string& words) {
  clear();
  put(harmless(words) + "\n");
}

void Progress::clear() {
  if (drawn_) put("\r\x1b[K");
  drawn_ = false;
}

}  // namespace lockstep::cli

#pragma once

// How a wait looks on stderr: one line with a bar on a terminal, plain lines elsewhere.

#include <string>

#include "cli/show.h"

namespace lockstep::cli {

struct Screen {
  bool terminal = false;
  bool color = false;
  std::size_t width = 80;
};
/// stderr as it is: a terminal that can move its cursor, NO_COLOR, the width of the window.
Screen stderr_screen();

/// One line of at most `width` columns: bar, then words.
std::string bar_text(const Step& step, const Screen& screen);

class Progress {
 public:
  explicit Progress(Screen screen) : screen_(screen) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const Step& step);
  /// A sentence that stays.
  void say(const std::string& words);
  void clear();

 private:
  Screen screen_;
  Step last_;
  bool drawn_ = false;
};

}  // namespace lockstep::cli

#include "cli/answer.h"

#include <cstdio>

namespace lockstep::cli {

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace lockstep::cli

#include "state/commit.h"

#include "events/json_read.h"

namespace lockstep {

std::string encode(const Commit& commit) { return json::to_text(commit); }

Result<Commit> decode_commit(std::string_view text) {
  auto commit = json::from_text<Commit>(text, nullptr, {.size_max = 64u << 20, .depth_max = 40});
  if (!commit) {
    return fail(ErrorCode::data_loss, cat("journal record is not a commit: ", commit.error().message),
                commit.error().pointer);
  }
  return commit;
}

}  // namespace lockstep

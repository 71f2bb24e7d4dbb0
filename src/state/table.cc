#include "state/table.h"

#include "base/digest.h"
#include "base/text.h"

namespace lockstep {

std::string with_defaults(std::string_view row, std::string_view defaults) {
  const std::size_t end = row.rfind('}');
  if (end == std::string_view::npos) return std::string(row);
  const bool empty = row.find_first_not_of(" {") == end;
  return cat(row.substr(0, end), empty ? "" : ",", defaults, row.substr(end));
}

std::string digest_of(Rev rev, const std::vector<RowText>& rows) {
  Sha256 hash;
  const auto field = [&](std::string_view text) { hash.add(cat(text.size(), ":", text, "\n")); };
  field(cat(rev.value));
  for (const RowText& row : rows) {
    field(row.table);
    field(row.key);
    field(cat(row.mod_rev.value));
    field(row.value);
  }
  return hash.hex();
}

}  // namespace lockstep

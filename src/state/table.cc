#include "state/table.h"

#include "base/digest.h"
#include "base/text.h"

namespace lockstep {

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
